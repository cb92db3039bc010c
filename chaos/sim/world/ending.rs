//! When changes have stopped and everything works: all must become equal, and every
//! status must say so. The simulator looks for that moment itself, and then has the
//! observer judge.

use flotilla_core::delivery::Scope;
use flotilla_observer::{Event as Seen, Memory, Ready};

use crate::api::status::claim_of;
use crate::clock::{MILLIS, SECONDS};
use crate::gateway::client::Phase;
use crate::universe::{Flavour, Spec};

use super::{Occurrence, World};

/// How far looks are apart, and how many in a row must find everything equal.
const EVERY: u64 = 5 * SECONDS;
const IN_A_ROW: u32 = 3;

impl World<'_> {
    /// A look whether all is equal.
    pub(super) fn look(&mut self) {
        self.measure_memory();
        let unsettled = self.unsettled();
        self.equal = if unsettled.is_none() { self.equal + 1 } else { 0 };
        let shape = &self.scenario.shape;
        let over = self.now >= (shape.active + shape.quiet) * MILLIS;
        if self.equal < IN_A_ROW && !over {
            self.queue.push(self.now + EVERY, Occurrence::Look);
            return;
        }
        self.ended = true;
        self.settle_gateways();
        self.witness.see(self.now, &Seen::Quiet);
        if let Some(text) = unsettled {
            self.witness
                .broken(self.now, format!("not settled {} s after all faults: {text}", shape.quiet / 1_000));
        }
    }

    /// What is not as it should be in the end.
    fn unsettled(&self) -> Option<String> {
        let replicas = self.unsettled_replica();
        replicas.or_else(|| self.unsettled_gateway()).or_else(|| self.unsettled_status())
    }

    fn unsettled_replica(&self) -> Option<String> {
        let mut digests = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(process) = &slot.process else { return Some(format!("r{index} does not run")) };
            if !process.is_ready() {
                return Some(format!("{} is not ready", process.instance));
            }
            digests.push(process.engine.digest(&Scope::default()));
        }
        if digests.iter().any(|digest| *digest != digests[0]) {
            return Some("replicas hold different configurations".to_owned());
        }
        for namespace in self.universe.namespaces() {
            let acting = |slot: &&super::Slot| {
                let process = slot.process.as_ref();
                process.is_some_and(|p| p.coordinator.may_act(p.local(self.now), namespace))
            };
            let count = self.slots.iter().filter(acting).count();
            if count != 1 {
                return Some(format!("{count} replicas act on {namespace}"));
            }
        }
        None
    }

    /// Whether a gateway is to refuse what is there.
    fn refuses(&self, gateway: usize, flavour: Flavour) -> bool {
        match flavour {
            Flavour::Good | Flavour::Invalid => false,
            Flavour::Poison | Flavour::Undecodable => true,
            Flavour::Disputed => self.scenario.shape.gateways[gateway].picky,
        }
    }

    fn asks_for(&self, gateway: usize, place: u32) -> bool {
        let namespaces = &self.scenario.shape.gateways[gateway].namespaces;
        let known = |namespace: &&u16| usize::from(**namespace) < self.universe.namespaces().len();
        let namespace = self.universe.namespace(place);
        namespaces.iter().filter(known).count() == 0
            || namespaces.iter().any(|asked| u32::from(*asked) == namespace)
    }

    fn exists(&self, place: u32) -> bool {
        self.api.object(place).is_some_and(|object| !object.deleting)
    }

    /// Whether an older object claims what the one of this place claims.
    fn is_displaced(&self, place: u32) -> bool {
        let claim = |place: u32| {
            let valid = |(_, spec): &(u32, Spec)| spec.flavour != Flavour::Invalid && self.exists(place);
            self.universe.claim(place, self.written[place as usize].filter(valid)?.1)
        };
        let Some(own) = claim(place) else { return false };
        let age = |place: u32| (self.api.created(place), self.universe.key(place));
        let namespace = self.universe.namespace(place) as u16;
        self.universe.places_of(namespace).any(|other| claim(other) == Some(own) && age(other) < age(place))
    }

    fn unsettled_gateway(&self) -> Option<String> {
        for (index, client) in self.clients.iter().enumerate() {
            if client.phase != Phase::Streaming {
                return Some(format!("{} has no stream", client.id));
            }
            for place in 0..self.universe.places() as u32 {
                let written = self.written[place as usize].filter(|_| self.exists(place));
                let wanted = written
                    .filter(|(_, spec)| spec.flavour != Flavour::Invalid && self.asks_for(index, place))
                    .filter(|_| !self.is_displaced(place));
                let held = client.model.holds(place);
                let expected = wanted.map(|(content, spec)| {
                    let resolved = self.universe.destination(place, spec).is_some_and(|to| self.exists(to));
                    (content, resolved)
                });
                let refused = wanted.is_some_and(|(_, spec)| self.refuses(index, spec.flavour));
                let right = if refused { held != expected } else { held == expected };
                if !right {
                    let (kind, key) = (self.universe.kind(place), self.universe.key(place));
                    return Some(format!(
                        "{} holds {held:?} of {kind} {key} instead of {expected:?}",
                        client.id
                    ));
                }
            }
        }
        None
    }

    fn unsettled_status(&self) -> Option<String> {
        for (place, object) in self.api.objects().filter(|(_, object)| !object.deleting) {
            let Some((_, spec)) = self.written[place as usize] else { continue };
            let asking: Vec<usize> =
                (0..self.clients.len()).filter(|gateway| self.asks_for(*gateway, place)).collect();
            let gateways = asking.len() as u32;
            let refusing =
                asking.iter().filter(|gateway| self.refuses(**gateway, spec.flavour)).count() as u32;
            let expected = if spec.flavour == Flavour::Invalid {
                Ready::Invalid
            } else if self.is_displaced(place) {
                Ready::Conflict
            } else if gateways == 0 {
                Ready::NoGateways
            } else if refusing > 0 {
                Ready::Rejected { applied: gateways - refusing, gateways }
            } else {
                Ready::True { gateways }
            };
            let claim = claim_of(&object.status);
            // What a gateway drops in silence, with success, no controller can know.
            let silent = spec.flavour == Flavour::Undecodable;
            let as_much = |ready| {
                silent
                    && matches!(ready, Ready::True { gateways: all } | Ready::Rejected { gateways: all, .. } if all == gateways)
            };
            let right = claim.is_some_and(|claim| {
                i64::from(claim.generation) == object.generation
                    && (claim.ready == expected || as_much(claim.ready))
            });
            if !right {
                return Some(format!(
                    "the status of {} {} (generation {}) says {claim:?} instead of {expected:?}",
                    object.kind, object.key, object.generation
                ));
            }
        }
        None
    }

    /// Tells the observer what replicas keep.
    pub(super) fn measure_memory(&mut self) {
        for slot in 0..self.slots.len() {
            let Some(process) = &self.slots[slot].process else { continue };
            let footprint = process.engine.footprint();
            let objects =
                flotilla_core::ids::Kind::ALL.into_iter().map(|kind| process.engine.objects(kind).count());
            let memory = Memory {
                instance: self.witness.instance(process.instance.as_str()),
                sessions: process.engine.session_count() as u64,
                objects: objects.sum::<usize>() as u64,
                tombstones: footprint.tombstones as u64,
                queued: (footprint.previous + footprint.ahead) as u64,
                queued_bytes: footprint.batch_bytes,
            };
            self.witness.see(self.now, &Seen::Memory(memory));
        }
    }
}
