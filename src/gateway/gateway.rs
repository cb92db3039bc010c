//! One gateway: its state, and what can be seen of it from outside.
//!
//! The client task alone changes it; admin requests and heartbeats read it in
//! short critical sections.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_core::digest::Sums;
use flotilla_core::ids::{GatewayId, Kind};
use flotilla_core::time::Mono;
use serde::Serialize;
use tokio::time::Instant;

use crate::cost::Work;
use crate::events::{EventHub, unix_micros};
use crate::options::{ApplyCost, GatewayOptions};
use crate::proxy::{DataPlane, ProxyStats};
use crate::resource::{Resource, ResourcePool, digest};
use crate::state::{Applied, Outcome, Snapshot, State, Update};
use crate::stats::Stats;

/// One gateway of this process.
#[derive(Debug)]
pub struct Gateway {
    options: GatewayOptions,
    state: Mutex<State>,
    link: Mutex<Link>,
    plane: Option<DataPlane>,
    events: EventHub,
    started: Instant,
    /// Moves with every change of what is held: says whether `digest` is old.
    revision: AtomicU64,
    digest: Mutex<Option<(u64, Arc<str>)>>,
}

/// How the gateway stands with its controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has not registered yet.
    Starting,
    /// It has a stream.
    Streaming,
    /// It lost its stream and will register again.
    Reconnecting,
    /// Its stream was cancelled: it heartbeats, and never reconnects.
    Zombie,
    /// It waits for a controller to dial it.
    Listening,
    /// A controller has opened a session to push updates in.
    Pushed,
}

/// What is known about the connection.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where it stands.
    pub phase: Phase,
    /// The session that it registered last; empty before.
    pub session: String,
    /// Why the last stream or registration ended; empty if none has.
    pub last_error: String,
    /// When it last lost a stream.
    pub lost_at: Option<Instant>,
    /// When it last began to connect: the waits before are its own, its back-off and how long
    /// it let others keep silent.
    pub attempted_at: Option<Instant>,
    /// When its last stream was opened.
    pub streaming_since: Option<Instant>,
}

/// What can be seen of a gateway at one moment.
#[derive(Debug, Clone)]
pub struct View {
    /// How it stands with its controller.
    pub link: Link,
    /// Version of the last update that it took.
    pub version: Arc<str>,
    /// Sequence of the last update that it took.
    pub sequence: i64,
    /// Everything it holds, by kind and key.
    pub held: Vec<Arc<Resource>>,
    /// Whether everything held is in force.
    pub fully_loaded: bool,
    /// Its counters.
    pub stats: Stats,
}

/// How the client goes on after an update.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) outcome: Outcome,
    /// How long the published gateway would have taken.
    pub(crate) cost: Duration,
}

impl Gateway {
    pub(crate) fn new(
        options: GatewayOptions,
        pool: Arc<ResourcePool>,
        events: EventHub,
        serves_http: bool,
    ) -> Self {
        let phase = if options.listen.is_some() { Phase::Listening } else { Phase::Starting };
        Gateway {
            options,
            state: Mutex::new(State::new(pool)),
            link: Mutex::new(Link {
                phase,
                session: String::new(),
                last_error: String::new(),
                lost_at: None,
                attempted_at: None,
                streaming_since: None,
            }),
            plane: serves_http.then(DataPlane::new),
            events,
            started: Instant::now(),
            revision: AtomicU64::new(0),
            digest: Mutex::new(None),
        }
    }

    /// Who it is.
    pub fn id(&self) -> &GatewayId {
        &self.options.id
    }

    /// What it was told to do.
    pub fn options(&self) -> &GatewayOptions {
        &self.options
    }

    /// Everything that can be seen of it, at one moment.
    pub fn view(&self) -> View {
        let link = self.link();
        let state = self.state();
        View {
            link,
            version: state.version().clone(),
            sequence: state.sequence(),
            held: state.held().cloned().collect(),
            fully_loaded: state.fully_loaded(),
            stats: state.stats,
        }
    }

    /// How it stands with its controller.
    pub fn link(&self) -> Link {
        lock(&self.link).clone()
    }

    /// Its counters.
    pub fn stats(&self) -> Stats {
        self.state().stats
    }

    /// What its data plane has done, if it serves HTTP.
    pub fn proxy_stats(&self) -> Option<ProxyStats> {
        self.plane.as_ref().map(DataPlane::stats)
    }

    /// Version of the last update that it took; empty after its start.
    pub fn version(&self) -> Arc<str> {
        self.state().version().clone()
    }

    /// How many resources it holds.
    pub fn held_count(&self) -> usize {
        self.state().held_count()
    }

    /// The digest of what it holds: see [`crate::resource::digest`].
    pub fn digest(&self) -> Arc<str> {
        // Read before the state: at worst the digest is computed once more.
        let revision = self.revision.load(Ordering::Acquire);
        if let Some((_, digest)) = lock(&self.digest).as_ref().filter(|(of, _)| *of == revision) {
            return digest.clone();
        }
        let held: Vec<Arc<Resource>> = self.state().held().cloned().collect();
        let digest: Arc<str> = Arc::from(digest(&held));
        *lock(&self.digest) = Some((revision, digest.clone()));
        digest
    }

    /// Everything it holds, and whether that is in force.
    pub(crate) fn held(&self) -> Vec<(Arc<Resource>, bool)> {
        let state = self.state();
        let loaded: HashSet<_> =
            Kind::ALL.into_iter().flat_map(|kind| state.loaded(kind)).map(Arc::as_ptr).collect();
        state.held().map(|one| (one.clone(), loaded.contains(&Arc::as_ptr(one)))).collect()
    }

    /// The sums of what it holds, and the version of that.
    pub fn holds(&self) -> (Arc<str>, Sums) {
        let (version, held): (_, Vec<Arc<Resource>>) = {
            let state = self.state();
            (state.version().clone(), state.held().cloned().collect())
        };
        (version, Sums::of(held.iter().map(|one| (one.kind, &one.object, one.spec_json.as_ref()))))
    }

    pub(crate) fn plane(&self) -> Option<&DataPlane> {
        self.plane.as_ref()
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn set_phase(&self, phase: Phase, error: Option<String>) {
        let mut link = lock(&self.link);
        match phase {
            Phase::Streaming => link.streaming_since = Some(Instant::now()),
            Phase::Reconnecting if link.phase != phase => link.lost_at = Some(Instant::now()),
            _ => {}
        }
        link.phase = phase;
        if let Some(error) = error {
            link.last_error = error;
        }
    }

    /// An attempt to connect begins.
    pub(crate) fn attempts(&self) {
        lock(&self.link).attempted_at = Some(Instant::now());
    }

    /// Counts something that the client did.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Stats)) {
        count(&mut self.state().stats);
    }

    /// The gateway registered; `initial` came with the answer.
    pub(crate) fn registered(&self, session: &str, initial: Option<Snapshot>) {
        lock(&self.link).session = session.to_owned();
        let now = self.now();
        let mut state = self.state();
        state.registered(now);
        if let Some(initial) = initial {
            let applied = state.apply_initial(initial, now);
            self.put_in_force(&mut state, &applied);
        }
    }

    /// A controller opens a session: from here on nothing but updates of this one
    /// is taken.
    pub(crate) fn opened(&self, session: &str) {
        let mut link = lock(&self.link);
        link.phase = Phase::Pushed;
        session.clone_into(&mut link.session);
        link.streaming_since = Some(Instant::now());
        let now = self.now();
        self.state().opened(now);
    }

    /// Applies an update of a session, if that is the open one: see
    /// [`Gateway::apply`].
    pub(crate) fn apply_of(&self, session: &str, update: Update, bytes: u64) -> Option<Taken> {
        // Held until it is applied, so that no session is opened in between.
        let link = lock(&self.link);
        (link.session == session && !session.is_empty()).then(|| self.apply(update, bytes))
    }

    /// Applies one update, whose encoded form had this many bytes.
    pub(crate) fn apply(&self, update: Update, bytes: u64) -> Taken {
        let started = Instant::now();
        let now = self.now();
        let mut state = self.state();
        state.stats.bytes_received += bytes;
        let applied = state.apply(update, now);
        self.put_in_force(&mut state, &applied);
        let work = match (applied.routes_loaded, applied.backends_loaded) {
            (true, true) => Work::FullSync,
            (true, false) => Work::RouteIncrement,
            _ => Work::Little,
        };
        let cost = match self.options.apply_cost {
            ApplyCost::None => Duration::ZERO,
            ApplyCost::Real => {
                crate::cost::duration(work, state.held_of(Kind::ApiRoute)).saturating_sub(started.elapsed())
            }
        };
        state.stats.apply_micros += u64::try_from((started.elapsed() + cost).as_micros()).unwrap_or(0);
        Taken { outcome: applied.outcome, cost }
    }

    /// Makes a change visible: to requests first, then to observers.
    fn put_in_force(&self, state: &mut State, applied: &Applied) {
        if let Some(plane) = &self.plane {
            plane.update(state, applied);
        }
        if applied.differences.is_empty() {
            return;
        }
        state.stats.last_change_unix_ms = unix_micros() / 1000;
        self.revision.fetch_add(1, Ordering::Release);
        self.events.publish(&self.options.id, state.version(), &applied.differences);
    }

    fn now(&self) -> Mono {
        Mono::from_origin(self.started.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What is behind these locks is consistent between calls even if a holder
/// panics; such a panic ends the process anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
