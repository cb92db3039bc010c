//! What objects compile to, and keeping the indexes equal to it.
//!
//! An outcome changes for three reasons: the object's own content, the existence
//! of another object that it names, or the claims of another object that come
//! before its own. In any case the change is indexed under the kind and revision
//! that caused it.

use std::sync::Arc;

use super::contest::set_claims;
use super::entry::{Entry, Previous, Stamp};
use super::{Dependents, PreviousIndex, Store};
use crate::claims::{Claim, Holder, Stake};
use crate::compile::{Compiler, Fault, Invalid};
use crate::delivery::size;
use crate::digest::summand;
use crate::ids::{Frontier, Kind, ObjectKey, Revision};
use crate::object::Resource;

/// What gateways get of an object, or why they get nothing.
type Outcome = Result<Arc<Resource>, Invalid>;

/// What an object compiles to by itself.
struct Compiled {
    outcome: Outcome,
    references: Vec<(Kind, ObjectKey)>,
    claims: Vec<Claim>,
}

impl Store {
    /// Compiles an object again because of a change of `cause` at `revision`.
    pub(super) fn recompile(
        &mut self,
        compiler: &dyn Compiler,
        kind: Kind,
        key: &ObjectKey,
        cause: Kind,
        revision: Revision,
    ) {
        let Some(entry) = self.entry(kind, key) else { return };
        let own = cause == kind && entry.content == revision;
        let Compiled { outcome, references, claims } = self.compile(compiler, entry);
        let mut causes = Vec::new();
        if own {
            // Of a new content the existence of all that it names is news.
            causes.extend(references.iter().filter_map(|(k, key)| Some((*k, self.existence(*k, key)?))));
        }
        let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
        let concerned = set_claims(&mut self.claims, self.breakage, entry, &claims);
        let wins = |(own, stakes): &(Holder, Box<[Stake]>)| self.claims.winner(own, stakes).is_none();
        let (entry, (outcome, lost)) = if entry.claims.as_ref().is_none_or(wins) {
            (entry, (outcome, None))
        } else {
            let contested =
                self.contest(kind, key, outcome, claims, |since| causes.extend(own.then_some(since)));
            let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
            (entry, contested)
        };
        entry.lost = lost;
        let changed = match (&entry.outcome, &outcome) {
            (Ok(old), Ok(new)) => old != new,
            (Err(_), Err(_)) => false,
            _ => true,
        };
        let lost_before = entry.outcome.as_ref().is_err_and(|invalid| invalid.fault == Fault::Conflict);
        let healed = (!own && lost_before && outcome.is_ok()).then_some((cause, revision));
        if own || changed {
            causes.push((cause, revision));
        }
        set_references(&mut self.dependents, entry, references);
        let replaced = if changed {
            self.stamps += 1;
            let mut absent_since = self.frontier;
            absent_since.advance(cause, revision);
            let after = outcome.as_ref().ok().cloned();
            let before = entry.replace(
                &mut self.previous,
                outcome,
                Stamp(self.stamps),
                absent_since,
                (cause, revision),
            );
            Some((before, after))
        } else {
            entry.outcome = outcome;
            None
        };
        if own || healed.is_some() {
            entry.healed = healed;
        }
        if own {
            self.news.forget(entry);
        }
        for (cause, revision) in causes {
            self.news.note(entry, cause, revision);
        }
        if let Some((before, after)) = replaced {
            self.account(before.as_deref(), after.as_deref());
        }
        self.judge_again(compiler, concerned, cause, revision);
    }

    fn compile(&self, compiler: &dyn Compiler, entry: &Entry) -> Compiled {
        let object = &entry.object;
        if object.deleting {
            return Compiled { outcome: Err(being_deleted()), references: Vec::new(), claims: Vec::new() };
        }
        let compilation = compiler.compile(object, &|kind, key| self.exists(kind, key));
        let outcome = compilation.outcome.and_then(|compiled| {
            let resource = Resource {
                kind: object.kind,
                key: object.key.clone(),
                uid: object.uid.clone(),
                generation: object.generation,
                revision: entry.content,
                created: object.created.clone(),
                spec_json: compiled.spec_json,
                rank: compiled.rank,
            };
            let bytes = size::UPDATE + size::SNAPSHOT + size::resource(&resource);
            if bytes > self.message_limit { Err(too_large(bytes, self.message_limit)) } else { Ok(resource) }
        });
        let claims = if outcome.is_ok() { compilation.claims } else { Vec::new() };
        Compiled { outcome: outcome.map(Arc::new), references: compilation.references, claims }
    }

    pub(super) fn account(&mut self, before: Option<&Resource>, after: Option<&Resource>) {
        if let Some(resource) = after {
            let digest = self.digests.entry(resource.key.namespace.clone()).or_default();
            *digest = digest.wrapping_add(hash(resource));
            let totals = self.totals.entry(resource.key.namespace.clone()).or_default();
            for totals in [totals, &mut self.all] {
                totals[resource.kind.index()].count += 1;
                totals[resource.kind.index()].bytes += size::resource(resource);
            }
        }
        if let Some(resource) = before
            && let Some(totals) = self.totals.get_mut(&resource.key.namespace)
        {
            if let Some(digest) = self.digests.get_mut(&resource.key.namespace) {
                *digest = digest.wrapping_sub(hash(resource));
            }
            for totals in [&mut *totals, &mut self.all] {
                totals[resource.kind.index()].count -= 1;
                totals[resource.kind.index()].bytes -= size::resource(resource);
            }
            if totals.iter().all(|totals| totals.count == 0) {
                self.totals.remove(&resource.key.namespace);
                self.digests.remove(&resource.key.namespace);
            }
        }
    }

    /// Indexes a live object's news; only the last per causing kind is kept.
    pub(super) fn note(&mut self, kind: Kind, key: &ObjectKey, cause: Kind, revision: Revision) {
        if let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) {
            self.news.note(entry, cause, revision);
        }
    }

    pub(super) fn existence_changed(
        &mut self,
        compiler: &dyn Compiler,
        kind: Kind,
        key: &ObjectKey,
        revision: Revision,
    ) {
        for (dependent, dependent_key) in self.dependents_of(kind, key) {
            self.recompile(compiler, dependent, &dependent_key, kind, revision);
        }
    }
}

impl Entry {
    /// Gives it another outcome, and returns the resource that it had.
    fn replace(
        &mut self,
        index: &mut PreviousIndex,
        outcome: Outcome,
        stamp: Stamp,
        absent_since: Frontier,
        (cause, revision): (Kind, Revision),
    ) -> Option<Arc<Resource>> {
        self.mark.outcome = stamp;
        self.absent_since = outcome.is_err().then_some(absent_since);
        let before = std::mem::replace(&mut self.outcome, outcome);
        let (kind, key) = (self.object.kind, &self.object.key);
        if let Ok(resource) = &before {
            if let Some(older) = self.previous.take() {
                index.remove(&(older.cause, older.revision, kind, key.clone()));
            }
            let resource = resource.clone();
            self.previous = Some(Previous { resource, cause, revision, seen_until: None, vanished: false });
            index.insert((cause, revision, kind, key.clone()));
        } else if let Some(previous) = &mut self.previous {
            previous.vanished = true;
        }
        before.ok()
    }
}

/// Replaces whose existence an object's outcome depends on.
pub(super) fn set_references(
    dependents: &mut Dependents,
    entry: &mut Entry,
    mut references: Vec<(Kind, ObjectKey)>,
) {
    references.sort_unstable();
    references.dedup();
    if entry.references == references {
        return;
    }
    let own = (entry.object.kind, entry.object.key.clone());
    for referenced in std::mem::replace(&mut entry.references, references) {
        if let Some(dependent) = dependents.get_mut(&referenced) {
            dependent.remove(&own);
            if dependent.is_empty() {
                dependents.remove(&referenced);
            }
        }
    }
    for referenced in &entry.references {
        dependents.entry(referenced.clone()).or_default().insert(own.clone());
    }
}

/// What one resource adds to its namespace's digest.
fn hash(resource: &Resource) -> u64 {
    summand(resource.kind, &resource.key, &resource.spec_json)
}

pub(super) fn being_deleted() -> Invalid {
    Invalid {
        fault: Fault::Spec,
        field: "metadata.deletionTimestamp".into(),
        problem: "the object is being deleted".into(),
        remedy: "nothing is to be done".into(),
    }
}

fn too_large(bytes: u64, limit: u64) -> Invalid {
    Invalid {
        fault: Fault::Spec,
        field: "spec".into(),
        problem: format!("it needs a message of up to {bytes} bytes, gateways accept {limit}"),
        remedy: "make the spec smaller or split the object".into(),
    }
}
