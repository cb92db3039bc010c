//! What a run is to be.

use std::path::PathBuf;
use std::time::Duration;

/// Which API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// A real kube-apiserver with etcd.
    Real,
    /// `flotilla apiserver`.
    Embedded,
}

/// How a replica is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blow {
    /// SIGKILL: it has no chance to say goodbye.
    Kill,
    /// SIGTERM: it is told to end.
    Term,
    /// SIGSTOP, and SIGCONT after a while: it does not know that it was away.
    Stop,
}

impl Blow {
    /// Its name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Blow::Kill => "kill",
            Blow::Term => "term",
            Blow::Stop => "stop",
        }
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The built `flotilla`.
    pub program: PathBuf,
    /// Which API server.
    pub api: Api,
    /// Replicas.
    pub replicas: usize,
    /// Namespaces of tenants.
    pub namespaces: usize,
    /// Gateways.
    pub gateways: usize,
    /// Changes per second.
    pub rate: u32,
    /// How many replicas are hit with each sort of blow, in turn.
    pub kills: usize,
    /// The sorts of blow.
    pub blows: Vec<Blow>,
    /// How long a stopped replica stands still.
    pub stopped_for: Duration,
    /// How long a killed replica stays away: what Kubernetes needs to start a
    /// container again.
    pub back_after: Duration,
    /// Whether all replicas are updated one after the other, too.
    pub rolling: bool,
}
