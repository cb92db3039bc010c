//! Judges a run: by what must hold in every run, and by the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_apiserver::Verb;
use flotilla_core::object::RawObject;
use flotilla_testing::fleet::Fleet;
use serde_json::{Value, json};

use crate::plan::Object;
use crate::scenario::FLEETING;
use crate::tape::Tape;

/// Differences of one sort that are told; more are counted.
const TOLD: usize = 4;

/// How often one gateway was given a resource that it had not, and lost one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// Times it was added.
    pub added: usize,
    /// Times it was removed.
    pub removed: usize,
}

/// What a run has come to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// By kind and key: spec, and the status without its times.
    pub objects: BTreeMap<String, Value>,
    /// By kind and key: `metadata.resourceVersion`.
    pub revisions: BTreeMap<String, u64>,
    /// What replicas created and deleted, and how often.
    pub written: BTreeMap<(Verb, String, Object), usize>,
    /// By gateway and resource.
    pub lives: BTreeMap<(String, String), Life>,
    /// What gateways applied, by gateway, in their order.
    pub applied: BTreeMap<String, Vec<String>>,
    /// What must not be, whatever the plan.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Reads what a settled world has come to.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn of(fleet: &Fleet, tape: &Tape, logs: &[PathBuf]) -> anyhow::Result<Outcome> {
        let objects = fleet.is_settled().await.map_err(anyhow::Error::msg)?;
        let mut outcome = Outcome { written: tape.lives(), ..Outcome::default() };
        for object in &objects {
            let key = format!("{} {}", object.kind, object.key);
            outcome.revisions.insert(key.clone(), object.revision.0);
            outcome.objects.insert(key, timeless(object));
        }
        for event in fleet.gateways.iter().flat_map(|gateways| gateways.events.all()) {
            let told =
                format!("{} {} {} generation {}", event.change, event.kind, event.key, event.generation);
            outcome.applied.entry(event.gateway.clone()).or_default().push(told);
            let life =
                outcome.lives.entry((event.gateway, format!("{} {}", event.kind, event.key))).or_default();
            match event.change.as_str() {
                "added" => life.added += 1,
                "removed" => life.removed += 1,
                _ => {}
            }
        }
        for gateway in fleet.show().await.map_err(anyhow::Error::msg)? {
            let stats = gateway.stats;
            let never = [
                ("regressions", stats.regressions),
                ("reappeared", stats.reappeared),
                ("nacks", stats.nacks),
                ("guard_ignored", stats.guard_ignored),
            ];
            for (name, count) in never.into_iter().filter(|(_, count)| *count > 0) {
                outcome.wrong.push(format!("gateway {} counts {count} {name}", gateway.name));
            }
        }
        let turns = tape.interleaved_writers().into_iter();
        outcome.wrong.extend(turns.map(|turns| format!("status writers took turns on {turns}")));
        if !tape.is_whole() {
            outcome.wrong.push("there were more requests than could be kept".to_owned());
        }
        outcome.wrong.extend(logs.iter().flat_map(|log| panics(log)));
        Ok(outcome)
    }

    /// Everything in which this run is not as it must be.
    pub fn problems(&self, reference: &Outcome) -> Vec<String> {
        let mut problems = self.wrong.clone();
        problems.extend(differences("object", &reference.objects, &self.objects));
        problems.extend(differences(
            "write of replicas",
            &printed(&reference.written),
            &printed(&self.written),
        ));
        let keys = reference.lives.keys().chain(self.lives.keys());
        let keys: BTreeSet<_> = keys.collect();
        for key in keys {
            let life = |outcome: &Outcome| outcome.lives.get(key).copied().unwrap_or_default();
            let (wanted, found) = (life(reference), life(self));
            let fleeting = FLEETING.contains(&key.1.as_str());
            let balance = |life: Life| life.added.checked_sub(life.removed);
            let fits = match fleeting {
                true => found.added <= wanted.added.max(2) && balance(found) == balance(wanted),
                false => found == wanted,
            };
            if !fits {
                problems.push(format!("{} on {}: {found:?} instead of {wanted:?}", key.1, key.0));
            }
        }
        problems
    }

    /// Everything that a fresh start over the same objects changed.
    pub fn unrest(&self, before: &Outcome, tape: &Tape, since: Duration) -> Vec<String> {
        let mut problems = self.wrong.clone();
        problems.extend(differences("object after a fresh start", &before.objects, &self.objects));
        problems.extend(differences(
            "revision after a fresh start",
            &printed(&before.revisions),
            &printed(&self.revisions),
        ));
        for (gateway, applied) in &self.applied {
            let known = before.applied.get(gateway).map_or(0, Vec::len);
            let news = applied[known.min(applied.len())..].join(", ");
            if !news.is_empty() {
                problems.push(format!("a fresh start over settled objects made {gateway} apply: {news}"));
            }
        }
        let writes = tape.writes_since(since);
        problems.extend(writes.iter().take(TOLD).map(|write| {
            let words = "a fresh start over settled objects wrote";
            format!("{words}: {} {} {} {:?}", write.verb, write.resource, write.object, write.said)
        }));
        problems
    }
}

fn printed<K: std::fmt::Debug, V: std::fmt::Debug>(map: &BTreeMap<K, V>) -> BTreeMap<String, Value> {
    map.iter().map(|(key, value)| (format!("{key:?}"), json!(format!("{value:?}")))).collect()
}

/// How two maps differ, in words.
fn differences(what: &str, wanted: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let mut told = Vec::new();
    for (key, value) in wanted {
        match found.get(key) {
            None => told.push(format!("{what} {key} is missing")),
            Some(other) if other != value => {
                told.push(format!("{what} {key} is {other} instead of {value}"));
            }
            Some(_) => {}
        }
    }
    let strange = found.keys().filter(|key| !wanted.contains_key(*key));
    told.extend(strange.map(|key| format!("{what} {key} should not be there")));
    let more = told.len().saturating_sub(TOLD);
    told.truncate(TOLD);
    if more > 0 {
        told.push(format!("… and {more} more of this sort"));
    }
    told
}

/// Spec and status without anything that says when.
fn timeless(object: &RawObject) -> Value {
    let mut status: Value = serde_json::from_slice(&object.status).unwrap_or_default();
    forget_times(&mut status);
    let spec: Value = serde_json::from_slice(&object.spec).unwrap_or_default();
    json!({"spec": spec, "status": status, "generation": object.generation})
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "lastTransitionTime" | "lastApplied"));
            fields.values_mut().for_each(forget_times);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        _ => {}
    }
}

fn panics(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains("panicked at"));
    lines.take(TOLD).map(|line| format!("{}: {line}", log.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(added: usize, removed: usize) -> Outcome {
        let key = ("gateways/g".to_owned(), "APIRoute team-a/two".to_owned());
        Outcome { lives: BTreeMap::from([(key, Life { added, removed })]), ..Outcome::default() }
    }

    #[test]
    fn a_removal_that_the_reference_lacks_is_a_problem() {
        assert_eq!(outcome(1, 0).problems(&outcome(1, 0)), Vec::<String>::new());
        let problems = outcome(2, 1).problems(&outcome(1, 0));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("APIRoute team-a/two on gateways/g"), "{problems:?}");
    }

    #[test]
    fn another_end_is_a_problem() {
        let with = |value: Value| Outcome {
            objects: BTreeMap::from([("Backend a/x".to_owned(), value)]),
            ..Outcome::default()
        };
        let problems = with(json!({"spec": 1})).problems(&with(json!({"spec": 2})));
        assert_eq!(problems, [r#"object Backend a/x is {"spec":1} instead of {"spec":2}"#]);
        let problems = Outcome::default().problems(&with(json!(1)));
        assert_eq!(problems, ["object Backend a/x is missing"]);
    }

    #[test]
    fn times_are_no_difference() {
        let mut status = json!({"conditions": [{"type": "Ready", "lastTransitionTime": "x"}]});
        forget_times(&mut status);
        assert_eq!(status, json!({"conditions": [{"type": "Ready"}]}));
    }

    #[test]
    fn a_fresh_start_that_does_something_is_a_problem() {
        let applied = |things: &[&str]| Outcome {
            applied: BTreeMap::from([("g".to_owned(), things.iter().map(|&one| one.to_owned()).collect())]),
            ..Outcome::default()
        };
        let unrest = |after: Outcome| after.unrest(&applied(&["one"]), &Tape::default(), Duration::ZERO);
        assert_eq!(unrest(applied(&["one"])), Vec::<String>::new());
        let words = "a fresh start over settled objects made g apply: two";
        assert_eq!(unrest(applied(&["one", "two"])), [words]);
    }
}
