//! What was admitted a moment ago and has not shown up yet.
//!
//! Between the answer to a review and the event of a watch an object is nowhere to
//! be seen, and a second one with the same match would be admitted as well. So who
//! decides keeps what it admitted in mind until the object shows up, or until so
//! much time has passed that it will not come any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::claims::{Claims, Holder, Holders, Stake};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::time::Mono;

/// How long a reservation lasts: an API server may wait for other webhooks before
/// it writes what was admitted, though rarely for longer than this.
pub(super) const LASTS: Duration = Duration::from_secs(15);

/// How long it lasts at least, although the object has shown up: what shows up sooner
/// may be an older state of it that claimed the same, and the next one may not.
const AT_LEAST: Duration = Duration::from_secs(1);

/// Claims that are reserved at a time; beyond that the oldest go. Whoever reaches the
/// port may ask, so their number has a bound.
const LARGEST: usize = 100_000;

/// Claims of one namespace that are reserved at a time; beyond that its objects are
/// admitted without. So no tenant can push out what others reserved.
const SHARE: usize = LARGEST / 10;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    /// The same as in `by_object`.
    claims: Claims,
    by_object: BTreeMap<Id, Reservation>,
    /// By the end of a reservation; the same as in `by_object`.
    by_end: BTreeSet<(Mono, Id)>,
    /// How many were made.
    made: u64,
    /// How many claims there are in `by_object`, by namespace and together.
    sizes: BTreeMap<Arc<str>, usize>,
    size: usize,
}

/// An object, and which of its reservations: several writes of it may be under way, and
/// nobody knows in which order they come.
type Id = (Kind, ObjectKey, u64);

#[derive(Debug)]
struct Reservation {
    holder: Holder,
    stakes: Box<[Stake]>,
    made: Mono,
    until: Mono,
}

impl Reserved {
    /// Those whose reservations meet a claim.
    pub fn meeting(&self, stake: Stake) -> impl Iterator<Item = &Holder> {
        self.claims.meeting(stake).flat_map(Holders::iter)
    }

    /// Reserves what an object claims, besides what else was reserved for it.
    pub fn put(&mut self, now: Mono, kind: Kind, key: &ObjectKey, stakes: Box<[Stake]>) {
        let again: Vec<Id> = self.of(kind, key).filter(|id| self.by_object[id].stakes == stakes).collect();
        again.iter().for_each(|id| self.drop(id));
        if self.sizes.get(&key.namespace).copied().unwrap_or_default() + stakes.len() > SHARE {
            return;
        }
        while self.size + stakes.len() > LARGEST && !self.by_end.is_empty() {
            self.drop_oldest();
        }
        *self.sizes.entry(key.namespace.clone()).or_default() += stakes.len();
        self.size += stakes.len();
        self.made += 1;
        // Reservations have no precedence among each other: there are never two of the
        // same but by one object, which are told apart by a number.
        let holder = Holder { created: self.made.to_string().into(), key: key.clone(), kind };
        self.claims.insert(&holder, &stakes);
        let (id, until) = ((kind, key.clone(), self.made), now + LASTS);
        self.by_end.insert((until, id.clone()));
        self.by_object.insert(id, Reservation { holder, stakes, made: now, until });
    }

    /// The reservations of one object.
    fn of(&self, kind: Kind, key: &ObjectKey) -> impl Iterator<Item = Id> {
        let all = (kind, key.clone(), 0)..=(kind, key.clone(), u64::MAX);
        self.by_object.range(all).map(|(id, _)| id.clone())
    }

    /// An object shows up with these claims: what was reserved for it is its own
    /// soon, unless it is another state of the object.
    pub fn seen(&mut self, kind: Kind, key: &ObjectKey, stakes: &[Stake]) {
        let all = (kind, key.clone(), 0)..=(kind, key.clone(), u64::MAX);
        let mut reservations = self.by_object.range_mut(all).peekable();
        if reservations.peek().is_none() {
            return;
        }
        let has: BTreeSet<Stake> = stakes.iter().copied().collect();
        for (id, reservation) in reservations {
            if reservation.stakes.iter().all(|stake| has.contains(stake)) {
                self.by_end.remove(&(reservation.until, id.clone()));
                reservation.until = reservation.made + AT_LEAST;
                self.by_end.insert((reservation.until, id.clone()));
            }
        }
    }

    /// Ends what has lasted for long enough.
    pub fn expire(&mut self, now: Mono) {
        while self.by_end.first().is_some_and(|(until, _)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.by_end.first().cloned() {
            self.drop(&id);
        }
    }

    fn drop(&mut self, id: &Id) {
        if let Some(reservation) = self.by_object.remove(id) {
            let namespace = &id.1.namespace;
            self.size -= reservation.stakes.len();
            if let Some(size) = self.sizes.get_mut(namespace) {
                *size -= reservation.stakes.len();
                if *size == 0 {
                    self.sizes.remove(namespace);
                }
            }
            self.claims.remove(&reservation.holder, &reservation.stakes);
            self.by_end.remove(&(reservation.until, id.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::claims::{Interest, Slot};

    use super::*;

    fn stake(slot: &str) -> Stake {
        Stake { slot: Slot::of(slot), interest: Interest { takes: 1, bars: 1 } }
    }

    fn holds(reserved: &Reserved, slot: &str) -> Vec<String> {
        reserved.meeting(stake(slot)).map(|holder| holder.key.to_string()).collect()
    }

    #[test]
    fn a_reservation_lasts_until_the_object_shows_up_as_it_was_admitted() {
        let mut reserved = Reserved::default();
        let (now, kind, key) = (Mono(1), Kind::ApiRoute, ObjectKey::new("n", "a"));
        reserved.put(now, kind, &key, Box::new([stake("x"), stake("y")]));
        assert_eq!(holds(&reserved, "x"), ["n/a"]);
        reserved.seen(kind, &key, &[stake("x")]);
        reserved.seen(kind, &ObjectKey::new("n", "b"), &[stake("x"), stake("y")]);
        assert_eq!(holds(&reserved, "y"), ["n/a"], "an older state, another object");
        reserved.seen(kind, &key, &[stake("z"), stake("y"), stake("x")]);
        // It may be a state from before what was admitted, with one to follow that
        // claims nothing: only a while later it is certain.
        reserved.seen(kind, &key, &[]);
        reserved.expire(now + AT_LEAST / 2);
        assert_eq!(holds(&reserved, "y"), ["n/a"]);
        reserved.expire(now + AT_LEAST);
        assert!(holds(&reserved, "x").is_empty() && reserved.claims.is_empty() && reserved.by_end.is_empty());
    }

    #[test]
    fn a_reservation_ends_by_itself_and_all_of_an_object_count() {
        let mut reserved = Reserved::default();
        let (now, kind, key) = (Mono(1), Kind::ApiRoute, ObjectKey::new("n", "a"));
        reserved.put(now, kind, &key, Box::new([stake("x")]));
        let later = now + LASTS / 2;
        reserved.put(later, kind, &key, Box::new([stake("y")]));
        assert_eq!(holds(&reserved, "x"), ["n/a"], "which of the two writes comes last, nobody knows");
        reserved.seen(kind, &key, &[stake("z")]);
        reserved.put(later, kind, &key, Box::new([stake("y")]));
        assert_eq!((holds(&reserved, "y"), reserved.size), (vec!["n/a".to_owned()], 2), "tried again");
        reserved.expire(now + LASTS);
        assert!(holds(&reserved, "x").is_empty());
        assert_eq!(holds(&reserved, "y"), ["n/a"]);
        reserved.expire(later + LASTS);
        assert!(reserved.by_object.is_empty() && reserved.claims.is_empty());
    }

    #[test]
    fn their_number_has_a_bound() {
        let mut reserved = Reserved::default();
        let most = LARGEST / 1_000;
        for number in 0..=most {
            let key = ObjectKey::new(format!("n-{}", number % 20), number.to_string());
            let stakes = (0..1_000).map(|place| stake(&format!("{number}-{place}"))).collect();
            reserved.put(Mono(number as u64), Kind::ApiRoute, &key, stakes);
        }
        assert_eq!((reserved.by_object.len(), reserved.by_end.len(), reserved.size), (most, most, LARGEST));
        assert!(holds(&reserved, "0-0").is_empty() && holds(&reserved, "1-0") == ["n-1/1"]);
        reserved.expire(Mono(u64::MAX));
        assert!(reserved.size == 0 && reserved.sizes.is_empty() && reserved.claims.is_empty());
    }

    #[test]
    fn a_namespace_takes_nothing_from_what_others_reserved() {
        let mut reserved = Reserved::default();
        let (kind, quiet) = (Kind::ApiRoute, ObjectKey::new("quiet", "a"));
        reserved.put(Mono(1), kind, &quiet, Box::new([stake("x")]));
        for number in 0..LARGEST / 1_000 + 1 {
            let key = ObjectKey::new("loud", number.to_string());
            let stakes = (0..1_000).map(|place| stake(&format!("{number}-{place}"))).collect();
            reserved.put(Mono(2), kind, &key, stakes);
        }
        assert_eq!(holds(&reserved, "x"), ["quiet/a"]);
        assert_eq!(reserved.size, SHARE + 1);
    }
}
