//! Writes statuses: by server-side apply on the status subresource, under our
//! field manager, with the uid and the resourceVersion that the status was
//! planned from as preconditions. A replica that plans from an old view gets a
//! conflict and changes nothing.
//!
//! What others have written is taken out by a merge patch in its place: an apply
//! leaves alone whatever belongs to somebody else.
//!
//! Definitions that are older than this program lack the epoch, and take
//! conditions for one value that an apply would replace as a whole. There, and
//! only there, the conditions of others are put in by hand.

use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey, Revision};
use futures::AsyncReadExt;
use http::{Request, header};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::Error;

/// Under this name the API server knows which fields are ours.
pub const FIELD_MANAGER: &str = "flotilla";

/// By this a patch is known that takes something out. Quotes inside of texts are
/// escaped, so it can be nothing but a field without a value.
const TAKES_OUT: &[u8] = b"\"lastHealthCheck\":null";

/// How long one patch may take.
const PATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes one object's status. `body` names all fields that are ours, and in its
/// `metadata` the preconditions; with `lastHealthCheck: null` it takes that out, and
/// names all conditions, those of others, too. Returns the revision at which it was written:
/// of several writers of an object's status this says who came first. `None`
/// when the answer does not tell, which does not make the write undone.
///
/// # Errors
/// `Conflict` when the object changed meanwhile, `NotFound` when it is gone.
pub async fn patch(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    body: Vec<u8>,
) -> Result<Option<Revision>, Error> {
    let what = format!("patch status of {kind} {key}");
    let write = async {
        if body.windows(TAKES_OUT.len()).any(|part| part == TAKES_OUT) {
            return merge(client, kind, key, &what, body).await;
        }
        let query = format!("?fieldManager={FIELD_MANAGER}&force=true");
        match send(client, kind, key, &what, &query, "application/apply-patch+yaml", body.clone()).await {
            Err(kube::Error::Api(status)) if status.message.contains("field not declared in schema") => {
                tracing::warn!(
                    kind = kind.name(),
                    "the definition in this cluster is older than this program, \
                    install the one that `flotilla crds` prints"
                );
                patch_older(client, kind, key, &what, &body).await
            }
            Err(error) => Err(Error::from_kube(&what, error)),
            Ok(answer) => Ok(revision(&answer)),
        }
    };
    timeout(PATCH_TIMEOUT, write).await.map_err(|_| Error::timeout(&what, PATCH_TIMEOUT))?
}

/// The revision of the object in an answer.
fn revision(answer: &[u8]) -> Option<Revision> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        resource_version: &'a str,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    answer.metadata.resource_version.parse().ok().map(Revision)
}

fn uri(kind: Kind, key: &ObjectKey) -> String {
    format!("/apis/avapigw.io/v1alpha1/namespaces/{}/{}/{}/status", key.namespace, kind.plural(), key.name)
}

/// Sends a patch and returns its answer, which is read to its end so that the
/// connection can be used again.
async fn send(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    what: &str,
    query: &str,
    content: &str,
    body: Vec<u8>,
) -> Result<Vec<u8>, kube::Error> {
    let request = Request::patch(format!("{}{query}", uri(kind, key)))
        .header(header::CONTENT_TYPE, content)
        .body(body)
        .map_err(kube::Error::HttpError)?;
    let stream = client.request_stream(request).await?;
    let mut rest = Vec::new();
    let read = std::pin::pin!(stream).read_to_end(&mut rest).await;
    match read {
        Ok(_) => Ok(rest),
        Err(error) => {
            tracing::debug!(what, error = %error, "an answer broke off");
            Err(kube::Error::ReadEvents(error))
        }
    }
}

/// The same by a merge patch, which replaces lists: the conditions of others are
/// taken from the object, which must be the one that the status was planned from.
async fn patch_older(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    what: &str,
    body: &[u8],
) -> Result<Option<Revision>, Error> {
    let unreadable = |error: &dyn std::fmt::Display| Error::Permanent {
        what: what.to_owned(),
        message: format!("unreadable status: {error}"),
    };
    let mut wanted: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let request = Request::get(uri(kind, key)).body(Vec::new()).map_err(|error| unreadable(&error))?;
    let found = client.request::<Value>(request).await.map_err(|error| Error::from_kube(what, error))?;
    if found["metadata"]["resourceVersion"] != wanted["metadata"]["resourceVersion"] {
        return Err(Error::Conflict { what: what.to_owned() });
    }
    let mut conditions = wanted["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for theirs in found["status"]["conditions"].as_array().into_iter().flatten() {
        if conditions.iter().all(|ours| ours["type"] != theirs["type"]) {
            conditions.push(theirs.clone());
        }
    }
    let status = wanted["status"].take();
    let mut status = status.as_object().cloned().unwrap_or_default();
    status.remove("epoch");
    status.insert("conditions".to_owned(), conditions.into());
    let metadata = json!({
        "resourceVersion": wanted["metadata"]["resourceVersion"],
        "uid": wanted["metadata"]["uid"],
    });
    let body = json!({"metadata": metadata, "status": status}).to_string().into_bytes();
    merge(client, kind, key, what, body).await
}

async fn merge(
    client: &Client,
    kind: Kind,
    key: &ObjectKey,
    what: &str,
    body: Vec<u8>,
) -> Result<Option<Revision>, Error> {
    let query = format!("?fieldManager={FIELD_MANAGER}");
    let sent = send(client, kind, key, what, &query, "application/merge-patch+json", body).await;
    sent.map(|answer| revision(&answer)).map_err(|error| Error::from_kube(what, error))
}
