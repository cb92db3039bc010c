//! I6: members that join or leave move what they must, and little else.
//!
//! A leave moves all that the leaver had. A join ideally moves the joiners' share
//! and nothing else; a ring of finitely many points gives that only about, so a
//! multiple of it is allowed, and the chance of a few more.

use crate::bounds::Bounds;
use crate::event::Map;
use crate::ids::NamespaceId;
use crate::violation::{About, Fault, Invariant};

/// The last map.
#[derive(Debug, Default)]
pub(crate) struct Movement {
    epoch: u64,
    members: Vec<u32>,
    owners: Vec<u32>,
    pinned: Vec<NamespaceId>,
    /// Maps that were compared with the one before.
    pub(crate) judged: u64,
}

impl Movement {
    pub(crate) fn published(&mut self, bounds: &Bounds, map: &Map<'_>) -> Result<(), Fault> {
        if map.epoch <= self.epoch {
            let text = format!("epoch {} was published after epoch {}", map.epoch, self.epoch);
            return Err(Fault::new(Invariant::I1, text, About::default()));
        }
        let verdict = self.judge(bounds, map);
        *self = Movement {
            epoch: map.epoch,
            members: map.members.to_vec(),
            owners: map.owners.to_vec(),
            pinned: map.pinned.to_vec(),
            judged: self.judged + 1,
        };
        verdict
    }

    /// The next map is compared with none: what it was made from is no more.
    pub(crate) fn begin_again(&mut self) {
        *self = Movement { judged: self.judged, ..Movement::default() };
    }

    fn judge(&self, bounds: &Bounds, map: &Map<'_>) -> Result<(), Fault> {
        if self.members.is_empty() || map.members.is_empty() {
            return Ok(());
        }
        let left = |owner: u32| !map.members.contains(&owner);
        let joined = map.members.iter().filter(|member| !self.members.contains(member)).count();
        let gone = self.members.iter().filter(|member| left(**member)).count();
        let mut moved = 0u32;
        for (index, (before, after)) in self.owners.iter().zip(map.owners).enumerate() {
            let by_order = |pins: &[NamespaceId]| pins.iter().any(|namespace| namespace.index() == index);
            let ordered = by_order(&self.pinned) || by_order(map.pinned);
            moved += u32::from(before != after && !left(*before) && !ordered);
        }
        let all = self.owners.len().min(map.owners.len()) as f64;
        let ideal = all * joined as f64 / map.members.len() as f64;
        let chance = if joined + gone > 0 { 3.0 * ideal.sqrt() + 1.0 } else { 0.0 };
        let allowed = bounds.movement * ideal + chance + bounds.rebalance * all;
        if f64::from(moved) <= allowed {
            return Ok(());
        }
        let text = format!(
            "epoch {} moves {moved} of {all} namespaces away from members that stay; {joined} of {} members have \
             joined, {gone} have left, so {allowed:.0} are allowed",
            map.epoch,
            map.members.len(),
        );
        Err(Fault::new(Invariant::I6, text, About::default()))
    }
}
