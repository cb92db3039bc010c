//! One light gateway, and the crew of all of them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::board::Board;
use super::connection::{Connection, Incoming, Lost, Reading, Target};
use super::holdings::{ByKey, Holdings, Violations};
use super::messages::{Info, Registered, Update, UpdateKind, registered};

/// Pauses before registering again, as real gateways make them.
const BACKOFF: [u64; 5] = [1, 3, 7, 15, 31];

const REGISTER_DEADLINE: Duration = Duration::from_secs(10);

/// A real gateway ignores a smaller snapshot for so long after it registered.
const GUARD: Duration = Duration::from_secs(30);

/// What applying costs a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Model {
    /// Nothing: what is measured is the controller.
    Instant,
    /// What it costs a published gateway, with that one's guards.
    Real,
}

impl Model {
    /// CPU time of a published gateway with so many routes, from measurements
    /// at 1,000, 5,000 and 10,000: a parabola fits both.
    fn cost(self, kind: UpdateKind, resources: usize) -> Duration {
        let thousands = resources as f64 / 1000.0;
        let millis = match (self, kind) {
            (Model::Instant, _) | (_, UpdateKind::Heartbeat) => 0.0,
            (Model::Real, UpdateKind::FullSync) => 8.5 * thousands + 8.0 * thousands * thousands,
            (Model::Real, _) => 2.0 * thousands + 6.0 * thousands * thousands,
        };
        Duration::from_secs_f64(millis / 1000.0)
    }
}

/// What all gateways together have counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Updates that came.
    pub messages: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Full synchronisations with a snapshot.
    pub full_syncs: AtomicU64,
    /// Streams that were lost.
    pub losses: AtomicU64,
    /// Gateways with a stream.
    pub connected: AtomicUsize,
}

struct Shared {
    board: Arc<Board>,
    counters: Arc<Counters>,
    model: Model,
    /// Whether who loses its stream loses all that it has, too.
    forgetful: AtomicBool,
}

struct Gateway {
    number: usize,
    info: Info,
    target: Target,
    reading: Reading,
    holdings: Arc<Mutex<Holdings>>,
    shared: Arc<Shared>,
    /// The last version it took, and the last sequence.
    version: String,
    sequence: u64,
    /// What it took and did not get an answer for: keys and generations.
    unanswered: Vec<(u64, u64)>,
    /// What it took and could not load, because of that or of something else.
    not_loaded: Vec<(u64, u64)>,
}

/// All gateways of a run. They end when it is dropped.
pub struct Crew {
    tasks: JoinSet<()>,
    onlooker: Onlooker,
}

/// Sees what a crew does, for as long as it is there.
#[derive(Clone)]
pub struct Onlooker {
    holdings: Vec<Arc<Mutex<Holdings>>>,
    shared: Arc<Shared>,
}

impl std::ops::Deref for Crew {
    type Target = Onlooker;

    fn deref(&self) -> &Onlooker {
        &self.onlooker
    }
}

impl Crew {
    /// An empty crew.
    pub fn new(board: Arc<Board>, model: Model) -> Self {
        let shared = Shared { board, counters: Arc::default(), model, forgetful: AtomicBool::new(false) };
        let onlooker = Onlooker { holdings: Vec::new(), shared: Arc::new(shared) };
        Crew { tasks: JoinSet::new(), onlooker }
    }

    /// One who sees those that have been started.
    pub fn onlooker(&self) -> Onlooker {
        self.onlooker.clone()
    }

    /// Starts one more gateway.
    pub fn start(&mut self, namespace: &str, name: &str, target: Target, reading: Reading) {
        let holdings = Arc::new(Mutex::new(Holdings::default()));
        self.onlooker.holdings.push(holdings.clone());
        let gateway = Gateway {
            number: self.holdings.len() - 1,
            info: Info::new(namespace, name),
            target,
            reading,
            holdings,
            shared: self.shared.clone(),
            version: String::new(),
            sequence: 0,
            unanswered: Vec::new(),
            not_loaded: Vec::new(),
        };
        self.tasks.spawn(gateway.live());
    }
}

impl Onlooker {
    /// How many gateways there are.
    pub fn len(&self) -> usize {
        self.holdings.len()
    }

    /// From now on a gateway that loses its stream loses all that it has, too, as
    /// one that is restarted.
    pub fn let_all_forget(&self) {
        self.shared.forgetful.store(true, Ordering::Relaxed);
    }

    /// What they have counted.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// What must not have happened, over all gateways.
    pub fn violations(&self) -> Violations {
        let mut all = Violations::default();
        for holdings in &self.holdings {
            all.add(&holdings.lock().unwrap_or_else(PoisonError::into_inner).violations());
        }
        all
    }

    /// Looks at what each gateway holds.
    pub fn each<R>(&self, mut look: impl FnMut(&Holdings) -> R) -> Vec<R> {
        let look = |one: &Arc<Mutex<Holdings>>| look(&one.lock().unwrap_or_else(PoisonError::into_inner));
        self.holdings.iter().map(look).collect()
    }
}

impl Gateway {
    /// Connects, and connects again, for ever.
    async fn live(mut self) {
        let (mut attempt, mut failures) = (self.target.first, 0);
        loop {
            if self.session(attempt, &mut failures).await.is_err() {
                attempt += 1;
            }
            if self.shared.forgetful.load(Ordering::Relaxed) {
                self.holdings.lock().unwrap_or_else(PoisonError::into_inner).restart();
                self.version.clear();
                self.sequence = 0;
                self.unanswered.clear();
                self.not_loaded.clear();
            }
            sleep(Duration::from_secs(BACKOFF[failures.min(BACKOFF.len() - 1)])).await;
            failures += 1;
        }
    }

    async fn session(&mut self, attempt: usize, failures: &mut usize) -> Result<(), Lost> {
        let opening = async {
            let connection = Connection::open(&self.target, attempt).await?;
            let answer = connection.unary("RegisterGateway", &self.info.register()).await?;
            let registered = registered(&answer)?.map_err(Lost::Protocol)?;
            Ok::<_, Lost>((connection, registered))
        };
        let opened = timeout(REGISTER_DEADLINE, opening).await;
        let (connection, registered) =
            opened.unwrap_or_else(|_| Err(Lost::Connection("no answer within 10 s".to_owned())))?;
        let stream = connection.stream(&self.info.stream(&registered.session, &self.version)).await?;
        *failures = 0;
        let counters = self.shared.counters.clone();
        let board = self.shared.board.clone();
        counters.connected.fetch_add(1, Ordering::Relaxed);
        board.connected(self.number, board.now());
        // With the version that was named, whoever serves now knows of what was applied
        // before, even where the one before has taken the answer along.
        board.acknowledged(self.number, &self.unanswered, board.now());
        self.unanswered.clear();
        let end = self.follow(&connection, &registered, stream).await;
        board.lost(self.number, board.now());
        counters.connected.fetch_sub(1, Ordering::Relaxed);
        counters.losses.fetch_add(1, Ordering::Relaxed);
        end
    }

    async fn follow(
        &mut self,
        connection: &Connection,
        registered: &Registered,
        mut stream: Incoming,
    ) -> Result<(), Lost> {
        let since = Instant::now();
        let mut heartbeat = interval(registered.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            let message = tokio::select! {
                message = stream.next(self.reading) => message?,
                _ = heartbeat.tick() => {
                    let request = self.info.heartbeat(&registered.session, &self.version);
                    connection.unary("Heartbeat", &request).await?;
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            self.take(connection, &registered.session, message, since).await?;
        }
    }

    /// Takes one update and acknowledges it before the next is looked at.
    async fn take(
        &mut self,
        connection: &Connection,
        session: &str,
        message: Bytes,
        since: Instant,
    ) -> Result<(), Lost> {
        let counters = &self.shared.counters;
        counters.messages.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
        let update = Update::decode(&message)?;
        if update.sequence <= self.sequence && update.kind != UpdateKind::FullSync {
            return Ok(());
        }
        let begun = Instant::now();
        let cost = self.shared.model.cost(update.kind, self.held(Holdings::len));
        if !cost.is_zero() {
            sleep(cost).await;
        }
        let applied = self.apply(&update, since)?;
        self.not_loaded.extend(applied);
        let loads = |kind| update.snapshot.is_some() || update.resource.is_some_and(|it| it.kind == kind);
        let bad: Vec<_> =
            self.held(|held| (1..=4).filter_map(|kind| Some((kind, held.wrong(kind)?))).collect());
        let wrong = bad.iter().find(|(kind, _)| loads(*kind)).map(|(_, words)| words.clone());
        let request = self.info.acknowledge(session, update.version, wrong.as_deref(), begun.elapsed());
        if wrong.is_some() {
            // All that came since is there when this is put right, and not before.
            connection.unary("AcknowledgeConfiguration", &request).await?;
            return Ok(());
        }
        let mut taken = if bad.is_empty() { std::mem::take(&mut self.not_loaded) } else { Vec::new() };
        self.held(|held| taken.retain(|(key, _)| held.in_force(*key)));
        let board = &self.shared.board;
        // A snapshot is no news of any one object, increments are, also when they are in
        // force only now.
        let news = if update.snapshot.is_some() { taken.len().max(1) } else { 1 };
        taken.chunks(news).for_each(|taken| board.applied(self.number, taken, board.now()));
        self.sequence = update.sequence;
        self.version.clear();
        self.version.push_str(update.version);
        self.unanswered.extend(taken);
        connection.unary("AcknowledgeConfiguration", &request).await?;
        board.acknowledged(self.number, &self.unanswered, board.now());
        self.unanswered.clear();
        Ok(())
    }

    fn held<R>(&self, look: impl FnOnce(&Holdings) -> R) -> R {
        look(&self.holdings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn apply(&self, update: &Update<'_>, since: Instant) -> Result<Vec<(u64, u64)>, Lost> {
        let board = &self.shared.board;
        let mut holdings = self.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        match (update.kind, &update.resource, update.snapshot) {
            (UpdateKind::Upsert, Some(resource), _) => {
                taken.push((holdings.upsert(resource), resource.generation));
            }
            (UpdateKind::Deleted, Some(resource), _) => {
                let key = super::holdings::key(resource.kind, resource.namespace, resource.name);
                holdings.remove(key, board.deletion_was_asked(key));
            }
            (UpdateKind::FullSync, _, Some(snapshot)) => {
                self.shared.counters.full_syncs.fetch_add(1, Ordering::Relaxed);
                let resources = snapshot.resources().collect::<Result<Vec<_>, _>>()?;
                let smaller = resources.len() < holdings.len();
                let guarded = self.shared.model == Model::Real && smaller && since.elapsed() < GUARD;
                if guarded || (resources.is_empty() && holdings.len() > 0) {
                    return Ok(taken);
                }
                let mut named = ByKey::default();
                // Padding has no spec: it counts and is dropped.
                for resource in resources.iter().filter(|resource| !resource.spec.is_empty()) {
                    let key = holdings.upsert(resource);
                    named.insert(key, ());
                    taken.push((key, resource.generation));
                }
                holdings.retain(&named, |key| board.deletion_was_asked(key));
            }
            _ => {}
        }
        Ok(taken)
    }
}
