//! From what a client sends to what is stored: which fields the client decides, which the server fills in, and what
//! is refused. Pure: time and random values come in with [`Fresh`].

use serde_json::Value;

use super::convert::{convert, to_storage};
use super::names::NameRule;
use super::{Builtin, Resource, crd, defaults, meta, shape, validation};
use crate::schema::Cause;
use crate::status::{ApiError, Named};
use crate::store::{Key, metadata_mut, text};

/// What a write addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The object.
    Main,
    /// Its `status`.
    Status,
    /// A namespace's `spec.finalizers`.
    Finalize,
}

/// Values for a new object.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub timestamp: String,
    /// The suffix source for `generateName`.
    pub random: [usize; 5],
}

/// What a client sent, in the shape of its kind.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The object, with defaults, in the version of the request.
    pub value: Value,
    /// Paths of fields that the schema does not know and that were dropped.
    pub dropped: Vec<String>,
}

fn name_rule(resource: &Resource) -> NameRule {
    match resource.builtin {
        Some(Builtin::Namespace) => NameRule::Label,
        Some(Builtin::Service) => NameRule::Label1035,
        _ => NameRule::Subdomain,
    }
}

/// Makes a new object, in its storage version, of what a client sent to `namespace` (empty for cluster-scoped
/// resources).
pub fn prepare_create(
    resource: &Resource,
    version: usize,
    namespace: &str,
    mut value: Value,
    fresh: &Fresh,
) -> Result<Value, ApiError> {
    check_namespace(resource, namespace, &value)?;
    let metadata = metadata_mut(&mut value);
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|revision| !revision.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        metadata.remove(field);
    }
    if resource.namespaced {
        metadata.insert("namespace".into(), namespace.into());
    }
    let base = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default().to_owned();
    if metadata.get("name").and_then(Value::as_str).unwrap_or_default().is_empty() && !base.is_empty() {
        metadata.insert("name".into(), meta::generate_name(&base, fresh.random.into_iter()).into());
    }
    metadata.insert("uid".into(), fresh.uid.clone().into());
    metadata.insert("creationTimestamp".into(), fresh.timestamp.clone().into());
    if resource.generation {
        metadata.insert("generation".into(), 1.into());
    }
    if resource.versions[version].status && resource.builtin != Some(Builtin::Namespace) {
        remove_field(&mut value, "status");
    }
    if let Some(builtin) = resource.builtin {
        defaults::on_create(builtin, &mut value);
    }
    let causes = validate(resource, version, Target::Main, &value, None);
    refuse(resource, &value, &causes)?;
    Ok(to_storage(resource, value))
}

/// Makes the next state, in its storage version, of `old` (in version `version`) of what a client sent to `key`.
pub fn prepare_update(
    resource: &Resource,
    version: usize,
    target: Target,
    key: &Key,
    old: &Value,
    mut value: Value,
) -> Result<Value, ApiError> {
    check_namespace(resource, &key.namespace, &value)?;
    let name = text(&value, "/metadata/name");
    if name.is_empty() {
        return Err(ApiError::bad_request("name must be provided"));
    }
    if name != key.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    let uid = text(&value, "/metadata/uid");
    let old_uid = text(old, "/metadata/uid");
    if !uid.is_empty() && uid != old_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
        return Err(ApiError::conflict(resource.named(), &key.name, &why));
    }
    let mut next = match target {
        Target::Main => {
            if resource.versions[version].status {
                copy_field(old, &mut value, "status");
            }
            if resource.builtin == Some(Builtin::Namespace) {
                copy_field(old, &mut value, "spec");
            }
            value
        }
        Target::Status => {
            let mut next = old.clone();
            copy_field(&value, &mut next, "status");
            next
        }
        Target::Finalize => {
            let mut next = old.clone();
            copy_field(&value, &mut next, "spec");
            next
        }
    };
    if resource.namespaced {
        metadata_mut(&mut next).insert("namespace".into(), key.namespace.clone().into());
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
    ] {
        let before = old["metadata"].get(field).cloned();
        let metadata = metadata_mut(&mut next);
        match before {
            Some(before) => metadata.insert(field.into(), before),
            None => metadata.remove(field),
        };
    }
    if let Some(builtin) = resource.builtin {
        defaults::on_update(builtin, &mut next, old);
    }
    let mut causes = Vec::new();
    if target == Target::Main {
        meta::validate_update(&next, old, &mut causes);
    }
    causes.extend(validate(resource, version, target, &next, Some(old)));
    refuse(resource, &next, &causes)?;
    if resource.generation && counts_as_new_generation(resource, version, old, &next) {
        let generation = next["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        metadata_mut(&mut next).insert("generation".into(), generation.into());
    }
    // The revision the write is based on is compared by the caller; it is no content.
    metadata_mut(&mut next).remove("resourceVersion");
    Ok(to_storage(resource, next))
}

/// A generation counts changes of what the user wants: everything but metadata and a status that has its own endpoint.
fn counts_as_new_generation(resource: &Resource, version: usize, old: &Value, new: &Value) -> bool {
    let status = resource.versions[version].status;
    let counted = |value: &Value| {
        let mut value = value.clone();
        remove_field(&mut value, "metadata");
        if status {
            remove_field(&mut value, "status");
        }
        value
    };
    counted(old) != counted(new)
}

/// Brings what a client sent into the shape of its kind: wrong types are refused, unknown fields dropped, defaults
/// filled in.
pub fn decode(resource: &Resource, version: usize, mut value: Value) -> Result<Decoded, ApiError> {
    let mut dropped = Vec::new();
    check_type(resource, version, &mut value)?;
    let name = &resource.versions[version].name;
    meta::shape(&mut value, &resource.kind, name, resource.builtin.is_some(), &mut dropped)?;
    if let Some(schema) = &resource.versions[version].schema {
        dropped.extend(schema.prune(&mut value));
        schema.default(&mut value);
    }
    if let Some(builtin) = resource.builtin {
        // Events of both groups are shaped in the form in which they are kept.
        let mut stored = to_storage(resource, value);
        shape::shape(&resource.kind, name, &mut stored, &mut dropped)?;
        defaults::on_decode(builtin, &mut stored)?;
        value = convert(resource, version, stored);
    }
    Ok(Decoded { value, dropped })
}

/// Checks and completes `apiVersion` and `kind`.
fn check_type(resource: &Resource, version: usize, value: &mut Value) -> Result<(), ApiError> {
    let wanted = resource.api_version(version);
    let unrecognized = |why: &str| {
        let kind = &resource.kind;
        ApiError::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why}"))
    };
    let Some(object) = value.as_object_mut() else { return Err(unrecognized("it is no object")) };
    let text_of = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (found_version, found_kind) = (text_of("apiVersion"), text_of("kind"));
    let custom = resource.builtin.is_none();
    if custom && found_kind.is_empty() {
        return Err(unrecognized("Object 'Kind' is missing"));
    }
    if custom && found_version.is_empty() {
        return Err(unrecognized("Object 'apiVersion' is missing"));
    }
    if !found_version.is_empty() && found_version != wanted {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({wanted})"
        )));
    }
    if !found_kind.is_empty() && found_kind != resource.kind {
        let kind = &resource.kind;
        if custom {
            let named = Named { group: &resource.group, resource: &found_kind };
            let name = text(value, "/metadata/name").to_owned();
            let cause = Cause::invalid("kind", &found_kind.as_str().into(), &format!("must be {kind}"));
            return Err(ApiError::invalid(named, &name, &[cause]));
        }
        let name = &resource.versions[version].name;
        return Err(ApiError::bad_request(format!(
            "{found_kind} in version \"{name}\" cannot be handled as a {kind}: no kind \"{found_kind}\" is \
             registered for version \"{wanted}\""
        )));
    }
    object.insert("apiVersion".into(), wanted.into());
    object.insert("kind".into(), resource.kind.clone().into());
    Ok(())
}

fn validate(
    resource: &Resource,
    version: usize,
    target: Target,
    value: &Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    meta::validate(value, name_rule(resource), &mut causes);
    if let Some(schema) = &resource.versions[version].schema {
        causes.extend(match (target, old) {
            (Target::Status, Some(old)) => schema.validate_status(value, old),
            _ => schema.validate(value, old),
        });
    }
    match resource.builtin {
        Some(Builtin::Definition) => causes.extend(crd::validate(value, old)),
        Some(builtin) => validation::validate(builtin, value, old, &mut causes),
        None => {}
    }
    causes
}

fn refuse(resource: &Resource, value: &Value, causes: &[Cause]) -> Result<(), ApiError> {
    if causes.is_empty() {
        return Ok(());
    }
    let name = match text(value, "/metadata/name") {
        "" => text(value, "/metadata/generateName"),
        name => name,
    };
    Err(ApiError::invalid(resource.named_kind(), name, causes))
}

fn check_namespace(resource: &Resource, namespace: &str, value: &Value) -> Result<(), ApiError> {
    let found = text(value, "/metadata/namespace");
    if resource.namespaced && !found.is_empty() && found != namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !resource.namespaced && !found.is_empty() {
        return Err(ApiError::bad_request("namespace may not be set on an object that is not namespaced"));
    }
    Ok(())
}

fn remove_field(value: &mut Value, field: &str) {
    if let Some(object) = value.as_object_mut() {
        object.remove(field);
    }
}

fn copy_field(from: &Value, to: &mut Value, field: &str) {
    let Some(object) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => object.insert(field.to_owned(), value.clone()),
        None => object.remove(field),
    };
}

/// Reads a field for a field selector: missing is empty, as in Kubernetes.
pub fn read_fields(value: &Value, field: &str) -> String {
    let pointer: String = field.split('.').flat_map(|part| ["/", part]).collect();
    match value.pointer(&pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        // The source of an event is selected by its component.
        Some(Value::Object(source)) => {
            source.get("component").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn fresh() -> Fresh {
        Fresh { uid: "u".into(), timestamp: "2026-01-01T00:00:00Z".into(), random: [0, 1, 2, 3, 4] }
    }

    #[test]
    fn the_server_fills_in_what_is_its_own() {
        let (resource, version) = Registry::builtin().find("", "v1", "configmaps").unwrap();
        let sent =
            json!({"metadata": {"generateName": "a-", "uid": "mine", "bogus": 1, "managedFields": []}});
        let decoded = decode(&resource, version, sent).unwrap();
        assert_eq!(decoded.dropped, ["metadata.bogus"]);
        let created = prepare_create(&resource, version, "n", decoded.value, &fresh()).unwrap();
        assert_eq!(
            created,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-", "name": "a-bcdfg",
                "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}})
        );
    }

    #[test]
    fn an_ingress_counts_generations_of_its_spec_only() {
        let (resource, version) = Registry::builtin().find("networking.k8s.io", "v1", "ingresses").unwrap();
        let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
        let sent = json!({"metadata": {"name": "a"}, "spec": {"defaultBackend": backend("s")},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        let sent = decode(&resource, version, sent).unwrap().value;
        let created = prepare_create(&resource, version, "n", sent, &fresh()).unwrap();
        assert_eq!(created["metadata"]["generation"], 1);
        assert_eq!(created["status"], json!({"loadBalancer": {}}));
        let key = Key::new("n", "a");
        let update = |target, change: &dyn Fn(&mut Value)| {
            let mut next = created.clone();
            change(&mut next);
            prepare_update(&resource, version, target, &key, &created, next).unwrap()
        };
        let labelled = update(Target::Main, &|next| next["metadata"]["labels"] = json!({"a": "b"}));
        assert_eq!(labelled["metadata"]["generation"], 1);
        let changed = update(Target::Main, &|next| next["spec"]["defaultBackend"] = backend("t"));
        assert_eq!(changed["metadata"]["generation"], 2);
        let addressed = json!({"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}});
        let ignored = update(Target::Main, &|next| next["status"] = addressed.clone());
        assert_eq!(ignored["status"], json!({"loadBalancer": {}}));
        let status = update(Target::Status, &|next| {
            next["status"] = addressed.clone();
            next["spec"] = json!({});
        });
        assert_eq!(status["status"], addressed);
        assert_eq!(status["spec"], created["spec"]);
        assert_eq!(status["metadata"]["generation"], 1);
    }
}
