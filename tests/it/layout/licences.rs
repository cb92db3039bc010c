//! Licences of everything we build from. The list of what is allowed stands in
//! deny.toml, once, for `cargo deny` and for this test: the test needs neither
//! that tool nor the network.

use super::{each, hold, resolved, text, word};

/// A section of deny.toml.
fn section(name: &str) -> String {
    let page = text("deny.toml".as_ref());
    let (_, rest) =
        page.split_once(&format!("\n[{name}]\n")).unwrap_or_else(|| panic!("deny.toml: no [{name}]"));
    rest.split("\n[").next().unwrap().to_owned()
}

/// The strings in deny.toml's `[licenses] allow`.
fn allowed() -> Vec<String> {
    let section = section("licenses");
    let (_, list) = section.split_once("\nallow = [").expect("deny.toml: no allow in [licenses]");
    let (list, _) = list.split_once(']').expect("deny.toml: the list of licences does not end");
    // Strings stand at every second place between quotation marks.
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be fulfilled with the allowed licences, and
/// with which. `/` is how old manifests write `OR`.
fn choose(expression: &str, allowed: &[String]) -> Option<Vec<String>> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let chosen = any_of(&mut rest, allowed);
    assert!(rest.is_empty(), "{expression:?} is no SPDX expression that this test understands: {rest:?}");
    chosen
}

fn any_of(rest: &mut &[&str], allowed: &[String]) -> Option<Vec<String>> {
    let mut chosen = all_of(rest, allowed);
    while let Some(("OR", after)) = rest.split_first().map(|(first, after)| (*first, after)) {
        *rest = after;
        let other = all_of(rest, allowed);
        chosen = chosen.or(other);
    }
    chosen
}

fn all_of(rest: &mut &[&str], allowed: &[String]) -> Option<Vec<String>> {
    let mut chosen = one(rest, allowed);
    while let Some(("AND", after)) = rest.split_first().map(|(first, after)| (*first, after)) {
        *rest = after;
        let other = one(rest, allowed);
        chosen = chosen.zip(other).map(|(mut all, more)| {
            all.extend(more);
            all
        });
    }
    chosen
}

fn one(rest: &mut &[&str], allowed: &[String]) -> Option<Vec<String>> {
    let (first, after) = rest.split_first().expect("an SPDX expression ends too early");
    *rest = after;
    if *first == "(" {
        let inner = any_of(rest, allowed);
        let (close, after) = rest.split_first().expect("an SPDX expression lacks a bracket");
        assert_eq!(*close, ")");
        *rest = after;
        return inner;
    }
    let mut name = (*first).to_owned();
    if let ["WITH", exception, after @ ..] = *rest {
        name = format!("{name} WITH {exception}");
        *rest = after;
    }
    allowed.contains(&name).then(|| vec![name])
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let allowed = allowed();
    let metadata = resolved();
    let mut broken = Vec::new();
    let mut used = Vec::new();
    for package in each(&metadata, "packages") {
        let name = format!("{} {}", word(package, "name"), word(package, "version"));
        match package["license"].as_str() {
            None => broken.push(format!("{name}: no licence in its manifest; read its files and decide")),
            Some(licence) => match choose(licence, &allowed) {
                Some(chosen) => used.extend(chosen),
                None => broken.push(format!(
                    "{name}: {licence}; use another package, or have the licence agreed and put it into deny.toml"
                )),
            },
        }
    }
    let unused = allowed.iter().filter(|licence| !used.contains(licence));
    broken.extend(unused.map(|licence| format!("deny.toml: nothing needs {licence:?} any more: remove it")));
    hold("Licences are those that deny.toml allows", &broken);
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()];
    for (expression, fulfilled) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("MIT AND ISC", true),
        ("MIT AND (GPL-3.0 OR ISC)", true),
        ("(MIT OR ISC) AND GPL-3.0", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(choose(expression, &allowed).is_some(), fulfilled, "{expression}");
    }
}

#[test]
fn what_deny_toml_bans_is_not_there() {
    let metadata = resolved();
    let names: Vec<&str> = each(&metadata, "packages").iter().map(|one| word(one, "name")).collect();
    let mut broken = Vec::new();
    let mut seen = 0;
    for line in section("bans").lines().filter(|line| line.trim_start().starts_with("{ crate = ")) {
        let name = line.split('"').nth(1).unwrap();
        let copies = names.iter().filter(|found| **found == name).count();
        seen += 1;
        if line.contains("deny-multiple-versions = true") {
            if copies > 1 {
                broken.push(format!(
                    "{name} is there {copies} times: bring them together with `cargo update --precise`"
                ));
            }
        } else if copies > 0 {
            broken.push(format!(
                "{name} is there: see with `cargo tree -i {name}` which feature pulls it, and drop it"
            ));
        }
    }
    assert!(seen > 3, "only {seen} bans found in deny.toml: the search is wrong");
    hold("Banned crates stay out", &broken);
}
