//! I6: members that join or leave move what they must, and little else.
//!
//! Every namespace is at home with a *seat*: a member that is there, or one that is
//! away for a while and whose place is kept. It is owned by its home, or by somebody
//! who stands in while that is away. So:
//! - Who stands in changes only when a member goes or comes.
//! - A seat that is given up moves all that it had. A new one ideally gets its share
//!   and nothing else moves; a ring of finitely many points gives that only about, so a
//!   multiple of it is allowed: of the weight or, while that is not known, of the number,
//!   with the chance of a few more.
//! - What operators pin moves by order, and is at home there.
//! - Everything else moves for balance alone: when all members had told what their
//!   namespaces weigh; if neither seats nor pins have changed, only when one seat carried
//!   more than is tolerated, and not soon again; and little more than what, after new
//!   seats have got theirs, lies above the aim.

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
    /// Namespaces that somebody knows of, whether they moved or not.
    there: u32,
    /// How many moved.
    number: u32,
    /// What they weigh.
    weight: u64,
    /// How many of them moved between seats that were there before.
    settled: u32,
    /// What these weigh.
    settled_weight: u64,
    /// What each seat carried before any of them moved.
    before: Vec<u64>,
    /// What each carried when those for new seats had moved.
    between: Vec<u64>,
}

impl Movement {
    pub(crate) fn published(&mut self, bounds: &Bounds, map: &Map<'_>) -> Result<(), Fault> {
        if map.epoch <= self.epoch {
            let text = format!("epoch {} was published after epoch {}", map.epoch, self.epoch);
            return Err(Fault::new(Invariant::I1, text, About::default()));
        }
        let verdict = at_home(map).and_then(|()| self.judge(bounds, map));
        self.epoch = map.epoch;
        self.members = map.members.to_vec();
        self.seats = map.seats.to_vec();
        self.owners = map.owners.to_vec();
        self.homes = map.homes.to_vec();
        self.pins = map.pins.to_vec();
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
        self.judged += 1;
        self.stand_ins(map)?;
        let moved = self.what_moved(map);
        if moved.number == 0 {
            return Ok(());
        }
        let joined = map.seats.iter().filter(|seat| !self.seats.contains(seat)).count();
        match map.basis.and_then(|basis| Some((basis, basis.weights?))) {
            Some((basis, weights)) => {
                let gone = self.seats.iter().any(|seat| !map.seats.contains(seat));
                if joined == 0 && !gone && self.pins == map.pins {
                    self.needed(bounds, basis, &moved)?;
                }
                moved.by_weight(bounds, joined, weights)
            }
            None => moved.by_ring(bounds, joined),
        }
    }

    fn what_moved(&self, map: &Map<'_>) -> Moved {
        let weights = map.basis.and_then(|basis| basis.weights);
        let weight = |index: usize| weights.map_or(0, |weights| weights.get(index).copied().unwrap_or(0));
        // A pin to a member without a seat counts for nothing.
        let is_pinned = |index: usize| {
            let pins = |pins: &[(NamespaceId, u32)], seats: &[u32]| {
                pins.iter().any(|(namespace, seat)| namespace.index() == index && seats.contains(seat))
            };
            pins(&self.pins, &self.seats) || pins(map.pins, map.seats)
        };
        let place = |seat: u32| map.seats.iter().position(|other| *other == seat);
        let mut moved = Moved { before: vec![0; map.seats.len()], ..Moved::default() };
        moved.between = moved.before.clone();
        for (index, (before, after)) in self.homes.iter().copied().zip(map.homes.iter().copied()).enumerate()
        {
            // Nobody knows of a namespace with nothing in it.
            if weights.is_some() && weight(index) == 0 {
                continue;
            }
            moved.there += 1;
            let forced = place(before).is_none() || is_pinned(index);
            let to_new = !self.seats.contains(&after);
            let first = if forced { after } else { before };
            let then = if to_new { after } else { first };
            for (carried, seat) in [(&mut moved.before, first), (&mut moved.between, then)] {
                if let Some(place) = place(seat) {
                    carried[place] += weight(index);
                }
            }
            if before != after && !forced {
                moved.number += 1;
                moved.weight += weight(index);
                if !to_new {
                    moved.settled += 1;
                    moved.settled_weight += weight(index);
                }
            }
        }
        moved
    }

    /// Whether something may move although neither seats nor pins have changed.
    fn needed(&mut self, bounds: &Bounds, basis: Basis<'_>, moved: &Moved) -> Result<(), String> {
        let fullest = moved.fullest();
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

/// What holds of every map, whatever was before: a namespace is at home where it is
/// pinned to, and owned by its home when that is there.
fn at_home(map: &Map<'_>) -> Result<(), String> {
    for (namespace, seat) in map.pins.iter().filter(|(_, seat)| map.seats.contains(seat)) {
        if let Some(home) = map.homes.get(namespace.index()).filter(|home| *home != seat) {
            let index = namespace.index();
            return Err(format!("has namespace {index} at home with {home} although it is pinned to {seat}"));
        }
    }
    for (index, (owner, home)) in map.owners.iter().zip(map.homes).enumerate() {
        if map.members.contains(home) && owner != home {
            return Err(format!("gives namespace {index} to {owner} although its home {home} is there"));
        }
    }
    Ok(())
}

impl Moved {
    /// How many times the mean the fullest seat carried.
    fn fullest(&self) -> f64 {
        let all: u64 = self.before.iter().sum();
        let most = self.before.iter().copied().max().unwrap_or(0);
        most as f64 * self.before.len() as f64 / all as f64
    }

    /// While not all have told what theirs weigh, the ring alone says what moves: to new
    /// seats, by chance a few more than their share.
    fn by_ring(&self, bounds: &Bounds, joined: usize) -> Result<(), String> {
        let Moved { there, number, settled, .. } = *self;
        let ideal = f64::from(there) * joined as f64 / self.before.len() as f64;
        let few = bounds.movement * ideal + if joined > 0 { 3.0 * ideal.sqrt() + 1.0 } else { 0.0 };
        if settled == 0 && f64::from(number) <= few {
            return Ok(());
        }
        Err(format!(
            "moves {number} of {there} namespaces, {settled} of them to seats that were there before; {few:.0} \
             may go to new seats, and none elsewhere while not all have told what theirs weigh"
        ))
    }

    /// New seats get about their share. What they cannot take goes from those that have too
    /// much to others, or a little more; and namespaces move as a whole, so one goes too far.
    fn by_weight(&self, bounds: &Bounds, joined: usize, weights: &[u64]) -> Result<(), String> {
        let heaviest = weights.iter().copied().max().unwrap_or(0) as f64;
        let mean = self.before.iter().sum::<u64>() / self.before.len().max(1) as u64;
        let share = bounds.movement * mean as f64 * joined as f64;
        let to_new = (self.weight - self.settled_weight) as f64;
        if to_new > share + heaviest {
            return Err(format!(
                "moves a weight of {to_new} to new seats; their share is {share:.0} and the heaviest {heaviest}"
            ));
        }
        // In whole units, as whoever plans counts.
        let aim = (bounds.aim * mean as f64).floor();
        let above = self.between.iter().map(|carried| *carried as f64 - aim).filter(|above| *above > 0.0);
        let (number, above) = above.fold((0.0, 0.0), |(number, sum), above| (number + 1.0, sum + above));
        let light = bounds.excess * above + heaviest * number;
        if self.settled_weight as f64 <= light {
            return Ok(());
        }
        let Moved { there, settled, settled_weight, between, .. } = self;
        Err(format!(
            "moves {settled} of {there} namespaces of the weight {settled_weight} to seats that were there before; \
             by what seats carried otherwise ({between:?}) a weight of {light:.0} may move"
        ))
    }
}
