//! Writes the CustomResourceDefinitions into a directory, one file each:
//! `cargo run -p flotilla-api --example crds -- charts/flotilla/crds`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crds DIR");
        return ExitCode::from(2);
    };
    for (name, content) in flotilla_api::crd::crd_files() {
        let path = directory.join(name);
        if let Err(error) = std::fs::create_dir_all(&directory).and_then(|()| std::fs::write(&path, content))
        {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
