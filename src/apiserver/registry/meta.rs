//! Object metadata: its shape, its rules, and what of it a client decides.

use serde_json::{Map, Value, json};

use super::names::{NameRule, check_labels, check_qualified};
use crate::schema::Cause;
use crate::status::ApiError;
use crate::store::{text, texts};

/// The fields of `ObjectMeta` and the JSON type of each.
const FIELDS: [(&str, Shape); 15] = [
    ("name", Shape::Text),
    ("generateName", Shape::Text),
    ("namespace", Shape::Text),
    ("uid", Shape::Text),
    ("resourceVersion", Shape::Text),
    ("selfLink", Shape::Text),
    ("creationTimestamp", Shape::Text),
    ("deletionTimestamp", Shape::Text),
    ("generation", Shape::Number),
    ("deletionGracePeriodSeconds", Shape::Number),
    ("labels", Shape::Texts),
    ("annotations", Shape::Texts),
    ("finalizers", Shape::List),
    ("ownerReferences", Shape::List),
    ("managedFields", Shape::List),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Number,
    Texts,
    List,
}

impl Shape {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_i64() || value.is_u64(),
            Self::Texts => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
            Self::List => value.is_array(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "int64",
            Self::Texts => "map[string]string",
            Self::List => "array",
        }
    }
}

/// Largest sum of the sizes of all annotations, in bytes.
const ANNOTATIONS_LIMIT: i64 = 256 * 1024;

/// Brings `metadata` into shape: drops what is unknown or null (telling what in `dropped`), refuses wrong types.
pub(super) fn shape(
    value: &mut Value,
    kind: &str,
    version: &str,
    builtin: bool,
    dropped: &mut Vec<String>,
) -> Result<(), ApiError> {
    let wrong = |found: &Value, field: &str, wanted: &str| {
        let found = super::shape::go_json_type(found);
        ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: json: cannot unmarshal {found} into Go \
             struct field ObjectMeta.{field} of type {wanted}"
        ))
    };
    let Some(object) = value.as_object_mut() else { return Ok(()) };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let found = metadata.clone();
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(wrong(&found, "metadata", "ObjectMeta"));
    };
    // Whose fields are whose is recorded when the object is stored (`crate::apply`).
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    let mut failure = None;
    metadata.retain(|field, value| match FIELDS.iter().find(|(known, _)| known == field) {
        None => {
            dropped.push(format!("metadata.{field}"));
            false
        }
        Some(_) if value.is_null() => false,
        Some((_, shape)) => {
            if !shape.fits(value) {
                // The decoder of built-in kinds names the whole path, that of custom resources begins anew.
                let path = if builtin { format!("metadata.{field}") } else { field.clone() };
                let inner =
                    value.as_object().into_iter().flat_map(Map::values).find(|value| !value.is_string());
                failure.get_or_insert_with(|| match inner {
                    Some(inner) if *shape == Shape::Texts => wrong(inner, &path, "string"),
                    _ => wrong(value, &path, shape.name()),
                });
            }
            true
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = metadata.get(field).is_some_and(|value| {
            value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
        });
        if empty {
            metadata.remove(field);
        }
    }
    Ok(())
}

/// Checks everything of the metadata but its immutability.
pub(super) fn validate(value: &Value, rule: NameRule, causes: &mut Vec<Cause>) {
    let metadata = &value["metadata"];
    let name = text(metadata, "/name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        rule.check("metadata.name", name, causes);
    }
    check_labels("metadata.labels", &metadata["labels"], causes);
    let mut size = 0_usize;
    for (key, annotation) in metadata["annotations"].as_object().into_iter().flatten() {
        check_qualified("metadata.annotations", &key.to_lowercase(), causes);
        size += key.len() + annotation.as_str().unwrap_or_default().len();
    }
    if i64::try_from(size).unwrap_or(i64::MAX) > ANNOTATIONS_LIMIT {
        causes.push(Cause::too_long("metadata.annotations", ANNOTATIONS_LIMIT));
    }
    for (at, finalizer) in texts(value, "/metadata/finalizers").into_iter().enumerate() {
        check_qualified("metadata.finalizers", &finalizer, causes);
        let standard = ["orphan", "foregroundDeletion", "kubernetes"].contains(&finalizer.as_str());
        if !standard && !finalizer.contains('/') && !finalizer.contains('.') {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(format!("metadata.finalizers[{at}]"), &finalizer.into(), why));
        }
    }
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    for owner in owners {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, &format!("/{field}")).is_empty() {
                let place = format!("metadata.ownerReferences.{field}");
                causes.push(Cause::invalid(place, &"".into(), why));
            }
        }
    }
    let controllers = owners.iter().filter(|owner| owner["controller"] == true).count();
    if controllers > 1 {
        let why = "Only one reference can have Controller set to true";
        causes.push(Cause::invalid("metadata.ownerReferences", &metadata["ownerReferences"], why));
    }
}

/// Checks that an object in deletion gets no new finalizers.
pub(super) fn validate_update(new: &Value, old: &Value, causes: &mut Vec<Cause>) {
    if old.pointer("/metadata/deletionTimestamp").is_none() {
        return;
    }
    let before = texts(old, "/metadata/finalizers");
    let added: Vec<String> =
        texts(new, "/metadata/finalizers").into_iter().filter(|name| !before.contains(name)).collect();
    if !added.is_empty() {
        let list: Vec<String> = added.iter().map(|name| format!("\"{name}\"")).collect();
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            list.join(", ")
        );
        causes.push(Cause::forbidden("metadata.finalizers", &why));
    }
}

/// `PartialObjectMetadata` of an object.
pub fn metadata_only(value: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": value["metadata"]})
}

/// A name from `generateName` and five letters, chosen by `random` numbers.
pub fn generate_name(base: &str, random: impl Iterator<Item = usize>) -> String {
    // Without vowels and look-alikes, so that no words arise.
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let base: String = base.chars().take(58).collect();
    let letters =
        random.take(5).filter_map(|number| LETTERS.get(number % LETTERS.len())).map(|byte| char::from(*byte));
    base.chars().chain(letters).collect()
}
