//! One run, completely: what there is, what the weather is like, and everything
//! that tenants, operators and fate are going to do, with times. A scenario can be
//! written down and played again, and entries of its plan can be left out to find
//! the few that matter.

use flotilla_core::ids::Kind;
use serde::{Deserialize, Serialize};

use crate::universe::Spec;

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// What the choices that the plan does not fix (delays, losses) follow from.
    pub seed: u64,
    /// What there is.
    pub shape: Shape,
    /// How network, API server and processes behave until the faults end.
    pub weather: Weather,
    /// What is done, in the order of time.
    pub plan: Vec<Planned>,
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Replicas, at most 32.
    pub replicas: u8,
    /// Watch caches before the log; each replica reads from one at a time.
    pub caches: u8,
    /// Namespaces, at most 10,000.
    pub namespaces: u16,
    /// Places for objects per kind and namespace, at most 100.
    pub names: u8,
    /// The gateways.
    pub gateways: Vec<GatewayShape>,
    /// Milliseconds until the faults end and everything heals.
    pub active: u64,
    /// Milliseconds that everything has after that to become right.
    pub quiet: u64,
    /// Whether routes that claim something go through an admission.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reviewed: bool,
}

/// One gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayShape {
    /// Namespaces that it asks for; empty: all.
    pub namespaces: Vec<u16>,
    /// Whether disputed contents are poison to it.
    pub picky: bool,
    /// Whether it does not say what it is that it rejects. The published gateway
    /// names it.
    #[serde(default = "mute")]
    pub mute: bool,
    /// Microseconds that one increment takes it.
    pub increment_us: u32,
    /// Microseconds that one resource of a snapshot takes it.
    pub resource_us: u32,
}

/// What scenarios were like that do not say it.
fn mute() -> bool {
    true
}

fn is_zero(share: &u32) -> bool {
    *share == 0
}

/// How things behave, faults apart. Shares are in millionths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// Shortest and longest ordinary way of a message, in microseconds.
    pub latency_us: (u32, u32),
    /// How many messages are late, and by how many milliseconds at most.
    pub late: u32,
    /// See [`Weather::late`].
    pub late_ms: u32,
    /// How far watch caches lag behind the log, in milliseconds at most.
    pub cache_lag_ms: u32,
    /// Requests to the API server that get lost on the way there.
    pub lost_requests: u32,
    /// Answers of the API server that get lost.
    pub lost_answers: u32,
    /// Requests that are answered with an error of the server (500).
    pub failed_requests: u32,
    /// Requests that are put off (429).
    pub throttled_requests: u32,
    /// Words between peers that get lost or come twice.
    pub unreliable_words: u32,
    /// Acknowledgements of gateways that get lost.
    pub lost_acks: u32,
    /// Writes to the API server, and calls of gateways, that arrive a second time: who
    /// passes them on has sent them again. One of the two answers is heard.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub twice: u32,
    /// Microseconds that a replica's task waits for its processor at most.
    pub scheduling_us: u32,
    /// Milliseconds that a round of the reporter takes.
    pub round_ms: u32,
    /// By how much replicas' clocks differ in rate, in millionths at most.
    pub drift_ppm: u32,
    /// Milliseconds between two batches that limits allow to one gateway.
    pub batch_every_ms: u32,
    /// Largest message to a gateway in bytes.
    pub message_limit: u64,
    /// How many deletions a replica remembers per kind.
    pub tombstones: u32,
    /// Seconds after which the API server forgets history.
    pub history_s: u32,
    /// Objects that one page of a list has at most; 0: all. The product asks for 500.
    #[serde(default)]
    pub page: u32,
}

/// The longest latency, and the longest lag of a cache, with which all goes as it should.
const FAST_US: u32 = 20_000;
const FRESH_MS: u32 = 100;

impl Weather {
    /// Whether it keeps requests to the API server from going as they should.
    pub fn troubles_api_server(&self) -> bool {
        let shares = [self.lost_requests, self.lost_answers, self.failed_requests, self.throttled_requests];
        shares.iter().any(|share| *share > 0) || self.cache_lag_ms > FRESH_MS
    }

    /// Whether it keeps messages between replicas and to gateways from arriving in time.
    pub fn troubles_network(&self) -> bool {
        let shares = [self.late, self.lost_acks, self.unreliable_words];
        shares.iter().any(|share| *share > 0) || self.latency_us.1 > FAST_US
    }

    /// The same without either.
    #[must_use]
    pub fn without_trouble(self) -> Weather {
        Weather {
            latency_us: (self.latency_us.0.min(FAST_US), self.latency_us.1.min(FAST_US)),
            late: 0,
            cache_lag_ms: self.cache_lag_ms.min(FRESH_MS),
            lost_requests: 0,
            lost_answers: 0,
            failed_requests: 0,
            throttled_requests: 0,
            unreliable_words: 0,
            lost_acks: 0,
            ..self
        }
    }
}

/// Something that is done at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Milliseconds after the beginning.
    pub at: u64,
    /// What is done.
    pub what: What,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A tenant does something.
    Tenant(Tenant),
    /// An operator does something.
    Operator(Operator),
    /// Fate does something.
    Fault(Fault),
}

/// A place for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The namespace's number.
    pub namespace: u16,
    /// The kind.
    pub kind: Kind,
    /// The name's number.
    pub name: u8,
}

/// What tenants do. What makes no sense at the time is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tenant {
    /// Creates an object or changes its spec.
    Put(Place, Spec),
    /// Changes an object without changing its spec: labels, another's status.
    Touch(Place),
    /// Deletes an object.
    Delete(Place),
    /// Deletes an object that a finalizer keeps for so many milliseconds.
    DeleteSlowly(Place, u32),
    /// Deletes everything in a namespace.
    DeleteNamespace(u16),
}

/// What operators do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    /// Pins a namespace to a replica.
    Pin(u16, u8),
    /// Takes a pin away.
    Unpin(u16),
    /// Takes a replica out of ownership.
    Drain(u8),
    /// Gives it back.
    Undrain(u8),
    /// Ends a replica in order (SIGTERM); it starts again after so many
    /// milliseconds.
    Restart(u8, u32),
    /// Deletes the ShardMap.
    DeleteMap,
    /// Deletes a replica's member Lease.
    DeleteLease(u8),
    /// Deletes the leader's Lease.
    DeleteLeaderLease,
    /// Edits a replica's member Lease without meaning anything by it.
    TouchLease(u8),
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// A replica.
    Replica(u8),
    /// The API server behind one watch cache.
    Api(u8),
    /// One gateway.
    Gateway(u16),
}

/// What fate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A replica's process is killed and starts again after so many milliseconds.
    Crash(u8, u32),
    /// It is killed right before (`false`) or after (`true`) its n-th next write
    /// to the API server; starts again after so many milliseconds.
    CrashAtWrite(u8, u32, bool, u32),
    /// It stands still for so many milliseconds; its clock goes on.
    Pause(u8, u32),
    /// Its clock jumps ahead by so many milliseconds.
    ClockJump(u8, u32),
    /// Its clock drifts by so many millionths from now on.
    ClockDrift(u8, i32),
    /// Its machine's clock runs at so many thousandths of the true rate, 500 to 2,000,
    /// for so many milliseconds: no Lease means anything to it.
    ClockRate(u8, u32, u32),
    /// Its machine's wall clock is set: from now on it is so many seconds ahead of
    /// true time, or behind, at most a day.
    WallClock(u8, i32),
    /// Nothing gets from one end to the other for so many milliseconds; the other
    /// direction works.
    Cut(End, End, u32),
    /// What a replica sends to the API server arrives so many milliseconds late,
    /// for as long.
    LateRequests(u8, u32),
    /// The API server behind a cache answers nothing for so many milliseconds.
    ApiDown(u8, u32),
    /// It answers each n-th request with an error, for so many milliseconds.
    ApiFails(u8, u32, u32),
    /// A watch cache stands still for so many milliseconds.
    CacheFrozen(u8, u32),
    /// Lists of objects are answered from a cache that is so many milliseconds
    /// old, for as long.
    StaleLists(u8, u32),
    /// All watches of a replica on one kind break, 4 and 5 being Leases and map.
    WatchBreaks(u8, u8),
    /// The API server forgets its history now.
    Compact,
    /// A backup of etcd is made.
    Backup,
    /// etcd is replaced by the last backup, or is empty when there is none (a
    /// standalone server whose disk forgot), and the API servers are away for so many
    /// milliseconds: revisions go back and are used again.
    Restore(u32),
    /// A gateway's process starts again.
    GatewayRestart(u16),
    /// A gateway's connection breaks.
    GatewayHop(u16),
    /// It breaks so many messages after the gateway has next rejected something: in
    /// the middle of what is done about that.
    HopInTrouble(u16, u16),
    /// A gateway reads nothing for so many milliseconds.
    GatewayStalls(u16, u32),
    /// A gateway's acknowledgements and heartbeats go to another replica, for so
    /// many milliseconds.
    AcksElsewhere(u16, u32),
}

/// Kinds of faults, for statistics.
impl Fault {
    /// A short name.
    pub const fn name(&self) -> &'static str {
        match self {
            Fault::Crash(..) => "crash",
            Fault::CrashAtWrite(..) => "crash at a write",
            Fault::Pause(..) => "pause",
            Fault::ClockJump(..) => "clock jump",
            Fault::ClockDrift(..) => "clock drift",
            Fault::ClockRate(..) => "clock at a wrong rate",
            Fault::WallClock(..) => "wall clock set",
            Fault::Cut(..) => "one-way cut",
            Fault::LateRequests(..) => "late requests",
            Fault::ApiDown(..) => "API server down",
            Fault::ApiFails(..) => "API server fails",
            Fault::CacheFrozen(..) => "watch cache frozen",
            Fault::StaleLists(..) => "stale lists",
            Fault::WatchBreaks(..) => "watch breaks",
            Fault::Compact => "compaction",
            Fault::Backup => "backup of etcd",
            Fault::Restore(_) => "etcd restored",
            Fault::GatewayRestart(..) => "gateway restart",
            Fault::GatewayHop(..) => "gateway hop",
            Fault::HopInTrouble(..) => "gateway hop in trouble",
            Fault::GatewayStalls(..) => "gateway stalls",
            Fault::AcksElsewhere(..) => "acknowledgements elsewhere",
        }
    }
}
