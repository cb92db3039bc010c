//! `loadtest`: measures how fast changes reach gateways, and what that costs, for
//! Flotilla and for anything else that speaks the protocol.
//!
//! What a run starts is this same binary: replicas and API servers are `flotilla`
//! under another name, so that one build has both sides.

mod cli;
mod client;
mod fleet;
mod limit;
mod process;
mod reader;
mod report;
mod requests;
mod scenarios;
mod tls;
mod workload;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// As in the product: what is measured must be what is shipped.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Subcommands of `flotilla` that runs start.
const PARTS: [&str; 3] = ["controller", "apiserver", "gateway"];

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|first| PARTS.contains(&first.as_str())) {
        return flotilla_runtime::main();
    }
    let args = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(args.command)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report::say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Propagation(args) => scenarios::propagation::run(&args).await,
        Command::Burst(args) => scenarios::burst::run(&args).await,
        Command::Poisoned(args) => scenarios::poisoned::run(&args).await,
        Command::Coldsync(args) => scenarios::coldsync::run(&args).await,
        Command::Reconnect(args) => scenarios::reconnect::run(&args).await,
        Command::Churn(args) => scenarios::churn::run(&args).await,
        Command::Failover(args) => scenarios::failover::failover(&args).await,
        Command::Rolling(args) => scenarios::failover::rolling(&args).await,
        Command::Noisy(args) => scenarios::noisy::run(&args).await,
        Command::Slow(args) => scenarios::slow::run(&args).await,
        Command::Admission(args) => scenarios::admission::run(&args).await,
        Command::Scale(args) => scenarios::scale::run(&args).await,
        Command::Soak(args) => scenarios::soak::run(&args).await,
        Command::Reading(args) => scenarios::reading::run(&args).await,
        Command::FleetSim(args) => {
            tokio::task::spawn_blocking(move || scenarios::fleet_sim::run(&args)).await?
        }
        Command::All(args) => scenarios::all::run(&args).await,
        Command::LimitServer(args) => limit::run(args).await.map(|()| true),
        Command::Reader(args) => reader::run(args).await.map(|()| true),
    }
}
