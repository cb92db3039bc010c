//! Admissions, as `src/runtime/webhook` decides them: the replica that the API server
//! asks puts the question to the namespace's owner, which reserves what it admits;
//! with the owner out of reach a stand-in decides, and at last the replica itself.
//!
//! What is claimed, held and reserved is the product's own (`Conflicts`). Of whom is
//! asked when, this is a model. The observer hears of those admissions that are
//! promised to create no conflict: decided by an owner that had seen what was written
//! half a second before, by a clock that runs like the others', and written at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_avapigw::{Conflicts, Scope};
use flotilla_core::breakage::Breakage;
use flotilla_core::claims::Claim;
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::ring::Position;
use flotilla_core::shardmap::Ownership;
use flotilla_observer::{Event as Seen, ObjectId};

use crate::clock::{MILLIS, SECONDS};
use crate::scenario::End;
use crate::statistics::Count;
use crate::universe::{Spec, is_contested};
use crate::world::{Occurrence, Reach, World};

/// The product's times, see `src/runtime/webhook/decide`.
const SHOWS_UP: u64 = SECONDS;
const ANSWER: u64 = SECONDS;
const PATIENCE: u64 = 700 * MILLIS;
const ONCE_MORE: u64 = 300 * MILLIS;
const ALL: u64 = 4 * SECONDS;
const STAND_INS: usize = 2;
/// How long an API server waits for a webhook.
const WEBHOOK: u64 = 10 * SECONDS;
/// What an owner must have seen that is as old as this, and how soon what it admitted
/// must be written: together less than `SHOWS_UP`.
const PROMPT: u64 = 450 * MILLIS;

/// What a process knows of what is claimed, and since when it may decide.
pub struct Admission {
    known: Conflicts,
    /// Epoch, and a number that moves with what is acted on.
    view: (u64, u64),
    now: Option<Arc<Ownership>>,
    before: Option<Arc<Ownership>>,
    since: u64,
    /// When it was last asked and could not decide, by namespace.
    missed: BTreeMap<Arc<str>, u64>,
}

impl Admission {
    /// One that knows nothing yet.
    pub fn new(now: u64) -> Self {
        let known = Conflicts::new(Scope::Namespace);
        Admission { known, view: (0, 0), now: None, before: None, since: now, missed: BTreeMap::new() }
    }

    /// A complete list. All that tenants do not contest on purpose is left out: it
    /// matches the same everywhere.
    pub fn listed(&mut self, kind: Kind, objects: &[RawObject]) {
        let contested: Vec<_> = objects.iter().filter(|object| is_contested(&object.spec)).cloned().collect();
        self.known.listed(kind, &contested);
    }

    /// An object as a watch shows it.
    pub fn changed(&mut self, object: &RawObject) {
        if is_contested(&object.spec) {
            self.known.insert(object);
        } else {
            self.known.remove(object.kind, &object.key);
        }
    }

    /// An object that is gone.
    pub fn gone(&mut self, kind: Kind, key: &ObjectKey) {
        self.known.remove(kind, key);
    }

    /// Takes note of a map, and of what is acted on.
    pub fn note(&mut self, now: u64, view: (u64, u64), ownership: Option<&Arc<Ownership>>) {
        if view == self.view {
            return;
        }
        let former = std::mem::replace(&mut self.now, ownership.cloned());
        // Of maps that follow each other at once the first counts.
        if view.0 != self.view.0 && now >= self.since + SHOWS_UP {
            self.before = former;
        }
        (self.view, self.since) = (view, now);
    }

    /// When what others admitted before this one became the owner has shown up.
    fn settled(&self, name: &str) -> u64 {
        let owner = |view: &Option<Arc<Ownership>>| view.as_ref().and_then(|view| view.owner(name).cloned());
        let wait = if owner(&self.before) == owner(&self.now) { 0 } else { SHOWS_UP };
        let settled = self.since + wait;
        self.missed.get(name).map_or(settled, |at| settled.max(at + SHOWS_UP))
    }
}

/// What became of a question.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    free: bool,
    /// That it creates no conflict is promised, if it is written soon after this time.
    promised: Option<u64>,
}

/// Whom a replica asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Owner,
    OwnerAgain,
    StandIn(usize),
}

/// What happens next to a review.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The API server asks a replica.
    Arrives,
    /// The replica asks the owner once more.
    AsksAgain,
    /// The question is with this process.
    Asked(usize, u32),
    /// The answer is there, or time is up.
    Answered(Option<Verdict>),
    /// The API server writes what was admitted.
    Writes(Option<u64>),
}

/// One write that waits for its admission.
#[derive(Debug)]
pub struct Review {
    place: u32,
    spec: Spec,
    /// What was there when it was asked for: uid and generation.
    before: Option<(Arc<str>, i64)>,
    claims: Vec<Claim>,
    /// The process that the API server asked.
    asker: (usize, u32),
    /// Since when it waits.
    began: u64,
    stage: Stage,
    step: Step,
    /// When the asker gives the present question up.
    until: u64,
    /// When whoever is asked gives up waiting for its turn.
    patience: u64,
    redirected: bool,
}

impl Review {
    /// A number for the sum of the run.
    pub fn number(&self) -> (usize, u32) {
        let step = match self.step {
            Step::Arrives => 0,
            Step::AsksAgain => 1,
            Step::Asked(slot, _) => 2 + slot as u32,
            Step::Answered(_) => 40,
            Step::Writes(_) => 41,
        };
        (step as usize, self.place)
    }
}

impl World<'_> {
    /// A tenant writes a route; the API server asks a replica first.
    pub(crate) fn review(&mut self, place: u32, spec: Spec) {
        let ready = |slot: &usize| self.slots[*slot].process.as_ref().is_some_and(|p| p.is_ready());
        let ready: Vec<usize> = (0..self.slots.len()).filter(ready).collect();
        if ready.is_empty() {
            return self.stats.count(Count::Unasked);
        }
        let slot = ready[self.reviews.index(ready.len())];
        let Some(life) = self.slots[slot].process.as_ref().map(|process| process.life) else { return };
        let review = Review {
            place,
            spec,
            before: None,
            claims: Vec::new(),
            asker: (slot, life),
            began: self.now,
            stage: Stage::Owner,
            step: Step::Arrives,
            until: 0,
            patience: 0,
            redirected: false,
        };
        let at = self.now + self.latency(slot);
        self.queue.push(at, Occurrence::Review(Box::new(review)));
    }

    fn then(&mut self, at: u64, step: Step, mut review: Box<Review>) {
        review.step = step;
        // What was to be waited for may be over.
        self.queue.push(at.max(self.now), Occurrence::Review(review));
    }

    /// The next step of a review.
    pub(crate) fn reviewed(&mut self, review: Box<Review>) {
        let step = review.step;
        let (slot, life) = match step {
            Step::Writes(promised) => return self.write_admitted(&review, promised),
            Step::Asked(slot, life) => (slot, life),
            _ => review.asker,
        };
        match self.reaches(slot, life) {
            Reach::Now => {}
            Reach::Later(at) if matches!(step, Step::Asked(..)) && at >= review.until => {
                let until = review.until;
                return self.then(until, Step::Answered(None), review);
            }
            Reach::Later(at) if at < review.began + WEBHOOK => return self.then(at, step, review),
            Reach::Never if matches!(step, Step::Asked(..)) => {
                let until = review.until;
                return self.then(until, Step::Answered(None), review);
            }
            // The API server had no answer in time, and refuses the write.
            Reach::Later(_) | Reach::Never => return self.stats.count(Count::Unasked),
        }
        match step {
            Step::Arrives => self.examine(review),
            Step::AsksAgain => self.ask_owner(review, ONCE_MORE),
            Step::Asked(slot, _) => self.asked_for_admission(slot, review),
            Step::Answered(verdict) => self.answered_about_admission(verdict, review),
            Step::Writes(_) => {}
        }
    }

    /// What would be claimed anew is asked of the owner.
    fn examine(&mut self, mut review: Box<Review>) {
        let now = self.now;
        let before = self.api.object(review.place).cloned();
        if before.as_ref().is_some_and(|object| object.deleting) {
            return;
        }
        let (kind, key) = (self.universe.kind(review.place), self.universe.key(review.place).clone());
        let object = RawObject {
            kind,
            key,
            uid: "".into(),
            revision: Revision(0),
            generation: 0,
            created: "".into(),
            deleting: false,
            held: false,
            spec: self.universe.spec(review.place, 0, review.spec),
            status: bytes::Bytes::new(),
        };
        review.before = before.as_ref().map(|object| (object.uid.clone(), object.generation));
        // What was not contested claims nothing here.
        let before = before.filter(|object| is_contested(&object.spec));
        let slot = review.asker.0;
        let Some(admission) = self.slots[slot].process.as_ref().and_then(|p| p.admission.as_ref()) else {
            return;
        };
        review.claims = admission.known.new_claims(&object, before.as_ref());
        if review.claims.is_empty() {
            let at = now + self.latency(slot);
            return self.then(at, Step::Writes(None), review);
        }
        if self.breakage.is(Breakage::OwnerNotAsked) {
            let verdict = self.decide_admission(slot, &review, true);
            return self.answered_about_admission(verdict, review);
        }
        self.ask_owner(review, ANSWER);
    }

    /// The slot of the member that owns a namespace by a replica's map.
    fn owner_by(&self, slot: usize, namespace: &str) -> Option<usize> {
        let ownership = self.slots[slot].process.as_ref()?.shown.ownership.as_ref()?;
        ownership.owner(namespace)?.as_str().get(1..)?.parse().ok()
    }

    fn namespace_of(&self, review: &Review) -> Arc<str> {
        self.universe.key(review.place).namespace.clone()
    }

    fn ask_owner(&mut self, review: Box<Review>, patience: u64) {
        match self.owner_by(review.asker.0, &self.namespace_of(&review)) {
            Some(owner) => self.put_to(owner, patience, review),
            None => self.decide_alone(review),
        }
    }

    fn put_to(&mut self, target: usize, patience: u64, mut review: Box<Review>) {
        let now = self.now;
        review.until = (now + patience).min(review.began + ALL).max(now);
        review.redirected = false;
        self.send_question(target, now, review);
    }

    /// The question goes to a member, if it is reached.
    fn send_question(&mut self, target: usize, at: u64, mut review: Box<Review>) {
        let asker = review.asker.0;
        let life = self.slots.get(target).and_then(|slot| slot.process.as_ref()).map(|process| process.life);
        let arrives = if target == asker { at } else { at + self.latency(asker) };
        match life.filter(|_| self.is_reached(asker, target) && arrives < review.until) {
            Some(life) => {
                review.patience = arrives + PATIENCE;
                self.then(arrives, Step::Asked(target, life), review);
            }
            None => {
                let until = review.until;
                self.then(until, Step::Answered(None), review);
            }
        }
    }

    fn is_reached(&self, one: usize, other: usize) -> bool {
        let (a, b) = (End::Replica(one as u8), End::Replica(other as u8));
        one == other || self.network.disturbed_until(self.now, a, b) <= self.now
    }

    /// A member is asked.
    fn asked_for_admission(&mut self, slot: usize, mut review: Box<Review>) {
        let now = self.now;
        let namespace = self.namespace_of(&review);
        let verdict = if matches!(review.stage, Stage::StandIn(_)) {
            // It asks the owner once more itself.
            let owner = self.owner_by(slot, &namespace).filter(|owner| *owner != slot);
            let owner = owner.filter(|owner| self.is_reached(slot, *owner) && self.is_awake(*owner));
            match owner.filter(|owner| matches!(self.turn(*owner, &namespace), Turn::From(at) if at <= now)) {
                Some(owner) => self.decide_admission(owner, &review, true),
                None => self.decide_admission(slot, &review, false),
            }
        } else {
            match self.turn(slot, &namespace) {
                Turn::From(at) if at <= now => self.decide_admission(slot, &review, true),
                Turn::From(at) if at <= review.patience => {
                    return self.then(at, Step::Asked(slot, self.life(slot)), review);
                }
                Turn::Later if now + 50 * MILLIS <= review.patience => {
                    return self.then(now + 50 * MILLIS, Step::Asked(slot, self.life(slot)), review);
                }
                Turn::Another(Some(other)) if other != slot && !review.redirected => {
                    review.redirected = true;
                    return self.send_question(other, now, review);
                }
                _ => None,
            }
        };
        let asker = review.asker.0;
        let arrives = if slot == asker { now } else { now + self.latency(slot) };
        let in_time = arrives <= review.until && self.is_reached(asker, slot);
        let (at, verdict) = if in_time { (arrives, verdict) } else { (review.until, None) };
        self.then(at, Step::Answered(verdict), review);
    }

    fn life(&self, slot: usize) -> u32 {
        self.slots[slot].process.as_ref().map_or(0, |process| process.life)
    }

    fn is_awake(&self, slot: usize) -> bool {
        let process = self.slots.get(slot).and_then(|slot| slot.process.as_ref());
        process.is_some_and(|process| process.paused_until <= self.now)
    }

    /// Whether a member may decide.
    fn turn(&mut self, slot: usize, namespace: &Arc<str>) -> Turn {
        let now = self.now;
        let owner = self.owner_by(slot, namespace);
        let Some(process) = &mut self.slots[slot].process else { return Turn::Another(None) };
        let may_act = process.coordinator.may_act(process.clock.read(now), namespace);
        let view = (process.shown.key.0, process.shown.acting);
        let Some(admission) = &mut process.admission else { return Turn::Another(None) };
        admission.note(now, view, process.shown.ownership.as_ref());
        if owner != Some(slot) {
            return Turn::Another(owner);
        }
        if may_act {
            return Turn::From(admission.settled(namespace));
        }
        admission.missed.insert(namespace.clone(), now);
        Turn::Later
    }

    /// A member decides by what its watches have shown it.
    fn decide_admission(&mut self, slot: usize, review: &Review, owns: bool) -> Option<Verdict> {
        let now = self.now;
        let (kind, key) = (self.universe.kind(review.place), self.universe.key(review.place));
        let reserve = !self.breakage.is(Breakage::ReservationsForgotten);
        let void = self.leases_are_void();
        let process = self.slots[slot].process.as_mut()?;
        let seen = process.watches[kind.index()].highest();
        let fresh = self.api.lanes[kind.index()].written_by(now.saturating_sub(PROMPT)) <= seen;
        let local = process.clock.read(now);
        let known = &mut process.admission.as_mut()?.known;
        if !known.is_complete() {
            return None;
        }
        let taken = known.admit(local, kind, key, &review.claims, reserve);
        if self.witness.telling() {
            let words = format!("{} decides about {kind} {key} (owner: {owns}): {taken:?}", process.instance);
            self.witness.tell(now, || words);
        }
        let promised = (owns && fresh && !void).then_some(now);
        Some(Verdict { free: taken.is_empty(), promised })
    }

    fn answered_about_admission(&mut self, verdict: Option<Verdict>, mut review: Box<Review>) {
        let now = self.now;
        let slot = review.asker.0;
        match verdict {
            Some(Verdict { free: true, promised }) => {
                let at = now + self.latency(slot);
                return self.then(at, Step::Writes(promised), review);
            }
            Some(_) => return self.stats.count(Count::Denied),
            None if now >= review.began + ALL => return self.decide_alone(review),
            None => {}
        }
        match review.stage {
            Stage::Owner => {
                review.stage = Stage::OwnerAgain;
                self.then(now + SHOWS_UP, Step::AsksAgain, review);
            }
            Stage::OwnerAgain => self.ask_stand_in(0, review),
            Stage::StandIn(number) => self.ask_stand_in(number + 1, review),
        }
    }

    fn ask_stand_in(&mut self, number: usize, mut review: Box<Review>) {
        let namespace = self.namespace_of(&review);
        let slot = review.asker.0;
        let owner = self.owner_by(slot, &namespace);
        let map = self.slots[slot].process.as_ref().and_then(|process| process.shown.ownership.as_ref());
        let members = map.map(|map| map.map().members.iter().map(|member| member.name.clone()));
        let mut others: Vec<(Position, usize)> = members
            .into_iter()
            .flatten()
            .filter_map(|member| {
                let other: usize = member.as_str().get(1..)?.parse().ok()?;
                Some((Position::of(&format!("{namespace}/{member}")), other))
            })
            .filter(|(_, other)| Some(*other) != owner)
            .collect();
        others.sort_unstable();
        match others.into_iter().take(STAND_INS).nth(number) {
            Some((_, other)) => {
                review.stage = Stage::StandIn(number);
                self.put_to(other, ANSWER, review);
            }
            None => self.decide_alone(review),
        }
    }

    /// Nobody is reached.
    fn decide_alone(&mut self, review: Box<Review>) {
        let slot = review.asker.0;
        match self.decide_admission(slot, &review, false) {
            Some(Verdict { free: true, .. }) => {
                let at = self.now + self.latency(slot);
                self.then(at, Step::Writes(None), review);
            }
            _ => self.stats.count(Count::Denied),
        }
    }

    /// The API server writes, unless somebody else has written meanwhile.
    fn write_admitted(&mut self, review: &Review, promised: Option<u64>) {
        let there = self.api.object(review.place);
        let same = there.map(|object| (object.uid.clone(), object.generation)) == review.before;
        if !same || there.is_some_and(|object| object.deleting) {
            return self.stats.count(Count::Unasked);
        }
        let prompt = promised.is_some_and(|decided| self.now <= decided + PROMPT);
        if let Some(claim) = self.universe.claim(review.place, review.spec).filter(|_| prompt) {
            self.stats.count(Count::Admitted);
            let object = ObjectId(review.place);
            self.witness.see(self.now, &Seen::Admission { object, claim, allowed: true });
        }
        self.put(review.place, review.spec);
        self.spread_news();
    }
}

/// Whether a member may decide.
enum Turn {
    /// From this moment on.
    From(u64),
    /// Not before something changes.
    Later,
    /// It is for another one, if this member knows of any.
    Another(Option<usize>),
}
