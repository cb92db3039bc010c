//! Judges a run: by what must hold in every run, and by the reference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_apiserver::Verb;
use flotilla_core::object::RawObject;
use flotilla_testing::fleet::Fleet;
use flotilla_testing::fleet::waiting::{SOON, attempt};
use serde_json::{Value, json};

use crate::history::History;
use crate::ingresses;
use crate::plan::Object;
use crate::scenario::FLEETING;
use crate::stage::SERVED;
use crate::tape::{Request, Tape};

/// Differences of one sort that are told; more are counted.
const TOLD: usize = 4;

/// What a run has come to.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// By kind and key: spec, and the status without its times.
    pub objects: BTreeMap<String, Value>,
    /// How often each object of tenants was created and deleted, by whomever: who is killed
    /// may have sent what it is never told of, so requests do not say.
    pub lives: BTreeMap<String, (usize, usize)>,
    /// Everything else that replicas created and deleted, and how often.
    pub written: BTreeMap<(Verb, String, Object), usize>,
    /// How often a gateway lost a resource, by gateway and resource. With what
    /// it holds at the end this says how often it was given it, too.
    pub removed: BTreeMap<(String, String), usize>,
    /// What gateways applied, by gateway, in their order.
    pub applied: BTreeMap<String, Vec<String>>,
    /// What must not be, whatever the plan.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// Reads what a settled world has come to. It may be unsettled for a moment
    /// again: a fresh start writes statuses anew after a while.
    ///
    /// # Errors
    /// When it does not answer, or does not settle.
    pub async fn of(
        fleet: &Fleet,
        history: &History,
        tape: &Tape,
        logs: &[PathBuf],
    ) -> anyhow::Result<Outcome> {
        let look = async || {
            let objects = fleet.is_settled().await?;
            history.has_heard_of(&objects).map(|()| objects)
        };
        let objects = attempt(SOON, "everything is equal still", look).await.map_err(anyhow::Error::msg)?;
        let mut written = tape.lives();
        written.retain(|(_, resource, _), _| !SERVED.contains(&resource.as_str()));
        let mut outcome = Outcome { lives: history.heard().lives(), written, ..Outcome::default() };
        for object in &objects {
            let key = format!("{} {}", object.kind, object.key);
            outcome.objects.insert(key, timeless(object));
        }
        outcome.objects.extend(ingresses::all(&fleet.tenants).await?);
        for event in fleet.gateways.iter().flat_map(|gateways| gateways.events.all()) {
            let told =
                format!("{} {} {} generation {}", event.change, event.kind, event.key, event.generation);
            outcome.applied.entry(event.gateway.clone()).or_default().push(told);
            if event.change == "removed" {
                let resource = (event.gateway, format!("{} {}", event.kind, event.key));
                *outcome.removed.entry(resource).or_default() += 1;
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
        let beside = tape.beside().into_iter();
        outcome.wrong.extend(beside.map(|write| format!("a status was written beside the owner: {write}")));
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
        let lives = |outcome: &Outcome| {
            let told = |(created, deleted)| json!(format!("created {created} and deleted {deleted} times"));
            outcome.lives.iter().map(|(object, lives)| (object.clone(), told(*lives))).collect()
        };
        problems.extend(differences("life of", &lives(reference), &lives(self)));
        problems.extend(differences(
            "write of replicas",
            &printed(&reference.written),
            &printed(&self.written),
        ));
        let resources: BTreeSet<_> = reference.removed.keys().chain(self.removed.keys()).collect();
        for resource in resources {
            let times = |outcome: &Outcome| outcome.removed.get(resource).copied().unwrap_or_default();
            let (wanted, found) = (times(reference), times(self));
            // A state that lasts for a moment may be seen or not, in both runs.
            let fits = match FLEETING.contains(&resource.1.as_str()) {
                true => found <= 1,
                false => found == wanted,
            };
            if !fits {
                let (gateway, resource) = resource;
                problems
                    .push(format!("{resource} was removed {found} times and not {wanted} from {gateway}"));
            }
        }
        problems
    }

    /// What a fresh start over the same objects did, where it should do nothing.
    pub fn unrest(&self, before: &Outcome, tape: &Tape, since: Duration) -> Vec<String> {
        let mut unrest = self.wrong.clone();
        if self.lives != before.lives {
            unrest.push("a fresh start over settled objects created or deleted some".to_owned());
        }
        unrest.extend(differences("object after a fresh start", &before.objects, &self.objects));
        for (gateway, applied) in &self.applied {
            let earlier = before.applied.get(gateway).map_or(0, Vec::len).min(applied.len());
            let sent = applied[earlier..].iter();
            unrest.extend(
                sent.map(|told| format!("a fresh start over settled objects made {gateway} apply: {told}")),
            );
        }
        let writes = tape.writes_since(since);
        unrest.extend(writes.iter().map(|Request { verb, resource, object, said, .. }| {
            format!("a fresh start over settled objects wrote: {verb} {resource} {object} {said:?}")
        }));
        unrest
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
                let mut parts = Vec::new();
                parted(String::new(), value, other, &mut parts);
                told.push(format!("{what} {key}: {}", parts.join(", ")));
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

/// Where two values differ, in words.
fn parted(path: String, wanted: &Value, found: &Value, parts: &mut Vec<String>) {
    match (wanted, found) {
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let of = |map: &serde_json::Map<String, Value>| map.get(name).cloned().unwrap_or_default();
                parted(format!("{path}.{name}"), &of(one), &of(other), parts);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (wanted, found)) in one.iter().zip(other).enumerate() {
                parted(format!("{path}[{index}]"), wanted, found, parts);
            }
        }
        _ if wanted == found => {}
        _ => parts.push(format!("{path} is {found} instead of {wanted}").trim_start().to_owned()),
    }
}

/// Spec and status without anything that says when, or by whom: the epoch in
/// which a status was written last depends on how often replicas started.
fn timeless(object: &RawObject) -> Value {
    let mut status: Value = serde_json::from_slice(&object.status).unwrap_or_default();
    forget_times(&mut status);
    let spec: Value = serde_json::from_slice(&object.spec).unwrap_or_default();
    json!({"spec": spec, "status": status, "generation": object.generation})
}

fn forget_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !matches!(name.as_str(), "lastTransitionTime" | "lastApplied" | "epoch"));
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

    fn outcome(resource: &str, removed: usize) -> Outcome {
        let key = ("gateways/g".to_owned(), resource.to_owned());
        Outcome { removed: BTreeMap::from([(key, removed)]), ..Outcome::default() }
    }

    #[test]
    fn a_removal_that_the_reference_lacks_is_a_problem() {
        let check = |resource: &str, wanted: usize, found: usize, fits: bool| {
            let problems = outcome(resource, found).problems(&outcome(resource, wanted));
            assert_eq!(problems.is_empty(), fits, "{problems:?}");
        };
        check("APIRoute team-a/two", 1, 1, true);
        check("APIRoute team-a/two", 1, 0, false);
        check("APIRoute team-a/two", 0, 1, false);
        for resource in FLEETING {
            check(resource, 1, 0, true);
            check(resource, 0, 1, true);
            check(resource, 1, 2, false);
        }
    }

    #[test]
    fn another_number_of_creations_or_deletions_is_a_problem() {
        let lived = |lives: (usize, usize)| Outcome {
            lives: BTreeMap::from([("Backend a/x".to_owned(), lives)]),
            ..Outcome::default()
        };
        assert_eq!(lived((2, 1)).problems(&lived((2, 1))), Vec::<String>::new());
        let words = "life of Backend a/x: is \"created 2 and deleted 2 times\" instead of \"created 1 and deleted 1 times\"";
        assert_eq!(lived((2, 2)).problems(&lived((1, 1))), [words]);
        let fresh = lived((2, 1)).unrest(&lived((1, 1)), &Tape::default(), Duration::ZERO);
        assert_eq!(fresh.len(), 1);
    }

    #[test]
    fn another_end_is_a_problem() {
        let with = |value: Value| Outcome {
            objects: BTreeMap::from([("Backend a/x".to_owned(), value)]),
            ..Outcome::default()
        };
        let problems = with(json!({"spec": 1})).problems(&with(json!({"spec": 2})));
        assert_eq!(problems, ["object Backend a/x: .spec is 1 instead of 2"]);
        let problems = Outcome::default().problems(&with(json!(1)));
        assert_eq!(problems, ["object Backend a/x is missing"]);
    }

    #[test]
    fn times_and_epochs_are_no_difference() {
        let mut status = json!({"epoch": 3, "conditions": [{"type": "Ready", "lastTransitionTime": "x"}]});
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
        let words = "a fresh start over settled objects made g apply: modified two";
        assert_eq!(unrest(applied(&["one", "modified two"])), [words]);
        let mut tape = Tape::default();
        tape.request(crate::tape::tests::said("True successfully applied to 1 gateway"));
        let wrote = applied(&["one"]).unrest(&applied(&["one"]), &tape, Duration::ZERO);
        assert_eq!(wrote.len(), 1, "{wrote:?}");
    }
}
