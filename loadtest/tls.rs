//! Certificates of a run: a CA, one server, and as many gateways as wanted.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use flotilla_certs::{Authority, CertificatePem, Identity, LeafRequest, TrustRoots, provider};
use rustls::{ClientConfig, ServerConfig};

/// The trust domain of the fleets that a run starts.
const TRUST_DOMAIN: &str = "cluster.local";

/// Files of a folder as gateways and servers keep them.
pub const CA: &str = "ca.crt";
/// See [`CA`].
pub const CERTIFICATE: &str = "tls.crt";
/// See [`CA`].
pub const KEY: &str = "tls.key";

/// What a gateway of this name connects with.
///
/// # Errors
/// When the name cannot stand in a certificate.
pub fn gateway(authority: &Authority, namespace: &str, name: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let identity = Identity::gateway(TRUST_DOMAIN, namespace, name)?;
    let leaf = authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now())?;
    client(authority.roots(), Some(&leaf))
}

/// What a gateway with this certificate, or with none, connects with.
///
/// # Errors
/// When one of them cannot be used.
pub fn client(roots: &TrustRoots, leaf: Option<&CertificatePem>) -> anyhow::Result<Arc<ClientConfig>> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.store()?);
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(leaf.chain("--cert")?, leaf.key("--key")?)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Writes what a server of the yardstick needs.
///
/// # Errors
/// When a file cannot be written.
pub fn write_server(authority: &Authority, folder: &Path) -> anyhow::Result<()> {
    let identity = Identity::controller(TRUST_DOMAIN, "loadtest", "limit")?;
    let addresses = vec![std::net::IpAddr::from([127, 0, 0, 1])];
    let request = LeafRequest::controller(identity, vec!["localhost".to_owned()], addresses);
    let leaf = authority.issue_leaf(&request, SystemTime::now())?;
    let files = [(CA, authority.roots().pem()), (CERTIFICATE, &leaf.certificate), (KEY, &leaf.private_key)];
    for (name, text) in files {
        std::fs::write(folder.join(name), text).with_context(|| name.to_owned())?;
    }
    Ok(())
}

/// What a server with the files of a folder serves with: clients need a
/// certificate of the same CA, as with a replica.
///
/// # Errors
/// When a file is missing or cannot be used.
pub fn server(folder: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let leaf = CertificatePem::read(&folder.join(CERTIFICATE), &folder.join(KEY))?;
    let roots = Arc::new(TrustRoots::read(&folder.join(CA))?.store()?);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(leaf.chain(CERTIFICATE)?, leaf.key(KEY)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
