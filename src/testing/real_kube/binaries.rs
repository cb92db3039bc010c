//! Finds the real etcd, kube-apiserver and kube-controller-manager.
//!
//! They are never built from here: a test that compiles Kubernetes for ten
//! minutes looks like one that hangs. `tests/kube/build.sh` builds them, and is
//! asked here where it put them, so that the cache key is computed in one place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Error, Part};

/// The folder that envtest and other tools of the Kubernetes world agree on.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Turns "not built, so skipped" into an error; set where nothing may be skipped.
const REQUIRE: &str = "FLOTILLA_REQUIRE_REAL_KUBE";
/// The script that builds the parts, seen from this crate.
const BUILD_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/kube/build.sh");

/// A folder that holds an executable for every part that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// The binaries; `None`, with the reason on stderr, when there are none and
    /// none are required.
    pub(super) fn find(parts: &[Part]) -> Result<Option<Self>, Error> {
        let reason = match locate(std::env::var_os(ASSETS).map(PathBuf::from), parts) {
            Ok(dir) => return Ok(Some(Self { dir })),
            Err(reason) => reason,
        };
        if std::env::var_os(REQUIRE).is_some_and(|value| value == "1") {
            return Err(Error::NotBuilt { reason });
        }
        // Not eprintln: what that prints is hidden when the test passes, and a
        // skipped test passes.
        writeln!(io::stderr(), "SKIPPED: no real kube-apiserver: {reason}")
            .map_err(Error::io("print why a test is skipped"))?;
        Ok(None)
    }

    pub(super) fn path(&self, part: Part) -> PathBuf {
        self.dir.join(part.name())
    }
}

/// The folder, or the reason why there is none.
fn locate(assets: Option<PathBuf>, parts: &[Part]) -> Result<PathBuf, String> {
    let dir = match assets {
        Some(dir) => dir,
        None => built()?,
    };
    match parts.iter().find(|part| !is_executable(&dir.join(part.name()))) {
        None => Ok(dir),
        Some(part) => Err(format!("{} holds no {}", dir.display(), part.name())),
    }
}

fn built() -> Result<PathBuf, String> {
    let output = Command::new("bash")
        .args([BUILD_SCRIPT, "--where"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("bash cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("it is not built; run tests/kube/build.sh, or set {ASSETS}"));
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    let dir = printed.lines().last().ok_or("tests/kube/build.sh --where printed nothing")?;
    Ok(PathBuf::from(dir))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_parts_is_named_in_the_reason() {
        let empty = tempfile::tempdir().unwrap();
        let reason = locate(Some(empty.path().to_owned()), &[Part::Apiserver]).unwrap_err();
        assert!(reason.contains("kube-apiserver"), "{reason}");
        assert!(reason.contains(&empty.path().display().to_string()), "{reason}");
    }

    #[test]
    fn a_file_that_cannot_be_executed_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("etcd"), "").unwrap();
        assert!(locate(Some(dir.path().to_owned()), &[Part::Etcd]).is_err());
    }
}
