//! Custom resource definitions: their defaults and rules, and the resource each of them adds.

use serde_json::{Value, json};

use super::names::{NameRule, version_rank};
use super::{Registry, Resource, Version};
use crate::schema::{Cause, StructuralSchema};
use crate::store::{text, texts};

/// What a definition adds, and what it is told about that.
#[derive(Debug)]
pub struct Definition {
    /// The resource; `None` while its names are taken by another.
    pub resource: Option<Resource>,
    /// The definition's new `status`.
    pub status: Value,
}

/// Fills in what a definition may leave out.
pub(super) fn default(value: &mut Value) {
    let kind = text(value, "/spec/names/kind").to_owned();
    if let Some(names) = value.pointer_mut("/spec/names").and_then(Value::as_object_mut) {
        names.entry("singular").or_insert_with(|| kind.to_lowercase().into());
        names.entry("listKind").or_insert_with(|| format!("{kind}List").into());
    }
    if let Some(spec) = value.pointer_mut("/spec").and_then(Value::as_object_mut) {
        let conversion = spec.entry("conversion").or_insert(Value::Null);
        if conversion.is_null() {
            *conversion = json!({"strategy": "None"});
        }
    }
}

/// What a new definition gets. Its status follows when it is taken into the registry.
pub(super) fn on_create(value: &mut Value) {
    let stored = storage_version(value);
    if let Some(object) = value.as_object_mut() {
        let names = json!({"kind": "", "plural": ""});
        object.insert(
            "status".into(),
            json!({"acceptedNames": names, "conditions": null, "storedVersions": [stored]}),
        );
    }
}

/// What a changed definition keeps.
pub(super) fn on_update(value: &mut Value) {
    let stored = storage_version(value);
    let mut versions = texts(value, "/status/storedVersions");
    if !versions.contains(&stored) {
        versions.push(stored);
        value["status"]["storedVersions"] = json!(versions);
    }
}

fn versions(value: &Value) -> &[Value] {
    value.pointer("/spec/versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn storage_version(value: &Value) -> String {
    let storage = versions(value).iter().find(|version| version["storage"] == true);
    storage.map(|version| text(version, "/name").to_owned()).unwrap_or_default()
}

/// Checks a definition, and its change when there is an `old` one.
pub(super) fn validate(value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &value["spec"];
    let (group, plural) = (text(spec, "/group"), text(spec, "/names/plural"));
    let name = text(value, "/metadata/name");
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !group.contains('.') {
        causes.push(Cause::invalid("spec.group", &group.into(), "should be a domain with at least one dot"));
    } else {
        NameRule::Subdomain.check("spec.group", group, &mut causes);
    }
    if name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &name.into(), why));
    }
    for field in ["plural", "singular", "kind", "listKind"] {
        let found = text(spec, &format!("/names/{field}"));
        if found.is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        } else {
            NameRule::Label1035.check(&format!("spec.names.{field}"), &found.to_lowercase(), &mut causes);
        }
    }
    let scopes = ["Cluster", "Namespaced"];
    if !scopes.contains(&text(spec, "/scope")) {
        causes.push(Cause::not_supported("spec.scope", &spec["scope"], &scopes));
    }
    if text(spec, "/conversion/strategy") != "None" {
        causes.push(Cause::not_supported(
            "spec.conversion.strategy",
            &spec["conversion"]["strategy"],
            &["None"],
        ));
    }
    let versions = versions(value);
    if versions.is_empty() {
        causes.push(Cause::required(
            "spec.versions",
            "must have exactly one version marked as storage version",
        ));
    } else if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
    for (at, version) in versions.iter().enumerate() {
        let field = |name: &str| format!("spec.versions[{at}].{name}");
        let name = text(version, "/name");
        NameRule::Label1035.check(&field("name"), name, &mut causes);
        if versions[..at].iter().any(|other| text(other, "/name") == name) {
            causes.push(Cause::duplicate(field("name"), &version["name"]));
        }
        match version.pointer("/schema/openAPIV3Schema") {
            None => causes.push(Cause::required(field("schema.openAPIV3Schema"), "schemas are required")),
            Some(schema) => {
                if let Err(found) = StructuralSchema::from_crd_version(schema) {
                    causes.extend(found.into_iter().map(|mut cause| {
                        let inner =
                            if cause.field == "<nil>" { String::new() } else { format!(".{}", cause.field) };
                        cause.field = format!("{}{inner}", field("schema.openAPIV3Schema"));
                        cause
                    }));
                }
            }
        }
    }
    if let Some(old) = old {
        for (field, pointer) in [
            ("spec.group", "/spec/group"),
            ("spec.scope", "/spec/scope"),
            ("spec.names.plural", "/spec/names/plural"),
            ("spec.names.kind", "/spec/names/kind"),
        ] {
            let found = text(value, pointer);
            if found != text(old, pointer) {
                causes.push(Cause::invalid(field, &found.into(), "field is immutable"));
            }
        }
        let names: Vec<&str> = versions.iter().map(|version| text(version, "/name")).collect();
        for (at, stored) in texts(value, "/status/storedVersions").iter().enumerate() {
            if !names.contains(&stored.as_str()) {
                let why = "must appear in spec.versions";
                causes.push(Cause::invalid(
                    format!("status.storedVersions[{at}]"),
                    &stored.as_str().into(),
                    why,
                ));
            }
        }
    }
    causes
}

/// The resource that a definition adds to `registry`, and the status that says so. `None` while the definition is
/// not usable, which its validation has ruled out.
pub fn accept_definition(registry: &Registry, value: &Value, timestamp: &str) -> Option<Definition> {
    let spec = &value["spec"];
    let id = text(value, "/metadata/name");
    let string = |pointer: &str| text(spec, pointer).to_owned();
    let names_taken = |field: &str, wanted: &[String]| {
        let others =
            registry.resources().filter(|other| *other.group == *text(spec, "/group") && *other.id != *id);
        let mut taken = others.flat_map(|other| {
            let mut names = other.short_names.clone();
            match field {
                "kind" => vec![other.kind.clone(), other.list_kind.clone()],
                _ => {
                    names.extend([other.plural.clone(), other.singular.clone()]);
                    names
                }
            }
        });
        taken.find(|name| wanted.contains(name))
    };
    let mut names = texts(spec, "/names/shortNames");
    names.extend([string("/names/plural"), string("/names/singular")]);
    let kinds = [string("/names/kind"), string("/names/listKind")];
    let conflict = names_taken("names", &names).or_else(|| names_taken("kind", &kinds));

    let mut versions = versions(value).iter().map(version).collect::<Option<Vec<Version>>>()?;
    let storage_name = storage_version(value);
    versions.sort_by_key(|version| std::cmp::Reverse(version_rank(&version.name)));
    let storage = versions.iter().position(|version| version.name == storage_name)?;
    let resource = Resource {
        id: id.into(),
        group: string("/group"),
        plural: string("/names/plural"),
        singular: string("/names/singular"),
        kind: string("/names/kind"),
        list_kind: string("/names/listKind"),
        short_names: texts(spec, "/names/shortNames"),
        categories: texts(spec, "/names/categories"),
        namespaced: text(spec, "/scope") == "Namespaced",
        generation: true,
        needs_revision: true,
        create_on_update: false,
        versions,
        storage,
        builtin: None,
    };
    let mut status = value["status"].clone();
    let (accepted, why, established, message) = match &conflict {
        None => ("True", "NoConflicts", "True", "no conflicts found".to_owned()),
        Some(name) => ("False", "NameConflict", "False", format!("\"{name}\" is already in use")),
    };
    let (established_why, established_message) = match established {
        "True" => ("InitialNamesAccepted", "the initial names have been accepted"),
        _ => ("NotAccepted", "not all names are accepted"),
    };
    set_condition(&mut status, "NamesAccepted", accepted, why, &message, timestamp);
    set_condition(&mut status, "Established", established, established_why, established_message, timestamp);
    if value.pointer("/metadata/deletionTimestamp").is_some() {
        let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(&mut status, "Terminating", "True", "InstanceDeletionPending", why, timestamp);
    }
    if conflict.is_none() {
        status["acceptedNames"] = spec["names"].clone();
    } else {
        status["acceptedNames"] = json!({"kind": "", "plural": ""});
    }
    Some(Definition { resource: conflict.is_none().then_some(resource), status })
}

fn version(value: &Value) -> Option<Version> {
    let schema = value.pointer("/schema/openAPIV3Schema")?;
    let selectable = value["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let deprecated = value["deprecated"] == true;
    Some(Version {
        name: text(value, "/name").to_owned(),
        served: value["served"] == true,
        status: value.pointer("/subresources/status").is_some_and(|status| !status.is_null()),
        schema: Some(StructuralSchema::from_crd_version(schema).ok()?),
        openapi: schema.clone(),
        columns: value["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
        selectable: selectable
            .iter()
            .map(|field| text(field, "/jsonPath").trim_start_matches('.').to_owned())
            .collect(),
        deprecation: deprecated.then(|| text(value, "/deprecationWarning").to_owned()),
    })
}

fn set_condition(status: &mut Value, kind: &str, state: &str, reason: &str, message: &str, timestamp: &str) {
    if !status.is_object() {
        *status = json!({});
    }
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let found = conditions.iter_mut().find(|condition| condition["type"] == kind);
    let unchanged = found.as_ref().is_some_and(|condition| condition["status"] == state);
    let since = match &found {
        Some(condition) if unchanged => text(condition, "/lastTransitionTime").to_owned(),
        _ => timestamp.to_owned(),
    };
    let condition = json!({"type": kind, "status": state, "reason": reason, "message": message, "lastTransitionTime": since});
    match found {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}
