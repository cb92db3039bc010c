//! The bounded history of one resource, from which watches and older snapshots are served.
//!
//! Every change is one event. The history forgets its oldest events when it is full; who asks for a revision
//! before the floor is told that it is gone, as by a real API server whose etcd was compacted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::object::{Key, Object};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It was removed.
    Deleted,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Event {
    /// The revision the change made.
    pub revision: u64,
    /// What happened.
    pub change: Change,
    /// The object after the change; for a deletion its last state, stamped with the deletion's revision.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
    /// When it was committed, by the server's monotonic clock.
    pub at: Instant,
}

/// The revision asked for is older than the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The revision asked for.
    pub asked: u64,
    /// The oldest revision that can still be served.
    pub floor: u64,
}

/// The history of one resource.
#[derive(Debug)]
pub struct Log {
    events: VecDeque<Event>,
    floor: u64,
    capacity: usize,
}

impl Log {
    /// An empty history that begins at `floor` and keeps `capacity` events (at least one).
    pub fn new(floor: u64, capacity: usize) -> Self {
        Self { events: VecDeque::new(), floor, capacity: capacity.max(1) }
    }

    /// Adds the newest event.
    pub fn push(&mut self, event: Event) {
        while self.events.len() >= self.capacity {
            if let Some(oldest) = self.events.pop_front() {
                self.floor = oldest.revision;
            }
        }
        self.events.push_back(event);
    }

    /// Forgets everything up to and including `revision`.
    pub fn compact(&mut self, revision: u64) {
        while self.events.front().is_some_and(|event| event.revision <= revision) {
            self.events.pop_front();
        }
        self.floor = self.floor.max(revision);
    }

    /// The events after `revision`, oldest first.
    pub fn after(&self, revision: u64) -> Result<impl Iterator<Item = &Event>, Gone> {
        if revision < self.floor {
            return Err(Gone { asked: revision, floor: self.floor });
        }
        let start = self.events.partition_point(|event| event.revision <= revision);
        Ok(self.events.range(start..))
    }

    /// What has to be put back to see the resource as it was at `revision`: for every key changed since, its
    /// object then.
    pub fn undo_to(&self, revision: u64) -> Result<BTreeMap<Key, Option<Arc<Object>>>, Gone> {
        let mut undo = BTreeMap::new();
        for event in self.after(revision)? {
            undo.entry(event.object.key.clone()).or_insert_with(|| event.previous.clone());
        }
        Ok(undo)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(revision: u64) -> Event {
        let object = Arc::new(Object::stamp(json!({"metadata": {"name": "a"}}), revision));
        Event { revision, change: Change::Modified, object, previous: None, at: Instant::now() }
    }

    #[test]
    fn history_older_than_the_capacity_is_gone() {
        let mut log = Log::new(0, 3);
        (2..=6).for_each(|revision| log.push(event(revision)));
        assert_eq!(log.after(2).err(), Some(Gone { asked: 2, floor: 3 }));
        let seen: Vec<u64> = log.after(3).into_iter().flatten().map(|event| event.revision).collect();
        assert_eq!(seen, [4, 5, 6]);
    }

    #[test]
    fn compaction_moves_the_floor() {
        let mut log = Log::new(0, 10);
        (2..=6).for_each(|revision| log.push(event(revision)));
        log.compact(5);
        assert!(log.after(4).is_err());
        assert_eq!(log.after(5).map(Iterator::count), Ok(1));
    }
}
