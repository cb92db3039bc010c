//! Which objects claim the same requests or the same endpoint (A-91 … A-94).
//! Pure; kept by whoever sees the objects come and go.
//!
//! Two routes of a kind are duplicates when an entry of `match` in each compares
//! the same part in the same way with the same value, has the same further
//! conditions, and their methods overlap. Anything else is a difference in
//! specificity, by which gateways decide. A Backend and a GRPCBackend are in
//! conflict when they lead to the same address and port.
//!
//! What one Ingress becomes is not in conflict with itself: while it changes there are both
//! what it was and what it will be, and the reconciler's rule keeps the older one served.
//! Whose an object is its name says: who gives two of his own such names is not refused,
//! and finds the younger one in conflict.
//!
//! Claims are found by hashing what must be equal, and under that by method or
//! kind: asking costs as much as the object asked about has claims, whatever the
//! number of objects.

mod claim;
mod reserved;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use flotilla_core::claims::{Claim, Claims, Holder, Stake, Taken, stakes};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;

pub(crate) use claim::{claims, claims_of, normal};
use claim::{claims_of_hosts, hosts};
use reserved::Reserved;

use crate::ingress::ingress_of;

/// Objects that one answer names; the first by precedence. It bounds what an
/// answer costs where many objects had the same claim before anybody checked.
const NAMED: usize = 8;

/// Whose claims meet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scope {
    /// Those of one namespace.
    #[default]
    Namespace,
    /// Those of all namespaces.
    Cluster,
}

/// Another object that claims the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Where the object asked about makes the claim, for example `spec.match[0]`.
    pub field: String,
    /// The claim in words, for example `uri prefix /api/v1`.
    pub claim: String,
    /// Kind of the other object.
    pub kind: Kind,
    /// The other object.
    pub other: ObjectKey,
    /// Whether the other one has precedence: it was created earlier, or at the
    /// same time and comes first by namespace and name.
    pub precedes: bool,
}

/// What is known of one object.
#[derive(Debug)]
struct Known {
    uid: Arc<str>,
    generation: i64,
    holder: Holder,
    stakes: Box<[Stake]>,
    /// Names under which a backend's hosts are reached.
    hosts: BTreeSet<String>,
}

/// The claims of all objects.
#[derive(Debug)]
pub struct Conflicts {
    scope: Scope,
    /// Kinds that were listed: of the others nothing is known.
    listed: HashSet<Kind>,
    /// By object: what must be taken out of the other two when it goes.
    known: HashMap<(Kind, ObjectKey), Known>,
    /// What they claim; kept equal to `known`.
    held: Claims,
    /// What objects will claim that were admitted here and have not shown up yet.
    reserved: Reserved,
    /// By namespace and host: how many backends lead there.
    reached: HashMap<(Arc<str>, String), usize>,
}

impl Conflicts {
    /// Knows of no objects yet.
    pub fn new(scope: Scope) -> Self {
        Conflicts {
            scope,
            listed: HashSet::new(),
            known: HashMap::new(),
            held: Claims::default(),
            reserved: Reserved::default(),
            reached: HashMap::new(),
        }
    }

    /// Whether every kind has been listed: before, an answer means little.
    pub fn is_complete(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.listed.contains(kind))
    }

    /// Everything of a kind, in place of what was known of it.
    pub fn listed(&mut self, kind: Kind, objects: &[RawObject]) {
        let there: HashSet<&ObjectKey> = objects.iter().map(|object| &object.key).collect();
        let gone: Vec<ObjectKey> = self
            .known
            .keys()
            .filter(|(known, key)| *known == kind && !there.contains(key))
            .map(|(_, key)| key.clone())
            .collect();
        for key in &gone {
            self.remove(kind, key);
        }
        for object in objects {
            self.insert(object);
        }
        self.listed.insert(kind);
    }

    /// An object as it is now. One that is being deleted claims nothing.
    pub fn insert(&mut self, object: &RawObject) {
        let id = (object.kind, object.key.clone());
        let same = |known: &Known| known.uid == object.uid && known.generation == object.generation;
        if !object.deleting && self.known.get(&id).is_some_and(same) {
            return; // a status
        }
        self.remove(object.kind, &object.key);
        if object.deleting {
            return;
        }
        let holder = Holder::of(object);
        let (claims, hosts) = if object.kind.is_route() {
            (claims(object, self.scope), BTreeSet::new())
        } else {
            let hosts = hosts(object);
            (claims_of_hosts(object, &hosts, self.scope), names_of_hosts(&object.key.namespace, hosts))
        };
        let stakes = stakes(&claims);
        self.held.insert(&holder, &stakes);
        self.reserved.seen(object.kind, &object.key, &stakes);
        for host in &hosts {
            *self.reached.entry((object.key.namespace.clone(), host.clone())).or_default() += 1;
        }
        let known = Known { uid: object.uid.clone(), generation: object.generation, holder, stakes, hosts };
        self.known.insert(id, known);
    }

    /// An object that is gone.
    pub fn remove(&mut self, kind: Kind, key: &ObjectKey) {
        let Some(known) = self.known.remove(&(kind, key.clone())) else { return };
        self.held.remove(&known.holder, &known.stakes);
        for host in known.hosts {
            let id = (key.namespace.clone(), host);
            if let Some(count) = self.reached.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.reached.remove(&id);
                }
            }
        }
    }

    /// Whether an object may be admitted that will claim this: who is in the way, each
    /// once and at most eight. Nobody, and `reserve`: then nobody else may claim it
    /// until the object shows up or a short time has passed.
    pub fn admit(
        &mut self,
        now: Mono,
        kind: Kind,
        key: &ObjectKey,
        claims: &[Claim],
        reserve: bool,
    ) -> Vec<Taken> {
        self.reserved.expire(now);
        let own = Own::of(kind, key);
        let others = |holder: &&Holder| !own.has(holder);
        let mut found: BTreeMap<(&ObjectKey, Kind), Taken> = BTreeMap::new();
        for (claim, wanted) in claims.iter().enumerate() {
            let held =
                self.held.meeting(wanted.stake).flat_map(|holders| holders.iter().filter(others).take(NAMED));
            let held = held.map(|holder| (holder, false));
            let reserved = self.reserved.meeting(wanted.stake).filter(others).map(|holder| (holder, true));
            for (holder, reserved) in held.chain(reserved) {
                let taken = || Taken { claim, kind: holder.kind, key: holder.key.clone(), reserved };
                found.entry((&holder.key, holder.kind)).or_insert_with(taken);
            }
        }
        let found: Vec<Taken> = found.into_values().take(NAMED).collect();
        if found.is_empty() && reserve && !claims.is_empty() {
            self.reserved.put(now, kind, key, stakes(claims));
        }
        found
    }

    /// What a write would have an object claim that it does not claim yet.
    pub fn new_claims(&self, object: &RawObject, before: Option<&RawObject>) -> Vec<Claim> {
        let of = |object: &RawObject| claims(object, self.scope);
        let had = before.map(of).unwrap_or_default();
        let had: BTreeSet<Stake> = had.iter().map(|claim| claim.stake).collect();
        of(object).into_iter().filter(|claim| !had.contains(&claim.stake)).collect()
    }

    /// Whose claims meet.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Who claims what `object` claims, by precedence, each once and at most
    /// eight. The object need not be known; if it is, it is not its own conflict.
    pub fn of(&self, object: &RawObject) -> Vec<Conflict> {
        self.find(object).0
    }

    /// Besides, how many claims of others were looked at.
    fn find(&self, object: &RawObject) -> (Vec<Conflict>, usize) {
        let (own, whole) = (Holder::of(object), Own::of(object.kind, &object.key));
        let mut looked_at = 0;
        let mut found: BTreeMap<&Holder, Claim> = BTreeMap::new();
        for claim in claims(object, self.scope) {
            for holders in self.held.meeting(claim.stake) {
                let others = holders.iter().filter(|holder| !whole.has(holder));
                for holder in others.take(NAMED) {
                    looked_at += 1;
                    found.entry(holder).or_insert_with(|| claim.clone());
                }
            }
        }
        let conflict = |(holder, claim): (&Holder, Claim)| Conflict {
            field: claim.field.to_string(),
            claim: claim.words.to_string(),
            kind: holder.kind,
            other: holder.key.clone(),
            precedes: *holder < own,
        };
        (found.into_iter().take(NAMED).map(conflict).collect(), looked_at)
    }

    /// Whether there is an object of this kind and name that is not being deleted.
    pub fn exists(&self, kind: Kind, key: &ObjectKey) -> bool {
        self.known.contains_key(&(kind, key.clone()))
    }

    /// Whether a backend of this namespace leads to a host: under its full
    /// name, or, for a Service, under its name within the namespace.
    pub fn reaches(&self, namespace: &Arc<str>, host: &str) -> bool {
        self.reached.contains_key(&(namespace.clone(), normal(host)))
    }
}

/// An object, and whatever else its Ingress becomes if it is of one.
struct Own<'a> {
    kind: Kind,
    key: &'a ObjectKey,
    ingress: Option<ObjectKey>,
}

impl<'a> Own<'a> {
    fn of(kind: Kind, key: &'a ObjectKey) -> Self {
        Own { kind, key, ingress: ingress_of(kind, key) }
    }

    fn has(&self, holder: &Holder) -> bool {
        (holder.kind, &holder.key) == (self.kind, self.key)
            || (self.ingress.is_some() && ingress_of(holder.kind, &holder.key) == self.ingress)
    }
}

/// `api.shop.svc.cluster.local` is also reached as `api.shop` and, within `shop`, as `api`.
fn names_of_hosts(within: &str, hosts: Vec<(String, i64)>) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (host, _) in hosts {
        let mut labels = host.split('.');
        if let (Some(service), Some(namespace), Some("svc")) = (labels.next(), labels.next(), labels.next()) {
            names.insert(format!("{service}.{namespace}"));
            names.insert(format!("{service}.{namespace}.svc"));
            if namespace == within {
                names.insert(service.to_owned());
            }
        }
        names.insert(host);
    }
    names
}

#[cfg(test)]
mod tests;
