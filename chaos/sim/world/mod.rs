//! The world: everything there is, and what is going to happen to it.

mod acts;
mod ending;
mod faults;
mod restore;
mod run;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flotilla_core::applied::AppliedView;
use flotilla_core::breakage::Breakages;
use flotilla_core::coordination::Identity;
use flotilla_core::delivery::{Delivery, DeliveryConfig};
use flotilla_core::ids::{Frontier, GatewayId, Instance, MemberName, SessionId};
use flotilla_core::lineage::OUT_OF_TOUCH;
use flotilla_core::report::{Reporter, StatusPatch};
use flotilla_observer::{Bounds, Event as Seen, Subject};

use crate::api::cache::Cache;
use crate::api::{Api, Backup};
use crate::clock::{Clock, MILLIS, SECONDS};
use crate::compiler::SharedCompiler;
use crate::dice::{Dice, Stream};
use crate::gateway::Gateway;
use crate::gateway::client::Client;
use crate::network::Network;
use crate::queue::Queue;
use crate::replica::admission::{Admission, Review};
use crate::replica::history::Inherits;
use crate::replica::peers::{Heard, Line, Outbox, Speech};
use crate::replica::reporting::Report;
use crate::replica::requests::{Reply, Request};
use crate::replica::serving::Acks;
use crate::replica::weighing::Weighing;
use crate::replica::{Acts, Process, Shown, Throttle, View, coordination, reporting};
use crate::scenario::{Fault, Scenario, Weather, What};
use crate::statistics::{Count, Statistics};
use crate::universe::{Spec, Universe};
use crate::witness::{Broken, Story, Witness};

/// Something that is going to happen. Those with a process concern only that one:
/// a later process in the same slot does not hear of them.
#[derive(Debug)]
pub(crate) enum Occurrence {
    /// An entry of the plan.
    Plan(usize),
    /// A finalizer lets an object go.
    Released(u32),
    /// The API server forgets.
    Forget,
    /// A replica's process starts.
    Start { slot: usize },
    /// A process is killed; it starts again after so many milliseconds.
    Kill { slot: usize, life: u32, back: u32 },
    /// A process that was told to end does so.
    Die { slot: usize, life: u32, back: u32 },
    /// Something is due in a process.
    Timer { slot: usize, life: u32 },
    /// A request arrives at the API server.
    Request(Box<Request>),
    /// An answer arrives.
    Reply { slot: usize, life: u32, reply: Box<Reply> },
    /// A watch shows what there is.
    Pump { slot: usize, life: u32, lane: usize, number: u32 },
    /// A watch sends a bookmark.
    Bookmark { slot: usize, life: u32, lane: usize, number: u32 },
    /// The server ends a watch.
    WatchEnds { slot: usize, life: u32, lane: usize, number: u32 },
    /// A watch begins anew.
    Follow { slot: usize, life: u32, lane: usize, number: u32 },
    /// A patch's turn has come.
    Patch { slot: usize, life: u32, round: u32, patch: Box<StatusPatch> },
    /// Nothing is in flight any more that had to end.
    Drained { slot: usize, life: u32 },
    /// A process measures what its namespaces weigh.
    Weigh { slot: usize, life: u32 },
    /// It is time to look at the history.
    LookAtHistory { slot: usize, life: u32 },
    /// A gateway was ahead of a process a while ago.
    Ahead { slot: usize, life: u32, ahead: Box<(GatewayId, Frontier)> },
    /// The peers have answered a question for history.
    PeersAnswered { slot: usize, life: u32 },
    /// A replica dials another one.
    Dial { slot: usize, life: u32, other: usize, number: u32 },
    /// An attempt to reach another replica is over.
    Dialled { slot: usize, life: u32, other: usize, number: u32 },
    /// A table may be told.
    Speak { slot: usize, life: u32, other: usize },
    /// A word of a peer arrives.
    Speech(Box<Speech>),
    /// Lines between two replicas may have been silent for too long.
    LineSilent { one: usize, other: usize },
    /// A gateway dials.
    Register { gateway: usize, number: u32 },
    /// A gateway's registration had no answer.
    NotRegistered { gateway: usize, number: u32 },
    /// A registration arrives.
    Registers { gateway: usize, number: u32, slot: usize, life: u32, heard: bool },
    /// Its answer reaches the gateway.
    Registered { gateway: usize, number: u32 },
    /// A stream is opened.
    Opens { gateway: usize, number: u32, slot: usize, life: u32 },
    /// A gateway notices the end of its stream.
    StreamLost { gateway: usize, number: u32 },
    /// A gateway may have heard nothing for too long.
    StreamSilent { gateway: usize, number: u32 },
    /// A process notices that a client is gone.
    StreamGone { slot: usize, life: u32, session: SessionId },
    /// A gateway reads on.
    Reads { gateway: usize, number: u32 },
    /// Acknowledgements arrive.
    Acks { slot: usize, life: u32, acks: Box<Acks> },
    /// A gateway is to heartbeat.
    Heartbeat { gateway: usize, number: u32 },
    /// A heartbeat arrives.
    Beats { slot: usize, life: u32, beat: Box<Beat> },
    /// An admission is decided, step by step.
    Review(Box<Review>),
    /// A machine's clock may be right again.
    ClockRight { slot: usize },
    /// Something that was impaired works again.
    Recovered(Subject, u32),
    /// Faults end and everything heals.
    Heal,
    /// A look whether all is equal.
    Look,
}

/// A heartbeat on its way.
#[derive(Debug, Clone)]
pub(crate) struct Beat {
    pub gateway: GatewayId,
    pub session: SessionId,
    pub version: Arc<str>,
}

/// The place of one replica.
pub(crate) struct Slot {
    pub process: Option<Box<Process>>,
    pub dice: Dice,
    /// Which API server it talks to.
    pub cache: usize,
    /// Requests arrive late by this until then.
    pub late_by: u64,
    pub late_until: u64,
    /// Countdown of writes, whether after the last one, and milliseconds away.
    pub crash_at_write: Option<(u32, bool, u32)>,
    /// Until when whoever runs here cannot be held to everything.
    pub impaired_until: u64,
    /// A start is planned.
    pub starting: bool,
    /// When its clock last jumped.
    pub jumped: u64,
    /// By how many millionths its machine's clock is wrong, beyond what is ordinary.
    pub drift: Option<i32>,
    /// When it is right again.
    pub right_again: u64,
    /// Until when Leases mean nothing to whoever runs here.
    pub void_until: u64,
    /// Until when that one may take too little for 30 s.
    pub hasty_until: u64,
    /// Seconds that its machine's wall clock is ahead of true time.
    pub wall_ahead: i64,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The first broken promise, if any.
    pub violation: Option<Broken>,
    /// Sum of the whole run: equal for equal runs.
    pub trace: u64,
    /// What happened.
    pub statistics: Statistics,
}

/// See the module's description.
pub struct World<'a> {
    pub(crate) now: u64,
    pub(crate) queue: Queue<Occurrence>,
    pub(crate) scenario: &'a Scenario,
    pub(crate) universe: Universe,
    pub(crate) api: Api,
    pub(crate) caches: Vec<Cache>,
    pub(crate) network: Network,
    pub(crate) slots: Vec<Slot>,
    pub(crate) clients: Vec<Client>,
    pub(crate) witness: Witness<'a>,
    pub(crate) stats: Statistics,
    /// Faults have ended.
    pub(crate) calm: bool,
    pub(crate) sessions: u64,
    /// Whom the API server asks about admissions.
    pub(crate) reviews: Dice,
    /// What arrives twice.
    pub(crate) twice: Dice,
    /// Whether the log may be replaced in this world, and up to which process those
    /// are that began before it last was.
    replaceable: bool,
    pub(crate) old_lives: u32,
    /// The last backup, with what tenants had written by then.
    backup: Option<(Backup, Contents)>,
    compiler: SharedCompiler,
    pub(crate) breakage: Breakages,
    lives: u32,
    contents: u32,
    impaired: BTreeMap<SubjectKey, u32>,
    healings: u32,
    /// By place: what tenants last wrote.
    pub(crate) written: Contents,
    ended: bool,
    /// Looks in a row that found everything equal.
    equal: u32,
}

/// By place: the content that tenants last wrote, and what was special about it.
type Contents = Vec<Option<(u32, Spec)>>;

/// [`Subject`] as a key.
type SubjectKey = (u8, u32);

fn key(subject: Subject) -> SubjectKey {
    match subject {
        Subject::ApiServer => (0, 0),
        Subject::Network => (1, 0),
        Subject::Instance(id) => (2, id.0),
        Subject::Gateway(id) => (3, id.0),
    }
}

impl<'a> World<'a> {
    /// The world at the beginning of a scenario.
    pub fn new(scenario: &'a Scenario) -> Self {
        World::with_story(scenario, None)
    }

    /// The same, with everything that happens told to `story`.
    pub fn with_story(scenario: &'a Scenario, story: Option<Story<'a>>) -> Self {
        let Scenario { seed, shape, weather, .. } = scenario;
        let universe = Universe::new(shape.namespaces.max(1), shape.names.max(1));
        let mut dice = Dice::new(*seed, Stream::Api);
        let lag = u64::from(weather.cache_lag_ms) * MILLIS;
        let caches = (0..shape.caches.max(1))
            .map(|_| Cache { lag: dice.below(lag + 1), ..Cache::default() })
            .collect();
        let slot = |index| Slot {
            process: None,
            dice: Dice::new(*seed, Stream::Replica(index)),
            cache: index % usize::from(shape.caches.max(1)),
            late_by: 0,
            late_until: 0,
            crash_at_write: None,
            impaired_until: 0,
            starting: true,
            jumped: 0,
            drift: None,
            right_again: 0,
            void_until: 0,
            hasty_until: 0,
            wall_ahead: 0,
        };
        let slots: Vec<Slot> = (0..usize::from(shape.replicas.clamp(1, 32))).map(slot).collect();
        let clients: Vec<Client> = shape
            .gateways
            .iter()
            .enumerate()
            .map(|(index, gateway)| {
                let model = Gateway::new(universe.places(), gateway.picky, gateway.mute);
                let dice = Dice::new(*seed, Stream::Gateway(index));
                Client::new(index, gateway.clone(), model, dice, universe.namespaces())
            })
            .collect();
        let witness = Witness::new(&universe, clients.len(), bounds(universe.places()), story);
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            scenario,
            api: Api::new(universe.places(), dice.below(1_000)),
            universe,
            caches,
            network: Network::default(),
            slots,
            clients,
            witness,
            stats: Statistics::of_one_run(),
            calm: false,
            sessions: 0,
            reviews: Dice::new(*seed, Stream::Reviews),
            twice: Dice::new(*seed, Stream::Twice),
            replaceable: scenario
                .plan
                .iter()
                .any(|planned| matches!(planned.what, What::Fault(Fault::Restore(_)))),
            old_lives: 0,
            backup: None,
            compiler: SharedCompiler::default(),
            breakage: Breakages::default(),
            lives: 0,
            contents: 0,
            impaired: BTreeMap::new(),
            healings: 0,
            written: Vec::new(),
            ended: false,
            equal: 0,
        };
        world.written = vec![None; world.universe.places()];
        world
    }

    /// The same world with something broken on purpose.
    #[must_use]
    pub fn breaking(self, breakage: Breakages) -> Self {
        World { breakage, ..self }
    }

    fn begin(&mut self) {
        self.plan_next(0);
        for slot in 0..self.slots.len() {
            let after = self.slots[slot].dice.below(2 * SECONDS);
            self.queue.push(after, Occurrence::Start { slot });
        }
        for gateway in 0..self.clients.len() {
            let after = self.clients[gateway].dice.below(5 * SECONDS);
            self.gateway_starts(gateway, after);
        }
        self.queue.push(5 * SECONDS, Occurrence::Forget);
        self.queue.push(self.scenario.shape.active * MILLIS, Occurrence::Heal);
        let weather = &self.scenario.weather;
        let until = self.scenario.shape.active * MILLIS;
        if weather.troubles_api_server() {
            self.impair(Subject::ApiServer, until);
        }
        if weather.troubles_network() {
            self.impair(Subject::Network, until);
        }
    }

    /// The plan's entries are in the order of time, so one at a time is enough.
    fn plan_next(&mut self, index: usize) {
        if let Some(planned) = self.scenario.plan.get(index) {
            self.queue.push((planned.at * MILLIS).max(self.now), Occurrence::Plan(index));
        }
    }

    pub(crate) fn weather(&self) -> &'a Weather {
        &self.scenario.weather
    }

    /// How long a message to or from a replica takes.
    pub(crate) fn latency(&mut self, slot: usize) -> u64 {
        latency(&self.scenario.weather, self.calm, &mut self.slots[slot].dice)
    }

    /// How long a message to or from a gateway takes.
    pub(crate) fn gateway_latency(&mut self, gateway: usize) -> u64 {
        latency(&self.scenario.weather, self.calm, &mut self.clients[gateway].dice)
    }

    /// When what arrives at a time arrives once more, if it does: most often soon, at
    /// times when long since other things were said, and never after the faults' end.
    pub(crate) fn arrives_again(&mut self, at: u64) -> Option<u64> {
        if self.calm || !self.twice.ppm(self.scenario.weather.twice) {
            return None;
        }
        let longest = if self.twice.one_in(3) { 15 * SECONDS } else { 200 * MILLIS };
        let heals = self.scenario.shape.active * MILLIS;
        let again = at + 1 + self.twice.below(longest);
        if again >= heals {
            return None;
        }
        self.stats.count(Count::Twice);
        Some(again)
    }

    /// The revision of the last write of an object by a true time.
    pub(crate) fn revision_at(&self, time: u64) -> u64 {
        self.api.lanes.iter().map(|lane| lane.written_by(time)).max().unwrap_or(0)
    }

    /// Something works badly until a true time, by the world's fault.
    pub(crate) fn impair(&mut self, subject: Subject, until: u64) {
        if !self.calm && until > self.now {
            self.impaired_until(subject, until);
        }
    }

    /// The same, in calm weather, too.
    pub(crate) fn impaired_until(&mut self, subject: Subject, until: u64) {
        let count = self.impaired.entry(key(subject)).or_default();
        *count += 1;
        if *count == 1 {
            self.witness.see(self.now, &Seen::Impaired(subject));
        }
        self.queue.push(until, Occurrence::Recovered(subject, self.healings));
    }

    fn recovered(&mut self, subject: Subject) {
        let Some(count) = self.impaired.get_mut(&key(subject)) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.impaired.remove(&key(subject));
            self.witness.see(self.now, &Seen::Recovered(subject));
        }
    }

    /// A replica's process starts.
    pub(crate) fn start(&mut self, slot: usize) {
        let now = self.now;
        self.slots[slot].starting = false;
        if self.slots[slot].process.is_some() {
            return;
        }
        let lineage = if self.replaceable { self.begin_lineage(slot) } else { None };
        if self.replaceable && lineage.is_none() {
            return self.start_later(slot, SECONDS);
        }
        self.lives += 1;
        let life = self.lives;
        let member = MemberName::from(format!("r{slot}"));
        let instance = Instance::from(format!("{member}/{life}"));
        let identity = Identity {
            member: member.clone(),
            instance: instance.clone(),
            address: format!("{member}:9445").into(),
        };
        let (seed, drift) = {
            let most = u64::from(self.scenario.weather.drift_ppm);
            let dice = &mut self.slots[slot].dice;
            let drift =
                i32::try_from(dice.below(2 * most + 1)).unwrap_or(0) - self.scenario.weather.drift_ppm as i32;
            (dice.roll(), drift)
        };
        let Some(coordinator) = coordination::coordinator(identity, seed, self.breakage) else { return };
        let weather = self.weather();
        let config = DeliveryConfig {
            message_limit: weather.message_limit,
            batch_bytes: weather.message_limit,
            tombstones: weather.tombstones as usize,
            // So low that a burst is loud.
            loud_changes: 8,
            breakage: self.breakage,
            ..DeliveryConfig::avapigw("0badcafe")
        };
        let config = match &lineage {
            Some(lineage) => DeliveryConfig {
                incarnation: lineage.name().into(),
                out_of_touch: Some(OUT_OF_TOUCH),
                ..config
            },
            None => config,
        };
        let looks = lineage.is_some();
        let replicas = self.slots.len();
        let clock = Clock::start(now, self.slots[slot].drift.unwrap_or(drift));
        let mut engine = Delivery::new(config, self.compiler.clone());
        if looks {
            engine.confirmed(clock.read(now));
        }
        let process = Process {
            life,
            member,
            instance,
            clock,
            paused_until: 0,
            dies_at: None,
            timer: None,
            coordinator_due: coordinator.next_deadline(),
            coordinator,
            shown: Shown::default(),
            acts: Acts { on: vec![false; self.universe.namespaces().len()], ..Acts::default() },
            engine,
            limits: Throttle::new(weather.batch_every_ms, self.clients.len()),
            lineage,
            admission: self.scenario.shape.reviewed.then(|| Admission::new(now)),
            watches: Default::default(),
            streams: BTreeMap::new(),
            wires: VecDeque::new(),
            view: View::default(),
            questions: VecDeque::new(),
            inherits: Inherits::default(),
            reporter: Reporter::new(reporting::config(self.breakage), flotilla_avapigw::AvapigwStatus),
            applied: AppliedView::default(),
            report: Report::new(now),
            weighing: Weighing::default(),
            outbox: Outbox::default(),
            lines: (0..replicas).map(|_| Line::default()).collect(),
            heard: (0..replicas).map(|_| Heard::default()).collect(),
        };
        self.slots[slot].process = Some(Box::new(process));
        self.witness.tell(now, || format!("r{slot}/{life} starts"));
        if self.slots[slot].impaired_until > now {
            self.impair_replica(slot, self.slots[slot].impaired_until);
        }
        self.follow_all(slot);
        self.queue.push(now, Occurrence::Weigh { slot, life });
        if looks {
            self.queue.push(now, Occurrence::LookAtHistory { slot, life });
        }
        self.coordinate(slot, flotilla_core::coordination::Event::Tick);
    }

    /// A replica's process is killed. It starts again after so many milliseconds.
    pub(crate) fn crash(&mut self, slot: usize, back: u32) {
        if self.slots[slot].process.is_some() {
            self.stats.count(Count::Kills);
            self.end_process(slot, back);
        }
    }

    pub(crate) fn end_process(&mut self, slot: usize, back: u32) {
        let now = self.now;
        let Some(process) = self.slots[slot].process.take() else { return };
        self.witness.tell(now, || format!("{} ends", process.instance));
        let base = self.witness.instance(process.instance.as_str());
        if let Some(instance) = process.acts.tenure.filter(|tenure| *tenure != base) {
            self.witness.see(now, &Seen::InstanceEnded { instance });
        }
        self.witness.see(now, &Seen::InstanceEnded { instance: base });
        for (gateway, number) in process.streams.values().copied() {
            self.end_stream(slot, gateway, number);
        }
        self.lines_end(slot, process.life, &process.lines);
        self.start_later(slot, u64::from(back) * MILLIS);
    }

    pub(crate) fn start_later(&mut self, slot: usize, after: u64) {
        if !self.slots[slot].starting {
            self.slots[slot].starting = true;
            self.queue.push(self.now + after, Occurrence::Start { slot });
        }
    }

    /// Whether a process is still the one that something concerns. One that stands
    /// still hears of it when it goes on.
    pub(crate) fn reaches(&mut self, slot: usize, life: u32) -> Reach {
        match &self.slots[slot].process {
            Some(process) if process.life == life => {
                if process.paused_until > self.now {
                    Reach::Later(process.paused_until)
                } else {
                    Reach::Now
                }
            }
            _ => Reach::Never,
        }
    }

    fn happen(&mut self, what: Occurrence) {
        self.stats.count(Count::Events);
        if let Some((slot, life)) = what.process() {
            match self.reaches(slot, life) {
                Reach::Now => {}
                Reach::Later(at) => return self.queue.push(at, what),
                Reach::Never => return,
            }
        }
        self.witness.step(self.now, what.number());
        match what {
            Occurrence::Plan(index) => {
                self.plan_next(index + 1);
                self.act(index);
            }
            Occurrence::Released(place) => self.released(place),
            Occurrence::Forget => self.forget(),
            Occurrence::Start { slot } => self.start(slot),
            Occurrence::Kill { slot, back, .. } => {
                self.stats.fault("crash at a write");
                self.crash(slot, back);
            }
            Occurrence::Die { slot, back, .. } => self.end_process(slot, back),
            Occurrence::Timer { slot, .. } => {
                let Some(process) = &mut self.slots[slot].process else { return };
                if process.timer == Some(self.now) || process.timer.is_some_and(|at| at < self.now) {
                    process.timer = None;
                    self.wake(slot);
                }
            }
            Occurrence::Request(request) => self.serve(*request),
            Occurrence::Reply { slot, reply, .. } => self.replied(slot, *reply),
            Occurrence::Pump { slot, lane, number, .. } => self.pump(slot, lane, number, false),
            Occurrence::Bookmark { slot, lane, number, .. } => self.pump(slot, lane, number, true),
            Occurrence::WatchEnds { slot, lane, number, .. } => self.watch_ends(slot, lane, number),
            Occurrence::Follow { slot, lane, number, .. } => self.follow_again(slot, lane, number),
            Occurrence::Patch { slot, round, patch, .. } => self.start_patch(slot, round, patch),
            Occurrence::Drained { slot, .. } => self.finished(slot),
            Occurrence::Weigh { slot, .. } => self.weigh(slot),
            Occurrence::LookAtHistory { slot, .. } => self.look_at_history(slot),
            Occurrence::Ahead { slot, ahead, .. } => {
                let (gateway, high) = *ahead;
                self.still_ahead(slot, gateway, high);
            }
            Occurrence::PeersAnswered { slot, .. } => self.peers_answered(slot),
            Occurrence::Dial { slot, other, number, .. } => self.dial_now(slot, other, number),
            Occurrence::Dialled { slot, other, number, .. } => self.dialled(slot, other, number),
            Occurrence::Speak { slot, other, .. } => self.speak_later(slot, other),
            Occurrence::Speech(speech) => self.hear(*speech),
            Occurrence::LineSilent { one, other } => self.line_silent(one, other),
            Occurrence::Register { gateway, number } => {
                if self.clients[gateway].number == number {
                    self.register(gateway);
                }
            }
            Occurrence::NotRegistered { gateway, number } => self.not_registered(gateway, number),
            Occurrence::Registers { gateway, number, slot, life, heard } => {
                match self.reaches(slot, life) {
                    // It waits in the socket; the gateway gives up before long.
                    Reach::Later(at) => {
                        self.queue.push(at, Occurrence::Registers { gateway, number, slot, life, heard });
                        if heard {
                            let deadline = self.now + 10 * SECONDS;
                            self.queue.push(deadline, Occurrence::NotRegistered { gateway, number });
                        }
                    }
                    _ => self.registers(gateway, number, slot, life, heard),
                }
            }
            Occurrence::Registered { gateway, number } => {
                if self.clients[gateway].number == number {
                    self.is_registered(gateway);
                }
            }
            Occurrence::Opens { gateway, number, slot, life } => match self.reaches(slot, life) {
                Reach::Later(at) if at > self.now + 13 * SECONDS => {
                    self.queue.push(self.now + 13 * SECONDS, Occurrence::StreamLost { gateway, number });
                }
                Reach::Later(at) => self.queue.push(at, Occurrence::Opens { gateway, number, slot, life }),
                _ => self.opens(gateway, number, slot, life),
            },
            Occurrence::StreamLost { gateway, number } => self.stream_lost(gateway, number),
            Occurrence::StreamSilent { gateway, number } => self.stream_silent(gateway, number),
            Occurrence::StreamGone { slot, session, .. } => self.stream_gone(slot, &session),
            Occurrence::Reads { gateway, number } => {
                if self.clients[gateway].number == number {
                    self.reads(gateway);
                }
            }
            Occurrence::Acks { slot, acks, .. } => self.acks_arrive(slot, *acks),
            Occurrence::Heartbeat { gateway, number } => self.heartbeat(gateway, number),
            Occurrence::Beats { slot, beat, .. } => {
                let Beat { gateway, session, version } = *beat;
                self.heartbeat_arrives(slot, session, gateway, version, true);
            }
            Occurrence::Review(review) => self.reviewed(review),
            Occurrence::ClockRight { slot } => self.clock_is_right(slot),
            Occurrence::Recovered(subject, healing) => {
                if healing == self.healings {
                    self.recovered(subject);
                }
            }
            Occurrence::Heal => self.heal(),
            Occurrence::Look => self.look(),
        }
    }
}

/// What the promises are held to here.
fn bounds(places: usize) -> Bounds {
    Bounds {
        // In the middle of a batch each session may remember of each object that it
        // was sent: that it is there, and what it is.
        queued_per_session: 16.0 + 2.0 * places as f64,
        ..Bounds::default()
    }
}

/// Whether something comes to a process.
pub(crate) enum Reach {
    /// At once.
    Now,
    /// When it goes on, at this time.
    Later(u64),
    /// It is another one by now.
    Never,
}

fn latency(weather: &Weather, calm: bool, dice: &mut Dice) -> u64 {
    let (short, long) = weather.latency_us;
    if !calm && dice.ppm(weather.late) {
        return dice.below(u64::from(weather.late_ms) * MILLIS) + 1;
    }
    dice.between(u64::from(short), u64::from(long.max(short))) * 1_000
}

impl Occurrence {
    /// The process that it concerns, if it cannot happen without.
    fn process(&self) -> Option<(usize, u32)> {
        match self {
            Occurrence::Timer { slot, life }
            | Occurrence::Reply { slot, life, .. }
            | Occurrence::Pump { slot, life, .. }
            | Occurrence::Bookmark { slot, life, .. }
            | Occurrence::WatchEnds { slot, life, .. }
            | Occurrence::Follow { slot, life, .. }
            | Occurrence::Patch { slot, life, .. }
            | Occurrence::Drained { slot, life }
            | Occurrence::Weigh { slot, life }
            | Occurrence::PeersAnswered { slot, life }
            | Occurrence::LookAtHistory { slot, life }
            | Occurrence::Ahead { slot, life, .. }
            | Occurrence::Dial { slot, life, .. }
            | Occurrence::Dialled { slot, life, .. }
            | Occurrence::Speak { slot, life, .. }
            | Occurrence::StreamGone { slot, life, .. }
            | Occurrence::Acks { slot, life, .. }
            | Occurrence::Beats { slot, life, .. } => Some((*slot, *life)),
            // One that stands still can be killed, and ends late otherwise.
            Occurrence::Die { slot, life, .. } => Some((*slot, *life)),
            Occurrence::Kill { slot, life, .. } => Some((*slot, *life)),
            Occurrence::Speech(speech) => Some(speech.to),
            _ => None,
        }
    }

    /// A number for the sum of the run.
    fn number(&self) -> u64 {
        let number = |tag: u64, a: usize, b: u32| tag << 56 | (a as u64) << 32 | u64::from(b);
        match self {
            Occurrence::Plan(index) => number(1, *index, 0),
            Occurrence::Released(place) => number(2, 0, *place),
            Occurrence::Forget => number(3, 0, 0),
            Occurrence::Start { slot } => number(4, *slot, 0),
            Occurrence::Kill { slot, life, .. } => number(5, *slot, *life),
            Occurrence::Die { slot, life, .. } => number(6, *slot, *life),
            Occurrence::Timer { slot, life } => number(7, *slot, *life),
            Occurrence::Request(_) => number(8, 0, 0),
            Occurrence::Reply { slot, life, .. } => number(9, *slot, *life),
            Occurrence::Pump { slot, lane, number: n, .. } => number(10 + *lane as u64, *slot, *n),
            Occurrence::Bookmark { slot, lane, number: n, .. } => number(20 + *lane as u64, *slot, *n),
            Occurrence::WatchEnds { slot, lane, number: n, .. } => number(30 + *lane as u64, *slot, *n),
            Occurrence::Follow { slot, lane, number: n, .. } => number(40 + *lane as u64, *slot, *n),
            Occurrence::Patch { slot, round, .. } => number(50, *slot, *round),
            Occurrence::Drained { slot, life } => number(51, *slot, *life),
            Occurrence::PeersAnswered { slot, life } => number(52, *slot, *life),
            Occurrence::Dial { slot, other, number: n, .. } => number(53 + *other as u64, *slot, *n),
            Occurrence::Dialled { slot, other, number: n, .. } => number(86 + *other as u64, *slot, *n),
            Occurrence::Speak { slot, other, life } => number(119 + *other as u64, *slot, *life),
            Occurrence::Speech(speech) => number(152 + speech.from.0 as u64, speech.to.0, speech.to.1),
            Occurrence::LineSilent { one, other } => number(185, *one, *other as u32),
            Occurrence::Register { gateway, number: n } => number(186, *gateway, *n),
            Occurrence::NotRegistered { gateway, number: n } => number(187, *gateway, *n),
            Occurrence::Registers { gateway, number: n, .. } => number(188, *gateway, *n),
            Occurrence::Registered { gateway, number: n } => number(189, *gateway, *n),
            Occurrence::Opens { gateway, number: n, .. } => number(190, *gateway, *n),
            Occurrence::StreamLost { gateway, number: n } => number(191, *gateway, *n),
            Occurrence::StreamSilent { gateway, number: n } => number(192, *gateway, *n),
            Occurrence::StreamGone { slot, life, .. } => number(193, *slot, *life),
            Occurrence::Reads { gateway, number: n } => number(194, *gateway, *n),
            Occurrence::Acks { acks, life, .. } => number(195, acks.gateway, *life),
            Occurrence::Heartbeat { gateway, number: n } => number(196, *gateway, *n),
            Occurrence::Beats { slot, life, .. } => number(197, *slot, *life),
            Occurrence::Recovered(subject, n) => number(198, key(*subject).1 as usize, *n),
            Occurrence::ClockRight { slot } => number(205, *slot, 0),
            Occurrence::Weigh { slot, life } => number(201, *slot, *life),
            Occurrence::LookAtHistory { slot, life } => number(202, *slot, *life),
            Occurrence::Ahead { slot, life, .. } => number(203, *slot, *life),
            Occurrence::Review(review) => {
                let (step, place) = review.number();
                number(204, step, place)
            }
            Occurrence::Heal => number(199, 0, 0),
            Occurrence::Look => number(200, 0, 0),
        }
    }
}
