//! Finalizers of routes and backends: set where that is wished for, and taken out of
//! whatever is being deleted. They are those of the published operator, so that what it
//! has left behind goes like our own.

use flotilla_core::ids::{Kind, ObjectKey};
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Error;
use crate::objects::{json_patch, objects, within};

/// Sets the finalizer of its kind to an object that does not have it; whether that was
/// so. One that is not there, or is being deleted, is left alone. `may_act` is asked when
/// the object has been read: a process may sleep in between.
///
/// # Errors
/// `Conflict` when the object changed meanwhile, or its namespace is another's by now.
pub async fn hold(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    may_act: impl Fn() -> bool,
) -> Result<bool, Error> {
    let api = objects(client, kind, &key.namespace);
    let Some(object) = within(&format!("read {kind} {key}"), api.get_opt(&key.name)).await? else {
        return Ok(false);
    };
    let known = object.finalizers();
    if object.metadata.deletion_timestamp.is_some() || known.iter().any(|one| one == kind.finalizer()) {
        return Ok(false);
    }
    let what = format!("set the finalizer of {kind} {key}");
    let all: Vec<_> = known.iter().map(String::as_str).chain([kind.finalizer()]).collect();
    let operations = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": object.resource_version()},
        {"op": "add", "path": "/metadata/finalizers", "value": all},
    ]);
    let patch = json_patch(&what, operations)?;
    if !may_act() {
        return Err(Error::Conflict { what });
    }
    match within(&what, api.patch(&key.name, &PatchParams::default(), &patch)).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the finalizer of its kind out of an object that is being deleted, if it has
/// it; whether it had. One that is not there, is another of this name, or is not being
/// deleted, is left alone. `may_act` is asked as for [`hold`].
///
/// # Errors
/// `Conflict` when the object changed meanwhile, or its namespace is another's by now.
pub async fn release(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    uid: &str,
    may_act: impl Fn() -> bool,
) -> Result<bool, Error> {
    let what = format!("read {kind} {key}");
    let api = objects(client, kind, &key.namespace);
    let Some(object) = within(&what, api.get_opt(&key.name)).await? else { return Ok(false) };
    let finalizer = kind.finalizer();
    let place = object.finalizers().iter().position(|one| one == finalizer);
    let revision = object.resource_version().unwrap_or_default();
    let leaves = object.metadata.deletion_timestamp.is_some() && object.uid().as_deref() == Some(uid);
    match place.filter(|_| leaves) {
        Some(_) if !may_act() => Err(Error::Conflict { what: format!("release {kind} {key}") }),
        Some(place) => take_out(&api, &format!("{kind} {key}"), &key.name, &revision, place, finalizer).await,
        None => Ok(false),
    }
}

/// Takes a finalizer out of an object, if it is still as it was seen; whether it was
/// there. One that is gone needs nothing.
pub(crate) async fn take_out<K>(
    api: &Api<K>,
    object: &str,
    name: &str,
    revision: &str,
    place: usize,
    finalizer: &str,
) -> Result<bool, Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let what = format!("take the finalizer out of {object}");
    let path = format!("/metadata/finalizers/{place}");
    let operations = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": revision},
        {"op": "test", "path": path, "value": finalizer},
        {"op": "remove", "path": path},
    ]);
    let patch = json_patch(&what, operations)?;
    match within(&what, api.patch(name, &PatchParams::default(), &patch)).await {
        Ok(_) => Ok(true),
        Err(Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
