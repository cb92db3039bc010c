//! What was deleted before a process started to read, as
//! `src/runtime/replica/history` finds it out: asked of peers first, then of the
//! API server's own history; one question at a time.

use flotilla_core::delivery::{AppliedTable, Tombstone};
use flotilla_core::ids::{Kind, Revision};
use flotilla_core::inheritance::{Inheritance, places};

use super::requests::{Ask, Found};
use crate::api::Refusal;
use crate::clock::SECONDS;
use crate::scenario::End;
use crate::world::{Occurrence, World};

/// For how long after the first lists a process asks ahead.
const INHERITS: u64 = 60 * SECONDS;

/// Why deletions are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A gateway waits for them.
    Gateway,
    /// Gateways of others may need them some time.
    Ahead,
}

/// What a process asks for ahead of gateways.
#[derive(Debug, Default)]
pub struct Inherits {
    inheritance: Inheritance,
    /// Until when, once everything is listed.
    until: Option<u64>,
}

impl World<'_> {
    /// Asks all peers that are reached for the oldest open question.
    pub(crate) fn ask_peers(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        let life = process.life;
        let others: Vec<usize> =
            (0..self.slots.len()).filter(|other| process.lines[*other].is_up()).collect();
        // One that does not answer is waited for, but not for ever.
        let slow = others.iter().any(|other| self.hears_nothing(slot, *other));
        let after = if slow { 2 * SECONDS } else { 2 * self.latency(slot) };
        self.queue.push(now + after, Occurrence::PeersAnswered { slot, life });
    }

    fn hears_nothing(&self, one: usize, other: usize) -> bool {
        let paused = self.slots[other].process.as_ref().is_none_or(|p| p.paused_until > self.now);
        let (a, b) = (End::Replica(one as u8), End::Replica(other as u8));
        paused || self.network.disturbed_until(self.now, a, b) > self.now
    }

    /// The peers have answered, those that can.
    pub(crate) fn peers_answered(&mut self, slot: usize) {
        let Some(process) = &self.slots[slot].process else { return };
        let Some((kind, since, until)) = process.questions.front().copied() else { return };
        match self.peers_know(slot, kind, since, until) {
            found @ Some(_) => self.history_found(slot, kind, since, found),
            None => self.ask(slot, Ask::Replay(kind, since.0, until.0, Need::Gateway)),
        }
    }

    /// What peers that can be reached know of deletions.
    fn peers_know(
        &self,
        slot: usize,
        kind: Kind,
        since: Revision,
        until: Revision,
    ) -> Option<(Revision, Vec<Tombstone>)> {
        let process = self.slots[slot].process.as_ref()?;
        let mut best: Option<(Revision, Vec<Tombstone>)> = None;
        for other in 0..self.slots.len() {
            if !process.lines[other].is_up() || self.hears_nothing(slot, other) {
                continue;
            }
            let Some(peer) = &self.slots[other].process else { continue };
            let Some(tombstones) = peer.engine.store().tombstones(kind, since) else { continue };
            let read = peer.engine.frontier().get(kind);
            if best.as_ref().is_none_or(|(best, _)| *best < read) {
                best = Some((read, tombstones));
            }
        }
        best.filter(|(read, _)| *read >= until)
    }

    /// A peer has told what its gateways have.
    pub(crate) fn hear_places(&mut self, slot: usize, table: &AppliedTable) {
        let Some(process) = &mut self.slots[slot].process else { return };
        process.inherits.inheritance.hear(places(table));
        self.inherit(slot);
    }

    /// Asks for deletions that gateways of peers may not have heard of, once everything is
    /// listed, as `src/runtime/replica/inherit` does. Peers answer at once here.
    pub(crate) fn inherit(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if !process.engine.store().ready() {
            return;
        }
        let frontier = process.engine.frontier();
        let Inherits { inheritance, until } = &mut process.inherits;
        inheritance.listed(frontier);
        if *until.get_or_insert(now + INHERITS) < now {
            return;
        }
        for (kind, since) in inheritance.wanted() {
            let until = frontier.get(kind);
            match self.peers_know(slot, kind, since, until) {
                found @ Some(_) => self.inherited(slot, kind, since, found),
                None => self.ask(slot, Ask::Replay(kind, since.0, until.0, Need::Ahead)),
            }
        }
    }

    fn inherited(
        &mut self,
        slot: usize,
        kind: Kind,
        since: Revision,
        found: Option<(Revision, Vec<Tombstone>)>,
    ) {
        let Some(process) = &mut self.slots[slot].process else { return };
        process.inherits.inheritance.answered(kind, since, found.is_some());
        if let Some((until, tombstones)) = found {
            process.engine.history(kind, since, until, tombstones);
            self.set_timer(slot);
        }
        self.inherit(slot);
    }

    pub(crate) fn replayed(
        &mut self,
        slot: usize,
        (kind, since, until): (Kind, u64, u64),
        need: Need,
        answer: Result<Found, Refusal>,
    ) {
        let found = match answer {
            Ok(Found::Deletions(tombstones)) => Some((Revision(until), tombstones)),
            _ => None,
        };
        match need {
            Need::Ahead => self.inherited(slot, kind, Revision(since), found),
            Need::Gateway => self.history_found(slot, kind, Revision(since), found),
        }
    }

    fn history_found(
        &mut self,
        slot: usize,
        kind: Kind,
        since: Revision,
        found: Option<(Revision, Vec<Tombstone>)>,
    ) {
        let Some(process) = &mut self.slots[slot].process else { return };
        process.questions.pop_front();
        let more = !process.questions.is_empty();
        match found {
            Some((until, tombstones)) => process.engine.history(kind, since, until, tombstones),
            None => process.engine.history_unavailable(kind, since),
        }
        if more {
            self.ask_peers(slot);
        }
        self.set_timer(slot);
    }
}
