//! Which cluster this is: part of every version, so that a gateway that comes
//! from another cluster is never resumed as if it were ours.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use sha2::{Digest, Sha256};

use crate::Error;

/// Eight hex digits from the uid of the namespace `kube-system`, which stands
/// for the identity of a cluster.
///
/// # Errors
/// Whatever the API server answers; `Permanent` when the namespace has no uid.
pub async fn cluster_id(client: &Client) -> Result<String, Error> {
    let what = "get namespace kube-system";
    let namespace = Api::<Namespace>::all(client.clone())
        .get("kube-system")
        .await
        .map_err(|e| Error::from_kube(what, e))?;
    let uid = namespace.metadata.uid.ok_or_else(|| Error::Permanent {
        what: what.to_owned(),
        message: "metadata.uid is missing".to_owned(),
    })?;
    let digest = Sha256::digest(uid.as_bytes());
    Ok(digest[..4].iter().map(|byte| format!("{byte:02x}")).collect())
}
