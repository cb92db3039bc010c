//! Everything at once: several replicas read one log at their own pace, cut
//! watches, list anew and restart; gateways hop between them, restart, lose
//! acknowledgements and reject resources. When the changes stop, everything
//! must be equal, and on the way nothing may go back or get lost.
//!
//! `FLOTILLA_SIM_SEED=n` replays one seed with its story,
//! `FLOTILLA_SIM_SEEDS=n` tries so many instead of 60.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{
    Ack, AckVerdict, Action, Batch, Connect, Delivery, DeliveryConfig, EndReason, Notice, Scope, Unlimited,
};
use flotilla_core::ids::{GatewayId, Kind, ObjectKey, Revision, SessionId};
use flotilla_core::time::Mono;

use super::bench::{config, gateway_id};
use super::gateway::{Answer, Gateway, POISON, UNDECODABLE};
use super::log::{Event, Log, TestCompiler};

/// Seeds that once found something.
const FOUND: [u64; 14] = [74, 143, 249, 255, 276, 395, 411, 480, 539, 604, 642, 1111, 1123, 1387];
const STEPS: usize = 600;
const NAMESPACES: u64 = 5;
const NAMES: u64 = 6;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a family of seeds is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    /// Nothing is rejected and every snapshot fits: nothing may ever get lost.
    Sound,
    /// Gateways reject some resources.
    Rejecting,
    /// Small messages, small batches, few tombstones.
    Cramped,
    /// Gateways whose version tells nothing.
    Foreign,
    /// Objects claim what others have, and whoever owns them writes it into their
    /// statuses at once.
    Contested,
}

struct Replica {
    delivery: Delivery<TestCompiler>,
    /// Per kind: how many of the log's events it has seen; `None`: it has not
    /// listed yet.
    seen: [Option<usize>; Kind::COUNT],
    /// Questions for history not answered yet.
    asked: Vec<(Kind, Revision)>,
}

struct Client {
    name: GatewayId,
    scope: Scope,
    model: Gateway,
    stream: Option<Stream>,
    heartbeat_due: Mono,
}

struct Stream {
    replica: usize,
    session: SessionId,
    inbox: VecDeque<(Arc<Batch>, usize, i64)>,
    /// Acknowledgements on their way.
    outbox: VecDeque<Ack>,
    last_sequence: i64,
}

struct World {
    dice: Dice,
    profile: Profile,
    now: Mono,
    log: Log,
    replicas: Vec<Replica>,
    clients: Vec<Client>,
    sessions: u64,
    tell: bool,
    calm: bool,
    /// Sessions that their replica ended.
    ended: BTreeSet<SessionId>,
    violations: Vec<String>,
    bad_seen: u64,
}

impl World {
    fn new(seed: u64, profile: Profile, tell: bool) -> Self {
        let mut world = World {
            dice: Dice(seed.wrapping_mul(31).wrapping_add(profile as u64)),
            profile,
            now: Mono::from_origin(Duration::from_secs(1_000)),
            log: Log { revision: 1_000, ..Log::default() },
            replicas: Vec::new(),
            clients: Vec::new(),
            sessions: 0,
            tell,
            calm: false,
            ended: BTreeSet::new(),
            violations: Vec::new(),
            bad_seen: 0,
        };
        for _ in 0..20 {
            world.change();
        }
        for _ in 0..3 {
            let replica = world.fresh_replica();
            world.replicas.push(replica);
        }
        for n in 0..5 {
            let scope = match n {
                3 => Scope { namespaces: ["n0".into(), "n1".into()].into(), ..Scope::default() },
                4 => Scope { kinds: [Kind::ApiRoute, Kind::Backend].into(), ..Scope::default() },
                _ => Scope::default(),
            };
            let mut model = Gateway::default();
            model.mute = n == 2;
            world.clients.push(Client {
                name: gateway_id(&format!("g{n}")),
                scope,
                model,
                stream: None,
                heartbeat_due: world.now,
            });
        }
        world
    }

    fn config(&self) -> DeliveryConfig {
        let base = DeliveryConfig { ack_timeout: Duration::from_secs(10), ..config() };
        match self.profile {
            Profile::Cramped => DeliveryConfig {
                message_limit: 6_000,
                batch_updates: 4,
                batch_bytes: 5_000,
                tombstones: 5,
                concurrent_full_syncs: 2,
                ..base
            },
            _ => base,
        }
    }

    fn fresh_replica(&self) -> Replica {
        let delivery = Delivery::new(self.config(), TestCompiler);
        Replica { delivery, seen: [None; Kind::COUNT], asked: Vec::new() }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.tell {
            println!("{:>9.3} {}", self.now.since(Mono::default()).as_secs_f64(), what());
        }
    }

    fn some_key(&mut self) -> (Kind, ObjectKey) {
        let kind = match self.dice.below(8) {
            0..=3 => Kind::ApiRoute,
            4 => Kind::GrpcRoute,
            5 | 6 => Kind::Backend,
            _ => Kind::GrpcBackend,
        };
        let namespace = format!("n{}", self.dice.below(NAMESPACES));
        (kind, ObjectKey::new(namespace, format!("o{}", self.dice.below(NAMES))))
    }

    /// A user or our own status writer does something.
    fn change(&mut self) {
        self.edit();
        if self.profile == Profile::Contested {
            self.log.settle();
        }
    }

    fn edit(&mut self) {
        let (kind, key) = self.some_key();
        let live = self.log.live.get(&(kind, key.clone())).map(|object| object.deleting);
        match (live, self.dice.below(10)) {
            (Some(true), _) => {
                self.say(|| format!("{kind} {key} is gone"));
                self.log.delete(kind, &key);
            }
            (Some(false), 0) => {
                self.log.mark_deleting(kind, &key);
            }
            (Some(false), 1 | 2) => {
                self.say(|| format!("{kind} {key} is deleted"));
                self.log.delete(kind, &key);
            }
            (Some(false), 3 | 4) => {
                self.log.status(kind, &key, "{}");
            }
            _ => {
                let spec = self.spec(kind);
                let object = self.log.put(kind, &key, &spec);
                self.say(|| format!("{kind} {key} {} = {spec:.40} at {}", object.uid, object.revision));
            }
        }
    }

    fn spec(&mut self, kind: Kind) -> String {
        let mut spec = format!("v{}", self.dice.roll() % 1_000);
        if kind.is_route() && self.dice.one_in(2) {
            spec += &format!(" to=o{}", self.dice.below(NAMES));
        }
        if self.profile == Profile::Contested {
            for _ in 0..self.dice.below(3) {
                spec += &format!(" takes={}", self.dice.below(4));
            }
        }
        if self.dice.one_in(12) {
            spec += " invalid";
        } else if self.profile == Profile::Rejecting && self.bad_seen < 25 && self.dice.one_in(10) {
            self.bad_seen += 1;
            spec += if self.dice.one_in(2) { " poison" } else { " undecodable" };
        }
        if self.dice.one_in(3) {
            spec += &" filler".repeat(self.dice.below(60) as usize);
        }
        spec
    }

    /// A replica's watch of one kind brings some events, or its list.
    fn watch(&mut self, index: usize, kind: Kind, all: bool) {
        let replica = &mut self.replicas[index];
        let events = &self.log.events[kind.index()];
        let Some(seen) = replica.seen[kind.index()] else {
            // A list at any time from the kind's last event on.
            let at = Revision(self.log.revision);
            replica.delivery.listed(kind, at, self.log.list(kind, at));
            replica.seen[kind.index()] = Some(events.len());
            return;
        };
        let missing = events.len() - seen;
        let take = if all { missing } else { self.dice.below(missing as u64 + 1) as usize };
        for event in &events[seen..seen + take] {
            match event {
                Event::Changed(object) => replica.delivery.changed(object.clone()),
                Event::Deleted(kind, key, revision) => replica.delivery.deleted(*kind, key, *revision),
            }
        }
        replica.seen[kind.index()] = Some(seen + take);
        if take == missing && (all || self.dice.one_in(3)) {
            replica.delivery.bookmark(kind, Revision(self.log.revision));
        }
    }

    /// A cut watch that lists anew, or an old cache that answers.
    fn relist(&mut self, index: usize, kind: Kind) {
        let replica = &mut self.replicas[index];
        let stale = self.dice.one_in(2);
        let now = self.log.revision;
        let at = if stale { Revision(now - self.dice.below(now.min(40))) } else { Revision(now) };
        replica.delivery.listed(kind, at, self.log.list(kind, at));
        let known = replica.delivery.frontier().get(kind);
        let seen = self.log.events[kind.index()].iter().take_while(|event| event.revision() <= known).count();
        if replica.seen[kind.index()].is_some() || at == known {
            replica.seen[kind.index()] = Some(seen);
        }
    }

    fn poll(&mut self, index: usize) {
        let now = self.now;
        for action in self.replicas[index].delivery.poll(now, &mut Unlimited) {
            match action {
                Action::Send { session, batch, first_sequence } => {
                    self.deliver(index, &session, batch, first_sequence);
                }
                Action::End { session, reason } => {
                    self.say(|| format!("r{index} ends {session}: {reason:?}"));
                    if self.calm && matches!(reason, EndReason::AckTimeout | EndReason::Superseded) {
                        self.violations.push(format!("{session} was ended in the calm: {reason:?}"));
                    }
                    self.ended.insert(session.clone());
                    for client in &mut self.clients {
                        if client.stream.as_ref().is_some_and(|stream| stream.session == session) {
                            client.stream = None;
                        }
                    }
                }
                Action::NeedHistory { kind, since } => self.replicas[index].asked.push((kind, since)),
                Action::Notice(notice) => {
                    let quiet = matches!(notice, Notice::Applied { .. });
                    if !quiet {
                        self.say(|| format!("r{index} notices {notice:?}"));
                    }
                }
            }
        }
    }

    fn deliver(&mut self, index: usize, session: &SessionId, batch: Arc<Batch>, first: i64) {
        let limit = self.config().message_limit;
        if self.ended.contains(session) {
            self.violations.push(format!("{session} was sent to after its end"));
        }
        let mut streams = self.clients.iter_mut().filter_map(|client| client.stream.as_mut());
        // A gateway may have left without the replica knowing it yet.
        let Some(stream) = streams.find(|s| s.replica == index && s.session == *session) else { return };
        if first <= stream.last_sequence {
            self.violations.push(format!("{session}: sequence {first} after {}", stream.last_sequence));
        }
        stream.last_sequence = first + batch.updates.len() as i64 - 1;
        let waited_for = |(b, _, _): &(Arc<Batch>, usize, i64)| {
            b.updates.iter().any(|u| !matches!(u.change, flotilla_core::delivery::Change::Heartbeat))
        };
        if stream.inbox.iter().any(waited_for) {
            self.violations.push(format!("{session} has two batches in flight"));
        }
        for update in &batch.updates {
            use flotilla_core::delivery::Change::{FullSync, Upsert};
            let bytes: usize = match &update.change {
                Upsert { resource, .. } => resource.spec_json.len() + 20,
                FullSync(snapshot) => snapshot.resources.iter().map(|r| r.spec_json.len() + 40).sum(),
                _ => 0,
            };
            if bytes as u64 > limit {
                self.violations.push(format!("a message of {bytes} bytes"));
            }
        }
        stream.inbox.push_back((batch, 0, first));
    }

    fn connect(&mut self, client: usize) {
        let replica = self.dice.below(self.replicas.len() as u64) as usize;
        self.connect_to(client, replica);
    }

    fn connect_to(&mut self, client: usize, replica: usize) {
        let now = self.now;
        self.disconnect(client);
        self.sessions += 1;
        let session: SessionId = format!("r{replica}/{}", self.sessions).into();
        let known = self.dice.one_in(2);
        let client = &mut self.clients[client];
        client.model.registers(now);
        client.stream = Some(Stream {
            replica,
            session: session.clone(),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            last_sequence: 0,
        });
        client.heartbeat_due = now + Duration::from_secs(30);
        let delivery = &mut self.replicas[replica].delivery;
        delivery.registered(now, session.clone(), client.name.clone());
        let connect = Connect {
            session,
            gateway: client.name.clone(),
            scope: client.scope.clone(),
            last_version: client.model.version.clone(),
            registered: known.then_some(now),
        };
        let told = format!("{} connects to r{replica} with {:?}", client.name, connect.last_version);
        delivery.connected(now, connect);
        self.say(|| told);
    }

    fn disconnect(&mut self, client: usize) {
        if let Some(stream) = self.clients[client].stream.take()
            && self.dice.one_in(2)
        {
            // Otherwise the replica has not noticed yet.
            self.replicas[stream.replica].delivery.disconnected(self.now, &stream.session);
        }
    }

    /// The gateway takes one message from its stream.
    fn take(&mut self, index: usize) {
        let now = self.now;
        let apply_duration = Duration::from_micros(self.dice.below(3_000));
        let tell = self.tell;
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return };
        let Some((batch, position, first)) = stream.inbox.front_mut() else { return };
        let update = &batch.updates[*position];
        let answer = client.model.takes(now, update, *first + *position as i64);
        if tell {
            let word = &super::bench::words(batch)[*position];
            let version = &update.version;
            println!(
                "          {} takes {word:.200} {version} #{}: {answer:?}",
                client.name,
                *first + *position as i64
            );
        }
        let result = match &answer {
            Answer::Skipped => None,
            Answer::Acked => Some(Ok(())),
            Answer::IgnoredByGuard => {
                self.violations.push(format!("a guard of {} ignored a snapshot", client.name));
                Some(Ok(()))
            }
            Answer::Nacked(words) => Some(Err(words.clone())),
        };
        if let Some(result) = result {
            stream.outbox.push_back(Ack {
                session: stream.session.clone(),
                gateway: client.name.clone(),
                version: update.version.to_string(),
                result,
                apply_duration,
            });
        } else {
            self.violations.push(format!("{} skipped {}", client.name, update.version));
        }
        *position += 1;
        if *position == batch.updates.len() {
            stream.inbox.pop_front();
        }
        self.judge_removals(index);
    }

    /// I4: what left was to leave.
    fn judge_removals(&mut self, index: usize) {
        let client = &mut self.clients[index];
        for (gone, by_snapshot) in std::mem::take(&mut client.model.removed) {
            // What a gateway rejects may have to be removed, and what it cannot
            // decode vanishes with a snapshot, but nothing else does; only one
            // that does not say what it rejects has to be searched. A
            // configuration larger than a message replaces unknown holdings in
            // parts; and foreign holdings are to be replaced.
            let excused = match self.profile {
                Profile::Sound | Profile::Contested => false,
                Profile::Rejecting if client.model.mute => by_snapshot || client.model.nacks > 0,
                Profile::Rejecting => self.log.became_bad(gone.kind, &gone.key, &gone.uid, gone.generation),
                Profile::Cramped | Profile::Foreign => by_snapshot,
            };
            if !excused && !self.log.was_removed(gone.kind, &gone.key, &gone.uid, gone.generation) {
                self.violations.push(format!("{} lost {} {}", client.name, gone.kind, gone.key));
            }
        }
        for violation in std::mem::take(&mut client.model.violations) {
            self.violations.push(format!("{} at {:?}: {violation}", client.name, self.now));
        }
    }

    /// One acknowledgement arrives, or gets lost.
    fn acknowledge(&mut self, index: usize, may_lose: bool) {
        let lost = may_lose && self.dice.one_in(12);
        let Some(stream) = &mut self.clients[index].stream else { return };
        let (Some(ack), replica) = (stream.outbox.pop_front(), stream.replica) else { return };
        if lost && ack.result.is_ok() {
            return;
        }
        let (session, version) = (ack.session.clone(), ack.version.clone());
        let verdict = self.replicas[replica].delivery.acknowledged(self.now, ack);
        if verdict == AckVerdict::UnknownSession {
            self.say(|| format!("{session} is unknown when {version} is acknowledged"));
        }
    }

    fn heartbeat(&mut self, index: usize) {
        let now = self.now;
        let client = &mut self.clients[index];
        client.heartbeat_due = now + Duration::from_secs(20);
        let Some(stream) = &client.stream else { return };
        // Those on the way come first.
        if !stream.outbox.is_empty() {
            return;
        }
        let delivery = &mut self.replicas[stream.replica].delivery;
        delivery.heartbeat(now, &stream.session, &client.name, &client.model.version);
    }

    fn answer_history(&mut self, index: usize, sure: bool) {
        let asked = std::mem::take(&mut self.replicas[index].asked);
        for (kind, since) in asked {
            match self.dice.below(4) {
                0 if !sure => self.replicas[index].asked.push((kind, since)),
                1 => self.replicas[index].delivery.history_unavailable(kind, since),
                2 => {
                    let peer = (index + 1) % self.replicas.len();
                    let until = self.replicas[peer].delivery.frontier().get(kind);
                    let found = self.replicas[peer].delivery.store().tombstones(kind, since);
                    let delivery = &mut self.replicas[index].delivery;
                    match found {
                        Some(found) => delivery.history(kind, since, until, found),
                        None => delivery.history_unavailable(kind, since),
                    }
                }
                _ => {
                    let until = Revision(self.log.revision);
                    let found = self.log.deletions(kind, since, until);
                    self.replicas[index].delivery.history(kind, since, until, found);
                }
            }
        }
    }

    fn step(&mut self) {
        let replica = self.dice.below(self.replicas.len() as u64) as usize;
        let client = self.dice.below(self.clients.len() as u64) as usize;
        let kind = Kind::ALL[self.dice.below(4) as usize];
        match self.dice.below(100) {
            0..=14 => self.change(),
            15 => (0..40).for_each(|_| self.change()),
            16..=39 => self.watch(replica, kind, false),
            40..=41 => self.relist(replica, kind),
            42 => {
                self.say(|| format!("r{replica} restarts"));
                self.replicas[replica] = self.fresh_replica();
                for client in &mut self.clients {
                    if client.stream.as_ref().is_some_and(|stream| stream.replica == replica) {
                        client.stream = None;
                    }
                }
            }
            43..=46 => self.connect(client),
            47 => self.disconnect(client),
            48 => {
                self.disconnect(client);
                self.clients[client].model.restart();
                self.say(|| format!("g{client} restarts"));
            }
            49 => self.heartbeat(client),
            50..=52 => self.answer_history(replica, false),
            53 if self.profile == Profile::Foreign => {
                self.disconnect(client);
                self.clients[client].model.version = "1699887766".into();
            }
            53..=60 => {
                let millis = match self.dice.below(10) {
                    0 => 6_000,
                    1 => self.dice.below(40_000),
                    _ => self.dice.below(300),
                };
                self.now = self.now + Duration::from_millis(millis);
            }
            61..=74 => self.poll(replica),
            75..=88 => self.take(client),
            _ => self.acknowledge(client, true),
        }
    }

    /// The changes stop, everything works, time goes by.
    fn quiesce(&mut self) {
        self.say(|| "quiet from here".into());
        for index in 0..self.clients.len() {
            if self.clients[index].stream.is_none() || self.dice.one_in(2) {
                self.connect(index);
            }
        }
        self.calm = false;
        let until = self.now + Duration::from_secs(240);
        while self.now < until {
            for index in 0..self.replicas.len() {
                for kind in Kind::ALL {
                    self.watch(index, kind, true);
                }
                self.answer_history(index, true);
                self.poll(index);
            }
            for index in 0..self.clients.len() {
                if self.clients[index].stream.is_none() {
                    self.connect(index);
                }
                for _ in 0..600 {
                    self.take(index);
                    self.acknowledge(index, false);
                }
                if self.now >= self.clients[index].heartbeat_due {
                    self.heartbeat(index);
                }
            }
            self.calm = until.since(self.now) < Duration::from_secs(150);
            let heartbeats = self.clients.iter().map(|client| client.heartbeat_due);
            let deadlines = self.replicas.iter().filter_map(|replica| replica.delivery.next_deadline());
            let next = deadlines.chain(heartbeats).min().unwrap_or(until);
            self.now = next.clamp(self.now + Duration::from_millis(10), self.now + Duration::from_secs(5));
        }
    }

    fn check_end(&mut self) {
        for client in &self.clients {
            let mut expected = self.log.expected(&client.scope);
            let mut held: BTreeMap<_, _> =
                client.model.table.iter().map(|(key, r)| (key.clone(), r.spec_json.clone())).collect();
            let mut excluded = 0;
            expected.retain(|key, spec| {
                let text = String::from_utf8_lossy(spec);
                let bad = text.contains(POISON) || text.contains(UNDECODABLE);
                if bad {
                    excluded += 1;
                    let kept = held.remove(key);
                    let kept =
                        kept.map(|spec| String::from_utf8_lossy(&spec).into_owned()).unwrap_or_default();
                    if kept.contains(POISON) || kept.contains(UNDECODABLE) {
                        self.violations.push(format!("{} holds a bad {}", client.name, key.1));
                    }
                }
                !bad
            });
            if expected != held {
                let missing: Vec<_> = expected.iter().filter(|(k, v)| held.get(*k) != Some(*v)).collect();
                let extra: Vec<_> = held.iter().filter(|(k, _)| !expected.contains_key(*k)).collect();
                let story = format!("missing or old: {missing:.300?}\nextra: {extra:.300?}");
                self.violations.push(format!("{} differs: {story}", client.name));
            }
        }
        // Every replica agrees, and nothing is kept that nobody needs (I9).
        let digests: Vec<_> =
            self.replicas.iter().map(|replica| replica.delivery.digest(&Scope::default())).collect();
        if digests.iter().any(|digest| *digest != digests[0]) {
            self.violations.push("replicas differ".into());
        }
        for replica in &self.replicas {
            let footprint = replica.delivery.footprint();
            if footprint.ahead > 0 || footprint.batch_bytes > 0 {
                self.violations.push(format!("kept for nobody: {footprint:?}"));
            }
            for view in replica.delivery.sessions() {
                if view.low != Some(replica.delivery.frontier()) || view.in_flight > 0 {
                    self.violations.push(format!("not at rest: {view:?}"));
                }
            }
        }
    }
}

fn run(seed: u64, profile: Profile, tell: bool) -> Vec<String> {
    let mut world = World::new(seed, profile, tell);
    for _ in 0..STEPS {
        world.step();
        if !world.violations.is_empty() {
            return world.violations;
        }
    }
    world.quiesce();
    world.check_end();
    world.violations
}

fn run_all(profile: Profile) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("FLOTILLA_SIM_SEED") {
        assert_eq!(run(seed, profile, true), Vec::<String>::new(), "{profile:?} seed {seed}");
        return;
    }
    let seeds = 0..number("FLOTILLA_SIM_SEEDS").unwrap_or(60);
    for seed in seeds.chain(FOUND) {
        let violations = run(seed, profile, false);
        assert!(violations.is_empty(), "{profile:?} FLOTILLA_SIM_SEED={seed}: {}", violations.join("\n"));
    }
}

#[test]
fn sound_gateways_never_go_back_lose_nothing_and_end_equal() {
    run_all(Profile::Sound);
}

#[test]
fn gateways_that_reject_some_get_all_the_rest() {
    run_all(Profile::Rejecting);
}

#[test]
fn small_messages_and_few_tombstones_only_take_longer() {
    run_all(Profile::Cramped);
}

#[test]
fn of_what_is_contested_every_gateway_gets_the_oldest() {
    run_all(Profile::Contested);
}

#[test]
fn gateways_of_unknown_holdings_end_equal() {
    run_all(Profile::Foreign);
}
