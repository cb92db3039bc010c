//! Starts an API server with certificates of its own, and prints how kubectl reaches it. Ctrl-C ends it.
//!
//! `cargo run -p flotilla-apiserver --example serve [PORT]`

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flotilla_apiserver::{ApiServer, Identity, Options, TlsOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "its purpose is to tell how to reach the server")]
async fn main() -> Result<(), Failure> {
    let port = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;

    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "example CA");
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let (certificate_pem, private_key_pem) =
        sign(&issuer, "server", "", ExtendedKeyUsagePurpose::ServerAuth)?;
    let (client, client_key) = sign(&issuer, "admin", "system:masters", ExtendedKeyUsagePurpose::ClientAuth)?;
    let server = ApiServer::start(Options {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tls: Some(TlsOptions { certificate_pem, private_key_pem, client_ca_pem: Some(ca_pem.clone()) }),
        tokens: vec![("admin".to_owned(), Identity::admin("admin"))],
        ..Options::default()
    })
    .await?;

    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "example",
        "clusters": [{"name": "example", "cluster": {
            "server": server.url(), "certificate-authority-data": STANDARD.encode(&ca_pem)}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": STANDARD.encode(&client), "client-key-data": STANDARD.encode(&client_key)}}],
        "contexts": [{"name": "example", "context": {"cluster": "example", "user": "admin"}}],
    });
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kubeconfig.json");
    tokio::fs::write(&path, kubeconfig.to_string()).await?;
    println!("export KUBECONFIG={}", path.display());
    println!("# or: curl -k -H 'Authorization: Bearer admin' {}/api", server.url());

    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}

fn sign(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    group: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<(String, String), Failure> {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}
