//! Which change has reached which gateway, and how long that took.
//!
//! A change is an object's generation. It has reached a gateway when that one
//! holds this generation or a later one: what was overtaken need not be sent.
//! Its time runs from the moment at which the API server answered the write.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::holdings::ByKey;

/// A change that is on its way.
struct Change {
    generation: u64,
    /// When the write was answered; `None` when gateways were faster.
    answered: Option<Duration>,
    /// When it came to each gateway, and when that one's acknowledgement was
    /// answered.
    applied: Vec<Option<Duration>>,
    acknowledged: Vec<Option<Duration>>,
    ready: Option<Duration>,
    /// Whether it counts: what is written to furnish the cluster does not.
    measured: bool,
}

/// Everything that a run has measured about changes. Histograms are in
/// microseconds.
pub struct Tally {
    /// To the first gateway.
    pub first: Histogram<u64>,
    /// To the median gateway.
    pub median: Histogram<u64>,
    /// To the last gateway.
    pub last: Histogram<u64>,
    /// To the last acknowledgement that was answered.
    pub acknowledged: Histogram<u64>,
    /// To the status that says so.
    pub ready: Histogram<u64>,
    /// Changes that were written and counted.
    pub changes: u64,
    /// Changes that have not reached every gateway.
    pub open: usize,
}

struct Inner {
    gateways: usize,
    changes: ByKey<Vec<Change>>,
    deleted: ByKey<()>,
    first: Histogram<u64>,
    median: Histogram<u64>,
    last: Histogram<u64>,
    acknowledged: Histogram<u64>,
    ready: Histogram<u64>,
    count: u64,
    watch_status: bool,
}

/// The board that writers, gateways and the observer of statuses write on.
pub struct Board {
    origin: Instant,
    inner: Mutex<Inner>,
}

impl Board {
    /// A board for so many gateways. `watch_status` says whether changes are
    /// followed until their status is written.
    pub fn new(gateways: usize, watch_status: bool) -> Self {
        // Three digits are more than such a measurement is worth.
        let histogram = || Histogram::new(3).unwrap_or_else(|_| unreachable!("3 digits are allowed"));
        Board {
            origin: Instant::now(),
            inner: Mutex::new(Inner {
                gateways,
                changes: ByKey::default(),
                deleted: ByKey::default(),
                first: histogram(),
                median: histogram(),
                last: histogram(),
                acknowledged: histogram(),
                ready: histogram(),
                count: 0,
                watch_status,
            }),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Inner) -> R) -> R {
        work(&mut self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The time of now.
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// A write was answered with this generation. `measured`: it counts.
    pub fn written(&self, key: u64, generation: u64, at: Duration, measured: bool) {
        self.with(|inner| {
            let change = inner.change(key, generation);
            change.answered = Some(at);
            change.measured = measured;
            inner.count += u64::from(measured);
            inner.settle(key);
        });
    }

    /// A tenant is about to delete an object.
    pub fn deleting(&self, key: u64) {
        self.with(|inner| {
            inner.deleted.insert(key, ());
            // Nobody gets it any more.
            inner.changes.remove(&key);
        });
    }

    /// Whether a tenant deleted an object.
    pub fn deletion_was_asked(&self, key: u64) -> bool {
        self.with(|inner| inner.deleted.contains_key(&key))
    }

    /// A gateway has taken resources in.
    pub fn applied(&self, gateway: usize, taken: &[(u64, u64)], at: Duration) {
        self.with(|inner| {
            // Gateways may be faster than the writer's answer. A snapshot is no
            // news of any one object.
            if let [(key, generation)] = taken
                && !inner.changes.contains_key(key)
            {
                inner.change(*key, *generation);
            }
            for (key, generation) in taken {
                inner.reached(*key, *generation, |change| change.applied[gateway].get_or_insert(at));
            }
        });
    }

    /// A gateway's acknowledgement of resources was answered.
    pub fn acknowledged(&self, gateway: usize, taken: &[(u64, u64)], at: Duration) {
        self.with(|inner| {
            for (key, generation) in taken {
                inner.reached(*key, *generation, |change| change.acknowledged[gateway].get_or_insert(at));
                inner.settle(*key);
            }
        });
    }

    /// A status says that a generation is Ready.
    pub fn ready(&self, key: u64, generation: u64, at: Duration) {
        self.with(|inner| {
            for change in inner.changes.get_mut(&key).into_iter().flatten() {
                if change.generation <= generation {
                    change.ready.get_or_insert(at);
                }
            }
            inner.settle(key);
        });
    }

    /// Changes that are not everywhere yet.
    pub fn open(&self) -> usize {
        self.with(|inner| inner.open())
    }

    /// What was measured so far.
    pub fn tally(&self) -> Tally {
        self.with(|inner| Tally {
            first: inner.first.clone(),
            median: inner.median.clone(),
            last: inner.last.clone(),
            acknowledged: inner.acknowledged.clone(),
            ready: inner.ready.clone(),
            changes: inner.count,
            open: inner.open(),
        })
    }
}

impl Inner {
    fn open(&self) -> usize {
        self.changes.values().flatten().filter(|change| change.answered.is_some()).count()
    }

    fn change(&mut self, key: u64, generation: u64) -> &mut Change {
        let gateways = self.gateways;
        let changes = self.changes.entry(key).or_default();
        let place = changes.iter().position(|change| change.generation == generation).unwrap_or_else(|| {
            changes.push(Change {
                generation,
                answered: None,
                applied: vec![None; gateways],
                acknowledged: vec![None; gateways],
                ready: None,
                measured: false,
            });
            changes.len() - 1
        });
        &mut changes[place]
    }

    fn reached(&mut self, key: u64, generation: u64, mark: impl Fn(&mut Change) -> &mut Duration) {
        for change in self.changes.get_mut(&key).into_iter().flatten() {
            if change.generation <= generation {
                mark(change);
            }
        }
    }

    /// Moves what is finished into the histograms.
    fn settle(&mut self, key: u64) {
        let Some(changes) = self.changes.get_mut(&key) else { return };
        let finished = |change: &Change| {
            change.answered.is_some()
                && change.acknowledged.iter().all(Option::is_some)
                && (change.ready.is_some() || !self.watch_status || !change.measured)
        };
        for change in changes.extract_if(.., |change| finished(change)) {
            let Some(answered) = change.answered.filter(|_| change.measured) else { continue };
            let since = |at: Duration| at.saturating_sub(answered).as_micros() as u64;
            let mut applied: Vec<u64> = change.applied.iter().flatten().copied().map(since).collect();
            applied.sort_unstable();
            let acknowledged = change.acknowledged.iter().flatten().copied().map(since).max();
            self.first.saturating_record(applied.first().copied().unwrap_or(0));
            self.median.saturating_record(applied.get(applied.len() / 2).copied().unwrap_or(0));
            self.last.saturating_record(applied.last().copied().unwrap_or(0));
            self.acknowledged.saturating_record(acknowledged.unwrap_or(0));
            if let Some(ready) = change.ready {
                self.ready.saturating_record(since(ready));
            }
        }
        if changes.is_empty() {
            self.changes.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn take(board: &Board, gateway: usize, generation: u64, micros: u64) {
        board.applied(gateway, &[(7, generation)], at(micros));
        board.acknowledged(gateway, &[(7, generation)], at(micros + 5));
    }

    #[test]
    fn a_change_is_measured_from_its_answer_to_each_gateway() {
        let board = Board::new(3, false);
        board.written(7, 2, at(100), true);
        for (gateway, micros) in [(0, 110), (1, 120), (2, 150)] {
            assert_eq!(board.open(), 1);
            take(&board, gateway, 2, micros);
        }
        let tally = board.tally();
        assert_eq!((tally.changes, tally.open), (1, 0));
        assert_eq!((tally.first.max(), tally.median.max(), tally.last.max()), (10, 20, 50));
        assert_eq!(tally.acknowledged.max(), 55);
    }

    #[test]
    fn a_later_generation_counts_for_those_that_it_overtook() {
        let board = Board::new(1, false);
        board.written(7, 2, at(100), true);
        board.written(7, 3, at(110), true);
        take(&board, 0, 3, 200);
        assert_eq!((board.tally().last.len(), board.open()), (2, 0));
    }

    #[test]
    fn gateways_may_be_faster_than_the_answer() {
        let board = Board::new(1, false);
        take(&board, 0, 2, 90);
        assert_eq!(board.open(), 0);
        board.written(7, 2, at(100), true);
        assert_eq!((board.tally().last.max(), board.open()), (0, 0));
    }

    #[test]
    fn with_statuses_a_change_is_open_until_its_status_is_there() {
        let board = Board::new(1, true);
        board.written(7, 2, at(100), true);
        take(&board, 0, 2, 110);
        assert_eq!(board.open(), 1);
        board.ready(7, 1, at(120));
        assert_eq!(board.open(), 1);
        board.ready(7, 2, at(130));
        assert_eq!((board.open(), board.tally().ready.max()), (0, 30));
    }
}
