//! Certificates, keys and kubeconfigs of one instance.
//!
//! Every instance has a CA of its own, so that a client of one can never reach
//! another by mistake, however ports are used again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use super::Error;

/// The names under which clients and the server itself reach the API server.
const SERVER_NAMES: [&str; 5] =
    ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];

/// Files that hold the credentials; all in the instance's folder.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) ca: PathBuf,
    pub(super) serving_cert: PathBuf,
    pub(super) serving_key: PathBuf,
    /// Private key with which service account tokens are signed.
    pub(super) service_account_key: PathBuf,
    /// Its public half, with which they are verified.
    pub(super) service_account_public_key: PathBuf,
    admin: Identity,
    limited: Identity,
    ca_pem: String,
}

/// A client certificate and its key, as PEM.
#[derive(Debug, Clone)]
struct Identity {
    user: &'static str,
    certificate: String,
    key: String,
}

impl Credentials {
    pub(super) fn create(dir: &Path) -> Result<Self, Error> {
        let dir = dir.join("pki");
        fs::create_dir(&dir).map_err(Error::io("create the folder for certificates"))?;
        let put = |name: &str, pem: &str| {
            let path = dir.join(name);
            fs::write(&path, pem).map_err(Error::io("write a certificate or key"))?;
            Ok::<_, Error>(path)
        };

        let mut ca_params = CertificateParams::new(Vec::new())?;
        ca_params.distinguished_name = name("flotilla-test-ca", None);
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca_key = KeyPair::generate()?;
        let ca_pem = ca_params.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(ca_params, ca_key);

        let mut serving = CertificateParams::new(SERVER_NAMES.map(str::to_owned))?;
        serving.distinguished_name = name("kube-apiserver", None);
        serving.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let serving_key = KeyPair::generate()?;
        let serving_cert = serving.signed_by(&serving_key, &issuer)?;

        let service_account_key = KeyPair::generate()?;
        Ok(Self {
            ca: put("ca.crt", &ca_pem)?,
            serving_cert: put("apiserver.crt", &serving_cert.pem())?,
            serving_key: put("apiserver.key", &serving_key.serialize_pem())?,
            service_account_key: put("sa.key", &service_account_key.serialize_pem())?,
            service_account_public_key: put("sa.pub", &service_account_key.public_key_pem())?,
            admin: Identity::issue("admin", Some("system:masters"), &issuer)?,
            limited: Identity::issue("limited", None, &issuer)?,
            ca_pem,
        })
    }

    /// Writes the kubeconfig of the user that may do everything.
    pub(super) fn write_admin_kubeconfig(&self, path: &Path, server: &str) -> io::Result<()> {
        self.write_kubeconfig(path, server, &self.admin)
    }

    /// Writes the kubeconfig of the user that was given no rights.
    pub(super) fn write_limited_kubeconfig(&self, path: &Path, server: &str) -> io::Result<()> {
        self.write_kubeconfig(path, server, &self.limited)
    }

    /// JSON is YAML, so no YAML writer is needed; everything is embedded, so
    /// that the file can be copied elsewhere.
    fn write_kubeconfig(&self, path: &Path, server: &str, identity: &Identity) -> io::Result<()> {
        let user = identity.user;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "flotilla-test", "cluster": {
                "server": server,
                "certificate-authority-data": STANDARD.encode(&self.ca_pem),
            }}],
            "users": [{"name": user, "user": {
                "client-certificate-data": STANDARD.encode(&identity.certificate),
                "client-key-data": STANDARD.encode(&identity.key),
            }}],
            "contexts": [{"name": user, "context": {
                "cluster": "flotilla-test", "user": user, "namespace": "default",
            }}],
            "current-context": user,
        });
        fs::write(path, format!("{config:#}\n"))
    }
}

impl Identity {
    fn issue(
        user: &'static str,
        group: Option<&str>,
        issuer: &Issuer<'_, KeyPair>,
    ) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = name(user, group);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, issuer)?.pem();
        Ok(Self { user, certificate, key: key.serialize_pem() })
    }
}

/// Kubernetes reads the user from the common name and groups from organisations.
fn name(common: &str, organisation: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, organisation);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_readable_and_names_its_user() {
        let dir = tempfile::tempdir().unwrap();
        let credentials = Credentials::create(dir.path()).unwrap();
        let path = dir.path().join("limited.kubeconfig");
        credentials.write_limited_kubeconfig(&path, "https://127.0.0.1:1").unwrap();

        let config = kube::config::Kubeconfig::read_from(&path).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("limited"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:1"));
        assert!(cluster.certificate_authority_data.is_some());
    }
}
