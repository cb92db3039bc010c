//! Which history of the cluster a replica reads, and whether it is still the cluster's.
//!
//! Revisions order what happens in one history. When etcd is restored from a backup
//! another one begins, in which they are used again for other contents. A Lease that all
//! replicas read names the history (see `flotilla_k8s::incarnation`). Who renews it leaves
//! a *mark*, a random number, and the Lease lists the last of them: so whoever has seen a
//! mark, and later finds another in its place, knows that the Lease went back in between,
//! however long the new history is by then.
//!
//! These are the rules; who reads, renews and writes is elsewhere: in the runtime, and in
//! the simulator.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::breakage::{Breakage, Breakages};
use crate::ids::Revision;

/// How often the Lease is read.
pub const READ_EVERY: Duration = Duration::from_secs(5);
/// How many reads come before it is renewed.
pub const READS_PER_WRITE: u32 = 12;
/// A replica whose last look at the Lease is older than this does not know which history
/// gateways that come to it were served from: less than a restore takes, and a start, and
/// the synchronisation of a gateway by whoever started; more than a busy machine makes it
/// wait for an answer, and than one answer that is lost.
pub const OUT_OF_TOUCH: Duration = Duration::from_secs(12);
/// A replica may lag behind a gateway for this long without anybody wondering.
pub const LAG: Duration = Duration::from_secs(2);

/// So many marks are listed: those of 50 minutes with five replicas that run, in 2.3 kB.
const LISTED: usize = 256;
/// So many names that one took the place of are listed.
const REMEMBERED: usize = 16;

/// What the Lease says of its renewals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// How many there were in all.
    count: u64,
    /// The last of them, newest first.
    newest: Vec<u32>,
}

/// What became of the marks that somebody saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    /// Those of now follow them.
    Follow,
    /// Those of now are others.
    Differ,
    /// There were so many since that nobody can tell.
    TooMany,
}

impl Marks {
    /// With one more.
    #[must_use]
    pub fn with(&self, mark: u32) -> Marks {
        let newest = std::iter::once(mark).chain(self.newest.iter().copied()).take(LISTED).collect();
        Marks { count: self.count.saturating_add(1), newest }
    }

    fn since(&self, seen: &Marks) -> Since {
        // Whoever saw none can miss none.
        let Some(last) = seen.newest.first() else { return Since::Follow };
        let Some(more) = self.count.checked_sub(seen.count) else { return Since::Differ };
        match usize::try_from(more).ok().and_then(|more| self.newest.get(more)) {
            Some(mark) if mark == last => Since::Follow,
            Some(_) => Since::Differ,
            // Fewer are listed than there were since although there is room.
            None if self.newest.len() < LISTED => Since::Differ,
            None => Since::TooMany,
        }
    }
}

/// `<count>:<mark>,<mark>,…`, newest first, each 8 hex digits.
impl fmt::Display for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.count)?;
        for (place, mark) in self.newest.iter().enumerate() {
            write!(f, "{}{mark:08x}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A text is not one that [`Marks`] are written as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not `<count>:<mark>,<mark>,…` with marks of 8 hex digits")]
pub struct NoMarks;

impl FromStr for Marks {
    type Err = NoMarks;

    fn from_str(text: &str) -> Result<Self, NoMarks> {
        let (count, listed) = text.split_once(':').ok_or(NoMarks)?;
        let mark = |mark: &str| u32::from_str_radix(mark, 16).map_err(|_| NoMarks);
        let listed = listed.split(',').filter(|mark| !mark.is_empty()).map(mark);
        let newest = listed.collect::<Result<Vec<u32>, NoMarks>>()?;
        Ok(Marks { count: count.parse().map_err(|_| NoMarks)?, newest })
    }
}

/// What the Lease says of the history. `N` is what names are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<N> {
    /// Its name.
    pub id: N,
    /// The Lease's own revision.
    pub revision: Revision,
    /// The names before it, newest first.
    pub replaces: Vec<N>,
    /// Who renewed it.
    pub marks: Marks,
}

/// What follows for somebody who knew an earlier state of the Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the same history.
    Same,
    /// Somebody has named it anew.
    Renamed,
    /// This is an old state of the Lease. Either the answer is old, or the Lease went
    /// back; then this is its present state, so that it can be replaced by a
    /// compare-and-swap from it: the history is to be named anew.
    WentBack,
    /// Nobody can tell: whoever knew the earlier state has to read everything anew.
    Untold,
}

impl<N: Clone + PartialEq> History<N> {
    /// The first of a name, created by whoever left `mark`.
    pub fn first(id: N, mark: u32) -> Self {
        History { id, revision: Revision(0), replaces: Vec::new(), marks: Marks::default().with(mark) }
    }

    /// What it means that the Lease now says `found`; what is wrong on purpose is for the
    /// simulator.
    pub fn judge(&self, found: &History<N>, breakage: Breakages) -> Verdict {
        if found.replaces.contains(&self.id) {
            return Verdict::Renamed;
        }
        if found.revision < self.revision || self.replaces.contains(&found.id) {
            return Verdict::WentBack;
        }
        if found.id != self.id {
            // Somebody has deleted the Lease, or there were too many names since.
            return Verdict::Renamed;
        }
        if breakage.is(Breakage::MarksIgnored) {
            return Verdict::Same;
        }
        match found.marks.since(&self.marks) {
            Since::Follow => Verdict::Same,
            Since::Differ => Verdict::WentBack,
            Since::TooMany => Verdict::Untold,
        }
    }

    /// What the Lease has to say when the history is named anew by somebody who knew it
    /// as `ours`; it says `self` now.
    pub fn renamed(&self, ours: &N, id: N, mark: u32) -> History<N> {
        let mut replaces: Vec<N> = Vec::new();
        for before in [ours, &self.id].into_iter().chain(&self.replaces) {
            if replaces.len() < REMEMBERED && !replaces.contains(before) {
                replaces.push(before.clone());
            }
        }
        History { id, revision: self.revision, replaces, marks: self.marks.with(mark) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As nobody breaks anything.
    fn judged(known: &History<u8>, found: &History<u8>) -> Verdict {
        known.judge(found, Breakages::default())
    }

    fn lease(marks: &[u32]) -> History<u8> {
        let marks = marks.iter().fold(Marks::default(), |marks, mark| marks.with(*mark));
        History { id: 1, revision: Revision(100), replaces: Vec::new(), marks }
    }

    #[test]
    fn a_name_that_takes_the_place_of_ours_is_anothers_and_any_other_is_of_a_backup() {
        let ours = lease(&[1, 2]);
        let next = ours.renamed(&ours.id, 2, 3);
        assert_eq!(judged(&ours, &next), Verdict::Renamed);
        // Restored from a backup of before that: whatever its revision.
        assert_eq!(judged(&next, &History { revision: Revision(200), ..ours.clone() }), Verdict::WentBack);
        assert_eq!(judged(&next, &History { revision: Revision(50), ..ours.clone() }), Verdict::WentBack);
        let again = ours.renamed(&next.id, 3, 4);
        assert_eq!((judged(&ours, &again), judged(&next, &again)), (Verdict::Renamed, Verdict::Renamed));
        assert_eq!(again.replaces, [2, 1]);
        // Somebody has deleted the Lease.
        let another = History { id: 9, revision: Revision(200), ..lease(&[5]) };
        assert_eq!(judged(&ours, &another), Verdict::Renamed);
    }

    #[test]
    fn so_many_renewals_that_nobody_can_tell_are_said_to_be() {
        let ours = lease(&[7]);
        let mut found = ours.clone();
        for mark in 1..LISTED as u32 {
            found.marks = found.marks.with(mark);
            assert_eq!(judged(&ours, &found), Verdict::Same);
        }
        found.marks = found.marks.with(0);
        assert_eq!(judged(&ours, &found), Verdict::Untold);
        assert!(found.marks.to_string().len() < 2_400);
    }

    #[test]
    fn a_lease_of_before_there_were_marks_is_followed() {
        let old = History { marks: Marks::default(), ..lease(&[]) };
        assert_eq!(judged(&old, &lease(&[1, 2, 3])), Verdict::Same);
        // And one that has none any more went back.
        assert_eq!(judged(&lease(&[1]), &old), Verdict::WentBack);
    }

    proptest! {
        /// Whatever happened before the backup and since: who has seen a mark that the
        /// backup lacks notices it, and nobody else does.
        #[test]
        fn who_saw_what_a_backup_lacks_notices_the_restore(
            before in 1..40usize, seen in 1..40usize, since in 0..120usize,
        ) {
            let marks: Vec<u32> = (0..40).collect();
            let ours = lease(&marks[..seen]);
            let anew = (0..since as u32).map(|number| 1_000 + number);
            let found: Vec<u32> = marks[..before].iter().copied().chain(anew).collect();
            let verdict = judged(&ours, &lease(&found));
            prop_assert_eq!(verdict, if seen <= before { Verdict::Same } else { Verdict::WentBack });
        }

        #[test]
        fn marks_are_read_as_they_are_written(marks in prop::collection::vec(any::<u32>(), 0..300)) {
            let marks = lease(&marks).marks;
            prop_assert_eq!(marks.to_string().parse(), Ok(marks));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            let _ = text.parse::<Marks>();
        }
    }
}
