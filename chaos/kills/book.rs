//! Which change reached which gateway when. Pure: it is fed with what tenants
//! did, what gateways applied, and how gateways stood to their replicas.
//!
//! A change's way to a gateway counts as *connected* when the gateway had its
//! stream before the change was answered and kept it until it had the change.
//! All other ways contain a gateway's own wait before it dials again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_core::ids::Kind;

/// Kind and `namespace/name`.
pub type ObjectId = (Kind, String);

/// What a change wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// This generation, or a later one.
    Generation(i64),
    /// That it is gone.
    Gone,
}

/// What one gateway was last heard to have of an object: `None` for nothing.
#[derive(Debug, Clone, Copy)]
struct Seen {
    generation: Option<i64>,
    at: Instant,
}

#[derive(Debug)]
struct Change {
    answered: Instant,
    goal: Goal,
    phase: usize,
    waiting: BTreeSet<usize>,
    connected: Option<Duration>,
    slowest: Duration,
}

#[derive(Debug, Default)]
struct Object {
    seen: BTreeMap<usize, Seen>,
    /// A tenant deleted it, or is about to.
    deleted: bool,
    open: Vec<Change>,
}

#[derive(Debug)]
struct Reconnect {
    replica: String,
    attempted: Instant,
    /// From when on both it was attempted and the replica ran.
    running: Instant,
    streaming: Instant,
    in_sync: Instant,
    phase: usize,
}

/// A reconnect that took long.
#[derive(Debug, Clone)]
pub struct Slow {
    /// From the attempt until the gateway was in sync.
    pub took: Duration,
    /// Of that, until its stream was open.
    pub streaming: Duration,
    /// The gateway's number.
    pub gateway: usize,
    /// The replica that it came to.
    pub replica: String,
    /// When it was in sync.
    pub at: Instant,
}

/// What was measured in one phase of a run.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Per change: until the last gateway that stayed connected had it.
    pub connected: Vec<Duration>,
    /// Per change: until the last gateway had it.
    pub everywhere: Vec<Duration>,
    /// Per reconnect: from the attempt to connect that succeeded until the
    /// gateway had everything that was answered before its stream began.
    pub in_sync: Vec<Duration>,
    /// Of that, until its stream was open.
    pub streaming: Vec<Duration>,
    /// The same as `in_sync` without the time in which the replica stood still that the
    /// gateway came to.
    pub in_sync_running: Vec<Duration>,
    /// Reconnects that were cut short by the next loss.
    pub interrupted: usize,
    /// The slowest reconnects, the slowest first.
    pub slowest: Vec<Slow>,
}

/// So many slow reconnects are told of a phase.
const SLOWEST: usize = 10;

/// The book.
#[derive(Debug)]
pub struct Book {
    gateways: usize,
    objects: BTreeMap<ObjectId, Object>,
    open: BTreeSet<ObjectId>,
    streaming: Vec<Option<Instant>>,
    /// When a replica that had stood still went on last.
    woke: BTreeMap<String, Instant>,
    reconnects: BTreeMap<usize, Reconnect>,
    phase: usize,
    measured: Vec<Measured>,
    /// Changes that were made.
    pub changes: usize,
    /// Removals that nobody asked for.
    pub spurious: Vec<String>,
    /// Objects that went back to an older generation.
    pub regressed: Vec<String>,
}

impl Book {
    /// For so many gateways and phases.
    pub fn new(gateways: usize, phases: usize) -> Self {
        Book {
            gateways,
            objects: BTreeMap::new(),
            open: BTreeSet::new(),
            streaming: vec![None; gateways],
            woke: BTreeMap::new(),
            reconnects: BTreeMap::new(),
            phase: 0,
            measured: vec![Measured::default(); phases],
            changes: 0,
            spurious: Vec::new(),
            regressed: Vec::new(),
        }
    }

    /// A replica that stood still goes on at this moment.
    pub fn wakes(&mut self, replica: &str, at: Instant) {
        self.woke.insert(replica.to_owned(), at);
    }

    /// From now on everything belongs to this phase.
    pub fn enter(&mut self, phase: usize) {
        self.phase = phase;
    }

    /// What was measured, by phase.
    pub fn measured(&mut self) -> &[Measured] {
        for gateway in 0..self.gateways {
            self.close(gateway);
        }
        &self.measured
    }

    /// A tenant is about to delete the object.
    pub fn deleting(&mut self, id: &ObjectId) {
        let object = self.objects.entry(id.clone()).or_default();
        object.deleted = true;
        // A gateway that was away need never hear of what came and went.
        object.open.clear();
        self.open.remove(id);
    }

    /// A change was answered at this moment.
    pub fn changed(&mut self, id: &ObjectId, goal: Goal, answered: Instant) {
        self.changes += 1;
        let object = self.objects.entry(id.clone()).or_default();
        let has = |gateway: &usize| object.seen.get(gateway).is_some_and(|seen| seen.generation.is_some());
        let waiting = match goal {
            Goal::Generation(_) => (0..self.gateways).collect(),
            Goal::Gone => (0..self.gateways).filter(has).collect(),
        };
        let mut change =
            Change { answered, goal, phase: self.phase, waiting, connected: None, slowest: Duration::ZERO };
        for (gateway, seen) in &object.seen {
            change.settle(*gateway, *seen, self.streaming[*gateway]);
        }
        if change.waiting.is_empty() {
            self.measured[change.phase].take(&change);
        } else {
            object.open.push(change);
            self.open.insert(id.clone());
        }
    }

    /// How a gateway stands: with which replica its stream was opened and when, and when
    /// the attempt to register before that began.
    pub fn stream(&mut self, gateway: usize, replica: &str, attempted: Instant, streaming: Instant) {
        let before = self.streaming[gateway].replace(streaming);
        if before.is_none_or(|before| before == streaming) {
            return;
        }
        self.close(gateway);
        let phase = self.phase;
        let woke = self.woke.get(replica).filter(|at| **at <= streaming);
        let running = woke.map_or(attempted, |woke| attempted.max(*woke));
        let replica = replica.to_owned();
        let reconnect = Reconnect { replica, attempted, running, streaming, in_sync: streaming, phase };
        self.reconnects.insert(gateway, reconnect);
    }

    /// Accounts for a gateway's last reconnect.
    fn close(&mut self, gateway: usize) {
        let Some(reconnect) = self.reconnects.remove(&gateway) else { return };
        let lacks =
            |change: &Change| change.answered <= reconnect.streaming && change.waiting.contains(&gateway);
        let lacking =
            self.open.iter().filter_map(|id| self.objects.get(id)).any(|o| o.open.iter().any(lacks));
        let measured = &mut self.measured[reconnect.phase];
        if lacking {
            measured.interrupted += 1;
        } else {
            let took = reconnect.in_sync - reconnect.attempted;
            let streaming = reconnect.streaming - reconnect.attempted;
            measured.in_sync.push(took);
            measured.in_sync_running.push(reconnect.in_sync - reconnect.running);
            measured.streaming.push(streaming);
            let slow = Slow { took, streaming, gateway, replica: reconnect.replica, at: reconnect.in_sync };
            let place = measured.slowest.partition_point(|other| other.took >= took);
            measured.slowest.insert(place, slow);
            measured.slowest.truncate(SLOWEST);
        }
    }

    /// A gateway applied something: a generation, or with `None` a removal.
    pub fn applied(&mut self, gateway: usize, id: &ObjectId, generation: Option<i64>, at: Instant) {
        let object = self.objects.entry(id.clone()).or_default();
        let seen = Seen { generation, at };
        let before = object.seen.insert(gateway, seen).and_then(|seen| seen.generation);
        if generation.is_none() && !object.deleted {
            self.spurious.push(format!("{} {} at gateway {gateway}", id.0, id.1));
        }
        if generation.is_some() && generation < before {
            self.regressed.push(format!("{} {} at gateway {gateway}", id.0, id.1));
        }
        let streaming = self.streaming[gateway];
        for change in &mut object.open {
            if change.settle(gateway, seen, streaming)
                && let Some(reconnect) = self.reconnects.get_mut(&gateway)
                && change.answered <= reconnect.streaming
            {
                reconnect.in_sync = reconnect.in_sync.max(at);
            }
        }
        let (done, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut object.open).into_iter().partition(|change| change.waiting.is_empty());
        done.iter().for_each(|change| self.measured[change.phase].take(change));
        object.open = open;
        if object.open.is_empty() {
            self.open.remove(id);
        }
    }

    /// Changes answered before this moment that some gateway lacks, in words.
    pub fn lacking(&self, before: Instant) -> Vec<String> {
        let mut lacking = Vec::new();
        for id in &self.open {
            for change in self.objects.get(id).into_iter().flat_map(|object| &object.open) {
                if change.answered < before {
                    let gateways: Vec<_> = change.waiting.iter().take(5).collect();
                    lacking.push(format!(
                        "{} {} {:?} at {} gateways: {gateways:?}",
                        id.0,
                        id.1,
                        change.goal,
                        change.waiting.len()
                    ));
                }
            }
        }
        lacking
    }
}

impl Change {
    /// Takes what a gateway has into account; true if that is what it waited for.
    fn settle(&mut self, gateway: usize, seen: Seen, streaming: Option<Instant>) -> bool {
        let has_it = match (self.goal, seen.generation) {
            (Goal::Generation(wanted), Some(has)) => has >= wanted,
            (Goal::Gone, None) => true,
            _ => false,
        };
        if !has_it || !self.waiting.remove(&gateway) {
            return false;
        }
        // It may be heard of before the API server's answer.
        let took = seen.at.saturating_duration_since(self.answered);
        self.slowest = self.slowest.max(took);
        if streaming.is_some_and(|since| since <= self.answered) {
            self.connected = self.connected.max(Some(took));
        }
        true
    }
}

impl Measured {
    fn take(&mut self, change: &Change) {
        self.connected.extend(change.connected);
        self.everywhere.push(change.slowest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ObjectId {
        (Kind::ApiRoute, "n/a".to_owned())
    }

    fn millis(all: &[Duration]) -> Vec<u128> {
        all.iter().map(Duration::as_millis).collect()
    }

    /// Milliseconds after a moment.
    fn moments() -> impl Fn(u64) -> Instant {
        let start = Instant::now();
        move |millis| start + Duration::from_millis(millis)
    }

    #[test]
    fn only_gateways_that_kept_their_stream_count_as_connected() {
        let at = moments();
        let mut book = Book::new(2, 1);
        book.stream(0, "r0", at(0), at(1));
        book.stream(1, "r0", at(0), at(1));
        book.changed(&id(), Goal::Generation(2), at(100));
        book.applied(0, &id(), Some(2), at(130));
        assert_eq!(book.lacking(at(101)).len(), 1);
        // The other one lost its stream and dialled again.
        book.stream(1, "r0", at(1100), at(1110));
        book.applied(1, &id(), Some(2), at(1150));
        assert!(book.lacking(at(5000)).is_empty());
        let measured = book.measured()[0].clone();
        assert_eq!(millis(&measured.connected), [30]);
        assert_eq!(millis(&measured.everywhere), [1050]);
        assert_eq!(millis(&measured.in_sync), [50]);
        assert_eq!(millis(&measured.streaming), [10]);
    }

    #[test]
    fn what_a_replica_stands_still_for_is_told_apart() {
        let at = moments();
        let mut book = Book::new(1, 1);
        book.stream(0, "r0", at(0), at(1));
        book.wakes("r1", at(3000));
        book.stream(0, "r1", at(1000), at(3030));
        book.wakes("r1", at(9000));
        book.stream(0, "r1", at(9100), at(9110));
        let measured = book.measured()[0].clone();
        assert_eq!(millis(&measured.in_sync), [2030, 10]);
        assert_eq!(millis(&measured.in_sync_running), [30, 10]);
    }

    #[test]
    fn a_reconnect_without_news_is_in_sync_when_its_stream_is_open() {
        let at = moments();
        let mut book = Book::new(1, 1);
        book.stream(0, "r0", at(0), at(1));
        book.stream(0, "r0", at(1000), at(1020));
        book.stream(0, "r0", at(1000), at(1020));
        book.changed(&id(), Goal::Generation(1), at(2000));
        book.applied(0, &id(), Some(1), at(2010));
        book.changed(&id(), Goal::Generation(2), at(2500));
        book.stream(0, "r0", at(3000), at(3030));
        book.stream(0, "r0", at(5000), at(5010));
        assert_eq!(book.measured()[0].interrupted, 2, "the last change never came");
        assert_eq!(millis(&book.measured()[0].in_sync), [20]);
    }

    #[test]
    fn what_nobody_asked_for_is_named() {
        let now = Instant::now();
        let mut book = Book::new(1, 1);
        book.changed(&id(), Goal::Generation(3), now);
        book.applied(0, &id(), Some(3), now);
        book.applied(0, &id(), Some(2), now);
        assert_eq!(book.regressed.len(), 1);
        book.applied(0, &id(), None, now);
        assert_eq!(book.spurious.len(), 1);
        book.deleting(&id());
        book.applied(0, &id(), None, now);
        assert_eq!(book.spurious.len(), 1);
    }
}
