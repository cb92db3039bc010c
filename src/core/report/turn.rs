//! What people are told of an object besides its status: only that it turned, from
//! well to not, or to well.
//!
//! An object that is on its way to gateways has not turned yet, however long that
//! takes, and gateways that come and go turn nothing well: a fleet that was away
//! would otherwise make an event of every object when it comes back.

use std::sync::Arc;

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
    /// Not everybody has it, or nobody may, for this reason.
    Bad(&'static str),
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
    /// Why, for people.
    pub message: String,
}

/// Whether an object turned: `Some(true)` when it is well now and was not before,
/// `Some(false)` when something is wrong with it that was not before.
pub fn turned(from: Standing, to: Standing) -> Option<bool> {
    match (from, to) {
        (Standing::Unsaid | Standing::Bad(_), Standing::Well) => Some(true),
        (Standing::Bad(before), Standing::Bad(now)) if before == now => None,
        (_, Standing::Bad(_)) => Some(false),
        _ => None,
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
            (Bad("a"), Well, Some(true)),
            (Unsaid, Bad("a"), Some(false)),
            (Well, Bad("a"), Some(false)),
            (Underway, Bad("a"), Some(false)),
            (Alone, Bad("a"), Some(false)),
            (Bad("a"), Bad("b"), Some(false)),
            (Bad("a"), Bad("a"), None),
            // A change on its way, whatever it was before and whoever acts now.
            (Unsaid, Underway, None),
            (Well, Underway, None),
            (Bad("a"), Underway, None),
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
}
