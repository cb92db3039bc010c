//! What was deleted before a process started to read, as
//! `src/runtime/replica/history` finds it out: asked of peers first, then of the
//! API server's own history; one question at a time.

use flotilla_core::delivery::{AppliedTable, Tombstone};
use flotilla_core::ids::{Kind, MemberName, Revision};
use flotilla_core::inheritance::{Applied, Inheritance, by_all};

use super::requests::{Ask, Found};
use crate::api::Refusal;
use crate::clock::SECONDS;
use crate::scenario::End;
use crate::world::{Occurrence, World};

/// For how long after the first lists a process asks ahead.
const INHERITS: u64 = 60 * SECONDS;

/// What a process asks for ahead of gateways.
#[derive(Debug, Default)]
pub struct Inherits {
    applied: Applied,
    /// Until when, and what it knows already, once everything is listed.
    since_ready: Option<(u64, Inheritance)>,
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
            None => self.ask(slot, Ask::Replay(kind, since.0, until.0, false)),
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

    /// A peer has told what its gateways have: asks for deletions that these may not have
    /// heard of, as `src/runtime/replica/inherit` does. Peers answer at once here.
    pub(crate) fn inherit(&mut self, slot: usize, member: &MemberName, table: &AppliedTable) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        if let Some(by_all) = by_all(table) {
            process.inherits.applied.insert(member.clone(), by_all);
        }
        if !process.engine.store().ready() {
            return;
        }
        let frontier = process.engine.frontier();
        let (until, inheritance) =
            process.inherits.since_ready.get_or_insert((now + INHERITS, Inheritance::of(frontier)));
        if *until < now {
            return;
        }
        for (kind, since) in inheritance.wanted(&process.inherits.applied) {
            let until = frontier.get(kind);
            match self.peers_know(slot, kind, since, until) {
                Some((until, tombstones)) => self.inherited(slot, kind, since, until, tombstones),
                None => self.ask(slot, Ask::Replay(kind, since.0, until.0, true)),
            }
        }
    }

    fn inherited(
        &mut self,
        slot: usize,
        kind: Kind,
        since: Revision,
        until: Revision,
        tombstones: Vec<Tombstone>,
    ) {
        let Some(process) = &mut self.slots[slot].process else { return };
        process.engine.history(kind, since, until, tombstones);
        self.set_timer(slot);
    }

    pub(crate) fn replayed(
        &mut self,
        slot: usize,
        kind: Kind,
        since: u64,
        until: u64,
        ahead: bool,
        answer: Result<Found, Refusal>,
    ) {
        let found = match answer {
            Ok(Found::Deletions(tombstones)) => Some((Revision(until), tombstones)),
            _ => None,
        };
        match found {
            Some((until, tombstones)) if ahead => {
                self.inherited(slot, kind, Revision(since), until, tombstones);
            }
            None if ahead => {}
            found => self.history_found(slot, kind, Revision(since), found),
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
