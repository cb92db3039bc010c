//! A gateway as the wire page describes the real one (section 2), written without
//! a look at the product: it skips sequences, guards itself against shrinking and
//! emptying, rejects what it cannot load, and remembers its version.

pub mod client;
pub mod wire;

use std::collections::BTreeSet;
use std::sync::Arc;

use flotilla_observer::Removal;

use crate::clock::SECONDS;
use crate::universe::{Flavour, Read, Universe};
use wire::{Message, What};

/// How long after a registration full synchronisations that shrink are ignored
/// (point 10).
const GUARD: u64 = 30 * SECONDS;

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its sequence was old: no acknowledgement (point 7).
    Skipped,
    /// Taken. A full synchronisation that a guard ignored is acknowledged as well.
    Acked,
    /// Rejected, with these words.
    Nacked(String),
}

/// What changed in a gateway's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It holds this content of an object from now on.
    Holds {
        /// The object.
        object: u32,
        /// The content's number.
        content: u32,
        /// Whether its destination was resolved.
        resolved: bool,
    },
    /// It does not hold this object any more.
    Dropped(u32, Removal),
}

/// What a gateway holds of one object: content's number, whether its destination
/// was resolved, and whether it cannot be loaded. Content 0: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    content: u32,
    resolved: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Gateway {
    /// The version of the last update it took (point 9).
    pub version: Arc<str>,
    sequence: i64,
    /// When it last registered.
    pub registered: u64,
    /// Whether its guards are off, as its replica does not know when 30 s are over: one
    /// whose clock runs too fast may send what a guard ignores. That is known.
    pub unguarded: bool,
    /// By place.
    table: Vec<Held>,
    count: usize,
    /// By place, what was last said to be held. What came with a rejected message is
    /// not said: a gateway in trouble holds what it does not want.
    shown: Vec<Held>,
    /// Objects in the table that cannot be loaded: by class (backends, routes).
    poisoned: [BTreeSet<u32>; 2],
    /// Whether disputed contents are poison to it.
    picky: bool,
    /// It does not say what it rejects.
    pub mute: bool,
    /// By place, the newest content that was said to be held.
    newest: Vec<u32>,
    /// It has rejected something in its life.
    pub troubled: bool,
    /// Snapshots that a guard ignored.
    pub ignored: u64,
    /// What changed since this was last looked at.
    pub effects: Vec<Effect>,
}

impl Gateway {
    /// One that has just started for the first time.
    pub fn new(places: usize, picky: bool, mute: bool) -> Self {
        let nothing = vec![Held::default(); places];
        let newest = vec![0; places];
        Gateway {
            version: "".into(),
            table: nothing.clone(),
            shown: nothing,
            newest,
            picky,
            mute,
            ..Gateway::default()
        }
    }

    /// Its process starts again: everything is gone, as it keeps nothing on disk.
    pub fn restart(&mut self) {
        *self = Gateway::new(self.table.len(), self.picky, self.mute);
    }

    /// What it holds of an object: the content's number, and whether its destination
    /// was resolved.
    pub fn holds(&self, object: u32) -> Option<(u32, bool)> {
        let held = self.table[object as usize];
        (held.content != 0).then_some((held.content, held.resolved))
    }

    /// Whether it has held a newer content of an object. Notes what it holds now.
    pub fn has_held_newer(&mut self, object: u32, content: u32) -> bool {
        let newest = &mut self.newest[object as usize];
        let newer = *newest > content;
        *newest = (*newest).max(content);
        newer
    }

    /// What is older may come again: the log was replaced.
    pub fn forget_newest(&mut self) {
        self.newest.fill(0);
    }

    /// Takes one message.
    pub fn take(&mut self, now: u64, universe: &Universe, message: &Message, sequence: i64) -> Answer {
        let mut touched = None;
        match &message.what {
            What::Snapshot { list, count } => {
                if let Some(answer) = self.take_snapshot(now, universe, list, *count) {
                    return answer;
                }
            }
            What::Reset => {}
            _ if sequence <= self.sequence => return Answer::Skipped,
            What::Heartbeat => {}
            What::Upsert(read) => {
                if read.flavour == Flavour::Undecodable {
                    return self.rejects(universe, "decode", read.object);
                }
                self.put(universe, *read);
                touched = Some(read.object);
            }
            What::Delete(object) => {
                touched = *object;
                if let Some(object) = *object {
                    self.remove(universe, object);
                }
            }
        }
        if let Some(object) = touched {
            if let Some(bad) = self.poisoned[class(universe, object)].first() {
                return self.rejects(universe, "load", *bad);
            }
            self.show(object, Removal::Deletion);
        }
        self.sequence = sequence;
        self.version = message.version.clone();
        Answer::Acked
    }

    /// Replaces everything, unless a guard forbids it. Returns the answer if it is
    /// no plain success.
    fn take_snapshot(
        &mut self,
        now: u64,
        universe: &Universe,
        list: &[Read],
        count: usize,
    ) -> Option<Answer> {
        let guarded = !self.unguarded && now < self.registered + GUARD && count < self.count;
        if guarded || (count == 0 && self.count > 0) {
            self.ignored += 1;
            return None;
        }
        self.table.fill(Held::default());
        self.count = 0;
        self.poisoned = Default::default();
        // What cannot be decoded vanishes, with success.
        for read in list.iter().filter(|read| read.flavour != Flavour::Undecodable) {
            self.put(universe, *read);
        }
        // Routes are loaded first.
        if let Some(bad) = self.poisoned.iter().rev().find_map(BTreeSet::first) {
            return Some(self.rejects(universe, "load", *bad));
        }
        self.settle(Removal::Snapshot);
        None
    }

    /// Its words name the first that it cannot load, as those of the published
    /// gateway do.
    fn rejects(&self, universe: &Universe, what: &str, bad: u32) -> Answer {
        if self.mute {
            return Answer::Nacked(format!("cannot {what}"));
        }
        let sort = if universe.kind(bad).is_route() { "route" } else { "backend" };
        Answer::Nacked(format!("failed to {what} {sort} {}: bad", universe.key(bad)))
    }

    /// Says what it holds otherwise than it was last said.
    pub fn settle(&mut self, by: Removal) {
        for object in 0..self.table.len() as u32 {
            self.show(object, by);
        }
    }

    fn show(&mut self, object: u32, by: Removal) {
        let held = self.table[object as usize];
        let shown = &mut self.shown[object as usize];
        if *shown != held {
            *shown = held;
            self.effects.push(match held.content {
                0 => Effect::Dropped(object, by),
                content => Effect::Holds { object, content, resolved: held.resolved },
            });
        }
    }

    fn put(&mut self, universe: &Universe, read: Read) {
        let slot = &mut self.table[read.object as usize];
        self.count += usize::from(slot.content == 0);
        *slot = Held { content: read.content, resolved: read.resolved };
        let bad = read.flavour == Flavour::Poison || (self.picky && read.flavour == Flavour::Disputed);
        let poisoned = &mut self.poisoned[class(universe, read.object)];
        if bad {
            poisoned.insert(read.object);
        } else if !poisoned.is_empty() {
            poisoned.remove(&read.object);
        }
    }

    fn remove(&mut self, universe: &Universe, object: u32) {
        let slot = &mut self.table[object as usize];
        if slot.content != 0 {
            *slot = Held::default();
            self.count -= 1;
            self.poisoned[class(universe, object)].remove(&object);
        }
    }
}

/// What fails together: backends 0, routes 1.
fn class(universe: &Universe, object: u32) -> usize {
    usize::from(universe.kind(object).is_route())
}
