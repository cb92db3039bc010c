//! What people read at three in the morning must be true: links lead
//! somewhere, metrics and flags exist, the chart sets what the binary reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use super::arrows::PACKAGES;
use super::{files, files_with, hold, root, text};

/// The command that the README gives for the tests, and that CI runs.
const TEST_COMMAND: &str = "cargo test --workspace";

/// Pages that tell people to run our commands.
fn manuals() -> Vec<(String, String)> {
    files_with("md")
        .iter()
        .filter(|path| {
            path.starts_with("runbooks") || path.starts_with("charts") || path.ends_with("README.md")
        })
        .map(|path| (path.display().to_string(), text(path)))
        .collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    let mut seen = 0;
    for path in files_with("md") {
        let page = text(&path);
        let folder = root().join(path.parent().unwrap());
        for (_, rest) in page.match_indices("](").map(|(at, mark)| (at, &page[at + mark.len()..])) {
            let target = rest.split([')', ' ']).next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() { root().join(&path) } else { folder.join(file) };
            if !there.exists() {
                broken.push(format!("{}: {target} is not there: correct or remove the link", path.display()));
            } else if !anchor.is_empty() && !anchors(&there).contains(anchor) {
                broken.push(format!("{}: {target}: no heading has this anchor", path.display()));
            }
        }
    }
    assert!(seen > 5, "only {seen} links found: the search is wrong");
    hold("Links lead somewhere", &broken);
}

/// Anchors of a page's headings, as web views make them.
fn anchors(page: &Path) -> BTreeSet<String> {
    let page = std::fs::read_to_string(page).unwrap();
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

#[test]
fn the_readme_gives_the_command_that_ci_runs() {
    let readme = text("README.md".as_ref());
    let ci = text(".ci/run".as_ref());
    for (name, page) in [("README.md", readme), (".ci/run", ci)] {
        let there = page.lines().any(|line| line.trim() == TEST_COMMAND);
        assert!(there, "{name}: no line is exactly `{TEST_COMMAND}`: people and CI run the same tests");
    }
}

/// Names of our metrics in a text.
fn metrics(page: &str) -> BTreeSet<&str> {
    page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| {
            ["avapigw_operator_", "controller_runtime_", "flotilla_"]
                .iter()
                .any(|ours| word.starts_with(ours))
        })
        // Prefixes in prose, and our crates as filters of logs name them.
        .filter(|word| {
            !word.ends_with('_') && !PACKAGES.iter().any(|package| package.name.replace('-', "_") == *word)
        })
        .collect()
}

#[test]
fn metrics_that_pages_name_exist() {
    let sources: String =
        files_with("rs").iter().filter(|path| path.starts_with("src")).map(|p| text(p)).collect();
    let mut broken = Vec::new();
    let mut seen = 0;
    for path in files().iter().filter(|path| path.starts_with("runbooks") || path.starts_with("charts")) {
        let page = text(path);
        for name in metrics(&page) {
            seen += 1;
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            if ![name, base].iter().any(|name| sources.contains(&format!("\"{name}\""))) {
                broken.push(format!("{}: no source file registers {name}: correct the page", path.display()));
            }
        }
    }
    assert!(seen > 3, "only {seen} metrics found in pages: the search is wrong");
    hold("Metrics on pages exist", &broken);
}

/// Help texts of the built binary, by the words of the command.
#[derive(Default)]
struct Helps(BTreeMap<String, Option<String>>);

impl Helps {
    /// The help of a command, or nothing when there is no such command.
    fn of(&mut self, words: &str) -> Option<&str> {
        let help = self.0.entry(words.to_owned()).or_insert_with(|| {
            let output = Command::new(env!("CARGO_BIN_EXE_flotilla"))
                .args(words.split_whitespace())
                .arg("--help")
                .stdin(Stdio::null())
                .output()
                .unwrap();
            output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
        });
        help.as_deref()
    }
}

/// Whether a help text lists a flag.
fn lists(help: &str, flag: &str) -> bool {
    help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).any(|word| word == flag)
}

/// Command lines of ours in a page: code only, with continued lines joined.
/// What comes before the first word after `flotilla` is left out.
fn command_lines(page: &str) -> Vec<String> {
    let mut code = Vec::new();
    let mut fenced = false;
    let joined = page.replace("\\\n", " ");
    for line in joined.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push(line);
        } else {
            // Code stands at every second place between backticks.
            code.extend(line.split('`').skip(1).step_by(2));
        }
    }
    let starts = ["flotilla ", "cargo run --release -- ", "cargo run -- "];
    let mut found = Vec::new();
    for line in code {
        for start in starts {
            // A word of its own: `kubectl -n flotilla get` is none of our commands,
            // `./flotilla demo` and `-- flotilla certs` are.
            let begins = line.match_indices(start).find(|(at, _)| {
                let before = line[..*at].trim_end();
                *at == 0
                    || ["./", "release/", "debug/"].iter().any(|folder| line[..*at].ends_with(folder))
                    || ["--", "&&", "|", "$", ";"].iter().any(|end| before.ends_with(end))
            });
            if let Some((at, _)) = begins {
                found.push(line[at + start.len()..].to_owned());
            }
        }
    }
    found
}

#[test]
fn commands_and_flags_that_pages_name_exist() {
    let mut helps = Helps::default();
    let mut broken = Vec::new();
    let mut seen = 0;
    for (name, page) in manuals() {
        for line in command_lines(&page) {
            let words: Vec<&str> =
                line.split_whitespace().take_while(|w| !matches!(*w, "|" | "&&" | ">" | "#")).collect();
            let command: Vec<&str> = words
                .iter()
                .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
                .copied()
                .collect();
            let command = command.join(" ");
            seen += 1;
            let Some(help) = helps.of(&command).map(str::to_owned) else {
                broken.push(format!("{name}: `flotilla {command}` is no command: see `flotilla --help`"));
                continue;
            };
            for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                let flag = flag.split('=').next().unwrap();
                if !lists(&help, flag) {
                    broken.push(format!("{name}: `flotilla {command}` has no {flag}: see its --help"));
                }
            }
        }
    }
    assert!(seen > 5, "only {seen} command lines found: the search is wrong");
    hold("Commands and flags on pages exist", &broken);
}

#[test]
fn flags_in_the_prose_of_pages_exist() {
    let mut helps = Helps::default();
    let mut known = String::new();
    for command in [
        "",
        "controller",
        "standalone",
        "demo",
        "gateway",
        "apiserver",
        "crds",
        "certs gateway",
        "certs rotate",
    ] {
        known.push_str(helps.of(command).unwrap_or_else(|| panic!("flotilla {command} --help fails")));
    }
    let mut broken = Vec::new();
    for (name, page) in manuals() {
        let code = page.split('`').skip(1).step_by(2);
        for flag in code.filter(|code| code.starts_with("--") && !code.contains('\n')) {
            let flag = flag.split([' ', '=']).next().unwrap();
            if !lists(&known, flag) {
                broken.push(format!("{name}: no command has {flag}: correct the page"));
            }
        }
    }
    hold("Flags in prose exist", &broken);
}

/// Variables that the allocator reads.
const OF_THE_ALLOCATOR: [&str; 1] = ["MIMALLOC_ALLOW_THP"];

#[test]
fn the_chart_sets_only_variables_that_the_binary_reads() {
    let help = Helps::default().of("controller").expect("flotilla controller --help").to_owned();
    let page = text("charts/flotilla/templates/statefulset.yaml".as_ref());
    let mut broken = Vec::new();
    let mut seen = 0;
    for name in page.lines().filter_map(|line| line.trim().strip_prefix("- name: ")) {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        {
            continue;
        }
        seen += 1;
        let flag = format!("--{}", name.to_lowercase().replace('_', "-"));
        if !lists(&help, &flag) && !OF_THE_ALLOCATOR.contains(&name) {
            broken.push(format!("charts/flotilla/templates/statefulset.yaml: {name}: there is no {flag}"));
        }
    }
    assert!(seen > 5, "only {seen} variables found: the search is wrong");
    hold("The chart sets what the binary reads", &broken);
}
