//! What every source file has to have and must not have, and what stands where
//! in the tree.

use std::path::Path;

use super::{files, files_with, hold, text};

/// Lines that a file may have. More than half of it is a sign of two concepts.
const LONGEST: usize = 800;

/// What stands at the top of the tree. Linters' files and lists for people
/// included; everything else belongs into one of the folders.
const TOP: &[&str] = &[
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "chaos",
    "charts",
    "clippy.toml",
    "deny.toml",
    "loadtest",
    "proto",
    "runbooks",
    "rustfmt.toml",
    "src",
    "tests",
];

/// Words that no source file has. Spelled in two parts, so that this file does
/// not break its own rule.
const UNFINISHED: &[(&str, &str)] = &[
    (concat!("#[ign", "ore"), "a test that does not run proves nothing: mend it or remove it"),
    (concat!("to", "do!("), "write the code, or leave the function out"),
    (concat!("unimple", "mented!("), "write the code, or leave the function out"),
    (concat!("FIX", "ME"), "fix it, or describe the limit in the documentation"),
    (concat!("allow", "(unsafe_code"), "there is no unsafe code in this tree"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINES: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Hosts of registries: which mirror serves packages and images is the
/// machine's setting, not the project's.
const REGISTRIES: &[&str] = &[
    concat!("static.crates", ".io"),
    concat!("index.crates", ".io"),
    concat!("proxy.golang", ".org"),
    concat!("sum.golang", ".org"),
    concat!("registry.npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("registry.k8s", ".io"),
    concat!("gcr", ".io"),
    concat!("ghcr", ".io"),
    concat!("quay", ".io"),
    concat!("docker", ".io"),
];

#[test]
fn every_source_file_says_what_it_is_for() {
    let broken: Vec<String> = files_with("rs")
        .iter()
        .filter(|path| !text(path).starts_with("//! "))
        .map(|path| format!("{}: open it with `//!`: what it is for, and why it is so", path.display()))
        .collect();
    hold("Every .rs file opens with its purpose", &broken);
}

#[test]
fn no_source_file_is_too_long() {
    let lines = |path: &Path| text(path).lines().count();
    let broken: Vec<String> = files_with("rs")
        .iter()
        .filter(|path| lines(path) > LONGEST)
        .map(|path| format!("{}: {} lines; cut it along its concepts", path.display(), lines(path)))
        .collect();
    hold("A .rs file has 800 lines at most", &broken);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut broken = Vec::new();
    for path in files_with("rs") {
        for (number, line) in text(&path).lines().enumerate() {
            for (mark, remedy) in UNFINISHED {
                if line.contains(mark) {
                    broken.push(format!("{}:{}: {mark}…: {remedy}", path.display(), number + 1));
                }
            }
        }
    }
    hold("Nothing is left unfinished", &broken);
}

#[test]
fn modules_are_named_for_what_they_hold() {
    let mut broken = Vec::new();
    for path in files_with("rs") {
        for part in path.with_extension("").iter().filter_map(|part| part.to_str()) {
            if matches!(part, "utils" | "util" | "common" | "helpers" | "helper" | "misc") {
                broken.push(format!("{}: {part} says nothing: name the concept", path.display()));
            }
        }
        for (number, line) in text(&path).lines().enumerate() {
            let module = line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let name = module.strip_prefix("mod ").and_then(|rest| rest.split([' ', ';']).next());
            if let Some("utils" | "util" | "common" | "helpers" | "helper" | "misc") = name {
                broken.push(format!(
                    "{}:{}: {module} says nothing: name the concept",
                    path.display(),
                    number + 1
                ));
            }
        }
    }
    hold("Modules are named for what they hold", &broken);
}

#[test]
fn no_file_knows_a_machine_or_a_registry() {
    let mut broken = Vec::new();
    for path in files() {
        let page = text(&path);
        for (number, line) in page.lines().enumerate() {
            let place = || format!("{}:{}", path.display(), number + 1);
            for folder in MACHINES {
                // Inside a longer path it is an ordinary word.
                let alone =
                    |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "-_.~}*".contains(c));
                if line.match_indices(folder).any(|(at, _)| alone(at)) {
                    broken.push(format!(
                        "{}: {folder} is a folder of one machine: take it as an argument",
                        place()
                    ));
                }
            }
            for host in REGISTRIES {
                let alone = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
                if line.match_indices(host).any(|(at, _)| alone(at)) {
                    broken
                        .push(format!("{}: {host} is a registry: leave the choice to the machine", place()));
                }
            }
        }
    }
    hold("Committed files know neither machines nor registries", &broken);
}

#[test]
fn the_lock_file_names_no_mirror() {
    let source = concat!("source = \"registry+https://github.com/rust-lang/", "crates", ".io-index\"");
    let lock = text("Cargo.lock".as_ref());
    let broken: Vec<String> = lock
        .lines()
        .filter(|line| line.starts_with("source = ") && *line != source)
        .map(|line| {
            format!("Cargo.lock: {line}: only packages of the public index; remove git and mirror sources")
        })
        .collect();
    hold("Everything comes from the public index", &broken);
}

#[test]
fn the_top_of_the_tree_is_as_agreed() {
    let mut found: Vec<String> =
        files().iter().map(|path| path.iter().next().unwrap().to_str().unwrap().to_owned()).collect();
    found.dedup();
    let broken: Vec<String> = found
        .iter()
        .filter(|name| !TOP.contains(&name.as_str()))
        .map(|name| format!("{name}: put it into one of the folders, or agree on the place in this list"))
        .collect();
    hold("The top of the tree is as agreed", &broken);
}

#[test]
fn members_are_listed_and_crates_declared_once() {
    let mut broken = Vec::new();
    for path in files().iter().filter(|path| path.ends_with("Cargo.toml")) {
        let page = text(path);
        let (_, members) = page.split_once("members = [").unwrap_or_default();
        if members.split(']').next().unwrap_or_default().contains('*') {
            broken.push(format!("{}: list members one by one", path.display()));
        }
        let mut inside = false;
        for line in page.lines() {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]") && line != "[workspace.dependencies]";
            } else if inside && line.contains('=') && !line.contains("workspace = true") {
                broken.push(format!(
                    "{}: `{line}`: declare it in [workspace.dependencies] and write `.workspace = true`",
                    path.display()
                ));
            }
            if inside && line.contains(".workspace") && !line.ends_with(".workspace = true") {
                broken.push(format!("{}: `{line}`: features belong to the declaration", path.display()));
            }
        }
    }
    hold("Every crate is declared once, with all its features", &broken);
}
