//! Makes plans from the record of the reference run.
//!
//! The three rules are Sieve's:
//! - *intermediate state*: a crash at a write, so that what follows it is left undone;
//! - *stale state*: back to a state that a later one hides, after the later one was seen;
//! - *unobserved state*: a state between two others is never seen.
//!
//! Pruned as Sieve does it: only objects that replicas act on, only states
//! that something follows, and of plans that differ neither in resource, verb
//! nor phase only the first. The rest of the plans does not depend on a record:
//! answers that API servers give now and then, to every sort of request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_apiserver::Verb;

use crate::plan::{Fault, Object, Occasion, Plan, Target};
use crate::stage::SERVED;
use crate::tape::{Change, State, Subject, Tape};

/// What replicas act on: beside what they serve, Ingresses. What is stale is left to the
/// former: lists of Ingresses are consistent, and nothing is concluded from revisions.
const ACTED_ON: [&str; 5] = ["apiroutes", "grpcroutes", "backends", "grpcbackends", "ingresses"];

/// How long a stale API server stays stale.
const STALE: Duration = Duration::from_secs(3);

/// All plans by Sieve's rules.
pub fn from_record(tape: &Tape) -> Vec<Plan> {
    let mut plans = intermediate(tape);
    plans.extend(stale(tape));
    plans.extend(unobserved(tape));
    plans
}

/// A crash right before and right after each write that is not like one before.
fn intermediate(tape: &Tape) -> Vec<Plan> {
    let mut counts: BTreeMap<(Verb, &str, &Object), u64> = BTreeMap::new();
    let mut known = BTreeSet::new();
    let mut plans = Vec::new();
    // Events are named for uids, which are others in every run.
    let writes = tape.requests().iter().filter(|request| request.is_applied_write());
    for request in writes.filter(|request| request.resource != "events") {
        let count = counts.entry((request.verb, &request.resource, &request.object)).or_default();
        *count += 1;
        // Renewals of Leases are all alike, whatever the tenants do meanwhile.
        let phase = if request.resource == "leases" { 0 } else { request.phase };
        if !known.insert((request.verb, &request.resource, phase)) {
            continue;
        }
        let occasion = Occasion::Request(request.verb);
        let target = Target::one(occasion, &*request.resource, request.object.clone());
        plans.push(Plan::new(Fault::CrashAfter, target.clone(), *count));
        plans.push(Plan::new(Fault::CrashBefore, target, *count));
    }
    plans
}

/// An object's states without those that differ in their status only: each with
/// the number of its content, and what it was before.
fn contents(states: &[State]) -> Vec<(u64, &State)> {
    let mut number = 1;
    let mut contents: Vec<(u64, &State)> = states.first().map(|first| (1, first)).into_iter().collect();
    for pair in states.windows(2).filter(|pair| !pair[1].has_content_of(&pair[0])) {
        number += 1;
        contents.push((number, &pair[1]));
    }
    contents
}

/// The objects that replicas both watch and write.
fn acted_on(tape: &Tape) -> impl Iterator<Item = (&Subject, &Vec<State>)> {
    let written: BTreeSet<(&str, &Object)> = tape
        .requests()
        .iter()
        .filter(|request| request.is_applied_write())
        .map(|request| (request.resource.split('/').next().unwrap_or_default(), &request.object))
        .collect();
    tape.states().iter().filter(move |((resource, object), _)| {
        ACTED_ON.contains(&resource.as_str()) && written.contains(&(resource.as_str(), object))
    })
}

/// After each state that hides an earlier one: all replicas start again and
/// find the earlier one, or one lists again and does.
fn stale(tape: &Tape) -> Vec<Plan> {
    let mut known = BTreeSet::new();
    let mut plans = Vec::new();
    let served = acted_on(tape).filter(|((resource, _), _)| SERVED.contains(&resource.as_str()));
    for ((resource, object), states) in served {
        for (number, state) in contents(states).into_iter().skip(1) {
            if known.insert((resource, state.phase, state.change)) {
                let target = Target::one(Occasion::Event, resource, object.clone());
                plans.push(Plan::new(Fault::Travel(STALE), target.clone(), number));
                plans.push(Plan::new(Fault::Relist(STALE), target, number));
            }
        }
    }
    plans
}

/// Each state that is followed by another one before anything settled: left
/// out, and told together with the next.
fn unobserved(tape: &Tape) -> Vec<Plan> {
    let mut known = BTreeSet::new();
    let mut plans = Vec::new();
    for ((resource, object), states) in acted_on(tape) {
        for pair in contents(states).windows(2) {
            let [(number, hidden), (_, next)] = pair else { continue };
            if hidden.phase == next.phase && known.insert((resource, hidden.change, next.change)) {
                let target = Target::one(Occasion::Event, resource, object.clone());
                plans.push(Plan::new(Fault::Drop, target.clone(), *number));
                plans.push(Plan::new(Fault::Merge, target, *number));
            }
        }
    }
    plans
}

/// Plans that need no record: every sort of answer to every sort of request.
pub fn by_request() -> Vec<Plan> {
    let request = |verb, resource: &str| Target::all(Occasion::Request(verb), resource);
    let seconds = Duration::from_secs;
    let status = |code, times| Fault::Status { code, times };
    let mut plans = Vec::new();
    let mut add = |fault: Fault, target: Target, nth| plans.push(Plan::new(fault, target, nth));

    let writes = [
        (request(Verb::Patch, "apiroutes/status"), 1),
        (request(Verb::Patch, "backends/status"), 1),
        (request(Verb::Create, "apiroutes"), 1),
        (request(Verb::Create, "backends"), 1),
        (request(Verb::Patch, "apiroutes"), 1),
        (request(Verb::Delete, "apiroutes"), 1),
        (request(Verb::Delete, "backends"), 1),
        (request(Verb::Patch, "ingresses/status"), 1),
        (request(Verb::Create, "secrets"), 1),
        (request(Verb::Create, "leases"), 1),
        (request(Verb::Update, "leases"), 8),
        (request(Verb::Update, "shardmaps/status"), 1),
    ];
    for (target, nth) in writes {
        for fault in [
            Fault::LoseAnswer,
            status(409, 3),
            status(429, 3),
            status(500, 3),
            status(503, 3),
            Fault::Hang(seconds(12)),
        ] {
            add(fault, target.clone(), nth);
        }
    }
    for resource in SERVED.into_iter().chain(["ingresses", "services"]) {
        let (list, watch) = (request(Verb::List, resource), request(Verb::Watch, resource));
        for fault in [Fault::Truncate, status(429, 2), status(500, 2), Fault::Hang(seconds(5))] {
            add(fault, list.clone(), 1);
        }
        for fault in [Fault::Gone { times: 1 }, Fault::Gone { times: 6 }, status(410, 2), status(500, 3)] {
            add(fault, watch.clone(), 1);
        }
        let page = Target::all(Occasion::Page, resource);
        if matches!(resource, "apiroutes") {
            add(Fault::LoseAnswer, page.clone(), 1);
            add(status(410, 1), page.clone(), 1);
            add(Fault::Truncate, page, 1);
        }
    }
    for late in 1..=9 {
        add(Fault::Delay { time: seconds(late), times: 2 }, request(Verb::Update, "leases"), 6 + late);
    }
    // Slow at every renewal, and at nothing else.
    add(Fault::Delay { time: Duration::from_millis(1200), times: 1000 }, request(Verb::Update, "leases"), 1);
    for nth in [1, 6, 12] {
        add(Fault::Away(seconds(10)), Target::all(Occasion::Write, "*"), nth);
    }
    plans
}

/// For each object with a change: the watch of its kind breaks, is refused, or
/// stands still at that change. What replicas have made differs from what tenants have: its
/// writers watch it, too.
pub fn by_event(tape: &Tape) -> Vec<Plan> {
    let mut known = BTreeSet::new();
    let lives = tape.lives();
    let mut plans = Vec::new();
    for ((resource, object), states) in acted_on(tape) {
        let made = lives.contains_key(&(Verb::Create, resource.clone(), object.clone()));
        let states = contents(states);
        let changes =
            states.into_iter().filter(|(number, state)| *number > 1 || state.change == Change::Added);
        for (number, state) in changes {
            if known.insert((resource, made, state.change)) {
                let target = Target::one(Occasion::Event, resource, object.clone());
                for fault in [Fault::Cut, Fault::Gone { times: 1 }, Fault::Freeze(Duration::from_secs(6))] {
                    plans.push(Plan::new(fault, target.clone(), number));
                }
            }
        }
    }
    plans
}

/// Ten minutes without an API server.
pub fn long_outage() -> Plan {
    Plan::new(Fault::Away(Duration::from_secs(600)), Target::all(Occasion::Write, "*"), 8)
}

/// One or two of every sort, by name, for every change of the code. They strike
/// in every run, because each phase of the scenario ends only when all is settled.
pub const FIXED: &[&str] = &[
    "crash-after@create:secrets:avapigw-system/flotilla-ca#1",
    "crash-after@create:shardmaps:/fleet#1",
    "crash-after@update:shardmaps/status:/fleet#1",
    "crash-after@patch:apiroutes/status:team-a/one#1",
    "crash-before@patch:apiroutes/status:team-b/two#1",
    "crash-before@patch:backends/status:team-b/api#2",
    "lose-answer@patch:apiroutes/status#2",
    "lose-answer@create:leases#1",
    "status=409,3@patch:apiroutes/status#1",
    "status=429,3@patch:backends/status#1",
    "status=500,3@update:leases#8",
    "status=503,3@list:apiroutes#1",
    "hang=12@update:leases#8",
    "delay=4,2@update:leases#9",
    "delay=9,1@update:leases#12",
    "delay=1.2,1000@update:leases#1",
    "truncate@list:apiroutes#1",
    "lose-answer@page:apiroutes#1",
    "status=410,1@page:apiroutes#1",
    "gone=1@event:apiroutes:team-a/one#2",
    "gone=4@watch:apiroutes#1",
    "cut@event:apiroutes:team-a/two#2",
    "freeze=6@event:apiroutes:team-a/one#2",
    "drop@event:apiroutes:team-a/one#2",
    "drop@event:apiroutes:team-b/one#2",
    "merge@event:apiroutes:team-b/one#2",
    "travel=3@event:apiroutes:team-a/two#2",
    "travel=3@event:backends:team-a/api#2",
    "relist=3@event:apiroutes:team-a/two#2",
    "away=10@write:*#8",
    // What replicas make of Ingresses, and take away again.
    "crash-after@create:apiroutes:team-b/ingress-team-b-front-4b56e8ec7c67ef87#1",
    "crash-before@delete:apiroutes:team-b/ingress-team-b-shop-c1cd00d811ece96d#1",
    "lose-answer@create:apiroutes#1",
    "lose-answer@delete:backends#1",
    "status=409,3@create:backends#1",
    "status=500,2@delete:apiroutes#1",
    // The first lists are those of the start; then it is asked whether one still stands.
    "status=503,4@list:ingresses#8",
    "gone=2@watch:ingresses#1",
    "freeze=6@event:ingresses:team-a/shop#3",
    "travel=3@event:apiroutes:team-a/ingress-team-a-shop-c1cd00d811ece96d#2",
    // And what an older route keeps from being served.
    "travel=3@event:apiroutes:team-b/two#4",
];

/// Some of them again where only a real kube-apiserver tells the truth.
pub const FIXED_REAL: &[&str] = &[
    "crash-after@patch:apiroutes/status:team-a/one#1",
    "gone=1@event:apiroutes:team-a/one#2",
    "merge@event:apiroutes:team-b/one#2",
    "travel=3@event:apiroutes:team-a/two#2",
    "crash-after@create:apiroutes:team-b/ingress-team-b-front-4b56e8ec7c67ef87#1",
    "freeze=6@event:ingresses:team-a/shop#3",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Incarnation, Request};

    fn subject(name: &str) -> Subject {
        ("apiroutes".to_owned(), Object::new("team-a", name))
    }

    fn state(phase: u32, change: Change, revision: u64, generation: i64) -> State {
        State { phase, change, revision, generation, uid: "u".to_owned() }
    }

    fn patch(phase: u32, name: &str) -> Request {
        Request {
            at: Duration::ZERO,
            phase,
            by: Incarnation { replica: 0, starts: 0 },
            verb: Verb::Patch,
            resource: "apiroutes/status".to_owned(),
            object: Object::new("team-a", name),
            code: Some(200),
            said: String::new(),
            epoch: None,
            revision: None,
        }
    }

    fn names(plans: &[Plan]) -> Vec<String> {
        plans.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn writes_that_are_alike_give_one_plan() {
        let mut tape = Tape::default();
        for request in [patch(0, "one"), patch(0, "two"), patch(1, "one"), patch(1, "one")] {
            tape.request(request);
        }
        assert_eq!(
            names(&intermediate(&tape)),
            [
                "crash-after@patch:apiroutes/status:team-a/one#1",
                "crash-before@patch:apiroutes/status:team-a/one#1",
                "crash-after@patch:apiroutes/status:team-a/one#2",
                "crash-before@patch:apiroutes/status:team-a/one#2",
            ]
        );
    }

    #[test]
    fn states_are_counted_without_their_statuses() {
        let mut tape = Tape::default();
        tape.request(patch(0, "one"));
        for one in [
            state(0, Change::Added, 10, 1),
            state(0, Change::Modified, 11, 1),
            state(1, Change::Modified, 20, 2),
            state(1, Change::Modified, 21, 3),
            state(1, Change::Modified, 22, 3),
            state(2, Change::Deleted, 30, 3),
        ] {
            tape.event(&subject("one"), one);
        }
        // Nobody writes it, so nothing follows from what is seen of it.
        tape.event(&subject("other"), state(0, Change::Added, 12, 1));
        tape.event(&subject("other"), state(0, Change::Deleted, 13, 1));
        assert_eq!(
            names(&unobserved(&tape)),
            ["drop@event:apiroutes:team-a/one#2", "merge@event:apiroutes:team-a/one#2"]
        );
        assert_eq!(
            names(&stale(&tape)),
            [
                "travel=3@event:apiroutes:team-a/one#2",
                "relist=3@event:apiroutes:team-a/one#2",
                "travel=3@event:apiroutes:team-a/one#4",
                "relist=3@event:apiroutes:team-a/one#4",
            ]
        );
    }

    #[test]
    fn every_plan_is_found_again_by_its_name() {
        let plans = by_request().into_iter().chain([long_outage()]);
        for name in plans.map(|plan| plan.to_string()).chain(FIXED.iter().map(|name| (*name).to_owned())) {
            let plan: Plan = name.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(plan.to_string(), name);
        }
        assert!(FIXED_REAL.iter().all(|name| FIXED.contains(name)));
    }
}
