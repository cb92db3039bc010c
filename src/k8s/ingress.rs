//! What is watched and written for Ingresses: they, and the objects that are made of
//! them. Services are watched by [`crate::services`].
//!
//! Watched by the client's own types, unlike the kinds that are delivered: nothing is
//! concluded from revisions here, and the bytes do not matter. A list is a consistent
//! read, and what goes wrong removes nothing. Every write names what it was planned from,
//! so a replica with an old view changes nothing.

use flotilla_api::ingress::FINALIZER;
use flotilla_core::ids::{Kind, ObjectKey};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::event;
use crate::finalizers::take_out;
pub use crate::mirror::Seen;
use crate::mirror::mirror;
use crate::objects::{json_patch, objects, of_json, resource, within};
use crate::services::KnownService;
use crate::status::FIELD_MANAGER;

/// Says of an object that it was made of an Ingress, and of which: its uid.
pub const OWNER_LABEL: &str = "flotilla.dev/ingress";

/// Names the spec that an object was made of.
pub const MARK_LABEL: &str = "flotilla.dev/made-of";

/// What is to be known for Ingresses.
#[derive(Debug)]
pub enum Observed {
    /// Ingresses, of whatever class.
    Ingress(Seen<Ingress>),
    /// Services.
    Service(Seen<KnownService>),
    /// Objects that say that they were made of an Ingress.
    Made(Kind, Seen<DynamicObject>),
}

/// Follows Ingresses and what was made of them, until cancelled. A full channel slows the
/// watches down, and the API server keeps the rest.
pub async fn follow(client: Client, out: mpsc::Sender<Observed>, cancel: CancellationToken) {
    let made = |kind: Kind| {
        let (client, out) = (client.clone(), out.clone());
        async move {
            let api = Api::all_with(client, &resource(kind));
            let observed = |seen| Observed::Made(kind, seen);
            mirror(api, kind.plural(), Some(OWNER_LABEL), &|made| made, &observed, &out).await;
        }
    };
    let all = async {
        tokio::join!(
            mirror(Api::all(client.clone()), "ingresses", None, &|ingress| ingress, &Observed::Ingress, &out),
            futures::future::join_all(Kind::ALL.map(made)),
        )
    };
    tokio::select! {
        biased; // cancellation ends it at once
        () = cancel.cancelled() => {}
        // Nobody takes what is seen any more.
        _ = all => cancel.cancelled().await,
    }
}

/// The Ingress that owns what is made of it.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: String,
}

/// How an Ingress stands to what was seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is as it was seen.
    AsSeen,
    /// It was changed, or is being deleted.
    Changed,
    /// It is gone, or another one is in its place.
    Gone,
}

/// How an Ingress stands now to what was seen of it at `revision`. What was made of it may
/// be seen to change or to go before the Ingress itself, by another watch: what a replica
/// makes, changes and removes then would follow an Ingress that is no more.
///
/// # Errors
/// When the API server does not say.
pub async fn standing(client: &Client, owner: &Owner, revision: &str) -> Result<Standing, Error> {
    let what = format!("read Ingress {}", owner.key);
    // A list is a right that is there anyway, and without a revision it is the newest state.
    let parameters = ListParams::default().fields(&format!("metadata.name={}", owner.key.name));
    let api = Api::<Ingress>::namespaced(client.clone(), &owner.key.namespace);
    let ingresses = within(&what, api.list(&parameters)).await?.items;
    let it = ingresses.iter().find(|ingress| ingress.metadata.uid.as_deref() == Some(&owner.uid));
    Ok(match it.map(|ingress| ingress.metadata.resource_version.as_deref()) {
        None => Standing::Gone,
        Some(now) if now == Some(revision) => Standing::AsSeen,
        Some(_) => Standing::Changed,
    })
}

/// Makes an object that is not there; returns it as it is now.
///
/// # Errors
/// `Conflict` when it is there all the same.
pub async fn make(
    client: &Client,
    owner: &Owner,
    kind: Kind,
    name: &str,
    spec: Value,
    mark: &str,
) -> Result<DynamicObject, Error> {
    let what = format!("create {kind} {}/{name}", owner.key.namespace);
    let object = json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": kind.name(),
        "metadata": {
            "name": name,
            "namespace": *owner.key.namespace,
            "labels": {OWNER_LABEL: owner.uid, MARK_LABEL: mark},
            "ownerReferences": [{
                "apiVersion": "networking.k8s.io/v1",
                "kind": "Ingress",
                "name": *owner.key.name,
                "uid": owner.uid,
                "controller": true,
            }],
        },
        "spec": spec,
    });
    let object: DynamicObject = of_json(&what, object)?;
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    within(&what, objects(client, kind, &owner.key.namespace).create(&parameters, &object)).await
}

/// Gives an object another spec, if it is still as it was seen; returns it as it is now.
///
/// # Errors
/// `Conflict` when it is not.
pub async fn change(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    revision: &str,
    spec: Value,
    mark: &str,
) -> Result<DynamicObject, Error> {
    let what = format!("change {kind} {key}");
    // It was found by one of its labels, so they are there.
    let label = format!("/metadata/labels/{}", MARK_LABEL.replace('/', "~1"));
    let operations = json!([
        {"op": "replace", "path": "/metadata/resourceVersion", "value": revision},
        {"op": "add", "path": label, "value": mark},
        {"op": "add", "path": "/spec", "value": spec},
    ]);
    let patch = json_patch(&what, operations)?;
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let objects = objects(client, kind, &key.namespace);
    within(&what, objects.patch(&key.name, &parameters, &patch)).await
}

/// Removes an object, if it is still as it was seen. One that is gone is removed.
///
/// # Errors
/// `Conflict` when it is not.
pub async fn remove(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    uid: &str,
    revision: &str,
) -> Result<(), Error> {
    let what = format!("delete {kind} {key}");
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(revision.to_owned()),
        }),
        ..DeleteParams::default()
    };
    match within(&what, objects(client, kind, &key.namespace).delete(&key.name, &parameters)).await {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Says in the status of an Ingress where it is reached, if it is still as it was seen;
/// returns it as it is now.
///
/// # Errors
/// `Conflict` when it is not.
pub async fn set_addresses(
    client: &Client,
    owner: &Owner,
    revision: &str,
    addresses: &Value,
) -> Result<Ingress, Error> {
    let what = format!("write the status of Ingress {}", owner.key);
    let status = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": *owner.key.name, "uid": owner.uid, "resourceVersion": revision},
        "status": {"loadBalancer": {"ingress": addresses}},
    });
    let api = Api::<Ingress>::namespaced(client.clone(), &owner.key.namespace);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    within(&what, api.patch_status(&owner.key.name, &parameters, &Patch::Apply(&status))).await
}

/// Takes a finalizer out of an Ingress, if it is still as it was seen; whether it was there.
///
/// # Errors
/// `Conflict` when it is not.
pub async fn release(client: &Client, owner: &Owner, revision: &str, place: usize) -> Result<bool, Error> {
    let api = Api::<Ingress>::namespaced(client.clone(), &owner.key.namespace);
    let object = format!("Ingress {}", owner.key);
    take_out(&api, &object, &owner.key.name, revision, place, FINALIZER).await
}

/// An Ingress, for an event about it.
pub fn reference(owner: &Owner) -> ObjectReference {
    event::about("networking.k8s.io/v1", "Ingress", &owner.key, Some(&owner.uid))
}
