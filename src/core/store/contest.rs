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
use crate::claims::{Claim, Claims, Holder, stakes};
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
    claims: &[Claim],
) -> BTreeSet<Holder> {
    let holder = |object: &RawObject| match breakage.is(Breakage::YoungestWins) {
        true => Holder { created: reversed(&object.created), ..Holder::of(object) },
        false => Holder::of(object),
    };
    let after = (!claims.is_empty()).then(|| (holder(&entry.object), stakes(claims)));
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

/// To whom an object loses what it claims.
struct Loss<'a> {
    winner: &'a Holder,
    /// Which of its claims, by its place.
    place: usize,
    /// Since when at the latest the winner has claimed it.
    since: (Kind, Revision),
}

impl Loss<'_> {
    /// In words, for the claim that is lost.
    fn said(&self, lost: Option<&Claim>) -> Invalid {
        let (field, words) = lost.map_or(("spec", "what it claims"), |lost| (&*lost.field, &*lost.words));
        Invalid {
            fault: Fault::Conflict,
            field: field.to_owned(),
            problem: format!(
                "{words} is taken by {} {}, which comes first",
                self.winner.kind, self.winner.key
            ),
            remedy: "claim something else, or change or delete that one".to_owned(),
        }
    }
}

/// The claim that an object loses, with its place: kept, as whoever loses among many is
/// told of another winner each time that one of them goes.
pub(super) type Lost = (usize, Claim);

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
            match (entry.outcome.as_ref().err(), self.loss(kind, &key)) {
                (None, None) => {}
                (Some(said), Some(loss)) => {
                    // It goes on being nowhere, and names somebody else.
                    let lost = match entry.lost.as_deref() {
                        Some((place, lost)) if *place == loss.place => Some(lost.clone()),
                        _ => compiler.claims(&entry.object).into_iter().nth(loss.place),
                    };
                    let (place, invalid) = (loss.place, loss.said(lost.as_ref()));
                    if *said != invalid
                        && let Some(entry) = self.kinds[kind.index()].entries.get_mut(&key)
                    {
                        entry.outcome = Err(invalid);
                        entry.lost = lost.map(|lost| Box::new((place, lost)));
                        self.note(kind, &key, cause, revision);
                    }
                }
                _ => self.recompile(compiler, kind, &key, cause, revision),
            }
        }
    }

    /// To whom an object loses what it claims, if it does.
    fn loss(&self, kind: Kind, key: &ObjectKey) -> Option<Loss<'_>> {
        let (own, stakes) = self.entry(kind, key)?.claims.as_ref()?;
        let (winner, place) = self.claims.winner(own, stakes)?;
        let since = self.entry(winner.kind, &winner.key).map_or(Revision(0), |entry| entry.content);
        Some(Loss { winner, place, since: (winner.kind, since) })
    }

    /// What an object comes to be among those that claim the same, and what it loses:
    /// `found` is told whose change made it lose.
    pub(super) fn contest(
        &self,
        kind: Kind,
        key: &ObjectKey,
        outcome: Result<Arc<Resource>, Invalid>,
        claims: Vec<Claim>,
        mut found: impl FnMut((Kind, Revision)),
    ) -> (Result<Arc<Resource>, Invalid>, Option<Box<Lost>>) {
        match self.loss(kind, key).filter(|_| outcome.is_ok()) {
            None => (outcome, None),
            Some(loss) => {
                found(loss.since);
                let lost = claims.into_iter().nth(loss.place);
                (Err(loss.said(lost.as_ref())), lost.map(|lost| Box::new((loss.place, lost))))
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
