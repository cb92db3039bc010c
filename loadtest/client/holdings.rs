//! What one gateway holds, and whether it was led there rightly.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::messages::Resource;

/// What no light gateway can load when it stands in a spec: Go's quoting of regular
/// expressions, as JSON spells its beginning. Published gateways can, so nobody
/// refuses it before.
const UNLOADABLE: &str = r"\\Q";

/// Names an object among all kinds and namespaces.
pub fn key(kind: u64, namespace: &str, name: &str) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&kind.to_le_bytes());
    hash.update(namespace.as_bytes());
    hash.update(b"/");
    hash.update(name.as_bytes());
    hash.digest()
}

/// Keys are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A map by object key.
pub type ByKey<V> = HashMap<u64, V, BuildHasherDefault<AsIs>>;

/// One object as a gateway has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Hash of the uid.
    pub uid: u64,
    /// `metadata.generation`
    pub generation: u64,
    /// Hash of the spec's bytes.
    pub spec: u64,
}

impl Held {
    fn of(resource: &Resource<'_>) -> Self {
        Held {
            uid: xxh3_64(resource.uid.as_bytes()),
            generation: resource.generation,
            spec: xxh3_64(resource.spec),
        }
    }
}

/// What must never happen to a gateway, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Violations {
    /// An object went back to an older generation (I2).
    pub regressions: u64,
    /// An object that was gone came back as it was or older (I2).
    pub reappeared: u64,
    /// An object went that nobody had deleted (I4).
    pub unasked_removals: u64,
}

impl Violations {
    /// Whether there is none.
    pub fn none(&self) -> bool {
        *self == Violations::default()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Violations) {
        self.regressions += other.regressions;
        self.reappeared += other.reappeared;
        self.unasked_removals += other.unasked_removals;
    }
}

/// Something held that cannot be loaded.
#[derive(Debug)]
struct Bad {
    kind: u64,
    name: String,
    /// What was held before, which is no way back.
    before: Option<Held>,
}

/// Everything that one gateway holds.
#[derive(Debug, Default)]
pub struct Holdings {
    held: ByKey<Held>,
    bad: ByKey<Bad>,
    /// The last state of what is gone.
    gone: ByKey<Held>,
    violations: Violations,
}

impl Holdings {
    /// Takes a resource in and returns its key.
    pub fn upsert(&mut self, resource: &Resource<'_>) -> u64 {
        let key = key(resource.kind, resource.namespace, resource.name);
        let new = Held::of(resource);
        let older = |before: &Held| before.uid == new.uid && before.generation > new.generation;
        let held = self.held.insert(key, new);
        // What could not be loaded was never in force.
        let before = match self.bad.remove(&key) {
            Some(bad) => bad.before,
            None => held,
        };
        let bad = memchr::memmem::find(resource.spec, UNLOADABLE.as_bytes()).is_some();
        if bad {
            let name = format!("{}/{}", resource.namespace, resource.name);
            self.bad.insert(key, Bad { kind: resource.kind, name, before });
        }
        match before {
            Some(before) => self.violations.regressions += u64::from(older(&before)),
            None if bad => {}
            None => {
                if let Some(before) = self.gone.remove(&key) {
                    let back = before.uid == new.uid && before.generation >= new.generation;
                    self.violations.reappeared += u64::from(back);
                }
            }
        }
        key
    }

    /// Removes a resource; `asked` says whether a tenant deleted it.
    pub fn remove(&mut self, key: u64, asked: bool) {
        let Some(held) = self.held.remove(&key) else { return };
        let before = match self.bad.remove(&key) {
            Some(bad) => bad.before,
            None => Some(held),
        };
        if let Some(before) = before {
            self.violations.unasked_removals += u64::from(!asked);
            self.gone.insert(key, before);
        }
    }

    /// What keeps a kind from being loaded, in the words of a published gateway.
    pub fn wrong(&self, kind: u64) -> Option<String> {
        let bad = self.bad.values().filter(|bad| bad.kind == kind).min_by(|a, b| a.name.cmp(&b.name))?;
        Some(format!("failed to compile route {}: unrecognized escape sequence", bad.name))
    }

    /// Whether something of this key is held and loaded.
    pub fn in_force(&self, key: u64) -> bool {
        self.held.contains_key(&key) && !self.bad.contains_key(&key)
    }

    /// Removes what a full synchronisation did not name.
    pub fn retain(&mut self, named: &ByKey<()>, asked: impl Fn(u64) -> bool) {
        let missing: Vec<u64> = self.held.keys().filter(|key| !named.contains_key(key)).copied().collect();
        for key in missing {
            self.remove(key, asked(key));
        }
    }

    /// Forgets everything but what went wrong, as a process that starts again.
    pub fn restart(&mut self) {
        *self = Holdings { violations: self.violations, ..Holdings::default() };
    }

    /// How many resources it holds.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// What it holds.
    pub fn all(&self) -> &ByKey<Held> {
        &self.held
    }

    /// What went wrong so far.
    pub fn violations(&self) -> Violations {
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(uid: &'static str, generation: u64) -> Resource<'static> {
        Resource { kind: 1, name: "r", namespace: "n", uid, generation, spec: b"{}" }
    }

    #[test]
    fn going_back_is_counted_and_going_on_is_not() {
        let mut holdings = Holdings::default();
        for generation in [1, 2, 2, 3] {
            holdings.upsert(&resource("a", generation));
        }
        assert!(holdings.violations().none());
        holdings.upsert(&resource("a", 2));
        assert_eq!(holdings.violations().regressions, 1);
        // Another object of the same name starts anew.
        holdings.upsert(&resource("b", 1));
        assert_eq!(holdings.violations().regressions, 1);
    }

    #[test]
    fn a_removal_counts_unless_it_was_asked_for_and_a_return_unless_it_is_news() {
        let mut holdings = Holdings::default();
        let key = holdings.upsert(&resource("a", 2));
        holdings.remove(key, true);
        holdings.upsert(&resource("b", 1));
        assert!(holdings.violations().none());
        holdings.remove(key, false);
        holdings.upsert(&resource("b", 1));
        let found = holdings.violations();
        assert_eq!((found.unasked_removals, found.reappeared), (1, 1));
    }

    #[test]
    fn what_cannot_be_loaded_may_be_put_back_or_removed_and_nothing_older_comes() {
        let bad = |generation| Resource { spec: br#"{"regex":"\\Qa\\E"}"#, ..resource("a", generation) };
        let mut holdings = Holdings::default();
        let key = holdings.upsert(&bad(1));
        assert_eq!(holdings.wrong(1).unwrap(), "failed to compile route n/r: unrecognized escape sequence");
        assert!(holdings.wrong(3).is_none() && !holdings.in_force(key));
        holdings.remove(key, false);
        holdings.upsert(&resource("a", 2));
        holdings.upsert(&bad(3));
        holdings.upsert(&resource("a", 2));
        assert!(holdings.violations().none() && holdings.in_force(key) && holdings.wrong(1).is_none());
        holdings.upsert(&bad(3));
        holdings.upsert(&resource("a", 1));
        assert_eq!(holdings.violations().regressions, 1);
    }

    #[test]
    fn a_full_synchronisation_removes_what_it_does_not_name() {
        let mut holdings = Holdings::default();
        let key = holdings.upsert(&resource("a", 1));
        holdings.retain(&ByKey::from_iter([(key, ())]), |_| false);
        assert_eq!(holdings.len(), 1);
        holdings.retain(&ByKey::default(), |_| true);
        assert_eq!((holdings.len(), holdings.violations().none()), (0, true));
    }
}
