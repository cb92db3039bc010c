//! Objects that claim the same: who keeps whom from being delivered.
//!
//! A verdict changes with a change of another object, so it is indexed like any
//! outcome, under the kind and revision of that change. What a winner that went
//! before we began to read had claimed nobody can tell; but its losers' statuses
//! named it. So after a list, where verdict and status differ, or nothing was said
//! of the object as it is now, the verdict is news as of the list. So it is where a
//! status was written that we did not see, whatever it says: there may have been
//! another one before, and both changes of the verdict with them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Entry, Store};
use crate::breakage::{Breakage, Breakages};
use crate::claims::{Claims, Holder, Stake};
use crate::compile::{Compiler, Fault, Invalid};
use crate::delivery::Tombstone;
use crate::ids::{Kind, ObjectKey, Revision};
use crate::object::{RawObject, Resource};

/// A time that is the earlier the later this one is: for [`Breakage::YoungestWins`].
fn reversed(time: &str) -> Arc<str> {
    let reversed = |digit: u32| char::from_digit(9 - digit, 10);
    time.chars().map(|one| one.to_digit(10).and_then(reversed).unwrap_or(one)).collect::<String>().into()
}

/// Replaces what an object claims. Returns those that may be concerned: whoever
/// comes after it and claims what it claimed or claims now.
pub(super) fn set_claims(
    held: &mut Claims,
    breakage: Breakages,
    entry: &mut Entry,
    stakes: Box<[Stake]>,
) -> BTreeSet<Holder> {
    let holder = |object: &RawObject| match breakage.is(Breakage::YoungestWins) {
        true => Holder { created: reversed(&object.created), ..Holder::of(object) },
        false => Holder::of(object),
    };
    let after = (!stakes.is_empty()).then(|| (holder(&entry.object), stakes));
    if entry.claims == after {
        return BTreeSet::new();
    }
    let mut concerned = BTreeSet::new();
    if let Some((holder, stakes)) = std::mem::replace(&mut entry.claims, after) {
        held.remove(&holder, &stakes);
        concerned = held.losers(&holder, &stakes);
    }
    if let Some((holder, stakes)) = &entry.claims {
        concerned.append(&mut held.losers(holder, stakes));
        held.insert(holder, stakes);
    }
    concerned
}

impl Store {
    /// Judges again those whom a change of `cause` at `revision` may concern.
    pub(super) fn judge_again(
        &mut self,
        compiler: &dyn Compiler,
        concerned: BTreeSet<Holder>,
        cause: Kind,
        revision: Revision,
    ) {
        if let Some(postponed) = &mut self.postponed {
            postponed.push((concerned, cause, revision));
            return;
        }
        for Holder { kind, key, .. } in concerned {
            let Some(entry) = self.entry(kind, &key) else { continue };
            match (entry.outcome.as_ref().err(), self.lost(compiler, kind, &key)) {
                (None, None) => {}
                (Some(said), Some((invalid, _))) => {
                    // It goes on being nowhere, and names somebody else.
                    if *said != invalid
                        && let Some(entry) = self.kinds[kind.index()].entries.get_mut(&key)
                    {
                        entry.outcome = Err(invalid);
                        self.note(kind, &key, cause, revision);
                    }
                }
                _ => self.recompile(compiler, kind, &key, cause, revision),
            }
        }
    }

    /// Whom an object lost what it claims to, in words, and since when at the latest
    /// that one has claimed it.
    fn lost(
        &self,
        compiler: &dyn Compiler,
        kind: Kind,
        key: &ObjectKey,
    ) -> Option<(Invalid, (Kind, Revision))> {
        let entry = self.entry(kind, key)?;
        let (own, stakes) = entry.claims.as_ref()?;
        let (winner, place) = self.claims.winner(own, stakes)?;
        // Words are made when they are needed: of nearly all claims they never are.
        let claims = compiler.claims(&entry.object);
        let lost = claims.get(place);
        let (field, words) = lost.map_or(("spec", "what it claims"), |lost| (&*lost.field, &*lost.words));
        let invalid = Invalid {
            fault: Fault::Conflict,
            field: field.to_owned(),
            problem: format!("{words} is taken by {} {}, which comes first", winner.kind, winner.key),
            remedy: "claim something else, or change or delete that one".to_owned(),
        };
        let since = self.entry(winner.kind, &winner.key).map_or(Revision(0), |entry| entry.content);
        Some((invalid, (winner.kind, since)))
    }

    /// What an object comes to be among those that claim the same: `found` is told
    /// whose change made it lose.
    pub(super) fn contest(
        &self,
        compiler: &dyn Compiler,
        kind: Kind,
        key: &ObjectKey,
        outcome: Result<Arc<Resource>, Invalid>,
        mut found: impl FnMut((Kind, Revision)),
    ) -> Result<Arc<Resource>, Invalid> {
        let resource = outcome?;
        match self.lost(compiler, kind, key) {
            None => Ok(resource),
            Some((invalid, since)) => {
                found(since);
                Err(invalid)
            }
        }
    }

    /// After a list of `listed` that showed known objects in versions that were not
    /// seen before: see the module's description.
    pub(super) fn recall(
        &mut self,
        compiler: &dyn Compiler,
        listed: Kind,
        unseen: &BTreeSet<ObjectKey>,
        revision: Revision,
    ) {
        let differs = |entry: &Entry| Some(entry.outcome.is_err()) != compiler.was_withheld(&entry.object);
        let entries = self.kinds[listed.index()].entries.iter();
        let differs: Vec<ObjectKey> = entries
            .filter(|(key, entry)| entry.claims.is_some() && (unseen.contains(*key) || differs(entry)))
            .map(|(key, _)| key.clone())
            .collect();
        for key in differs {
            self.note(listed, &key, listed, revision);
            self.may_have_won(listed, &key);
        }
    }

    /// Who has lost now, and before what we did not see had lost or was not there, may
    /// have been delivered in between: only positions from here on are without it.
    pub(super) fn may_have_won(&mut self, kind: Kind, key: &ObjectKey) {
        let now = self.frontier;
        let Some(entry) = self.kinds[kind.index()].entries.get_mut(key) else { return };
        if entry.outcome.as_ref().is_err_and(|invalid| invalid.fault == Fault::Conflict) {
            entry.absent_since = Some(now);
        }
    }

    /// Objects that a change of `cause` above a revision let be delivered, in the
    /// form in which deletions are told: for those who did not see the change.
    pub(super) fn healed(&self, cause: Kind, since: Revision) -> impl Iterator<Item = Tombstone> {
        let of = move |kind: Kind| {
            self.kinds[kind.index()].entries.iter().filter_map(move |(key, entry)| {
                let (by, revision) = entry.healed?;
                let told = by == cause && revision > since;
                told.then(|| Tombstone { kind, key: key.clone(), revision })
            })
        };
        Kind::ALL.into_iter().flat_map(of)
    }
}
