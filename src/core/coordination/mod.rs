//! How replicas agree on who acts on what: one state machine per replica.
//!
//! A [`Coordinator`] is given what happens ([`Event`]) and the time, and says
//! what to do ([`Action`]). It owns this replica's claim to its member Lease
//! (`membership`) and to the leader's (`election`), what it knows of all others
//! (`roster`), the barrier that decides when it may act (`handover`), and, while
//! it leads, the planning of maps (`leader`). Ownership itself is computed from
//! the published map alone (`crate::shardmap`).
//!
//! What must hold for it to be safe, beyond equal clock rates: the time given
//! with an event is read before requests that follow from it are sent, writes
//! have the preconditions they ask for, lists are consistent reads, and nothing
//! is written for a namespace without asking [`Acting::may_act`] just before.

mod balancing;
mod claim;
mod config;
mod election;
mod handover;
mod leader;
mod lease;
mod membership;
mod messages;
mod roster;
mod signs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use balancing::BalanceConfig;
pub use config::{ConfigError, CoordinationConfig, Identity, LeaseTiming, MAX_LEASE_DURATION};
pub use handover::{Acting, DrainTicket, Handover, Standing};
pub use lease::{
    LEADER_LEASE, LeaseContent, LeaseName, LeaseRecord, LeaseWrite, MEMBER_LEASE_PREFIX, Precondition,
    RequestError,
};
pub use messages::{Action, Event, MapRecord, MapWrite};
pub use roster::LeaseList;

use crate::backoff::{Backoff, Jitter};
use crate::ids::{Epoch, Instance, MemberName, Revision};
use crate::placement::{Loads, Moves, moves};
use crate::shardmap::{Ownership, PublishedMap};
use crate::time::Mono;
use claim::ClaimRequest;
use election::Election;
use leader::Leader;
use membership::Membership;
use roster::Roster;
use signs::Signs;

#[derive(Debug)]
enum KnownMap {
    Unread,
    Missing,
    Present(Box<MapRecord>),
}

/// Reads that are repeated until they succeed.
#[derive(Debug)]
struct Reading {
    in_flight: bool,
    retry_at: Mono,
    backoff: Backoff,
}

impl Reading {
    fn answered(&mut self, now: Mono, succeeded: bool, jitter: &mut Jitter) {
        self.in_flight = false;
        if succeeded {
            self.backoff.succeed();
            self.retry_at = now;
        } else {
            self.retry_at = now + self.backoff.fail(jitter);
        }
    }

    fn start(&mut self, now: Mono) -> bool {
        let start = !self.in_flight && now >= self.retry_at;
        self.in_flight |= start;
        start
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Stopping,
    Finished,
}

/// The coordination of one replica.
#[derive(Debug)]
pub struct Coordinator {
    config: CoordinationConfig,
    identity: Identity,
    jitter: Jitter,
    election: Election,
    membership: Membership,
    handover: Handover,
    roster: Roster,
    leader: Leader,
    signs: Signs,
    map: KnownMap,
    /// When the map was last seen, for answers that say it is missing.
    map_seen_at: Mono,
    /// The revision of the newest object seen, deleted ones included.
    map_revision: Revision,
    map_reading: Reading,
    must_read_map: bool,
    listing: Reading,
    next_garbage_check: Mono,
    moves: Moves,
    phase: Phase,
    /// The latest time seen; time never goes back.
    now: Mono,
}

impl Coordinator {
    /// A coordinator that has seen nothing yet; its first event is
    /// [`Event::Tick`]. `seed` spreads its retries.
    ///
    /// # Errors
    /// When a setting or a name cannot work.
    pub fn new(config: CoordinationConfig, identity: Identity, seed: u64) -> Result<Self, ConfigError> {
        config.check()?;
        identity.check()?;
        let reading =
            || Reading { in_flight: false, retry_at: Mono(0), backoff: Backoff::new(config.backoff) };
        Ok(Coordinator {
            jitter: Jitter::seeded(seed),
            election: Election::new(&config, &identity),
            membership: Membership::new(&config, &identity),
            handover: Handover::new(identity.member.clone(), config.breakage),
            roster: Roster::new(config.member_lease.duration, config.breakage),
            leader: Leader::new(&config, identity.member.clone()),
            signs: Signs::default(),
            map: KnownMap::Unread,
            map_seen_at: Mono(0),
            map_revision: Revision(0),
            map_reading: reading(),
            must_read_map: true,
            listing: reading(),
            next_garbage_check: Mono(0),
            moves: Moves::default(),
            phase: Phase::Running,
            now: Mono(0),
            config,
            identity,
        })
    }

    /// What this replica may act on, as of the last step.
    pub fn acting(&self) -> Acting {
        self.handover.acting(self.membership.acting_until())
    }

    /// Whether `namespace` may be acted on at `now`.
    pub fn may_act(&self, now: Mono, namespace: &str) -> bool {
        self.acting().may_act(now, namespace)
    }

    /// The newest map accepted, which tells every namespace's owner.
    pub fn ownership(&self) -> Option<&Arc<Ownership>> {
        self.handover.current()
    }

    /// Until when this replica leads; `None` when it does not.
    pub fn leading_until(&self) -> Option<Mono> {
        self.election.leading_until()
    }

    /// This replica's instance in its running tenure.
    pub fn tenure(&self) -> Option<Instance> {
        self.membership.tenure()
    }

    /// What to tell a peer that has just connected: our instance and the epoch
    /// that it has settled.
    pub fn settled(&self) -> Option<(Instance, Epoch)> {
        Some((self.membership.tenure()?, self.handover.settled()?))
    }

    /// The highest epoch this replica has heard of.
    pub fn highest_epoch(&self) -> Epoch {
        self.roster.highest()
    }

    /// Whether everything that the newest map gives to this replica is acted on.
    pub fn has_taken_over(&self) -> bool {
        self.handover.has_passed()
    }

    /// For each member how long it is ago that it was last known to have the
    /// right to act on what the newest map takes from it; for our own name, of
    /// the process that had it before. For measurements only.
    pub fn idle(&self, now: Mono) -> BTreeMap<MemberName, Duration> {
        let rights = self.signs.last_rights(&self.identity.member, self.handover.epoch());
        rights.into_iter().map(|(member, at)| (member, now.since(at))).collect()
    }

    /// The members whose Leases are live, as far as seen.
    pub fn live_members(&self) -> Vec<MemberName> {
        self.roster.live().map(|member| member.name).collect()
    }

    /// What all members told of their loads.
    pub fn loads(&self) -> &Arc<Loads> {
        self.leader.balancing.loads()
    }

    /// How many namespaces changed their owner with the maps accepted so far, by
    /// what was known of them at the time.
    pub fn moves(&self) -> Moves {
        self.moves
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.phase == Phase::Finished {
            return None;
        }
        let retry = |reading: &Reading, due: Mono| (!reading.in_flight).then(|| due.max(reading.retry_at));
        let list = self.list_due().and_then(|due| retry(&self.listing, due));
        let must_read_map = self.must_read_map && self.phase == Phase::Running;
        let map = must_read_map.then(|| retry(&self.map_reading, Mono(0))).flatten();
        let garbage = self.election.leading_until().map(|_| self.next_garbage_check);
        [
            self.membership.deadline(self.handover.settled(), self.roster.highest()),
            self.membership.impatient_at().filter(|_| self.handover.current().is_some()),
            self.election.deadline(self.roster.highest()),
            self.leader.deadline(),
            list,
            map,
            garbage,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn list_due(&self) -> Option<Mono> {
        if self.phase != Phase::Running {
            return None;
        }
        if self.leader.needs_list() { Some(Mono(0)) } else { self.roster.list_due() }
    }

    /// Takes one event into account and says what to do, in this order.
    pub fn step(&mut self, now: Mono, event: Event) -> Vec<Action> {
        let now = now.max(self.now);
        self.now = now;
        let mut actions = Vec::new();
        if self.phase == Phase::Finished {
            // Whom the map lists is to hear of the gateways that are still here.
            let shown = match event {
                Event::MapChanged(record) | Event::MapWritten(Ok(record)) => Some(record),
                Event::MapRead { answer: Ok(record), .. } => record,
                _ => None,
            };
            if let Some(record) = shown {
                self.observe_map(now, record, &mut Vec::new());
            }
            return actions;
        }
        // A tenure that has run out must not be revived by what comes in now.
        self.check_leases(now, &mut actions);
        self.take(now, event, &mut actions);
        self.check_leases(now, &mut actions);
        if self.membership.begin(now)
            && let Some(instance) = self.membership.tenure()
        {
            self.handover.begin_tenure(instance.clone());
            let listed = self.handover.is_listed();
            self.membership.observe_map(listed);
            if let Some(epoch) = self.handover.settled() {
                actions.push(Action::AnnounceSettled { instance, epoch });
            }
        }
        self.handover.try_pass(|member| self.roster.standing(&member.instance));
        self.request(now, &mut actions);
        if self.phase == Phase::Stopping && self.membership.is_done() && self.election.is_done() {
            self.phase = Phase::Finished;
            actions.push(Action::Finished);
        }
        actions
    }

    /// Ends what has run out of time.
    fn check_leases(&mut self, now: Mono, actions: &mut Vec<Action>) {
        self.membership.claim.expire(now);
        self.election.claim.expire(now);
        if let Some(ended) = self.membership.give_up(now) {
            self.roster.end(&ended);
        }
        let impatient = self.handover.current().is_some()
            && self.membership.impatient_at().is_some_and(|impatient_at| now >= impatient_at);
        if self.membership.is_broken() || impatient {
            self.fence(actions);
        }
    }

    fn fence(&mut self, actions: &mut Vec<Action>) {
        let ticket = self.handover.fence();
        self.membership.fence(ticket);
        self.roster.grant_amnesty();
        actions.push(Action::StopActing(ticket));
    }

    fn take(&mut self, now: Mono, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Tick => {}
            Event::LeasesListed(answer) => {
                self.listing.answered(now, answer.is_ok(), &mut self.jitter);
                if let Ok(list) = answer {
                    self.observe_list(now, &list);
                }
            }
            Event::LeaseChanged(name, record) => self.observe_lease(now, &name, &record),
            Event::LeaseDeleted(name, revision) => match &name {
                LeaseName::Leader => self.election.claim.observe_absent(now, Some(revision), now),
                LeaseName::Member(member) => {
                    if *member == self.identity.member {
                        self.membership.claim.observe_absent(now, Some(revision), now);
                    }
                    self.roster.observe_deleted(now, member, revision);
                }
            },
            Event::LeaseAnswered(name, answer) => {
                if let Ok(Some(record)) = &answer
                    && let LeaseName::Member(member) = &name
                {
                    self.roster.observe(now, member, record);
                    self.signs.lease(now, member, record);
                }
                let answer = answer.as_ref().map(Option::as_ref).map_err(|error| *error);
                match name {
                    LeaseName::Leader => self.election.answer(now, answer, &mut self.jitter),
                    LeaseName::Member(_) => self.membership.answer(now, answer, &mut self.jitter),
                }
            }
            Event::MapRead { sent_at, answer } => {
                self.map_reading.answered(now, answer.is_ok(), &mut self.jitter);
                self.must_read_map &= answer.is_err();
                match answer {
                    Ok(Some(record)) => self.observe_map(now, record, actions),
                    Ok(None) if sent_at >= self.map_seen_at => self.map = KnownMap::Missing,
                    Ok(None) | Err(_) => {}
                }
            }
            Event::MapChanged(record) => self.observe_map(now, record, actions),
            Event::MapDeleted(revision) => {
                if revision >= self.map_revision {
                    self.map_revision = revision;
                    self.map = KnownMap::Missing;
                    self.map_seen_at = now;
                }
            }
            Event::MapWritten(answer) => {
                self.must_read_map |= self.leader.answered(now, answer.is_ok(), &mut self.jitter);
                if let Ok(record) = answer {
                    self.observe_map(now, record, actions);
                }
            }
            Event::PeerSettled { instance, epoch } => {
                self.roster.note_settled(&instance, epoch);
                self.signs.settled(now, &instance, epoch);
            }
            Event::PeerDeparted { instance } => {
                self.roster.end(&instance);
                self.signs.departed(now, &instance);
            }
            Event::PeerHello { highest } => self.roster.heard_of(highest),
            Event::Loads { member, report } => self.leader.balancing.report(member, report),
            Event::Drained(ticket) => self.drained(ticket, actions),
            Event::Shutdown => {
                if self.phase == Phase::Running {
                    self.phase = Phase::Stopping;
                    self.election.resign();
                    self.leader.rest();
                    let ticket = self.handover.fence();
                    self.membership.leave(ticket);
                    actions.push(Action::StopActing(ticket));
                }
            }
        }
    }

    fn observe_lease(&mut self, now: Mono, name: &LeaseName, record: &LeaseRecord) {
        match name {
            LeaseName::Leader => {
                self.election.claim.observe(now, record);
                self.roster.heard_of(record.content.highest);
            }
            LeaseName::Member(member) => {
                if *member == self.identity.member {
                    self.membership.claim.observe(now, record);
                }
                self.roster.observe(now, member, record);
                self.signs.lease(now, member, record);
            }
        }
    }

    fn observe_list(&mut self, now: Mono, list: &LeaseList) {
        let own = LeaseName::Member(self.identity.member.clone());
        let find = |name: &LeaseName| list.leases.iter().find(|(listed, _)| listed == name);
        match find(&LeaseName::Leader) {
            Some((_, record)) => {
                self.election.claim.observe(now, record);
                self.roster.heard_of(record.content.highest);
            }
            None => self.election.claim.observe_absent(now, Some(list.revision), list.sent_at),
        }
        match find(&own) {
            Some((_, record)) => self.membership.claim.observe(now, record),
            None => self.membership.claim.observe_absent(now, Some(list.revision), list.sent_at),
        }
        for (name, record) in &list.leases {
            if let LeaseName::Member(member) = name {
                self.signs.lease(now, member, record);
            }
        }
        self.roster.observe_list(now, list);
        self.leader.observe_list(now, list.sent_at);
    }

    fn observe_map(&mut self, now: Mono, record: MapRecord, actions: &mut Vec<Action>) {
        self.map_seen_at = now;
        if record.revision < self.map_revision {
            return;
        }
        self.map_revision = record.revision;
        if let Some(map) = &record.published {
            self.roster.observe_map(now, map);
            if map.epoch > self.handover.epoch() {
                self.accept(map.clone(), actions);
            }
            let maps: Vec<&PublishedMap> =
                self.handover.current().map(|current| current.map()).into_iter().chain([map]).collect();
            self.roster.prune(&maps);
        }
        self.map = KnownMap::Present(Box::new(record));
    }

    fn accept(&mut self, map: PublishedMap, actions: &mut Vec<Action>) {
        let known = self.leader.balancing.loads().clone();
        self.leader.balancing.observe_map(&map);
        let ownership = Arc::new(Ownership::new(map));
        if let Some(before) = self.handover.current() {
            self.moves.add(&moves(before, &ownership, &known));
        }
        let ticket = self.handover.accept(ownership);
        actions.push(Action::StopActing(ticket));
        let listed = self.handover.is_listed();
        if self.membership.observe_map(listed) {
            self.fence(actions);
        }
    }

    fn drained(&mut self, ticket: DrainTicket, actions: &mut Vec<Action>) {
        let settled = self.handover.drained(ticket);
        if let Some(ended) = self.membership.drained(ticket) {
            self.roster.end(&ended);
            if self.phase == Phase::Stopping {
                actions.push(Action::AnnounceDeparted { instance: ended });
            }
        }
        if let (Some(epoch), Some(instance)) = (settled, self.membership.tenure()) {
            self.membership.claim.renew_soon();
            actions.push(Action::AnnounceSettled { instance, epoch });
        }
    }

    /// Makes all requests that are due.
    fn request(&mut self, now: Mono, actions: &mut Vec<Action>) {
        let highest = self.roster.highest();
        let own = LeaseName::Member(self.identity.member.clone());
        let requests = [
            (own, self.membership.poll(now, self.handover.settled(), highest)),
            (LeaseName::Leader, self.election.poll(now, highest)),
        ];
        for (name, request) in requests {
            actions.extend(request.map(|request| match request {
                ClaimRequest::Read => Action::ReadLease(name),
                ClaimRequest::Write(write) => Action::WriteLease(name, write),
            }));
        }
        if self.phase != Phase::Running {
            return;
        }
        if self.must_read_map && self.map_reading.start(now) {
            actions.push(Action::ReadMap);
        }
        self.lead(now, actions);
        if self.list_due().is_some_and(|due| due <= now) && self.listing.start(now) {
            actions.push(Action::ListLeases);
        }
    }

    fn lead(&mut self, now: Mono, actions: &mut Vec<Action>) {
        if self.election.leading_until().is_none() {
            self.leader.rest();
            return;
        }
        if now >= self.next_garbage_check {
            self.next_garbage_check = now + self.config.lease_retention / 10;
            self.collect_garbage(now, actions);
        }
        let record = match &self.map {
            KnownMap::Unread => return,
            KnownMap::Missing => None,
            KnownMap::Present(record) => Some(record.as_ref()),
        };
        let accepted = self.handover.current().map(Arc::as_ref);
        actions.extend(self.leader.poll(now, record, accepted, &self.roster).map(Action::WriteMap));
    }

    /// Deletes Leases of members that are long gone: pods of a Deployment never
    /// come back under the same name.
    fn collect_garbage(&self, now: Mono, actions: &mut Vec<Action>) {
        let listed = |member: &MemberName| {
            self.handover.current().is_some_and(|current| current.map().member(member).is_some())
        };
        let garbage = self.roster.garbage(now, self.config.lease_retention);
        actions.extend(
            garbage.filter(|(member, _)| **member != self.identity.member && !listed(member)).map(
                |(member, record)| Action::DeleteLease {
                    name: LeaseName::Member(member.clone()),
                    uid: record.uid.clone(),
                    revision: record.revision,
                },
            ),
        );
    }
}
