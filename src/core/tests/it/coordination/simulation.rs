//! A deterministic world of replicas, an API server and a network. Everything
//! that happens follows from one seed.
//!
//! After every step of every replica it is checked that no two processes act on
//! one namespace. Writes that are on their way count as acting.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::backoff::Jitter;
use flotilla_core::coordination::{
    Acting, Action, BalanceConfig, CoordinationConfig, Coordinator, DrainTicket, Event, Identity, LeaseName,
    LeaseRecord, MapRecord, RequestError,
};
use flotilla_core::ids::{Epoch, Instance, MemberName};
use flotilla_core::placement::{LoadReport, Weight};
use flotilla_core::ring::Position;
use flotilla_core::time::Mono;

use super::server::{Change, Server};

pub const NAMESPACES: usize = 12;
const REQUEST_TIMEOUT: u64 = 1_500;

/// Identifies one process, for ever.
pub type Pid = usize;

#[derive(Debug, Clone)]
enum Answer {
    Lease(LeaseName, Result<Option<LeaseRecord>, RequestError>),
    Leases(Result<flotilla_core::coordination::LeaseList, RequestError>),
    MapRead { sent_at: Mono, answer: Result<Option<MapRecord>, RequestError> },
    MapWritten(Result<MapRecord, RequestError>),
}

#[derive(Debug, Clone)]
enum Occurrence {
    /// A timer of a replica.
    Timer(Pid),
    /// A request reaches the API server.
    Arrive {
        pid: Pid,
        request: u64,
        sent_at: Mono,
        action: Action,
    },
    /// Its answer reaches the replica.
    Answer {
        pid: Pid,
        request: u64,
        answer: Answer,
    },
    /// Nobody waits for it any more.
    Timeout {
        pid: Pid,
        request: u64,
        action: Action,
    },
    /// A watch shows a change; only if the watch is still the same.
    Watch {
        pid: Pid,
        watch: u64,
        change: Change,
    },
    /// A broken watch lists again; and what it lists.
    Relist {
        pid: Pid,
        watch: u64,
    },
    Peer {
        pid: Pid,
        event: PeerMessage,
    },
    Drained(Pid, DrainTicket),
    /// A replica wants to write something.
    Write(Pid),
    /// A replica measures what its namespaces weigh.
    Weigh(Pid),
    Start(usize),
    GiveUp(Pid),
}

#[derive(Debug, Clone)]
enum PeerMessage {
    Settled(Instance, Epoch),
    Departed(Instance),
    Hello(Epoch),
    Loads(MemberName, Arc<LoadReport>),
}

#[derive(Debug)]
pub struct Process {
    /// Which replica it is a process of.
    pub slot: usize,
    pub coordinator: Coordinator,
    pub alive: bool,
    pub stopping: bool,
    paused_until: u64,
    /// Cut off from the API server until then: requests, or only answers.
    cut_off_until: u64,
    deaf_until: u64,
    /// Answers come late until then.
    slow_until: u64,
    watch: u64,
    /// The watches of Leases and of the map are silent until then (and in
    /// order, always).
    watch_until: [u64; 2],
    timer: Option<u64>,
    requests: BTreeMap<u64, ()>,
    /// Namespace and end of each write on its way.
    writes: Vec<(usize, u64)>,
    covers: Covers,
}

/// What a process may act on, computed once per change.
#[derive(Debug, Default)]
struct Covers {
    key: (Epoch, bool, Option<Instance>),
    namespaces: [bool; NAMESPACES],
    until: Mono,
}

pub struct World {
    pub now: u64,
    pub random: Jitter,
    pub server: Server,
    pub processes: Vec<Process>,
    /// Network: one in so many messages is lost; zero: none.
    pub loss: u64,
    /// Longest ordinary delay of a message, in milliseconds.
    pub delay: u64,
    /// The API server answers nothing until then.
    pub outage_until: u64,
    /// Peer messages from the first to the second are lost until then.
    pub peers_cut_until: BTreeMap<(usize, usize), u64>,
    /// What each namespace weighs.
    pub weights: [Weight; NAMESPACES],
    config: CoordinationConfig,
    queue: BTreeMap<(u64, u64), Occurrence>,
    sequence: u64,
    /// What happened, if it is to be told.
    pub story: Option<String>,
}

pub fn namespace(index: usize) -> String {
    format!("team-{index:02}")
}

fn mono(milliseconds: u64) -> Mono {
    Mono::from_origin(Duration::from_millis(milliseconds))
}

fn milliseconds_up(time: Mono) -> u64 {
    time.0.div_ceil(1_000_000)
}

impl World {
    pub fn new(seed: u64, tell: bool) -> Self {
        let mut random = Jitter::seeded(seed);
        let revision = random.next_u64() % 1000;
        let weights = std::array::from_fn(|_| Weight::nearest(1 + random.next_u64() % 60));
        // Everything that has to do with balance happens within one run: also
        // that a place is given up, or is not kept at all.
        let seconds = |below: u64, random: &mut Jitter| Duration::from_secs(random.next_u64() % below);
        let balance = BalanceConfig {
            return_patience: seconds(8, &mut random),
            imbalance_patience: seconds(4, &mut random),
            interval: seconds(6, &mut random),
        };
        let config = CoordinationConfig { balance, ..CoordinationConfig::default() };
        World {
            now: 10_000,
            server: Server::new(revision),
            random,
            processes: Vec::new(),
            loss: 0,
            delay: 20,
            outage_until: 0,
            peers_cut_until: BTreeMap::new(),
            weights,
            config,
            queue: BTreeMap::new(),
            sequence: 0,
            story: tell.then(String::new),
        }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound.max(1)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.below(count) == 0
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            let _ = writeln!(story, "{:>9.3} {}", now as f64 / 1000.0, what());
        }
    }

    fn schedule(&mut self, at: u64, occurrence: Occurrence) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), occurrence);
    }

    /// How long a message takes: mostly little, sometimes long.
    fn latency(&mut self) -> u64 {
        let delay = self.delay;
        if self.loss > 0 && self.one_in(50) { self.below(6_000) } else { 1 + self.below(delay) }
    }

    pub fn live(&self) -> impl Iterator<Item = (Pid, &Process)> {
        self.processes.iter().enumerate().filter(|(_, process)| process.alive)
    }

    pub fn process_of(&self, slot: usize) -> Option<Pid> {
        self.live().find(|(_, process)| process.slot == slot).map(|(pid, _)| pid)
    }

    pub fn start(&mut self, slot: usize, after: u64) {
        self.schedule(self.now + after, Occurrence::Start(slot));
    }

    fn start_now(&mut self, slot: usize) {
        if self.process_of(slot).is_some() {
            return;
        }
        let pid = self.processes.len();
        let member = format!("r{slot}");
        let identity = Identity {
            member: member.as_str().into(),
            instance: format!("{member}/{pid}").into(),
            address: format!("{member}:7443").into(),
        };
        let seed = self.random.next_u64();
        let coordinator = Coordinator::new(self.config.clone(), identity, seed).unwrap();
        self.processes.push(Process {
            slot,
            coordinator,
            alive: true,
            stopping: false,
            paused_until: 0,
            cut_off_until: 0,
            deaf_until: 0,
            slow_until: 0,
            watch: 0,
            watch_until: [0, 0],
            timer: None,
            requests: BTreeMap::new(),
            writes: Vec::new(),
            covers: Covers::default(),
        });
        self.tell(|| format!("start {member}/{pid}"));
        self.break_watch(pid);
        self.schedule(self.now, Occurrence::Timer(pid));
        self.schedule(self.now, Occurrence::Write(pid));
        self.schedule(self.now, Occurrence::Weigh(pid));
    }

    pub fn crash(&mut self, pid: Pid) {
        self.tell(|| format!("crash p{pid}"));
        self.processes[pid].alive = false;
    }

    pub fn stop(&mut self, pid: Pid) {
        if !self.processes[pid].stopping {
            self.tell(|| format!("stop p{pid}"));
            self.processes[pid].stopping = true;
            self.schedule(self.now + 5_000, Occurrence::GiveUp(pid));
            self.step(pid, Event::Shutdown);
        }
    }

    pub fn pause(&mut self, pid: Pid, time: u64) {
        self.tell(|| format!("pause p{pid} for {time}"));
        self.processes[pid].paused_until = self.now + time;
    }

    pub fn cut_off(&mut self, pid: Pid, time: u64, answers_only: bool) {
        self.tell(|| format!("cut off p{pid} for {time}, answers only: {answers_only}"));
        let until = self.now + time;
        let process = &mut self.processes[pid];
        if answers_only { process.deaf_until = until } else { process.cut_off_until = until }
    }

    /// A process gets its answers just before it would give them up.
    pub fn slow_down(&mut self, pid: Pid, time: u64) {
        self.tell(|| format!("slow answers to p{pid} for {time}"));
        self.processes[pid].slow_until = self.now + time;
    }

    /// The watch of Leases (0) or of the map (1) of a process goes silent for
    /// `time`, without an error.
    pub fn stall_watch(&mut self, pid: Pid, lane: usize, time: u64) {
        self.tell(|| format!("stall watch {lane} of p{pid} for {time}"));
        let until = &mut self.processes[pid].watch_until[lane];
        *until = (*until).max(self.now + time);
    }

    pub fn break_watch(&mut self, pid: Pid) {
        self.processes[pid].watch += 1;
        let watch = self.processes[pid].watch;
        let after = self.latency();
        self.schedule(self.now + after, Occurrence::Relist { pid, watch });
    }

    /// The network works, nobody is paused, everyone runs.
    pub fn heal(&mut self, replicas: usize) {
        self.tell(|| "heal".to_owned());
        self.loss = 0;
        self.delay = 20;
        self.outage_until = 0;
        self.peers_cut_until.clear();
        for pid in 0..self.processes.len() {
            let process = &mut self.processes[pid];
            (process.cut_off_until, process.deaf_until, process.slow_until) = (0, 0, 0);
            process.watch_until = process.watch_until.map(|until| until.min(self.now + 3_000));
            process.paused_until = process.paused_until.min(self.now);
            if process.alive && !process.stopping {
                self.break_watch(pid);
            }
        }
        for slot in 0..replicas {
            self.start(slot, 0);
        }
    }

    /// Lets everything happen until `end`.
    pub fn run_until(&mut self, end: u64) {
        let mut at_once = 0;
        while let Some(entry) = self.queue.first_entry() {
            let (at, _) = *entry.key();
            if at > end {
                break;
            }
            let occurrence = entry.remove();
            at_once = if at == self.now { at_once + 1 } else { 0 };
            assert!(at_once < 10_000, "time stands still: {occurrence:?}");
            self.now = at;
            self.happen(occurrence);
            self.spread_changes();
        }
        self.now = end;
    }

    fn happen(&mut self, occurrence: Occurrence) {
        let addressee = match &occurrence {
            Occurrence::Timer(pid)
            | Occurrence::Answer { pid, .. }
            | Occurrence::Timeout { pid, .. }
            | Occurrence::Watch { pid, .. }
            | Occurrence::Peer { pid, .. }
            | Occurrence::Drained(pid, _)
            | Occurrence::Weigh(pid)
            | Occurrence::Write(pid) => Some(*pid),
            Occurrence::Arrive { .. }
            | Occurrence::Relist { .. }
            | Occurrence::Start(_)
            | Occurrence::GiveUp(_) => None,
        };
        if let Some(pid) = addressee {
            if !self.processes[pid].alive {
                return;
            }
            let paused_until = self.processes[pid].paused_until;
            if paused_until > self.now {
                self.schedule(paused_until, occurrence);
                return;
            }
        }
        match occurrence {
            Occurrence::Timer(pid) => {
                self.processes[pid].timer = None;
                self.step(pid, Event::Tick);
            }
            Occurrence::Arrive { pid, request, sent_at, action } => self.serve(pid, request, sent_at, action),
            Occurrence::Answer { pid, request, answer } => {
                if self.processes[pid].requests.remove(&request).is_some() {
                    self.answer(pid, answer);
                }
            }
            Occurrence::Timeout { pid, request, action } => {
                if self.processes[pid].requests.remove(&request).is_some() {
                    let unavailable = RequestError::Unavailable;
                    match action {
                        Action::ReadLease(name) | Action::WriteLease(name, _) => {
                            self.answer(pid, Answer::Lease(name, Err(unavailable)));
                        }
                        Action::ListLeases => self.answer(pid, Answer::Leases(Err(unavailable))),
                        Action::ReadMap => {
                            let sent_at = mono(self.now);
                            self.answer(pid, Answer::MapRead { sent_at, answer: Err(unavailable) });
                        }
                        Action::WriteMap(_) => self.answer(pid, Answer::MapWritten(Err(unavailable))),
                        _ => {}
                    }
                }
            }
            Occurrence::Watch { pid, watch, change } => {
                if self.processes[pid].watch == watch {
                    let event = match change {
                        Change::Lease(name, record) => Event::LeaseChanged(name, record),
                        Change::LeaseDeleted(name, revision) => Event::LeaseDeleted(name, revision),
                        Change::Map(record) => Event::MapChanged(record),
                        Change::MapDeleted(revision) => Event::MapDeleted(revision),
                    };
                    self.step(pid, event);
                }
            }
            Occurrence::Relist { pid, watch } => self.relist(pid, watch),
            Occurrence::Peer { pid, event } => {
                let event = match event {
                    PeerMessage::Settled(instance, epoch) => Event::PeerSettled { instance, epoch },
                    PeerMessage::Departed(instance) => Event::PeerDeparted { instance },
                    PeerMessage::Hello(highest) => Event::PeerHello { highest },
                    PeerMessage::Loads(member, report) => Event::Loads { member, report },
                };
                self.step(pid, event);
            }
            Occurrence::Drained(pid, ticket) => self.step(pid, Event::Drained(ticket)),
            Occurrence::Write(pid) => self.write(pid),
            Occurrence::Weigh(pid) => self.weigh(pid),
            Occurrence::Start(slot) => self.start_now(slot),
            Occurrence::GiveUp(pid) => self.processes[pid].alive = false,
        }
    }

    /// A replica starts a write for a namespace, if it may.
    fn write(&mut self, pid: Pid) {
        let index = self.below(NAMESPACES as u64) as usize;
        let time = 1 + self.below(300);
        let now = self.now;
        let process = &mut self.processes[pid];
        process.writes.retain(|(_, end)| *end > now);
        if process.covers.namespaces[index] && mono(now) < process.covers.until {
            process.writes.push((index, now + time));
        }
        let pause = 50 + self.below(300);
        self.schedule(now + pause, Occurrence::Write(pid));
    }

    /// A replica tells everybody what its namespaces weigh, and itself.
    fn weigh(&mut self, pid: Pid) {
        let process = &self.processes[pid];
        let member = MemberName::from(format!("r{}", process.slot));
        if let Some(ownership) = process.coordinator.ownership() {
            let own = (0..NAMESPACES).map(|index| (Position::of(&namespace(index)), self.weights[index]));
            let own = own.filter(|(position, _)| ownership.owner_at(*position) == Some(&member));
            let report = Arc::new(LoadReport::new(ownership.epoch(), own.collect()));
            self.tell_peers(pid, &PeerMessage::Loads(member.clone(), report.clone()));
            self.step(pid, Event::Loads { member, report });
        }
        let pause = 300 + self.below(700);
        self.schedule(self.now + pause, Occurrence::Weigh(pid));
    }

    fn relist(&mut self, pid: Pid, watch: u64) {
        let process = &self.processes[pid];
        if !process.alive || process.watch != watch {
            return;
        }
        let cut_off = process.cut_off_until.max(process.deaf_until).max(self.outage_until);
        if cut_off > self.now {
            let again = 200 + self.below(800);
            self.schedule(self.now + again, Occurrence::Relist { pid, watch });
            return;
        }
        // The request was sent a moment ago; its answers come in one piece,
        // before whatever the new watch shows.
        let sent_at = mono(self.now);
        let after = self.latency();
        let (leases, map) = (self.server.list(sent_at), self.server.map().cloned());
        let answers = [Answer::Leases(Ok(leases)), Answer::MapRead { sent_at, answer: Ok(map) }];
        for (lane, answer) in answers.into_iter().enumerate() {
            let at = self.in_order(pid, lane, after);
            self.sequence += 1;
            let request = self.sequence;
            self.processes[pid].requests.insert(request, ());
            self.schedule(at, Occurrence::Answer { pid, request, answer });
        }
    }

    /// When a watch of `pid` shows what happens now.
    fn in_order(&mut self, pid: Pid, lane: usize, after: u64) -> u64 {
        let until = &mut self.processes[pid].watch_until[lane];
        *until = (*until).max(self.now + after);
        *until
    }

    fn spread_changes(&mut self) {
        for change in self.server.take_changes() {
            for pid in 0..self.processes.len() {
                let process = &self.processes[pid];
                if process.alive && process.cut_off_until.max(process.deaf_until) <= self.now {
                    let watch = process.watch;
                    let after = self.latency();
                    let lane = usize::from(matches!(change, Change::Map(_) | Change::MapDeleted(_)));
                    let at = self.in_order(pid, lane, after);
                    self.schedule(at, Occurrence::Watch { pid, watch, change: change.clone() });
                } else if process.alive {
                    // The connection has lost something: it must be renewed.
                    self.break_watch(pid);
                }
            }
        }
    }

    fn answer(&mut self, pid: Pid, answer: Answer) {
        let event = match answer {
            Answer::Lease(name, answer) => Event::LeaseAnswered(name, answer),
            Answer::Leases(answer) => Event::LeasesListed(answer),
            Answer::MapRead { sent_at, answer } => Event::MapRead { sent_at, answer },
            Answer::MapWritten(answer) => Event::MapWritten(answer),
        };
        self.step(pid, event);
    }

    fn serve(&mut self, pid: Pid, request: u64, sent_at: Mono, action: Action) {
        if self.outage_until > self.now {
            return;
        }
        let answer = match action {
            Action::ReadLease(name) => {
                let lease = self.server.lease(&name);
                Answer::Lease(name, Ok(lease))
            }
            Action::WriteLease(name, write) => {
                let answer = self.server.write_lease(&name, write);
                Answer::Lease(name, answer)
            }
            Action::ListLeases => Answer::Leases(Ok(self.server.list(sent_at))),
            Action::DeleteLease { name, revision, .. } => {
                self.server.delete_lease(&name, Some(revision));
                return;
            }
            Action::ReadMap => Answer::MapRead { sent_at, answer: Ok(self.server.map().cloned()) },
            Action::WriteMap(write) => {
                self.tell(|| format!("p{pid} writes {write:?}"));
                Answer::MapWritten(self.server.write_map(write))
            }
            _ => return,
        };
        let process = &self.processes[pid];
        let lost = process.cut_off_until.max(process.deaf_until) > self.now;
        let slow = process.slow_until > self.now;
        if !lost && !self.one_in(self.loss) {
            let after = if slow { REQUEST_TIMEOUT - 100 } else { self.latency() };
            self.schedule(self.now + after, Occurrence::Answer { pid, request, answer });
        }
    }

    fn step(&mut self, pid: Pid, event: Event) {
        let now = mono(self.now);
        if self.story.is_some() && !matches!(event, Event::Tick) {
            let text = format!("p{pid} <- {event:?}");
            self.tell(|| text);
        }
        let actions = self.processes[pid].coordinator.step(now, event);
        self.update_covers(pid);
        for action in actions {
            self.perform(pid, action);
        }
        if let Some(deadline) = self.processes[pid].coordinator.next_deadline() {
            let at = milliseconds_up(deadline).max(self.now);
            if self.processes[pid].timer.is_none_or(|timer| at < timer) {
                self.processes[pid].timer = Some(at);
                self.schedule(at, Occurrence::Timer(pid));
            }
        }
        self.check_single_actor(pid);
    }

    fn update_covers(&mut self, pid: Pid) {
        let process = &mut self.processes[pid];
        let coordinator = &process.coordinator;
        let epoch = coordinator.ownership().map_or(Epoch(0), |ownership| ownership.epoch());
        let key = (epoch, coordinator.has_taken_over(), coordinator.tenure());
        let acting: Acting = coordinator.acting();
        process.covers.until = acting.until();
        if process.covers.key != key {
            process.covers.key = key;
            process.covers.namespaces = std::array::from_fn(|index| acting.covers(&namespace(index)));
        }
    }

    fn perform(&mut self, pid: Pid, action: Action) {
        if self.story.is_some() {
            let text = format!("p{pid} -> {action:?}");
            self.tell(|| text);
        }
        match action {
            Action::StopActing(ticket) => {
                let process = &self.processes[pid];
                let until = process
                    .writes
                    .iter()
                    .filter(|(index, _)| !process.covers.namespaces[*index])
                    .map(|(_, end)| *end)
                    .max()
                    .unwrap_or(0);
                let after = self.below(5);
                self.schedule(until.max(self.now) + after, Occurrence::Drained(pid, ticket));
            }
            Action::AnnounceSettled { instance, epoch } => {
                self.tell_peers(pid, &PeerMessage::Settled(instance, epoch));
                self.tell_peers(pid, &PeerMessage::Hello(epoch));
            }
            Action::AnnounceDeparted { instance } => self.tell_peers(pid, &PeerMessage::Departed(instance)),
            Action::Finished => {
                self.tell(|| format!("p{pid} has finished"));
                self.processes[pid].alive = false;
            }
            action => {
                self.sequence += 1;
                let request = self.sequence;
                self.processes[pid].requests.insert(request, ());
                let timeout = Occurrence::Timeout { pid, request, action: action.clone() };
                self.schedule(self.now + REQUEST_TIMEOUT, timeout);
                let cut_off = self.processes[pid].cut_off_until > self.now;
                if !cut_off && !self.one_in(self.loss) {
                    let (after, sent_at) = (self.latency(), mono(self.now));
                    let arrive = Occurrence::Arrive { pid, request, sent_at, action };
                    self.schedule(self.now + after, arrive);
                }
            }
        }
    }

    fn tell_peers(&mut self, from: Pid, message: &PeerMessage) {
        for to in 0..self.processes.len() {
            let link = (self.processes[from].slot, self.processes[to].slot);
            let cut = self.peers_cut_until.get(&link).is_some_and(|until| *until > self.now);
            if to != from && self.processes[to].alive && !cut && !self.one_in(self.loss) {
                let after = self.latency();
                let event = message.clone();
                self.schedule(self.now + after, Occurrence::Peer { pid: to, event });
            }
        }
    }

    /// Whether `pid` acts on a namespace now, or still has a write under way.
    fn acts_on(&self, pid: Pid, index: usize) -> bool {
        let process = &self.processes[pid];
        let may = process.alive && process.covers.namespaces[index] && mono(self.now) < process.covers.until;
        may || process.writes.iter().any(|(written, end)| *written == index && *end > self.now)
    }

    fn check_single_actor(&self, pid: Pid) {
        for index in 0..NAMESPACES {
            if self.acts_on(pid, index) {
                for other in (0..self.processes.len()).filter(|other| *other != pid) {
                    assert!(
                        !self.acts_on(other, index),
                        "processes {pid} and {other} both act on {} at {}",
                        namespace(index),
                        self.now
                    );
                }
            }
        }
    }

    /// Who acts on a namespace now.
    pub fn actors(&self, index: usize) -> Vec<Pid> {
        self.live()
            .filter(|(_, process)| process.coordinator.may_act(mono(self.now), &namespace(index)))
            .map(|(pid, _)| pid)
            .collect()
    }
}
