//! Configuration, supervision and the modes of the binary.
//!
//! Everything that reads flags and the environment, opens ports, spawns tasks
//! or prints to the terminal is here; everything that decides is not.

mod apiserver;
mod certs;
mod cli;
mod controller;
mod crds;
#[cfg(test)]
mod damage;
mod demo;
mod environment;
mod gateway;
mod registry;
mod replica;
mod standalone;
mod supervisor;
mod telemetry;
mod web;
mod webhook;

use std::process::ExitCode;

/// Runs the command line of the process and returns its exit code: 0 fine,
/// 1 a problem, 2 a wrong command line.
pub fn main() -> ExitCode {
    let (args, complaints) = match environment::parse(std::env::args_os(), environment::variables()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Clap words its own errors, and `--help` is one of them.
            let code = if error.use_stderr() { 2 } else { 0 };
            return error.print().map_or(ExitCode::from(2), |()| ExitCode::from(code));
        }
    };
    telemetry::init(&args.log, args.command.default_log_level());
    for complaint in complaints {
        tracing::warn!(
            variable = complaint.variable,
            problem = complaint.problem,
            "environment variable ignored"
        );
    }
    if let cli::Command::Controller(controller) = &args.command {
        for (flag, instead) in controller.published.given() {
            tracing::warn!(flag, instead, "a flag of the published operator has no effect");
        }
    }
    match cli::run(args.command, args.exit_with_stdin) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed");
            eprint_last(&error);
            ExitCode::FAILURE
        }
    }
}

/// A person at a terminal gets the reason in one line, also when logs go
/// elsewhere or are off.
fn eprint_last(error: &anyhow::Error) {
    use std::io::{IsTerminal, Write};
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        // Nothing is left to do when even that cannot be written.
        let _ = writeln!(stderr, "error: {error:#}");
    }
}
