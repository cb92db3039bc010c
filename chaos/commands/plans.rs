//! `chaos plans`: planned faults between real replicas and their API server.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use flotilla_plans::{Against, Choice, Ground, Options, Plan};

/// Plays planned faults between real replicas and their API server.
///
/// Without --all and --plan it plays a fixed set.
#[derive(clap::Args)]
pub struct PlansArgs {
    /// Which API server: the embedded one, or a real kube-apiserver as tests/kube/build.sh builds it
    #[arg(long, value_enum, default_value = "embedded")]
    api: Api,
    /// Every plan that the reference run gives rise to, and ten minutes without an API server
    #[arg(long, conflicts_with = "plan")]
    all: bool,
    /// This plan, by its name from a report or from --list; can be given again
    #[arg(long, value_name = "NAME")]
    plan: Vec<Plan>,
    /// Runs at a time; each has two replicas, two gateways and an API server. They mostly wait
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Print the names of the chosen plans instead of playing them
    #[arg(long)]
    list: bool,
    /// Write the verdicts to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The built `flotilla`. Default: beside this binary, or else the other profile's
    #[arg(long, value_name = "FILE")]
    flotilla: Option<PathBuf>,
}

/// An API server to choose.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Api {
    /// The embedded one
    Embedded,
    /// A real kube-apiserver
    Real,
}

/// Plays them; `false` when one of them failed.
///
/// # Errors
/// When it cannot look: there is no binary, no API server, or the reference
/// run, without any fault, does not end well.
pub fn run(args: PlansArgs, out: &mut (dyn Write + Send)) -> anyhow::Result<bool> {
    let program = match args.flotilla {
        Some(file) => file,
        None => beside(&std::env::current_exe()?)?,
    };
    ensure!(program.is_file(), "{}: no such file; build it or use --flotilla", program.display());
    let against = if args.api == Api::Real { Against::Real } else { Against::Inside };
    let choice = match (args.all, args.plan) {
        (true, _) => Choice::All,
        (false, plans) if plans.is_empty() => Choice::Fixed,
        (false, plans) => Choice::Named(plans),
    };
    let options = Options { ground: Ground { program, against }, choice, jobs: args.jobs.into() };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if args.list {
        runtime.block_on(flotilla_plans::list(options, out))?;
        return Ok(true);
    }
    let report = runtime.block_on(flotilla_plans::run(options, out))?;
    if let Some(file) = args.json {
        let mut into = BufWriter::new(File::create(&file).with_context(|| file.display().to_string())?);
        serde_json::to_writer_pretty(&mut into, &report)?;
        into.flush()?;
    }
    Ok(report.failed().next().is_none())
}

/// The product's binary of the same build, or of the other profile.
fn beside(own: &Path) -> anyhow::Result<PathBuf> {
    let profile = own.parent().context("this binary has no folder")?;
    let target = profile.parent().unwrap_or(profile);
    let places = [profile.to_owned(), target.join("release"), target.join("debug")];
    let found = places.iter().map(|place| place.join("flotilla")).find(|file| file.is_file());
    found.with_context(|| {
        format!("no binary flotilla below {}: `cargo build -p flotilla`, or use --flotilla", target.display())
    })
}
