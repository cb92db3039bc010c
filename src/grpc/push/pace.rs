//! How many updates go in one call of a gateway that takes batches.
//!
//! A call has to be through within its time-out, or its session ends, and the next one
//! begins with the same updates again. What one update takes is known from the calls
//! before, so a call gets no more than are expected to take a quarter of the time-out.
//! A call that was late was half too large, whatever was expected, and no call gets more
//! than that half before a batch has got through: a session that ends within a batch has
//! gained nothing. Kept for as long as
//! the gateway is dialled, over its sessions: otherwise each of them would learn it by
//! being lost.

use std::time::Duration;

/// Updates of the first call, of which nothing is known.
const FIRST: usize = 32;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// How long a call is to take.
    aim: Duration,
    /// What is expected to fit.
    most: usize,
    /// What a call may have whatever is expected, since one was late.
    ceiling: usize,
    /// A snapshot was late: it goes resource by resource, until one got through.
    snapshot_was_late: bool,
}

impl Pace {
    /// For calls that may take `patience`.
    pub fn new(patience: Duration) -> Self {
        Pace { aim: patience / 4, most: FIRST, ceiling: usize::MAX, snapshot_was_late: false }
    }

    /// How many updates a call may have, at least one.
    pub fn most(&self) -> usize {
        self.most.min(self.ceiling)
    }

    /// A call of so many updates took so long. Few of them say little about many, so it
    /// is at most doubled.
    pub fn took(&mut self, updates: usize, took: Duration) {
        let Some(each) = took.as_nanos().checked_div(updates as u128) else { return };
        let fitting = self.aim.as_nanos().checked_div(each).unwrap_or(u128::MAX);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        self.most = fitting.min(self.most.max(updates.saturating_mul(2))).max(1);
    }

    /// Whether a snapshot may go in one call.
    pub fn takes_snapshots(&self) -> bool {
        !self.snapshot_was_late
    }

    /// A snapshot went resource by resource.
    pub fn got_through(&mut self) {
        self.snapshot_was_late = false;
    }

    /// A call of so many updates did not end in time; `snapshot`: with one as its last.
    pub fn late(&mut self, updates: usize, snapshot: bool) {
        if snapshot {
            self.snapshot_was_late = true;
        } else {
            self.ceiling = (updates / 2).max(1);
        }
    }

    /// A batch of so many updates got through, in however many calls.
    pub fn done(&mut self, updates: usize) {
        if updates > self.ceiling {
            self.ceiling = self.ceiling.saturating_mul(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_call_gets_what_is_expected_to_take_a_quarter_of_its_time() {
        let mut pace = Pace::new(10_000 * MS);
        assert_eq!(pace.most(), FIRST);
        // Doubled while they are quick, and no further than calls were.
        pace.took(32, 32 * MS);
        assert_eq!(pace.most(), 64);
        pace.took(1, MS);
        assert_eq!(pace.most(), 64);
        // 100 ms each: 25 take 2.5 s.
        pace.took(64, 6_400 * MS);
        assert_eq!(pace.most(), 25);
        pace.took(25, Duration::ZERO);
        assert_eq!(pace.most(), 50);
        // Slower than the time-out: one at a time.
        pace.took(1, 60_000 * MS);
        assert_eq!(pace.most(), 1);
        pace.took(0, MS);
        assert_eq!(pace.most(), 1);
    }

    #[test]
    fn a_call_that_is_late_is_halved_down_to_one() {
        let mut pace = Pace::new(10_000 * MS);
        let sizes: Vec<_> = (0..6)
            .map(|_| {
                pace.late(pace.most(), false);
                pace.most()
            })
            .collect();
        assert_eq!(sizes, [16, 8, 4, 2, 1, 1]);
        // However quick these were.
        pace.took(1, Duration::ZERO);
        assert_eq!(pace.most(), 1);
        pace.done(1);
        assert_eq!(pace.most(), 1);
        pace.done(40);
        assert_eq!(pace.most(), 2);
    }

    #[test]
    fn a_snapshot_that_was_late_goes_resource_by_resource_once() {
        let mut pace = Pace::new(10_000 * MS);
        pace.late(2, true);
        assert!(!pace.takes_snapshots());
        assert_eq!(pace.most(), FIRST);
        pace.got_through();
        assert!(pace.takes_snapshots());
    }
}
