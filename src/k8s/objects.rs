//! Objects of the kinds that are delivered as the client knows them, and single
//! requests about them.

use std::time::Duration;

use flotilla_core::ids::Kind;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch};
use kube::core::GroupVersionKind;
use serde_json::Value;
use tokio::time::timeout;

use crate::Error;

/// How long one request may take.
pub(crate) const REQUEST: Duration = Duration::from_secs(10);

pub(crate) fn resource(kind: Kind) -> ApiResource {
    let group = GroupVersionKind::gvk("avapigw.io", "v1alpha1", kind.name());
    ApiResource::from_gvk_with_plural(&group, kind.plural())
}

pub(crate) fn objects(client: &Client, kind: Kind, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(kind))
}

/// Makes one request.
pub(crate) async fn within<T>(
    what: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Error> {
    let answer = timeout(REQUEST, request).await.map_err(|_| Error::timeout(what, REQUEST))?;
    answer.map_err(|error| Error::from_kube(what, error))
}

/// What of an object is to be made of JSON.
pub(crate) fn of_json<T: serde::de::DeserializeOwned>(what: &str, json: Value) -> Result<T, Error> {
    let wrong =
        |error: serde_json::Error| Error::Permanent { what: what.to_owned(), message: error.to_string() };
    serde_json::from_value(json).map_err(wrong)
}

/// A JSON patch (RFC 6902) of these operations.
pub(crate) fn json_patch(what: &str, operations: Value) -> Result<Patch<()>, Error> {
    Ok(Patch::Json(of_json(what, operations)?))
}
