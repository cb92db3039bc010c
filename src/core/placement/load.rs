//! What namespaces weigh, as members tell each other and as the leader sums up.

use std::collections::BTreeMap;

use crate::ids::{Epoch, MemberName};
use crate::ring::Position;
use crate::shardmap::{Ownership, Share};

/// A report names so many namespaces at most, the heaviest: 9 bytes each. The
/// others are told as a sum, which counts as evenly spread.
pub const MAX_ENTRIES: usize = 4096;

/// A rounded weight: one for a namespace, one for each of its objects and one
/// for each change per minute.
///
/// Up to 15 it is exact; above it is a number of four significant bits, so it
/// is at most a sixteenth off. Compared and sent as one byte: three bits of
/// mantissa below five of exponent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(pub u8);

impl Weight {
    /// The nearest weight to `value`; the largest for what is beyond it.
    pub fn nearest(value: u64) -> Self {
        if value < 8 {
            return Weight(value as u8);
        }
        // `value` is between 8 and 16 times two to the power of `exponent`.
        let exponent = 60 - u64::from(value.leading_zeros());
        let half = (1 << exponent) >> 1;
        let mantissa = (value.saturating_add(half) >> exponent).saturating_sub(8);
        // A mantissa of eight carries into the exponent, as it should.
        Weight(u8::try_from((exponent + 1) * 8 + mantissa).unwrap_or(u8::MAX))
    }

    /// What it stands for.
    pub fn value(self) -> u64 {
        let mantissa = u64::from(self.0 & 7);
        match self.0 >> 3 {
            0 => mantissa,
            exponent => (8 + mantissa) << (exponent - 1),
        }
    }
}

/// What one member's namespaces weigh, as it measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The map by which the member decided what it owns.
    pub epoch: Epoch,
    /// The heaviest, sorted by position; at most [`MAX_ENTRIES`].
    pub entries: Vec<(Position, Weight)>,
    /// How many more there are, and what they weigh together.
    pub rest: Share,
}

impl LoadReport {
    /// A report of `entries`, in any order, owned in `epoch`; those beyond the
    /// heaviest [`MAX_ENTRIES`] go into the rest.
    pub fn new(epoch: Epoch, mut entries: Vec<(Position, Weight)>) -> Self {
        entries.sort_unstable_by(|(a, heavy), (b, light)| light.cmp(heavy).then(a.cmp(b)));
        let mut rest = Share::default();
        for (_, weight) in entries.drain(MAX_ENTRIES.min(entries.len())..) {
            rest.namespaces += 1;
            rest.load += weight.value();
        }
        entries.sort_unstable();
        LoadReport { epoch, entries, rest }
    }
}

/// What all members reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loads {
    /// The weights known one by one.
    pub weights: BTreeMap<Position, Weight>,
    /// The sum of the others.
    pub rest: Share,
}

impl Loads {
    /// Adds a member's report. While a namespace moves, two may report it, the
    /// one that had it and the one that has it now: the heavier word counts.
    pub fn add(&mut self, report: &LoadReport) {
        for (position, weight) in &report.entries {
            let known = self.weights.entry(*position).or_default();
            *known = (*known).max(*weight);
        }
        self.rest.namespaces = self.rest.namespaces.saturating_add(report.rest.namespaces);
        self.rest.load = self.rest.load.saturating_add(report.rest.load);
    }

    /// What each member owns. The rest is spread evenly.
    pub fn shares(&self, ownership: &Ownership) -> BTreeMap<MemberName, Share> {
        self.spread(ownership.map().eligible(), |position| ownership.owner_at(position))
    }

    /// What is at home with each seat. The rest is spread evenly.
    pub fn homes(&self, ownership: &Ownership) -> BTreeMap<MemberName, Share> {
        self.spread(ownership.map().seats(), |position| ownership.home_at(position))
    }

    fn spread<'a>(
        &self,
        members: impl IntoIterator<Item = MemberName>,
        find: impl Fn(Position) -> Option<&'a MemberName>,
    ) -> BTreeMap<MemberName, Share> {
        let mut shares: BTreeMap<MemberName, Share> =
            members.into_iter().map(|member| (member, Share::default())).collect();
        let count = shares.len().max(1);
        for share in shares.values_mut() {
            share.namespaces = self.rest.namespaces / u32::try_from(count).unwrap_or(u32::MAX);
            share.load = self.rest.load / count as u64;
        }
        for (position, weight) in &self.weights {
            if let Some(share) = find(*position).and_then(|member| shares.get_mut(member)) {
                share.namespaces += 1;
                share.load += weight.value();
            }
        }
        shares
    }
}

/// The largest share as a multiple of the mean, in percent; 100 when nothing
/// weighs anything.
pub fn imbalance<'a>(shares: impl IntoIterator<Item = &'a Share>) -> u64 {
    let (mut most, mut sum, mut count) = (0, 0_u64, 0);
    for share in shares {
        most = most.max(share.load);
        sum = sum.saturating_add(share.load);
        count += 1;
    }
    if sum == 0 {
        100
    } else {
        u64::try_from(u128::from(most) * 100 * count / u128::from(sum)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_weights_are_exact_and_all_weights_grow_with_their_number() {
        for value in 0..16 {
            assert_eq!(Weight::nearest(value).value(), value);
        }
        for byte in 0..u8::MAX {
            assert!(Weight(byte).value() < Weight(byte + 1).value(), "{byte}");
            assert_eq!(Weight::nearest(Weight(byte).value()), Weight(byte));
        }
        assert_eq!(Weight::nearest(u64::MAX), Weight(u8::MAX));
    }

    #[test]
    fn a_report_names_the_heaviest_and_sums_up_the_others() {
        let entries =
            (0..MAX_ENTRIES as u64 + 10).map(|at| (Position(at), Weight(if at < 10 { 1 } else { 9 })));
        let report = LoadReport::new(Epoch(1), entries.collect());
        assert_eq!((report.entries.len(), report.rest), (MAX_ENTRIES, Share { namespaces: 10, load: 10 }));
        assert!(report.entries.is_sorted());
        let mut loads = Loads::default();
        loads.add(&report);
        loads.add(&LoadReport::new(Epoch(1), vec![(Position(20), Weight(4)), (Position(21), Weight(30))]));
        assert_eq!((loads.weights[&Position(20)], loads.weights[&Position(21)]), (Weight(9), Weight(30)));
    }

    proptest! {
        #[test]
        fn a_weight_is_at_most_a_sixteenth_off(value in 0_u64..16 << 30) {
            let rounded = Weight::nearest(value).value();
            prop_assert!(rounded.abs_diff(value) * 16 <= value, "{} became {}", value, rounded);
        }
    }
}
