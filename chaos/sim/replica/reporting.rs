//! Writes statuses as `src/runtime/replica/reporting` does: rounds at a distance,
//! patches within rate and concurrency, and patience with those in flight when
//! acting has to stop.

use std::collections::VecDeque;
use std::time::Duration;

use flotilla_core::balance::{self, Balancer, Step};
use flotilla_core::breakage::Breakages;
use flotilla_core::coordination::{DrainTicket, Event};
use flotilla_core::report::{PatchOutcome, ReportConfig, Round, StatusPatch};
use flotilla_observer::{Event as Seen, InstanceId, ObjectId};

use super::requests::{Ask, Found};
use crate::api::{Refusal, wall};
use crate::clock::{MILLIS, SECONDS};
use crate::statistics::Count;
use crate::world::{Occurrence, World};

/// Rounds are at least this far apart.
const PACE: u64 = 20 * MILLIS;
/// A round takes at most one part in so many of the delivery task's time.
const SHARE: u64 = 10;
/// How long patches in flight may take to finish when a namespace is lost.
const FINISH: u64 = SECONDS;
/// Time between two patches, at the default rate.
const PATCH_EVERY: u64 = 10 * MILLIS;
/// How often shares of gateways are compared.
const BALANCE_EVERY: u64 = balance::EVERY.as_secs() * SECONDS;

/// What carries out the reporter's patches.
#[derive(Debug)]
pub struct Report {
    /// Something happened that a round looks at.
    pub wanted: bool,
    /// No round before this true time.
    not_before: u64,
    /// No patch before this true time.
    next_patch: u64,
    /// Patches that are not answered yet.
    in_flight: u32,
    /// Moves when all patches in flight are given up.
    round: u32,
    /// Requests to finish what is in flight.
    pub drains: VecDeque<DrainTicket>,
    /// While it finishes: until when it waits.
    finishing: Option<u64>,
    balance_at: u64,
    balancer: Balancer,
}

impl Report {
    /// One that has written nothing yet.
    pub fn new(now: u64) -> Self {
        Report {
            wanted: true,
            not_before: now,
            next_patch: now,
            in_flight: 0,
            round: 0,
            drains: VecDeque::new(),
            finishing: None,
            balance_at: now,
            balancer: Balancer::default(),
        }
    }

    /// When it has something to do next; `wake` is the reporter's own deadline.
    pub fn due(&self, wake: Option<u64>) -> u64 {
        if let Some(until) = self.finishing {
            return until;
        }
        let round = if self.wanted { 0 } else { wake.unwrap_or(u64::MAX) };
        round.max(self.not_before).min(self.balance_at)
    }
}

/// The settings that the flags' defaults give.
pub(crate) fn config(breakage: Breakages) -> ReportConfig {
    ReportConfig { patience: Duration::from_secs(6), breakage, ..ReportConfig::default() }
}

impl World<'_> {
    /// One round of the reporter, if it is due.
    pub(crate) fn report(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if let Some(until) = process.report.finishing {
            if now >= until {
                self.give_up_patches(slot);
            }
            return;
        }
        if now >= process.report.balance_at {
            process.report.balance_at = now + BALANCE_EVERY;
            self.balance(slot);
        }
        let ahead = self.slots[slot].wall_ahead;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        let woken = process.reporter.next_deadline().is_some_and(|due| due <= local);
        if now < process.report.not_before || !(process.report.wanted || woken) {
            return;
        }
        process.report.wanted = false;
        let members: Vec<_> = process
            .shown
            .ownership
            .as_ref()
            .map(|ownership| ownership.map().members.iter().map(|member| member.name.clone()).collect())
            .unwrap_or_default();
        process.applied.members(local, &members);
        let ownership = process.shown.ownership.as_ref();
        let listed = ownership.and_then(|ownership| ownership.map().member(&process.member));
        process.applied.listed_as(local, listed.map(|member| &member.instance));
        let coordinator = &process.coordinator;
        // Only tells people the time: what else would follow from it, `statuses`
        // finds.
        let wall = wall(now, ahead);
        let round = Round {
            now: local,
            wall: &wall,
            acting: process.shown.acting,
            epoch: process.shown.ownership.as_ref().map(|ownership| ownership.epoch()).unwrap_or_default(),
            applied: &process.applied,
            may_act: &|namespace| coordinator.may_act(local, namespace),
        };
        self.stats.count(Count::Rounds);
        let due = process.reporter.poll(&process.engine, &round);
        let took = u64::from(self.scenario.weather.round_ms) * MILLIS;
        process.report.not_before = now + PACE.max(took * (SHARE - 1));
        let (life, number) = (process.life, process.report.round);
        for patch in due {
            process.report.in_flight += 1;
            let at = process.report.next_patch.max(now);
            process.report.next_patch = at + PATCH_EVERY;
            let patch = Box::new(patch);
            self.queue.push(at, Occurrence::Patch { slot, life, round: number, patch });
        }
    }

    /// A patch's turn has come.
    pub(crate) fn start_patch(&mut self, slot: usize, round: u32, patch: Box<StatusPatch>) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        if process.report.round != round {
            return;
        }
        // Ownership may have moved since the plan was made.
        if !process.coordinator.may_act(process.local(now), &patch.key.namespace) {
            return self.answered(slot, &patch, PatchOutcome::Conflict);
        }
        let writer = process.acts.tenure;
        self.ask(slot, Ask::Patch(round, writer, patch));
    }

    /// A patch arrives at the API server.
    pub(crate) fn patch(
        &mut self,
        slot: usize,
        writer: Option<InstanceId>,
        patch: &StatusPatch,
    ) -> Result<Found, Refusal> {
        let now = self.now;
        let place = self.universe.find(patch.kind, &patch.key).ok_or(Refusal::NotFound)?;
        let patched = self.api.patch(now, place, &patch.body);
        let object = ObjectId(place);
        if self.witness.telling() {
            let words = format!("r{slot} writes the status of {} {}: {patched:?}", patch.kind, patch.key);
            self.witness.tell(now, || words);
        }
        if let Some(wrong) = patched.as_ref().ok().and_then(|patched| patched.misdated.as_ref()) {
            let text = format!("r{slot} writes the status of {} {}: {wrong}", patch.kind, patch.key);
            self.witness.broken(now, text);
        }
        let landed = patched.as_ref().ok().filter(|patched| patched.changed);
        self.stats.count(if landed.is_some() { Count::Statuses } else { Count::StatusesRefused });
        if let Some(instance) = writer {
            let seen = match landed.and_then(|patched| Some((patched.revision, patched.claim?))) {
                Some((revision, says)) => Seen::StatusWritten { instance, object, revision, says },
                None => Seen::StatusRefused { instance, object },
            };
            self.witness.see(now, &seen);
        }
        patched.map(|_| Found::Done)
    }

    pub(crate) fn patch_replied(
        &mut self,
        slot: usize,
        round: u32,
        patch: &StatusPatch,
        answer: Result<Found, Refusal>,
    ) {
        let current = self.slots[slot].process.as_ref().is_some_and(|p| p.report.round == round);
        if !current {
            return;
        }
        let outcome = match answer {
            Ok(_) => PatchOutcome::Written,
            Err(Refusal::Conflict | Refusal::NotFound) => PatchOutcome::Conflict,
            Err(Refusal::Throttled(seconds)) => PatchOutcome::Failed(Duration::from_secs(seconds)),
            Err(_) => PatchOutcome::Failed(Duration::from_secs(1)),
        };
        self.answered(slot, patch, outcome);
    }

    fn answered(&mut self, slot: usize, patch: &StatusPatch, outcome: PatchOutcome) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        process.report.in_flight -= 1;
        process.report.wanted = true;
        process.reporter.written(local, patch.kind, &patch.key, outcome);
        if process.report.finishing.is_some() && process.report.in_flight == 0 {
            self.finished(slot);
        }
        self.set_timer(slot);
    }

    /// Acting has shrunk: waits for the patches in flight, briefly.
    pub(crate) fn finish_patches(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if process.report.in_flight == 0 {
            let life = process.life;
            process.report.finishing = Some(now);
            // The task hears of it a little later.
            self.queue.push(now + 1_000, Occurrence::Drained { slot, life });
        } else if process.report.finishing.is_none() {
            process.report.finishing = Some(now + FINISH);
            self.set_timer(slot);
        }
    }

    /// What still hangs is given up; its precondition keeps it from doing harm.
    fn give_up_patches(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        if process.report.in_flight > 0 {
            process.report.round += 1;
            process.report.in_flight = 0;
            process.reporter.abandoned(local);
        }
        self.finished(slot);
    }

    /// Nothing is in flight for what is not acted on any more.
    pub(crate) fn finished(&mut self, slot: usize) {
        let Some(process) = &mut self.slots[slot].process else { return };
        process.report.finishing = None;
        process.report.wanted = true;
        let tickets: Vec<DrainTicket> = process.report.drains.drain(..).collect();
        for ticket in tickets {
            self.coordinate(slot, Event::Drained(ticket));
        }
    }

    /// Lets gateways go when this replica has clearly more than its share.
    fn balance(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let local = process.local(now);
        let gateways = process.applied.is_complete(local).then(|| process.applied.gateways_by_member());
        let members: Vec<_> = process
            .shown
            .ownership
            .as_ref()
            .map(|ownership| ownership.map().members.iter().map(|member| member.name.clone()).collect())
            .unwrap_or_default();
        match process.report.balancer.look(local, &process.member, gateways.as_ref(), &members) {
            Step::Wait => {}
            Step::LetGo { count, spread } => process.engine.shed(local, count as usize, spread),
            Step::Spare { but } => process.engine.spare(but as usize),
        }
    }
}
