//! Server-side apply, from the request to what is to be stored. What it means for the fields is in [`crate::apply`].

use http::Response;
use serde_json::Value;

use super::Call;
use super::body::Body;
use super::write::{FieldValidation, Next, change, key, options_kind, report_dropped, store_new, writer};
use crate::apply::{self, Operation, Shape};
use crate::registry::decode;
use crate::schema::Cause;
use crate::state::{State, now};
use crate::status::ApiError;
use crate::store::{metadata_mut, text};

/// Server-side apply: the object is created when it is not there.
pub(super) fn apply(
    state: &State,
    call: &Call,
    config: &Value,
    dry: bool,
) -> Result<Response<Body>, ApiError> {
    if call.query.get("fieldManager").is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid_option(options_kind(call.verb), cause));
    }
    if config.pointer("/metadata/managedFields").is_some_and(|managers| !managers.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let force = matches!(call.query.get("force"), "true" | "1");
    check_applied(call, config)?;
    let warnings = report_dropped(call, FieldValidation::Warn, &[])?;
    let resource = &call.resource;
    let has_status = resource.versions[call.version].status;
    let (writer, shape) = (writer(call, Operation::Apply), Shape::of(resource, call.version));
    let put_over = |live: Option<&Value>| {
        let time = now().timestamp();
        let applied = apply::apply(&shape, live, config, &writer, has_status, force, &time)?;
        let decoded = decode(resource, call.version, applied.value.clone())?;
        Ok::<_, ApiError>((decoded.value, applied))
    };
    let key = key(call);
    let missing = state.read(|store| store.get(&resource.id, &key)).is_none();
    if missing && call.place.subresource.is_empty() {
        let uid = text(config, "/metadata/uid");
        if !uid.is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            return Err(ApiError::conflict(resource.named(), &key.name, &why));
        }
        let (mut value, applied) = put_over(None)?;
        let name = text(&value, "/metadata/name").to_owned();
        if name.is_empty() {
            metadata_mut(&mut value).insert("name".into(), key.name.clone().into());
        } else if name != key.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.name
            )));
        }
        match store_new(state, call, value, dry, &warnings, Some(&applied)) {
            // Somebody else was faster: then it is put over what he made.
            Err(error) if error.reason == "AlreadyExists" => {}
            outcome => return outcome,
        }
    }
    change(state, call, dry, |current| {
        check_uid(call, current, config)?;
        let (mut value, applied) = put_over(Some(current))?;
        if text(config, "/metadata/name").is_empty() {
            metadata_mut(&mut value).insert("name".into(), key.name.clone().into());
        }
        Ok(Next { value, warnings: warnings.clone(), sent: None, applied: Some(applied) })
    })
}

/// Refuses an applied object with wrong types or with fields that its kind does not know.
fn check_applied(call: &Call, config: &Value) -> Result<(), ApiError> {
    let resource = &call.resource;
    let decoded = decode(resource, call.version, config.clone())?;
    let Some(field) = decoded.dropped.first() else { return Ok(()) };
    let place = match (text(config, "/metadata/namespace"), text(config, "/metadata/name")) {
        ("", name) => format!("/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    let version = resource.api_version(call.version);
    Err(ApiError::new(
        500,
        "",
        format!(
            "failed to create typed patch object ({place}; {version}, Kind={}): .{field}: field not declared in schema",
            resource.kind
        ),
    ))
}

/// An applied uid is content that cannot be changed, not a precondition.
fn check_uid(call: &Call, live: &Value, config: &Value) -> Result<(), ApiError> {
    let wanted = text(config, "/metadata/uid");
    if wanted.is_empty() || wanted == text(live, "/metadata/uid") {
        return Ok(());
    }
    let revision = text(config, "/metadata/resourceVersion");
    if !revision.is_empty() && revision != text(live, "/metadata/resourceVersion") {
        // That comes first, and is found out where every write is checked.
        return Ok(());
    }
    let cause = Cause::invalid("metadata.uid", &wanted.into(), "field is immutable");
    let mut error = ApiError::invalid(call.resource.named_kind(), text(live, "/metadata/name"), &[cause]);
    if call.resource.builtin.is_none()
        && let Some(causes) = error.details.as_mut().and_then(|details| details.get_mut("causes"))
        && let Some(causes) = causes.as_array_mut()
    {
        // Two validations of custom resources find the same, and the text says it once.
        causes.extend_from_within(..);
    }
    Err(error)
}
