//! Namespaces that change so often that others would feel it.
//!
//! Every change by itself is a message to every gateway. News of a namespace that changes a
//! hundred times a second waits a moment for more of it, so that all of it together costs
//! about as much as a few changes. A change of anybody else goes out at once, and takes
//! along what waits. Nothing is left out or overtaken: batches are differences up to the
//! frontier, whenever they go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{Frontier, Kind, Revision};
use crate::time::Mono;

/// How long changes are counted before counting begins anew.
const WINDOW: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(super) struct Loud {
    /// Changes in a second from which on a namespace is loud; 0: none ever is.
    limit: u32,
    /// How long its news waits for more.
    patience: Duration,
    /// By namespace, what has changed since the last look: how often, and up to where.
    fresh: BTreeMap<Arc<str>, (u32, Frontier)>,
    /// Changes by namespace since `since`.
    counts: BTreeMap<Arc<str>, u32>,
    since: Mono,
    loud: BTreeSet<Arc<str>>,
    /// Where the last change of anybody else was: who has that may wait.
    others: Frontier,
    /// What has come since it last went out.
    came: Came,
    /// Until when it waits.
    until: Option<Mono>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Came {
    #[default]
    Nothing,
    LoudAlone,
    Others,
}

impl Loud {
    pub fn new(limit: u32, patience: Duration) -> Self {
        Loud { limit, patience, ..Loud::default() }
    }

    /// An object of a namespace has changed.
    pub fn changed(&mut self, namespace: &Arc<str>, kind: Kind, revision: Revision) {
        let (count, reach) = self.fresh.entry(namespace.clone()).or_default();
        *count = count.saturating_add(1);
        reach.advance(kind, revision);
    }

    /// Something of a kind is news that is no single change.
    pub fn other(&mut self, kind: Kind, revision: Revision) {
        self.others.advance(kind, revision);
        self.came = Came::Others;
    }

    /// Whether all that has come since this last said no is still to wait.
    pub fn waits(&mut self, now: Mono) -> bool {
        self.count(now);
        if self.came == Came::LoudAlone {
            let until = *self.until.get_or_insert(now + self.patience);
            if now < until {
                return true;
            }
        }
        self.came = Came::Nothing;
        self.until = None;
        false
    }

    fn count(&mut self, now: Mono) {
        if now >= self.since + WINDOW {
            let counts = std::mem::take(&mut self.counts);
            let still = |namespace: &Arc<str>| counts.get(namespace).is_some_and(|n| *n >= self.limit / 2);
            self.loud.retain(still);
            if now >= self.since + WINDOW * 2 {
                // Nothing came for as long as it takes to be quiet.
                self.loud.clear();
            }
            self.since = now;
        }
        for (namespace, (changes, reach)) in std::mem::take(&mut self.fresh) {
            let count = self.counts.entry(namespace.clone()).or_default();
            *count = count.saturating_add(changes);
            if self.limit > 0 && *count >= self.limit {
                self.loud.insert(namespace.clone());
            }
            if !self.loud.contains(&namespace) {
                self.others = self.others.join(&reach);
                self.came = Came::Others;
            } else if self.came == Came::Nothing {
                self.came = Came::LoudAlone;
            }
        }
    }

    /// Until when someone waits who is at a frontier, if nobody else changes meanwhile.
    pub fn until(&self, now: Mono, at: &Frontier) -> Option<Mono> {
        self.until.filter(|until| now < *until && at.reached(&self.others))
    }

    /// Until when everybody waits for whom what has come is all there is to do.
    pub fn all_until(&self) -> Option<Mono> {
        self.until.filter(|_| self.came == Came::LoudAlone && self.fresh.is_empty())
    }
}
