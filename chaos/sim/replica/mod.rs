//! One process of a replica: the product's decisions, put together as its runtime
//! puts them together, without the tasks and sockets in between.
//!
//! What the product decides in adapters is modelled beside it, file by file:
//! `coordination` and `watches` what `src/k8s` does, `serving` and `peers` what
//! `src/grpc` does, `reporting`, `history` and `lineage` what `src/runtime/replica`
//! does, `admission` what `src/runtime/webhook` does.

pub mod admission;
pub mod coordination;
pub mod history;
pub mod lineage;
pub mod peers;
pub mod reporting;
pub mod requests;
pub mod serving;
pub mod watches;
pub mod weighing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use flotilla_avapigw::AvapigwStatus;
use flotilla_core::applied::AppliedView;
use flotilla_core::coordination::Coordinator;
use flotilla_core::delivery::{Delivery, Limits};
use flotilla_core::ids::{Frontier, GatewayId, Instance, Kind, MemberName, Revision, SessionId};
use flotilla_core::report::Reporter;
use flotilla_core::shardmap::Ownership;
use flotilla_core::time::Mono;

use crate::api::LANES;
use crate::clock::{Clock, MILLIS};
use crate::compiler::SharedCompiler;
use crate::gateway::wire::Wire;
use admission::Admission;
use history::Inherits;
use lineage::Lineage;
use peers::{Heard, Line, Outbox};
use reporting::Report;
use watches::Watch;
use weighing::Weighing;

/// One process. See the module's description.
pub struct Process {
    /// Its number among all processes of the run.
    pub life: u32,
    /// The replica's name.
    pub member: MemberName,
    /// The process's name, as its Leases say it.
    pub instance: Instance,
    /// Its clock.
    pub clock: Clock,
    /// It stands still until this true time.
    pub paused_until: u64,
    /// When it ends after having been told to.
    pub dies_at: Option<u64>,
    /// The true time for which its timer is set.
    pub timer: Option<u64>,

    /// Who acts on what.
    pub coordinator: Coordinator,
    /// When it has something to do next: it moves with its steps alone, and is asked
    /// for after everything else, too.
    pub coordinator_due: Option<Mono>,
    /// What the rest of the process was told about that.
    pub shown: Shown,
    /// What the observer was told about that.
    pub acts: Acts,

    /// Objects and sessions.
    pub engine: Delivery<SharedCompiler>,
    /// Rates of delivery.
    pub limits: Throttle,
    /// Which history it reads, where the log may be replaced.
    pub lineage: Option<Lineage>,
    /// What is claimed, where admissions are asked for.
    pub admission: Option<Admission>,
    /// Lists and watches.
    pub watches: [Watch; LANES],
    /// Open streams: gateway and number of its stream.
    pub streams: BTreeMap<SessionId, (usize, u32)>,
    /// Batches decoded for gateways, newest last.
    pub wires: VecDeque<Arc<Wire>>,
    /// What the rest of the process was told of delivery.
    pub view: View,
    /// Questions for history that are still to be answered, oldest first.
    pub questions: VecDeque<(Kind, Revision, Revision)>,
    /// What it asks for before a gateway needs it.
    pub inherits: Inherits,

    /// Statuses.
    pub reporter: Reporter<AvapigwStatus>,
    /// All replicas' tables.
    pub applied: AppliedView,
    /// What carries out the reporter's patches.
    pub report: Report,

    /// What its namespaces weigh.
    pub weighing: Weighing,
    /// What is to be told to peers.
    pub outbox: Outbox,
    /// Our lines to other replicas, by slot.
    pub lines: Vec<Line>,
    /// Others' lines to us, by slot.
    pub heard: Vec<Heard>,
}

/// What was last shown of coordination.
#[derive(Debug, Default)]
pub struct Shown {
    /// Epoch, whether it leads, whether everything is taken over.
    pub key: (u64, bool, bool),
    /// Moves with each change of the key.
    pub acting: u64,
    /// The accepted map.
    pub ownership: Option<Arc<Ownership>>,
}

/// What the observer was told about acting.
#[derive(Debug, Default)]
pub struct Acts {
    /// What the rest was computed for.
    pub key: (u64, bool, Option<Instance>),
    /// The observer's number of the running tenure.
    pub tenure: Option<flotilla_observer::InstanceId>,
    /// By namespace.
    pub on: Vec<bool>,
    /// The true time at which it all ends, as last told.
    pub until: u64,
}

/// What was last published of delivery.
#[derive(Debug, Default)]
pub struct View {
    /// [`Delivery::applied_changes`] of the published table.
    pub table: Option<u64>,
    /// The published frontier.
    pub frontier: Frontier,
    /// The published number of streams.
    pub streams: usize,
    /// Whether all kinds are listed.
    pub ready: bool,
    /// Not published again before this true time.
    pub due: u64,
}

impl Process {
    /// What its clock shows.
    pub fn local(&self, now: u64) -> Mono {
        self.clock.read(now)
    }

    /// Whether gateways are sent here: what a load balancer would know by now.
    pub fn is_ready(&self) -> bool {
        self.engine.store().ready() && self.dies_at.is_none()
    }

    /// Whether what is published of delivery is out of date.
    pub fn view_is_old(&self) -> bool {
        self.view.table != Some(self.engine.applied_changes())
            || self.view.frontier != self.engine.frontier()
            || self.view.streams != self.streams.len()
            || self.view.ready != self.engine.store().ready()
    }
}

/// A rate of batches per gateway: one bucket each, one batch deep.
#[derive(Debug, Default)]
pub struct Throttle {
    every: u64,
    /// By gateway.
    next: Vec<Mono>,
}

impl Throttle {
    /// One batch per gateway in so many milliseconds; 0: no limit.
    pub fn new(every_ms: u32, gateways: usize) -> Self {
        Throttle { every: u64::from(every_ms) * MILLIS, next: vec![Mono(0); gateways] }
    }
}

impl Limits for Throttle {
    fn admit(&mut self, now: Mono, gateway: &GatewayId, _bytes: u64) -> Result<(), Mono> {
        if self.every == 0 {
            return Ok(());
        }
        let index: Option<usize> = gateway.name.get(1..).and_then(|digits| digits.parse().ok());
        let Some(next) = index.and_then(|index| self.next.get_mut(index)) else { return Ok(()) };
        if now < *next {
            return Err(*next);
        }
        *next = Mono(now.0 + self.every);
        Ok(())
    }
}
