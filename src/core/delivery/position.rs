//! Where a gateway is in the log: immutable, and shared by all sessions that
//! are there.
//!
//! A batch is an edge between two positions. Sessions at the same position
//! take the same edges, so a difference is computed and encoded once however
//! many gateways it goes to.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use super::Scope;
use crate::ids::{Frontier, Kind, ObjectKey};
use crate::store::Stamp;
use crate::version::{Exclusions, Version, scope_hash};

/// A scope and its hash.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ScopeInfo {
    pub scope: Scope,
    pub hash: u32,
}

impl ScopeInfo {
    pub fn new(scope: Scope) -> Arc<Self> {
        let hash = scope_hash(&scope);
        Arc::new(ScopeInfo { scope, hash })
    }
}

/// What a gateway holds apart from what is in `ahead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Base {
    /// The configuration at `low` without what is excluded.
    Log,
    /// Nothing. What is in `ahead` was sent since the frontier, so deletions
    /// above it matter.
    Nothing(Option<Frontier>),
    /// We cannot tell.
    Unknown,
}

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Position {
    /// Unique in this process.
    pub id: u64,
    pub scope: Arc<ScopeInfo>,
    pub base: Base,
    /// Everything up to here is included (with [`Base::Log`]).
    pub low: Frontier,
    /// Nothing beyond here is included.
    pub high: Frontier,
    /// Nothing beyond here was there when `low` was reached: what is newer is
    /// in `ahead` or was never delivered.
    pub reach: Frontier,
    /// How many messages were sent since `low` last moved.
    pub step: u32,
    /// Outcomes above `low` that were delivered already and births of their
    /// objects, sorted.
    pub ahead: Vec<Stamp>,
    /// Births of objects of which an outcome was rejected: the gateway may hold
    /// one all the same, so should they go, that is news. Sorted.
    pub doubtful: Vec<Stamp>,
    /// Contents that the gateway lacks, and whose they are.
    pub excluded: BTreeMap<(Kind, u32), ObjectKey>,
    /// A repair removed something that `low` may include and that only this
    /// replica takes for news, as it has listed lately. Another one would not
    /// send it again, so the version claims nothing until all is delivered.
    pub bereft: bool,
    /// It is known by its version only. An update that was sent by itself, without
    /// an announcement, the gateway may have rejected and hold all the same while
    /// its version says nothing of it. So should an object be gone that appeared
    /// beyond `reach`, that is news until all is delivered.
    pub resumed: bool,
    /// The namespace that was served last, so that the next batch goes on
    /// with the one after it.
    pub turn: Option<Arc<str>>,
    /// The version of a gateway that is here.
    pub version: Arc<str>,
}

impl Position {
    /// The frontier since when changes are news here; `None`: everything is.
    pub fn since(&self) -> Option<Frontier> {
        match self.base {
            Base::Log => Some(self.low),
            Base::Nothing(since) => since,
            Base::Unknown => None,
        }
    }

    pub fn has(&self, stamp: Stamp) -> bool {
        self.ahead.binary_search(&stamp).is_ok()
    }

    /// Whether it may hold an object of this birth.
    pub fn may_have(&self, birth: Stamp) -> bool {
        self.has(birth) || self.doubtful.binary_search(&birth).is_ok()
    }
}

type Key = (Arc<ScopeInfo>, Base, [Frontier; 3], u32, Vec<(Kind, u32)>, [bool; 2]);

/// All positions without `ahead` and `doubtful` by what they are; others come about
/// only by an edge and are shared through it.
#[derive(Debug, Clone)]
pub(crate) struct Positions {
    cluster: Arc<str>,
    incarnation: Arc<str>,
    known: BTreeMap<Key, Weak<Position>>,
    prune_at: usize,
    ids: u64,
}

impl Positions {
    pub fn new(cluster: Arc<str>, incarnation: Arc<str>) -> Self {
        Positions { cluster, incarnation, known: BTreeMap::new(), prune_at: 64, ids: 0 }
    }

    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    pub fn incarnation(&self) -> &Arc<str> {
        &self.incarnation
    }

    /// A gateway that holds nothing.
    pub fn nothing(&mut self, scope: &Arc<ScopeInfo>) -> Arc<Position> {
        self.bare(scope, Base::Nothing(None), Frontier::default())
    }

    /// A gateway that holds we do not know what, but nothing beyond `high`.
    pub fn unknown(&mut self, scope: &Arc<ScopeInfo>, high: Frontier) -> Arc<Position> {
        self.bare(scope, Base::Unknown, high)
    }

    fn bare(&mut self, scope: &Arc<ScopeInfo>, base: Base, high: Frontier) -> Arc<Position> {
        self.intern(Position {
            id: 0,
            scope: scope.clone(),
            base,
            low: Frontier::default(),
            high,
            reach: high,
            step: 0,
            ahead: Vec::new(),
            doubtful: Vec::new(),
            excluded: BTreeMap::new(),
            bereft: false,
            resumed: false,
            turn: None,
            version: "".into(),
        })
    }

    /// The position like `draft`, whose id and version are ignored.
    pub fn intern(&mut self, mut draft: Position) -> Arc<Position> {
        let shared = draft.ahead.is_empty() && draft.doubtful.is_empty();
        let key = || {
            let excluded = draft.excluded.keys().copied().collect();
            let frontiers = [draft.low, draft.high, draft.reach];
            (draft.scope.clone(), draft.base, frontiers, draft.step, excluded, [draft.bereft, draft.resumed])
        };
        let key = shared.then(key);
        if let Some(known) = key.as_ref().and_then(|key| self.known.get(key)).and_then(Weak::upgrade) {
            return known;
        }
        self.ids += 1;
        draft.id = self.ids;
        draft.version = self.version(&draft, draft.low, draft.high, draft.step);
        let position = Arc::new(draft);
        if let Some(key) = key {
            if self.known.len() >= self.prune_at {
                self.known.retain(|_, position| position.strong_count() > 0);
                self.prune_at = (2 * self.known.len()).max(64);
            }
            self.known.insert(key, Arc::downgrade(&position));
        }
        position
    }

    /// A version with the scope and exclusions of a position.
    pub fn version(&self, position: &Position, low: Frontier, high: Frontier, step: u32) -> Arc<str> {
        let low = if position.bereft { Frontier::default() } else { low };
        let version = Version {
            cluster: self.cluster.clone(),
            incarnation: self.incarnation.clone(),
            scope: position.scope.hash,
            low,
            high: high.join(&low),
            step,
            excluded: Exclusions::Known(position.excluded.keys().copied().collect()),
        };
        version.to_string().into()
    }
}
