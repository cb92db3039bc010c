//! Create, update, patch and delete.
//!
//! What an object becomes is computed without holding the store, from the revision that was read; it is stored only
//! if that is still the current one. A patch that says nothing about the revision is computed again when it was
//! overtaken, as clients of a real API server are used to.

use std::sync::Arc;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::body::{Body, json_bytes, json_value, warn};
use super::filter::Filter;
use super::negotiate::parse_body;
use super::patching::Patch;
use super::render::{Form, bytes_in};
use super::{Call, applying, success};
use crate::apply::{self, Applied, Manager, Operation, Shape};
use crate::registry::{Decoded, Target, convert, decode, prepare_create, prepare_update};
use crate::schema::Cause;
use crate::state::{State, fresh, now};
use crate::status::{ApiError, Named};
use crate::store::{
    DEFINITIONS, Deletion, Key, NAMESPACES, Object, PageStart, Propagation, StoreError, Written,
    metadata_mut, text,
};
use crate::verb::Verb;

/// How often an overtaken patch or deletion is tried.
const TRIES: usize = 10;
/// Namespaces that a cluster cannot do without.
const LASTING_NAMESPACES: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What is done about fields that the schema does not know.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// The kind of a request's options, for errors about them.
pub(super) fn options_kind(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::List | Verb::Watch => "ListOptions",
    }
}

fn field_validation(call: &Call) -> Result<FieldValidation, ApiError> {
    match call.query.get("fieldValidation") {
        "Ignore" => Ok(FieldValidation::Ignore),
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Strict" => Ok(FieldValidation::Strict),
        other => {
            let known = ["", "Ignore", "Strict", "Warn"];
            let cause = Cause::not_supported("fieldValidation", &other.into(), &known);
            Err(ApiError::invalid_option(options_kind(call.verb), cause))
        }
    }
}

fn dry_run(call: &Call) -> Result<bool, ApiError> {
    let asked: Vec<&str> = call.query.all("dryRun").collect();
    if asked.iter().any(|value| *value != "All") {
        let cause = Cause::not_supported("dryRun", &json!(asked), &["All"]);
        return Err(ApiError::invalid_option(options_kind(call.verb), cause));
    }
    Ok(!asked.is_empty())
}

/// Acts on unknown fields: refuses them, or gives the warnings to send.
pub(super) fn report_dropped(
    call: &Call,
    mode: FieldValidation,
    dropped: &[String],
) -> Result<Vec<String>, ApiError> {
    let texts: Vec<String> = dropped.iter().map(|field| format!("unknown field \"{field}\"")).collect();
    if mode == FieldValidation::Strict && !texts.is_empty() {
        let kind = &call.resource.kind;
        let version = &call.resource.versions[call.version].name;
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
            texts.join(", ")
        )));
    }
    let mut warnings = if mode == FieldValidation::Warn { texts } else { Vec::new() };
    if let Some(text) = &call.resource.versions[call.version].deprecation {
        let plain =
            format!("{} {} is deprecated", call.resource.api_version(call.version), call.resource.kind);
        warnings.push(if text.is_empty() { plain } else { text.clone() });
    }
    Ok(warnings)
}

fn answer(
    call: &Call,
    code: StatusCode,
    object: &Object,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    let bytes = Form::of(call)?.one(&call.resource, call.version, object);
    let mut response = json_bytes(code, bytes);
    warn(&mut response, warnings);
    Ok(response)
}

pub(super) fn key(call: &Call) -> Key {
    Key::new(&*call.place.namespace, &*call.place.name)
}

/// Creates an object.
pub(super) fn create(state: &State, call: &Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let (mode, dry) = (field_validation(call)?, dry_run(call)?);
    let value = parse_body(&call.headers, body)?;
    if call.resource.builtin.is_none() {
        let definition = state.read(|store| store.get(DEFINITIONS, &Key::new("", &*call.resource.id)));
        if definition.is_some_and(|definition| definition.meta.deleting) {
            let why = "create not allowed while custom resource definition is terminating";
            return Err(ApiError::new(405, "MethodNotAllowed", why));
        }
    }
    let Decoded { value, dropped } = decode(&call.resource, call.version, value)?;
    let warnings = report_dropped(call, mode, &dropped)?;
    store_new(state, call, value, dry, &warnings, None)
}

/// Stores a new object, trying again while a generated name is taken, which is no fault of the client.
pub(super) fn store_new(
    state: &State,
    call: &Call,
    value: Value,
    dry: bool,
    warnings: &[String],
    applied: Option<&Applied>,
) -> Result<Response<Body>, ApiError> {
    let generated = text(&value, "/metadata/name").is_empty();
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let (namespace, fresh) = (&call.place.namespace, fresh(now()));
        let mut prepared = prepare_create(&call.resource, call.version, namespace, value.clone(), &fresh)?;
        record(call, None, &mut prepared, None, applied, &fresh.timestamp);
        match state.write(|store, now| store.create(&call.resource.id, prepared, now, dry)) {
            Err(StoreError::AlreadyExists(_)) if generated && tries > 0 => {}
            Err(error) => return Err(store_error(call, error)),
            Ok(object) => return answer(call, success(true), &object, warnings),
        }
    }
}

/// Replaces an object.
pub(super) fn update(state: &State, call: &Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let (mode, dry) = (field_validation(call)?, dry_run(call)?);
    let body = parse_body(&call.headers, body)?;
    let sent = managers_of(&body);
    let Decoded { value, dropped } = decode(&call.resource, call.version, body)?;
    let warnings = report_dropped(call, mode, &dropped)?;
    let key = key(call);
    let current = state.read(|store| store.get(&call.resource.id, &key));
    let main = call.place.subresource.is_empty();
    if current.is_none()
        && main
        && call.resource.create_on_update
        && text(&value, "/metadata/name") == key.name
    {
        // As on a real API server, the revision that the client has seen does not matter then.
        let mut value = value;
        metadata_mut(&mut value).remove("resourceVersion");
        return store_new(state, call, value, dry, &warnings, None);
    }
    let revision = text(&value, "/metadata/resourceVersion");
    if current.is_some() && revision.is_empty() && call.resource.needs_revision {
        let why = "must be specified for an update";
        let cause = Cause::invalid("metadata.resourceVersion", &json!(0), why);
        return Err(ApiError::invalid(call.resource.named(), &key.name, &[cause]));
    }
    change(state, call, dry, |_| {
        Ok(Next { value: value.clone(), warnings: warnings.clone(), sent: sent.clone(), applied: None })
    })
}

/// Changes parts of an object.
pub(super) fn patch(state: &State, call: &Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let (mode, dry) = (field_validation(call)?, dry_run(call)?);
    let patch = Patch::read(&call.headers, &call.resource, body)?;
    if let Patch::Apply(config) = &patch {
        return applying::apply(state, call, config, dry);
    }
    if !call.query.get("force").is_empty() {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(ApiError::invalid_option(options_kind(call.verb), cause));
    }
    change(state, call, dry, |current| {
        let patched = patch.apply(&call.resource, current)?;
        let (text, sent) = (patched.to_string(), managers_of(&patched));
        let decoded = decode(&call.resource, call.version, patched).and_then(|decoded| {
            let warnings = report_dropped(call, mode, &decoded.dropped)?;
            Ok(Next { value: decoded.value, warnings, sent, applied: None })
        });
        decoded.map_err(|error| unusable_patch(call, &text, error))
    })
}

/// What a client says of the managers of an object that it sends.
fn managers_of(value: &Value) -> Option<Value> {
    value.pointer("/metadata/managedFields").cloned()
}

/// Who writes: by the name that the request gives, or that of the client's program.
pub(super) fn writer(call: &Call, operation: Operation) -> Manager {
    let program = call.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("unknown");
    let name = match call.query.get("fieldManager") {
        "" => program.split('/').next().unwrap_or_default(),
        name => name,
    };
    Manager {
        operation,
        name: name.to_owned(),
        api_version: call.resource.api_version(call.version),
        subresource: call.place.subresource.clone(),
    }
}

/// Records whose fields are whose in an object, in its storage version, that is about to be stored.
fn record(
    call: &Call,
    old: Option<&Value>,
    new: &mut Value,
    sent: Option<&Value>,
    applied: Option<&Applied>,
    time: &str,
) {
    let shape = Shape::of(&call.resource, call.resource.storage);
    match applied {
        Some(applied) => applied.record(&shape, old, new),
        None => apply::record(&shape, old, new, sent, &writer(call, Operation::Update), time),
    }
}

/// What an object is to become.
pub(super) struct Next {
    pub value: Value,
    pub warnings: Vec<String>,
    /// What the client says of the managers.
    pub sent: Option<Value>,
    /// Set for server-side apply.
    pub applied: Option<Applied>,
}

/// What a patch has made of the object cannot be read. kube-apiserver shows the patched object then.
fn unusable_patch(call: &Call, patched: &str, error: ApiError) -> ApiError {
    if error.code != 400 {
        return error;
    }
    let prefix = format!("cannot be handled as a {}: ", call.resource.kind);
    let why = error.message.split_once(&prefix).map_or(error.message.as_str(), |(_, why)| why);
    let cause = Cause::invalid("patch", &patched.into(), why);
    let mut error = ApiError::new(422, "Invalid", format!(" \"\" is invalid: {cause}"));
    let causes = json!([{"reason": cause.reason.as_str(), "message": cause.message, "field": cause.field}]);
    error.details = Some(Map::from_iter([("causes".to_owned(), causes)]));
    error
}

/// Stores what `next` makes of the current object, again while it is overtaken by others.
pub(super) fn change(
    state: &State,
    call: &Call,
    dry: bool,
    next: impl Fn(&Value) -> Result<Next, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let key = key(call);
    let target = match call.place.subresource.as_str() {
        "status" => Target::Status,
        "finalize" => Target::Finalize,
        _ => Target::Main,
    };
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let current = state.read(|store| store.get(&call.resource.id, &key));
        let current = current.ok_or_else(|| ApiError::not_found(call.resource.named(), &key.name))?;
        let old = convert(&call.resource, call.version, current.value());
        let Next { value, warnings, sent, applied } = next(&old)?;
        let based_on = text(&value, "/metadata/resourceVersion").to_owned();
        let overtaken = !based_on.is_empty() && based_on != current.meta.revision.to_string();
        if overtaken {
            return Err(store_error(call, StoreError::Conflict(key)));
        }
        let mut value = prepare_update(&call.resource, call.version, target, &key, &old, value)?;
        record(call, Some(&current.value()), &mut value, sent.as_ref(), applied.as_ref(), &now().timestamp());
        let revision = current.meta.revision;
        match state.write(|store, now| store.update(&call.resource.id, revision, value, now, dry)) {
            Err(StoreError::Conflict(_)) if tries > 0 => {}
            Err(error) => return Err(store_error(call, error)),
            Ok(written) => return answer(call, success(false), written.object(), &warnings),
        }
    }
}

fn deletion(call: &Call, body: &[u8]) -> Result<(Deletion, bool), ApiError> {
    let options = if body.is_empty() { Value::Null } else { parse_body(&call.headers, body)? };
    let parameter = |name: &str| match text(&options, &format!("/{name}")) {
        "" => call.query.get(name).to_owned(),
        found => found.to_owned(),
    };
    let orphan = options["orphanDependents"] == true || call.query.get("orphanDependents") == "true";
    let propagation = match parameter("propagationPolicy").as_str() {
        "" if orphan => Some(Propagation::Orphan),
        "" => None,
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            let cause = Cause::not_supported("propagationPolicy", &other.into(), &known);
            return Err(ApiError::invalid_option("DeleteOptions", cause));
        }
    };
    let precondition = |name: &str| {
        let found = text(&options, &format!("/preconditions/{name}"));
        (!found.is_empty()).then(|| found.to_owned())
    };
    let dry = options["dryRun"].as_array().is_some_and(|list| list.iter().any(|item| item == "All"));
    let deletion =
        Deletion { uid: precondition("uid"), revision: precondition("resourceVersion"), propagation };
    Ok((deletion, dry || dry_run(call)?))
}

/// Deletes an object.
pub(super) fn delete(state: &State, call: &Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let (deletion, dry) = deletion(call, body)?;
    let key = key(call);
    if &*call.resource.id == NAMESPACES && LASTING_NAMESPACES.contains(&key.name.as_str()) {
        return Err(ApiError::forbidden(
            call.resource.named(),
            &key.name,
            "this namespace may not be deleted",
        ));
    }
    let written = state
        .write(|store, now| store.delete(&call.resource.id, &key, &deletion, now, dry))
        .map_err(|error| match error {
            StoreError::Precondition(why) => ApiError::conflict(call.resource.named_kind(), &key.name, &why),
            other => store_error(call, other),
        })?;
    match written {
        Written::Kept(object) => answer(call, StatusCode::OK, &object, &[]),
        Written::Removed(object) => {
            let mut details = json!({"name": key.name, "kind": call.resource.plural, "uid": object.meta.uid});
            if !call.resource.group.is_empty() {
                details["group"] = call.resource.group.clone().into();
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                "details": details});
            Ok(json_value(StatusCode::OK, &status))
        }
    }
}

/// Deletes many objects, one after the other.
pub(super) fn delete_collection(state: &State, call: &Call, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let (deletion, dry) = deletion(call, body)?;
    let filter = Filter::of(call)?;
    let accept = |object: &_| filter.fields_match(&call.resource, object);
    let page =
        state.read(|store| store.list(&call.resource.id, &filter.scope, &PageStart::default(), accept));
    let page = page.map_err(|error| ApiError::from_list(error, false, 0))?;
    let mut deleted: Vec<Arc<Object>> = Vec::new();
    for object in page.objects {
        match state.write(|store, now| store.delete(&call.resource.id, &object.key, &deletion, now, dry)) {
            Ok(written) => deleted.push(written.object().clone()),
            // Somebody else was faster.
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(store_error(call, error)),
        }
    }
    let items: Vec<Bytes> =
        deleted.iter().map(|object| bytes_in(&call.resource, call.version, object)).collect();
    let revision = state.read(|store| store.revision());
    let list = super::render::join_list(
        &call.resource.api_version(call.version),
        &call.resource.list_kind,
        &json!({"resourceVersion": revision.to_string()}),
        items.into_iter(),
    );
    Ok(json_bytes(StatusCode::OK, list))
}

fn store_error(call: &Call, error: StoreError) -> ApiError {
    let named: Named<'_> = call.resource.named();
    match error {
        StoreError::NamespaceTerminating(_) => {
            let mut error = ApiError::from_store(error, named);
            if !call.place.name.is_empty() {
                error = error.about(named, &call.place.name);
            }
            error
        }
        other => ApiError::from_store(other, named),
    }
}
