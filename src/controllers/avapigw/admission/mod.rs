//! Whether an object may be written, and what its writer is told (A-91 … A-100).
//! Pure: a function of the object, what was there before it, and the claims of
//! all others.
//!
//! Admission asks for more than delivery does: it may refuse what would work
//! badly, because nothing is served yet. A write that leaves the spec as it is
//! is always admitted, or an object from before a rule could not even lose a
//! finalizer.

mod credentials;
mod fields;
mod ingress;
mod rules;
mod services;
mod warnings;

use std::collections::HashSet;

use flotilla_api::validation::{inspect, route_destinations};
use flotilla_core::claims::{Claim, Taken};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;
use serde_json::Value;

use crate::compile::{api_kind, backend_kind};
use crate::conflicts::{Conflict, Conflicts};

pub use ingress::judge_ingress;
pub use services::Services;

/// Warnings of one answer; API servers cut off what is much longer.
const WARNINGS: usize = 16;

/// Refusals of one answer: who mends these is told of more.
const REFUSALS: usize = 32;

/// What becomes of a route that leads, or an Ingress whose backend leads, to what nobody
/// knows: no Backend, none of their hosts, no Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// It is admitted with a warning: routes may be written before what they lead to.
    Warn,
    /// It is refused.
    Deny,
}

/// Why a write is refused, in one place of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the field, for example `spec.match[0]`.
    pub field: String,
    /// What is wrong, and what to do about it, without the field.
    pub problem: String,
    /// Whether it is another object that is in the way.
    pub duplicate: bool,
}

impl Refusal {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Refusal { field: field.into(), problem: problem.into(), duplicate: false }
    }
}

/// The answer to a write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Admitted when there are none.
    pub refusals: Vec<Refusal>,
    /// What the writer should know all the same.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// As much of it as an answer has room for.
    fn bounded(mut self) -> Self {
        if self.refusals.len() > REFUSALS {
            // Who else is in the way is said in any case: it is counted, too.
            self.refusals.sort_by_key(|refusal| !refusal.duplicate);
            self.refusals.truncate(REFUSALS);
        }
        self.warnings.truncate(WARNINGS);
        self
    }
}

/// Judges a write: of `object`, in place of `before` if it was there already.
pub fn judge(
    known: &Conflicts,
    services: &Services,
    object: &RawObject,
    before: Option<&RawObject>,
    references: References,
) -> Verdict {
    let mut verdict = Verdict::default();
    if object.deleting || before.is_some_and(|before| same_spec(before, object)) {
        return verdict;
    }
    rules::check(object, &mut verdict);
    if let Err(error) = inspect(api_kind(object.kind), &object.spec) {
        // Of one field, and of a spec that cannot be read at all, this says more.
        verdict.refusals.retain(|refusal| refusal.field != error.field && refusal.field != "spec");
        let problem = format!("{}; {}", error.problem, error.remedy);
        verdict.refusals.insert(0, Refusal::new(error.field, problem));
    }
    check_references(known, services, object, before, references, &mut verdict);
    check_conflicts(known, object, before, &mut verdict);
    verdict.bounded()
}

fn same_spec(one: &RawObject, other: &RawObject) -> bool {
    let value = |object: &RawObject| serde_json::from_slice::<Value>(&object.spec).ok();
    one.spec == other.spec || (value(one).is_some() && value(one) == value(other))
}

/// What was there before this write stands in its way, except for what was in
/// conflict already and has to give way: the younger of two that came past
/// admission must not keep the older from being changed.
fn check_conflicts(known: &Conflicts, object: &RawObject, before: Option<&RawObject>, verdict: &mut Verdict) {
    let already = before.map(|before| known.of(before)).unwrap_or_default();
    let gives_way = |conflict: &Conflict| {
        let same = |one: &Conflict| (one.kind, &one.other) == (conflict.kind, &conflict.other);
        !conflict.precedes && already.iter().any(same)
    };
    for conflict in known.of(object).into_iter().filter(|conflict| !gives_way(conflict)) {
        let Conflict { field, claim, kind, other, .. } = conflict;
        verdict.refusals.push(in_the_way(object.kind, field, &claim, kind, &other, ""));
    }
}

/// What is to be asked about a write that was judged to be right: whether nobody
/// claims what it newly claims. Nothing when that is nothing.
pub fn contested(known: &Conflicts, object: &RawObject, before: Option<&RawObject>) -> Vec<Claim> {
    if object.deleting || before.is_some_and(|before| same_spec(before, object)) {
        return Vec::new();
    }
    known.new_claims(object, before)
}

/// Refuses a write because somebody has what it claims.
pub fn refuse(kind: Kind, claims: &[Claim], taken: &[Taken]) -> Verdict {
    let refusal = |taken: &Taken| {
        let claim = claims.get(taken.claim);
        let (field, words) = claim.map_or(("spec", "a match"), |claim| (&*claim.field, &*claim.words));
        let when = if taken.reserved { ", which was admitted a moment ago" } else { "" };
        in_the_way(kind, field.to_owned(), words, taken.kind, &taken.key, when)
    };
    Verdict { refusals: taken.iter().map(refusal).collect(), warnings: Vec::new() }
}

fn in_the_way(of: Kind, field: String, claim: &str, kind: Kind, other: &ObjectKey, when: &str) -> Refusal {
    let problem = if of.is_route() {
        format!(
            "duplicate route match found: {claim} is taken by {kind} {other}{when}; match something else, or \
             change that one"
        )
    } else {
        format!("conflicting backend found: {claim} belongs to {kind} {other}{when}; use one kind for it")
    };
    Refusal { field, problem, duplicate: true }
}

/// Destinations that are plain names, or names of Services, should be known; what has
/// a dot, a colon or the like besides is a network host.
fn check_references(
    known: &Conflicts,
    services: &Services,
    object: &RawObject,
    before: Option<&RawObject>,
    references: References,
    verdict: &mut Verdict,
) {
    if !object.kind.is_route() {
        return;
    }
    // Where it led already is no reason to refuse that something else is changed.
    let already = before.and_then(|before| route_destinations(&before.spec).ok()).unwrap_or_default();
    let already: HashSet<&str> = already.iter().map(|destination| destination.host.as_ref()).collect();
    let mut told = HashSet::new();
    for destination in route_destinations(&object.spec).unwrap_or_default() {
        let host = destination.host.as_ref();
        if !told.insert(host.to_owned()) {
            continue;
        }
        let Some(problem) = unknown(known, services, object, host) else { continue };
        match references {
            References::Deny if !already.contains(host) => {
                verdict.refusals.push(Refusal::new("spec.route", problem));
            }
            _ => verdict.warnings.push(problem),
        }
    }
}

/// What is to be said of a host that nobody knows.
fn unknown(known: &Conflicts, services: &Services, route: &RawObject, host: &str) -> Option<String> {
    let kind = backend_kind(route.kind);
    let namespace = &route.key.namespace;
    if let Some((namespace, name)) = host.split_once('/') {
        let found = known.exists(kind, &ObjectKey::new(namespace, name));
        return (!found).then(|| format!("destination {host:?} is no {kind}; create it"));
    }
    if known.exists(kind, &ObjectKey::new(namespace.clone(), host)) || known.reaches(namespace, host) {
        return None;
    }
    match services::named(host, namespace) {
        Some(service) if !services.lack(&service) => None,
        // A Backend may have the same Service under another of its names.
        Some(service) if known.reaches(namespace, &format!("{}.{}.svc", service.name, service.namespace)) => {
            None
        }
        Some(service) if host.contains('.') => Some(format!(
            "destination {host:?}: there is no Service {} in {}, nor a {kind} that leads there; create it",
            service.name, service.namespace
        )),
        None if host.contains(['.', ':']) => None,
        _ => Some(format!(
            "destination {host:?} is no {kind} of {namespace}, no Service there, nor a host that a {kind} leads to; \
             create it"
        )),
    }
}

/// The kind of a name as it stands in webhook paths, for example `apiroute`.
pub fn kind_of_path(name: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|kind| kind.name().to_ascii_lowercase() == name)
}

#[cfg(test)]
mod tests;
