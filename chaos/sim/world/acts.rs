//! What tenants and operators do.

use flotilla_observer::{Content, Event as Seen, GatewayId, ObjectId, Refused, Write};

use crate::clock::{MILLIS, SECONDS};
use crate::scenario::{Operator, Place, Tenant, What};
use crate::statistics::Count;
use crate::universe::{Flavour, Spec};

use super::{Occurrence, World};

impl World<'_> {
    /// Carries out an entry of the plan.
    pub(super) fn act(&mut self, index: usize) {
        if self.calm {
            return;
        }
        let what = self.scenario.plan[index].what;
        self.witness.tell(self.now, || format!("=== {what:?}"));
        match what {
            What::Tenant(tenant) => self.tenant(tenant),
            What::Operator(operator) => self.operator(operator),
            What::Fault(fault) => self.fault(fault),
        }
        self.spread_news();
    }

    fn place(&self, place: Place) -> Option<u32> {
        let shape = &self.scenario.shape;
        let known = place.namespace < shape.namespaces && place.name < shape.names;
        known.then(|| self.universe.place(place.namespace, place.kind, place.name))
    }

    fn tenant(&mut self, tenant: Tenant) {
        match tenant {
            Tenant::Put(place, spec) => {
                if let Some(place) = self.place(place) {
                    self.write(place, spec);
                }
            }
            Tenant::Touch(place) => {
                if let Some(place) = self.place(place) {
                    self.api.touch(self.now, place);
                }
            }
            Tenant::Delete(place) => {
                if let Some(place) = self.place(place) {
                    self.delete(place);
                }
            }
            Tenant::DeleteSlowly(place, time) => {
                if let Some(place) = self.place(place)
                    && let Some(revision) = self.api.mark(self.now, place)
                {
                    self.stats.count(Count::Changes);
                    self.witness.see(self.now, &Seen::Deleted { object: ObjectId(place), revision });
                    self.queue.push(self.now + u64::from(time) * MILLIS, Occurrence::Released(place));
                }
            }
            Tenant::DeleteNamespace(namespace) if namespace < self.scenario.shape.namespaces => {
                for place in self.universe.places_of(namespace) {
                    self.delete(place);
                }
            }
            Tenant::DeleteNamespace(_) => {}
        }
    }

    /// Writes, where that is so after the webhook was asked.
    fn write(&mut self, place: u32, spec: Spec) {
        let asked = self.scenario.shape.reviewed && self.universe.claim(place, spec).is_some();
        match spec.flavour {
            // It would be refused for what it is. As it is, it claims nothing.
            Flavour::Invalid if asked => self.put(place, Spec { claims: None, ..spec }),
            _ if asked => self.review(place, spec),
            _ => self.put(place, spec),
        }
    }

    /// Writes to the API server.
    pub(crate) fn put(&mut self, place: u32, spec: Spec) {
        let content = self.contents + 1;
        let bytes = self.universe.spec(place, content, spec);
        let Some(written) = self.api.put(self.now, &self.universe, place, bytes) else { return };
        self.contents = content;
        self.written[place as usize] = Some((content, spec));
        self.stats.count(Count::Changes);
        let picky: Vec<GatewayId> = (0..)
            .zip(&self.scenario.shape.gateways)
            .filter(|(_, g)| g.picky)
            .map(|(id, _)| GatewayId(id))
            .collect();
        let refused = match spec.flavour {
            Flavour::Good | Flavour::Invalid => Refused::Nowhere,
            Flavour::Poison => Refused::Everywhere,
            Flavour::Undecodable => Refused::Silently,
            Flavour::Disputed => Refused::By(&picky),
        };
        let references: Vec<ObjectId> =
            self.universe.destination(place, spec).map(ObjectId).into_iter().collect();
        let seen = Write {
            object: ObjectId(place),
            uid: written.uid,
            revision: written.revision,
            generation: u32::try_from(written.generation).unwrap_or(u32::MAX),
            content: Content(content),
            valid: spec.flavour != Flavour::Invalid,
            refused,
            references: &references,
            claim: self.universe.claim(place, spec),
            created: written.created,
        };
        self.witness.see(self.now, &Seen::Written(seen));
    }

    fn delete(&mut self, place: u32) {
        if let Some((revision, was_deleting)) = self.api.delete(self.now, place)
            && !was_deleting
        {
            self.stats.count(Count::Changes);
            self.witness.see(self.now, &Seen::Deleted { object: ObjectId(place), revision });
        }
    }

    /// A finalizer lets an object go.
    pub(super) fn released(&mut self, place: u32) {
        if self.api.object(place).is_some_and(|object| object.deleting) {
            self.api.delete(self.now, place);
            self.spread_news();
        }
    }

    /// The API server forgets what is older than its history is long.
    pub(super) fn forget(&mut self) {
        let keep = u64::from(self.scenario.weather.history_s.max(1)) * SECONDS;
        let revision = self.revision_at(self.now.saturating_sub(keep));
        self.api.compact(revision, &self.universe);
        self.network.tidy(self.now);
        self.measure_memory();
        self.queue.push(self.now + (keep / 4).max(5 * SECONDS), Occurrence::Forget);
    }

    fn operator(&mut self, operator: Operator) {
        self.stats.count(Count::Operations);
        let now = self.now;
        let known = |world: &Self, slot: u8| usize::from(slot) < world.slots.len();
        let names = self.universe.namespaces();
        match operator {
            Operator::Pin(namespace, slot) if usize::from(namespace) < names.len() => {
                let name = names[usize::from(namespace)].clone();
                self.api.edit_map(now, |spec| drop(spec.pins.insert(name, format!("r{slot}").into())));
            }
            Operator::Unpin(namespace) if usize::from(namespace) < names.len() => {
                let name = names[usize::from(namespace)].clone();
                self.api.edit_map(now, |spec| drop(spec.pins.remove(&name)));
            }
            Operator::Drain(slot) => {
                self.api.edit_map(now, |spec| {
                    spec.drained.insert(format!("r{slot}").into());
                });
            }
            Operator::Undrain(slot) => {
                self.api.edit_map(now, |spec| {
                    spec.drained.remove(&format!("r{slot}").into());
                });
            }
            Operator::Restart(slot, back) if known(self, slot) => self.stop(usize::from(slot), back),
            Operator::DeleteMap => {
                self.api.delete_map(now);
                self.witness.see(now, &Seen::MapDeleted);
            }
            Operator::DeleteLease(slot) => self.api.delete_lease(now, &Self::member_lease(slot), None),
            Operator::DeleteLeaderLease => {
                self.api.delete_lease(now, &flotilla_core::coordination::LeaseName::Leader, None);
            }
            Operator::TouchLease(slot) => self.api.touch_lease(now, &Self::member_lease(slot)),
            Operator::Pin(..) | Operator::Unpin(_) | Operator::Restart(..) => {}
        }
    }
}
