//! Finding what makes a gateway reject its first snapshot.
//!
//! If its words name one resource, that one is left out, and it gets all the
//! rest. Only when they name nobody it gets prefixes of the snapshot: always with
//! everything that was found good, found by halving. That drops for a moment what
//! is not in the prefix, which a gateway may have held of before; the wire offers
//! no other way to learn which one it means. Either is padded to the count it may
//! hold, so that its guard against shrinking stays quiet, and nothing older than
//! the snapshot is ever in it. The last good versions of what it rejected before are
//! in all prefixes: what has fallen out is not put back later, it would be a way back.

use std::collections::BTreeMap;

use super::edge::{Listing, is_last_good, snapshot_bytes};
use super::engine::Engine;
use super::position::{Base, Position};
use super::rejections::Trouble;
use super::repair::{accused, key_of};
use super::session::{Flight, Session};
use super::{Change, size};
use crate::ids::{Frontier, Kind, ObjectKey};
use crate::store::{Mark, Store};
use crate::time::Mono;

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Search {
    /// What is to be delivered, without what was found bad: first the last good
    /// versions of what the gateway rejected before,
    list: Vec<Listing>,
    /// so many.
    kept: usize,
    /// A prefix of this length was taken.
    good: usize,
    /// One of this length was rejected.
    bad: Option<usize>,
    /// The length that is being tried.
    probe: usize,
    /// Other keys that the gateway may count.
    padding: Vec<(Kind, ObjectKey)>,
    /// The list is the configuration at this frontier,
    frontier: Frontier,
    /// and not only a part of it.
    whole: bool,
}

impl Search {
    /// The prefix to be tried.
    pub(super) fn prefix(&self) -> &[Listing] {
        self.list.get(..self.probe).unwrap_or_default()
    }

    /// The one that a gateway's words about a prefix of this length name, of
    /// those not found good.
    fn named(&self, store: &Store, bad: usize, words: &str) -> Option<usize> {
        let tried = self.list.iter().enumerate().take(bad).skip(self.good);
        let known: BTreeMap<_, _> = tried.map(|(index, (resource, _))| (key_of(resource), index)).collect();
        match accused(words, |key| known.contains_key(key), |(kind, key)| store.knows(*kind, key)).as_slice()
        {
            [one] => known.get(one).copied(),
            _ => None,
        }
    }

    /// What pads it.
    pub(super) fn padding(&self) -> Vec<(Kind, ObjectKey)> {
        let rest = self.list.iter().skip(self.probe);
        let rest = rest.map(|(resource, _)| (resource.kind, resource.key.clone()));
        self.padding.iter().cloned().chain(rest).collect()
    }
}

impl Engine {
    pub(super) fn start_search(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        let edge = &flight.edge;
        let mut padding = Vec::new();
        for update in &edge.batch.updates {
            match &update.change {
                Change::FullSync(snapshot) => padding.extend(snapshot.padding.iter().cloned()),
                Change::Upsert { resource, .. } => padding.push((resource.kind, resource.key.clone())),
                _ => {}
            }
        }
        let mut list = edge.snapshot.clone();
        list.sort_by_key(|listing| !is_last_good(listing));
        let mut whole = edge.whole;
        let mut bytes: u64 = list.iter().map(|(resource, _)| size::resource(resource)).sum();
        while snapshot_bytes(bytes, &padding) > self.config.message_limit
            && let Some((resource, _)) = list.pop()
        {
            bytes -= size::resource(&resource);
            padding.push((resource.kind, resource.key.clone()));
            whole = false;
        }
        let draft = Position {
            base: Base::Nothing(Some(edge.frontier)),
            low: Frontier::default(),
            reach: edge.frontier,
            ahead: Vec::new(),
            doubtful: Vec::new(),
            bereft: false,
            resumed: false,
            ..Position::clone(&session.position)
        };
        let position = self.positions.intern(draft);
        session.move_to(now, position);
        // What was left out may be what was bad in it.
        let bad = (list.len() == edge.snapshot.len()).then_some(list.len());
        let kept = list.iter().filter(|listing| is_last_good(listing)).count();
        let search = Search { list, kept, good: 0, bad, probe: 0, padding, frontier: edge.frontier, whole };
        let message = flight.rejected.values().next().cloned().unwrap_or_default();
        self.narrow(now, session, search, message);
    }

    /// Chooses the next prefix to try, or gives up.
    fn narrow(&mut self, now: Mono, session: &mut Session, mut search: Search, message: String) {
        // What was taken is rejected by now, so it is not for what is in there.
        if search.bad.is_some_and(|bad| bad <= search.good) {
            self.start_anew(now, session, message);
            return;
        }
        let named = search.bad.and_then(|bad| search.named(&self.store, bad, &message));
        let found = named.or((search.bad == Some(search.good + 1)).then_some(search.good));
        if let Some(found) = found {
            let (resource, mark) = search.list.remove(found);
            search.padding.push((resource.kind, resource.key.clone()));
            search.bad = None;
            if mark == Mark::default() {
                // Not so good: what it was put in place of stays rejected.
                search.kept -= 1;
                session.keep_nothing_of(&key_of(&resource));
            } else {
                let from = session.position.clone();
                self.quarantine(now, session, &resource, true, &from, message);
            }
        } else if search.bad.is_some_and(|bad| bad <= search.kept) {
            // One of them is bad, and to try them one by one would drop the others.
            for (resource, _) in search.list.drain(..search.kept) {
                search.padding.push(key_of(&resource));
                session.keep_nothing_of(&key_of(&resource));
            }
            search.kept = 0;
            search.good = 0;
            search.bad = None;
        }
        search.probe = match search.bad {
            Some(bad) => ((search.good + bad) / 2).max(search.kept),
            None => search.list.len(),
        };
        session.trouble = Some(Trouble::Search(search));
    }

    pub fn probed(&mut self, now: Mono, session: &mut Session, flight: &Flight) {
        session.move_to(now, flight.edge.target.clone());
        let Some(Trouble::Search(mut search)) = session.trouble.take() else { return };
        if let Some(message) = flight.rejected.values().next() {
            search.bad = Some(search.probe);
            self.narrow(now, session, search, message.clone());
            return;
        }
        search.good = search.probe;
        if search.probe < search.list.len() {
            self.narrow(now, session, search, String::new());
            return;
        }
        session.full_required = false;
        session.sound = [true, true];
        let at = Position::clone(&session.position);
        let found = if search.whole {
            Position {
                base: Base::Log,
                low: search.frontier,
                reach: search.frontier,
                step: 0,
                ahead: Vec::new(),
                doubtful: Vec::new(),
                ..at
            }
        } else {
            let mut ahead: Vec<_> = search.list.iter().flat_map(|(_, mark)| mark.stamps()).collect();
            ahead.sort_unstable();
            Position { base: Base::Nothing(Some(search.frontier)), ahead, ..at }
        };
        let position = self.positions.intern(found);
        session.move_to(now, position);
    }
}
