//! `flotilla standalone`: an embedded API server, replicas and, if wanted,
//! gateways in one process. For trying things out and for gateways outside
//! Kubernetes; it is not replicated, and says so.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use flotilla_certs::Authority;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::{Args, Command, ControllerArgs, GatewayArgs, StandaloneArgs};
use crate::{apiserver, certs, controller, gateway};

const NAMESPACE: &str = "avapigw-system";

/// Runs until cancelled.
///
/// # Errors
/// When a part cannot be started or fails.
pub async fn run(args: StandaloneArgs, cancel: CancellationToken) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("flotilla-").tempdir()?;
    let kubeconfig =
        args.apiserver.kubeconfig_out.clone().unwrap_or_else(|| folder.path().join("kubeconfig"));
    let embedded = apiserver::start(args.apiserver.listen).await?;
    gateway::write_whole(&kubeconfig, embedded.kubeconfig.as_bytes()).await?;
    let mut parts = JoinSet::new();
    let started = tokio::select! {
        biased; // being told to end comes first
        () = cancel.cancelled() => Ok(()),
        started = start(&args, &kubeconfig, folder.path(), &cancel, &mut parts) => started,
    };
    let outcome = match started {
        Ok(()) => join(&mut parts, &cancel).await,
        Err(error) => Err(error),
    };
    cancel.cancel();
    while parts.join_next().await.is_some() {}
    embedded.server.shutdown().await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Waits until all parts have ended. The first one that does, ends all: nothing
/// ends by itself. Replicas drain, so that gateways elsewhere connect again.
async fn join(parts: &mut Parts, cancel: &CancellationToken) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        cancel.cancel();
        outcome = outcome.and(ended.map_err(anyhow::Error::from).flatten());
    }
    outcome
}

type Parts = JoinSet<anyhow::Result<()>>;

async fn start(
    args: &StandaloneArgs,
    kubeconfig: &std::path::Path,
    folder: &std::path::Path,
    cancel: &CancellationToken,
    parts: &mut Parts,
) -> anyhow::Result<()> {
    let clients = flotilla_k8s::client::connect(Some(kubeconfig)).await?;
    flotilla_k8s::crd::install(&clients.objects, &flotilla_api::crd::crds(), Duration::from_secs(30)).await?;
    controller::create_namespace(&clients.objects, NAMESPACE).await?;
    let mut operators = Vec::new();
    for number in 0..args.replicas {
        let replica = controller::Replica::open(replica_args(args, kubeconfig, number)?).await?;
        operators.push(SocketAddr::from((Ipv4Addr::LOCALHOST, replica.grpc_port())));
        parts.spawn(replica.run(cancel.clone()));
    }
    // Made here, so that whoever reads the hints finds it.
    let secret = certs::CaSecret { namespace: NAMESPACE.to_owned(), name: "flotilla-ca".to_owned() };
    let authority = certs::authority(&clients.objects, &secret).await?;
    if args.gateways > 0 {
        let gateways = gateway_args(args.gateways, authority, folder, &operators).await?;
        let cancel = cancel.clone();
        parts.spawn(async move { gateway::run(gateways, cancel).await.map(drop) });
    }
    hints(kubeconfig, &operators);
    Ok(())
}

/// The flags of a replica, by way of the command line, so that every default
/// is the documented one.
fn replica_args(
    args: &StandaloneArgs,
    kubeconfig: &std::path::Path,
    number: u32,
) -> anyhow::Result<ControllerArgs> {
    let port = match args.grpc_port {
        0 => 0,
        first => u16::try_from(u32::from(first) + number)?,
    };
    let words = [
        "flotilla".to_owned(),
        "controller".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--member-name=flotilla-{number}"),
        format!("--cert-namespace={NAMESPACE}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--grpc-port={port}"),
        "--peer-port=0".to_owned(),
        "--webhook-port=0".to_owned(),
        "--metrics-bind-address=127.0.0.1:0".to_owned(),
        "--health-probe-bind-address=127.0.0.1:0".to_owned(),
        // Nobody is left to take its gateways over.
        "--drain-spread=500ms".to_owned(),
    ];
    match Args::try_parse_from(words)?.command {
        Command::Controller(mut controller) => {
            controller.new_cluster = true;
            Ok(*controller)
        }
        other => anyhow::bail!("not a replica: {other:?}"),
    }
}

async fn gateway_args(
    count: u32,
    authority: Authority,
    folder: &std::path::Path,
    operators: &[SocketAddr],
) -> anyhow::Result<GatewayArgs> {
    let folder = folder.join("gateways");
    let writing = folder.clone();
    tokio::task::spawn_blocking(move || {
        for number in 0..count {
            let name = if count == 1 { "gateway".to_owned() } else { format!("gateway-{number}") };
            let material = certs::gateway_material(&authority, "cluster.local", "gateways", &name)?;
            certs::write_material(&writing.join(name), &material)?;
        }
        anyhow::Ok(())
    })
    .await??;
    let operators: Vec<String> = operators.iter().map(ToString::to_string).collect();
    let (certificate, key, ca) = if count == 1 {
        let own = folder.join("gateway");
        (own.join("tls.crt"), own.join("tls.key"), own.join("ca.crt"))
    } else {
        (folder.clone(), folder.clone(), folder.join("gateway-0").join("ca.crt"))
    };
    let words = [
        "flotilla".to_owned(),
        "gateway".to_owned(),
        format!("--operator-address={}", operators.join(",")),
        format!("--operator-ca-file={}", ca.display()),
        format!("--operator-cert-file={}", certificate.display()),
        format!("--operator-key-file={}", key.display()),
        format!("--count={count}"),
    ];
    match Args::try_parse_from(words)?.command {
        Command::Gateway(gateway) => Ok(*gateway),
        other => anyhow::bail!("not a gateway: {other:?}"),
    }
}

/// Says how to use it. Nobody may be reading, which is no reason to stop.
fn hints(kubeconfig: &std::path::Path, operators: &[SocketAddr]) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "export KUBECONFIG={}", kubeconfig.display());
    let _ = writeln!(out, "kubectl get apiroutes,backends -A; kubectl get shardmap");
    for operator in operators {
        let _ = writeln!(out, "gateways connect to {operator}");
    }
    let _ = writeln!(
        out,
        "flotilla certs gateway --kubeconfig {} --namespace gateways --name NAME --out DIR issues a gateway's certificate",
        kubeconfig.display()
    );
    let _ = writeln!(
        out,
        "everything is in memory and in this one process: for high availability run on Kubernetes"
    );
}
