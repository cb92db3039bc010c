//! When to write which status.
//!
//! The reporter of a replica looks after the objects of the namespaces that
//! the replica acts on. An object is *pending* from the moment its content
//! changes until its status says what is finally true of it. Each pending
//! object gets one patch when it has reached every gateway; one more before
//! that only if it takes longer than about a second. Counts that moved only
//! because gateways came or went are refreshed at a bounded rate, those that
//! have waited longest first.
//!
//! A pending object is planned again when it changed, when the table of what
//! gateways have changed, or when its own deadline has come, and a round plans
//! a bounded number: rounds run where the objects are, and deliveries wait for
//! them.
//!
//! Whoever has just started knows no gateway yet, and whoever takes a namespace
//! over knows what stands there: the last word of the owner before. While that
//! still speaks of the present content, only gateways can make it untrue, so it
//! is left alone until they have stopped coming and going, like a count. A
//! replica that has not seen a single gateway since its start waits for as long
//! as gateways pause before they connect again; then it says that there is none.
//!
//! What a status says is the family's business ([`StatusPlanner`]); the
//! reporter decides when to ask and when to write.

mod objects;
mod refresh;
mod turn;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use self::refresh::RefreshQueue;
use self::turn::Before;
pub use self::turn::{News, Standing, Turn, turned};
use crate::applied::{AppliedView, Census, Reach};
use crate::breakage::{Breakage, Breakages};
use crate::compile::Invalid;
use crate::ids::{Epoch, Frontier, Kind, ObjectKey, Revision};
use crate::object::RawObject;
use crate::time::Mono;

/// Whether an object's compilation left something to deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity<'a> {
    /// It is delivered.
    Valid,
    /// It is not, and this is why.
    Invalid(&'a Invalid),
}

/// How final a status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// Nothing more is to be expected until something changes.
    Final,
    /// It is still on its way to some gateways.
    Progress,
    /// Who acts in a later epoch has written it: it is not ours to write.
    Fenced,
}

/// What the family wants an object's status to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStatus {
    /// What is to be written (see [`StatusPatch::body`]), or `None` when its
    /// status is right.
    pub patch: Option<Vec<u8>>,
    /// Whether this is the last word.
    pub finality: Finality,
    /// Whether the status that is there is the last word about the object's
    /// present generation, so that only gateways can have made it untrue.
    pub stands: bool,
    /// How the object stands before and after the patch; `None` without one.
    pub turn: Option<Turn>,
}

/// The family's part: what a status says. Pure.
pub trait StatusPlanner: Send {
    /// Plans one object's status. Unless it is fenced, it is
    /// [`Finality::Progress`] exactly while a valid object is under way
    /// ([`Reach::is_under_way`]). `wall` is the time for people, RFC 3339, and
    /// `epoch` that in which we act: a status that was written in a later one is
    /// left alone ([`Finality::Fenced`]).
    fn plan(
        &self,
        wall: &str,
        epoch: Epoch,
        object: &RawObject,
        validity: Validity<'_>,
        reach: &Reach,
    ) -> PlannedStatus;
}

/// What the reporter needs to see of the replica's objects.
pub trait Objects {
    /// Keys of objects whose content changed above this frontier.
    fn changed_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)>;
    /// Keys of objects whose status changed above this frontier and nothing
    /// else, whoever wrote it.
    fn restated_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)>;
    /// All keys.
    fn all(&self) -> Vec<(Kind, ObjectKey)>;
    /// One object with its content revision, content hash and validity;
    /// `None` when it is gone or being deleted.
    fn get(&self, kind: Kind, key: &ObjectKey) -> Option<ObjectView<'_>>;
    /// How far the objects are known.
    fn frontier(&self) -> Frontier;
}

/// One object as the reporter sees it.
pub struct ObjectView<'a> {
    /// The object.
    pub object: &'a RawObject,
    /// What a position must have reached to have what is delivered of it now.
    pub needs: Frontier,
    /// Its content hash.
    pub content: u32,
    /// Whether it is delivered.
    pub validity: Validity<'a>,
}

/// A patch to be written now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusPatch {
    /// Kind of the object.
    pub kind: Kind,
    /// The object.
    pub key: ObjectKey,
    /// The generation that it speaks of.
    pub generation: i64,
    /// The epoch in which it was planned, and in which its writer acts.
    pub epoch: Epoch,
    /// The fields that are ours for server-side apply, with the precondition.
    pub body: Vec<u8>,
    /// What people are to be told when it is written.
    pub news: Option<News>,
}

/// What became of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchOutcome {
    /// Written.
    Written,
    /// The object changed meanwhile or is gone: what is to be done follows
    /// from its next event.
    Conflict,
    /// It could not be written; try again after this time.
    Failed(Duration),
}

/// How many objects one round plans: at some microseconds each, deliveries wait
/// for a few milliseconds.
const PLANS: usize = 1000;

/// How many refreshes a late round may catch up on.
const REFRESH_BURST: u32 = 5;

/// Timing of the reporter.
#[derive(Debug, Clone)]
pub struct ReportConfig {
    /// How long a change may take before its progress is written: about a second,
    /// together with a hand-over.
    pub progress_after: Duration,
    /// Pause between two progress patches of one object.
    pub progress_every: Duration,
    /// How long gateways must have stopped coming and going before counts are
    /// refreshed. If they never stop, ten times as long is enough.
    pub refresh_after: Duration,
    /// How long a replica that has seen no gateway since its start leaves alone
    /// what stands there. Longer than gateways pause before they connect again
    /// (31 s at most).
    pub gateways_return: Duration,
    /// Pause between two patches that were not caused by a change but by
    /// gateways that came or went, over all replicas: each takes its turn once in
    /// so many pauses as there are members. 100 ms is ten a second, so the
    /// counts of 500 objects are right again after 50 s.
    pub refresh_every: Duration,
    /// How long a missing member's table is waited for before a status is
    /// written without it. Longer than a member Lease.
    pub patience: Duration,
    /// How many patches may be in flight.
    pub concurrency: usize,
    /// What is wrong on purpose: see [`crate::breakage`].
    pub breakage: Breakages,
}

impl Default for ReportConfig {
    fn default() -> Self {
        ReportConfig {
            progress_after: Duration::from_millis(800),
            progress_every: Duration::from_secs(2),
            refresh_after: Duration::from_secs(3),
            gateways_return: Duration::from_secs(35),
            refresh_every: Duration::from_millis(100),
            patience: Duration::from_secs(6),
            concurrency: 8,
            breakage: Breakages::default(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    since: Mono,
    not_before: Mono,
    /// In a row, without anything having been written.
    conflicts: u32,
    /// The last word has been written; what differs since is a count.
    said: bool,
    /// Nothing is known to have changed: it came with the namespace, or with
    /// the first look at its kind.
    inherited: bool,
    /// Planned against this version of the tables, and there was nothing to
    /// write: planning again before anything changed gives the same answer.
    looked: Option<u64>,
    /// The time alone makes a difference then.
    due: Option<Mono>,
    /// From this revision of the object, in this epoch, progress was planned
    /// and not written, because it was too early and for no other reason.
    early: Option<(Revision, Epoch)>,
}

impl Pending {
    fn new(now: Mono) -> Self {
        Pending {
            since: now,
            not_before: now,
            conflicts: 0,
            said: false,
            inherited: false,
            looked: None,
            due: None,
            early: None,
        }
    }

    fn inherited(now: Mono) -> Self {
        Pending { inherited: true, ..Pending::new(now) }
    }

    /// When it is to be planned again although nothing changes: now or earlier
    /// if at once, `None` if never.
    fn next_look(&self, tables: u64) -> Option<Mono> {
        let at = if self.looked == Some(tables) { self.due } else { Some(self.not_before) };
        at.map(|at| at.max(self.not_before))
    }
}

/// The state machine. Driven by [`Reporter::poll`] and the answers to patches.
pub struct Reporter<P> {
    config: ReportConfig,
    planner: P,
    /// Contents up to here have been looked at.
    seen: Frontier,
    acting: Option<u64>,
    pending: BTreeMap<(Kind, ObjectKey), Pending>,
    /// Objects whose counts may have moved only because gateways came or went.
    refresh: RefreshQueue,
    refresh_at: Mono,
    /// How objects stood that are on their way, or that there is nobody for.
    before: Before,
    /// What is being written, and how final it is.
    in_flight: BTreeMap<(Kind, ObjectKey), Finality>,
    /// Objects that were found to be fenced and not yet told.
    fenced: Vec<(Kind, ObjectKey)>,
    /// The object that was planned last: the next one's turn comes first, so
    /// that one namespace's changes do not hold up another's.
    turn: Option<(Kind, ObjectKey)>,
    /// What the refresh queue was last made for, and when it first and last
    /// differed since.
    census: Census,
    census_moved: Option<(Mono, Mono)>,
    /// No gateway was seen since the start, and they may still be on their way.
    alone: bool,
    wake: Option<Mono>,
}

/// What one round of the reporter looks at.
pub struct Round<'a> {
    /// Now, on the monotonic clock.
    pub now: Mono,
    /// Now for people, RFC 3339 in seconds.
    pub wall: &'a str,
    /// A number that moves whenever `may_act` may answer otherwise than before,
    /// apart from time passing.
    pub acting: u64,
    /// The epoch in which this replica acts.
    pub epoch: Epoch,
    /// All replicas' tables.
    pub applied: &'a AppliedView,
    /// Whether this replica acts on a namespace.
    pub may_act: &'a dyn Fn(&str) -> bool,
}

impl<P: StatusPlanner> Reporter<P> {
    /// A reporter that has looked at nothing yet.
    pub fn new(config: ReportConfig, planner: P) -> Self {
        Reporter {
            config,
            planner,
            seen: Frontier::default(),
            acting: None,
            pending: BTreeMap::new(),
            refresh: RefreshQueue::default(),
            refresh_at: Mono::default(),
            before: Before::default(),
            in_flight: BTreeMap::new(),
            fenced: Vec::new(),
            turn: None,
            census: Census::default(),
            census_moved: None,
            alone: true,
            wake: None,
        }
    }

    /// Objects whose status is not final yet, for metrics.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// When to poll again although nothing happened.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.wake
    }

    /// Looks at what changed and returns the patches to write now. Every one
    /// must be answered with [`Reporter::written`].
    pub fn poll(&mut self, objects: &impl Objects, round: &Round<'_>) -> Vec<StatusPatch> {
        if self.config.breakage.is(Breakage::EveryoneWrites) {
            return self.round(objects, &Round { may_act: &|_| true, ..*round });
        }
        let mut patches = self.round(objects, round);
        if self.config.breakage.is(Breakage::FencingOff) {
            patches.iter_mut().for_each(unfence);
        }
        patches
    }

    fn round(&mut self, objects: &impl Objects, round: &Round<'_>) -> Vec<StatusPatch> {
        self.wake = None;
        self.collect(objects, round);
        let complete_at = round.applied.complete_at(self.config.patience);
        if complete_at > round.now && !self.config.breakage.is(Breakage::MissingTablesIgnored) {
            // Without every replica's table a count would be too low or stale.
            self.wake_at(complete_at);
            return Vec::new();
        }
        let mut patches = Vec::new();
        let mut plans = PLANS;
        for key in self.in_turn(round) {
            if self.is_busy() {
                break;
            }
            if plans == 0 {
                // The others' turn comes with the next round.
                self.wake_at(round.now);
                return patches;
            }
            plans -= 1;
            self.turn = Some(key.clone());
            self.consider(objects, round, key, &mut patches);
        }
        self.refresh_counts(objects, round, plans, &mut patches);
        patches
    }

    /// The answer to a patch.
    pub fn written(&mut self, now: Mono, kind: Kind, key: &ObjectKey, outcome: PatchOutcome) {
        let key = (kind, key.clone());
        let finality = self.in_flight.remove(&key);
        if outcome == PatchOutcome::Written {
            self.before.written(&key);
        }
        // Written or in conflict: the watch brings the object as it now is, and
        // the next poll finds nothing left to say or plans again. A short pause
        // gives the watch time, so that one change is one patch.
        let pending = self.pending.entry(key).or_insert(Pending::new(now));
        let pause = match outcome {
            PatchOutcome::Written => Duration::from_millis(500),
            // Longer each time: the watch may lag by seconds.
            PatchOutcome::Conflict => Duration::from_millis(50 << pending.conflicts.min(6)),
            PatchOutcome::Failed(after) => after,
        };
        pending.conflicts = if outcome == PatchOutcome::Conflict { pending.conflicts + 1 } else { 0 };
        let last_word = finality == Some(Finality::Final) || pending.said;
        pending.said = outcome == PatchOutcome::Written && last_word;
        pending.not_before = now + pause;
        pending.looked = None;
        pending.early = None;
    }

    /// All patches in flight were given up: nobody knows what became of them,
    /// and none is answered any more.
    pub fn abandoned(&mut self, now: Mono) {
        for (kind, key) in self.in_flight.keys().cloned().collect::<Vec<_>>() {
            self.written(now, kind, &key, PatchOutcome::Conflict);
        }
    }

    /// Whether no more patches may be started: an answer leads to the next poll.
    fn is_busy(&self) -> bool {
        self.in_flight.len() >= self.config.concurrency
    }

    /// What is pending and to be planned now, beginning after the last one
    /// that had its turn.
    fn in_turn(&mut self, round: &Round<'_>) -> Vec<(Kind, ObjectKey)> {
        let tables = round.applied.version();
        let from = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.pending.range((from, Bound::Unbounded));
        let earlier = self.turn.iter().flat_map(|turn| self.pending.range(..=turn));
        let mut now = Vec::new();
        let mut wake: Option<Mono> = None;
        for (key, pending) in later.chain(earlier) {
            match pending.next_look(tables) {
                _ if self.in_flight.contains_key(key) => {}
                Some(at) if at <= round.now => now.push(key.clone()),
                Some(at) => wake = Some(wake.map_or(at, |known| known.min(at))),
                None => {}
            }
        }
        if let Some(at) = wake {
            self.wake_at(at);
        }
        now
    }

    fn collect(&mut self, objects: &impl Objects, round: &Round<'_>) {
        let (fresh, inherited) = (Pending::new(round.now), Pending::inherited(round.now));
        let before = self.seen;
        let changed = objects.changed_since(&before);
        // A status that somebody else wrote may not be what it should be. Our
        // own come by here, too, and are found to be right.
        for key in objects.restated_since(&before) {
            if (round.may_act)(&key.1.namespace) {
                self.pending.entry(key).or_insert(fresh).looked = None;
            }
        }
        self.seen = before.join(&objects.frontier());
        // What a first look at any kind changes was so before, of other kinds, too: a route
        // is news as of the list of the Backends that it names.
        let unseen = |kind: Kind| before.get(kind) == Revision::default();
        let unseen = Kind::ALL.into_iter().any(|kind| unseen(kind) && self.seen.get(kind) > before.get(kind));
        for key in changed {
            if (round.may_act)(&key.1.namespace) {
                // What is being written about the content before is not its last word.
                self.in_flight.entry(key.clone()).and_modify(|finality| *finality = Finality::Progress);
                self.pending.insert(key, if unseen { inherited } else { fresh });
            }
        }
        let gained = self.acting != Some(round.acting);
        if gained {
            // Ownership moved: what we gained may lack a status, what we lost
            // is no longer ours to write.
            self.acting = Some(round.acting);
            self.pending.retain(|(_, key), _| (round.may_act)(&key.namespace));
            // Who acts there next knows more of it than we will.
            self.before.retain(|(_, key)| (round.may_act)(&key.namespace));
            self.refresh.clear();
            for key in objects.all() {
                if (round.may_act)(&key.1.namespace) {
                    self.pending.entry(key).or_insert(inherited);
                }
            }
        }
        self.before.bound(|(kind, key)| objects.get(*kind, key).is_some());
        self.follow_census(objects, round, gained);
    }

    /// Notices gateways that come and go, and has all counts refreshed when they
    /// have stopped. To whom has `gained` something they may have.
    fn follow_census(&mut self, objects: &impl Objects, round: &Round<'_>, gained: bool) {
        let census = round.applied.census();
        if census != self.census || gained {
            self.census = census;
            let met = self.alone && census.gateways > 0;
            let known = self.census_moved.filter(|_| !met);
            self.census_moved = Some((known.map_or(round.now, |(first, _)| first), round.now));
            self.alone &= !met;
        }
        let Some((first, last)) = self.census_moved else { return };
        let due = if self.alone {
            first + self.config.gateways_return
        } else {
            (last + self.config.refresh_after).min(first + self.config.refresh_after * 10)
        };
        if self.config.breakage.is(Breakage::CountsNotRefreshed) {
            self.census_moved = None;
        } else if due <= round.now {
            self.census_moved = None;
            self.alone = false;
            for key in objects.all() {
                if (round.may_act)(&key.1.namespace) {
                    self.refresh.push(key);
                }
            }
        } else {
            self.wake_at(due);
        }
    }

    fn consider(
        &mut self,
        objects: &impl Objects,
        round: &Round<'_>,
        key: (Kind, ObjectKey),
        patches: &mut Vec<StatusPatch>,
    ) {
        let Some(pending) = self.pending.get(&key).copied() else { return };
        let tables = round.applied.version();
        let view = (round.may_act)(&key.1.namespace).then(|| objects.get(key.0, &key.1)).flatten();
        let Some(view) = view else {
            self.pending.remove(&key);
            self.before.forget(&key);
            return;
        };
        let due = pending.since + self.config.progress_after;
        let early = Some((view.object.revision, round.epoch));
        // Most looks are at what is still under way: then the words that a plan
        // works out would not be written.
        if due > round.now
            && pending.early == early
            && view.validity == Validity::Valid
            && round.applied.is_under_way(key.0, &key.1, &view.needs, view.content)
        {
            self.wake_at(due);
            self.pending.insert(key, Pending { looked: Some(tables), due: Some(due), ..pending });
            return;
        }
        let generation = view.object.generation;
        let planned = self.plan(round, &view);
        let said = pending.said || pending.inherited && planned.stands;
        match planned {
            PlannedStatus { patch: None, finality: Finality::Final, .. } => {
                self.pending.remove(&key);
            }
            PlannedStatus { patch: None, finality: Finality::Progress, .. } => {
                self.pending.insert(key, Pending { looked: Some(tables), due: None, ..pending });
            }
            PlannedStatus { finality: Finality::Fenced, .. } => {
                // Either our map is old, which ends soon, or the epoch there is
                // nobody's: then somebody has to clear it.
                self.fenced.push(key.clone());
                self.put_off(round, &key);
            }
            _ if said && self.census_moved.is_some() => {
                // The refresh that is due looks at everything.
                self.pending.remove(&key);
            }
            PlannedStatus { finality, .. } if said && (finality == Finality::Final || due <= round.now) => {
                // No change made it untrue but gateways did: theirs is a bounded rate.
                self.pending.remove(&key);
                self.refresh.push(key);
            }
            PlannedStatus { patch: Some(body), finality, turn, .. } => {
                if finality == Finality::Progress && due > round.now {
                    self.wake_at(due);
                    let (looked, early) = (Some(tables), early.filter(|_| !said));
                    self.pending.insert(key, Pending { looked, due: Some(due), early, ..pending });
                    return;
                }
                let news = self.before.news(&key, &view.object.uid, turn);
                if finality == Finality::Progress
                    && let Some(pending) = self.pending.get_mut(&key)
                {
                    pending.since = round.now + self.config.progress_every;
                }
                self.in_flight.insert(key.clone(), finality);
                let (kind, key) = key;
                patches.push(StatusPatch { kind, key, generation, epoch: round.epoch, body, news });
            }
        }
    }

    fn put_off(&mut self, round: &Round<'_>, key: &(Kind, ObjectKey)) {
        let at = round.now + self.config.refresh_after;
        if let Some(pending) = self.pending.get_mut(key) {
            pending.not_before = at;
        }
        self.wake_at(at);
    }

    /// Objects that were found to be fenced since this was last asked: their
    /// status says that it was written in a later epoch than ours.
    pub fn take_fenced(&mut self) -> Vec<(Kind, ObjectKey)> {
        std::mem::take(&mut self.fenced)
    }

    fn refresh_counts(
        &mut self,
        objects: &impl Objects,
        round: &Round<'_>,
        plans: usize,
        patches: &mut Vec<StatusPatch>,
    ) {
        let mut plans = plans;
        while !self.refresh.is_empty() && !self.is_busy() {
            if self.refresh_at > round.now || plans == 0 {
                self.wake_at(self.refresh_at.max(round.now));
                return;
            }
            plans -= 1;
            let Some(key) = self.refresh.pop() else { return };
            if self.pending.contains_key(&key)
                || self.in_flight.contains_key(&key)
                || !(round.may_act)(&key.1.namespace)
            {
                continue;
            }
            let Some(view) = objects.get(key.0, &key.1) else { continue };
            let (generation, planned) = (view.object.generation, self.plan(round, &view));
            let news = self.before.news(&key, &view.object.uid, planned.turn);
            if planned.finality != Finality::Final {
                // A gateway that just joined lacks it: it is pending again. Whatever
                // waits here has had its last word before.
                let since = round.now + self.config.progress_every;
                self.pending.insert(key.clone(), Pending { said: true, ..Pending::new(since) });
            }
            if let Some(body) = planned.patch {
                self.take_refresh(round);
                self.in_flight.insert(key.clone(), planned.finality);
                let (kind, key) = key;
                patches.push(StatusPatch { kind, key, generation, epoch: round.epoch, body, news });
            }
        }
    }

    /// One refresh is written now: when the next one may be. Rounds come when they
    /// come; over some of them the rate is kept.
    fn take_refresh(&mut self, round: &Round<'_>) {
        let every = self.config.refresh_every * round.applied.member_count().max(1);
        self.refresh_at = self.refresh_at.max(round.now - every * REFRESH_BURST) + every;
    }

    fn plan(&self, round: &Round<'_>, view: &ObjectView<'_>) -> PlannedStatus {
        let reach = round.applied.reach(view.object.kind, &view.object.key, &view.needs, view.content);
        self.planner.plan(round.wall, round.epoch, view.object, view.validity, &reach)
    }

    fn wake_at(&mut self, at: Mono) {
        self.wake = Some(self.wake.map_or(at, |known| known.min(at)));
    }
}

/// Takes the preconditions out of a patch.
fn unfence(patch: &mut StatusPatch) {
    let read = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&patch.body);
    if let Ok(mut body) = read {
        body.remove("metadata");
        patch.body = serde_json::Value::Object(body).to_string().into_bytes();
    }
}

#[cfg(test)]
mod tests;
