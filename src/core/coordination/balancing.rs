//! What the leader knows and decides about balance: whose place is kept, and
//! when namespaces change their homes. Where to, `crate::placement` says.
//!
//! Homes are planned anew when seats, pins or the ring change, and when one seat
//! has carried more than is tolerated for a while. Everything else, restarts
//! above all, leaves them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, MemberName};
use crate::placement::{LoadReport, Loads, TOLERATED, imbalance, plan};
use crate::shardmap::{Exceptions, Ownership, PublishedMap, Share};
use crate::time::Mono;

/// Looks at the balance are at least this far apart: each costs a lookup per
/// namespace.
const LOOK: Duration = Duration::from_secs(1);

/// Reports of so many members are kept.
const MAX_REPORTS: usize = 1024;

/// A plan must lower the largest share by so many percent of the mean to be
/// worth moving anything.
const WORTHWHILE: u64 = 2;

/// Times of balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceConfig {
    /// How long the place of a member that is gone is kept for it; zero: not at
    /// all. A restart should be over by then.
    pub return_patience: Duration,
    /// How long a member must carry more than is tolerated before namespaces
    /// move for it.
    pub imbalance_patience: Duration,
    /// Least time between two plans that were made for balance alone.
    pub interval: Duration,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        BalanceConfig {
            return_patience: Duration::from_secs(120),
            imbalance_patience: Duration::from_secs(30),
            interval: Duration::from_secs(120),
        }
    }
}

#[derive(Debug)]
pub(super) struct Balancing {
    config: BalanceConfig,
    breakage: Breakages,
    /// The newest of every member of the map in force or of a later one.
    reports: BTreeMap<MemberName, Arc<LoadReport>>,
    /// The sum of `reports`, and, until all are about the map in force, of what
    /// was known before that.
    loads: Arc<Loads>,
    before: Arc<Loads>,
    /// The map in force.
    epoch: Epoch,
    members: BTreeSet<MemberName>,
    /// Since when this leader knows that a member is away.
    away_since: BTreeMap<MemberName, Mono>,
    /// Something has changed since the last look.
    unseen: bool,
    next_look: Mono,
    above_since: Option<Mono>,
    /// No plan for balance alone before this.
    not_before: Mono,
}

impl Balancing {
    pub(super) fn new(config: BalanceConfig, breakage: Breakages) -> Self {
        Balancing {
            config,
            breakage,
            reports: BTreeMap::new(),
            loads: Arc::default(),
            before: Arc::default(),
            epoch: Epoch(0),
            members: BTreeSet::new(),
            away_since: BTreeMap::new(),
            unseen: false,
            next_look: Mono(0),
            above_since: None,
            not_before: Mono(0),
        }
    }

    pub(super) fn loads(&self) -> &Arc<Loads> {
        &self.loads
    }

    /// A member told what its namespaces weigh.
    pub(super) fn report(&mut self, member: MemberName, report: Arc<LoadReport>) {
        // A member may speak before we have seen the map that names it.
        if self.reports.len() >= MAX_REPORTS && !self.reports.contains_key(&member) {
            return;
        }
        let known = self.reports.insert(member, report.clone());
        if known.is_none_or(|known| known != report) {
            self.sum_up();
        }
    }

    /// A map was accepted. What was known of loads goes on to count until its
    /// members have reported by it: some report at once what they lost, others
    /// only later what they gained.
    pub(super) fn observe_map(&mut self, map: &PublishedMap) {
        self.before = self.loads.clone();
        self.epoch = map.epoch;
        self.members = map.members.iter().map(|member| member.name.clone()).collect();
        self.reports.retain(|member, report| self.members.contains(member) || report.epoch >= map.epoch);
        self.sum_up();
    }

    fn sum_up(&mut self) {
        let mut loads = Loads::default();
        let of_members = self.reports.iter().filter(|(member, _)| self.members.contains(*member));
        of_members.for_each(|(_, report)| loads.add(report));
        if self.is_current() {
            self.before = Arc::default();
        } else {
            for (position, weight) in &self.before.weights {
                loads.weights.entry(*position).or_insert(*weight);
            }
            if self.before.rest.load > loads.rest.load {
                loads.rest = self.before.rest;
            }
        }
        self.loads = Arc::new(loads);
        self.unseen = true;
    }

    /// Whether every member has reported by the map in force.
    fn is_current(&self) -> bool {
        let reported = |member| self.reports.get(member).is_some_and(|report| report.epoch >= self.epoch);
        !self.members.is_empty() && self.members.iter().all(reported)
    }

    /// We do not lead (any more).
    pub(super) fn rest(&mut self) {
        self.away_since.clear();
        self.above_since = None;
    }

    /// When, after `now`, something is to be decided although nothing will have
    /// happened.
    pub(super) fn deadline(&self, now: Mono) -> Option<Mono> {
        let given_up = self.away_since.values().map(|since| *since + self.config.return_patience);
        let looks = self.unseen || self.above_since.is_some();
        given_up.chain(looks.then_some(self.next_look)).filter(|at| *at > now).min()
    }

    /// Whose place is kept in the map that follows `previous`, when `present`
    /// are there.
    pub(super) fn away(
        &mut self,
        now: Mono,
        previous: Option<&PublishedMap>,
        present: &BTreeSet<MemberName>,
        drained: &BTreeSet<MemberName>,
    ) -> BTreeSet<MemberName> {
        let Some(previous) = previous else { return BTreeSet::new() };
        let members = previous.members.iter().map(|member| &member.name);
        let gone: BTreeSet<&MemberName> = members
            .chain(&previous.away)
            .filter(|name| !present.contains(*name) && !drained.contains(*name))
            .collect();
        self.away_since.retain(|name, _| gone.contains(name));
        let patience = self.config.return_patience;
        let mut away = BTreeSet::new();
        for name in gone {
            if now < *self.away_since.entry(name.clone()).or_insert(now) + patience {
                away.insert(name.clone());
            }
        }
        away
    }

    /// The exceptions of `draft`, which follows `previous`.
    pub(super) fn exceptions(&self, previous: Option<&PublishedMap>, draft: &PublishedMap) -> Exceptions {
        let Some(previous) = previous else { return Exceptions::new() };
        let same = previous.seats() == draft.seats()
            && previous.pins == draft.pins
            && previous.virtual_nodes == draft.virtual_nodes;
        if same {
            return previous.exceptions.clone();
        }
        if !self.is_current() {
            // By half of all reports, whoever has reported looks overloaded: what
            // is where stays there, the ring gives the new ones theirs, and the
            // next look evens out the rest.
            let seats = draft.seats();
            let kept = previous.exceptions.iter().filter(|(_, seat)| seats.contains(*seat));
            return kept.map(|(slot, seat)| (*slot, seat.clone())).collect();
        }
        let before = Ownership::new(previous.clone());
        plan(self.planned_from(&before), draft, &self.loads)
    }

    /// Looks at the balance of the map in force; exceptions that better it, if
    /// it is time for that.
    pub(super) fn look(&mut self, now: Mono, current: &Ownership) -> Option<Exceptions> {
        if now < self.next_look || !(self.unseen || self.above_since.is_some()) {
            return None;
        }
        self.next_look = now + LOOK;
        self.unseen = false;
        let map = current.map();
        let before = imbalance(self.loads.homes(current).values());
        let hasty = self.breakage.is(Breakage::Undamped);
        let tolerated = if hasty { 100 } else { TOLERATED };
        if before <= tolerated || !self.is_current() {
            self.above_since = None;
            return None;
        }
        let due = *self.above_since.get_or_insert(now) + self.config.imbalance_patience;
        if now < due.max(self.not_before) && !hasty {
            self.next_look = due.max(self.not_before);
            return None;
        }
        self.not_before = now + self.config.interval;
        self.above_since = None;
        let exceptions = plan(self.planned_from(current), map, &self.loads);
        let planned = Ownership::new(PublishedMap { exceptions: exceptions.clone(), ..map.clone() });
        let after = imbalance(self.loads.homes(&planned).values());
        (after + WORTHWHILE <= before).then_some(exceptions)
    }

    /// From where namespaces begin.
    fn planned_from<'a>(&self, before: &'a Ownership) -> Option<&'a Ownership> {
        (!self.breakage.is(Breakage::PlacedAnew)).then_some(before)
    }

    /// Writes into `map` what its members own.
    pub(super) fn fill_shares(&self, map: PublishedMap) -> PublishedMap {
        let ownership = Ownership::new(map);
        let shares: BTreeMap<MemberName, Share> = self.loads.shares(&ownership);
        let mut map = ownership.map().clone();
        for member in &mut map.members {
            member.share = shares.get(&member.name).copied().unwrap_or_default();
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::Weight;
    use crate::ring::Position;
    use crate::shardmap::{LiveMember, OperatorSpec, Placement, plan_map};

    fn at(seconds: u64) -> Mono {
        Mono::from_origin(Duration::from_secs(seconds))
    }

    fn map(names: &[&str]) -> PublishedMap {
        let live = names.iter().map(|name| LiveMember {
            name: (*name).into(),
            instance: format!("{name}/1").into(),
            address: "a:1".into(),
        });
        let live: Vec<LiveMember> = live.collect();
        let (spec, none) = (OperatorSpec::default(), Placement::default());
        plan_map(None, &spec, &live, &none, &"a".into(), Epoch(6)).expect("the first map")
    }

    /// A leader that knows a map, and whose members have reported: what the
    /// ring gives to `a` weighs ten times as much as what it gives to others.
    fn uneven(names: &[&str]) -> (Balancing, Ownership) {
        let mut balancing = Balancing::new(BalanceConfig::default(), Breakages::default());
        let ownership = Ownership::new(map(names));
        balancing.observe_map(ownership.map());
        for name in names {
            let own = (0..100).map(|index| Position::of(&format!("team-{index}")));
            let own = own.filter(|position| ownership.owner_at(*position) == Some(&(*name).into()));
            let weight = Weight::nearest(if *name == "a" { 50 } else { 5 });
            let report = LoadReport::new(Epoch(7), own.map(|position| (position, weight)).collect());
            balancing.report((*name).into(), Arc::new(report));
        }
        (balancing, ownership)
    }

    #[test]
    fn an_imbalance_that_lasts_is_planned_away_at_a_bounded_rate() {
        let (mut balancing, ownership) = uneven(&["a", "b"]);
        assert_eq!(balancing.deadline(at(0)), None, "the first look is due at once");
        assert_eq!(balancing.look(at(10), &ownership), None);
        assert_eq!(balancing.deadline(at(10)), Some(at(40)));
        assert_eq!(balancing.look(at(39), &ownership), None);
        let exceptions = balancing.look(at(40), &ownership).expect("it has lasted");
        let planned = Ownership::new(PublishedMap { exceptions, ..ownership.map().clone() });
        assert!(imbalance(balancing.loads.homes(&planned).values()) <= TOLERATED);
        // Nobody published it, and the loads moved once more.
        balancing.unseen = true;
        assert_eq!(balancing.look(at(60), &ownership), None);
        assert_eq!(balancing.look(at(159), &ownership), None);
        assert!(balancing.look(at(160), &ownership).is_some());
    }

    #[test]
    fn what_lost_its_owner_is_known_until_all_have_reported_by_the_new_map() {
        let (mut balancing, ownership) = uneven(&["a", "b", "c"]);
        let known = balancing.loads.weights.clone();
        assert_eq!(known.len(), 100);
        let mut next = ownership.map().clone();
        next.epoch = Epoch(8);
        next.away.insert("c".into());
        next.members.retain(|member| member.name != "c".into());
        balancing.observe_map(&next);
        assert_eq!(balancing.loads.weights, known);
        // One of them gave away everything, by its own word.
        balancing.report("a".into(), Arc::new(LoadReport::new(Epoch(8), Vec::new())));
        assert_eq!(balancing.loads.weights, known);
        let mut draft = next.clone();
        draft.away.clear();
        let kept = balancing.exceptions(Some(&next), &draft);
        assert_eq!(kept, next.exceptions, "nothing is planned by half of the reports");
        balancing.report("b".into(), Arc::new(LoadReport::new(Epoch(8), Vec::new())));
        assert_eq!(balancing.loads.weights.len(), 0, "now all have spoken");
    }

    #[test]
    fn a_report_that_comes_before_its_map_counts_with_it() {
        let mut balancing = Balancing::new(BalanceConfig::default(), Breakages::default());
        let report = LoadReport::new(Epoch(7), vec![(Position(1), Weight(9))]);
        balancing.report("a".into(), Arc::new(report));
        assert_eq!(balancing.loads.weights.len(), 0);
        balancing.observe_map(&map(&["a"]));
        assert_eq!(balancing.loads.weights.len(), 1);
    }
}
