//! Drives the coordinator as `src/k8s/coordination` does: carries out its requests,
//! feeds it with answers, watches and words of peers, and shows the result.

use flotilla_core::breakage::Breakages;
use flotilla_core::coordination::{
    Action, CoordinationConfig, Coordinator, Event, Identity, LeaseName, MapRecord, RequestError,
};
use flotilla_core::ids::MemberName;
use flotilla_core::ring::Position;
use flotilla_core::time::Mono;
use flotilla_observer::{At, Basis, Event as Seen, Map, NamespaceId, Subject};

use super::weighing::PlannedBy;

use super::requests::{Ask, Found};
use crate::api::{Change, Entry, LEASES, Refusal};
use crate::clock::SECONDS;
use crate::statistics::Count;
use crate::world::{Occurrence, World};

/// What the core makes of a refusal.
fn error(refusal: Refusal) -> RequestError {
    match refusal {
        Refusal::Conflict | Refusal::NotFound => RequestError::Conflict,
        _ => RequestError::Unavailable,
    }
}

/// What a watch shows, as an event.
pub(super) fn event_of(entry: &Entry) -> Option<Event> {
    let revision = flotilla_core::ids::Revision(entry.revision);
    Some(match &entry.change {
        Change::Lease(name, record) => Event::LeaseChanged(name.clone(), record.clone()),
        Change::LeaseGone(name) => Event::LeaseDeleted(name.clone(), revision),
        Change::Map(record) => Event::MapChanged((**record).clone()),
        Change::MapGone => Event::MapDeleted(revision),
        Change::Object(_) | Change::Gone(_) => return None,
    })
}

/// What a list that a watch starts with tells.
pub(super) fn list_event(lane: usize, sent_at: Mono, found: Found) -> Option<(Event, u64)> {
    match found {
        Found::Leases(list) if lane == LEASES => {
            let revision = list.revision.0;
            Some((Event::LeasesListed(Ok(list)), revision))
        }
        Found::Map(record, revision) => {
            Some((Event::MapRead { sent_at, answer: Ok(record.map(|record| *record)) }, revision))
        }
        _ => None,
    }
}

/// The settings that the flags' defaults give.
pub(crate) fn config() -> CoordinationConfig {
    CoordinationConfig::default()
}

/// A coordinator; `None` when the names cannot work, which those here do.
pub(crate) fn coordinator(identity: Identity, seed: u64, breakage: Breakages) -> Option<Coordinator> {
    Coordinator::new(CoordinationConfig { breakage, ..config() }, identity, seed).ok()
}

impl World<'_> {
    pub(crate) fn coordination_replied(
        &mut self,
        slot: usize,
        ask: Ask,
        sent_at: Mono,
        answer: Result<Found, Refusal>,
    ) {
        let event = match (ask, answer) {
            (Ask::ReadLease(name) | Ask::WriteLease(name, _), Ok(Found::Lease(record))) => {
                Event::LeaseAnswered(name, Ok(record))
            }
            (Ask::ReadLease(name) | Ask::WriteLease(name, _), Err(refusal)) => {
                Event::LeaseAnswered(name, Err(error(refusal)))
            }
            (Ask::ListLeases, Ok(Found::Leases(list))) => Event::LeasesListed(Ok(list)),
            (Ask::ListLeases, Err(refusal)) => Event::LeasesListed(Err(error(refusal))),
            (Ask::ReadMap, Ok(Found::Map(record, _))) => {
                Event::MapRead { sent_at, answer: Ok(record.map(|record| *record)) }
            }
            (Ask::ReadMap, Err(refusal)) => Event::MapRead { sent_at, answer: Err(error(refusal)) },
            (Ask::WriteMap(..), Ok(Found::MapWritten(record))) => Event::MapWritten(Ok(*record)),
            (Ask::WriteMap(..), Err(refusal)) => Event::MapWritten(Err(error(refusal))),
            _ => return,
        };
        self.coordinate(slot, event);
    }

    /// One step of a replica's coordinator.
    pub(crate) fn coordinate(&mut self, slot: usize, event: Event) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if self.witness.telling() && !matches!(event, Event::Tick) {
            self.witness.tell(now, || format!("{} <- {event:?}", process.instance));
        }
        let local = process.local(now);
        if let Event::Loads { member, report } = &event {
            process.weighing.reported.insert(member.clone(), report.clone());
        }
        let actions = process.coordinator.step(local, event);
        process.coordinator_due = process.coordinator.next_deadline();
        self.acts(slot);
        for action in actions {
            self.coordination_act(slot, action);
        }
        self.show(slot);
        self.set_timer(slot);
    }

    fn coordination_act(&mut self, slot: usize, action: Action) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if self.witness.telling() {
            self.witness.tell(now, || format!("{} -> {action:?}", process.instance));
        }
        match action {
            Action::ReadLease(name) => self.ask(slot, Ask::ReadLease(name)),
            Action::WriteLease(name, write) => self.ask(slot, Ask::WriteLease(name, write)),
            Action::ListLeases => self.ask(slot, Ask::ListLeases),
            Action::DeleteLease { name, revision, .. } => self.ask(slot, Ask::DeleteLease(name, revision)),
            Action::ReadMap => self.ask(slot, Ask::ReadMap),
            Action::WriteMap(write) => {
                let basis = self.planned_by(slot);
                self.ask(slot, Ask::WriteMap(write, basis));
            }
            Action::StopActing(ticket) => {
                process.report.drains.push_back(ticket);
                self.finish_patches(slot);
            }
            Action::AnnounceSettled { instance, epoch } => {
                process.outbox.settle(instance, epoch);
                self.speak(slot);
            }
            Action::AnnounceDeparted { instance } => {
                process.outbox.departed = Some(instance);
                self.speak(slot);
            }
            Action::Finished => {}
        }
    }

    /// Shows the rest of the process what changed.
    fn show(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        let coordinator = &process.coordinator;
        let ownership = coordinator.ownership();
        let epoch = ownership.map_or(0, |ownership| ownership.epoch().0);
        let leading = coordinator.leading_until().is_some_and(|until| local < until);
        let taken_over = coordinator.has_taken_over() && local < coordinator.acting().until();
        let key = (epoch, leading, taken_over);
        if process.shown.key == key {
            return;
        }
        let new_map = process.shown.key.0 != epoch;
        process.shown.key = key;
        process.shown.acting += 1;
        process.shown.ownership = ownership.cloned();
        if let Some(admission) = &mut process.admission {
            admission.note(now, (epoch, process.shown.acting), process.shown.ownership.as_ref());
        }
        process.report.wanted = true;
        if new_map {
            self.update_lines(slot);
        }
    }

    /// Tells the observer what a replica believes that it may act on.
    pub(crate) fn acts(&mut self, slot: usize) {
        let now = self.now;
        let impaired_until = self.slots[slot].impaired_until;
        let void = self.leases_are_void();
        let Some(process) = &mut self.slots[slot].process else { return };
        let mut begun = None;
        let coordinator = &process.coordinator;
        let epoch = coordinator.ownership().map_or(0, |ownership| ownership.epoch().0);
        let key = (epoch, coordinator.has_taken_over(), coordinator.tenure());
        let acting = coordinator.acting();
        let acts = &mut process.acts;
        if acts.key != key {
            if acts.key.2 != key.2 {
                if let Some(ended) = acts.tenure.take() {
                    acts.on.fill(false);
                    self.witness.see(now, &Seen::InstanceEnded { instance: ended });
                }
                acts.tenure = key.2.as_ref().map(|tenure| self.witness.instance(tenure.as_str()));
                acts.until = 0;
                self.stats.count(Count::Tenures);
                // Who began before the log was replaced cannot know better.
                let of_old = process.life <= self.old_lives;
                if let Some(instance) = acts.tenure
                    && (of_old || void)
                {
                    self.witness.see(now, &Seen::ClockUntrusted { instance });
                }
                begun = acts.tenure.filter(|_| impaired_until > now);
            }
            acts.key = key;
            if let Some(instance) = acts.tenure {
                for (index, namespace) in (0u32..).zip(self.universe.namespaces()) {
                    let covers = acting.covers(namespace);
                    if acts.on[index as usize] != covers {
                        acts.on[index as usize] = covers;
                        let namespace = NamespaceId(index);
                        self.witness.see(
                            now,
                            &if covers {
                                Seen::ActingStarted { instance, namespace, epoch }
                            } else {
                                Seen::ActingStopped { instance, namespace }
                            },
                        );
                    }
                }
            }
        }
        if let Some(instance) = acts.tenure {
            let until = process.clock.when(acting.until());
            if until != acts.until {
                acts.until = until;
                self.witness.see(now, &Seen::ActingUntil { instance, until: At(until) });
            }
        }
        if let Some(instance) = begun {
            self.impair(Subject::Instance(instance), impaired_until + 5 * SECONDS);
        }
    }

    /// A map was published: who owns what by it.
    pub(crate) fn map_published(&mut self, record: &MapRecord, basis: Option<&PlannedBy>) {
        let Some(map) = &record.published else { return };
        self.stats.count(Count::Maps);
        let ownership = flotilla_core::shardmap::Ownership::new(map.clone());
        let number = |name: &MemberName| {
            name.as_str().get(1..).and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
        };
        let eligible: Vec<u32> = {
            let undrained = || map.members.iter().filter(|member| !member.drained);
            let all = undrained().next().is_none();
            map.members.iter().filter(|member| all || !member.drained).map(|m| number(&m.name)).collect()
        };
        let seats: Vec<u32> = eligible.iter().copied().chain(map.away.iter().map(number)).collect();
        let namespaces = self.universe.namespaces();
        let of = |member: Option<&MemberName>| member.map_or(u32::MAX, number);
        let owners: Vec<u32> = namespaces.iter().map(|name| of(ownership.owner(name))).collect();
        let home = |name: &std::sync::Arc<str>| of(ownership.home_at(Position::of(name)));
        let homes: Vec<u32> = namespaces.iter().map(home).collect();
        let pins: Vec<(NamespaceId, u32)> = (0..)
            .zip(namespaces)
            .filter_map(|(id, name)| Some((NamespaceId(id), number(map.pins.get(name)?))))
            .collect();
        let basis = basis.map(|basis| Basis {
            planner: self.witness.instance(basis.planner.as_str()),
            clock: basis.clock.0,
            weights: basis.weights.as_deref(),
        });
        let seen = Map {
            epoch: map.epoch.0,
            members: &eligible,
            seats: &seats,
            owners: &owners,
            homes: &homes,
            pins: &pins,
            basis,
        };
        self.witness.see(self.now, &Seen::MapPublished(seen));
        if self.witness.telling() {
            let words = format!("map {} published by {}: {eligible:?}", map.epoch, map.leader);
            self.witness.tell(self.now, || words);
        }
    }

    /// Operators' and tenants' hands on Leases and the map.
    pub(crate) fn member_lease(slot: u8) -> LeaseName {
        LeaseName::Member(format!("r{slot}").into())
    }

    /// A replica is told to end, in order.
    pub(crate) fn stop(&mut self, slot: usize, back: u32) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if process.dies_at.is_some() {
            return;
        }
        // Streams are spread over three seconds; then everything ends.
        const SPREAD: std::time::Duration = std::time::Duration::from_secs(3);
        let dies_at = now + SPREAD.as_nanos() as u64;
        process.dies_at = Some(dies_at);
        let local = process.local(now);
        process.engine.drain(local, SPREAD);
        let life = process.life;
        self.stats.count(Count::Restarts);
        self.queue.push(dies_at, Occurrence::Die { slot, life, back });
        self.coordinate(slot, Event::Shutdown);
    }
}
