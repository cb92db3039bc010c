//! What objects compile to, and keeping the indexes equal to it.
//!
//! An outcome changes for two reasons: the object's own content, or the
//! existence of another object that it names. Either way the change is indexed
//! under the kind and revision that caused it.

use std::sync::Arc;

use super::Store;
use super::entry::{Entry, Previous};
use crate::compile::{Compiler, Invalid};
use crate::delivery::size;
use crate::digest::summand;
use crate::ids::{Kind, ObjectKey, Revision};
use crate::object::Resource;

/// What gateways get of an object, or why they get nothing.
type Outcome = Result<Arc<Resource>, Invalid>;

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
        let (outcome, references) = self.compile(compiler, entry);
        let own = cause == kind && entry.content == revision;
        let changed = match (&entry.outcome, &outcome) {
            (Ok(old), Ok(new)) => old != new,
            (Err(_), Err(_)) => false,
            _ => true,
        };
        let mut causes = Vec::new();
        if own {
            // Of a new content the existence of all that it names is news.
            causes.extend(references.iter().filter_map(|(k, key)| Some((*k, self.existence(*k, key)?))));
        }
        if own || changed {
            causes.push((cause, revision));
        }
        self.set_references(kind, key, references);
        if changed {
            self.set_outcome(kind, key, outcome, cause, revision);
        } else if let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) {
            entry.outcome = outcome;
        }
        if own {
            self.forget_causes(kind, key);
        }
        for (cause, revision) in causes {
            self.note(kind, key, cause, revision);
        }
    }

    fn compile(&self, compiler: &dyn Compiler, entry: &Entry) -> (Outcome, Vec<(Kind, ObjectKey)>) {
        let object = &entry.object;
        if object.deleting {
            return (Err(being_deleted()), Vec::new());
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
        (outcome.map(Arc::new), compilation.references)
    }

    pub(super) fn set_references(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        mut references: Vec<(Kind, ObjectKey)>,
    ) {
        references.sort_unstable();
        references.dedup();
        let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
        if entry.references == references {
            return;
        }
        let before = std::mem::replace(&mut entry.references, references.clone());
        for referenced in before {
            if let Some(dependents) = self.dependents.get_mut(&referenced) {
                dependents.remove(&(kind, key.clone()));
                if dependents.is_empty() {
                    self.dependents.remove(&referenced);
                }
            }
        }
        for referenced in references {
            self.dependents.entry(referenced).or_default().insert((kind, key.clone()));
        }
    }

    fn set_outcome(
        &mut self,
        kind: Kind,
        key: &ObjectKey,
        outcome: Outcome,
        cause: Kind,
        revision: Revision,
    ) {
        let stamp = self.next_stamp();
        let mut absent_since = self.frontier;
        absent_since.advance(cause, revision);
        let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
        entry.mark.outcome = stamp;
        entry.absent_since = outcome.is_err().then_some(absent_since);
        let before = std::mem::replace(&mut entry.outcome, outcome.clone());
        if let Ok(resource) = &before {
            if let Some(older) = entry.previous.take() {
                self.previous.remove(&(older.cause, older.revision, kind, key.clone()));
            }
            let resource = resource.clone();
            entry.previous = Some(Previous { resource, cause, revision, seen_until: None, vanished: false });
            self.previous.insert((cause, revision, kind, key.clone()));
        } else if let Some(previous) = &mut entry.previous {
            previous.vanished = true;
        }
        self.account(before.ok().as_deref(), outcome.ok().as_deref());
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
        let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
        let known = entry.caused.get(cause);
        if revision <= known {
            return;
        }
        entry.caused.advance(cause, revision);
        self.news.remove(cause, known, kind, key);
        self.news.insert(cause, revision, kind, key);
    }

    pub(super) fn forget_causes(&mut self, kind: Kind, key: &ObjectKey) {
        let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
        let caused = std::mem::take(&mut entry.caused);
        for cause in Kind::ALL {
            self.news.remove(cause, caused.get(cause), kind, key);
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

/// What one resource adds to its namespace's digest.
fn hash(resource: &Resource) -> u64 {
    summand(resource.kind, &resource.key, &resource.spec_json)
}

pub(super) fn being_deleted() -> Invalid {
    Invalid {
        field: "metadata.deletionTimestamp".into(),
        problem: "the object is being deleted".into(),
        remedy: "nothing is to be done".into(),
    }
}

fn too_large(bytes: u64, limit: u64) -> Invalid {
    Invalid {
        field: "spec".into(),
        problem: format!("it needs a message of up to {bytes} bytes, gateways accept {limit}"),
        remedy: "make the spec smaller or split the object".into(),
    }
}
