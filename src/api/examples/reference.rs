//! Writes the reference of all resources into a file:
//! `cargo run -p flotilla-api --example reference -- charts/flotilla/RESOURCES.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(file) = std::env::args_os().nth(1) else {
        eprintln!("usage: reference FILE");
        return ExitCode::from(2);
    };
    if let Err(error) = std::fs::write(&file, flotilla_api::reference::reference()) {
        eprintln!("cannot write {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
