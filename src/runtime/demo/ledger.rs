//! Which change reached which gateway when. Pure: the demo feeds it with what
//! it did and with what gateways say they applied.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::workload::{Change, Deed};

/// Something that a gateway says it applied.
#[derive(Debug, Clone)]
pub struct Application {
    /// The gateway.
    pub gateway: String,
    /// Kind of the resource.
    pub kind: String,
    /// `namespace/name`
    pub key: String,
    /// Its generation, or `None` when it was removed.
    pub generation: Option<i64>,
    /// When, in milliseconds since 1970.
    pub at: f64,
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Half were faster.
    pub p50: f64,
    /// All but one in a hundred were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

type ObjectId = (String, String);

/// A change that was made.
#[derive(Debug)]
struct Entry {
    deed: Deed,
    answered: f64,
    waiting: BTreeSet<String>,
    slowest: f64,
}

/// How much is remembered of what is done: a demo may go on for days.
const KEPT: usize = 20_000;

/// The book. Of what is done it remembers the last [`KEPT`] of each sort, so
/// that it does not grow.
#[derive(Debug, Default)]
pub struct Ledger {
    gateways: BTreeSet<String>,
    changes: usize,
    /// Changes that some gateway still lacks, by number; the oldest are given
    /// up when there are too many, and count as open for ever.
    entries: BTreeMap<usize, Entry>,
    given_up: usize,
    /// Their numbers, by object.
    open: BTreeMap<ObjectId, Vec<usize>>,
    /// How long the last changes that are everywhere took, by number.
    done: BTreeMap<usize, f64>,
    /// The newest applications by object and gateway: an application may be
    /// heard of before the API server's answer to the change. Of objects that
    /// are deleted everywhere there is nothing.
    recent: BTreeMap<ObjectId, BTreeMap<String, Vec<Application>>>,
    /// The last objects that somebody deleted, oldest first, and the same as a set.
    deleted_in_order: VecDeque<ObjectId>,
    deleted: BTreeSet<ObjectId>,
    /// Removals of objects of which no deletion is known yet.
    removals: BTreeSet<(String, ObjectId)>,
    /// Removals of objects that nobody deleted.
    spurious: usize,
}

impl Ledger {
    /// A book for these gateways.
    pub fn new(gateways: impl IntoIterator<Item = String>) -> Self {
        Ledger { gateways: gateways.into_iter().collect(), ..Ledger::default() }
    }

    /// A tenant's change was answered at this time.
    pub fn changed(&mut self, change: &Change, answered: f64) {
        let object: ObjectId = (change.kind.to_owned(), change.key.clone());
        let number = self.changes;
        self.changes += 1;
        let mut waiting = self.gateways.clone();
        if change.deed == Deed::Deleted {
            // A gateway that was away need never hear of an object that came
            // and went meanwhile.
            waiting.retain(|gateway| self.has(gateway, &object));
            self.deleted(&object);
        }
        let mut entry = Entry { deed: change.deed, answered, waiting, slowest: 0.0 };
        let heard = self.recent.get(&object).into_iter().flat_map(BTreeMap::values).flatten();
        for application in heard {
            settle(&mut entry, application);
        }
        if entry.waiting.is_empty() {
            self.is_everywhere(number, &entry, &object);
            return;
        }
        self.open.entry(object).or_default().push(number);
        self.entries.insert(number, entry);
        if self.entries.len() > KEPT {
            self.entries.pop_first();
            self.given_up += 1;
        }
    }

    /// Somebody deleted the object: its removals were asked for, and what was
    /// open about it need not reach anybody any more.
    fn deleted(&mut self, object: &ObjectId) {
        for number in self.open.remove(object).unwrap_or_default() {
            if let Some(entry) = self.entries.remove(&number) {
                self.is_everywhere(number, &entry, object);
            }
        }
        self.removals.retain(|(_, removed)| removed != object);
        if self.deleted.insert(object.clone()) {
            self.deleted_in_order.push_back(object.clone());
        }
        if self.deleted_in_order.len() > KEPT
            && let Some(oldest) = self.deleted_in_order.pop_front()
        {
            self.deleted.remove(&oldest);
        }
    }

    fn is_everywhere(&mut self, number: usize, entry: &Entry, object: &ObjectId) {
        self.done.insert(number, entry.slowest);
        if self.done.len() > KEPT {
            self.done.pop_first();
        }
        if entry.deed == Deed::Deleted && !self.open.contains_key(object) {
            self.recent.remove(object);
        }
    }

    /// A gateway applied something.
    pub fn applied(&mut self, application: Application) {
        let object: ObjectId = (application.kind.clone(), application.key.clone());
        if application.generation.is_none() && !self.deleted.contains(&object) {
            self.removals.insert((application.gateway.clone(), object.clone()));
        }
        let heard =
            self.recent.entry(object.clone()).or_default().entry(application.gateway.clone()).or_default();
        heard.push(application.clone());
        if heard.len() > 4 {
            heard.remove(0);
        }
        let mut still = Vec::new();
        let mut everywhere = Vec::new();
        for number in self.open.remove(&object).unwrap_or_default() {
            let Some(entry) = self.entries.get_mut(&number) else { continue };
            settle(entry, &application);
            if entry.waiting.is_empty() { everywhere.push(number) } else { still.push(number) }
        }
        if !still.is_empty() {
            self.open.insert(object.clone(), still);
        }
        for number in everywhere {
            if let Some(entry) = self.entries.remove(&number) {
                self.is_everywhere(number, &entry, &object);
            }
        }
    }

    /// Whether a gateway has the object, as far as heard.
    fn has(&self, gateway: &str, object: &ObjectId) -> bool {
        let heard = self.recent.get(object).and_then(|gateways| gateways.get(gateway));
        heard.and_then(|all| all.last()).is_some_and(|last| last.generation.is_some())
    }

    /// How many changes were made.
    pub fn changes(&self) -> usize {
        self.changes
    }

    /// How many changes some gateway still lacks.
    pub fn open(&self) -> usize {
        self.entries.len() + self.given_up
    }

    /// The gateway that lacks the most changes, and how many.
    pub fn furthest_behind(&self) -> Option<(&str, usize)> {
        let mut lacking: BTreeMap<&str, usize> = BTreeMap::new();
        for gateway in self.entries.values().flat_map(|entry| &entry.waiting) {
            *lacking.entry(gateway).or_default() += 1;
        }
        lacking.into_iter().max_by_key(|(_, count)| *count)
    }

    /// Whether the `index`-th change is everywhere, and how long that took in
    /// milliseconds.
    pub fn everywhere(&self, index: usize) -> Option<f64> {
        self.done.get(&index).copied()
    }

    /// Removals that no tenant asked for.
    pub fn spurious_deletions(&self) -> usize {
        self.spurious + self.removals.len()
    }

    /// Objects that gateways removed and no tenant deleted: who knows more says
    /// whether somebody else asked for it, with [`Ledger::judge`].
    pub fn suspicious(&self) -> BTreeSet<(String, String)> {
        self.removals.iter().map(|(_, object)| object.clone()).collect()
    }

    /// Whether the removals of an object were asked for, by somebody else than
    /// a tenant.
    pub fn judge(&mut self, object: &(String, String), asked_for: bool) {
        if asked_for {
            self.deleted(object);
        } else {
            let before = self.removals.len();
            self.removals.retain(|(_, removed)| removed != object);
            self.spurious += before - self.removals.len();
        }
    }

    /// From the API server's answer to the last gateway, over the last changes
    /// that are everywhere.
    pub fn propagation(&self) -> Quantiles {
        quantiles(self.done.values().copied().collect())
    }

    /// An object that some gateway lacks, for messages.
    pub fn missing(&self) -> Option<String> {
        let (object, numbers) = self.open.first_key_value()?;
        let entry = self.entries.get(numbers.first()?)?;
        Some(format!("{} {} ({:?}) at {:?}", object.0, object.1, entry.deed, entry.waiting))
    }
}

fn settle(entry: &mut Entry, application: &Application) {
    let has_it = match (entry.deed, application.generation) {
        (Deed::Wrote { generation }, Some(applied)) => applied >= generation,
        (Deed::Deleted, None) => true,
        _ => false,
    };
    if has_it && entry.waiting.remove(&application.gateway) {
        entry.slowest = entry.slowest.max(application.at - entry.answered);
    }
}

/// The quantiles of some durations.
pub fn quantiles(mut all: Vec<f64>) -> Quantiles {
    all.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a list of some thousands"
    )]
    let at =
        |share: f64| all.get(((all.len() as f64 * share).ceil() as usize).max(1) - 1).copied().unwrap_or(0.0);
    Quantiles { p50: at(0.5), p99: at(0.99), max: at(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(key: &str, generation: i64) -> Change {
        Change { kind: "APIRoute", key: key.to_owned(), deed: Deed::Wrote { generation } }
    }

    fn application(gateway: &str, key: &str, generation: Option<i64>, at: f64) -> Application {
        Application {
            gateway: gateway.to_owned(),
            kind: "APIRoute".to_owned(),
            key: key.to_owned(),
            generation,
            at,
        }
    }

    fn ledger() -> Ledger {
        Ledger::new(["g0".to_owned(), "g1".to_owned()])
    }

    #[test]
    fn a_change_is_everywhere_when_the_last_gateway_has_it() {
        let mut book = ledger();
        book.applied(application("g0", "n/a", Some(2), 99.0)); // heard before the answer
        book.changed(&wrote("n/a", 2), 100.0);
        assert_eq!((book.open(), book.everywhere(0)), (1, None));
        book.applied(application("g1", "n/a", Some(1), 101.0)); // an older state does not count
        assert_eq!(book.open(), 1);
        book.applied(application("g1", "n/a", Some(3), 107.0)); // a newer one does
        assert_eq!((book.open(), book.everywhere(0)), (0, Some(7.0)));
    }

    #[test]
    fn what_came_and_went_while_a_gateway_was_away_is_not_waited_for() {
        let mut book = ledger();
        book.changed(&wrote("n/a", 1), 1.0);
        book.applied(application("g0", "n/a", Some(1), 2.0));
        book.changed(&Change { kind: "APIRoute", key: "n/a".to_owned(), deed: Deed::Deleted }, 3.0);
        assert_eq!((book.everywhere(0), book.everywhere(1)), (Some(1.0), None), "g0 still has it");
        book.applied(application("g0", "n/a", None, 4.0));
        assert_eq!((book.open(), book.everywhere(1)), (0, Some(1.0)));
    }

    #[test]
    fn a_removal_is_spurious_unless_a_tenant_deleted_the_object() {
        let mut book = ledger();
        book.applied(application("g1", "n/a", Some(1), 0.5));
        book.applied(application("g0", "n/a", None, 1.0));
        assert_eq!(book.spurious_deletions(), 1);
        book.changed(&Change { kind: "APIRoute", key: "n/a".to_owned(), deed: Deed::Deleted }, 0.5);
        assert_eq!(book.spurious_deletions(), 0);
        assert_eq!(book.open(), 1, "the other gateway still has it");
    }

    #[test]
    fn a_removal_that_a_person_asked_for_is_not_spurious() {
        let mut book = ledger();
        for (gateway, key) in [("g0", "n/a"), ("g1", "n/a"), ("g0", "n/b")] {
            book.applied(application(gateway, key, None, 1.0));
        }
        assert_eq!(book.spurious_deletions(), 3);
        let suspicious = book.suspicious();
        assert_eq!(suspicious.len(), 2);
        for object in suspicious {
            book.judge(&object, object.1 == "n/a");
        }
        assert_eq!((book.spurious_deletions(), book.suspicious().len()), (1, 0));
        book.applied(application("g2", "n/a", None, 2.0));
        assert_eq!(book.spurious_deletions(), 1, "a gateway that heard of it later");
    }

    #[test]
    fn the_book_does_not_grow_with_the_time() {
        let mut book = ledger();
        for number in 0..KEPT as i64 + 2000 {
            let (key, at) = (format!("n/{number}"), f64::from(u32::try_from(number).unwrap()));
            book.changed(&wrote(&key, 1), at);
            for gateway in ["g0", "g1"] {
                book.applied(application(gateway, &key, Some(1), at));
            }
            book.changed(&Change { kind: "APIRoute", key: key.clone(), deed: Deed::Deleted }, at);
            for gateway in ["g0", "g1"] {
                book.applied(application(gateway, &key, None, at));
            }
        }
        assert_eq!((book.open(), book.spurious_deletions(), book.changes()), (0, 0, 2 * (KEPT + 2000)));
        assert_eq!(
            (book.recent.len(), book.removals.len(), book.entries.len(), book.open.len()),
            (0, 0, 0, 0)
        );
        assert_eq!((book.done.len(), book.deleted.len(), book.deleted_in_order.len()), (KEPT, KEPT, KEPT));
    }

    #[test]
    fn quantiles_of_nothing_and_of_some() {
        assert_eq!(quantiles(Vec::new()), Quantiles::default());
        let hundred = quantiles((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred, Quantiles { p50: 50.0, p99: 99.0, max: 100.0 });
    }
}
