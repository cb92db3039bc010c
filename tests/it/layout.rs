//! The shape of the tree, as tests: which package may use which, what a source
//! file must and must not contain, what stands where, which licences are
//! allowed, and that the pages name only things that exist.
//!
//! A reviewer forgets such rules; a test does not. Every failure names the
//! file, the rule and the remedy. When a better cut shows itself, change the
//! table in `arrows` and the one in ARCHITECTURE.md in one step.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod arrows;
mod licences;
mod pages;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The folder of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Paths of all committed files that are there, relative to the root.
///
/// Where git is missing (a source archive), everything that is not ignored
/// stands for it.
fn files() -> Vec<PathBuf> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let mut files = match listed {
        Ok(listed) if listed.status.success() && !listed.stdout.is_empty() => {
            String::from_utf8(listed.stdout)
                .unwrap()
                .split_terminator('\0')
                .map(PathBuf::from)
                .filter(|path| root().join(path).is_file())
                .collect()
        }
        _ => {
            let mut found = Vec::new();
            walk(root(), &mut found);
            found
        }
    };
    files.sort();
    assert!(files.len() > 50, "only {} files found in {}: the list is wrong", files.len(), root().display());
    files
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(root()).unwrap();
        if relative == Path::new(".git") || relative == Path::new("target") {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(relative.to_owned());
        }
    }
}

/// Committed files whose name ends with `.extension`.
fn files_with(extension: &str) -> Vec<PathBuf> {
    files().into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// The text of a file; of one that is no text, what can be read of it.
fn text(path: &Path) -> String {
    let bytes =
        std::fs::read(root().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What cargo knows about the workspace. Offline: a test that is being run has
/// everything it needs.
fn metadata(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The resolved graph for the machine that runs the test: other platforms'
/// packages need not have been downloaded.
fn resolved() -> Value {
    let output = Command::new("rustc").arg("-vV").output().unwrap();
    let words = String::from_utf8(output.stdout).unwrap();
    let host = words.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    metadata(&["--filter-platform", &host])
}

/// The elements of an array in cargo's answer.
fn each<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is no array"))
}

/// A text in cargo's answer.
fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is no text"))
}

/// Fails with everything that breaks a rule, not only the first.
fn hold(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}
