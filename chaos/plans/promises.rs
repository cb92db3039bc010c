//! Judges a run by the promises, whatever its plan: what the API server held and what
//! gateways applied is put before the observer of the simulator, which shares no code with the
//! product.
//!
//! | promise | what is told, and what is judged |
//! |---|---|
//! | I2, I4, I5 | every content that a gateway took, and every removal: no step back, and nothing removed that was there all the time, whether anybody served the gateway or not |
//! | I6 | every published map, with the owners of many names that stand for namespaces |
//! | I7 | phases that no fault disturbs: when the last gateway had the last change |
//! | I9 | what the replicas say they keep at the end |
//!
//! I1 is judged by the statuses that were written ([`Tape::beside`](crate::tape::Tape::beside)),
//! I3 by the end of every phase. Nothing here asks a webhook, so of I8 there is left that the
//! oldest of those that claim the same wins.
//!
//! No two clocks are compared but those of processes of this machine, and what was written
//! counts as written when its phase began: a gateway cannot have it earlier, and what
//! comes to gateways before that phase is wrong, however late the harness hears of it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use flotilla_core::ids::Kind;
use flotilla_core::ring::Position;
use flotilla_core::shardmap::Ownership;
use flotilla_observer::{
    At, Bounds, Content, Event as Observed, KindId, Map, Memory, Names, ObjectId, Observer, Refused, Removal,
    Violation, Write,
};
use flotilla_testing::fleet::events::Event;
use flotilla_testing::fleet::shards;
use serde::Serialize;

use crate::history::{Heard, Written, number_of};
use crate::scenario::Phase;
use crate::tape::Change;

/// How many names stand for namespaces: enough that a map which moves some for no reason is
/// seen to do so.
const NAMESPACES: usize = 256;

/// How often each promise could be judged: one that never could proves nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Contents that gateways took (I2).
    pub contents: u64,
    /// Removals from gateways (I4, I5).
    pub removals: u64,
    /// Maps that were compared with the one before (I6).
    pub maps: u64,
    /// Changes times gateways, in phases without a fault (I7).
    pub reached: u64,
    /// Replicas that said what they keep (I9).
    pub memory: u64,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judged { contents, removals, maps, reached, memory } = self;
        write!(
            f,
            "{contents} contents that gateways took and {removals} removals (I2, I4, I5), {maps} maps (I6), \
             {reached} changes beside no fault (I7), {memory} replicas for what they keep (I9)"
        )
    }
}

impl AddAssign for Judged {
    fn add_assign(&mut self, other: Judged) {
        self.contents += other.contents;
        self.removals += other.removals;
        self.maps += other.maps;
        self.reached += other.reached;
        self.memory += other.memory;
    }
}

/// What was seen of a run from outside.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the API server held.
    pub heard: Heard,
    /// The phases of the scenario, and at last the fresh start.
    pub phases: Vec<Phase>,
    /// What gateways applied, by gateway in their order.
    pub events: Vec<Event>,
    /// What replicas keep at the end: objects, sessions, and statuses that are not final.
    pub kept: Vec<[u64; 3]>,
}

/// What breaks a promise, in words, and how much there was to judge.
pub fn judge(seen: &Seen) -> (Vec<String>, Judged) {
    // Nothing is told to the observer of what faults keep: no change counts as late for it,
    // see `late`.
    let bounds = Bounds { healthy: u64::MAX, ..Bounds::default() };
    let mut trial = Trial { observer: Observer::new(bounds), seen };
    let observed = trial.observe();
    let tally = trial.observer.tally();
    let mut broken: Vec<String> = observed.err().map(|violation| violation.to_string()).into_iter().collect();
    let (late, reached) = late(seen);
    broken.extend(late);
    let judged = Judged {
        contents: tally.held,
        removals: tally.removed,
        maps: tally.maps,
        reached,
        memory: tally.memory,
    };
    (broken, judged)
}

/// I7: what arrived later than it may in a phase without a fault, and how much was looked at.
fn late(seen: &Seen) -> (Vec<String>, u64) {
    let bound = Bounds::default().reach as f64 / 1e6;
    let mut judged = 0;
    let mut late = Vec::new();
    for phase in seen.phases.iter().filter(|phase| phase.calm) {
        let within = |event: &&Event| (phase.began_ms..phase.ended_ms).contains(&event.at_ms);
        for event in seen.events.iter().filter(within) {
            judged += 1;
            let took = event.at_ms - phase.began_ms;
            if took > bound {
                let Event { gateway, change, kind, key, .. } = event;
                late.push(format!(
                    "I7: {gateway} had {kind} {key} {change} {took:.0} ms after phase {} began, without a fault; {bound:.0} are allowed",
                    phase.name
                ));
            }
        }
    }
    (late, judged)
}

struct Trial<'a> {
    observer: Observer,
    seen: &'a Seen,
}

/// Something that was written or applied.
enum Moment<'a> {
    Written(&'a Written),
    Applied(&'a Event),
}

impl Trial<'_> {
    fn observe(&mut self) -> Result<(), Violation> {
        self.maps()?;
        let names = self.observer.names_mut();
        let fleet = names.instance("the fleet");
        let gateways: Vec<_> = self.seen.events.iter().map(|event| names.gateway(&event.gateway)).collect();
        for gateway in gateways {
            // That nobody serves it is no time in which it may lose anything either.
            let connected = Observed::Connected { gateway, instance: fleet, namespaces: &[], kinds: 0 };
            self.observer.see(At(0), &connected)?;
        }
        let seen = self.seen;
        // What the first phase finds was there before the first gateway.
        let began = |number: u32| match number {
            0 => f64::NEG_INFINITY,
            _ => seen.phases.get(number as usize).map_or(f64::MAX, |phase| phase.began_ms),
        };
        let mut written: Vec<&Written> = seen.heard.written.iter().collect();
        written.sort_by_key(|one| one.revision);
        let written = written.into_iter().map(|one| (began(one.phase), Moment::Written(one)));
        let applied = seen.events.iter().map(|event| (event.at_ms, Moment::Applied(event)));
        let mut moments: Vec<_> = written.chain(applied).collect();
        // Stable: what is written in a phase comes before what is applied in it.
        moments.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        let first = seen.phases.first().map_or(0.0, |phase| phase.began_ms);
        let mut at = At(0);
        for (time, moment) in moments {
            at = At::millis((time - first).max(0.0) as u64).max(at);
            match moment {
                Moment::Written(one) => self.written(at, one)?,
                Moment::Applied(event) => self.applied(at, event)?,
            }
        }
        for (number, [objects, sessions, queued]) in seen.kept.iter().copied().enumerate() {
            let instance = self.observer.names_mut().instance(&format!("replica {number}"));
            let (tombstones, queued_bytes) = (0, 0);
            let memory = Memory { instance, sessions, objects, tombstones, queued, queued_bytes };
            self.observer.see(at, &Observed::Memory(memory))?;
        }
        Ok(())
    }

    fn maps(&mut self) -> Result<(), Violation> {
        let probes: Vec<String> = (0..NAMESPACES).map(|number| format!("namespace-{number}")).collect();
        for probe in &probes {
            self.observer.names_mut().namespace(probe);
        }
        let mut numbers = BTreeMap::new();
        let mut number = |name: &str| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(name.to_owned()).or_insert(next)
        };
        for map in &self.seen.heard.maps {
            let by_name = shards::owners(map, &probes);
            let owners: Vec<u32> = probes.iter().map(|probe| number(&by_name[probe])).collect();
            let ownership = Ownership::new(map.clone());
            let home = |probe: &String| ownership.home_at(Position::of(probe)).map(ToString::to_string);
            let homes: Vec<u32> =
                probes.iter().map(|probe| number(&home(probe).unwrap_or_default())).collect();
            let members: Vec<u32> = map.eligible().iter().map(|member| number(&member.to_string())).collect();
            let seats: Vec<u32> = map.seats().iter().map(|seat| number(&seat.to_string())).collect();
            let (epoch, basis) = (map.epoch.0, None);
            let map = Map {
                epoch,
                members: &members,
                seats: &seats,
                owners: &owners,
                homes: &homes,
                pins: &[],
                basis,
            };
            self.observer.see(At(0), &Observed::MapPublished(map))?;
        }
        Ok(())
    }

    fn written(&mut self, at: At, one: &Written) -> Result<(), Violation> {
        let key = one.key.to_string();
        let object = object(self.observer.names_mut(), one.kind.name(), &key);
        if one.change == Change::Deleted {
            return self.observer.see(at, &Observed::Deleted { object, revision: one.revision });
        }
        let write = Write {
            object,
            // Only whether it is another one matters.
            uid: number_of(&one.uid),
            revision: one.revision,
            generation: u32::try_from(one.generation).unwrap_or(u32::MAX),
            content: content(object, one.generation),
            valid: one.valid,
            refused: Refused::Nowhere,
            references: &[],
            claim: one.claim,
            created: one.created,
        };
        self.observer.see(at, &Observed::Written(write))
    }

    fn applied(&mut self, at: At, event: &Event) -> Result<(), Violation> {
        let names = self.observer.names_mut();
        let gateway = names.gateway(&event.gateway);
        let object = object(names, &event.kind, &event.key);
        let content = content(object, event.generation);
        let told = match event.change.as_str() {
            "removed" => Observed::Dropped { gateway, object, by: Removal::Deletion },
            _ => Observed::Holds { gateway, object, content, resolved: 0 },
        };
        self.observer.see(at, &told)
    }
}

fn object(names: &mut Names, kind: &str, key: &str) -> ObjectId {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let namespace = names.namespace(namespace);
    // One that nobody has heard of is none of the others.
    let number = Kind::ALL.iter().position(|known| known.name() == kind).unwrap_or(Kind::COUNT);
    names.object(KindId(number as u8), kind, namespace, name)
}

/// What a spec is called: its last three digits are the generation. Gateways do not tell the
/// uid, so of an object that was made anew the same generation has the same name.
fn content(object: ObjectId, generation: i64) -> Content {
    let generation = u32::try_from(generation).unwrap_or(999).min(999);
    Content((object.0 + 1) * 1000 + generation)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flotilla_core::ids::Epoch;
    use flotilla_core::shardmap::{MapMember, PublishedMap, Share};

    use super::*;
    use crate::history::tests::{good, tell};

    /// A run of three phases of a second, in which a route is created, changed, and deleted.
    fn run() -> Seen {
        let mut seen = Seen::default();
        for (number, name) in (0..).zip(["create", "change", "delete"]) {
            let began_ms = 1000.0 * f64::from(number);
            let (name, ended_ms) = (name.to_owned(), began_ms + 1000.0);
            seen.phases.push(Phase { name, began_ms, ended_ms, calm: true });
        }
        let mut told = |phase: u32, change, revision, generation| {
            seen.heard.in_phase(phase);
            tell(&mut seen.heard, change, revision, ("u", generation), good());
        };
        told(0, Change::Added, 1, 1);
        told(1, Change::Modified, 2, 2);
        told(2, Change::Deleted, 3, 2);
        seen
    }

    fn event(at_ms: f64, change: &str, generation: i64) -> Event {
        Event {
            at_ms,
            gateway: "g".to_owned(),
            change: change.to_owned(),
            kind: "APIRoute".to_owned(),
            key: "a/x".to_owned(),
            generation,
        }
    }

    /// What the promises say of a run in which a gateway applied this.
    fn verdict(events: &[(f64, &str, i64)]) -> String {
        let events = events.iter().map(|(at, change, generation)| event(*at, change, *generation)).collect();
        judge(&Seen { events, ..run() }).0.join("; ")
    }

    #[test]
    fn what_goes_its_way_breaks_no_promise() {
        assert_eq!(verdict(&[(10.0, "added", 1), (1010.0, "modified", 2), (2010.0, "removed", 2)]), "");
        assert_eq!(verdict(&[(10.0, "added", 1), (2010.0, "removed", 1)]), "", "it may miss a state");
        let two =
            [(10.0, "added", 1), (1010.0, "modified", 2)].map(|(at, change, one)| event(at, change, one));
        let judged = judge(&Seen { events: two.into(), kept: vec![[1, 1, 0]], ..run() }).1;
        let expected = Judged { contents: 2, removals: 0, maps: 0, reached: 2, memory: 1 };
        assert_eq!(judged, expected);
    }

    #[test]
    fn a_gateway_that_goes_back_breaks_i2() {
        let back = verdict(&[(10.0, "added", 1), (1010.0, "modified", 2), (1020.0, "modified", 1)]);
        assert!(back.contains("I2: ") && back.contains("went back"), "{back}");
        let again = verdict(&[(1010.0, "added", 2), (2010.0, "removed", 2), (2020.0, "added", 2)]);
        assert!(again.contains("I2: "), "{again}");
    }

    #[test]
    fn a_removal_that_nobody_asked_for_breaks_i4_also_when_it_is_made_good() {
        let lost = verdict(&[(10.0, "added", 1), (500.0, "removed", 1), (600.0, "added", 1)]);
        assert!(lost.contains("I4: ") && lost.contains("was not to be removed"), "{lost}");
        // The deletion comes in the next phase.
        let early = verdict(&[(1010.0, "added", 2), (1990.0, "removed", 2)]);
        assert!(early.contains("I4: "), "{early}");
    }

    #[test]
    fn a_younger_route_with_the_same_match_is_not_to_be_had() {
        let mut seen = run();
        let mut younger = seen.heard.written[0].clone();
        (younger.key, younger.created) = (flotilla_core::ids::ObjectKey::new("a", "y"), 9);
        (younger.uid, younger.revision) = ("v".to_owned(), 4);
        seen.heard.written.insert(1, younger);
        let other = |at_ms| Event { key: "a/y".to_owned(), ..event(at_ms, "added", 1) };
        // The older one goes in the last phase.
        seen.events = vec![event(10.0, "added", 1), other(2010.0)];
        assert_eq!(judge(&seen).0, Vec::<String>::new());
        seen.events[1] = other(1010.0);
        let broken = judge(&seen).0.join("; ");
        assert!(broken.contains("content 2001 of APIRoute a/y, which none is to have"), "{broken}");
    }

    #[test]
    fn what_was_never_written_breaks_i3() {
        let strange = verdict(&[(10.0, "added", 7)]);
        assert!(strange.contains("I3: "), "{strange}");
        let early = verdict(&[(10.0, "added", 2)]);
        assert!(early.contains("I3: "), "{early}");
    }

    #[test]
    fn what_is_late_breaks_i7_where_no_fault_is_to_blame() {
        let mut seen = run();
        seen.phases[2].ended_ms = 60_000.0;
        seen.events = vec![event(1010.0, "added", 2), event(25_000.0, "removed", 2)];
        let (broken, judged) = judge(&seen);
        assert!(broken.len() == 1 && broken[0].starts_with("I7: g had APIRoute a/x removed"), "{broken:?}");
        assert_eq!(judged.reached, 2);
        seen.phases[2].calm = false;
        assert_eq!(judge(&seen).0, Vec::<String>::new());
    }

    fn map(epoch: u64, members: &[&str], virtual_nodes: u32) -> PublishedMap {
        let member = |name: &&str| MapMember {
            name: (*name).into(),
            instance: format!("{name}.1").as_str().into(),
            address: "".into(),
            share: Share::default(),
            drained: false,
        };
        PublishedMap {
            epoch: Epoch(epoch),
            leader: "a".into(),
            members: members.iter().map(member).collect(),
            pins: BTreeMap::new(),
            virtual_nodes,
            away: BTreeSet::new(),
            exceptions: BTreeMap::new(),
        }
    }

    #[test]
    fn a_map_that_moves_more_than_a_join_or_a_leave_breaks_i6() {
        let verdict = |maps: &[PublishedMap]| {
            let mut seen = run();
            seen.heard.maps = maps.to_vec();
            judge(&seen).0.join("; ")
        };
        let (one, two) = (["a"].as_slice(), ["a", "b"].as_slice());
        assert_eq!(verdict(&[map(1, one, 64), map(2, two, 64), map(3, one, 64)]), "");
        let moved = verdict(&[map(1, two, 64), map(2, two, 65)]);
        assert!(moved.contains("I6: ") && moved.contains("to seats that were there before"), "{moved}");
        assert!(verdict(&[map(2, two, 64), map(1, one, 64)]).contains("epoch 1 was published after epoch 2"));
    }

    #[test]
    fn keeping_more_than_there_is_breaks_i9() {
        let kept = |kept: [u64; 3]| {
            judge(&Seen { events: vec![event(10.0, "added", 1)], kept: vec![kept], ..run() }).0
        };
        assert_eq!(kept([1, 1, 0]), Vec::<String>::new());
        assert!(kept([2, 1, 0]).join("; ").contains("I9: replica 0 keeps 2 objects"));
        assert!(kept([1, 9, 0]).join("; ").contains("keeps 9 sessions"));
        assert!(kept([1, 1, 999]).join("; ").contains("keeps 999 items"));
    }
}
