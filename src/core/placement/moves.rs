//! What moved from one map to the next, and why: for metrics and tests.

use super::load::Loads;
use crate::shardmap::Ownership;

/// Why a namespace has another owner than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MoveReason {
    /// Its owner is away, a stand-in acts.
    Away,
    /// It goes back to a member that was away.
    Return,
    /// Its owner is gone for good.
    Leave,
    /// It goes to a member that had no seat before.
    Join,
    /// Operators pinned, drained or undrained, or changed the ring.
    Operator,
    /// It brings a member back within the bound.
    Balance,
}

impl MoveReason {
    /// All reasons, in the order in which [`Moves`] counts them.
    pub const ALL: [MoveReason; 6] = [
        MoveReason::Away,
        MoveReason::Return,
        MoveReason::Leave,
        MoveReason::Join,
        MoveReason::Operator,
        MoveReason::Balance,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            MoveReason::Away => "away",
            MoveReason::Return => "return",
            MoveReason::Leave => "leave",
            MoveReason::Join => "join",
            MoveReason::Operator => "operator",
            MoveReason::Balance => "balance",
        }
    }
}

/// Numbers of namespaces moved, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moves([u64; MoveReason::ALL.len()]);

impl Moves {
    /// The number for one reason.
    pub fn get(&self, reason: MoveReason) -> u64 {
        self.0[reason as usize]
    }

    /// The number for all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds others.
    pub fn add(&mut self, other: &Moves) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }
}

/// Counts which namespaces of `loads` another member owns `after` than `before`.
pub fn moves(before: &Ownership, after: &Ownership, loads: &Loads) -> Moves {
    let (old, new) = (before.map(), after.map());
    let (was_eligible, is_eligible) = (old.eligible(), new.eligible());
    let same_wishes = old.virtual_nodes == new.virtual_nodes;
    let mut moves = Moves::default();
    for position in loads.weights.keys() {
        let (Some(from), Some(to)) = (before.owner_at(*position), after.owner_at(*position)) else {
            continue;
        };
        if from == to {
            continue;
        }
        let pin_moved = before.pinned_at(*position) != after.pinned_at(*position);
        let reason = if new.away.contains(from) {
            MoveReason::Away
        } else if new.member(from).is_none() {
            MoveReason::Leave
        } else if old.away.contains(to) {
            MoveReason::Return
        } else if old.member(to).is_none() {
            MoveReason::Join
        } else if pin_moved || !same_wishes || !is_eligible.contains(from) || !was_eligible.contains(to) {
            MoveReason::Operator
        } else {
            MoveReason::Balance
        };
        moves.0[reason as usize] += 1;
    }
    moves
}
