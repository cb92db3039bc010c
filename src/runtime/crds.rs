//! `flotilla crds`: prints the custom resource definitions, or writes them to
//! files.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli::CrdsArgs;

/// Prints or writes all definitions.
///
/// # Errors
/// When the output cannot be written.
pub fn print(args: &CrdsArgs) -> anyhow::Result<ExitCode> {
    let files = flotilla_api::crd::crd_files();
    match &args.out {
        None => {
            let mut stdout = std::io::stdout().lock();
            for (_, yaml) in files {
                write!(stdout, "---\n{yaml}").context("standard output")?;
            }
        }
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("--out {}", folder.display()))?;
            for (name, yaml) in files {
                let path = folder.join(name);
                std::fs::write(&path, yaml).with_context(|| format!("--out: {}", path.display()))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
