//! `flotilla gateway`: one or many reference gateways in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use flotilla_certs::{
    Alpn, CertificatePem, ClientAuth, ClientTls, ServerCheck, ServerTls, TrustRoots, Usage, check_leaf,
    peer_identity,
};
use flotilla_core::ids::GatewayId;
use flotilla_gateway::{
    ApplyCost, Fleet, FleetOptions, GatewayOptions, HttpListeners, Listen, OperatorAddress,
};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio_util::sync::CancellationToken;

use crate::cli::GatewayArgs;

/// Where a process of gateways listens, as it writes it down for others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addresses {
    /// Serves `/config`, `/digest`, `/stats`, `/events`.
    pub admin: SocketAddr,
    /// Serves the routes of the first gateway.
    pub http: Option<SocketAddr>,
    /// Where those gateways that wait for replicas do so.
    #[serde(default)]
    pub push: Vec<SocketAddr>,
}

/// Runs until cancelled.
///
/// # Errors
/// Unusable flags, certificates or addresses.
pub async fn run(args: GatewayArgs, cancel: CancellationToken) -> anyhow::Result<ExitCode> {
    let options = tokio::task::spawn_blocking({
        let args = args.clone();
        move || gateways(&args)
    })
    .await??;
    let fleet = FleetOptions {
        admin: Some(args.admin_listen),
        http: HttpListeners::First(args.listen),
        ..FleetOptions::default()
    };
    let fleet = Fleet::start(options, fleet).await?;
    if let (Some(path), Some(admin)) = (&args.address_file, fleet.admin_address()) {
        let http = fleet.http_addresses().first().copied();
        let addresses = Addresses { admin, http, push: fleet.listening().to_vec() };
        write_whole(path, &serde_json::to_vec(&addresses)?).await?;
    }
    fleet.run_until(cancel).await?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a file, for its owner only, so that a reader finds all of it or none.
///
/// # Errors
/// When it cannot be written.
pub async fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let draft = path.with_extension("draft");
    let named = || format!("{}: cannot be written", path.display());
    let write = async {
        // What an interrupted run left, with whatever mode.
        match tokio::fs::remove_file(&draft).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = tokio::fs::OpenOptions::new();
        let mut file = options.create_new(true).write(true).mode(0o600).open(&draft).await?;
        file.write_all(content).await?;
        file.flush().await
    };
    write.await.with_context(named)?;
    tokio::fs::rename(&draft, path).await.with_context(named)
}

/// The options of every gateway asked for. Reads files: blocks.
fn gateways(args: &GatewayArgs) -> anyhow::Result<Vec<GatewayOptions>> {
    let operators: Vec<OperatorAddress> = args
        .operator_address
        .iter()
        .map(|text| text.parse().context("--operator-address"))
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(
        args.push_listen.is_empty() || args.push_listen.len() == args.count as usize,
        "--push-listen: {} addresses for {} gateways; give each its own",
        args.push_listen.len(),
        args.count
    );
    let roots = TrustRoots::read(&args.operator_ca_file).context("--operator-ca-file")?;
    let one = |index: u32| {
        let (name, certificate, key) = identity(args, index);
        let pem =
            CertificatePem::read(&certificate, &key).context("--operator-cert-file, --operator-key-file")?;
        check_leaf(&certificate.display().to_string(), &pem, &roots, Usage::Client, SystemTime::now())?;
        let tls = ClientTls::new(Some(&pem), &roots, ServerCheck::Name, Alpn::H2)?;
        let listen = match args.push_listen.get(index as usize) {
            Some(address) => Some(listen(args, *address, &certificate, &pem, &roots)?),
            None => None,
        };
        let id = GatewayId { namespace: args.gateway_namespace.as_str().into(), name: name.into() };
        Ok(GatewayOptions {
            listen,
            namespaces: args.operator_namespaces.clone(),
            apply_cost: if args.real_apply_cost { ApplyCost::Real } else { ApplyCost::None },
            ..GatewayOptions::new(id, operators.clone(), Some(tls))
        })
    };
    (0..args.count).map(one).collect()
}

/// How a gateway listens: with the certificate that it would dial with.
fn listen(
    args: &GatewayArgs,
    address: SocketAddr,
    certificate: &Path,
    pem: &CertificatePem,
    roots: &TrustRoots,
) -> anyhow::Result<Listen> {
    let what = certificate.display().to_string();
    check_leaf(&what, pem, roots, Usage::Server, SystemTime::now())?;
    Ok(Listen {
        address,
        tls: ServerTls::new(pem, roots, ClientAuth::Required, Alpn::H2)?,
        trust_domain: peer_identity(&pem.chain(&what)?).context("--operator-cert-file")?.trust_domain,
        batches: args.push_batches,
    })
}

/// Name and files of one gateway: with several, each has a folder of its name
/// beside the others.
fn identity(args: &GatewayArgs, index: u32) -> (String, PathBuf, PathBuf) {
    if args.count == 1 {
        return (args.gateway_name.clone(), args.operator_cert_file.clone(), args.operator_key_file.clone());
    }
    let name = format!("{}-{index}", args.gateway_name);
    let certificate = args.operator_cert_file.join(&name).join("tls.crt");
    let key = args.operator_key_file.join(&name).join("tls.key");
    (name, certificate, key)
}
