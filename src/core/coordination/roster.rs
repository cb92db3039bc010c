//! What is known of all members: who lives, who has settled what, and whose
//! time has *ended*.
//!
//! "Ended" is said of an instance, once and for ever: it acts no more and never
//! will again. That it can never come back is what makes this knowledge safe to
//! use later: a process that was fenced goes on as a new instance (see
//! `membership`). An instance has ended when
//! - a Lease names it as `previous`: it released the Lease, or was succeeded by
//!   one who waited for its expiry;
//! - it said so itself ("departed");
//! - its Lease has stayed unchanged for its whole duration since we saw it
//!   change, or it has not been the holder for as long; and a list of the
//!   Leases that was *sent* after that time agrees. Without the list, a watch
//!   that has silently stopped would make everybody look dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::handover;
use super::lease::{LeaseName, LeaseRecord};
use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, Instance, MemberName, Revision};
use crate::shardmap::{LiveMember, PublishedMap};
use crate::time::Mono;

/// Epochs above this are taken for damage and ignored, so that one broken
/// annotation cannot use up the numbers.
const PLAUSIBLE: Epoch = Epoch(1 << 53);

/// Of so many instances it is kept what they have settled. Peers may speak
/// before their Lease is seen, so the number needs a bound of its own.
const MAX_SETTLED: usize = 4096;

/// All Leases as one consistent list shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseList {
    /// When the request was sent (read before sending).
    pub sent_at: Mono,
    /// The list's `metadata.resourceVersion`.
    pub revision: Revision,
    /// Our Leases in it.
    pub leases: Vec<(LeaseName, LeaseRecord)>,
}

/// How an instance was last seen to stand to its Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A map names it, and no list has been read since.
    Unverified,
    /// It is the holder, at this revision.
    Holding(Revision),
    /// It is not the holder any more.
    Absent,
}

/// An instance that may be alive.
#[derive(Debug, Clone)]
struct Trace {
    standing: Standing,
    /// Since when we have seen no change.
    since: Mono,
    /// How long that must last until it has ended.
    patience: Duration,
}

#[derive(Debug)]
struct Known {
    record: LeaseRecord,
    seen_at: Mono,
}

/// What one replica knows of all members, itself included.
#[derive(Debug)]
pub(super) struct Roster {
    duration: Duration,
    breakage: Breakages,
    /// Keyed by member; mirrors the API server's Leases as far as seen.
    leases: BTreeMap<MemberName, Known>,
    /// Revisions at which Leases were deleted, until a list is newer, so that
    /// an older list cannot bring them back.
    deleted: BTreeMap<MemberName, Revision>,
    /// Keyed by instance: holders of `leases`, former holders, and instances
    /// of maps; none of them is in `ended`.
    traces: BTreeMap<Instance, Trace>,
    ended: BTreeSet<Instance>,
    settled: BTreeMap<Instance, Epoch>,
    highest: Epoch,
    /// When the latest list was sent.
    listed: Option<Mono>,
    /// Count everybody's time from the next list on.
    amnesty: bool,
}

impl Roster {
    pub(super) fn new(duration: Duration, breakage: Breakages) -> Self {
        Roster {
            duration,
            breakage,
            leases: BTreeMap::new(),
            deleted: BTreeMap::new(),
            traces: BTreeMap::new(),
            ended: BTreeSet::new(),
            settled: BTreeMap::new(),
            highest: Epoch(0),
            listed: None,
            amnesty: false,
        }
    }

    /// The highest epoch heard of from anyone.
    pub(super) fn highest(&self) -> Epoch {
        self.highest
    }

    pub(super) fn heard_of(&mut self, epoch: Epoch) {
        if epoch <= PLAUSIBLE {
            self.highest = self.highest.max(epoch);
        }
    }

    /// Whether any list has been read.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    pub(super) fn has_ended(&self, instance: &Instance) -> bool {
        self.ended.contains(instance)
    }

    pub(super) fn settled(&self, instance: &Instance) -> Option<Epoch> {
        self.settled.get(instance).copied()
    }

    /// What is known of an instance's word.
    pub(super) fn standing(&self, instance: &Instance) -> handover::Standing {
        if self.has_ended(instance) {
            return handover::Standing::Ended;
        }
        self.settled(instance).map_or(handover::Standing::Unknown, handover::Standing::Settled)
    }

    pub(super) fn note_settled(&mut self, instance: &Instance, epoch: Epoch) {
        if self.breakage.is(Breakage::ReleaseUnheard) {
            return;
        }
        let room = self.settled.len() < MAX_SETTLED || self.settled.contains_key(instance);
        if epoch <= PLAUSIBLE && room && !self.ended.contains(instance) {
            let known = self.settled.entry(instance.clone()).or_default();
            *known = (*known).max(epoch);
            self.heard_of(epoch);
        }
    }

    pub(super) fn end(&mut self, instance: &Instance) {
        self.traces.remove(instance);
        self.settled.remove(instance);
        self.ended.insert(instance.clone());
    }

    /// We were cut off ourselves: that others did not renew meanwhile says
    /// nothing, because they may have been cut off by the same fault and are
    /// back as soon as we are.
    pub(super) fn grant_amnesty(&mut self) {
        self.amnesty = true;
    }

    /// Holders whose time has not ended, with their Leases.
    pub(super) fn live(&self) -> impl Iterator<Item = LiveMember> {
        self.leases.iter().filter_map(|(member, known)| {
            let content = &known.record.content;
            let instance = content.holder.clone().filter(|holder| !self.ended.contains(holder))?;
            Some(LiveMember { name: member.clone(), instance, address: content.address.clone() })
        })
    }

    /// The address of `instance` as its Lease has it.
    pub(super) fn address(&self, member: &MemberName, instance: &Instance) -> Option<Arc<str>> {
        let content = &self.leases.get(member)?.record.content;
        (content.holder.as_ref() == Some(instance)).then(|| content.address.clone())
    }

    /// Leases without a living holder that have not changed for `retention`.
    pub(super) fn garbage(
        &self,
        now: Mono,
        retention: Duration,
    ) -> impl Iterator<Item = (&MemberName, &LeaseRecord)> {
        self.leases.iter().filter_map(move |(member, known)| {
            let holder = known.record.content.holder.as_ref();
            let dead = holder.is_none_or(|holder| self.ended.contains(holder));
            (dead && now.since(known.seen_at) >= retention).then_some((member, &known.record))
        })
    }

    /// A member's Lease was seen.
    pub(super) fn observe(&mut self, now: Mono, member: &MemberName, record: &LeaseRecord) {
        if self.deleted.get(member).is_some_and(|deleted| record.revision <= *deleted) {
            return;
        }
        let before = self.leases.get(member);
        if before.is_some_and(|known| known.record.revision >= record.revision) {
            return;
        }
        let patience = record.patience(self.duration);
        let left = before.and_then(|known| known.record.content.holder.clone());
        let content = &record.content;
        self.heard_of(content.highest);
        if let Some(previous) = &content.previous
            && Some(previous) != content.holder.as_ref()
        {
            self.end(previous);
        }
        if let Some(left) = left.filter(|left| content.holder.as_ref() != Some(left)) {
            self.absent(now, &left);
        }
        if let Some(holder) = &content.holder
            && !self.ended.contains(holder)
        {
            let standing = Standing::Holding(record.revision);
            let wall = self.breakage.is(Breakage::WallClock);
            let since = if wall { record.written_at() } else { now };
            let trace = Trace { standing, since, patience };
            self.traces.insert(holder.clone(), trace);
            if let Some(settled) = content.settled {
                self.note_settled(holder, settled);
            }
        }
        self.leases.insert(member.clone(), Known { record: record.clone(), seen_at: now });
    }

    /// A member's Lease was deleted at `revision`.
    pub(super) fn observe_deleted(&mut self, now: Mono, member: &MemberName, revision: Revision) {
        let Some(known) = self.leases.get(member) else {
            self.deleted.insert(member.clone(), revision);
            return;
        };
        if known.record.revision > revision {
            return;
        }
        let holder = known.record.content.holder.clone();
        self.leases.remove(member);
        self.deleted.insert(member.clone(), revision);
        if let Some(holder) = holder {
            self.absent(now, &holder);
        }
    }

    fn absent(&mut self, now: Mono, instance: &Instance) {
        if let Some(trace) = self.traces.get_mut(instance)
            && trace.standing != Standing::Absent
        {
            trace.standing = Standing::Absent;
            trace.since = now;
        }
    }

    /// All members' Leases were read.
    pub(super) fn observe_list(&mut self, now: Mono, list: &LeaseList) {
        let mut listed = BTreeSet::new();
        for (name, record) in &list.leases {
            if let LeaseName::Member(member) = name {
                listed.insert(member);
                self.observe(now, member, record);
            }
        }
        let gone: Vec<MemberName> = self
            .leases
            .iter()
            .filter(|(member, known)| !listed.contains(member) && known.record.revision <= list.revision)
            .map(|(member, _)| member.clone())
            .collect();
        for member in gone {
            self.observe_deleted(now, &member, list.revision);
        }
        self.deleted.retain(|_, deleted| *deleted > list.revision);
        self.listed = self.listed.max(Some(list.sent_at));

        let amnesty = std::mem::take(&mut self.amnesty);
        let mut ended = Vec::new();
        for (instance, trace) in &mut self.traces {
            match trace.standing {
                // A map named it before this list was sent, so it had a Lease
                // by then; this list shows that it has none any more.
                Standing::Unverified if trace.since <= list.sent_at => {
                    trace.standing = Standing::Absent;
                    trace.since = now;
                }
                Standing::Unverified => {}
                Standing::Holding(_) if amnesty => trace.since = now,
                Standing::Holding(_) | Standing::Absent => {
                    if trace.since + trace.patience <= list.sent_at {
                        ended.push(instance.clone());
                    }
                }
            }
        }
        for instance in ended {
            self.end(&instance);
        }
    }

    /// A map was seen: traces the instances it names.
    pub(super) fn observe_map(&mut self, now: Mono, map: &PublishedMap) {
        self.heard_of(map.epoch);
        for member in &map.members {
            if self.ended.contains(&member.instance) || self.traces.contains_key(&member.instance) {
                continue;
            }
            let succeeded = self
                .leases
                .get(&member.name)
                .is_some_and(|known| known.record.content.previous.as_ref() == Some(&member.instance));
            if succeeded {
                self.end(&member.instance);
                continue;
            }
            let trace = Trace { standing: Standing::Unverified, since: now, patience: self.duration };
            self.traces.insert(member.instance.clone(), trace);
        }
    }

    /// Forgets those who ended and whom neither a Lease nor any of `maps`
    /// names.
    pub(super) fn prune(&mut self, maps: &[&PublishedMap]) {
        let named: BTreeSet<&Instance> = self
            .leases
            .values()
            .filter_map(|known| known.record.content.holder.as_ref())
            .chain(maps.iter().flat_map(|map| map.members.iter().map(|member| &member.instance)))
            .collect();
        self.ended.retain(|instance| named.contains(instance));
        let traces = &self.traces;
        let highest = self.highest;
        self.settled.retain(|instance, epoch| {
            named.contains(instance) || traces.contains_key(instance) || *epoch >= highest
        });
    }

    /// When a list is needed to decide whether someone has ended; `None` if
    /// nobody is in doubt.
    pub(super) fn list_due(&self) -> Option<Mono> {
        if self.listed.is_none() || self.amnesty {
            return Some(Mono(0));
        }
        self.traces
            .values()
            .map(|trace| match trace.standing {
                Standing::Unverified => Mono(0),
                Standing::Holding(_) | Standing::Absent => trace.since + trace.patience,
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::lease::LeaseContent;
    use super::*;
    use crate::shardmap::{MapMember, Share};

    const DURATION: Duration = Duration::from_secs(5);

    fn at(seconds: u64) -> Mono {
        Mono::from_origin(Duration::from_secs(seconds))
    }

    fn record(revision: u64, holder: Option<&str>, previous: Option<&str>) -> LeaseRecord {
        LeaseRecord {
            uid: "u".into(),
            revision: Revision(revision),
            content: LeaseContent {
                holder: holder.map(Instance::from),
                previous: previous.map(Instance::from),
                duration: DURATION,
                transitions: 0,
                address: "a:1".into(),
                settled: None,
                highest: Epoch(0),
            },
        }
    }

    fn member() -> MemberName {
        "a".into()
    }

    fn list(sent_at: u64, revision: u64, lease: Option<LeaseRecord>) -> LeaseList {
        let leases = lease.map(|lease| (LeaseName::Member(member()), lease)).into_iter().collect();
        LeaseList { sent_at: at(sent_at), revision: Revision(revision), leases }
    }

    /// Knows since second 10 that `a/1` holds its Lease at revision 1.
    fn roster() -> Roster {
        let mut roster = Roster::new(DURATION, Breakages::default());
        roster.observe_list(at(10), &list(9, 1, Some(record(1, Some("a/1"), None))));
        roster
    }

    fn ended(roster: &Roster) -> bool {
        roster.has_ended(&"a/1".into())
    }

    #[test]
    fn an_unchanged_lease_ends_its_holder_only_by_a_list_sent_after_its_duration() {
        let mut roster = roster();
        assert_eq!(roster.list_due(), Some(at(15)));
        roster.observe_list(at(16), &list(14, 1, Some(record(1, Some("a/1"), None))));
        assert!(!ended(&roster), "that list was sent too early");
        roster.observe_list(at(17), &list(15, 1, Some(record(1, Some("a/1"), None))));
        assert!(ended(&roster));
        assert_eq!(roster.live().count(), 0);
        assert_eq!(roster.list_due(), None, "nobody is in doubt any more");
    }

    #[test]
    fn a_watch_that_has_stopped_makes_nobody_look_dead() {
        let mut roster = roster();
        // It was renewed all the time; only the list shows that.
        roster.observe_list(at(16), &list(16, 9, Some(record(9, Some("a/1"), None))));
        assert!(!ended(&roster));
        assert_eq!(roster.list_due(), Some(at(21)));
    }

    #[test]
    fn whoever_has_ended_stays_ended_even_if_a_late_renewal_lands() {
        let mut roster = roster();
        roster.observe_list(at(17), &list(15, 1, Some(record(1, Some("a/1"), None))));
        roster.observe(at(18), &member(), &record(3, Some("a/1"), None));
        assert!(ended(&roster));
        assert_eq!(roster.live().count(), 0);
    }

    #[test]
    fn a_lease_that_names_the_previous_holder_ends_it_at_once() {
        for holder in [None, Some("a/2")] {
            let mut roster = roster();
            roster.observe(at(11), &member(), &record(2, holder, Some("a/1")));
            assert!(ended(&roster), "next holder {holder:?}");
        }
    }

    #[test]
    fn a_lease_that_was_deleted_or_made_anew_ends_nobody_before_its_duration() {
        let changes: [fn(&mut Roster); 2] = [
            |roster| roster.observe_deleted(at(11), &member(), Revision(2)),
            |roster| roster.observe(at(11), &member(), &record(2, Some("a/2"), None)),
        ];
        for change in changes {
            let mut roster = roster();
            change(&mut roster);
            roster.observe_list(at(15), &list(15, 3, None));
            assert!(!ended(&roster));
            roster.observe_list(at(16), &list(16, 3, None));
            assert!(ended(&roster));
        }
    }

    #[test]
    fn a_list_older_than_a_deletion_does_not_bring_the_lease_back() {
        let mut roster = roster();
        roster.observe_deleted(at(11), &member(), Revision(7));
        roster.observe_list(at(12), &list(10, 6, Some(record(6, Some("a/1"), None))));
        assert_eq!(roster.live().count(), 0);
        roster.observe_list(at(13), &list(12, 8, Some(record(8, Some("a/2"), None))));
        assert_eq!(roster.live().count(), 1);
    }

    #[test]
    fn a_member_of_the_map_without_a_lease_ends_a_duration_after_the_list_that_shows_it() {
        let mut roster = Roster::new(DURATION, Breakages::default());
        roster.observe_list(at(1), &list(1, 1, None));
        let map = PublishedMap {
            epoch: Epoch(4),
            leader: member(),
            members: vec![MapMember {
                name: member(),
                instance: "a/1".into(),
                address: "a:1".into(),
                drained: false,
                share: Share::default(),
            }],
            pins: BTreeMap::new(),
            virtual_nodes: 1,
            away: BTreeSet::new(),
            exceptions: BTreeMap::new(),
        };
        roster.observe_map(at(10), &map);
        assert_eq!(roster.list_due(), Some(Mono(0)), "its Lease may not have been seen yet");
        roster.observe_list(at(11), &list(9, 5, None));
        assert_eq!(roster.list_due(), Some(Mono(0)), "that list was sent before");
        roster.observe_list(at(12), &list(11, 5, None));
        assert_eq!(roster.list_due(), Some(at(17)));
        roster.observe_list(at(18), &list(17, 5, None));
        assert!(ended(&roster));
        assert_eq!(roster.highest(), Epoch(4));
    }

    #[test]
    fn after_being_cut_off_oneself_everybody_gets_their_time_again() {
        let mut roster = roster();
        roster.grant_amnesty();
        roster.observe_list(at(70), &list(69, 1, Some(record(1, Some("a/1"), None))));
        assert!(!ended(&roster));
        roster.observe_list(at(76), &list(75, 1, Some(record(1, Some("a/1"), None))));
        assert!(ended(&roster));
    }

    #[test]
    fn damaged_epochs_are_ignored() {
        let mut roster = roster();
        roster.heard_of(Epoch(u64::MAX));
        roster.note_settled(&"a/1".into(), Epoch(1 << 60));
        roster.heard_of(Epoch(8));
        assert_eq!((roster.highest(), roster.settled(&"a/1".into())), (Epoch(8), None));
    }
}
