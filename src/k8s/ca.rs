//! The certificate authority's Secret: created once, however many replicas start
//! together, and replaced only as it was read. The API server decides who was
//! first; everybody else reads.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::Error;

/// Key of the certificates in the Secret: the signer's, then those of others who are
/// trusted.
pub const CERTIFICATE: &str = "ca.crt";
/// Key of the signer's private key in the Secret.
pub const PRIVATE_KEY: &str = "ca.key";
/// Key of the next signer's certificate, while there is one.
pub const NEXT_CERTIFICATE: &str = "next.crt";
/// Key of the next signer's private key.
pub const NEXT_PRIVATE_KEY: &str = "next.key";

/// A CA as stored: PEM texts.
#[derive(Clone)]
pub struct CaPem {
    /// The certificates: the signer's first.
    pub certificate: String,
    /// The signer's private key.
    pub private_key: String,
    /// Certificate and private key of the next signer.
    pub next: Option<(String, String)>,
}

/// A CA and the object that holds it.
#[derive(Clone)]
pub struct StoredCa {
    /// What it says.
    pub pem: CaPem,
    secret: Secret,
}

/// Reads the CA; `NotFound` when no replica has made it yet.
///
/// # Errors
/// Whatever the API server answers; `Permanent` when the Secret lacks a key.
pub async fn get(client: &Client, namespace: &str, name: &str) -> Result<StoredCa, Error> {
    let what = format!("get secret {namespace}/{name}");
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get(name).await;
    read(&what, found.map_err(|e| Error::from_kube(&what, e))?)
}

/// Writes another CA in place of the one that was read.
///
/// # Errors
/// `Conflict` when somebody has written since; otherwise whatever the API server answers.
pub async fn replace(client: &Client, read: &StoredCa, by: CaPem) -> Result<(), Error> {
    let meta = &read.secret.metadata;
    let namespace = meta.namespace.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    let what = format!("replace secret {namespace}/{name}");
    let mut secret = read.secret.clone();
    let data = secret.data.get_or_insert_default();
    data.remove(NEXT_CERTIFICATE);
    data.remove(NEXT_PRIVATE_KEY);
    data.extend(keys(by));
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    // It has the resourceVersion that was read.
    api.replace(name, &PostParams::default(), &secret).await.map_err(|e| Error::from_kube(what, e))?;
    Ok(())
}

fn keys(pem: CaPem) -> BTreeMap<String, ByteString> {
    let mut all = vec![(CERTIFICATE, pem.certificate), (PRIVATE_KEY, pem.private_key)];
    if let Some((certificate, key)) = pem.next {
        all.extend([(NEXT_CERTIFICATE, certificate), (NEXT_PRIVATE_KEY, key)]);
    }
    all.into_iter().map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).collect()
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
) -> Result<StoredCa, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let what = format!("get secret {namespace}/{name}");
    if let Some(found) = api.get_opt(name).await.map_err(|e| Error::from_kube(&what, e))? {
        return read(&what, found);
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
        data: Some(keys(made)),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    match api.create(&PostParams::default(), &secret).await {
        Ok(stored) => read(&what, stored),
        // Another replica was first: its CA is the CA.
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            read(&what, api.get(name).await.map_err(|e| Error::from_kube(&what, e))?)
        }
        Err(error) => Err(Error::from_kube(format!("create secret {namespace}/{name}"), error)),
    }
}

fn read(what: &str, secret: Secret) -> Result<StoredCa, Error> {
    let data = secret.data.as_ref();
    let text = |key: &str| -> Result<String, Error> {
        let bytes = data.and_then(|data| data.get(key));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok()).ok_or_else(|| Error::Permanent {
            what: what.to_owned(),
            message: format!("data[{key}] is missing or no text; restore it from a backup"),
        })
    };
    let next = data.is_some_and(|data| data.contains_key(NEXT_CERTIFICATE));
    let next =
        next.then(|| Ok::<_, Error>((text(NEXT_CERTIFICATE)?, text(NEXT_PRIVATE_KEY)?))).transpose()?;
    let pem = CaPem { certificate: text(CERTIFICATE)?, private_key: text(PRIVATE_KEY)?, next };
    Ok(StoredCa { pem, secret })
}
