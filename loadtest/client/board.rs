//! Which change has reached which gateway, and how long that took.
//!
//! A change is an object's generation. It has reached a gateway when that one
//! holds this generation or a later one: what was overtaken need not be sent.
//! Its time runs from the moment at which the API server answered the write.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::holdings::ByKey;

/// An hour, in microseconds.
const LONGEST: u64 = 3_600_000_000;

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
#[derive(Debug, Clone)]
pub struct Tally {
    /// To the first gateway.
    pub first: Histogram<u64>,
    /// To the median gateway.
    pub median: Histogram<u64>,
    /// To the last gateway.
    pub last: Histogram<u64>,
    /// To the last acknowledgement that was answered.
    pub acknowledged: Histogram<u64>,
    /// To the last gateway of those whose stream was not interrupted meanwhile.
    pub stayed: Histogram<u64>,
    /// To the status that says so.
    pub ready: Histogram<u64>,
    /// How long gateways were without a stream.
    pub away: Histogram<u64>,
    /// From a stream's beginning until the gateway had what had been written
    /// before that.
    pub caught_up: Histogram<u64>,
    /// Each change.
    pub course: Vec<Way>,
    /// Changes that were written and counted.
    pub changes: u64,
    /// Changes that have not reached every gateway.
    pub open: usize,
}

/// How one change went.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// When its write was answered.
    pub answered: Duration,
    /// From there to the last gateway.
    pub last: Duration,
    /// From there to the status that says Ready, where statuses are followed.
    pub ready: Option<Duration>,
}

/// How a gateway's streams came and went.
#[derive(Default)]
struct Connections {
    /// From the loss of a stream to the next one.
    gaps: Vec<(Duration, Option<Duration>)>,
    /// When the stream began, until it has what was written before.
    catching_up: Option<Duration>,
}

impl Connections {
    fn interrupted(&self, from: Duration, to: Duration) -> bool {
        self.gaps.iter().any(|(lost, back)| *lost <= to && back.is_none_or(|back| back >= from))
    }
}

struct Inner {
    gateways: Vec<Connections>,
    changes: ByKey<Vec<Change>>,
    deleted: ByKey<()>,
    tally: Tally,
    watch_status: bool,
}

impl Tally {
    fn new() -> Self {
        // Three digits are more than such a measurement is worth. What takes longer
        // than the longest counts as that: a histogram that resizes itself would
        // put it at its present end instead.
        let histogram = || {
            Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|_| unreachable!("these are allowed"))
        };
        Tally {
            first: histogram(),
            median: histogram(),
            last: histogram(),
            acknowledged: histogram(),
            stayed: histogram(),
            ready: histogram(),
            away: histogram(),
            caught_up: histogram(),
            course: Vec::new(),
            changes: 0,
            open: 0,
        }
    }
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
        Board {
            origin: Instant::now(),
            inner: Mutex::new(Inner {
                gateways: std::iter::repeat_with(Connections::default).take(gateways).collect(),
                changes: ByKey::default(),
                deleted: ByKey::default(),
                tally: Tally::new(),
                watch_status,
            }),
        }
    }

    /// Forgets what was measured so far.
    pub fn begin_anew(&self) {
        self.with(|inner| inner.tally = Tally::new());
    }

    /// A gateway has lost its stream.
    pub fn lost(&self, gateway: usize, at: Duration) {
        self.with(|inner| {
            let connections = &mut inner.gateways[gateway];
            connections.catching_up = None;
            connections.gaps.push((at, None));
        });
    }

    /// A gateway has a stream, the first or another one.
    pub fn connected(&self, gateway: usize, at: Duration) {
        self.with(|inner| {
            let connections = &mut inner.gateways[gateway];
            // The first one is no return.
            let Some((lost, back @ None)) = connections.gaps.last_mut() else { return };
            *back = Some(at);
            inner.tally.away.saturating_record((at - *lost).as_micros() as u64);
            connections.catching_up = Some(at);
            inner.look_whether_caught_up(gateway, at);
        });
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
            inner.tally.changes += u64::from(measured);
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
            if let [(key, generation)] = taken {
                inner.change(*key, *generation);
            }
            for (key, generation) in taken {
                inner.reached(*key, *generation, |change| change.applied[gateway].get_or_insert(at));
            }
            inner.look_whether_caught_up(gateway, at);
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

    /// What is missing to those, in words.
    pub fn lacking(&self) -> Vec<String> {
        self.with(|inner| {
            let words = |change: &Change| {
                let none = |of: &[Option<Duration>]| of.iter().filter(|at| at.is_none()).count();
                let (away, silent) = (none(&change.applied), none(&change.acknowledged));
                let status = if change.ready.is_some() { "" } else { ", no status Ready" };
                let generation = change.generation;
                format!(
                    "generation {generation}: {away} gateways lack it, {silent} did not acknowledge it{status}"
                )
            };
            inner.changes.values().flatten().filter(|change| change.answered.is_some()).map(words).collect()
        })
    }

    /// What was measured so far.
    pub fn tally(&self) -> Tally {
        self.with(|inner| Tally { open: inner.open(), ..inner.tally.clone() })
    }
}

impl Inner {
    fn open(&self) -> usize {
        self.changes.values().flatten().filter(|change| change.answered.is_some()).count()
    }

    fn change(&mut self, key: u64, generation: u64) -> &mut Change {
        let gateways = self.gateways.len();
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

    /// A gateway that came back has caught up when it has all that was answered
    /// before its return.
    fn look_whether_caught_up(&mut self, gateway: usize, at: Duration) {
        let Some(back) = self.gateways[gateway].catching_up else { return };
        let lacks = |change: &Change| {
            change.applied[gateway].is_none() && change.answered.is_some_and(|answered| answered <= back)
        };
        if !self.changes.values().flatten().any(lacks) {
            self.gateways[gateway].catching_up = None;
            self.tally.caught_up.saturating_record((at - back).as_micros() as u64);
        }
    }

    /// Moves what is finished into the histograms.
    fn settle(&mut self, key: u64) {
        let Self { gateways, changes, tally, watch_status, .. } = self;
        let Some(changes) = changes.get_mut(&key) else { return };
        let finished = |change: &Change| {
            change.answered.is_some()
                && change.acknowledged.iter().all(Option::is_some)
                && (change.ready.is_some() || !*watch_status || !change.measured)
        };
        for change in changes.extract_if(.., |change| finished(change)) {
            let Some(answered) = change.answered.filter(|_| change.measured) else { continue };
            let since = |at: Duration| at.saturating_sub(answered).as_micros() as u64;
            let mut applied: Vec<u64> = change.applied.iter().flatten().copied().map(since).collect();
            applied.sort_unstable();
            let acknowledged = change.acknowledged.iter().flatten().copied().map(since).max();
            let last = applied.last().copied().unwrap_or(0);
            tally.first.saturating_record(applied.first().copied().unwrap_or(0));
            tally.median.saturating_record(applied.get(applied.len() / 2).copied().unwrap_or(0));
            tally.last.saturating_record(last);
            tally.acknowledged.saturating_record(acknowledged.unwrap_or(0));
            let ready = change.ready.map(|ready| ready.saturating_sub(answered));
            tally.course.push(Way { answered, last: Duration::from_micros(last), ready });
            if let Some(ready) = change.ready {
                tally.ready.saturating_record(since(ready));
            }
            let stayed = change
                .applied
                .iter()
                .zip(&*gateways)
                .filter_map(|(at, gateway)| at.filter(|at| !gateway.interrupted(answered, *at)));
            if let Some(last) = stayed.max() {
                tally.stayed.saturating_record(since(last));
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
    fn long_times_are_measured_as_what_they_are() {
        let board = Board::new(1, false);
        board.written(7, 2, at(0), true);
        take(&board, 0, 2, 40_000_000);
        let last = board.tally().last;
        assert!((39_900_000..=40_100_000).contains(&last.max()), "{}", last.max());
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
    fn what_came_before_the_first_answer_does_not_hide_what_comes_before_the_next() {
        let board = Board::new(1, false);
        // Of a snapshot that did not fit into one message: nobody waits for it.
        take(&board, 0, 1, 50);
        take(&board, 0, 2, 90);
        board.written(7, 2, at(100), true);
        assert_eq!((board.tally().changes, board.open()), (1, 0), "{:?}", board.lacking());
    }

    #[test]
    fn a_gateway_that_was_away_counts_among_all_and_not_among_those_that_stayed() {
        let board = Board::new(2, false);
        board.connected(0, at(10));
        board.connected(1, at(10));
        board.lost(1, at(90));
        board.written(7, 2, at(100), true);
        take(&board, 0, 2, 110);
        board.connected(1, at(1090));
        take(&board, 1, 2, 1100);
        let tally = board.tally();
        assert_eq!((tally.last.max(), tally.stayed.max()), (1000, 10));
        assert_eq!((tally.away.len(), tally.away.max()), (1, 1000));
        assert_eq!((tally.caught_up.len(), tally.caught_up.max()), (1, 10));
        board.begin_anew();
        assert_eq!(board.tally().changes, 0);
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
