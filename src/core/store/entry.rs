//! One object of the store and what is remembered about its way here.

use std::sync::Arc;

use super::contest::Lost;
use crate::claims::{Holder, Stake};
use crate::compile::Invalid;
use crate::ids::{Frontier, Kind, ObjectKey, Revision};
use crate::object::{RawObject, Resource};

/// Names one outcome of one object within this process: two equal stamps mean
/// the same bytes. It never leaves the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub u64);

/// What an update brings to a gateway: an outcome of an object. The birth is
/// the same for all outcomes of one object, so it tells whether a gateway was
/// ever given any of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub outcome: Stamp,
    pub birth: Stamp,
}

impl Mark {
    pub fn stamps(self) -> [Stamp; 2] {
        [self.outcome, self.birth]
    }
}

/// When an object appeared, as far as the watch showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Born {
    /// No gateway at or above this revision and below `at` can hold it.
    pub absent_from: Revision,
    /// The revision of its creation.
    pub at: Revision,
}

/// The compiled resource that was current before.
#[derive(Debug, Clone)]
pub(crate) struct Previous {
    /// It.
    pub resource: Arc<Resource>,
    /// The kind of the object whose change replaced it.
    pub cause: Kind,
    /// The revision of that change.
    pub revision: Revision,
    /// Set when a list showed the change: contents between this revision of
    /// the object's kind and the list were not seen, and a gateway that was
    /// served elsewhere may have had them.
    pub seen_until: Option<Revision>,
    /// Between it and what is now there was nothing for a while.
    pub vanished: bool,
}

/// One live object.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// As last seen.
    pub object: RawObject,
    /// Its content revision.
    pub content: Revision,
    /// Its content hash.
    pub hash: u32,
    /// The revision at which its existence (present and not being deleted)
    /// last changed.
    pub existence: Revision,
    /// What gateways get of it.
    pub outcome: Result<Arc<Resource>, Invalid>,
    /// Whose existence the outcome depends on.
    pub references: Vec<(Kind, ObjectKey)>,
    /// What it claims, and as whom: the same is in the store's claims.
    pub claims: Option<(Holder, Box<[Stake]>)>,
    /// Which of its claims it loses, while it does.
    pub lost: Option<Box<Lost>>,
    /// Another object's change of this kind at this revision was the last that
    /// let it be delivered, by leaving to it what both claimed.
    pub healed: Option<(Kind, Revision)>,
    /// Names the outcome.
    pub mark: Mark,
    /// For each kind the last revision at which a change of it changed the
    /// outcome; zero: none. Every non-zero one is in the store's news.
    pub caused: Frontier,
    /// While there is no outcome: positions from here on do not hold it.
    pub absent_since: Option<Frontier>,
    /// The revision at which its status is known to have changed after its
    /// content.
    pub restated: Option<Revision>,
    /// When it appeared.
    pub born: Option<Born>,
    /// The last revision at which it is known to have been gone: for replicas that have
    /// read no further and ask what was deleted.
    pub gone_at: Option<Revision>,
    /// What to fall back to when a gateway rejects the outcome.
    pub previous: Option<Previous>,
}

/// An object's content and outcome, for status planning.
#[derive(Debug, Clone, Copy)]
pub struct ContentView<'a> {
    /// The object as last seen, with its status.
    pub object: &'a RawObject,
    /// Its content revision (ARCHITECTURE.md, "Terms and rules").
    pub revision: Revision,
    /// What a position must have reached to have it as it is now: its content
    /// revision and, for each kind, the last revision at which a change of
    /// that kind changed what gateways get of it.
    pub needs: Frontier,
    /// Its content hash, see [`crate::version::content_hash`].
    pub content: u32,
    /// `metadata.generation`
    pub generation: i64,
    /// `metadata.uid`
    pub uid: &'a Arc<str>,
    /// What gateways get of it, or why they get nothing.
    pub outcome: &'a Result<Arc<Resource>, Invalid>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl Entry {
    /// The view of it.
    pub fn view(&self) -> ContentView<'_> {
        let mut needs = self.caused;
        needs.advance(self.object.kind, self.content);
        ContentView {
            object: &self.object,
            revision: self.content,
            needs,
            content: self.hash,
            generation: self.object.generation,
            uid: &self.object.uid,
            outcome: &self.outcome,
            deleting: self.object.deleting,
        }
    }
}
