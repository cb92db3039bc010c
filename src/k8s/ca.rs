//! The certificate authority's Secret: created once, however many replicas
//! start together. The API server decides who was first; everybody else reads.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::Error;

/// Key of the certificate in the Secret.
pub const CERTIFICATE: &str = "ca.crt";
/// Key of the private key in the Secret.
pub const PRIVATE_KEY: &str = "ca.key";

/// A CA as stored: two PEM texts.
#[derive(Clone)]
pub struct CaPem {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub private_key: String,
}

/// Reads the CA; `NotFound` when no replica has made it yet.
///
/// # Errors
/// Whatever the API server answers; `Permanent` when the Secret lacks a key.
pub async fn get(client: &Client, namespace: &str, name: &str) -> Result<CaPem, Error> {
    let what = format!("get secret {namespace}/{name}");
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get(name).await;
    read(&what, &found.map_err(|e| Error::from_kube(&what, e))?)
}

/// Reads the CA, or stores the one that `make` gives when there is none, and
/// returns what the cluster then holds.
///
/// # Errors
/// Whatever the API server answers; `Permanent` when the Secret lacks a key.
pub async fn get_or_create(
    client: &Client,
    namespace: &str,
    name: &str,
    make: impl FnOnce() -> Result<CaPem, Error> + Send,
) -> Result<CaPem, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let what = format!("get secret {namespace}/{name}");
    if let Some(found) = api.get_opt(name).await.map_err(|e| Error::from_kube(&what, e))? {
        return read(&what, &found);
    }
    let made = make()?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "flotilla".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            (CERTIFICATE.to_owned(), ByteString(made.certificate.into_bytes())),
            (PRIVATE_KEY.to_owned(), ByteString(made.private_key.into_bytes())),
        ])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(stored) => read(&what, &stored),
        // Another replica was first: its CA is the CA.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            read(&what, &api.get(name).await.map_err(|e| Error::from_kube(&what, e))?)
        }
        Err(error) => Err(Error::from_kube(format!("create secret {namespace}/{name}"), error)),
    }
}

fn read(what: &str, secret: &Secret) -> Result<CaPem, Error> {
    let text = |key: &str| -> Result<String, Error> {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).ok_or_else(|| Error::Permanent {
            what: what.to_owned(),
            message: format!(
                "data[{key}] is missing or no text; restore it, or delete the Secret to make a new CA"
            ),
        })
    };
    Ok(CaPem { certificate: text(CERTIFICATE)?, private_key: text(PRIVATE_KEY)? })
}
