//! What happened in a run, or in many, as numbers.

use std::collections::BTreeMap;
use std::fmt;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Steps of the simulation.
    Events,
    /// Writes by tenants.
    Changes,
    /// Acts of operators.
    Operations,
    /// Contents that came to or left a gateway.
    Deliveries,
    /// Processes killed.
    Kills,
    /// Processes ended in order.
    Restarts,
    /// Streams opened.
    Connects,
    /// Batches sent to gateways.
    Batches,
    /// Messages in them.
    Messages,
    /// Acknowledgements taken in.
    Acks,
    /// Calls that arrived a second time.
    Twice,
    /// Statuses written.
    Statuses,
    /// Writes of statuses that were refused or changed nothing.
    StatusesRefused,
    /// Rounds of reporters.
    Rounds,
    /// Looks of delivery engines.
    Polls,
    /// Events that watches showed.
    WatchEvents,
    /// Complete lists of a kind.
    Lists,
    /// Words between peers.
    Words,
    /// Writes of Leases.
    LeaseWrites,
    /// Tenures begun.
    Tenures,
    /// Maps published.
    Maps,
    /// Writes that an owner admitted and that may create no conflict.
    Admitted,
    /// Writes that were denied.
    Denied,
    /// Writes that nobody answered for, or that were overtaken by others.
    Unasked,
    /// Statuses that said "everywhere" and could be judged (I3).
    JudgedEverywhere,
    /// Removals from gateways (I4).
    JudgedRemovals,
    /// Maps that were compared with the one before (I6).
    JudgedMaps,
    /// Changes of quiet tenants whose way to a gateway could be judged (I7).
    JudgedReached,
    /// Figures of memory (I9).
    JudgedMemory,
}

impl Count {
    const ALL: [Count; 29] = [
        Count::Events,
        Count::Changes,
        Count::Operations,
        Count::Deliveries,
        Count::Kills,
        Count::Restarts,
        Count::Connects,
        Count::Batches,
        Count::Messages,
        Count::Acks,
        Count::Twice,
        Count::Statuses,
        Count::StatusesRefused,
        Count::Rounds,
        Count::Polls,
        Count::WatchEvents,
        Count::Lists,
        Count::Words,
        Count::LeaseWrites,
        Count::Tenures,
        Count::Maps,
        Count::Admitted,
        Count::Denied,
        Count::Unasked,
        Count::JudgedEverywhere,
        Count::JudgedRemovals,
        Count::JudgedMaps,
        Count::JudgedReached,
        Count::JudgedMemory,
    ];

    /// Of what the observer judges not everything it sees: one that never had anything to
    /// judge proves nothing.
    pub const JUDGED: [Count; 5] = [
        Count::JudgedEverywhere,
        Count::JudgedRemovals,
        Count::JudgedMaps,
        Count::JudgedReached,
        Count::JudgedMemory,
    ];

    const fn name(self) -> &'static str {
        match self {
            Count::Events => "events",
            Count::Changes => "changes",
            Count::Operations => "operators' acts",
            Count::Deliveries => "deliveries",
            Count::Kills => "kills",
            Count::Restarts => "restarts in order",
            Count::Connects => "streams",
            Count::Batches => "batches",
            Count::Messages => "messages",
            Count::Acks => "acknowledgements",
            Count::Twice => "calls that came twice",
            Count::Statuses => "statuses written",
            Count::StatusesRefused => "statuses refused",
            Count::Rounds => "reporter rounds",
            Count::Polls => "delivery polls",
            Count::WatchEvents => "watch events",
            Count::Lists => "lists",
            Count::Words => "words of peers",
            Count::LeaseWrites => "lease writes",
            Count::Tenures => "tenures",
            Count::Maps => "maps",
            Count::Admitted => "admissions by owners",
            Count::Denied => "admissions denied",
            Count::Unasked => "admissions unanswered",
            Count::JudgedEverywhere => "statuses of \"everywhere\" judged",
            Count::JudgedRemovals => "removals judged",
            Count::JudgedMaps => "maps judged",
            Count::JudgedReached => "changes judged on their way",
            Count::JudgedMemory => "figures of memory judged",
        }
    }
}

/// Counts of one run, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    counts: [u64; Count::ALL.len()],
    faults: BTreeMap<&'static str, u64>,
    /// Simulated nanoseconds.
    pub simulated: u64,
    /// Runs.
    pub runs: u64,
}

impl Statistics {
    /// Those of one run that has just begun.
    pub fn of_one_run() -> Self {
        Statistics { runs: 1, ..Statistics::default() }
    }

    /// One more.
    pub fn count(&mut self, what: Count) {
        self.counts[what as usize] += 1;
    }

    /// So many more.
    pub fn add(&mut self, what: Count, number: u64) {
        self.counts[what as usize] += number;
    }

    /// One more fault of a kind.
    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    /// How many there were.
    pub fn of(&self, what: Count) -> u64 {
        self.counts[what as usize]
    }

    /// Takes in those of another run.
    pub fn absorb(&mut self, other: &Statistics) {
        for (own, others) in self.counts.iter_mut().zip(&other.counts) {
            *own += others;
        }
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        self.simulated += other.simulated;
        self.runs += other.runs;
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.simulated / 360_000_000_000;
        writeln!(f, "{:>12} runs, {}.{} simulated hours", self.runs, tenths / 10, tenths % 10)?;
        for count in Count::ALL {
            writeln!(f, "{:>12} {}", self.of(count), count.name())?;
        }
        for (name, count) in &self.faults {
            writeln!(f, "{count:>12} x {name}")?;
        }
        Ok(())
    }
}
