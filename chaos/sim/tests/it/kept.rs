//! Every scenario in `seeds/` goes as it should: what was found once is not found
//! again, and what is broken on purpose is.

use std::collections::BTreeSet;
use std::path::Path;

use flotilla_core::breakage::Breakage;
use flotilla_sim::{Kept, World};

/// All kept scenarios with their files' names.
fn kept() -> Vec<(String, Kept)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut all: Vec<(String, Kept)> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let kept = Kept::read(&std::fs::read_to_string(&path).unwrap());
            (name.clone(), kept.unwrap_or_else(|error| panic!("{name}: {error}")))
        })
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn kept_scenarios_keep_the_promises() {
    for (name, kept) in kept() {
        let outcome = World::new(&kept.scenario).run();
        assert_eq!(outcome.violation, None, "chaos sim --replay chaos/sim/seeds/{name} ({})", kept.says);
    }
}

#[test]
fn what_is_broken_on_purpose_is_found() {
    let (mut found, mut missed) = (BTreeSet::new(), Vec::new());
    for (name, kept) in kept() {
        if let Some(breakage) = kept.breakage {
            if kept.play().violation.is_none() {
                missed.push(name);
            }
            found.insert(breakage);
        }
    }
    assert!(missed.is_empty(), "these do not show any more what is broken in them: {missed:?}");
    let unshown: Vec<Breakage> = Breakage::FOUND.into_iter().filter(|one| !found.contains(one)).collect();
    assert_eq!(
        unshown,
        [],
        "no file shows these: chaos sim --check-the-checker --restores --contests --keep DIR"
    );
}
