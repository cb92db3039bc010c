//! Requests to the API server and their answers.
//!
//! Everything that can become of a request is decided when it is sent and when it
//! arrives, so each has exactly one answer: the real one, or that there was none in
//! time; of two that arrive for one, that to one of them. A request that nobody waits
//! for any more may still arrive, and a process that died may still write.

use flotilla_core::coordination::{LeaseList, LeaseName, LeaseRecord, LeaseWrite, MapRecord, MapWrite};
use flotilla_core::delivery::Tombstone;
use flotilla_core::ids::{Kind, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::report::StatusPatch;
use flotilla_core::time::Mono;
use flotilla_observer::InstanceId;

use super::coordination::config;
use super::history::Need;
use super::lineage::{Doubt, History, Question};
use super::weighing::PlannedBy;
use crate::api::{LEASES, MAP, Refusal};
use crate::clock::{MILLIS, SECONDS};
use crate::scenario::{End, Fault};
use crate::statistics::Count;
use crate::world::{Occurrence, World};

/// What is asked.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Read a Lease.
    ReadLease(LeaseName),
    /// Write a Lease.
    WriteLease(LeaseName, LeaseWrite),
    /// List the Leases, for the coordinator.
    ListLeases,
    /// Delete a Lease that is still this one.
    DeleteLease(LeaseName, Revision),
    /// Read the map.
    ReadMap,
    /// Write the map.
    WriteMap(MapWrite, Option<Box<PlannedBy>>),
    /// List what one watch is about, or its first page; the number is the watch's.
    List(usize, u32),
    /// The next page of a list: as of which revision, and how many objects came before.
    Page(usize, u32, u64, usize),
    /// Open a watch from a revision.
    Watch(usize, u32, u64),
    /// Write a status: the reporter's round of giving up, who writes, and what.
    Patch(u32, Option<InstanceId>, Box<StatusPatch>),
    /// About the history of the cluster.
    History(Question),
    /// Replay deletions of a kind in (since, until].
    Replay(Kind, u64, u64, Need),
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Found {
    /// A Lease, or none.
    Lease(Option<LeaseRecord>),
    /// All Leases.
    Leases(LeaseList),
    /// The map, or none, and the list's revision.
    Map(Option<Box<MapRecord>>, u64),
    /// The map that was written.
    MapWritten(Box<MapRecord>),
    /// All objects of a kind, or the next of them; whether there are more.
    Objects(Revision, Vec<RawObject>, bool),
    /// Deletions.
    Deletions(Vec<Tombstone>),
    /// The Lease that names the history.
    History(Option<History>),
    /// It is done.
    Done,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Request {
    slot: usize,
    life: u32,
    cache: usize,
    /// When it was sent, by the sender's clock and in true time.
    sent_at: Mono,
    sent: u64,
    ask: Ask,
    /// Whether its answer is heard. Of a request that arrives twice one is.
    heard: bool,
    /// The process is killed right after it had its effect; starts again after so
    /// many milliseconds.
    fatal: Option<u32>,
}

/// An answer on its way.
#[derive(Debug)]
pub struct Reply {
    /// What had been asked.
    pub ask: Ask,
    /// When it was sent, by the sender's clock.
    pub sent_at: Mono,
    /// The answer.
    pub answer: Result<Found, Refusal>,
}

impl Ask {
    /// How long the product waits for an answer.
    fn patience(&self) -> u64 {
        match self {
            Ask::ReadLease(_)
            | Ask::WriteLease(..)
            | Ask::ListLeases
            | Ask::DeleteLease(..)
            | Ask::ReadMap
            | Ask::WriteMap(..) => {
                let patience = config().request_timeout();
                u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX)
            }
            Ask::History(_) => SECONDS,
            Ask::List(lane, _) | Ask::Watch(lane, ..) if *lane >= LEASES => 5 * SECONDS,
            Ask::List(..) | Ask::Page(..) => 60 * SECONDS,
            Ask::Watch(..) => 15 * SECONDS,
            Ask::Patch(..) => 10 * SECONDS,
            Ask::Replay(..) => 12 * SECONDS,
        }
    }

    fn writes(&self) -> bool {
        matches!(
            self,
            Ask::WriteLease(..)
                | Ask::DeleteLease(..)
                | Ask::WriteMap(..)
                | Ask::Patch(..)
                | Ask::History(Question::Confirm(..) | Question::Begin { .. })
        )
    }
}

impl World<'_> {
    /// Sends a request. Its answer comes as [`Occurrence::Reply`].
    pub(crate) fn ask(&mut self, slot: usize, ask: Ask) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        let (life, sent_at) = (process.life, process.local(now));
        let mut fatal = None;
        if ask.writes()
            && let Some((countdown, after, back)) = &mut self.slots[slot].crash_at_write
        {
            *countdown = countdown.saturating_sub(1);
            if *countdown == 0 {
                let (after, back) = (*after, *back);
                self.slots[slot].crash_at_write = None;
                if !after {
                    // It dies when it is done with what it is doing now.
                    self.queue.push(now, Occurrence::Kill { slot, life, back });
                    return;
                }
                fatal = Some(back);
            }
        }
        let cache = self.slots[slot].cache;
        let patience = ask.patience();
        let cut = self.network.cut_until(now, End::Replica(slot as u8), End::Api(cache as u8));
        let late = if self.slots[slot].late_until > now { self.slots[slot].late_by } else { 0 };
        let weather = self.weather();
        let lost = !self.calm && self.slots[slot].dice.ppm(weather.lost_requests);
        // What waits for a cut to heal is sent again by TCP, or given up with the
        // connection.
        let lost = lost || (cut > 0 && !self.slots[slot].dice.one_in(3));
        if lost {
            self.no_answer(slot, life, ask, sent_at, now + patience);
            return;
        }
        let heals = self.scenario.shape.active * MILLIS;
        let late = late.min(heals.saturating_sub(now));
        let way = self.latency(slot) + late;
        let arrives = cut.max(now) + way;
        let again = if ask.writes() { self.arrives_again(arrives) } else { None };
        let heard = again.is_none() || self.twice.one_in(2);
        let heard_at = again.filter(|_| !heard).unwrap_or(arrives);
        if (fatal.is_none() || !heard) && heard_at >= now + patience {
            self.no_answer(slot, life, ask.clone(), sent_at, now + patience);
        }
        let request = Request { slot, life, cache, sent_at, sent: now, ask, heard, fatal };
        if let Some(again) = again {
            let second = Request { heard: !heard, fatal: None, ..request.clone() };
            self.queue.push(again, Occurrence::Request(Box::new(second)));
        }
        self.queue.push(arrives, Occurrence::Request(Box::new(request)));
    }

    fn no_answer(&mut self, slot: usize, life: u32, ask: Ask, sent_at: Mono, at: u64) {
        let reply = Reply { ask, sent_at, answer: Err(Refusal::Timeout) };
        self.queue.push(at, Occurrence::Reply { slot, life, reply: Box::new(reply) });
    }

    /// A request arrives at the API server.
    pub(crate) fn serve(&mut self, request: Request) {
        let now = self.now;
        let Request { slot, life, cache, sent_at, sent, ask, heard, fatal } = request;
        let given_up_at = sent + ask.patience();
        let unheard = !heard || (now >= given_up_at && fatal.is_none());
        let server = self.caches[cache];
        if server.down_until > now {
            if !unheard {
                // Some see a refused connection, others nothing.
                let answer = Err(Refusal::Failed);
                let at = if self.slots[slot].dice.one_in(2) { now + MILLIS } else { given_up_at.max(now) };
                let reply = Reply { ask, sent_at, answer };
                self.queue.push(at, Occurrence::Reply { slot, life, reply: Box::new(reply) });
            }
            return;
        }
        let weather = self.weather();
        let (failed, throttled, lost) = if self.calm {
            (false, false, false)
        } else {
            let dice = &mut self.slots[slot].dice;
            let fault = server.failing_until > now && dice.one_in(u64::from(server.failing));
            (
                fault || dice.ppm(weather.failed_requests),
                dice.ppm(weather.throttled_requests),
                dice.ppm(weather.lost_answers),
            )
        };
        // An error may be told although the write had its effect.
        let without_effect = failed && (throttled || self.slots[slot].dice.one_in(2));
        let answer = if without_effect || throttled {
            let seconds = self.slots[slot].dice.between(1, 3);
            Err(if throttled { Refusal::Throttled(seconds) } else { Refusal::Failed })
        } else {
            self.carry_out(slot, cache, sent_at, &ask)
        };
        let answer = if failed && answer.is_ok() { Err(Refusal::Failed) } else { answer };
        self.spread_news();
        if let Some(back) = fatal
            && self.slots[slot].process.as_ref().is_some_and(|process| process.life == life)
        {
            self.stats.fault(Fault::CrashAtWrite(0, 0, true, 0).name());
            self.crash(slot, back);
            return;
        }
        if unheard {
            return;
        }
        let cut = self.network.cut_until(now, End::Api(cache as u8), End::Replica(slot as u8));
        // Watches that say nothing yet are answered with their first line.
        let arrives = cut.max(now) + self.latency(slot);
        if lost || arrives >= given_up_at {
            self.no_answer(slot, life, ask, sent_at, given_up_at);
        } else {
            let reply = Reply { ask, sent_at, answer };
            self.queue.push(arrives, Occurrence::Reply { slot, life, reply: Box::new(reply) });
        }
    }

    fn carry_out(&mut self, slot: usize, cache: usize, sent_at: Mono, ask: &Ask) -> Result<Found, Refusal> {
        let now = self.now;
        match ask {
            Ask::ReadLease(name) => Ok(Found::Lease(self.api.lease(name).cloned())),
            Ask::WriteLease(name, write) => {
                self.stats.count(Count::LeaseWrites);
                self.api.write_lease(now, name, write.clone()).map(|record| Found::Lease(Some(record)))
            }
            Ask::ListLeases | Ask::List(LEASES, _) => Ok(Found::Leases(self.api.leases(sent_at))),
            Ask::DeleteLease(name, revision) => {
                self.api.delete_lease(now, name, Some(*revision));
                Ok(Found::Done)
            }
            Ask::ReadMap | Ask::List(MAP, _) => {
                Ok(Found::Map(self.api.map().cloned().map(Box::new), self.api.revision))
            }
            Ask::WriteMap(write, basis) => {
                let written = self.api.write_map(now, write.clone());
                if written == Err(Refusal::StaleEpoch) {
                    let text = format!("a map was published whose epoch is not above all before: {write:?}");
                    self.witness.broken(now, text);
                }
                if let (Ok(record), MapWrite::Publish { .. }) = (&written, write) {
                    self.map_published(record, basis.as_deref());
                }
                written.map(|record| Found::MapWritten(Box::new(record)))
            }
            Ask::List(lane, _) => {
                self.stats.count(Count::Lists);
                let server = self.caches[cache];
                let at =
                    (server.stale_until > now).then(|| self.revision_at(now.saturating_sub(server.stale_by)));
                Ok(self.page(*lane, at, 0))
            }
            // What a token goes on with must not be forgotten.
            Ask::Page(_, _, revision, _)
                if *revision < self.api.compacted || *revision > self.api.revision =>
            {
                Err(Refusal::Gone)
            }
            Ask::Page(lane, _, revision, from) => Ok(self.page(*lane, Some(*revision), *from)),
            Ask::Watch(lane, _, revision) => {
                if *lane < LEASES && *revision > self.api.revision {
                    // The product asks for the newest before it watches: what is not
                    // there yet it would wait for in silence.
                    Err(Refusal::Behind(*revision))
                } else if *revision < self.api.compacted {
                    Err(Refusal::Gone)
                } else {
                    Ok(Found::Done)
                }
            }
            Ask::Patch(_, writer, patch) => self.patch(slot, *writer, patch),
            Ask::History(question) => Ok(Found::History(match question {
                Question::Read => self.api.history(),
                Question::Confirm(doubt, _) => Some(self.api.confirm_history(matches!(doubt, Doubt::Due))),
                Question::Begin { at, ours, .. } => Some(self.api.begin_history(*at, *ours)?),
            })),
            Ask::Replay(kind, since, until, _) => {
                let server = self.caches[cache];
                let shown = server.frozen_until <= now;
                let found = self.api.deletions(*kind, *since, *until, &self.universe).filter(|_| shown);
                let bury = |(key, revision)| Tombstone { kind: *kind, key, revision };
                found
                    .map(|found| Found::Deletions(found.into_iter().map(bury).collect()))
                    .ok_or(Refusal::Gone)
            }
        }
    }

    /// A page of a list, as of the end of the log or of a revision.
    fn page(&self, lane: usize, at: Option<u64>, from: usize) -> Found {
        let (revision, mut objects) = self.api.list(Kind::ALL[lane], &self.universe, at);
        let most = match self.weather().page {
            0 => usize::MAX,
            page => page as usize,
        };
        objects.drain(..from.min(objects.len()));
        let more = objects.len() > most;
        objects.truncate(most);
        Found::Objects(revision, objects, more)
    }

    /// A process gets an answer.
    pub(crate) fn replied(&mut self, slot: usize, reply: Reply) {
        let Reply { ask, sent_at, answer } = reply;
        match ask {
            Ask::ReadLease(_)
            | Ask::WriteLease(..)
            | Ask::ListLeases
            | Ask::DeleteLease(..)
            | Ask::ReadMap
            | Ask::WriteMap(..) => self.coordination_replied(slot, ask, sent_at, answer),
            Ask::List(lane, number) | Ask::Page(lane, number, ..) => {
                self.listed(slot, lane, number, sent_at, answer);
            }
            Ask::Watch(lane, number, revision) => self.watch_opened(slot, lane, number, revision, answer),
            Ask::History(question) => self.history_answered(slot, question, sent_at, answer),
            Ask::Patch(round, _, patch) => self.patch_replied(slot, round, &patch, answer),
            Ask::Replay(kind, since, until, need) => {
                self.replayed(slot, (kind, since, until), need, answer);
            }
        }
    }
}
