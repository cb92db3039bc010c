//! `chaos`: looks for violations of the fleet's promises before users do.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
enum Command {}

#[expect(unreachable_code, reason = "the first command is not there yet")]
fn main() -> ExitCode {
    match Cli::parse().command {}
}
