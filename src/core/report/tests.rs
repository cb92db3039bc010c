//! The reporter's promises: one patch per change, none when nothing changed,
//! progress only when it is slow, bounded refreshes, nothing for others.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::delivery::{AppliedRow, AppliedTable, Rejection, Scope};
use crate::ids::{GatewayId, Revision};

/// Says how many gateways have it, and nothing when the object says so already.
#[derive(Default)]
struct Counting {
    /// How many plans were made.
    plans: Cell<usize>,
}

impl StatusPlanner for Counting {
    fn plan(&self, _: &str, _: Epoch, object: &RawObject, _: Validity<'_>, reach: &Reach) -> PlannedStatus {
        self.plans.set(self.plans.get() + 1);
        let rejected = reach.rejections.first().map(|(_, words)| words.clone());
        let text = rejected.unwrap_or_else(|| format!("{}/{}", reach.applied, reach.gateways)).into_bytes();
        let finality = if reach.is_under_way() { Finality::Progress } else { Finality::Final };
        let stands = std::str::from_utf8(&object.status).unwrap().split_once('/');
        let stands = stands.is_some_and(|(applied, gateways)| applied == gateways && applied != "0");
        let message = String::from_utf8(text.clone()).unwrap();
        let turn = Turn { from: standing(&object.status), to: standing(&text), message };
        let patch = (object.status != text).then_some(text);
        PlannedStatus { finality, stands, turn: patch.is_some().then_some(turn), patch }
    }
}

fn standing(status: &[u8]) -> Standing {
    match std::str::from_utf8(status).unwrap().split_once('/') {
        None if status.is_empty() => Standing::Unsaid,
        None => Standing::Bad("foreign", 0),
        Some((applied, gateways)) if applied != gateways => Standing::Underway,
        Some(("0", _)) => Standing::Alone,
        Some(_) => Standing::Well,
    }
}

#[derive(Default)]
struct Fleet {
    objects: BTreeMap<(Kind, ObjectKey), RawObject>,
    restated: Vec<(Revision, ObjectKey)>,
    frontier: Frontier,
    /// All objects are news as of this revision of another kind, on which they depend.
    depends: Option<(Kind, Revision)>,
    /// How often an object was looked at: once for every plan.
    asked: Cell<usize>,
}

impl Fleet {
    fn put(&mut self, name: &str, revision: u64) {
        let key = ObjectKey::new("n", name);
        let object = RawObject {
            kind: Kind::Backend,
            key: key.clone(),
            uid: Arc::from(name),
            revision: Revision(revision),
            generation: 1,
            created: Arc::from(""),
            deleting: false,
            held: false,
            spec: Bytes::new(),
            status: Bytes::new(),
        };
        self.objects.insert((Kind::Backend, key), object);
        self.frontier.advance(Kind::Backend, Revision(revision));
    }

    /// As before, with another content; what its status says stays.
    fn put_again(&mut self, name: &str, revision: u64) {
        let status = self.objects.values().next().map(|object| object.status.clone());
        self.put(name, revision);
        self.objects.values_mut().next().unwrap().status = status.unwrap_or_default();
    }

    /// Somebody else writes a status.
    fn state(&mut self, name: &str, revision: u64, status: &'static str) {
        let key = ObjectKey::new("n", name);
        self.objects.get_mut(&(Kind::Backend, key.clone())).unwrap().status = Bytes::from(status);
        self.restated.push((Revision(revision), key));
        self.frontier.advance(Kind::Backend, Revision(revision));
    }
}

impl Objects for Fleet {
    fn changed_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)> {
        let moved = self.depends.is_some_and(|(kind, at)| at > frontier.get(kind));
        let newer = |o: &&RawObject| moved || o.revision > frontier.get(o.kind);
        self.objects.values().filter(newer).map(|o| (o.kind, o.key.clone())).collect()
    }
    fn restated_since(&self, frontier: &Frontier) -> Vec<(Kind, ObjectKey)> {
        let newer = self.restated.iter().filter(|(at, _)| *at > frontier.get(Kind::Backend));
        newer.map(|(_, key)| (Kind::Backend, key.clone())).collect()
    }
    fn all(&self) -> Vec<(Kind, ObjectKey)> {
        self.objects.keys().cloned().collect()
    }
    fn get(&self, kind: Kind, key: &ObjectKey) -> Option<ObjectView<'_>> {
        let object = self.objects.get(&(kind, key.clone()))?;
        self.asked.set(self.asked.get() + 1);
        let mut needs = Frontier::default();
        needs.advance(kind, object.revision);
        Some(ObjectView { object, needs, content: 1, validity: Validity::Valid })
    }
    fn frontier(&self) -> Frontier {
        self.frontier
    }
}

struct World {
    fleet: Fleet,
    applied: AppliedView,
    reporter: Reporter<Counting>,
    now: Mono,
    epoch: u64,
    acting: bool,
    /// Whether something is well now, of all that was told.
    told: Vec<bool>,
    /// Of each of these, whether it was otherwise before.
    again: Vec<bool>,
}

impl World {
    fn new() -> Self {
        World::with(ReportConfig::default())
    }

    fn with(config: ReportConfig) -> Self {
        let mut world = World {
            fleet: Fleet::default(),
            applied: AppliedView::default(),
            reporter: Reporter::new(config, Counting::default()),
            now: Mono(1_000_000_000_000),
            epoch: 1,
            acting: true,
            told: Vec::new(),
            again: Vec::new(),
        };
        world.gateways(&[(0, 2)]);
        world.poll();
        world.now = world.now + Duration::from_secs(10);
        world.poll();
        world
    }

    /// All replicas have just been started again: statuses stand there, and no
    /// gateway is back yet.
    fn cold(objects: usize) -> Self {
        let mut world = World::with(ReportConfig::default());
        world.applied = AppliedView::default();
        world.applied.set(&"a".into(), AppliedTable::default());
        for n in 0..objects {
            world.fleet.put(&format!("x{n}"), 5);
        }
        for object in world.fleet.objects.values_mut() {
            object.status = Bytes::from("2/2");
        }
        world.reporter = Reporter::new(ReportConfig::default(), Counting::default());
        world
    }

    /// How much is written in each of so many seconds.
    fn by_second(&mut self, seconds: usize) -> Vec<usize> {
        (0..seconds).map(|_| self.during(1000).len()).collect()
    }

    /// What is written while this time passes.
    fn during(&mut self, millis: u64) -> Vec<String> {
        (0..millis / 100).flat_map(|_| self.after(100)).collect()
    }

    fn row(low: u64, gateways: u32) -> AppliedRow {
        AppliedRow {
            scope: Scope::default(),
            low: Frontier([Revision(low); Kind::COUNT]),
            excluded: Vec::new(),
            unknown: false,
            gateways,
            names: Vec::new(),
        }
    }

    fn gateways(&mut self, rows: &[(u64, u32)]) {
        let rows = rows.iter().map(|&(low, gateways)| World::row(low, gateways)).collect();
        let table = AppliedTable { rows, rejections: Vec::new() };
        self.applied.set(&"a".into(), table);
    }

    /// One gateway rejects an object and has all others.
    fn rejects(&mut self, name: &str, low: u64) {
        let row = AppliedRow { excluded: vec![(Kind::Backend, 1)], ..World::row(low, 1) };
        let rejection = Rejection {
            kind: Kind::Backend,
            key: ObjectKey::new("n", name),
            content: 1,
            gateway: GatewayId { namespace: Arc::from("n"), name: Arc::from("g") },
            message: "bad".to_owned(),
        };
        self.applied.set(&"a".into(), AppliedTable { rows: vec![row], rejections: vec![rejection] });
    }

    /// Polls, writes what is to be written, and says how many patches it were.
    fn poll(&mut self) -> Vec<String> {
        let acting = self.acting;
        let round = Round {
            now: self.now,
            wall: "",
            acting: self.epoch,
            epoch: Epoch(self.epoch),
            applied: &self.applied,
            may_act: &|_| acting,
        };
        let patches = self.reporter.poll(&self.fleet, &round);
        for patch in &patches {
            self.told.extend(patch.news.as_ref().map(|news| news.well));
            self.again.extend(patch.news.as_ref().map(|news| news.again));
            let object = self.fleet.objects.get_mut(&(patch.kind, patch.key.clone())).unwrap();
            object.status = Bytes::from(patch.body.clone());
            self.reporter.written(self.now, patch.kind, &patch.key, PatchOutcome::Written);
        }
        patches.into_iter().map(|patch| String::from_utf8(patch.body).unwrap()).collect()
    }

    fn after(&mut self, millis: u64) -> Vec<String> {
        self.now = self.now + Duration::from_millis(millis);
        self.poll()
    }
}

#[test]
fn a_quick_change_is_one_patch_and_then_silence() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    assert!(world.poll().is_empty(), "nothing is written while it is on its way");
    world.gateways(&[(5, 1), (0, 1)]);
    assert!(world.after(100).is_empty());
    world.gateways(&[(5, 2)]);
    assert_eq!(world.after(100), ["2/2"]);
    for _ in 0..10 {
        assert!(world.after(700).is_empty(), "nothing changed, so nothing is written");
    }
    assert_eq!(world.reporter.pending(), 0);
}

#[test]
fn a_slow_change_says_how_far_it_is_and_then_that_it_is_done() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 1), (0, 1)]);
    world.poll();
    assert_eq!(world.reporter.next_deadline(), Some(world.now + Duration::from_millis(800)));
    assert_eq!(world.after(800), ["1/2"]);
    assert!(world.after(600).is_empty());
    world.gateways(&[(5, 2)]);
    assert_eq!(world.after(10), ["2/2"]);
}

#[test]
fn people_are_told_once_that_it_turned_and_nothing_of_changes_that_go_well() {
    for slow in [false, true] {
        let mut world = World::new();
        for revision in 5..25 {
            world.fleet.put_again("x", revision);
            world.gateways(&[(revision, 1), (revision - 1, 1)]);
            world.poll();
            assert_eq!(world.after(if slow { 800 } else { 100 }).len(), usize::from(slow));
            world.gateways(&[(revision, 2)]);
            world.after(600);
            // One of them comes as soon as the one before is written.
            world.after(if revision % 2 == 0 { 0 } else { 700 });
        }
        assert_eq!(world.told, [true], "slow: {slow}");
        world.fleet.state("x", 30, "wrong");
        world.after(700);
        assert_eq!(world.told, [true, true], "slow: {slow}");
    }
}

#[test]
fn who_takes_over_tells_nothing_of_what_is_under_way_or_well() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 1), (0, 1)]);
    world.poll();
    assert_eq!(world.after(800), ["1/2"]);
    world.reporter = Reporter::new(ReportConfig::default(), Counting::default());
    world.gateways(&[(5, 2)]);
    assert!(world.during(2000).contains(&"2/2".to_owned()));
    world.reporter = Reporter::new(ReportConfig::default(), Counting::default());
    world.gateways(&[(5, 3)]);
    assert!(world.during(20_000).contains(&"3/3".to_owned()));
    // All gateways go away and come back.
    world.gateways(&[]);
    assert!(world.during(20_000).contains(&"0/0".to_owned()));
    world.gateways(&[(5, 3)]);
    assert!(world.during(20_000).contains(&"3/3".to_owned()));
    assert!(world.told.is_empty(), "{:?}", world.told);
}

#[test]
fn what_was_before_gateways_went_away_decides_what_is_told_when_they_are_back() {
    for (away, slow, mended) in [
        (true, false, false),
        (true, false, true),
        (true, true, false),
        (true, true, true),
        (false, true, false),
        (false, true, true),
    ] {
        let mut world = World::new();
        world.fleet.put("x", 5);
        world.rejects("x", 5);
        assert_eq!(world.during(1000), ["bad"]);
        let mut written = Vec::new();
        for _ in 0..3 {
            if away {
                world.gateways(&[]);
                written.extend(world.during(20_000));
            }
            if slow {
                world.gateways(&[(0, 1)]);
                written.extend(world.during(20_000));
            }
            world.rejects("x", 5);
            written.extend(world.during(20_000));
        }
        let one: Vec<&str> =
            [(away, "0/0"), (slow, "0/1"), (true, "bad")].iter().filter(|w| w.0).map(|w| w.1).collect();
        assert_eq!(written, one.repeat(3));
        assert_eq!(world.told, [false], "away: {away}, slow: {slow}");
        if away {
            world.gateways(&[]);
            world.during(20_000);
        }
        if slow {
            world.gateways(&[(0, 1)]);
            world.during(20_000);
        }
        if mended {
            world.gateways(&[(5, 1)]);
            assert_eq!(world.during(20_000), ["1/1"]);
            assert_eq!(world.told, [false, true], "away: {away}, slow: {slow}");
            assert!(world.reporter.before.is_empty());
        }
    }
}

#[test]
fn who_takes_over_what_is_under_way_does_not_know_that_it_was_not_told() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.fleet.state("x", 5, "0/1");
    world.rejects("x", 5);
    assert_eq!(world.during(20_000), ["bad"]);
    assert_eq!((world.told, world.again), (vec![false], vec![false]));
    // Who was there knows.
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(0, 1)]);
    assert_eq!(world.during(1000), ["0/1"]);
    world.rejects("x", 5);
    assert_eq!(world.during(20_000), ["bad"]);
    assert_eq!((&world.told, &world.again), (&vec![false], &vec![true]));
    // What it knew is for as long as it acts there.
    world.gateways(&[]);
    assert_eq!(world.during(20_000), ["0/0"]);
    for acting in [false, true] {
        world.acting = acting;
        world.epoch += 1;
        world.poll();
    }
    world.rejects("x", 5);
    assert_eq!(world.during(20_000), ["bad"]);
    assert_eq!(world.again, [true, false]);
}

#[test]
fn what_is_under_way_is_planned_once_until_its_progress_is_due() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    let plans = |world: &World| world.reporter.planner.plans.replace(0);
    world.poll();
    assert_eq!(plans(&world), 1);
    for applied in 1..4 {
        world.gateways(&[(5, applied), (0, 6 - applied)]);
        assert!(world.after(200).is_empty());
        assert_eq!(plans(&world), 0, "{applied} of 6 have it");
        assert_eq!(
            world.reporter.next_deadline(),
            Some(world.now + Duration::from_millis(800 - 200 * u64::from(applied)))
        );
    }
    assert_eq!(world.after(200), ["3/6"]);
    world.gateways(&[(5, 6)]);
    assert_eq!(world.after(500), ["6/6"]);
    assert_eq!(plans(&world), 2);
}

#[test]
fn what_a_later_owner_writes_is_read_although_the_object_is_under_way() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 1), (0, 1)]);
    world.poll();
    world.reporter.planner.plans.set(0);
    world.fleet.state("x", 6, "9/9");
    let object = world.fleet.objects.values_mut().next().unwrap();
    object.revision = Revision(6);
    world.after(10);
    assert_eq!(world.reporter.planner.plans.get(), 1);
}

#[test]
fn what_the_owner_before_wrote_last_is_corrected_although_it_comes_late() {
    let mut world = World::new();
    world.acting = false;
    world.fleet.put("x", 5);
    world.gateways(&[(5, 3)]);
    world.fleet.state("x", 6, "3/3");
    world.after(5000);
    world.acting = true;
    world.epoch = 2;
    assert!(world.after(10).is_empty(), "it is right");
    assert_eq!(world.reporter.pending(), 0);
    world.fleet.state("x", 7, "1/1");
    assert_eq!(world.after(10), ["3/3"]);
    world.fleet.state("x", 8, "3/3");
    assert!(world.after(700).is_empty(), "our own, coming back");
    assert_eq!(world.reporter.pending(), 0);
}

#[test]
fn only_the_acting_replica_writes_and_gains_are_looked_at() {
    let mut world = World::new();
    world.acting = false;
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    assert!(world.after(5000).is_empty());
    world.acting = true;
    world.epoch = 2;
    assert_eq!(world.after(10), ["2/2"]);
    world.acting = false;
    world.epoch = 3;
    world.gateways(&[(5, 3)]);
    assert!(world.after(5000).is_empty());
}

#[test]
fn gateways_that_come_and_go_cost_a_bounded_rate() {
    let slow = ReportConfig { refresh_every: Duration::from_millis(100), ..ReportConfig::default() };
    let mut world = World::with(slow);
    for n in 0..50 {
        world.fleet.put(&format!("x{n}"), 5);
    }
    world.gateways(&[(5, 2)]);
    let mut written = 0;
    for _ in 0..100 {
        written += world.after(100).len();
    }
    assert_eq!(written, 50);
    world.gateways(&[(5, 3)]);
    written = world.after(1000).len();
    assert_eq!(written, 0, "counts settle first");
    for _ in 0..40 {
        written += world.after(100).len();
    }
    assert!((10..=30).contains(&written), "{written} patches in 4 s");
    for _ in 0..60 {
        written += world.after(100).len();
    }
    assert_eq!(written, 50);
}

#[test]
fn an_answer_about_the_content_before_is_not_the_last_word_about_this_one() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    let first = world.reporter.poll(&world.fleet, &round(&world.applied, world.now));
    assert_eq!(first.len(), 1);
    // The next change is seen before the answer comes.
    world.fleet.put("x", 7);
    world.reporter.poll(&world.fleet, &round(&world.applied, world.now));
    world.reporter.written(world.now, first[0].kind, &first[0].key, PatchOutcome::Written);
    assert!(world.reporter.pending.values().all(|pending| !pending.said));
}

#[test]
fn a_gateway_that_takes_long_to_catch_up_costs_a_bounded_rate() {
    let slow = ReportConfig { refresh_every: Duration::from_millis(100), ..ReportConfig::default() };
    let mut world = World::with(slow);
    for n in 0..50 {
        world.fleet.put(&format!("x{n}"), 5);
    }
    world.gateways(&[(5, 2)]);
    assert_eq!(world.during(10_000).len(), 50);
    world.gateways(&[(5, 2), (0, 1)]);
    let joining = world.by_second(12);
    assert_eq!(joining.iter().sum::<usize>(), 50, "each object is 2/3 once: {joining:?}");
    world.gateways(&[(5, 3)]);
    let joined = world.by_second(12);
    assert_eq!(joined.iter().sum::<usize>(), 50, "each object is 3/3 once: {joined:?}");
    assert!(joining.iter().chain(&joined).all(|second| *second <= 16), "{joining:?} {joined:?}");
}

#[test]
fn members_share_the_rate_of_refreshes() {
    let mut world = World::new();
    let now = world.now;
    world.applied.members(now, &["a".into(), "b".into(), "c".into(), "d".into()]);
    world.fleet.put("x", 5);
    for n in 0..50 {
        world.fleet.put(&format!("x{n}"), 5);
    }
    world.gateways(&[(5, 2)]);
    world.during(20_000);
    world.gateways(&[(5, 3)]);
    world.after(3000);
    let written = world.during(6000).len();
    assert!((10..=20).contains(&written), "{written} patches of this member in 6 s");
}

#[test]
fn a_missing_table_delays_statuses_but_not_for_ever() {
    let mut world = World::new();
    let now = world.now;
    world.applied.members(now, &["a".into(), "b".into()]);
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    assert!(world.after(1000).is_empty());
    assert_eq!(world.after(6000), ["2/2"]);
}

/// Of one that acts everywhere.
fn round(applied: &AppliedView, now: Mono) -> Round<'_> {
    Round { now, wall: "", acting: 1, epoch: Epoch(1), applied, may_act: &|_| true }
}

#[test]
fn a_failed_patch_is_tried_again_later() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    let first = world.reporter.poll(&world.fleet, &round(&world.applied, world.now));
    assert_eq!(first.len(), 1);
    let failed = PatchOutcome::Failed(Duration::from_secs(5));
    world.reporter.written(world.now, first[0].kind, &first[0].key, failed);
    assert!(
        world
            .reporter
            .poll(&world.fleet, &round(&world.applied, world.now + Duration::from_secs(4)))
            .is_empty()
    );
    assert_eq!(
        world.reporter.poll(&world.fleet, &round(&world.applied, world.now + Duration::from_secs(5))),
        first
    );
}

#[test]
fn patches_that_were_given_up_are_made_again() {
    let mut world = World::new();
    for n in 0..20 {
        world.fleet.put(&format!("x{n}"), 5);
    }
    world.gateways(&[(5, 2)]);
    let first = world.reporter.poll(&world.fleet, &round(&world.applied, world.now));
    assert_eq!(first.len(), 8, "the concurrency");
    assert!(world.reporter.poll(&world.fleet, &round(&world.applied, world.now)).is_empty());
    world.reporter.abandoned(world.now);
    let second =
        world.reporter.poll(&world.fleet, &round(&world.applied, world.now + Duration::from_secs(1)));
    assert_eq!(second.len(), 8);
    assert!(second.iter().all(|patch| !first.contains(patch)), "everybody has a turn");
    world.reporter.abandoned(world.now);
    world.now = world.now + Duration::from_secs(1);
    let mut written = 0;
    for _ in 0..20 {
        written += world.after(100).len();
    }
    assert_eq!(written, 20);
}

#[test]
fn conflicts_while_the_watch_lags_become_rare() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    let mut tries = 0;
    for tick in 0..1000 {
        let now = world.now + Duration::from_millis(tick * 10);
        for patch in world.reporter.poll(&world.fleet, &round(&world.applied, now)) {
            tries += 1;
            world.reporter.written(now, patch.kind, &patch.key, PatchOutcome::Conflict);
        }
    }
    assert!((5..=10).contains(&tries), "{tries} in 10 s");
}

#[test]
fn counts_are_refreshed_although_a_gateway_never_stops_coming_and_going() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    assert_eq!(world.poll(), ["2/2"]);
    let mut written = Vec::new();
    for second in 0..60 {
        world.gateways(&[(5, 3 + second % 2)]);
        written.extend(world.after(1000));
    }
    assert!((1..=6).contains(&written.len()), "{written:?}");
}

#[test]
fn a_gateway_that_drops_what_it_had_is_noticed() {
    let mut world = World::new();
    world.fleet.put("x", 5);
    world.gateways(&[(5, 2)]);
    assert_eq!(world.poll(), ["2/2"]);
    let mut rows = vec![World::row(5, 1), World::row(5, 1)];
    rows[1].excluded = vec![(Kind::Backend, 1)];
    world.applied.set(&"a".into(), AppliedTable { rows, rejections: Vec::new() });
    let written: Vec<String> = (0..8).flat_map(|_| world.after(1000)).collect();
    assert_eq!(written.first().map(String::as_str), Some("1/2"));
}

#[test]
fn five_hundred_counts_are_right_after_fifty_seconds_and_the_longest_waiting_come_first() {
    let mut world = World::new();
    for n in 0..500 {
        world.fleet.put(&format!("x{n:03}"), 5);
    }
    world.gateways(&[(5, 2)]);
    assert_eq!(world.during(20_000).len(), 500);
    // Half way through, another gateway comes: whoever has not had a turn yet
    // has it before those that had one.
    world.gateways(&[(5, 3)]);
    let half = world.during(28_000).len();
    assert!((200..=300).contains(&half), "{half} in 25 s after 3 s of quiet");
    world.gateways(&[(5, 4)]);
    world.during(28_000);
    let stale = world.fleet.objects.values().filter(|object| object.status == "2/2").count();
    assert_eq!(stale, 0, "some were never refreshed");
    world.during(35_000);
    assert!(world.fleet.objects.values().all(|object| object.status == "4/4"));
}

#[test]
fn an_object_is_planned_again_only_when_something_changed() {
    let mut world = World::new();
    for n in 0..100 {
        world.fleet.put(&format!("x{n}"), 5);
    }
    world.poll();
    world.fleet.asked.set(0);
    for _ in 0..50 {
        world.after(10);
    }
    assert_eq!(world.fleet.asked.get(), 0, "neither an object nor a table changed");
    world.fleet.put("x7", 6);
    world.after(10);
    assert_eq!(world.fleet.asked.get(), 1, "one object changed");
    world.gateways(&[(5, 1), (0, 1)]);
    world.after(10);
    assert_eq!(world.fleet.asked.get(), 101, "the table changed");
}

#[test]
fn a_round_plans_a_bounded_number_and_everybody_has_a_turn() {
    let mut world = World::new();
    for n in 0..2500 {
        world.fleet.put(&format!("x{n}"), 5);
    }
    world.fleet.asked.set(0);
    let mut rounds = 0;
    while world.fleet.asked.get() < 2500 {
        let before = world.fleet.asked.get();
        world.poll();
        assert!(world.fleet.asked.get() - before <= PLANS);
        rounds += 1;
        assert!(rounds <= 3, "some were planned twice before others were planned once");
    }
}

#[test]
fn a_cold_start_writes_nothing_when_all_gateways_come_back() {
    for away in [0, 900, 5_000, 31_000] {
        let mut world = World::cold(100);
        let mut written = world.during(away);
        for (back, low) in [(1, 0), (2, 0), (2, 5)] {
            world.gateways(&[(low, back)]);
            written.extend(world.during(900));
        }
        written.extend(world.during(60_000));
        assert_eq!(written, Vec::<String>::new(), "they are back after {away} ms");
        assert_eq!(world.reporter.pending(), 0);
    }
}

#[test]
fn what_is_listed_and_owned_late_in_a_cold_start_is_left_alone_too() {
    let mut world = World::cold(10);
    let (objects, frontier) = (std::mem::take(&mut world.fleet.objects), world.fleet.frontier);
    world.fleet.frontier = Frontier::default();
    assert!(world.during(1_000).is_empty());
    (world.fleet.objects, world.fleet.frontier) = (objects, frontier);
    assert!(world.during(1_000).is_empty(), "the list came late");
    world.epoch = 2;
    assert!(world.during(1_000).is_empty(), "and then the map");
    world.gateways(&[(5, 2)]);
    assert!(world.during(60_000).is_empty());
}

#[test]
fn what_another_kind_that_is_listed_late_changes_is_left_alone_too() {
    let mut world = World::cold(10);
    assert!(world.during(1_000).is_empty());
    let mut depend = |revision| {
        world.fleet.depends = Some((Kind::GrpcBackend, Revision(revision)));
        world.fleet.frontier.advance(Kind::GrpcBackend, Revision(revision));
        world.during(1_000).len()
    };
    assert_eq!(depend(5), 0, "they were news as of the list");
    assert_eq!(depend(6), 10, "and now something came or went");
}

#[test]
fn after_a_cold_start_it_is_said_that_no_gateway_came_back() {
    let mut world = World::cold(100);
    assert!(world.during(34_000).is_empty());
    assert_eq!(world.during(12_000), vec!["0/0"; 100]);
    world.gateways(&[(5, 1)]);
    assert_eq!(world.during(14_000).len(), 100, "and that one did after all");
}

#[test]
fn after_a_cold_start_it_is_said_what_gateways_lack() {
    let mut world = World::cold(1);
    world.gateways(&[(0, 2)]);
    assert!(world.during(3_000).is_empty(), "they may be catching up");
    assert_eq!(world.during(3_000), ["0/2"]);
    world.gateways(&[(5, 2)]);
    assert_eq!(world.during(3_000), ["2/2"]);
}

#[test]
fn a_cold_start_does_not_delay_what_changed_or_was_never_said() {
    let mut world = World::cold(1);
    world.fleet.put("new", 6);
    assert_eq!(world.poll(), ["0/0"]);
    assert!(world.during(1_000).is_empty());
    world.fleet.put("x0", 7);
    assert_eq!(world.after(100), ["0/0"], "another content, of which nothing was said");
}

#[test]
fn a_namespace_that_is_taken_over_has_the_word_of_its_owner_before() {
    let mut world = World::new();
    world.acting = false;
    world.fleet.put("x", 5);
    world.fleet.objects.values_mut().for_each(|object| object.status = Bytes::from("2/2"));
    world.during(5_000);
    // Its gateways are on their way to other replicas.
    world.gateways(&[(5, 1)]);
    (world.acting, world.epoch) = (true, 2);
    assert!(world.during(2_000).is_empty());
    world.gateways(&[(5, 2)]);
    assert!(world.during(20_000).is_empty(), "it was true all the time");
    (world.acting, world.epoch) = (true, 3);
    world.gateways(&[(5, 1)]);
    assert_eq!(world.during(6_000), ["1/1"], "one stays away");
}
