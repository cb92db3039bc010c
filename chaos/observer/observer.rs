//! Gives every event to the checks that it concerns.

use crate::acting::Acting;
use crate::admission::Admissions;
use crate::bounds::Bounds;
use crate::event::Event;
use crate::gateways::Gateways;
use crate::ids::{At, Names, ObjectId};
use crate::movement::Movement;
use crate::reach::Reach;
use crate::truth::Truth;
use crate::violation::{Fault, Violation};
use crate::{memory, settled};

/// How often each check had something to judge: one that never had proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were told.
    pub events: u64,
    /// Changes by tenants.
    pub changes: u64,
    /// Contents that gateways got (I2).
    pub held: u64,
    /// Removals from gateways (I4).
    pub removed: u64,
    /// Statuses that were written (I1).
    pub statuses: u64,
    /// Of them: those that landed after their writer's time.
    pub late: u64,
    /// Of them: those that said "everywhere" and could be judged (I3).
    pub everywhere: u64,
    /// Maps that were compared with the one before (I6).
    pub maps: u64,
    /// Changes of quiet tenants, times gateways (I7).
    pub reached: u64,
    /// Figures of memory (I9).
    pub memory: u64,
    /// Times at which all was compared (I3).
    pub settled: u64,
}

/// Sees what happens and says when a promise is broken.
#[derive(Debug, Default)]
pub struct Observer {
    bounds: Bounds,
    names: Names,
    truth: Truth,
    acting: Acting,
    gateways: Gateways,
    admissions: Admissions,
    movement: Movement,
    reach: Reach,
    tally: Tally,
    /// What a write has changed; kept for its memory only.
    changes: Vec<(ObjectId, u32)>,
}

impl Observer {
    /// An observer that has seen nothing.
    pub fn new(bounds: Bounds) -> Self {
        Observer { bounds, ..Observer::default() }
    }

    /// The words behind the ids in events.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// To give ids to what appears.
    pub fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }

    /// How often each check had something to judge.
    pub fn tally(&self) -> Tally {
        let (acting, gateways) = (&self.acting, &self.gateways);
        Tally {
            late: acting.late,
            removed: gateways.removals,
            maps: self.movement.judged,
            reached: self.reach.judged,
            ..self.tally
        }
    }

    /// Takes one event into account. Times never go back.
    ///
    /// # Errors
    /// When it breaks a promise. What is said after that means nothing.
    pub fn see(&mut self, at: At, event: &Event<'_>) -> Result<(), Violation> {
        self.tally.events += 1;
        self.reach
            .arrived(at, &self.bounds, &self.names, &self.truth, &self.gateways)
            .and_then(|()| self.take(at, event))
            .map_err(|fault| fault.at(at))
    }

    fn take(&mut self, at: At, event: &Event<'_>) -> Result<(), Fault> {
        match *event {
            // By far the most, so the first.
            Event::Holds { gateway, object, content, resolved } => {
                self.tally.held += 1;
                return self.gateways.holds(&self.names, &self.truth, gateway, object, content, resolved);
            }
            Event::Dropped { gateway, object, by } => {
                return self.gateways.dropped(&self.names, &self.truth, gateway, object, by);
            }
            Event::Written(write) => {
                let admitted =
                    self.admissions.written(&self.names, &self.truth, write.object, write.claim)?;
                self.changes.clear();
                self.truth.written(&self.names, &write, admitted, &mut self.changes);
                self.changed(at, write.object);
            }
            Event::Deleted { object, revision } => {
                self.changes.clear();
                self.truth.deleted(object, revision, &mut self.changes);
                self.changed(at, object);
            }
            Event::HistoryReplaced => self.movement.begin_again(),
            Event::Restored { object, revision, past } => {
                self.changes.clear();
                self.truth.restored(object, revision, past, &mut self.changes);
                self.changed(at, object);
            }
            Event::StatusWritten { instance, object, says, .. } => {
                self.tally.statuses += 1;
                if let Some(live) = &mut self.truth.place_mut(object).live {
                    live.status = Some(says);
                }
                let said = (instance, object, says);
                let (names, truth) = (&self.names, &self.truth);
                let judged = settled::truthful(at, &self.bounds, names, truth, &self.gateways, said)?;
                self.tally.everywhere += u64::from(judged);
            }
            Event::MapPublished(map) => self.movement.published(&self.bounds, &map)?,
            Event::MapDeleted => self.movement.deleted(),
            Event::Connected { gateway, instance, namespaces, kinds } => {
                self.gateways.connect(at, gateway, instance, namespaces, kinds);
            }
            Event::Disconnected { gateway } => self.gateways.disconnect(gateway),
            Event::GatewayRestarted { gateway } => self.gateways.restart(gateway),
            Event::Admission { object, claim, allowed } => self.admissions.decided(object, claim, allowed),
            Event::Impaired(subject) => self.gateways.impaired(subject),
            Event::Recovered(subject) => self.gateways.recovered(at, subject),
            Event::Memory(figures) => {
                self.tally.memory += 1;
                let [_, objects, _, gateways] = self.names.counts();
                memory::bounded(&self.bounds, &self.names, &figures, objects, gateways)?;
            }
            Event::Quiet => self.settled()?,
            Event::ActingStarted { .. }
            | Event::ActingStopped { .. }
            | Event::ActingUntil { .. }
            | Event::ClockUntrusted { .. }
            | Event::InstanceEnded { .. }
            | Event::StatusRefused { .. } => {}
        }
        self.acting.see(at, &self.names, event)
    }

    fn changed(&mut self, at: At, object: ObjectId) {
        self.tally.changes += 1;
        if let Some((_, namespace)) = self.names.place(object) {
            self.reach.changed(at, &self.bounds, namespace, &self.changes);
        }
    }

    fn settled(&mut self) -> Result<(), Fault> {
        self.tally.settled += 1;
        for (id, gateway, stream) in self.gateways.connected() {
            settled::equal(&self.names, &self.truth, id, gateway, stream)?;
        }
        settled::statuses(&self.names, &self.truth, &self.gateways)
    }
}
