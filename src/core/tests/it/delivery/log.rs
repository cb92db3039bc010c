//! The API server's log, and a compiler simple enough to be checked by eye.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::claims::{Claim, Holder, Interest, Slot, Stake};
use flotilla_core::compile::{Compilation, Compiled, Compiler, Fault, Invalid};
use flotilla_core::delivery::{Scope, Tombstone};
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;

use super::gateway::{Key, POISON, UNDECODABLE};

/// The status of what loses to another object.
pub const WITHHELD: &str = "withheld";

/// `takes=<what>`: objects of a kind and namespace take it from each other.
fn claims(object: &RawObject, spec: &str) -> Vec<Claim> {
    let taken = spec.split_whitespace().filter_map(|word| word.strip_prefix("takes="));
    let claim = |what: &str| Claim {
        stake: Stake {
            slot: Slot::of(&format!("{}/{}/{what}", object.kind, object.key.namespace)),
            interest: Interest { takes: 1, bars: 1 },
        },
        field: "spec".into(),
        words: what.into(),
    };
    taken.map(claim).collect()
}

/// A spec with this word compiles to nothing.
pub const INVALID: &str = "invalid";

/// `name=<namespace/name> <spec>`, and for routes `to=<backend>` becomes
/// `to=<namespace>/<backend>` when that Backend exists.
pub struct TestCompiler;

impl Compiler for TestCompiler {
    fn compile(&self, object: &RawObject, exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
        let spec = String::from_utf8(object.spec.to_vec()).unwrap();
        let mut references = Vec::new();
        let mut text = format!("name={} {spec}", object.key);
        if let Some(host) = spec.split_whitespace().find_map(|word| word.strip_prefix("to=")) {
            let backend = ObjectKey::new(object.key.namespace.clone(), host);
            if exists(Kind::Backend, &backend) {
                text = text.replace(&format!("to={host}"), &format!("to={backend}"));
            }
            references.push((Kind::Backend, backend));
        }
        let outcome = if spec.contains(INVALID) {
            Err(Invalid {
                fault: Fault::Spec,
                field: "spec".into(),
                problem: "it is invalid".into(),
                remedy: "fix it".into(),
            })
        } else {
            Ok(Compiled { spec_json: Bytes::from(text), rank: u8::from(spec.contains("catch-all")) })
        };
        Compilation { outcome, references, claims: claims(object, &spec) }
    }

    fn was_withheld(&self, object: &RawObject) -> Option<bool> {
        (!object.status.is_empty()).then(|| *object.status == *WITHHELD.as_bytes())
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    Changed(RawObject),
    Deleted(Kind, ObjectKey, Revision),
}

impl Event {
    pub fn revision(&self) -> Revision {
        match self {
            Event::Changed(object) => object.revision,
            Event::Deleted(_, _, revision) => *revision,
        }
    }
}

/// Everything that ever happened, per kind, and what there is.
#[derive(Debug, Default)]
pub struct Log {
    pub revision: u64,
    pub events: [Vec<Event>; Kind::COUNT],
    pub live: BTreeMap<Key, RawObject>,
    pub uids: u64,
    /// Uids of what ever lost to another object.
    pub ever_lost: BTreeSet<Arc<str>>,
}

impl Log {
    fn next(&mut self) -> Revision {
        self.revision += 1;
        Revision(self.revision)
    }

    fn record(&mut self, object: RawObject) -> RawObject {
        self.events[object.kind.index()].push(Event::Changed(object.clone()));
        self.live.insert((object.kind, object.key.clone()), object.clone());
        object
    }

    /// Creates an object or changes its spec.
    pub fn put(&mut self, kind: Kind, key: &ObjectKey, spec: &str) -> RawObject {
        let revision = self.next();
        let object = match self.live.get(&(kind, key.clone())) {
            Some(known) => RawObject {
                revision,
                generation: known.generation + 1,
                spec: Bytes::from(spec.to_owned()),
                ..known.clone()
            },
            None => {
                self.uids += 1;
                RawObject {
                    kind,
                    key: key.clone(),
                    uid: format!("u{}", self.uids).into(),
                    revision,
                    generation: 1,
                    created: format!("{:09}", self.uids / 2).into(),
                    deleting: false,
                    held: false,
                    spec: Bytes::from(spec.to_owned()),
                    status: Bytes::new(),
                }
            }
        };
        self.record(object)
    }

    /// Changes an object's status only.
    pub fn status(&mut self, kind: Kind, key: &ObjectKey, status: &str) -> RawObject {
        let revision = self.next();
        let known = self.live[&(kind, key.clone())].clone();
        self.record(RawObject { revision, status: Bytes::from(status.to_owned()), ..known })
    }

    /// Whoever owns the objects writes into their statuses who lost to whom.
    pub fn settle(&mut self) {
        loop {
            let differs = self.live.values().filter(|object| !object.deleting).find_map(|object| {
                let lost = self.loses(object);
                (lost != (TestCompiler.was_withheld(object) == Some(true))).then(|| (object.clone(), lost))
            });
            let Some((object, lost)) = differs else { return };
            if lost {
                self.ever_lost.insert(object.uid.clone());
            }
            self.status(object.kind, &object.key, if lost { WITHHELD } else { "{}" });
        }
    }

    /// Whether somebody who comes before an object claims what it claims, by a look at all pairs.
    fn loses(&self, object: &RawObject) -> bool {
        let of = |object: &RawObject| {
            let spec = String::from_utf8_lossy(&object.spec);
            if object.deleting || spec.contains(INVALID) { Vec::new() } else { claims(object, &spec) }
        };
        let own = of(object);
        let meets = |other: &RawObject| {
            of(other).iter().any(|theirs| own.iter().any(|mine| mine.stake == theirs.stake))
        };
        let same =
            |other: &&RawObject| other.kind == object.kind && other.key.namespace == object.key.namespace;
        self.live.values().filter(same).any(|other| Holder::of(other) < Holder::of(object) && meets(other))
    }

    /// Marks an object as being deleted, as one with finalizers.
    pub fn mark_deleting(&mut self, kind: Kind, key: &ObjectKey) -> RawObject {
        let revision = self.next();
        let known = self.live[&(kind, key.clone())].clone();
        self.record(RawObject { revision, generation: known.generation + 1, deleting: true, ..known })
    }

    pub fn delete(&mut self, kind: Kind, key: &ObjectKey) -> Revision {
        let revision = self.next();
        self.live.remove(&(kind, key.clone()));
        self.events[kind.index()].push(Event::Deleted(kind, key.clone(), revision));
        revision
    }

    /// The objects of a kind as they were at a revision.
    pub fn list(&self, kind: Kind, at: Revision) -> Vec<RawObject> {
        let mut objects = BTreeMap::new();
        for event in self.events[kind.index()].iter().take_while(|event| event.revision() <= at) {
            match event {
                Event::Changed(object) => objects.insert(object.key.clone(), object.clone()),
                Event::Deleted(_, key, _) => objects.remove(key),
            };
        }
        objects.into_values().collect()
    }

    /// Deletions of a kind in (`since`, `until`].
    pub fn deletions(&self, kind: Kind, since: Revision, until: Revision) -> Vec<Tombstone> {
        let between = |event: &&Event| event.revision() > since && event.revision() <= until;
        let deletion = |event: &Event| match event {
            Event::Deleted(kind, key, revision) => {
                Some(Tombstone { kind: *kind, key: key.clone(), revision: *revision })
            }
            Event::Changed(_) => None,
        };
        self.events[kind.index()].iter().filter(between).filter_map(deletion).collect()
    }

    /// What became of an object from the moment on when it was `uid` at
    /// `generation`, that content first.
    fn since<'a>(
        &'a self,
        kind: Kind,
        key: &'a ObjectKey,
        uid: &'a Arc<str>,
        generation: i64,
    ) -> impl Iterator<Item = &'a Event> {
        let of_key = move |event: &&Event| match event {
            Event::Changed(object) => object.key == *key,
            Event::Deleted(_, gone, _) => gone == key,
        };
        let earlier = move |event: &&Event| !matches!(event, Event::Changed(o) if o.uid == *uid && o.generation == generation);
        self.events[kind.index()].iter().filter(of_key).skip_while(earlier)
    }

    /// Whether an object that was `uid` at `generation` was to be removed at
    /// any time after that.
    pub fn was_removed(&self, kind: Kind, key: &ObjectKey, uid: &Arc<str>, generation: i64) -> bool {
        let lost = self.ever_lost.contains(uid);
        lost || self.since(kind, key, uid, generation).skip(1).any(|event| match event {
            Event::Changed(object) => {
                object.deleting || String::from_utf8_lossy(&object.spec).contains(INVALID)
            }
            Event::Deleted(..) => true,
        })
    }

    /// Whether an object that was `uid` at `generation` was then, or has become
    /// since, something that gateways reject.
    pub fn became_bad(&self, kind: Kind, key: &ObjectKey, uid: &Arc<str>, generation: i64) -> bool {
        self.since(kind, key, uid, generation).any(|event| match event {
            Event::Changed(object) => {
                let spec = String::from_utf8_lossy(&object.spec);
                spec.contains(POISON) || spec.contains(UNDECODABLE)
            }
            Event::Deleted(..) => false,
        })
    }

    /// What a gateway of a scope is to hold in the end.
    pub fn expected(&self, scope: &Scope) -> BTreeMap<Key, Bytes> {
        let exists = |kind: Kind, key: &ObjectKey| {
            self.live.get(&(kind, key.clone())).is_some_and(|object| !object.deleting)
        };
        let live = self.live.iter().filter(|((kind, key), o)| !o.deleting && scope.includes(*kind, key));
        let live = live.filter(|(_, object)| !self.loses(object));
        live.filter_map(|(key, object)| {
            let compiled = TestCompiler.compile(object, &exists).outcome.ok()?;
            Some((key.clone(), compiled.spec_json))
        })
        .collect()
    }
}
