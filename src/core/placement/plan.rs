//! Who leaves the ring's owner: bounded loads, starting from where everything is.
//!
//! Every namespace begins where it was. Then, in this order:
//! 1. What was at home with a seat that is gone goes along the ring to the first
//!    seat with room.
//! 2. Seats above the bound ([`AIM`]) give away the fewest namespaces that bring
//!    them below it, first what the ring gives to a new seat anyway, along the
//!    ring to the first seat with room; new seats before others, so that a join
//!    moves nothing between those that stay.
//! 3. Where that does not suffice, because all that a seat has is too large to
//!    fit anywhere, a large one goes where least that is large is, and that seat
//!    gives away small ones. It is taken back if nothing is gained.
//! 4. New seats get what else the ring gives them, up to the mean of weights and
//!    of numbers. Then steps 2 and 3 once more.
//!
//! Steps 2 and 3 are repeated while they lessen what lies above the bound, so
//! planning again from the result changes nothing. If no namespace weighs more
//! than a tenth of the mean, everyone ends within the bound: a seat above it
//! would always find one below the mean, which has room.

use std::collections::BTreeMap;

use super::AIM;
use super::load::Loads;
use crate::ids::MemberName;
use crate::ring::{Position, Slot, Walk};
use crate::shardmap::{Exceptions, Ownership, PublishedMap};

/// A map has so many exceptions at most, those of the heaviest namespaces: at
/// four bytes each, in base64, they stay well below 100 KiB.
pub const MAX_EXCEPTIONS: usize = 12_000;

/// Namespaces that are placed together: those of one slot, nearly always one.
struct Unit {
    slot: Slot,
    position: Position,
    weight: u64,
    /// The ring's owner, by index.
    ring: usize,
    /// Whether the ring would part them.
    parted: bool,
    /// Where it is; `None` while it has no place.
    home: Option<usize>,
    /// Whether it has moved in this plan already.
    moved: bool,
    displaced: bool,
}

struct Plan {
    units: Vec<Unit>,
    /// Load by seat.
    load: Vec<u64>,
    /// The part of it that cannot move: pins, and the unknown rest.
    fixed: Vec<u64>,
    /// Whether the seat is new.
    new: Vec<bool>,
    walk: Walk,
    mean: u64,
    bound: u64,
}

/// The exceptions of the map that follows `before`. `draft` is that map without
/// them; `loads` speaks of all namespaces.
pub fn plan(before: Option<&Ownership>, draft: &PublishedMap, loads: &Loads) -> Exceptions {
    let empty = PublishedMap { exceptions: Exceptions::new(), ..draft.clone() };
    let ring = Ownership::new(empty);
    let seats: Vec<MemberName> = draft.seats().into_iter().collect();
    let mut plan = Plan::new(before, &ring, &seats, loads);
    plan.house();
    plan.settle();
    plan.fill_new();
    plan.settle();
    let mut excepted: Vec<&Unit> =
        plan.units.iter().filter(|unit| unit.parted || unit.home != Some(unit.ring)).collect();
    excepted.sort_by_key(|unit| (std::cmp::Reverse(unit.weight), unit.slot));
    excepted
        .into_iter()
        .take(MAX_EXCEPTIONS)
        .filter_map(|unit| Some((unit.slot, seats.get(unit.home?)?.clone())))
        .collect()
}

impl Plan {
    fn new(before: Option<&Ownership>, ring: &Ownership, seats: &[MemberName], loads: &Loads) -> Self {
        let index: BTreeMap<&MemberName, usize> =
            seats.iter().enumerate().map(|(at, seat)| (seat, at)).collect();
        let find = |member: Option<&MemberName>| member.and_then(|member| index.get(member).copied());
        let count = seats.len().max(1) as u64;
        let mut fixed = vec![loads.rest.load / count; seats.len()];
        let mut units: BTreeMap<Slot, Unit> = BTreeMap::new();
        for (position, weight) in &loads.weights {
            if let Some(pinned) = find(ring.pinned_at(*position)) {
                fixed[pinned] += weight.value();
                continue;
            }
            let Some(owner) = find(ring.ring_owner_at(*position)) else { continue };
            let unit = units.entry(position.slot()).or_insert_with(|| {
                // Who acted for a seat that is given up has what was at home there.
                let home = match before {
                    None => Some(owner),
                    Some(before) => {
                        find(before.home_at(*position)).or_else(|| find(before.owner_at(*position)))
                    }
                };
                let (slot, position) = (position.slot(), *position);
                Unit {
                    slot,
                    position,
                    weight: 0,
                    ring: owner,
                    parted: false,
                    home,
                    moved: false,
                    displaced: false,
                }
            });
            unit.weight += weight.value();
            unit.parted |= unit.ring != owner;
        }
        let old = before.map(|before| before.map().seats());
        let mut load = fixed.clone();
        for unit in units.values() {
            if let Some(home) = unit.home {
                load[home] += unit.weight;
            }
        }
        let total = fixed.iter().sum::<u64>() + units.values().map(|unit| unit.weight).sum::<u64>();
        let bound = u64::try_from(u128::from(total) * u128::from(AIM) / (100 * u128::from(count)));
        Plan {
            units: units.into_values().collect(),
            load,
            fixed,
            new: seats.iter().map(|seat| old.as_ref().is_some_and(|old| !old.contains(seat))).collect(),
            walk: Walk::new(seats, ring.map().virtual_nodes),
            mean: total / count,
            bound: bound.unwrap_or(u64::MAX),
        }
    }

    fn put(&mut self, unit: usize, seat: usize) {
        let unit = &mut self.units[unit];
        if let Some(home) = unit.home {
            self.load[home] -= unit.weight;
        }
        self.load[seat] += unit.weight;
        unit.home = Some(seat);
        unit.moved = true;
    }

    /// Step 1.
    fn house(&mut self) {
        let mut homeless: Vec<usize> =
            (0..self.units.len()).filter(|at| self.units[*at].home.is_none()).collect();
        homeless.sort_by_key(|at| (std::cmp::Reverse(self.units[*at].weight), self.units[*at].slot));
        for at in homeless {
            let emptiest = || (0..self.load.len()).min_by_key(|seat| (self.load[*seat], *seat));
            if let Some(seat) = self.room_for(at, None).or_else(emptiest) {
                self.put(at, seat);
            }
        }
    }

    /// The seat to which a unit may go, other than `from`.
    fn room_for(&self, unit: usize, from: Option<usize>) -> Option<usize> {
        let Unit { position, weight, .. } = self.units[unit];
        let fits = |seat: &usize| Some(*seat) != from && self.load[*seat] + weight <= self.bound;
        if !(0..self.load.len()).any(|seat| fits(&seat)) {
            return None;
        }
        let first = self.walk.from(position).find(|seat| fits(seat) && self.new[*seat]);
        first.or_else(|| self.walk.from(position).find(fits))
    }

    /// Steps 2 and 3.
    fn settle(&mut self) {
        self.relieve();
        while self.above() > 0 {
            let (above, homes, load) = (self.above(), self.homes(), self.load.clone());
            if !self.displace() {
                return;
            }
            self.relieve();
            if self.above() >= above {
                for (unit, home) in self.units.iter_mut().zip(homes) {
                    unit.home = home;
                }
                self.load = load;
            }
        }
    }

    fn homes(&self) -> Vec<Option<usize>> {
        self.units.iter().map(|unit| unit.home).collect()
    }

    /// How much lies above the bound, all in all.
    fn above(&self) -> u64 {
        self.load.iter().map(|load| load.saturating_sub(self.bound)).sum()
    }

    /// Step 2: until nobody above the bound has anything that fits elsewhere.
    fn relieve(&mut self) {
        loop {
            let mut full: Vec<usize> =
                (0..self.load.len()).filter(|seat| self.load[*seat] > self.bound).collect();
            full.sort_by_key(|seat| (std::cmp::Reverse(self.load[*seat]), *seat));
            let before = self.above();
            full.into_iter().for_each(|seat| self.relieve_seat(seat));
            if self.above() == before {
                return;
            }
        }
    }

    fn relieve_seat(&mut self, seat: usize) {
        let mut units: Vec<usize> =
            (0..self.units.len()).filter(|at| self.units[*at].home == Some(seat)).collect();
        // What has moved already moves on for nothing, and what is due to a new
        // seat makes no exception there; the rest by weight, so that few suffice.
        units.sort_by_key(|at| {
            let unit = &self.units[*at];
            (!unit.moved, !self.is_due_to_new(*at), std::cmp::Reverse(unit.weight), unit.slot)
        });
        for at in &units {
            let excess = self.load[seat].saturating_sub(self.bound);
            if excess == 0 {
                return;
            }
            if self.units[*at].weight <= excess
                && let Some(to) = self.room_for(*at, Some(seat))
            {
                self.put(*at, to);
            }
        }
        // What is left is less than any that could go: the lightest will do.
        units.retain(|at| self.units[*at].home == Some(seat) && self.units[*at].weight > 0);
        units.sort_by_key(|at| (self.units[*at].weight, self.units[*at].slot));
        for at in units {
            if self.load[seat] <= self.bound {
                return;
            }
            if let Some(to) = self.room_for(at, Some(seat)) {
                self.put(at, to);
            }
        }
    }

    /// Step 4. In the order of positions, which is unrelated to weights.
    fn fill_new(&mut self) {
        let mut room: Vec<usize> = vec![self.units.len() / self.load.len().max(1); self.load.len()];
        for home in self.units.iter().filter_map(|unit| unit.home) {
            room[home] = room[home].saturating_sub(1);
        }
        for at in 0..self.units.len() {
            let Unit { ring, weight, .. } = self.units[at];
            if self.is_due_to_new(at) && room[ring] > 0 && self.load[ring] + weight <= self.mean {
                self.put(at, ring);
                room[ring] -= 1;
            }
        }
    }

    /// Whether the ring gives a unit to a new seat that it is not at.
    fn is_due_to_new(&self, unit: usize) -> bool {
        let Unit { ring, home, .. } = self.units[unit];
        self.new[ring] && home != Some(ring)
    }

    /// Step 3, once. Each unit at most once, so that it ends.
    fn displace(&mut self) -> bool {
        let slack = self.bound - self.mean;
        let mut large = self.fixed.clone();
        for unit in self.units.iter().filter(|unit| unit.weight > slack) {
            if let Some(home) = unit.home {
                large[home] += unit.weight;
            }
        }
        let candidates = self.units.iter().enumerate().filter(|(_, unit)| {
            !unit.displaced
                && unit.home.is_some_and(|home| self.load[home] > self.bound && large[home] > unit.weight)
        });
        // The lightest of the fullest seat.
        let chosen = candidates
            .min_by_key(|(_, unit)| {
                (std::cmp::Reverse(unit.home.map(|home| self.load[home])), unit.weight, unit.slot)
            })
            .map(|(at, unit)| (at, unit.weight, unit.home));
        let Some((at, weight, home)) = chosen else { return false };
        self.units[at].displaced = true;
        let other =
            (0..large.len()).filter(|seat| Some(*seat) != home).min_by_key(|seat| (large[*seat], *seat));
        if let Some(to) = other.filter(|to| large[*to] + weight <= self.bound.max(weight)) {
            self.put(at, to);
        }
        true
    }
}
