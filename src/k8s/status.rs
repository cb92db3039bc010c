//! Writes statuses: a merge patch on the status subresource, with the
//! resourceVersion it was planned from as precondition. A replica that plans
//! from an old view gets a conflict and changes nothing.

use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey};
use futures::AsyncReadExt;
use http::{Request, header};
use kube::Client;
use tokio::time::timeout;

use crate::Error;

/// How long one patch may take.
const PATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Patches one object's status. `body` is the whole merge patch, including the
/// precondition in its `metadata`.
///
/// # Errors
/// `Conflict` when the object changed meanwhile, `NotFound` when it is gone.
pub async fn patch(client: &Client, kind: Kind, key: &ObjectKey, body: Vec<u8>) -> Result<(), Error> {
    let what = format!("patch status of {kind} {key}");
    let uri = format!(
        "/apis/avapigw.io/v1alpha1/namespaces/{}/{}/{}/status?fieldManager=flotilla",
        key.namespace,
        kind.plural(),
        key.name
    );
    let request = Request::patch(uri)
        .header(header::CONTENT_TYPE, "application/merge-patch+json")
        .body(body)
        .map_err(|error| Error::Permanent { what: what.clone(), message: error.to_string() })?;
    let send = async {
        let stream = client.request_stream(request).await.map_err(|e| Error::from_kube(&what, e))?;
        // The answer is read to its end so that the connection can be used again.
        let mut rest = Vec::new();
        let read = std::pin::pin!(stream).read_to_end(&mut rest).await;
        read.map(drop).map_err(|error| Error::Transient {
            what: what.clone(),
            retry_after: None,
            source: Box::new(error),
        })
    };
    timeout(PATCH_TIMEOUT, send).await.map_err(|_| Error::timeout(&what, PATCH_TIMEOUT))?
}
