//! What people are told of an object besides its status: only that it turned, from
//! well to not, or to well.
//!
//! An object that is on its way to gateways has not turned yet, however long that
//! takes, and gateways that come and go turn nothing: a fleet that was away would
//! otherwise make an event of every object when it comes back. So what decides is how
//! it stood before that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{Kind, ObjectKey};

/// How an object stands, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was said of it so far.
    Unsaid,
    /// It is still on its way to some gateways.
    Underway,
    /// There is nobody who could have it.
    Alone,
    /// Everybody has it.
    Well,
    /// Not everybody has it, or nobody may, for this reason, with what stands for the words
    /// where these are about the object alone: as long as they have counts of gateways
    /// in them that is 0.
    Bad(&'static str, u64),
}

/// How an object stands by the status that is there and by the one that is to be
/// written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What is there.
    pub from: Standing,
    /// What is written.
    pub to: Standing,
    /// Why, for people.
    pub message: String,
}

/// What is to be told once the status is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The object's uid.
    pub uid: Arc<str>,
    /// Whether it is well now.
    pub well: bool,
    /// Whether it is known that it was otherwise before; if not, whoever wrote its
    /// status before may have told the same.
    pub again: bool,
    /// Why, for people.
    pub message: String,
}

/// Whether an object turned: `Some(true)` when it is well now and was not before,
/// `Some(false)` when something is wrong with it that was not before.
pub fn turned(from: Standing, to: Standing) -> Option<bool> {
    match (from, to) {
        (Standing::Unsaid | Standing::Bad(..), Standing::Well) => Some(true),
        (Standing::Bad(..), Standing::Bad(..)) if from == to => None,
        (_, Standing::Bad(..)) => Some(false),
        _ => None,
    }
}

impl Standing {
    /// Whether that is no turn, but on the way to one.
    fn passes(self) -> bool {
        matches!(self, Standing::Underway | Standing::Alone)
    }
}

/// Entries below which it is not looked for those whose objects are gone.
const FEW: usize = 1000;

/// How objects stood before they were on their way, or before there was nobody for them:
/// what their statuses say since does not tell. Bounded by the number of objects: when
/// there are twice as many as there were, those of objects that are gone are dropped.
#[derive(Debug, Default)]
pub(super) struct Before {
    stood: BTreeMap<(Kind, ObjectKey), Stood>,
    /// How many were left when it was last looked for those that are gone.
    left: usize,
}

#[derive(Debug, Clone, Copy)]
struct Stood {
    before: Standing,
    /// Nobody has to know any more once what was planned last is written.
    over: bool,
}

impl Before {
    /// What is to be told when a status is written.
    pub fn news(&mut self, key: &(Kind, ObjectKey), uid: &Arc<str>, turn: Option<Turn>) -> Option<News> {
        let Turn { from, to, message } = turn?;
        let known = if from.passes() { self.stood.get(key).map(|stood| stood.before) } else { Some(from) };
        match known {
            // It stands there until the next one is written, and nothing is lost if that fails.
            Some(_) if !from.passes() && !to.passes() => self.forget(key),
            // Nobody could have had it, and gateways that come are no news.
            Some(_) if from == Standing::Unsaid && to == Standing::Alone => self.forget(key),
            Some(before) => {
                self.stood.insert(key.clone(), Stood { before, over: !to.passes() });
            }
            None => {}
        }
        let well = turned(known.unwrap_or(from), to)?;
        Some(News { uid: uid.clone(), well, again: known.is_some(), message })
    }

    /// What was planned last of an object is written.
    pub fn written(&mut self, key: &(Kind, ObjectKey)) {
        if self.stood.get(key).is_some_and(|stood| stood.over) {
            self.forget(key);
        }
    }

    /// Whether nothing has to be known.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.stood.is_empty()
    }

    /// Nothing is known of an object any more.
    pub fn forget(&mut self, key: &(Kind, ObjectKey)) {
        self.stood.remove(key);
    }

    /// Only these are known any more.
    pub fn retain(&mut self, keep: impl Fn(&(Kind, ObjectKey)) -> bool) {
        self.stood.retain(|key, _| keep(key));
        self.left = self.stood.len();
    }

    /// Drops what is of objects that are gone, when that may be much.
    pub fn bound(&mut self, exists: impl Fn(&(Kind, ObjectKey)) -> bool) {
        if self.stood.len() > FEW.max(self.left.saturating_mul(2)) {
            self.retain(exists);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{Alone, Bad, Underway, Unsaid, Well};
    use super::*;

    #[test]
    fn only_what_turns_is_told() {
        for (from, to, told) in [
            (Unsaid, Well, Some(true)),
            (Bad("a", 0), Well, Some(true)),
            (Unsaid, Bad("a", 0), Some(false)),
            (Well, Bad("a", 0), Some(false)),
            (Underway, Bad("a", 0), Some(false)),
            (Alone, Bad("a", 0), Some(false)),
            (Bad("a", 0), Bad("b", 0), Some(false)),
            (Bad("a", 0), Bad("a", 0), None),
            (Bad("a", 1), Bad("a", 2), Some(false)),
            // A change on its way, whatever it was before and whoever acts now.
            (Unsaid, Underway, None),
            (Well, Underway, None),
            (Bad("a", 0), Underway, None),
            (Underway, Well, None),
            // Gateways that come and go.
            (Well, Alone, None),
            (Unsaid, Alone, None),
            (Alone, Well, None),
            (Alone, Underway, None),
            (Well, Well, None),
        ] {
            assert_eq!(turned(from, to), told, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn what_is_gone_is_not_remembered_for_ever() {
        let mut before = Before::default();
        for n in 0..10 * FEW {
            let key = (Kind::Backend, ObjectKey::new("n", n.to_string()));
            let turn = Turn { from: Well, to: Underway, message: String::new() };
            assert_eq!(before.news(&key, &Arc::from("u"), Some(turn)), None);
            before.bound(|(_, key)| key.name.ends_with('0'));
            assert!(before.stood.len() <= FEW + 2 * n / 10 + 1, "{} of {n}", before.stood.len());
        }
    }

    #[test]
    fn what_was_before_is_known_until_what_ends_it_is_written() {
        let (mut before, key) = (Before::default(), (Kind::Backend, ObjectKey::new("n", "x")));
        let told = |before: &mut Before, from, to| {
            let turn = Turn { from, to, message: String::new() };
            before.news(&key, &Arc::from("u"), Some(turn)).map(|news| (news.well, news.again))
        };
        assert_eq!(told(&mut before, Bad("a", 0), Alone), None);
        assert_eq!(told(&mut before, Alone, Well), Some((true, true)));
        assert_eq!(told(&mut before, Alone, Well), Some((true, true)), "it was not written");
        before.written(&(Kind::Backend, ObjectKey::new("n", "x")));
        assert!(before.stood.is_empty());
        // Who knows nothing of what was before does not know that it was not told.
        assert_eq!(told(&mut before, Underway, Bad("a", 0)), Some((false, false)));
        assert_eq!(told(&mut before, Alone, Bad("a", 0)), Some((false, false)));
        // Another object of the name, of which nothing was said.
        assert_eq!(told(&mut before, Bad("a", 0), Alone), None);
        assert_eq!(told(&mut before, Unsaid, Alone), None);
        assert_eq!(told(&mut before, Alone, Well), None);
    }
}
