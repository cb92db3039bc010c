//! `chaos kills`: real replicas are killed, and it is measured what that costs.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use flotilla_kills::{Api, Blow, Options};
use tokio::task::LocalSet;

/// Which API server the fleet works on.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ApiServer {
    /// A real kube-apiserver with etcd; tests/kube/build.sh builds it
    Real,
    /// `flotilla apiserver`
    Embedded,
}

/// How a replica is hit.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Signal {
    /// SIGKILL
    Kill,
    /// SIGTERM
    Term,
    /// SIGSTOP, then SIGCONT
    Stop,
}

/// Flags of `chaos kills`.
#[derive(Debug, Args)]
pub struct KillsArgs {
    /// Which API server
    #[arg(long, value_enum, default_value = "real")]
    api: ApiServer,
    /// Replicas
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=9))]
    replicas: u16,
    /// Namespaces of tenants, with four objects each
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    namespaces: u16,
    /// Gateways, all in this process
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=2000))]
    gateways: u16,
    /// Changes per second
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    rate: u32,
    /// How many replicas are hit with each of the signals
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: usize,
    /// With what they are hit, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "kill,term,stop")]
    signals: Vec<Signal>,
    /// Seconds for which a replica stands still after SIGSTOP
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    stopped_for: u64,
    /// Milliseconds after which a killed replica is started again
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    back_after: u64,
    /// Update all replicas one after the other at the end
    #[arg(long)]
    rolling: bool,
    /// The built `flotilla`; default: beside this program
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Where to write everything that was found, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs it; whether every promise was kept.
///
/// # Errors
/// When it could not be tried.
pub fn run(args: &KillsArgs, out: &mut dyn Write) -> anyhow::Result<bool> {
    let options = options(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The harness of the fleet panics, with words, when it cannot go on. It
    // stays on this thread; the gateways have the others.
    let run = LocalSet::new().block_on(&runtime, async {
        let trial = tokio::task::spawn_local(async move { flotilla_kills::run(&options, &say).await });
        trial.await.context("the fleet could not be kept going")
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let Some(report) = run?? else {
        anyhow::bail!(
            "there is no real API server on this machine; tests/kube/build.sh builds it, or use --api embedded"
        )
    };
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("--json: {} cannot be written", file.display()))?;
    }
    writeln!(out, "{}", report.table())?;
    Ok(report.held())
}

/// One line on standard output; nobody may be reading any more, which is no
/// reason to stop.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn options(args: &KillsArgs) -> anyhow::Result<Options> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("flotilla"),
    };
    anyhow::ensure!(
        program.is_file(),
        "{} is not there; build it with the same profile (`cargo build --release -p flotilla`) or name it with --program",
        program.display()
    );
    let blow = |signal: &Signal| match signal {
        Signal::Kill => Blow::Kill,
        Signal::Term => Blow::Term,
        Signal::Stop => Blow::Stop,
    };
    Ok(Options {
        program,
        api: match args.api {
            ApiServer::Real => Api::Real,
            ApiServer::Embedded => Api::Embedded,
        },
        replicas: args.replicas.into(),
        namespaces: args.namespaces.into(),
        gateways: args.gateways.into(),
        rate: args.rate,
        kills: args.kills,
        blows: args.signals.iter().map(blow).collect(),
        stopped_for: Duration::from_secs(args.stopped_for),
        back_after: Duration::from_millis(args.back_after),
        rolling: args.rolling,
    })
}
