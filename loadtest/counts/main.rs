//! `counts`: how many instructions the product's hot paths take, and which of them
//! has grown.
//!
//! Instructions under callgrind hardly depend on the machine or on what else it does,
//! so a few percent are seen that no clock would show. What they leave out are caches,
//! memory and waiting: `benches/paths.rs` measures the same work by the clock.
//!
//! Why so, and not a framework: gungraun compares with an earlier run on the same
//! machine, which a fresh clone does not have, and needs a runner that is built and
//! installed besides. What is to be compared with is in the repository, so that whoever
//! makes a path more expensive says so in the same commit.
//!
//! The allocator is the system's, not the one that is shipped: that one asks the clock
//! when it gives memory back, so no two runs would count the same.

mod baseline;
mod valgrind;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use flotilla_counts::meter::{COUNTED, Meter};
use flotilla_counts::paths::PATHS;

use baseline::{Baseline, Finding};

/// Counts the instructions of the product's hot paths.
///
/// Ends with 0 when none has grown, with 1 when one has, with 2 when it could not count.
#[derive(Parser)]
#[command(name = "counts", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The file of the counts to compare with.
    #[arg(long, global = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json"))]
    baseline: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Counts all paths, and fails when one has grown by more than 5 % (25 % when the
    /// baseline was counted with another compiler).
    Check,
    /// Counts all paths and writes that as the new baseline.
    Write,
    /// Goes one path once: what callgrind looks at.
    Run {
        /// Its name.
        path: String,
    },
}

fn main() -> ExitCode {
    match run(&Cli::parse(), &mut std::io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // With nothing to write to there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli, out: &mut impl Write) -> anyhow::Result<bool> {
    match &cli.command {
        Command::Run { path } => {
            let path = PATHS.iter().find(|one| one.name == path);
            path.context("no path has this name")?.go(&mut Meter::default())?;
            Ok(true)
        }
        Command::Write => {
            let counted = valgrind::count_all()?;
            counted.write(&cli.baseline)?;
            writeln!(out, "{} counts are in {}", counted.instructions.len(), cli.baseline.display())?;
            Ok(true)
        }
        Command::Check => check(&Baseline::read(&cli.baseline)?, &valgrind::count_all()?, out),
    }
}

/// Says of each path what has become of it; whether none has grown.
fn check(before: &Baseline, now: &Baseline, out: &mut impl Write) -> anyhow::Result<bool> {
    let compared = before.compared_with(now);
    if let Some(words) = &compared.doubt {
        writeln!(out, "{words}")?;
    }
    for (name, finding) in &compared.findings {
        let what = PATHS.iter().find(|path| path.name == name).map_or("", |path| path.what);
        writeln!(out, "{name:<20} {finding}   {what}")?;
    }
    let holds = compared.findings.values().all(Finding::holds);
    if !holds {
        writeln!(
            out,
            "What is needed costs what it costs: then `cargo run --release -p flotilla-counts -- write` and commit \
             loadtest/counts/baseline.json with it, with the reason. Which function it is, `callgrind_annotate` says \
             of a run of `valgrind --tool=callgrind --toggle-collect='{}' counts run PATH`.",
            COUNTED
        )?;
    }
    Ok(holds)
}
