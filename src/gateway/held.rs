//! The resources of one kind that a gateway holds, and which of them are
//! loaded. The two differ when one of them is bad (wire §2 point 13):
//!
//! - Routes are loaded one after the other. The first bad one (an unusable
//!   regular expression, or a name that an earlier one has) stops the loading:
//!   those after it are gone until it is repaired.
//! - Backends are loaded all or none: with a bad one among them the old set
//!   stays in force.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::resource::Resource;

/// How a kind is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loading {
    /// In order, up to the first bad one.
    UpToTheFirstBad,
    /// Only if all are good; otherwise what was loaded before stays.
    AllOrNone,
}

/// Held resources of one kind.
#[derive(Debug)]
pub(crate) struct HeldSet {
    loading: Loading,
    /// Keyed by `namespace/name`, the order in which increments load.
    held: BTreeMap<Arc<str>, Arc<Resource>>,
    /// How many of `held` have a name. Together with `bad` it answers in
    /// constant time whether everything can be loaded.
    names: HashMap<Arc<str>, u32>,
    duplicates: usize,
    bad: usize,
    loaded: Loaded,
}

#[derive(Debug)]
enum Loaded {
    /// Everything that is held.
    All,
    /// These, because something bad is held or was.
    Only(Vec<Arc<Resource>>),
}

impl HeldSet {
    pub(crate) fn new(loading: Loading) -> Self {
        HeldSet {
            loading,
            held: BTreeMap::new(),
            names: HashMap::new(),
            duplicates: 0,
            bad: 0,
            loaded: Loaded::All,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn held(&self) -> &BTreeMap<Arc<str>, Arc<Resource>> {
        &self.held
    }

    /// What is in force, in no particular order.
    pub(crate) fn loaded(&self) -> Box<dyn Iterator<Item = &Arc<Resource>> + '_> {
        match &self.loaded {
            Loaded::All => Box::new(self.held.values()),
            Loaded::Only(some) => Box::new(some.iter()),
        }
    }

    /// Whether everything held is in force.
    pub(crate) fn fully_loaded(&self) -> bool {
        matches!(self.loaded, Loaded::All)
    }

    /// Adds or replaces one resource and loads. `Err` is why something is not
    /// loaded; the resource is held nevertheless. Returns what it replaced.
    pub(crate) fn upsert(&mut self, resource: Arc<Resource>) -> (Option<Arc<Resource>>, Result<(), String>) {
        self.count(&resource, true);
        let key = resource.key.clone();
        let old = self.held.insert(key.clone(), resource);
        if let Some(old) = &old {
            self.count(old, false);
        }
        let result = self.load(&key, old.as_ref());
        (old, result)
    }

    /// Removes one resource and loads the rest.
    pub(crate) fn remove(&mut self, key: &str) -> (Option<Arc<Resource>>, Result<(), String>) {
        let old = self.held.remove(key);
        if let Some(old) = &old {
            self.count(old, false);
        }
        let result = self.load(key, old.as_ref());
        (old, result)
    }

    /// Replaces everything, in the order of a snapshot. With `load` unset an
    /// earlier kind has failed: what was loaded stays in force.
    pub(crate) fn replace(&mut self, resources: Vec<Arc<Resource>>, load: bool) -> Result<(), String> {
        let before: Vec<Arc<Resource>> = self.loaded().cloned().collect();
        self.held.clear();
        self.names.clear();
        (self.duplicates, self.bad) = (0, 0);
        for resource in &resources {
            self.count(resource, true);
            if let Some(old) = self.held.insert(resource.key.clone(), resource.clone()) {
                self.count(&old, false);
            }
        }
        if !load {
            let same = before.len() == self.held.len()
                && before.iter().all(|old| self.held.get(&old.key).is_some_and(|new| Arc::ptr_eq(old, new)));
            self.loaded = if same { Loaded::All } else { Loaded::Only(before) };
            return Ok(());
        }
        self.load_in_order(&resources, before)
    }

    /// Loads after the resource with this key changed; `old` is what it was.
    fn load(&mut self, key: &str, old: Option<&Arc<Resource>>) -> Result<(), String> {
        if self.flawless() {
            self.loaded = Loaded::All;
            return Ok(());
        }
        let in_order: Vec<Arc<Resource>> = self.held.values().cloned().collect();
        let before = match &mut self.loaded {
            Loaded::Only(some) => std::mem::take(some),
            Loaded::All => {
                in_order.iter().filter(|resource| *resource.key != *key).chain(old).cloned().collect()
            }
        };
        self.load_in_order(&in_order, before)
    }

    fn load_in_order(
        &mut self,
        resources: &[Arc<Resource>],
        before: Vec<Arc<Resource>>,
    ) -> Result<(), String> {
        // The list may name a key twice, which `held` hides: as two routes of
        // the same name it is a duplicate all the same.
        if self.flawless() && resources.len() == self.held.len() {
            self.loaded = Loaded::All;
            return Ok(());
        }
        let mut seen = HashSet::new();
        for (index, resource) in resources.iter().enumerate() {
            let problem = match resource.fault() {
                Some(fault) => fault.to_owned(),
                None if self.loading == Loading::UpToTheFirstBad && !seen.insert(resource.name()) => {
                    "another route has this name; give it a name of its own".to_owned()
                }
                None => continue,
            };
            let message =
                format!("failed to load {} {} ({}): {problem}", resource.kind, resource.key, resource.name());
            self.loaded = Loaded::Only(match self.loading {
                Loading::UpToTheFirstBad => resources[..index].to_vec(),
                Loading::AllOrNone => before,
            });
            return Err(message);
        }
        self.loaded = Loaded::All;
        Ok(())
    }

    fn flawless(&self) -> bool {
        self.bad == 0 && (self.duplicates == 0 || self.loading == Loading::AllOrNone)
    }

    fn count(&mut self, resource: &Resource, added: bool) {
        let name = resource.name();
        let bad = usize::from(resource.fault().is_some());
        if added {
            self.bad += bad;
            let count = self.names.entry(name.clone()).or_insert(0);
            *count += 1;
            self.duplicates += usize::from(*count == 2);
        } else {
            self.bad -= bad;
            if let Some(count) = self.names.get_mut(name) {
                *count -= 1;
                self.duplicates -= usize::from(*count == 1);
                if *count == 0 {
                    self.names.remove(name);
                }
            }
        }
    }
}
