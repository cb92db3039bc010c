//! What tenants wrote, in the order in which it landed: what gateways are to hold
//! follows from this alone.
//!
//! An object's *history* lists what gateways were to have of it over time: a
//! content, or nothing. Positions in it only grow, so "has this gateway gone back?"
//! is a comparison of two numbers.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Claim, Past, Refused, Write};
use crate::ids::{Content, GatewayId, Names, ObjectId};

/// What gateways are to have of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// This.
    Content(Content),
    /// Nothing: it is there and cannot be delivered.
    Invalid,
    /// Nothing: an older object claims the same.
    Displaced,
    /// Nothing: it is not there.
    Gone,
}

impl What {
    pub(crate) fn is_nothing(self) -> bool {
        !matches!(self, What::Content(_))
    }
}

/// One step of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) what: What,
    pub(crate) revision: u64,
}

/// Who refuses a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Nowhere,
    Everywhere,
    Silently,
    By(Box<[GatewayId]>),
}

impl Refusal {
    pub(crate) fn by(&self, gateway: GatewayId) -> bool {
        match self {
            Refusal::Nowhere => false,
            Refusal::Everywhere | Refusal::Silently => true,
            Refusal::By(gateways) => gateways.contains(&gateway),
        }
    }
}

/// One write of a spec.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) object: ObjectId,
    pub(crate) generation: u32,
    pub(crate) valid: bool,
    pub(crate) refused: Refusal,
    pub(crate) references: Box<[ObjectId]>,
    /// Where it stands in the object's history for the first and the last time;
    /// `u32::MAX` and 0 for what was never to be had by gateways.
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// An object that is there.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) content: Content,
    pub(crate) generation: u32,
    pub(crate) uid: u32,
    pub(crate) valid: bool,
    pub(crate) claim: Option<u32>,
    /// What its status says, and whether admission let it in.
    pub(crate) status: Option<Claim>,
    pub(crate) admitted: bool,
}

/// One place for objects.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pub(crate) history: Vec<Step>,
    pub(crate) live: Option<Live>,
}

impl Place {
    /// What gateways are to have of it now.
    pub(crate) fn now(&self) -> What {
        self.history.last().map_or(What::Gone, |step| step.what)
    }
}

/// Everything that tenants wrote.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// By object.
    pub(crate) places: Vec<Place>,
    /// By content.
    contents: Vec<Option<Written>>,
    /// Objects that are there, by what they claim, the oldest first.
    claims: BTreeMap<u32, BTreeSet<(u64, String, ObjectId)>>,
}

/// A change of what gateways are to have of an object: the step that was added to
/// its history.
pub(crate) type Changed = (ObjectId, u32);

impl Truth {
    pub(crate) fn place(&self, object: ObjectId) -> Option<&Place> {
        self.places.get(object.index())
    }

    pub(crate) fn place_mut(&mut self, object: ObjectId) -> &mut Place {
        if self.places.len() <= object.index() {
            self.places.resize_with(object.index() + 1, Place::default);
        }
        &mut self.places[object.index()]
    }

    pub(crate) fn content(&self, content: Content) -> Option<&Written> {
        self.contents.get(content.0 as usize)?.as_ref()
    }

    /// Whether an object is there, deliverable or not.
    pub(crate) fn is_there(&self, object: ObjectId) -> bool {
        self.place(object).is_some_and(|place| place.live.is_some())
    }

    /// Which of a content's references are there, as bits.
    pub(crate) fn resolved(&self, written: &Written) -> u32 {
        let there = |(bit, object): (usize, &ObjectId)| u32::from(self.is_there(*object)) << bit;
        written.references.iter().take(32).enumerate().map(there).sum()
    }

    /// A tenant's write landed. `changes` gets what it changed for gateways.
    pub(crate) fn written(
        &mut self,

        names: &Names,
        write: &Write<'_>,
        admitted: bool,
        changes: &mut Vec<Changed>,
    ) {
        let index = write.content.0 as usize;
        if self.contents.len() <= index {
            self.contents.resize_with(index + 1, || None);
        }
        let refused = match write.refused {
            Refused::Nowhere => Refusal::Nowhere,
            Refused::Everywhere => Refusal::Everywhere,
            Refused::Silently => Refusal::Silently,
            Refused::By(gateways) => Refusal::By(gateways.into()),
        };
        self.contents[index] = Some(Written {
            object: write.object,
            generation: write.generation,
            valid: write.valid,
            refused,
            references: write.references.into(),
            first: u32::MAX,
            last: 0,
        });
        let place = self.place_mut(write.object);
        let before = place.live.take().filter(|live| live.uid == write.uid);
        let left = before.as_ref().and_then(|live| live.claim);
        place.live = Some(Live {
            content: write.content,
            generation: write.generation,
            uid: write.uid,
            valid: write.valid,
            claim: write.claim,
            status: before.as_ref().and_then(|live| live.status),
            admitted: before.as_ref().is_some_and(|live| live.admitted && live.claim == write.claim)
                || admitted,
        });
        let left = left.filter(|left| write.claim != Some(*left));
        if let Some(claim) = left {
            self.leave(claim, write.object);
        }
        if let Some(claim) = write.claim {
            let name = names.of_object(write.object).to_owned();
            self.claims.entry(claim).or_default().insert((write.created, name, write.object));
        }
        // A new content is a step of its own, even where it makes no difference.
        self.step(write.object, write.revision, changes);
        for claim in left.into_iter().chain(write.claim) {
            self.settle_claim(claim, write.revision, changes);
        }
    }

    /// A tenant's deletion landed.
    pub(crate) fn deleted(&mut self, object: ObjectId, revision: u64, changes: &mut Vec<Changed>) {
        let Some(live) = self.place_mut(object).live.take() else { return };
        if let Some(claim) = live.claim {
            self.leave(claim, object);
        }
        self.step(object, revision, changes);
        if let Some(claim) = live.claim {
            self.settle_claim(claim, revision, changes);
        }
    }

    /// An object is what it was once; what it claimed is not taken up again. `changes`
    /// gets what that changes for gateways.
    pub(crate) fn restored(
        &mut self,
        object: ObjectId,
        revision: u64,
        past: Option<Past>,
        changes: &mut Vec<Changed>,
    ) {
        let known = past.and_then(|past| Some((past, self.content(past.content)?.valid)));
        let place = self.place_mut(object);
        let Some((past, valid)) = known else {
            if place.live.take().is_some() {
                self.step(object, revision, changes);
            }
            return;
        };
        place.live = Some(Live {
            content: past.content,
            generation: past.generation,
            uid: past.uid,
            valid,
            claim: None,
            status: past.says,
            admitted: false,
        });
        if !past.same {
            self.step(object, revision, changes);
        }
    }

    fn leave(&mut self, claim: u32, object: ObjectId) {
        if let Some(all) = self.claims.get_mut(&claim) {
            all.retain(|(_, _, other)| *other != object);
        }
    }

    /// Who claims the same as others, and is not the oldest of the valid ones, gives
    /// way.
    fn settle_claim(&mut self, claim: u32, revision: u64, changes: &mut Vec<Changed>) {
        let all: Vec<ObjectId> =
            self.claims.get(&claim).into_iter().flatten().map(|(_, _, object)| *object).collect();
        for object in all {
            if self.wanted(object) != self.places[object.index()].now() {
                self.step(object, revision, changes);
            }
        }
    }

    /// What gateways are to have of an object.
    fn wanted(&self, object: ObjectId) -> What {
        let Some(live) = &self.places[object.index()].live else { return What::Gone };
        if !live.valid {
            return What::Invalid;
        }
        match self.winner(live.claim) {
            Some(winner) if winner != object => What::Displaced,
            _ => What::Content(live.content),
        }
    }

    /// Of the objects with this claim that can be delivered, the oldest.
    pub(crate) fn winner(&self, claim: Option<u32>) -> Option<ObjectId> {
        let valid =
            |object: &ObjectId| self.places[object.index()].live.as_ref().is_some_and(|live| live.valid);
        self.claims.get(&claim?)?.iter().map(|(_, _, object)| *object).find(valid)
    }

    /// Another object than `object` that was admitted with this claim.
    pub(crate) fn admitted_with(&self, claim: u32, object: ObjectId) -> Option<ObjectId> {
        let admitted = |other: &ObjectId| {
            *other != object && self.places[other.index()].live.as_ref().is_some_and(|live| live.admitted)
        };
        self.claims.get(&claim)?.iter().map(|(_, _, other)| *other).find(admitted)
    }

    /// Adds to an object's history what gateways are to have of it now.
    fn step(&mut self, object: ObjectId, revision: u64, changes: &mut Vec<Changed>) {
        let what = self.wanted(object);
        let place = &mut self.places[object.index()];
        let index = u32::try_from(place.history.len()).unwrap_or(u32::MAX);
        place.history.push(Step { what, revision });
        if let What::Content(content) = what
            && let Some(written) = self.contents[content.0 as usize].as_mut()
        {
            written.first = written.first.min(index);
            written.last = index;
        }
        changes.push((object, index));
    }
}
