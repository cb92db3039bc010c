//! What watches have shown of Ingresses, Services and what was made of Ingresses, and
//! which of them have to be looked at. Pure.
//!
//! An Ingress is looked at when it, a Service of its namespace, or something that was
//! made of it has changed, and whenever it is asked for. What comes of a look at what is
//! older than what others know is refused by the API server, and looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use flotilla_core::ids::{Kind, ObjectKey};
use serde_json::Value;

use super::plan::{Child, Step, plan};
use super::{Class, Ingress, convert};

/// What one watch shows.
#[derive(Debug, Clone)]
pub enum Seen<T> {
    /// Everything there is, in place of what was known.
    All(Vec<T>),
    /// Something is now like this.
    Is(T),
    /// Something is gone.
    Gone(ObjectKey),
}

/// An Ingress as a watch shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenIngress {
    /// What it says.
    pub ingress: Ingress,
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: Arc<str>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `status.loadBalancer.ingress`, null when there is none.
    pub addresses: Value,
    /// The place of the published operator's finalizer among its finalizers.
    pub finalizer: Option<usize>,
}

/// What the author of an Ingress is told by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Why, as in the published operator.
    pub reason: &'static str,
    /// What.
    pub message: String,
    /// Whether somebody has to do something.
    pub warning: bool,
}

/// What there is to do about one Ingress.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// Its uid, and so the owner of what is made.
    pub uid: Arc<str>,
    /// Its `metadata.resourceVersion`, as it was seen.
    pub revision: Arc<str>,
    /// Writes in their order.
    pub steps: Vec<Step>,
    /// The addresses that its status is to have, where it has others.
    pub addresses: Option<Value>,
    /// The place of the finalizer that is to be taken out, so that it may go: who set it
    /// is not there any more.
    pub release: Option<usize>,
    /// What is to be told, once: not again while it is the same.
    pub told: Option<Told>,
    /// What everything that is written comes to.
    pub sum: String,
    /// As what that is to be told, if it turned; `None` while something is missing.
    pub done: Option<&'static str>,
    /// Whether it did: it became something, or nothing any more, or what was told of it
    /// before is true no more.
    pub turned: bool,
    /// Whether it is looked at for the first time since it may be acted on: who acted
    /// before may have told the same.
    pub first: bool,
    /// The reason to be told when it cannot be written.
    pub failing: &'static str,
}

/// Whether an Ingress may be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayAct {
    /// It may.
    Now,
    /// Not yet: it is worked on, or waits to be tried again.
    Later,
    /// Somebody else does, who tells what becomes of it.
    Others,
}

/// What comes of looking for something to do.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// This, about this Ingress.
    Work(ObjectKey, Box<Work>),
    /// Nothing so far, and there are more to be looked at.
    More,
    /// There is nothing to do.
    Nothing,
}

/// Ingresses that are looked at in one go, so that other tasks have their turn.
const LOOKS: usize = 64;

/// See the module's description.
#[derive(Debug)]
pub struct World {
    class: Class,
    /// The addresses that gateways are reached at, as in a status; null when unknown.
    addresses: Value,
    ingresses: BTreeMap<ObjectKey, SeenIngress>,
    /// Names of Ingresses by uid; the same as in `ingresses`.
    by_uid: BTreeMap<Arc<str>, ObjectKey>,
    /// Ports with names.
    services: BTreeMap<ObjectKey, BTreeMap<String, u16>>,
    children: BTreeMap<(Kind, ObjectKey), Child>,
    /// Children by their Ingress; the same as in `children`.
    by_owner: BTreeMap<OwnerId, BTreeSet<(Kind, ObjectKey)>>,
    /// What was told last, of those that were looked at; `None` when that is true no more.
    told: BTreeMap<ObjectKey, Option<Told>>,
    dirty: BTreeSet<ObjectKey>,
    /// Those that had to be looked at and could not be acted on.
    left: BTreeSet<ObjectKey>,
    listed: (bool, bool, BTreeSet<Kind>),
}

/// Namespace and uid of an Ingress: what is in another namespace says wrongly that it
/// belongs to it.
type OwnerId = (Arc<str>, Arc<str>);

fn owner_of(child: &Child) -> OwnerId {
    (child.key.namespace.clone(), child.owner.clone())
}

impl World {
    /// Knows nothing yet. `addresses` is what the statuses of Ingresses are to say.
    pub fn new(class: Class, addresses: Value) -> Self {
        World {
            class,
            addresses,
            ingresses: BTreeMap::new(),
            by_uid: BTreeMap::new(),
            services: BTreeMap::new(),
            children: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            told: BTreeMap::new(),
            dirty: BTreeSet::new(),
            left: BTreeSet::new(),
            listed: (false, false, BTreeSet::new()),
        }
    }

    /// Whether everything was listed: before that nothing is concluded from what is not
    /// there.
    pub fn is_complete(&self) -> bool {
        self.listed.0 && self.listed.1 && self.listed.2.len() == Kind::COUNT
    }

    /// Takes note of Ingresses.
    pub fn ingresses(&mut self, seen: Seen<SeenIngress>) {
        match seen {
            Seen::All(all) => {
                self.listed.0 = true;
                let there: BTreeSet<ObjectKey> = all.iter().map(|one| one.ingress.key.clone()).collect();
                let gone: Vec<ObjectKey> =
                    self.ingresses.keys().filter(|key| !there.contains(key)).cloned().collect();
                gone.iter().for_each(|key| self.forget(key));
                all.into_iter().for_each(|one| self.ingress(one));
            }
            Seen::Is(one) => self.ingress(one),
            Seen::Gone(key) => self.forget(&key),
        }
    }

    fn ingress(&mut self, seen: SeenIngress) {
        let key = seen.ingress.key.clone();
        let known = self.ingresses.get(&key).filter(|known| known.uid == seen.uid);
        if known.is_some_and(|known| is_older(&seen.revision, &known.revision)) {
            return;
        }
        self.by_uid.insert(seen.uid.clone(), key.clone());
        self.dirty.insert(key.clone());
        if let Some(before) = self.ingresses.insert(key, seen.clone())
            && before.uid != seen.uid
        {
            self.by_uid.remove(&before.uid);
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        // What was made of it goes with it: it is the owner.
        if let Some(before) = self.ingresses.remove(key) {
            self.by_uid.remove(&before.uid);
        }
        self.told.remove(key);
        self.dirty.remove(key);
        self.left.remove(key);
    }

    /// Takes note of Services: their ports by name.
    pub fn services(&mut self, seen: Seen<(ObjectKey, BTreeMap<String, u16>)>) {
        match seen {
            Seen::All(all) => {
                self.listed.1 = true;
                self.services = all.into_iter().collect();
                self.look_at_all();
            }
            Seen::Is((key, ports)) => {
                if self.services.insert(key.clone(), ports.clone()) != Some(ports) {
                    self.look_at(&key.namespace);
                }
            }
            Seen::Gone(key) => {
                self.services.remove(&key);
                self.look_at(&key.namespace);
            }
        }
    }

    /// Takes note of what was made of Ingresses.
    pub fn children(&mut self, kind: Kind, seen: Seen<Child>) {
        match seen {
            Seen::All(all) => {
                self.listed.2.insert(kind);
                let known = self.children.keys().filter(|(known, _)| *known == kind).cloned();
                known.collect::<Vec<_>>().iter().for_each(|known| self.child_gone(known));
                all.into_iter().for_each(|child| self.child(child));
            }
            Seen::Is(child) => self.child(child),
            Seen::Gone(key) => self.child_gone(&(kind, key)),
        }
    }

    fn child(&mut self, child: Child) {
        let id = (child.kind, child.key.clone());
        let known = self.children.get(&id).filter(|known| known.uid == child.uid);
        if known.is_some_and(|known| is_older(&child.revision, &known.revision)) {
            return;
        }
        self.child_gone(&id);
        self.dirty.extend(self.by_uid.get(&child.owner).cloned());
        self.by_owner.entry(owner_of(&child)).or_default().insert(id.clone());
        self.children.insert(id, child);
    }

    fn child_gone(&mut self, id: &(Kind, ObjectKey)) {
        let Some(child) = self.children.remove(id) else { return };
        self.dirty.extend(self.by_uid.get(&child.owner).cloned());
        if let Some(owned) = self.by_owner.get_mut(&owner_of(&child)) {
            owned.remove(id);
            if owned.is_empty() {
                self.by_owner.remove(&owner_of(&child));
            }
        }
    }

    fn look_at(&mut self, namespace: &Arc<str>) {
        let first = ObjectKey::new(namespace.clone(), "");
        let all = self.ingresses.range((Bound::Included(first), Bound::Unbounded));
        let own = all.map(|(key, _)| key).take_while(|key| key.namespace == *namespace);
        self.dirty.extend(own.cloned());
    }

    fn look_at_all(&mut self) {
        self.dirty.extend(self.ingresses.keys().cloned());
    }

    /// Others may be acted on than before: those that were left are looked at again.
    pub fn look_at_left(&mut self) {
        self.dirty.append(&mut self.left);
    }

    /// One is to be looked at again.
    pub fn look_again(&mut self, key: &ObjectKey) {
        if self.ingresses.contains_key(key) {
            self.dirty.insert(key.clone());
        }
    }

    /// The next one about which there is something to do, of those that may be acted on.
    /// The others are left for [`World::look_at_left`].
    pub fn next(&mut self, may_act: impl Fn(&ObjectKey) -> MayAct) -> Next {
        if !self.is_complete() {
            return Next::Nothing;
        }
        for _ in 0..LOOKS {
            let Some(key) = self.dirty.pop_first() else { return Next::Nothing };
            let may = may_act(&key);
            if may == MayAct::Others {
                self.told.remove(&key);
            }
            if may != MayAct::Now {
                self.left.insert(key);
                continue;
            }
            if let Some(work) = self.work(&key) {
                return Next::Work(key, Box::new(work));
            }
        }
        Next::More
    }

    fn work(&mut self, key: &ObjectKey) -> Option<Work> {
        let seen = self.ingresses.get(key)?;
        let owner = (key.namespace.clone(), seen.uid.clone());
        let owned = self.by_owner.get(&owner).into_iter().flatten();
        let children = owned.filter_map(|id| self.children.get(id));
        let ours = !seen.deleting && self.class.has(&seen.ingress);
        let (made_nothing, told) = (!self.by_owner.contains_key(&owner), self.told.get(key));
        let mut work = Work {
            uid: seen.uid.clone(),
            revision: seen.revision.clone(),
            steps: Vec::new(),
            addresses: None,
            release: None,
            told: None,
            sum: String::new(),
            done: None,
            turned: false,
            first: told.is_none(),
            failing: "IngressReconcileFailed",
        };
        let mut says = None;
        if !ours {
            work.steps = plan(&[], children);
            work.sum = "nothing is served for it any more".to_owned();
            work.done = Some(if seen.deleting { "IngressDeleted" } else { "IngressClassMismatch" });
            work.failing = "IngressCleanupFailed";
            // Whatever its class is now: it may have been ours when the finalizer was set, and
            // who set it is not there to take it out. One that stays is harmed by nothing.
            let held = seen.finalizer.filter(|_| seen.deleting);
            if made_nothing {
                work.release = held;
            }
            // Of one that is held it is told when it is let go.
            work.turned = if held.is_some() { made_nothing } else { !work.steps.is_empty() };
        } else {
            let port = |service: &str, port: &str| {
                let service = ObjectKey::new(key.namespace.clone(), service);
                self.services.get(&service)?.get(port).copied()
            };
            match convert(&seen.ingress, &port) {
                // What was made of it before goes on: an Ingress cannot say in a status
                // that it is served no more.
                Err(faults) => {
                    let message = faults.to_string();
                    says = Some(Told { reason: "IngressConversionFailed", message, warning: true });
                }
                Ok(converted) => {
                    let routes = converted.resources.iter().filter(|one| one.kind.is_route()).count();
                    let backends = converted.resources.len() - routes;
                    work.sum = format!("it became {routes} routes and {backends} backends");
                    // A Service that is away for a moment takes nothing from anybody.
                    let waits = !converted.unresolved.is_empty();
                    work.steps = plan(&converted.resources, children);
                    if waits {
                        work.steps.retain(|step| !matches!(step, Step::Remove { .. }));
                        let missing: Vec<String> = converted
                            .unresolved
                            .iter()
                            .map(|one| {
                                format!("{}: Service {} has no port {}", one.field, one.service, one.port)
                            })
                            .collect();
                        let message = format!("{}; create it, or give a number", missing.join("; "));
                        says = Some(Told { reason: "IngressReconcileFailed", message, warning: true });
                    }
                    work.done = (!waits).then_some("IngressReconciled");
                    let mended = told.is_some_and(Option::is_some);
                    work.turned = !waits && (mended || made_nothing && !work.steps.is_empty());
                    if !self.addresses.is_null() && seen.addresses != self.addresses {
                        work.addresses = Some(self.addresses.clone());
                    }
                }
            }
        }
        if self.told.get(key).and_then(Option::as_ref) != says.as_ref() {
            work.told.clone_from(&says);
        }
        self.told.insert(key.clone(), says);
        let nothing = work.steps.is_empty()
            && work.addresses.is_none()
            && work.release.is_none()
            && work.told.is_none()
            && !work.turned;
        (!nothing).then_some(work)
    }
}

/// Whether a state of an object is from before another one. The answer to a write may be
/// known before the watch shows what was before it. Revisions are ordered integers
/// (KEP-5504); of others nothing is said.
fn is_older(revision: &str, than: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    number(revision).zip(number(than)).is_some_and(|(revision, than)| revision < than)
}
