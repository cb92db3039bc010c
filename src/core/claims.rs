//! What objects claim for themselves, and who has precedence where claims meet.
//!
//! Of two objects that claim the same the one that was created first keeps it,
//! then the first by namespace and name: everybody who knows both says the same.
//! Pairs are looked at, not chains: who loses against an older object loses even
//! while that one itself loses against a third, so a change concerns those that
//! claim the same and nobody beyond them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::ids::{Kind, ObjectKey};
use crate::object::RawObject;

/// What is claimed, as the first half of the SHA-256 of a text that says it. There is one
/// for nearly each claim of each object, so it is small; tenants choose the text, so nobody
/// can find another one with the same hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub [u8; 16]);

impl Slot {
    /// The slot of a text.
    pub fn of(text: &str) -> Slot {
        let mut half = [0; 16];
        half.copy_from_slice(&Sha256::digest(text)[..16]);
        Slot(half)
    }
}

/// What of a claim is compared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stake {
    /// What is claimed: claims of different slots never meet.
    pub slot: Slot,
    /// Which parts of the slot it takes, and which it bars others from.
    pub interest: Interest,
}

/// One claim of an object, with what is said of it to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What of it is compared.
    pub stake: Stake,
    /// Where the object makes the claim, for example `spec.match[0]`.
    pub field: Arc<str>,
    /// The claim in words, for example `uri prefix /api/v1`.
    pub words: Arc<str>,
}

/// What of claims is compared, in their order.
pub fn stakes(claims: &[Claim]) -> Box<[Stake]> {
    claims.iter().map(|claim| claim.stake).collect()
}

/// Who is in the way of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The claim's place among those of the object.
    pub claim: usize,
    /// Kind of who has it.
    pub kind: Kind,
    /// Who has it.
    pub key: ObjectKey,
    /// It was admitted moments ago and has not shown up yet.
    pub reserved: bool,
}

/// Parts of a slot, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interest {
    /// Those that are taken.
    pub takes: u16,
    /// Those that nobody else may take.
    pub bars: u16,
}

impl Interest {
    /// Whether two claims of the same slot exclude each other.
    pub const fn meets(self, other: Interest) -> bool {
        self.bars & other.takes != 0 || other.bars & self.takes != 0
    }
}

/// Who claims something. The order is that of precedence.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// `metadata.creationTimestamp`, which sorts as text.
    pub created: Arc<str>,
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its kind.
    pub kind: Kind,
}

impl Holder {
    /// The holder of an object's claims.
    pub fn of(object: &RawObject) -> Holder {
        Holder { created: object.created.clone(), key: object.key.clone(), kind: object.kind }
    }

    /// Whether both are the same object, whenever it was created.
    pub fn is_same_object(&self, other: &Holder) -> bool {
        (self.kind, &self.key) == (other.kind, &other.key)
    }
}

/// Those who claim the same: never nobody. Nearly always it is one, who needs no set.
#[derive(Debug, Clone)]
pub enum Holders {
    /// Only this one.
    One(Holder),
    /// Several, or one that is left of them.
    Several(BTreeSet<Holder>),
}

impl Holders {
    /// All, by precedence.
    pub fn iter(&self) -> impl Iterator<Item = &Holder> {
        let (one, several) = match self {
            Holders::One(holder) => (Some(holder), None),
            Holders::Several(holders) => (None, Some(holders)),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    /// Those that come after another.
    fn after(&self, other: &Holder) -> impl Iterator<Item = &Holder> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (one, several) = match self {
            Holders::One(holder) => (Some(holder).filter(|holder| *holder > other), None),
            Holders::Several(holders) => (None, Some(holders.range((Excluded(other), Unbounded)))),
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    fn insert(&mut self, holder: &Holder) {
        match self {
            Holders::One(there) if there == holder => {}
            Holders::One(there) => *self = Holders::Several([there.clone(), holder.clone()].into()),
            Holders::Several(holders) => {
                holders.insert(holder.clone());
            }
        }
    }

    /// Returns whether nobody is left: then the row is to be dropped.
    fn remove(&mut self, holder: &Holder) -> bool {
        match self {
            Holders::One(there) => there == holder,
            Holders::Several(holders) => {
                holders.remove(holder);
                holders.is_empty()
            }
        }
    }
}

/// The claims of many objects, by what is claimed: asking costs as much as the
/// asker has claims, whatever the number of objects.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// By slot, then by interest. There is one row for nearly each claim of each object,
    /// so a row is small.
    held: BTreeMap<Stake, Holders>,
}

impl Claims {
    /// Adds what an object claims.
    pub fn insert(&mut self, holder: &Holder, stakes: &[Stake]) {
        for stake in stakes {
            self.held
                .entry(*stake)
                .and_modify(|holders| holders.insert(holder))
                .or_insert_with(|| Holders::One(holder.clone()));
        }
    }

    /// Takes out what an object claimed: the same as was put in.
    pub fn remove(&mut self, holder: &Holder, stakes: &[Stake]) {
        for stake in stakes {
            if self.held.get_mut(stake).is_some_and(|holders| holders.remove(holder)) {
                self.held.remove(stake);
            }
        }
    }

    /// Whether nobody claims anything.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Those whose claims meet a claim, by precedence within each row.
    pub fn meeting(&self, Stake { slot, interest }: Stake) -> impl Iterator<Item = &Holders> {
        let row = |takes, bars| Stake { slot, interest: Interest { takes, bars } };
        let slot = self.held.range(row(0, 0)..=row(u16::MAX, u16::MAX));
        slot.filter(move |(stake, _)| stake.interest.meets(interest)).map(|(_, holders)| holders)
    }

    /// Who keeps a holder from its claims, and which of them by its place: the first by
    /// precedence of all that come before it.
    pub fn winner<'a>(&'a self, own: &Holder, stakes: &[Stake]) -> Option<(&'a Holder, usize)> {
        let firsts = stakes.iter().enumerate().flat_map(|(place, stake)| {
            let before = |holders: &'a Holders| {
                holders.iter().take_while(|holder| *holder < own).find(|holder| !holder.is_same_object(own))
            };
            self.meeting(*stake).filter_map(before).map(move |holder| (holder, place))
        });
        firsts.min_by_key(|(holder, _)| *holder)
    }

    /// Those that come after a holder and claim what it claims.
    pub fn losers(&self, own: &Holder, stakes: &[Stake]) -> BTreeSet<Holder> {
        let meeting = stakes.iter().flat_map(|stake| self.meeting(*stake));
        let all = meeting.flat_map(|holders| holders.after(own));
        all.filter(|holder| !holder.is_same_object(own)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stake(slot: &str, takes: u16) -> Stake {
        Stake { slot: Slot::of(slot), interest: Interest { takes, bars: takes } }
    }

    fn holder(created: &str, name: &str) -> Holder {
        Holder { created: created.into(), key: ObjectKey::new("n", name), kind: Kind::ApiRoute }
    }

    #[test]
    fn the_oldest_wins_then_the_name_and_only_where_parts_overlap() {
        let mut claims = Claims::default();
        let (old, young, same_age) = (holder("1", "z"), holder("2", "b"), holder("2", "c"));
        let wide = [stake("x", 0b11), stake("y", 1)];
        claims.insert(&young, &wide);
        assert_eq!(claims.winner(&young, &wide), None);
        let half = [stake("x", 0b10)];
        claims.insert(&same_age, &half);
        let (winner, _) = claims.winner(&same_age, &half).unwrap();
        assert_eq!(winner, &young);
        claims.insert(&old, &[stake("x", 0b01)]);
        let (winner, lost) = claims.winner(&young, &wide).unwrap();
        assert_eq!((winner, lost), (&old, 0));
        let (winner, _) = claims.winner(&same_age, &half).unwrap();
        assert_eq!(winner, &young, "not the one with another part");
        assert_eq!(claims.losers(&old, &[stake("x", 0b01)]), BTreeSet::from([young.clone()]));
        assert!(claims.losers(&same_age, &half).is_empty());
        claims.remove(&old, &[stake("x", 0b01)]);
        assert_eq!(claims.winner(&young, &wide), None);
        claims.remove(&young, &wide);
        claims.remove(&same_age, &half);
        assert!(claims.is_empty());
    }

    #[test]
    fn claims_of_one_side_do_not_exclude_each_other() {
        let (here, there) = (Interest { takes: 1, bars: 2 }, Interest { takes: 2, bars: 1 });
        assert!(here.meets(there) && there.meets(here));
        assert!(!here.meets(here) && !there.meets(there));
    }
}
