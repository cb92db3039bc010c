//! The commands and their flags. Values are typed here; what they mean for
//! the parts is decided in one function per mode.

mod controller;
mod demo;
mod gateway;
mod published;
mod standalone;
mod tools;
mod vault;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

pub use controller::{CertProvider, ControllerArgs, WebhookReferences};
pub use demo::{DemoArgs, Output};
pub use gateway::GatewayArgs;
pub use published::PublishedArgs;
pub use standalone::{ApiServerArgs, StandaloneArgs};
pub use tools::{CaArgs, CertsArgs, CertsCommand, CrdsArgs, LeafCertArgs, RotateArgs};
pub use vault::VaultArgs;

use crate::telemetry::LogArgs;

/// Brings the routes and backends of many tenants to many API gateways, and
/// reports what each gateway has applied.
///
/// Every flag can also be set by an environment variable: --grpc-port by
/// GRPC_PORT. The variable beats the flag. Exceptions: --kubeconfig beats
/// KUBECONFIG, and commands of `certs` have flags only.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, args_override_self = true)]
pub struct Args {
    #[command(flatten)]
    pub log: LogArgs,
    /// End when standard input ends: a child that must not outlive its parent
    #[arg(long, global = true, hide = true)]
    pub exit_with_stdin: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// What to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one replica against a Kubernetes API
    Controller(Box<ControllerArgs>),
    /// Run an embedded API server, replicas and gateways in one process
    Standalone(Box<StandaloneArgs>),
    /// See it work: an API server, three replicas and twenty gateways as processes
    Demo(Box<DemoArgs>),
    /// Run reference gateways
    Gateway(Box<GatewayArgs>),
    /// Run an embedded API server alone
    Apiserver(Box<ApiServerArgs>),
    /// Print the custom resource definitions as YAML
    Crds(CrdsArgs),
    /// Issue certificates, replace the CA
    Certs(CertsArgs),
}

impl Command {
    /// The log level when none is asked for: a demo talks on the terminal
    /// itself.
    pub fn default_log_level(&self) -> &'static str {
        match self {
            Command::Demo(_) | Command::Certs(_) | Command::Crds(_) => "warn",
            _ => "info",
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// What went wrong, with context for people.
pub fn run(command: Command, exit_with_stdin: bool) -> anyhow::Result<ExitCode> {
    if let Command::Crds(args) = command {
        return crate::crds::print(&args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let cancel = CancellationToken::new();
        crate::supervisor::on_signals(cancel.clone(), exit_with_stdin)?;
        match command {
            Command::Controller(args) => crate::controller::run(*args, cancel).await,
            Command::Standalone(args) => crate::standalone::run(*args, cancel).await,
            Command::Demo(args) => crate::demo::run(*args, cancel).await,
            Command::Gateway(args) => crate::gateway::run(*args, cancel).await,
            Command::Apiserver(args) => crate::apiserver::run(*args, cancel).await,
            Command::Certs(args) => crate::certs::run(args).await,
            Command::Crds(args) => crate::crds::print(&args),
        }
    });
    // Everything is joined by now; what is left are blocking reads of files.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}
