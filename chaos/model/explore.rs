//! Explores a model breadth first and says how far it came.

use std::fmt::Debug;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

/// Whether two states count as one. The product's state machines cannot be
/// compared, so equality follows what is hashed of them, as it does for
/// stateright itself, which knows a state by its fingerprint only.
pub(crate) fn same_hash(one: &impl Hash, other: &impl Hash) -> bool {
    let hashing = BuildHasherDefault::<DefaultHasher>::default();
    hashing.hash_one(one) == hashing.hash_one(other)
}

/// A model of which something is promised.
///
/// All promises are checked as one property, so that the search ends at the
/// first state that breaks any of them; with several it would go on looking for
/// the others and might show a longer way than the shortest.
pub trait Promises: Model {
    /// What is broken in `state`, if anything.
    fn violation(&self, state: &Self::State) -> Option<&'static str>;
}

/// How many states are looked at between two looks at the memory.
const LOOK_EVERY: usize = 10_000;

/// A model whose exploration ends at some time, or when its states need too much memory:
/// stateright looks at the clock only when a thread has run out of work, and never at
/// its memory.
struct Bounded<M> {
    model: M,
    until: Instant,
    memory: u64,
    looked: AtomicUsize,
    cut: Arc<AtomicBool>,
}

impl<M> Bounded<M> {
    fn goes_on(&self) -> bool {
        let look = self.looked.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY);
        if Instant::now() >= self.until || (look && resident() > self.memory) {
            self.cut.store(true, Ordering::Relaxed);
        }
        !self.cut.load(Ordering::Relaxed)
    }
}

/// Bytes of memory that this process has; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

impl<M: Promises> Model for Bounded<M> {
    type State = M::State;
    type Action = M::Action;

    fn init_states(&self) -> Vec<M::State> {
        self.model.init_states()
    }

    fn actions(&self, state: &M::State, actions: &mut Vec<M::Action>) {
        if self.goes_on() {
            self.model.actions(state, actions);
        }
    }

    fn next_state(&self, state: &M::State, action: M::Action) -> Option<M::State> {
        self.model.next_state(state, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("promises", |bounded: &Self, state| bounded.model.violation(state).is_none())]
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Threads that explore. With one, a counterexample is a shortest one.
    pub threads: usize,
    /// Real time after which the search ends, finished or not.
    pub time: Duration,
    /// Number of generated states after which it ends.
    pub states: usize,
    /// Bytes that this process may grow by before it ends; no limit where the system does
    /// not tell how much it has.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { threads: 1, time: Duration::from_secs(600), states: usize::MAX, memory: u64::MAX }
    }
}

/// What an exploration came to.
#[derive(Debug, Clone)]
pub struct Exploration {
    /// Transitions taken.
    pub transitions: usize,
    /// Different states seen.
    pub states: usize,
    /// Steps from the start to the farthest state looked at.
    pub depth: usize,
    /// Real time that it took.
    pub took: Duration,
    /// Whether every reachable state was looked at (or a violation ended it).
    pub complete: bool,
    /// The promise that was broken, and the steps that led there.
    pub violation: Option<(&'static str, Vec<String>)>,
}

/// Looks at every state that `model` can reach, within `limits`.
pub fn explore<M>(model: M, limits: Limits) -> Exploration
where
    M: Promises + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let started = Instant::now();
    let cut = Arc::new(AtomicBool::new(false));
    let bounded = Bounded {
        model,
        until: started + limits.time,
        memory: resident().saturating_add(limits.memory),
        looked: AtomicUsize::new(0),
        cut: cut.clone(),
    };
    let checker = bounded
        .checker()
        .threads(limits.threads)
        .target_state_count(limits.states)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let took = started.elapsed();
    let violation = checker.discovery("promises").map(|path| {
        let broken = checker.model().model.violation(path.last_state()).unwrap_or("promises");
        (broken, path.into_actions().iter().map(|action| format!("{action:?}")).collect())
    });
    Exploration {
        transitions: checker.state_count(),
        states: checker.unique_state_count(),
        // The start counts as one in stateright.
        depth: checker.max_depth().saturating_sub(1),
        took,
        complete: !cut.load(Ordering::Relaxed) && checker.state_count() < limits.states,
        violation,
    }
}
