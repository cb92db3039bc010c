//! How long a write takes from being seen here until every gateway of this
//! replica has acknowledged it: the gap of delivery.
//!
//! A *mark* is put down when something was read that is news for gateways, and
//! taken up when the table of what they have applied has passed it. Writes that
//! are read between two looks at the table share a mark, so the work per write
//! is constant, and what is measured is right to within the pause between two
//! looks.

use std::collections::VecDeque;
use std::time::Duration;

use flotilla_core::delivery::AppliedTable;
use flotilla_core::ids::Frontier;
use tokio::time::Instant;

/// So many marks may wait. Further writes share the last one's: if gateways are
/// that far behind, the oldest marks say so.
const MARKS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Lag {
    marks: VecDeque<(Frontier, Instant)>,
}

impl Lag {
    /// Something that is news for gateways was read, up to this frontier.
    pub fn read(&mut self, now: Instant, frontier: Frontier) {
        if self.marks.len() < MARKS {
            self.marks.push_back((frontier, now));
        } else if let Some(last) = self.marks.back_mut() {
            last.0 = frontier;
        }
    }

    /// How long those writes took that this table shows everywhere. Gateways
    /// that are still being synchronised for the first time are not waited for,
    /// and without gateways nothing is delivered and nothing measured.
    pub fn applied(&mut self, now: Instant, table: &AppliedTable) -> Vec<Duration> {
        let rows = || table.rows.iter().filter(|row| !row.unknown);
        if rows().next().is_none() {
            self.marks.clear();
            return Vec::new();
        }
        let reached = |mark: &Frontier| rows().all(|row| row.low.reached(mark));
        let mut took = Vec::new();
        while let Some((_, since)) = self.marks.front().filter(|(mark, _)| reached(mark)) {
            took.push(now - *since);
            self.marks.pop_front();
        }
        took
    }

    /// When the oldest of the writes was read that some gateway lacks. Until it has them or its
    /// stream is ended nothing is measured, and this is all that tells of it.
    pub fn pending_since(&self) -> Option<Instant> {
        self.marks.front().map(|(_, since)| *since)
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::delivery::{AppliedRow, Scope};
    use flotilla_core::ids::{Kind, Revision};

    use super::*;

    fn at(revision: u64) -> Frontier {
        Frontier([Revision(revision); Kind::COUNT])
    }

    fn table(lows: &[u64]) -> AppliedTable {
        let row = |low: &u64| AppliedRow {
            scope: Scope::default(),
            low: at(*low),
            excluded: Vec::new(),
            unknown: false,
            gateways: 1,
            names: Vec::new(),
        };
        AppliedTable { rows: lows.iter().map(row).collect(), rejections: Vec::new() }
    }

    #[test]
    fn a_write_has_arrived_when_the_last_gateway_has_it() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut lag = Lag::default();
        lag.read(start, at(5));
        lag.read(after(10), at(7));
        assert!(lag.applied(after(20), &table(&[5, 4])).is_empty());
        assert_eq!(lag.pending_since(), Some(start));
        assert_eq!(lag.applied(after(30), &table(&[6, 5])), [Duration::from_millis(30)]);
        assert_eq!(lag.pending_since(), Some(after(10)));
        assert_eq!(lag.applied(after(40), &table(&[7, 8])), [Duration::from_millis(30)]);
        assert_eq!(lag.pending_since(), None);
        assert!(lag.applied(after(50), &table(&[9])).is_empty(), "each is measured once");
    }

    #[test]
    fn nothing_is_measured_without_gateways_and_the_marks_are_bounded() {
        let now = Instant::now();
        let mut lag = Lag::default();
        for revision in 0..5000 {
            lag.read(now, at(revision));
        }
        assert_eq!(lag.marks.len(), MARKS);
        assert_eq!(lag.applied(now, &table(&[5000])).len(), MARKS);
        lag.read(now, at(6000));
        assert!(lag.applied(now, &table(&[])).is_empty());
        assert!(lag.applied(now, &table(&[6000])).is_empty(), "nobody was there to get it");
    }
}
