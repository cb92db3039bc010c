//! What a gateway at a position lacks, and which part of it comes first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::position::{Base, Position};
use super::size;
use crate::ids::{Frontier, Kind, ObjectKey};
use crate::object::Resource;
use crate::store::{Born, Mark, Stamp, Store};

/// One update that a gateway lacks.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub kind: Kind,
    pub key: ObjectKey,
    /// Names what the gateway has afterwards.
    pub mark: Mark,
    /// Upper bound of the message's size.
    pub bytes: u64,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Upsert { resource: Arc<Resource>, added: bool },
    Delete,
}

impl Item {
    pub fn upsert(resource: &Arc<Resource>, mark: Mark, added: bool) -> Self {
        Item {
            kind: resource.kind,
            key: resource.key.clone(),
            mark,
            bytes: size::UPDATE + size::resource(resource),
            what: What::Upsert { resource: resource.clone(), added },
        }
    }

    fn delete(kind: Kind, key: &ObjectKey, mark: Mark) -> Self {
        let bytes = size::UPDATE + size::entry(key);
        Item { kind, key: key.clone(), mark, bytes, what: What::Delete }
    }

    pub fn is_delete(&self) -> bool {
        matches!(self.what, What::Delete)
    }

    /// Backends come before the routes that use them and leave after them.
    fn class(&self) -> u8 {
        match (self.kind.is_route(), self.is_delete()) {
            (false, false) => 0,
            (true, false) => 1,
            (true, true) => 2,
            (false, true) => 3,
        }
    }
}

/// The way from a position to the store's frontier.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// What is lacking, in no particular order.
    pub items: Vec<Item>,
    /// What of the position's `ahead` is still current.
    pub already: Arc<[Stamp]>,
    /// What of the position's exclusions is still in force.
    pub excluded: BTreeMap<(Kind, u32), ObjectKey>,
}

/// Computes it, for positions whose base is known.
pub(crate) fn difference(store: &Store, position: &Position) -> Difference {
    let scope = &position.scope.scope;
    let excluded: BTreeMap<_, _> = position
        .excluded
        .iter()
        .filter(|((kind, hash), key)| store.entry(*kind, key).is_some_and(|entry| entry.hash == *hash))
        .map(|(content, key)| (*content, key.clone()))
        .collect();
    let mut difference = Difference { excluded, ..Difference::default() };
    let mut ahead = Ahead { position, still: Vec::new() };
    if let Base::Nothing(_) = position.base {
        for (entry, resource) in store.entries(scope) {
            if difference.excluded.contains_key(&(resource.kind, entry.hash)) {
                ahead.has(entry.mark);
                continue;
            }
            if ahead.has(entry.mark) {
                continue;
            }
            let added = !position.has(entry.mark.birth);
            difference.items.push(Item::upsert(resource, entry.mark, added));
        }
    }
    let Some(since) = position.since() else {
        difference.already = ahead.into_still();
        return difference;
    };
    for (kind, key) in store.news(&since) {
        if !scope.includes(kind, key) {
            continue;
        }
        let (mark, absent_since, born) = match (store.entry(kind, key), store.grave(kind, key)) {
            (Some(entry), _) => {
                if let Ok(resource) = &entry.outcome {
                    let covered = matches!(position.base, Base::Nothing(_))
                        || difference.excluded.contains_key(&(kind, entry.hash));
                    if covered {
                        // What it rejected it may hold in an earlier content, which
                        // has to be removed when the object goes.
                        ahead.has(entry.mark);
                        continue;
                    }
                    if !ahead.has(entry.mark) {
                        let added = never_had(position, entry.mark, entry.born, kind, &since);
                        difference.items.push(Item::upsert(resource, entry.mark, added));
                    }
                    continue;
                }
                (entry.mark, entry.absent_since, entry.born)
            }
            (None, Some(grave)) => (grave.mark, grave.absent_since, grave.born),
            (None, None) => continue,
        };
        let gone_before = absent_since.is_some_and(|absent| since.reached(&absent));
        let never_sent = !position.resumed && !position.may_have(mark.birth);
        let known = gone_before || never_had(position, mark, born, kind, &since) && never_sent;
        if !ahead.has(mark) && !known {
            difference.items.push(Item::delete(kind, key, mark));
        }
    }
    difference.already = ahead.into_still();
    difference
}

/// What of a position's `ahead` still tells something about an object.
struct Ahead<'a> {
    position: &'a Position,
    still: Vec<Stamp>,
}

impl Ahead<'_> {
    /// Whether an outcome was delivered already; keeps what is still current.
    fn has(&mut self, mark: Mark) -> bool {
        self.still.extend(mark.stamps().into_iter().filter(|stamp| self.position.has(*stamp)));
        self.position.has(mark.outcome)
    }

    /// Each once, in order.
    fn into_still(mut self) -> Arc<[Stamp]> {
        self.still.sort_unstable();
        self.still.dedup();
        self.still.into()
    }
}

/// Whether an object that appeared when `born` says cannot be on a gateway
/// that has everything up to `low`.
fn never_had(position: &Position, mark: Mark, born: Option<Born>, kind: Kind, low: &Frontier) -> bool {
    let unseen = |born: Born| low.get(kind) >= born.absent_from && position.reach.get(kind) < born.at;
    born.is_some_and(unseen) && !position.has(mark.birth)
}

/// Takes a batch's worth, round-robin over namespaces, beginning after `turn`:
/// whoever changes much waits for himself. Within a namespace the sending
/// order is kept, so that no route is sent before its backend. Returns the
/// batch in sending order and the namespace that was served last; the latter
/// is `None` when everything is in the batch.
pub(crate) fn fill(
    items: Vec<Item>,
    max_updates: usize,
    max_bytes: u64,
    turn: Option<&Arc<str>>,
) -> (Vec<Item>, Option<Arc<str>>) {
    let total: u64 = items.iter().map(|item| item.bytes).sum();
    let items = in_sending_order(items);
    if items.len() <= max_updates && total <= max_bytes {
        return (items, None);
    }
    let mut queues: BTreeMap<Arc<str>, VecDeque<Item>> = BTreeMap::new();
    for item in items {
        queues.entry(item.key.namespace.clone()).or_default().push_back(item);
    }
    let mut order: VecDeque<Arc<str>> = queues.keys().cloned().collect();
    if let Some(turn) = turn {
        let first = order.iter().position(|namespace| namespace > turn).unwrap_or(0);
        order.rotate_left(first);
    }
    let (mut chosen, mut bytes, mut last) = (Vec::new(), 0, None);
    while let Some(namespace) = order.pop_front() {
        let Some(queue) = queues.get_mut(&namespace) else { continue };
        let Some(next) = queue.front() else { continue };
        let full = chosen.len() >= max_updates || bytes + next.bytes > max_bytes;
        if full && !chosen.is_empty() {
            break;
        }
        bytes += next.bytes;
        chosen.extend(queue.pop_front());
        last = Some(namespace.clone());
        order.push_back(namespace);
    }
    (in_sending_order(chosen), last)
}

/// Backends before routes. Of each kind those come first whose namespace has least to
/// bring: gateways take one after the other, and who changes seldom does not wait for who
/// changes all the time.
fn in_sending_order(items: Vec<Item>) -> Vec<Item> {
    let mut counts: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for item in &items {
        *counts.entry(item.key.namespace.clone()).or_default() += 1;
    }
    let count = |item: &Item| counts.get(&item.key.namespace).copied().unwrap_or_default();
    let mut counted: Vec<(u32, Item)> = items.into_iter().map(|item| (count(&item), item)).collect();
    counted.sort_unstable_by(|(few, a), (many, b)| {
        (a.class(), a.kind, few, &a.key).cmp(&(b.class(), b.kind, many, &b.key))
    });
    counted.into_iter().map(|(_, item)| item).collect()
}
