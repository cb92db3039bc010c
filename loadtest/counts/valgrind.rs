//! Counts by running this program under callgrind, one process for each path: none
//! sees a heap that another has used.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use flotilla_counts::meter::COUNTED;
use flotilla_counts::paths::PATHS;

use crate::baseline::Baseline;

/// Counts all paths, two at a time.
///
/// # Errors
/// When valgrind is not there, or a path fails.
pub fn count_all() -> anyhow::Result<Baseline> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut counted = Vec::new();
        while let Some(path) = PATHS.get(next.fetch_add(1, Ordering::Relaxed)) {
            counted.push((path.name.to_owned(), count(path.name)?));
        }
        anyhow::Ok(counted)
    };
    let counted = std::thread::scope(|scope| {
        let other = scope.spawn(some);
        let mut counted = some()?;
        let other = other.join().map_err(|_| anyhow::anyhow!("a thread that counts has ended"))?;
        counted.extend(other?);
        anyhow::Ok(counted)
    })?;
    Ok(Baseline {
        compiler: compiler()?,
        architecture: std::env::consts::ARCH.to_owned(),
        instructions: counted.into_iter().collect(),
    })
}

fn count(path: &str) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(std::env::current_exe()?)
        .args(["run", path])
        // The C library copies and compares by what the processor can do: here by what
        // all of this architecture can, so that the same is counted on each.
        .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM")
        .stdin(Stdio::null())
        .output()
        .context("valgrind cannot be started; install the package valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{path} under valgrind: {}\n{said}", output.status);
    collected(&said).with_context(|| format!("{path}: valgrind says no count\n{said}"))
}

/// The count in callgrind's last words: `==17== Collected : 12345`. None is wrong, too:
/// then it has not found what to count.
fn collected(said: &str) -> Option<u64> {
    let (_, count) = said.lines().find_map(|line| line.split_once(" Collected : "))?;
    count.trim().parse().ok().filter(|count| *count > 0)
}

/// The compiler's name and version. Whoever builds this has the one that built it.
fn compiler() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).arg("--version").output().context("rustc cannot be asked its version")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_and_none_at_all_is_refused() {
        assert_eq!(collected("==7== Events    : Ir\n==7== Collected : 4711\n"), Some(4711));
        assert_eq!(collected("==7== Collected : 0\n"), None);
        assert_eq!(collected("==7== \n"), None);
    }
}
