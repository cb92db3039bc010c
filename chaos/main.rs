//! `chaos`: looks for violations of the fleet's promises before users do.

mod commands;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As the product's own: a simulation spends a tenth of its time on memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Looks for violations of the fleet's promises.
///
/// Ends with 0 when none was found, with 1 when one was, with 2 when it could not
/// look.
#[derive(Parser)]
#[command(name = "chaos", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Each has a module of its own under `commands`.
#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "processes")]
    /// Kills, ends and stops real replicas, and measures what that costs.
    Kills(commands::kills::KillsArgs),
    /// Explores small models of the protocols exhaustively.
    Model(commands::model::ModelArgs),
    #[cfg(feature = "processes")]
    /// Plays planned faults between real replicas and their API server.
    Plans(commands::plans::PlansArgs),
    Sim(commands::sim::SimArgs),
}

fn main() -> ExitCode {
    let found = match Cli::parse().command {
        #[cfg(feature = "processes")]
        Command::Kills(args) => commands::kills::run(&args, &mut std::io::stdout()),
        Command::Model(args) => commands::model::run(&args, &mut std::io::stdout()),
        #[cfg(feature = "processes")]
        Command::Plans(args) => commands::plans::run(args, &mut std::io::stdout()),
        Command::Sim(args) => commands::sim::run(&args, &mut std::io::stdout()),
    };
    match found {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // With nothing to write to there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}
