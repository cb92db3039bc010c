//! I6: members that join or leave move what they must, and little else.
//!
//! Every namespace is at home with a *seat*: a member that is there, or one that is
//! away for a while and whose place is kept. It is owned by its home, or by somebody
//! who stands in while that is away. So:
//! - Who stands in changes only when a member goes or comes.
//! - A seat that is given up moves all that it had. A new one ideally gets its share
//!   and nothing else moves; a ring of finitely many points gives that only about, so a
//!   multiple of it is allowed, of the number with the chance of a few more, or of the
//!   weight, as one heavy namespace may drive many light ones away.
//! - What operators pin moves by order.
//! - Everything else moves for balance alone: when all members had told what their
//!   namespaces weigh; if neither seats nor pins have changed, only when one seat carried
//!   more than is tolerated, and not soon again; and little more than what lies above the
//!   aim.

use crate::bounds::Bounds;
use crate::event::{Basis, Map};
use crate::ids::{InstanceId, NamespaceId};
use crate::violation::{About, Fault, Invariant};

/// The last map.
#[derive(Debug, Default)]
pub(crate) struct Movement {
    epoch: u64,
    members: Vec<u32>,
    seats: Vec<u32>,
    owners: Vec<u32>,
    homes: Vec<u32>,
    pins: Vec<(NamespaceId, u32)>,
    /// By whom and when, by its clock, maps were last planned for balance alone.
    balanced: Vec<(InstanceId, u64)>,
    /// Maps that were compared with the one before.
    pub(crate) judged: u64,
}

/// What moved from one map to the next although it had not to.
#[derive(Debug, Default)]
struct Moved {
    number: u32,
    weight: u64,
    /// Of it: to seats that were there before.
    settled: u32,
}

impl Movement {
    pub(crate) fn published(&mut self, bounds: &Bounds, map: &Map<'_>) -> Result<(), Fault> {
        if map.epoch <= self.epoch {
            let text = format!("epoch {} was published after epoch {}", map.epoch, self.epoch);
            return Err(Fault::new(Invariant::I1, text, About::default()));
        }
        let verdict = self.judge(bounds, map);
        self.epoch = map.epoch;
        self.members = map.members.to_vec();
        self.seats = map.seats.to_vec();
        self.owners = map.owners.to_vec();
        self.homes = map.homes.to_vec();
        self.pins = map.pins.to_vec();
        self.judged += 1;
        verdict.map_err(|text| {
            let text = format!("epoch {} {text}", map.epoch);
            Fault::new(Invariant::I6, text, About::default())
        })
    }

    /// The next map is compared with none: what it was made from is no more.
    pub(crate) fn begin_again(&mut self) {
        *self = Movement { judged: self.judged, ..Movement::default() };
    }

    /// The next map is compared with none, and its number lies above this one's.
    pub(crate) fn deleted(&mut self) {
        self.members.clear();
    }

    fn judge(&mut self, bounds: &Bounds, map: &Map<'_>) -> Result<(), String> {
        if self.members.is_empty() || map.members.is_empty() {
            return Ok(());
        }
        self.stand_ins(map)?;
        let weights = map.basis.and_then(|basis| basis.weights);
        let weight = |index: usize| weights.map_or(0, |weights| weights.get(index).copied().unwrap_or(0));
        // A pin to whom has no seat counts for nothing.
        let is_pinned = |index: usize| {
            let pins = |pins: &[(NamespaceId, u32)], seats: &[u32]| {
                pins.iter().any(|(namespace, seat)| namespace.index() == index && seats.contains(seat))
            };
            pins(&self.pins, &self.seats) || pins(map.pins, map.seats)
        };
        let has_gone = |seat: u32| !map.seats.contains(&seat);
        let is_new = |seat: u32| !self.seats.contains(&seat);
        // What each seat carries before anything moves that need not.
        let mut carried = vec![0; map.seats.len()];
        let mut moved = Moved::default();
        let mut there = 0;
        for (index, (before, after)) in self.homes.iter().copied().zip(map.homes.iter().copied()).enumerate()
        {
            // Nobody knows of a namespace with nothing in it.
            if weights.is_some() && weight(index) == 0 {
                continue;
            }
            there += 1;
            let forced = has_gone(before) || is_pinned(index);
            let from = if forced { after } else { before };
            if let Some(seat) = map.seats.iter().position(|seat| *seat == from) {
                carried[seat] += weight(index);
            }
            if before != after && !forced {
                moved.number += 1;
                moved.weight += weight(index);
                moved.settled += u32::from(!is_new(after));
            }
        }
        if moved.number == 0 {
            return Ok(());
        }
        let joined = map.seats.iter().filter(|seat| is_new(**seat)).count() as f64;
        let gone = self.seats.iter().any(|seat| has_gone(*seat));
        let ordered = joined > 0.0 || gone || self.pins != map.pins;
        let seats = map.seats.len() as f64;
        let ideal = there as f64 * joined / seats;
        let few = bounds.movement * ideal + if joined > 0.0 { 3.0 * ideal.sqrt() + 1.0 } else { 0.0 };
        if moved.settled == 0 && f64::from(moved.number) <= few {
            return Ok(());
        }
        let Some((basis, weights)) = map.basis.zip(weights) else {
            return Err(format!(
                "moves {} of {there} namespaces, {} of them to seats that were there before; {few:.0} may go to \
                 new seats, and none elsewhere while not all have told what theirs weigh",
                moved.number, moved.settled
            ));
        };
        let mean = carried.iter().sum::<u64>() as f64 / seats;
        let most = carried.iter().copied().max().unwrap_or(0) as f64;
        if !ordered {
            self.needed(bounds, basis, most / mean)?;
        }
        // What each has to give up, or a little more; and namespaces move as a whole, so one
        // of them goes too far.
        let above: Vec<f64> = carried
            .iter()
            .map(|carried| *carried as f64 - bounds.aim * mean)
            .filter(|above| *above > 0.0)
            .collect();
        let heaviest = weights.iter().copied().max().unwrap_or(0) as f64;
        let share = bounds.movement * mean * joined;
        let excess = bounds.excess * above.iter().sum::<f64>();
        let light = share.max(excess) + heaviest * above.len().max(1) as f64;
        if moved.weight as f64 <= light {
            return Ok(());
        }
        Err(format!(
            "moves {} of {there} namespaces of the weight {}, {} of them to seats that were there before; by what \
             seats carry ({carried:?}) a weight of {light:.0} may move, or {few:.0} to new seats",
            moved.number, moved.weight, moved.settled
        ))
    }

    /// Whether something may move although neither seats nor pins have changed, when the
    /// fullest seat has so many times the mean.
    fn needed(&mut self, bounds: &Bounds, basis: Basis<'_>, fullest: f64) -> Result<(), String> {
        if fullest <= bounds.tolerated {
            return Err(format!(
                "moves namespaces although no seat carried more than {fullest:.2} times the mean"
            ));
        }
        let known = self.balanced.iter_mut().find(|(planner, _)| *planner == basis.planner);
        let Some((_, last)) = known else {
            self.balanced.push((basis.planner, basis.clock));
            return Ok(());
        };
        let passed = basis.clock.saturating_sub(*last);
        *last = basis.clock;
        if passed < bounds.damping {
            let seconds = passed / 1_000_000_000;
            return Err(format!("moves namespaces {seconds} s after its planner last did so for balance"));
        }
        Ok(())
    }

    /// Whoever stands in goes on doing so until somebody comes or goes.
    fn stand_ins(&self, map: &Map<'_>) -> Result<(), String> {
        for (index, (owner, home)) in map.owners.iter().zip(map.homes).enumerate() {
            if map.members.contains(home) && owner != home {
                return Err(format!("gives namespace {index} to {owner} although its home {home} is there"));
            }
            let (Some(before), Some(old_home)) = (self.owners.get(index), self.homes.get(index)) else {
                continue;
            };
            let stays = map.members.contains(before) && self.members.contains(owner);
            if before != owner && home == old_home && stays {
                return Err(format!(
                    "moves namespace {index} from {before} to {owner}; both stand in for {home}"
                ));
            }
        }
        Ok(())
    }
}
