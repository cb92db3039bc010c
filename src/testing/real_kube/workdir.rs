//! The folder of one instance: data, certificates, logs, pid files.
//!
//! It is removed when the instance is dropped. A killed test process drops
//! nothing, and etcd's files are large, so the next instance that starts removes
//! what dead owners left. An owner is alive exactly as long as it holds the lock
//! on the file in its folder: the kernel lets go of it however the owner ends,
//! and process ids, which are used again, need not be trusted.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

const PREFIX: &str = "flotilla-kube-";
const LOCK: &str = "owner.lock";
/// A younger folder without a lock may belong to an owner that is just making it.
const SETTING_UP: Duration = Duration::from_secs(60);

/// A folder that lives as long as this value.
#[derive(Debug)]
pub(super) struct WorkDir {
    dir: TempDir,
    /// Held, never read: tells others that the folder has an owner.
    _lock: File,
}

impl WorkDir {
    pub(super) fn create() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        Self::create_in(&parent)
    }

    fn create_in(parent: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // It gets its name only when it is locked: a file of that name that is
        // not locked has lost its owner, however young it is.
        let unnamed = dir.path().join("new.lock");
        let lock = File::create(&unnamed)?;
        lock.lock()?;
        fs::rename(unnamed, dir.path().join(LOCK))?;
        Ok(Self { dir, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// Removes the folders of owners that are gone. What cannot be removed (it may
/// be another user's) is left alone: this is tidiness, not a duty.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(dir: &Path) -> bool {
    match File::open(dir.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == io::ErrorKind::NotFound && age(dir) >= SETTING_UP,
    }
}

fn age(dir: &Path) -> Duration {
    let modified = dir.metadata().and_then(|meta| meta.modified());
    modified.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_abandoned_folders_are_swept() {
        let parent = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = parent.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let alive = WorkDir::create_in(parent.path()).unwrap();
        let abandoned = folder("flotilla-kube-abandoned");
        File::create(abandoned.join(LOCK)).unwrap();
        let being_made = folder("flotilla-kube-new");
        let foreign = folder("something-else");

        sweep(parent.path());
        assert!(!abandoned.exists());
        for kept in [alive.path(), &being_made, &foreign] {
            assert!(kept.exists(), "{}", kept.display());
        }
    }

    #[test]
    fn a_dropped_folder_is_gone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = WorkDir::create_in(parent.path()).unwrap();
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
    }
}
