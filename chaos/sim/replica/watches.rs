//! Follows the four kinds, the Leases and the map, as `src/k8s/watch` and
//! `src/k8s/coordination/watching` do: list, then watch; what ends in order is
//! opened again where it was, what breaks is opened again after a pause, and what
//! is gone is listed anew.

use flotilla_core::coordination::Event;
use flotilla_core::ids::{Kind, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;

use super::coordination::{event_of, list_event};
use super::lineage::Doubt;
use super::requests::{Ask, Found};
use crate::api::{Change, LANES, Refusal};
use crate::clock::{MILLIS, SECONDS};
use crate::scenario::End;
use crate::statistics::Count;
use crate::world::{Occurrence, World};

/// How often watch caches send bookmarks.
const BOOKMARKS: u64 = 60 * SECONDS;

/// One list and watch.
#[derive(Debug, Default)]
pub struct Watch {
    /// Its number: what was said of an earlier one does not concern it.
    number: u32,
    /// Where the next watch starts; `None` asks for a list first.
    resume: Option<u64>,
    /// Whether it is open.
    streaming: bool,
    /// The position in the log of what it shows next.
    position: u64,
    /// Whether a look at the log is due.
    pumping: bool,
    /// The cache that it reads from.
    cache: usize,
    /// When it was opened, and when something last came.
    opened: u64,
    last: u64,
    /// Since the last list or opening.
    told: u64,
    /// The highest revision that was told.
    highest: u64,
    /// The pages of a list that have come.
    pages: Vec<RawObject>,
    failures: u32,
}

impl Watch {
    /// The highest revision that it told.
    pub fn highest(&self) -> u64 {
        self.highest
    }
}

/// How a watch came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// The server ended it in order.
    InOrder,
    /// It broke, with this answer.
    Broken(Refusal),
}

impl World<'_> {
    /// Begins to follow everything.
    pub(crate) fn follow_all(&mut self, slot: usize) {
        for lane in 0..LANES {
            self.follow(slot, lane);
        }
    }

    /// Lists or watches, whichever is next.
    fn follow(&mut self, slot: usize, lane: usize) {
        let caches = self.caches.len();
        let Some(process) = &mut self.slots[slot].process else { return };
        let watch = &mut process.watches[lane];
        watch.number += 1;
        watch.streaming = false;
        watch.pumping = false;
        watch.pages.clear();
        let (number, resume) = (watch.number, watch.resume);
        // Connections are kept; rarely one goes to another API server.
        if self.slots[slot].dice.one_in(8) {
            self.slots[slot].cache = self.slots[slot].dice.index(caches);
        }
        self.ask(
            slot,
            match resume {
                None => Ask::List(lane, number),
                Some(revision) => Ask::Watch(lane, number, revision),
            },
        );
    }

    /// A watch begins anew after a pause.
    pub(crate) fn follow_again(&mut self, slot: usize, lane: usize, number: u32) {
        let current = self.slots[slot].process.as_ref().is_some_and(|p| p.watches[lane].number == number);
        if current {
            self.follow(slot, lane);
        }
    }

    pub(crate) fn listed(
        &mut self,
        slot: usize,
        lane: usize,
        number: u32,
        sent_at: Mono,
        answer: Result<Found, Refusal>,
    ) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let watch = &mut process.watches[lane];
        if watch.number != number {
            return;
        }
        watch.opened = now;
        watch.told = 0;
        let revision = match answer {
            Err(refusal) => return self.watch_ended(slot, lane, Ended::Broken(refusal)),
            // The product looks before each round whether the server knows as much as
            // was seen of it.
            Ok(Found::Objects(revision, ..)) if process.lineage.is_some() && revision.0 < watch.highest => {
                let seen = watch.highest;
                return self.watch_ended(slot, lane, Ended::Broken(Refusal::Behind(seen)));
            }
            Ok(Found::Objects(revision, objects, more)) => {
                watch.pages.extend(objects);
                if more {
                    let page = Ask::Page(lane, number, revision.0, watch.pages.len());
                    return self.ask(slot, page);
                }
                watch.resume = Some(revision.0);
                watch.highest = watch.highest.max(revision.0);
                let objects = std::mem::take(&mut watch.pages);
                if let Some(admission) = &mut process.admission {
                    admission.listed(Kind::ALL[lane], &objects);
                }
                process.engine.listed(Kind::ALL[lane], revision, objects);
                // All kinds are in one log.
                let read = Kind::ALL.iter().map(|kind| process.engine.frontier().get(*kind)).max();
                self.set_timer(slot);
                self.inherit(slot);
                if let Some(read) = read.filter(|read| revision < *read) {
                    self.doubt(slot, Doubt::Behind(read.0));
                }
                revision.0
            }
            Ok(found) => {
                let Some((event, revision)) = list_event(lane, sent_at, found) else { return };
                self.coordinate(slot, event);
                revision
            }
        };
        if let Some(process) = &mut self.slots[slot].process {
            process.watches[lane].resume = Some(revision);
        }
        self.follow(slot, lane);
    }

    pub(crate) fn watch_opened(
        &mut self,
        slot: usize,
        lane: usize,
        number: u32,
        revision: u64,
        answer: Result<Found, Refusal>,
    ) {
        let now = self.now;
        let slot_cache = self.slots[slot].cache;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let watch = &mut process.watches[lane];
        if watch.number != number {
            return;
        }
        watch.opened = now;
        watch.told = 0;
        // What it was to start from may have been forgotten since the server said yes.
        let forgotten = revision < self.api.compacted;
        if let Err(refusal) = answer.and(if forgotten { Err(Refusal::Gone) } else { Ok(()) }) {
            return self.watch_ended(slot, lane, Ended::Broken(refusal));
        }
        watch.streaming = true;
        watch.last = now;
        watch.position = self.api.lanes[lane].after(revision);
        watch.cache = slot_cache;
        let ends = if lane < Kind::COUNT {
            let first = self.slots[slot].dice.between(SECONDS, BOOKMARKS);
            self.queue.push(now + first, Occurrence::Bookmark { slot, life, lane, number });
            240 * SECONDS + self.slots[slot].dice.below(48 * SECONDS)
        } else {
            20 * SECONDS
        };
        self.queue.push(now + ends, Occurrence::WatchEnds { slot, life, lane, number });
        self.pump_soon(slot, lane);
    }

    /// Something was written: those who watch will see it.
    pub(crate) fn spread_news(&mut self) {
        for lane in 0..LANES {
            if std::mem::take(&mut self.api.news[lane]) {
                for slot in 0..self.slots.len() {
                    self.pump_soon(slot, lane);
                }
            }
        }
    }

    fn pump_soon(&mut self, slot: usize, lane: usize) {
        let Some(process) = &mut self.slots[slot].process else { return };
        let watch = &mut process.watches[lane];
        if !watch.streaming || watch.pumping {
            return;
        }
        let Some(entry) = self.api.lanes[lane].get(watch.position) else { return };
        watch.pumping = true;
        let shown = self.caches[watch.cache].shows(entry.at);
        let (life, number) = (process.life, watch.number);
        let at = shown.max(self.now) + self.latency(slot);
        self.queue.push(at, Occurrence::Pump { slot, life, lane, number });
    }

    /// A watch shows what its cache has. With `bookmark`, also how far it is.
    pub(crate) fn pump(&mut self, slot: usize, lane: usize, number: u32, bookmark: bool) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let watch = &mut process.watches[lane];
        if watch.number != number || !watch.streaming {
            return;
        }
        let idle = if lane < Kind::COUNT { 80 * SECONDS } else { 25 * SECONDS };
        let cut = self.network.cut_until(now, End::Api(watch.cache as u8), End::Replica(slot as u8));
        if cut > now {
            // Nothing gets through: either it heals, or the silence is too long.
            let broken = watch.last + idle;
            if now >= broken {
                return self.watch_ended(slot, lane, Ended::Broken(Refusal::Timeout));
            }
            let at = cut.min(broken);
            self.queue.push(
                at,
                if bookmark {
                    Occurrence::Bookmark { slot, life, lane, number }
                } else {
                    Occurrence::Pump { slot, life, lane, number }
                },
            );
            return;
        }
        if !bookmark {
            watch.pumping = false;
        }
        let cache = self.caches[watch.cache];
        if watch.position < self.api.lanes[lane].first() {
            // It lags behind what is remembered.
            return self.watch_ended(slot, lane, Ended::Broken(Refusal::Gone));
        }
        let mut events = Vec::new();
        let before = watch.position;
        while let Some(entry) = self.api.lanes[lane].get(watch.position) {
            if cache.shows(entry.at) > now {
                break;
            }
            watch.position += 1;
            watch.resume = Some(entry.revision);
            watch.highest = watch.highest.max(entry.revision);
            let revision = Revision(entry.revision);
            match &entry.change {
                Change::Object(object) => {
                    if let Some(admission) = &mut process.admission {
                        admission.changed(object);
                    }
                    process.engine.changed(object.clone());
                }
                Change::Gone(place) => {
                    let (kind, key) = (Kind::ALL[lane], self.universe.key(*place));
                    if let Some(admission) = &mut process.admission {
                        admission.gone(kind, key);
                    }
                    process.engine.deleted(kind, key, revision);
                }
                _ => events.extend(event_of(entry)),
            }
        }
        let shown = watch.position - before;
        self.stats.add(Count::WatchEvents, shown);
        watch.told += shown;
        if shown > 0 || bookmark {
            watch.last = now;
        }
        if bookmark {
            let next = now + BOOKMARKS;
            self.queue.push(next, Occurrence::Bookmark { slot, life, lane, number });
            if self.api.lanes[lane].get(watch.position).is_none() && cache.frozen_until <= now {
                // Nothing of this kind was written up to here.
                watch.told += 1;
                watch.resume = Some(self.api.revision);
                process.engine.bookmark(Kind::ALL[lane], Revision(self.api.revision));
            }
        }
        for event in events {
            self.coordinate(slot, event);
        }
        self.pump_soon(slot, lane);
        if lane < Kind::COUNT {
            self.set_timer(slot);
        }
    }

    /// The server ends a watch.
    pub(crate) fn watch_ends(&mut self, slot: usize, lane: usize, number: u32) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        let watch = &process.watches[lane];
        if watch.number != number || !watch.streaming {
            return;
        }
        let cut = self.network.cut_until(now, End::Api(watch.cache as u8), End::Replica(slot as u8));
        let idle = if lane < Kind::COUNT { 80 * SECONDS } else { 25 * SECONDS };
        if cut > now && now < watch.last + idle {
            let life = process.life;
            let at = cut.min(watch.last + idle);
            self.queue.push(at, Occurrence::WatchEnds { slot, life, lane, number });
            return;
        }
        let ended = if cut > now { Ended::Broken(Refusal::Timeout) } else { Ended::InOrder };
        self.watch_ended(slot, lane, ended);
    }

    /// The connection of a watch breaks.
    pub(crate) fn break_watch(&mut self, slot: usize, lane: usize) {
        let streaming = self.slots[slot].process.as_ref().is_some_and(|p| p.watches[lane].streaming);
        if streaming {
            self.watch_ended(slot, lane, Ended::Broken(Refusal::Failed));
        }
    }

    /// The API server behind a cache goes away: all its watches break.
    pub(crate) fn break_watches_of(&mut self, cache: usize) {
        for slot in 0..self.slots.len() {
            for lane in 0..LANES {
                let reads = self.slots[slot].process.as_ref().is_some_and(|p| p.watches[lane].cache == cache);
                if reads {
                    self.break_watch(slot, lane);
                }
            }
        }
    }

    fn watch_ended(&mut self, slot: usize, lane: usize, ended: Ended) {
        let now = self.now;
        let Some(process) = &mut self.slots[slot].process else { return };
        let life = process.life;
        let watch = &mut process.watches[lane];
        watch.streaming = false;
        watch.pumping = false;
        watch.number += 1;
        let number = watch.number;
        let lasted = now.saturating_sub(watch.opened);
        // The first and longest pause, and what counts as having worked.
        let kinds = lane < Kind::COUNT;
        let (first, longest) = if kinds { (200 * MILLIS, 5 * SECONDS) } else { (100 * MILLIS, 3 * SECONDS) };
        let asked = match ended {
            Ended::InOrder if lasted > SECONDS => {
                watch.failures = 0;
                return self.follow(slot, lane);
            }
            Ended::InOrder => 0,
            Ended::Broken(refusal) => {
                if refusal == Refusal::Gone || !kinds {
                    // Coordination always starts over from a list.
                    watch.resume = None;
                }
                if let Refusal::Throttled(seconds) = refusal { seconds * SECONDS } else { 0 }
            }
        };
        let worked = watch.told > 0 || lasted > longest;
        watch.failures = if worked { 0 } else { watch.failures + 1 };
        let pause = (first << watch.failures.min(10)).min(longest);
        let pause = self.slots[slot].dice.between(pause / 2, pause).max(if kinds { asked } else { 0 });
        self.queue.push(now + pause, Occurrence::Follow { slot, life, lane, number });
        if let Ended::Broken(Refusal::Behind(seen)) = ended {
            self.doubt(slot, Doubt::Behind(seen));
        }
    }

    /// A tick of a replica's coordinator, when it is due.
    pub(crate) fn tick(&mut self, slot: usize) {
        let now = self.now;
        let Some(process) = &self.slots[slot].process else { return };
        let due = process.coordinator_due.is_some_and(|due| due <= process.local(now));
        if due {
            self.coordinate(slot, Event::Tick);
        }
    }
}
