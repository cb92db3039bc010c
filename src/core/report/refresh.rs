//! Whose counts are to be refreshed: who has waited longest comes first, and
//! whoever waits already is not queued again. So gateways that never stop
//! coming and going cannot keep any object from its turn.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::{Kind, ObjectKey};

/// Bounded by the number of objects: each waits at most once.
#[derive(Debug, Default)]
pub(super) struct RefreshQueue {
    order: VecDeque<(Kind, ObjectKey)>,
    /// The same keys.
    waiting: BTreeSet<(Kind, ObjectKey)>,
}

impl RefreshQueue {
    pub fn push(&mut self, key: (Kind, ObjectKey)) {
        if self.waiting.insert(key.clone()) {
            self.order.push_back(key);
        }
    }

    pub fn pop(&mut self) -> Option<(Kind, ObjectKey)> {
        let key = self.order.pop_front()?;
        self.waiting.remove(&key);
        Some(key)
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub fn clear(&mut self) {
        self.order.clear();
        self.waiting.clear();
    }
}
