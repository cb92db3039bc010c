//! `flotilla apiserver`, and the embedded API server of other modes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flotilla_apiserver::{ApiServer, Options, TlsOptions};
use flotilla_certs::Authority;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::cli::ApiServerArgs;
use crate::gateway::write_whole;

/// An embedded API server with the kubeconfig of its administrator.
pub struct Embedded {
    /// The server.
    pub server: ApiServer,
    /// Kubeconfig of a member of `system:masters`, as JSON (which is YAML).
    pub kubeconfig: String,
}

/// Starts an embedded API server with certificates made for it.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn start(listen: SocketAddr) -> anyhow::Result<Embedded> {
    let now = SystemTime::now();
    let authority = Authority::generate("flotilla-apiserver", now)?;
    let serving = authority.issue_server("flotilla-apiserver", &["localhost"], &[listen.ip()], now)?;
    let admin = authority.issue_client("flotilla-admin", Some("system:masters"), now)?;
    let ca = authority.roots().pem().to_owned();
    let options = Options {
        address: listen,
        tls: Some(TlsOptions {
            certificate_pem: serving.certificate,
            private_key_pem: serving.private_key,
            client_ca_pem: Some(ca.clone()),
        }),
        ..Options::default()
    };
    let server = ApiServer::start(options).await.context("--listen")?;
    let encode = |pem: &str| BASE64_STANDARD.encode(pem);
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "flotilla",
        "contexts": [{"name": "flotilla", "context": {"cluster": "flotilla", "user": "flotilla-admin"}}],
        "clusters": [{"name": "flotilla", "cluster": {
            "server": format!("https://{}", server.address()),
            "certificate-authority-data": encode(&ca),
        }}],
        "users": [{"name": "flotilla-admin", "user": {
            "client-certificate-data": encode(&admin.certificate),
            "client-key-data": encode(&admin.private_key),
        }}],
    });
    Ok(Embedded { server, kubeconfig: format!("{kubeconfig:#}\n") })
}

/// Runs until cancelled.
///
/// # Errors
/// When it cannot be started.
pub async fn run(args: ApiServerArgs, cancel: CancellationToken) -> anyhow::Result<ExitCode> {
    let embedded = start(args.listen).await?;
    if let Some(path) = &args.kubeconfig_out {
        write_whole(path, embedded.kubeconfig.as_bytes()).await?;
    }
    tracing::info!(address = %embedded.server.address(), "API server is up, in memory and not replicated");
    cancel.cancelled().await;
    embedded.server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}
