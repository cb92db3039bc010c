//! What the leader does: plan the map and publish it.
//!
//! Publishing is a compare-and-swap on the map object's resourceVersion, so a
//! map is always the successor of exactly one map. From one to the next a
//! member is left out only if its instance has *ended* (see `roster`): nobody
//! who may still be acting is missing in the newest map, which is what the
//! barrier in `handover` rests on.
//!
//! A map without a predecessor (there has never been one, or it was deleted, or
//! an older one was restored) cannot be checked against one. The leader then
//! reads all Leases and waits a whole member Lease duration: whoever holds no
//! Lease by then has stopped by itself. Its epoch must lie above all epochs ever
//! published, also those of which no living replica knows. Each epoch is at most
//! the resourceVersion under which it was published, and resourceVersions grow
//! over deletions, so the resourceVersion of the map object found without an
//! epoch is such a bound.

use std::collections::BTreeSet;
use std::time::Duration;

use super::balancing::Balancing;
use super::config::CoordinationConfig;
use super::roster::Roster;
use super::{MapRecord, MapWrite};
use crate::backoff::{Backoff, Jitter};
use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, MemberName, Revision};
use crate::shardmap::{LiveMember, Ownership, Placement, PublishedMap, plan_map};
use crate::time::Mono;

/// A map that has no predecessor to be checked against.
#[derive(Debug)]
struct FirstMap {
    /// The object's revision at which this was found.
    revision: Revision,
    /// When.
    since: Mono,
    /// When the first list that was sent after `since` had been read.
    listed_at: Option<Mono>,
}

#[derive(Debug)]
pub(super) struct Leader {
    pub(super) balancing: Balancing,
    member: MemberName,
    join_debounce: Duration,
    first_map_wait: Duration,
    assume_new_cluster: bool,
    breakage: Breakages,
    writing: bool,
    retry_at: Mono,
    backoff: Backoff,
    first_map: Option<FirstMap>,
    /// Since when joins are held back.
    joins_since: Option<Mono>,
    /// When the plan is to be made again although nothing will have happened.
    deadline: Option<Mono>,
}

impl Leader {
    pub(super) fn new(config: &CoordinationConfig, member: MemberName) -> Self {
        Leader {
            balancing: Balancing::new(config.balance, config.breakage),
            member,
            join_debounce: config.join_debounce,
            first_map_wait: config.member_lease.duration,
            assume_new_cluster: config.assume_new_cluster,
            breakage: config.breakage,
            writing: false,
            retry_at: Mono(0),
            backoff: Backoff::new(config.backoff),
            first_map: None,
            joins_since: None,
            deadline: None,
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.deadline
    }

    /// A write was answered. True if the map has to be read again.
    pub(super) fn answered(&mut self, now: Mono, succeeded: bool, jitter: &mut Jitter) -> bool {
        self.writing = false;
        if succeeded {
            self.backoff.succeed();
            self.retry_at = now;
        } else {
            self.retry_at = now + self.backoff.fail(jitter);
        }
        !succeeded
    }

    /// All Leases were read by a request sent at `sent_at`.
    pub(super) fn observe_list(&mut self, now: Mono, sent_at: Mono) {
        if let Some(first) = &mut self.first_map
            && first.listed_at.is_none()
            && sent_at >= first.since
        {
            first.listed_at = Some(now);
        }
    }

    /// Whether a first map waits for a list.
    pub(super) fn needs_list(&self) -> bool {
        self.first_map.as_ref().is_some_and(|first| first.listed_at.is_none())
    }

    /// We do not lead (any more).
    pub(super) fn rest(&mut self) {
        self.first_map = None;
        self.joins_since = None;
        self.deadline = None;
        self.balancing.rest();
    }

    /// What to write now, while we lead. `map`: the object as last seen, `None`
    /// if there is none; `accepted`: the newest map that we have accepted.
    pub(super) fn poll(
        &mut self,
        now: Mono,
        map: Option<&MapRecord>,
        accepted: Option<&Ownership>,
        roster: &Roster,
    ) -> Option<MapWrite> {
        self.deadline = None;
        if self.writing || !roster.is_listed() {
            return None;
        }
        if now < self.retry_at {
            self.deadline = Some(self.retry_at);
            return None;
        }
        let write = match map {
            None => MapWrite::Create,
            Some(record) => {
                let Some(map) = self.plan(now, record, accepted, roster) else {
                    self.deadline = [self.deadline, self.balancing.deadline(now)].into_iter().flatten().min();
                    return None;
                };
                let map = self.balancing.fill_shares(map);
                MapWrite::Publish { uid: record.uid.clone(), revision: record.revision, map }
            }
        };
        self.writing = true;
        self.joins_since = None;
        Some(write)
    }

    fn plan(
        &mut self,
        now: Mono,
        record: &MapRecord,
        accepted: Option<&Ownership>,
        roster: &Roster,
    ) -> Option<PublishedMap> {
        let previous = record.published.as_ref();
        let has_predecessor = previous.is_some_and(|map| map.epoch >= roster.highest());
        let mut floor = roster.highest();
        if self.breakage.is(Breakage::EpochForgotten) {
            floor = Epoch(0);
        }
        if has_predecessor {
            self.first_map = None;
        } else {
            if !self.breakage.is(Breakage::EpochForgotten) {
                floor = floor.max(Epoch(record.revision.0));
            }
            if !self.first_map_is_due(now, record, roster) {
                return None;
            }
        }

        // Whoever may still be acting stays, as it is.
        let forgotten = accepted.map(Ownership::map).filter(|_| !has_predecessor);
        let mut names = BTreeSet::new();
        let mut staying: Vec<LiveMember> = Vec::new();
        for member in [previous, forgotten].into_iter().flatten().flat_map(|map| &map.members) {
            if !roster.has_ended(&member.instance) && names.insert(member.name.clone()) {
                let address = roster.address(&member.name, &member.instance);
                staying.push(LiveMember {
                    name: member.name.clone(),
                    instance: member.instance.clone(),
                    address: address.unwrap_or_else(|| member.address.clone()),
                });
            }
        }
        let joining: Vec<LiveMember> = roster.live().filter(|member| !names.contains(&member.name)).collect();
        let returning: BTreeSet<&MemberName> = joining.iter().map(|member| &member.name).collect();

        // Everything but joins is published at once. A member that comes back
        // as a new instance counts as a join and not as a leave.
        let leaves = previous.is_some_and(|map| {
            map.members
                .iter()
                .any(|member| !names.contains(&member.name) && !returning.contains(&member.name))
        });
        let wishes = match previous {
            Some(map) => {
                let unmoved: Vec<LiveMember> = map.members.iter().map(as_live).collect();
                let placement = Placement { away: map.away.clone(), exceptions: map.exceptions.clone() };
                !record.in_step
                    || plan_map(previous, &record.spec, &unmoved, &placement, &self.member, floor).is_some()
            }
            None => false,
        };
        let moved = staying.iter().any(|member| {
            previous.and_then(|map| map.member(&member.name)).is_none_or(|old| as_live(old) != *member)
        });
        if joining.is_empty() {
            self.joins_since = None;
        }
        let present: BTreeSet<MemberName> =
            names.iter().chain(joining.iter().map(|member| &member.name)).cloned().collect();
        let away = self.balancing.away(now, previous, &present, &record.spec.drained);
        // A member that comes back takes its place with its join; one that was
        // waited for long enough loses it at once.
        let given_up = previous
            .is_some_and(|map| map.away.iter().any(|name| !away.contains(name) && !present.contains(name)));
        let current = accepted.filter(|accepted| previous.is_some_and(|map| map.epoch == accepted.epoch()));
        let better = current.and_then(|current| self.balancing.look(now, current));
        let rebalance = better.is_some();
        if !(leaves || wishes || moved || given_up || rebalance || !has_predecessor && previous.is_some()) {
            if joining.is_empty() {
                return None;
            }
            let due = *self.joins_since.get_or_insert(now) + self.join_debounce;
            if now < due {
                self.deadline = Some(due);
                return None;
            }
        }
        staying.extend(joining);
        let mut placement = Placement { away, exceptions: better.unwrap_or_default() };
        if let Some(previous) = previous.filter(|_| !rebalance) {
            placement.exceptions.clone_from(&previous.exceptions);
        }
        let planned = plan_map(previous, &record.spec, &staying, &placement, &self.member, floor);
        let planned = planned.map(|draft| {
            let unplanned = !rebalance || previous.is_some_and(|map| map.seats() != draft.seats());
            let exceptions =
                if unplanned { self.balancing.exceptions(previous, &draft) } else { placement.exceptions };
            PublishedMap { exceptions, ..draft }
        });
        if planned.is_some() || record.in_step && has_predecessor {
            return planned;
        }
        // The map is right, but it does not say that it took this spec into
        // account, or it lies below epochs that are known.
        let last = previous?.epoch.max(floor);
        Some(PublishedMap { epoch: Epoch(last.0.checked_add(1)?), ..previous?.clone() })
    }

    /// Whether a map without predecessor may be published now.
    fn first_map_is_due(&mut self, now: Mono, record: &MapRecord, roster: &Roster) -> bool {
        if self.first_map.as_ref().is_none_or(|first| first.revision != record.revision) {
            self.first_map = Some(FirstMap { revision: record.revision, since: now, listed_at: None });
        }
        if self.assume_new_cluster && roster.highest() == Epoch(0) {
            return true;
        }
        let Some(listed_at) = self.first_map.as_ref().and_then(|first| first.listed_at) else {
            return false;
        };
        let due = listed_at + self.first_map_wait;
        if now < due {
            self.deadline = Some(due);
        }
        now >= due
    }
}

fn as_live(member: &crate::shardmap::MapMember) -> LiveMember {
    LiveMember {
        name: member.name.clone(),
        instance: member.instance.clone(),
        address: member.address.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::lease::{LeaseContent, LeaseName, LeaseRecord};
    use super::super::roster::LeaseList;
    use super::*;
    use crate::ids::Instance;
    use crate::shardmap::OperatorSpec;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Mono {
        Mono::from_origin(Duration::from_millis(milliseconds))
    }

    /// A leader `a` and what it sees.
    struct Bench {
        leader: Leader,
        roster: Roster,
        record: MapRecord,
        revision: u64,
    }

    impl Bench {
        fn new(config: &CoordinationConfig) -> Self {
            Bench {
                leader: Leader::new(config, "a".into()),
                roster: Roster::new(SECOND * 5, config.breakage),
                record: MapRecord {
                    uid: "u".into(),
                    revision: Revision(700),
                    spec: OperatorSpec::default(),
                    published: None,
                    in_step: false,
                },
                revision: 100,
            }
        }

        /// Has published a map of `members`, whose Leases are all live.
        fn with(members: &[&str]) -> Self {
            let config = CoordinationConfig { assume_new_cluster: true, ..CoordinationConfig::default() };
            let mut bench = Bench::new(&config);
            bench.list(at(0));
            for member in members {
                bench.lease(at(0), member, Some("1"), None);
            }
            assert_eq!(bench.poll(at(0)), None, "joins are held back");
            bench.publish(at(200));
            bench
        }

        fn lease(&mut self, now: Mono, member: &str, holder: Option<&str>, previous: Option<&str>) {
            self.revision += 1;
            let instance = |number: &str| Instance::from(format!("{member}/{number}"));
            let content = LeaseContent {
                holder: holder.map(instance),
                previous: previous.map(instance),
                duration: SECOND * 5,
                transitions: 0,
                address: format!("{member}:1").into(),
                settled: None,
                highest: Epoch(0),
            };
            let record = LeaseRecord { uid: "l".into(), revision: Revision(self.revision), content };
            self.roster.observe(now, &member.into(), &record);
        }

        fn list(&mut self, now: Mono) {
            let leases: Vec<(LeaseName, LeaseRecord)> = Vec::new();
            let list = LeaseList { sent_at: now, revision: Revision(0), leases };
            self.roster.observe_list(now, &list);
            self.leader.observe_list(now, now);
        }

        fn poll(&mut self, now: Mono) -> Option<PublishedMap> {
            match self.leader.poll(now, Some(&self.record), None, &self.roster)? {
                MapWrite::Publish { map, revision, .. } => {
                    assert_eq!(revision, self.record.revision);
                    Some(map)
                }
                MapWrite::Create => panic!("the map is there"),
            }
        }

        fn publish(&mut self, now: Mono) -> Vec<String> {
            let map = self.poll(now).expect("something is to be published");
            self.leader.answered(now, true, &mut Jitter::seeded(1));
            self.roster.observe_map(now, &map);
            self.record.published = Some(map.clone());
            self.record.in_step = true;
            self.record.revision.0 += 1;
            assert_eq!(self.poll(now), None, "once is enough");
            map.members.iter().map(|member| member.instance.to_string()).collect()
        }

        fn epoch(&self) -> Epoch {
            self.record.published.as_ref().map_or(Epoch(0), |map| map.epoch)
        }
    }

    #[test]
    fn joins_that_follow_each_other_closely_give_one_epoch() {
        let mut bench = Bench::with(&["a"]);
        let epoch = bench.epoch();
        for (time, member) in [(1_000, "b"), (1_100, "c"), (1_190, "d")] {
            bench.lease(at(time), member, Some("1"), None);
            assert_eq!(bench.poll(at(time)), None);
            assert_eq!(bench.leader.deadline(), Some(at(1_200)));
        }
        assert_eq!(bench.publish(at(1_200)).len(), 4);
        assert_eq!(bench.epoch(), Epoch(epoch.0 + 1));
    }

    #[test]
    fn a_release_is_published_at_once_together_with_joins_that_wait() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.lease(at(1_000), "c", Some("1"), None);
        assert_eq!(bench.poll(at(1_000)), None);
        bench.lease(at(1_010), "b", None, Some("1"));
        assert_eq!(bench.publish(at(1_010)), ["a/1", "c/1"]);
    }

    #[test]
    fn a_member_that_comes_back_as_a_new_instance_is_a_join_and_no_leave() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.lease(at(1_000), "b", Some("2"), Some("1"));
        assert_eq!(bench.poll(at(1_000)), None);
        assert_eq!(bench.publish(at(1_200)), ["a/1", "b/2"]);
    }

    #[test]
    fn a_member_whose_lease_was_deleted_stays_until_its_time_has_ended() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.roster.observe_deleted(at(1_000), &"b".into(), Revision(900));
        bench.lease(at(2_000), "a", Some("1"), None);
        assert_eq!(bench.poll(at(5_900)), None);
        bench.lease(at(5_900), "a", Some("1"), None);
        bench.list(at(6_000));
        assert_eq!(bench.publish(at(6_000)), ["a/1"]);
    }

    #[test]
    fn the_place_of_a_member_that_is_gone_is_kept_for_a_while_and_not_if_it_is_drained() {
        let mut bench = Bench::with(&["a", "b", "c"]);
        bench.record.spec.drained.insert("c".into());
        bench.record.in_step = false;
        bench.publish(at(500));
        let away = |bench: &Bench| bench.record.published.as_ref().map(|map| map.away.clone());
        bench.lease(at(1_000), "b", None, Some("1"));
        bench.lease(at(1_000), "c", None, Some("1"));
        assert_eq!(bench.publish(at(1_000)), ["a/1"]);
        assert_eq!(away(&bench), Some(["b".into()].into()));
        assert_eq!(bench.leader.deadline(), Some(at(121_000)));
        assert_eq!(bench.poll(at(120_999)), None);
        assert_eq!(bench.publish(at(121_000)), ["a/1"]);
        assert_eq!(away(&bench), Some(BTreeSet::new()));
    }

    #[test]
    fn a_member_that_comes_back_takes_its_place() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.lease(at(1_000), "b", None, Some("1"));
        bench.publish(at(1_000));
        bench.lease(at(90_000), "b", Some("2"), Some("1"));
        assert_eq!(bench.poll(at(90_000)), None);
        assert_eq!(bench.publish(at(90_200)), ["a/1", "b/2"]);
        assert!(bench.record.published.as_ref().is_some_and(|map| map.away.is_empty()));
        assert_eq!(bench.leader.deadline(), None, "nothing is waited for any more");
    }

    #[test]
    fn a_successor_that_does_not_name_its_predecessor_waits_for_its_end() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.roster.observe_deleted(at(1_000), &"b".into(), Revision(500));
        bench.revision = 1_000;
        bench.lease(at(1_100), "b", Some("2"), None);
        assert_eq!(bench.poll(at(5_000)), None, "b/1 may still act");
        bench.lease(at(5_500), "a", Some("1"), None);
        bench.lease(at(5_500), "b", Some("2"), None);
        bench.list(at(6_000));
        assert_eq!(bench.poll(at(6_000)), None);
        assert_eq!(bench.publish(at(6_200)), ["a/1", "b/2"]);
    }

    #[test]
    fn wishes_of_operators_are_published_at_once_even_if_they_change_nothing() {
        let mut bench = Bench::with(&["a", "b"]);
        let epoch = bench.epoch();
        bench.record.spec.drained.insert("b".into());
        bench.record.in_step = false;
        bench.publish(at(1_000));
        bench.record.in_step = false;
        bench.publish(at(1_001));
        assert_eq!(bench.epoch(), Epoch(epoch.0 + 2));
    }

    #[test]
    fn the_first_map_lies_above_its_objects_revision_and_waits_a_lease_duration() {
        let mut bench = Bench::new(&CoordinationConfig::default());
        bench.list(at(900));
        bench.lease(at(900), "a", Some("1"), None);
        assert_eq!(bench.poll(at(1_000)), None);
        assert!(bench.leader.needs_list(), "the list was read before the object");
        bench.list(at(1_100));
        bench.lease(at(1_100), "a", Some("1"), None);
        assert_eq!(bench.poll(at(1_200)), None);
        assert_eq!(bench.leader.deadline(), Some(at(6_100)));
        assert_eq!(bench.poll(at(6_100)), None, "joins are held back here too");
        bench.publish(at(6_300));
        assert_eq!(bench.epoch(), Epoch(701));
    }

    #[test]
    fn a_map_below_a_known_epoch_is_replaced_by_one_above_it() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.roster.heard_of(Epoch(5_000));
        assert_eq!(bench.poll(at(1_000)), None);
        bench.list(at(1_100));
        for member in ["a", "b"] {
            bench.lease(at(1_100), member, Some("1"), None);
            bench.lease(at(5_000), member, Some("1"), None);
        }
        assert_eq!(bench.poll(at(6_000)), None);
        bench.publish(at(6_100));
        assert_eq!(bench.epoch(), Epoch(5_001));
    }

    #[test]
    fn a_failed_write_is_repeated_later_and_asks_for_a_new_read() {
        let mut bench = Bench::with(&["a", "b"]);
        bench.lease(at(1_000), "b", None, Some("1"));
        assert!(bench.poll(at(1_000)).is_some());
        assert_eq!(bench.poll(at(1_001)), None, "one write at a time");
        assert!(bench.leader.answered(at(1_100), false, &mut Jitter::seeded(1)));
        assert_eq!(bench.poll(at(1_100)), None);
        let due = bench.leader.deadline().unwrap();
        assert!(bench.poll(due).is_some());
    }
}
