//! Which change reached which gateway when. Pure: the demo feeds it with what
//! it did and with what gateways say they applied.

use std::collections::{BTreeMap, BTreeSet};

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

/// The book.
#[derive(Debug, Default)]
pub struct Ledger {
    gateways: BTreeSet<String>,
    entries: Vec<Entry>,
    /// Entries that some gateway still lacks, by object.
    open: BTreeMap<ObjectId, Vec<usize>>,
    /// The newest applications by object and gateway: an application may be
    /// heard of before the API server's answer to the change.
    recent: BTreeMap<ObjectId, BTreeMap<String, Vec<Application>>>,
    /// Objects that a tenant deleted.
    deleted: BTreeSet<ObjectId>,
    /// Removals heard of, to be judged when all deletions are known.
    removals: BTreeSet<(String, ObjectId)>,
}

impl Ledger {
    /// A book for these gateways.
    pub fn new(gateways: impl IntoIterator<Item = String>) -> Self {
        Ledger { gateways: gateways.into_iter().collect(), ..Ledger::default() }
    }

    /// A tenant's change was answered at this time.
    pub fn changed(&mut self, change: &Change, answered: f64) {
        let object: ObjectId = (change.kind.to_owned(), change.key.clone());
        let mut waiting = self.gateways.clone();
        if change.deed == Deed::Deleted {
            self.deleted.insert(object.clone());
            // A gateway that was away need never hear of an object that came
            // and went meanwhile.
            let absent = |gateway: &String| !self.has(gateway, &object);
            waiting.retain(|gateway| !absent(gateway));
            for index in self.open.remove(&object).unwrap_or_default() {
                self.entries[index].waiting.clear();
            }
        }
        let mut entry = Entry { deed: change.deed, answered, waiting, slowest: 0.0 };
        let heard = self.recent.get(&object).into_iter().flat_map(BTreeMap::values).flatten();
        for application in heard {
            settle(&mut entry, application);
        }
        if !entry.waiting.is_empty() {
            self.open.entry(object).or_default().push(self.entries.len());
        }
        self.entries.push(entry);
    }

    /// A gateway applied something.
    pub fn applied(&mut self, application: Application) {
        let object: ObjectId = (application.kind.clone(), application.key.clone());
        if application.generation.is_none() {
            self.removals.insert((application.gateway.clone(), object.clone()));
        }
        if let Some(open) = self.open.get_mut(&object) {
            open.retain(|&index| {
                settle(&mut self.entries[index], &application);
                !self.entries[index].waiting.is_empty()
            });
            if open.is_empty() {
                self.open.remove(&object);
            }
        }
        let heard = self.recent.entry(object).or_default().entry(application.gateway.clone()).or_default();
        heard.push(application);
        if heard.len() > 4 {
            heard.remove(0);
        }
    }

    /// Whether a gateway has the object, as far as heard.
    fn has(&self, gateway: &str, object: &ObjectId) -> bool {
        let heard = self.recent.get(object).and_then(|gateways| gateways.get(gateway));
        heard.and_then(|all| all.last()).is_some_and(|last| last.generation.is_some())
    }

    /// How many changes were made.
    pub fn changes(&self) -> usize {
        self.entries.len()
    }

    /// How many changes some gateway still lacks.
    pub fn open(&self) -> usize {
        self.open.values().map(Vec::len).sum()
    }

    /// The gateway that lacks the most changes, and how many.
    pub fn furthest_behind(&self) -> Option<(&str, usize)> {
        let mut lacking: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in self.open.values().flatten().filter_map(|index| self.entries.get(*index)) {
            for gateway in &entry.waiting {
                *lacking.entry(gateway).or_default() += 1;
            }
        }
        lacking.into_iter().max_by_key(|(_, count)| *count)
    }

    /// Whether the `index`-th change is everywhere, and how long that took in
    /// milliseconds.
    pub fn everywhere(&self, index: usize) -> Option<f64> {
        let entry = self.entries.get(index)?;
        entry.waiting.is_empty().then_some(entry.slowest)
    }

    /// Removals that no tenant asked for.
    pub fn spurious_deletions(&self) -> usize {
        self.removals.iter().filter(|(_, object)| !self.deleted.contains(object)).count()
    }

    /// From the API server's answer to the last gateway, over all changes that
    /// are everywhere.
    pub fn propagation(&self) -> Quantiles {
        let done = self.entries.iter().filter(|entry| entry.waiting.is_empty());
        quantiles(done.map(|entry| entry.slowest).collect())
    }

    /// An object that some gateway lacks, for messages.
    pub fn missing(&self) -> Option<String> {
        let (object, indices) = self.open.first_key_value()?;
        let entry = self.entries.get(*indices.first()?)?;
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
    fn quantiles_of_nothing_and_of_some() {
        assert_eq!(quantiles(Vec::new()), Quantiles::default());
        let hundred = quantiles((1..=100).rev().map(f64::from).collect());
        assert_eq!(hundred, Quantiles { p50: 50.0, p99: 99.0, max: 100.0 });
    }
}
