//! What was admitted a moment ago and has not shown up yet.
//!
//! Between the answer to a review and the event of a watch an object is nowhere to
//! be seen, and a second one with the same match would be admitted as well. So who
//! decides keeps what it admitted in mind until the object shows up, or until so
//! much time has passed that it will not come any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::claims::{Claim, Claims, Holder};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::time::Mono;

/// How long a reservation lasts: an API server may wait for other webhooks before
/// it writes what was admitted, though rarely for longer than this.
pub(super) const LASTS: Duration = Duration::from_secs(15);

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
    by_object: BTreeMap<(Kind, ObjectKey), Reservation>,
    /// By the end of a reservation; the same as in `by_object`.
    by_end: BTreeSet<(Mono, Kind, ObjectKey)>,
    /// How many claims there are in `by_object`, by namespace and together.
    sizes: BTreeMap<Arc<str>, usize>,
    size: usize,
}

#[derive(Debug)]
struct Reservation {
    holder: Holder,
    claims: Vec<Claim>,
    until: Mono,
}

impl Reserved {
    /// Those whose reservations meet a claim.
    pub fn meeting(&self, claim: &Claim) -> impl Iterator<Item = &Holder> {
        self.claims.meeting(claim).flatten()
    }

    /// Reserves what an object claims, in place of what was reserved for it.
    pub fn put(&mut self, now: Mono, kind: Kind, key: &ObjectKey, claims: Vec<Claim>) {
        self.drop(kind, key);
        if self.sizes.get(&key.namespace).copied().unwrap_or_default() + claims.len() > SHARE {
            return;
        }
        while self.size + claims.len() > LARGEST && !self.by_end.is_empty() {
            self.drop_oldest();
        }
        *self.sizes.entry(key.namespace.clone()).or_default() += claims.len();
        self.size += claims.len();
        // Reservations have no precedence among each other: there are never two of the same.
        let holder = Holder { created: "".into(), key: key.clone(), kind };
        self.claims.insert(&holder, &claims);
        let until = now + LASTS;
        self.by_end.insert((until, kind, key.clone()));
        self.by_object.insert((kind, key.clone()), Reservation { holder, claims, until });
    }

    /// An object shows up with these claims: what was reserved for it is its own
    /// now, unless it is an older state of the object.
    pub fn seen(&mut self, kind: Kind, key: &ObjectKey, claims: &[Claim]) {
        let Some(reservation) = self.by_object.get(&(kind, key.clone())) else { return };
        let has = |reserved: &Claim| {
            claims.iter().any(|claim| (&claim.slot, claim.interest) == (&reserved.slot, reserved.interest))
        };
        if reservation.claims.iter().all(has) {
            self.drop(kind, key);
        }
    }

    /// Ends what has lasted for long enough.
    pub fn expire(&mut self, now: Mono) {
        while self.by_end.first().is_some_and(|(until, ..)| *until <= now) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, kind, key)) = self.by_end.first().cloned() {
            self.drop(kind, &key);
        }
    }

    fn drop(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(reservation) = self.by_object.remove(&(kind, key.clone())) {
            self.size -= reservation.claims.len();
            if let Some(size) = self.sizes.get_mut(&key.namespace) {
                *size -= reservation.claims.len();
                if *size == 0 {
                    self.sizes.remove(&key.namespace);
                }
            }
            self.claims.remove(&reservation.holder, &reservation.claims);
            self.by_end.remove(&(reservation.until, kind, key.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_core::claims::Interest;

    use super::*;

    fn claim(slot: &str) -> Claim {
        let interest = Interest { takes: 1, bars: 1 };
        Claim { slot: slot.into(), interest, field: "f".into(), words: slot.into() }
    }

    fn holds(reserved: &Reserved, slot: &str) -> Vec<String> {
        reserved.meeting(&claim(slot)).map(|holder| holder.key.to_string()).collect()
    }

    #[test]
    fn a_reservation_lasts_until_the_object_shows_up_as_it_was_admitted() {
        let mut reserved = Reserved::default();
        let (now, kind, key) = (Mono(1), Kind::ApiRoute, ObjectKey::new("n", "a"));
        reserved.put(now, kind, &key, vec![claim("x"), claim("y")]);
        assert_eq!(holds(&reserved, "x"), ["n/a"]);
        reserved.seen(kind, &key, &[claim("x")]);
        reserved.seen(kind, &ObjectKey::new("n", "b"), &[claim("x"), claim("y")]);
        assert_eq!(holds(&reserved, "y"), ["n/a"], "an older state, another object");
        reserved.seen(kind, &key, &[claim("z"), claim("y"), claim("x")]);
        assert!(holds(&reserved, "x").is_empty() && reserved.claims.is_empty() && reserved.by_end.is_empty());
    }

    #[test]
    fn a_reservation_ends_by_itself_and_the_last_one_of_an_object_counts() {
        let mut reserved = Reserved::default();
        let (now, kind, key) = (Mono(1), Kind::ApiRoute, ObjectKey::new("n", "a"));
        reserved.put(now, kind, &key, vec![claim("x")]);
        let later = now + LASTS / 2;
        reserved.put(later, kind, &key, vec![claim("y")]);
        assert!(holds(&reserved, "x").is_empty());
        reserved.expire(now + LASTS);
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
            let claims = (0..1_000).map(|place| claim(&format!("{number}-{place}"))).collect();
            reserved.put(Mono(number as u64), Kind::ApiRoute, &key, claims);
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
        reserved.put(Mono(1), kind, &quiet, vec![claim("x")]);
        for number in 0..LARGEST / 1_000 + 1 {
            let key = ObjectKey::new("loud", number.to_string());
            let claims = (0..1_000).map(|place| claim(&format!("{number}-{place}"))).collect();
            reserved.put(Mono(2), kind, &key, claims);
        }
        assert_eq!(holds(&reserved, "x"), ["quiet/a"]);
        assert_eq!(reserved.size, SHARE + 1);
    }
}
