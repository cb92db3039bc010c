//! `flotilla gateway`: one or many reference gateways in this process.

use std::net::SocketAddr;
use std::path::Path;
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
        let name = name(args, index);
        let shown = certificate(args, &name)?;
        if let Some((file, pem)) = &shown {
            check_leaf(file, pem, &roots, Usage::Client, SystemTime::now())?;
        }
        let tls = ClientTls::new(shown.as_ref().map(|(_, pem)| pem), &roots, ServerCheck::Name, Alpn::H2)?;
        let listen = match (args.push_listen.get(index as usize), &shown) {
            (Some(address), Some((file, pem))) => Some(listen(args, *address, file, pem, &roots)?),
            (Some(_), None) => {
                anyhow::bail!("--push-listen needs --operator-cert-file and --operator-key-file")
            }
            (None, _) => None,
        };
        let id = GatewayId { namespace: args.gateway_namespace.as_str().into(), name: name.into() };
        Ok(GatewayOptions {
            listen,
            labels: args.labels.0.clone(),
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
    file: &str,
    pem: &CertificatePem,
    roots: &TrustRoots,
) -> anyhow::Result<Listen> {
    check_leaf(file, pem, roots, Usage::Server, SystemTime::now())?;
    Ok(Listen {
        address,
        tls: ServerTls::new(pem, roots, ClientAuth::Required, Alpn::H2)?,
        trust_domain: peer_identity(&pem.chain(file)?).context("--operator-cert-file")?.trust_domain,
        batches: args.push_batches,
    })
}

/// Name of one gateway: with several, each has a number.
fn name(args: &GatewayArgs, index: u32) -> String {
    match args.count {
        1 => args.gateway_name.clone(),
        _ => format!("{}-{index}", args.gateway_name),
    }
}

/// The certificate of one gateway, if it is to show one, and its file: with several
/// gateways, each has a folder of its name beside the others.
fn certificate(args: &GatewayArgs, name: &str) -> anyhow::Result<Option<(String, CertificatePem)>> {
    let (Some(certificate), Some(key)) = (&args.operator_cert_file, &args.operator_key_file) else {
        return Ok(None);
    };
    let own = |given: &Path, file: &str| match args.count {
        1 => given.to_owned(),
        _ => given.join(name).join(file),
    };
    let certificate = own(certificate, "tls.crt");
    let pem = CertificatePem::read(&certificate, &own(key, "tls.key"))
        .context("--operator-cert-file, --operator-key-file")?;
    Ok(Some((certificate.display().to_string(), pem)))
}
