//! What replicas tell each other, over mutual TLS.
//!
//! Every member dials every other one and speaks on the streams that it
//! dialled. What it has to say is state, not history: the epoch it settled,
//! what its gateways have applied, how far it has read. A stream that falls
//! behind or breaks is therefore given the newest state and nothing in between,
//! and no queue grows. Only forwarded acknowledgements and heartbeats are
//! messages; their queue is bounded and what does not fit is dropped and
//! counted, because a gateway's session recovers from a lost acknowledgement.

mod admit;
mod convert;
mod dial;
mod lines;
mod listen;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_certs::{ClientTls, Dial, Identity};
use flotilla_core::agreement::Testimony;
use flotilla_core::delivery::{Ack, AppliedTable, Tombstone};
use flotilla_core::ids::{Epoch, Frontier, GatewayId, Instance, Kind, MemberName, Revision, SessionId};
use flotilla_core::placement::LoadReport;
use flotilla_proto::peer::peer_message::Message;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::metrics::Metrics;

pub use admit::{AdmissionAnswer, AdmissionQuestion, AdmissionSource};
pub(crate) use convert::duration_in;
pub use dial::{PING, PeersTask};
use lines::Lines;
pub use listen::PeerService;

/// How many events may wait for the runtime; streams then wait, and with them
/// the members that speak on them, which lose nothing by it.
const EVENTS: usize = 256;

/// How many forwarded messages may wait for one member.
const FORWARDS: usize = 1024;

/// Where another member listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAddress {
    /// The member.
    pub member: MemberName,
    /// Its process: a new one is dialled anew.
    pub instance: Instance,
    /// Host and port.
    pub address: String,
}

/// Settings of the exchange.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// This replica's identity: its name is the member's name.
    pub identity: Identity,
    /// This process.
    pub instance: Instance,
    /// The history that it reads. Who reads another one is not listened to: its
    /// revisions say nothing here. Empty: everybody is.
    pub incarnation: Arc<str>,
    /// How to dial: must check for a controller of our trust domain.
    pub tls: ClientTls,
    /// What connections run over.
    pub dial: Dial,
    /// Shortest and longest pause between attempts to reach a member.
    pub backoff: (Duration, Duration),
    /// How long an attempt may take, Hello included.
    pub connect_timeout: Duration,
    /// Least time between two tables to one member.
    pub table_interval: Duration,
    /// How long a question for history may take.
    pub history_timeout: Duration,
}

impl PeersConfig {
    /// The defaults: attempts 0.1–5 s apart, 20 tables per second.
    pub fn new(identity: Identity, instance: Instance, tls: ClientTls) -> Self {
        PeersConfig {
            identity,
            instance,
            incarnation: Arc::default(),
            tls,
            dial: Dial::tcp(),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            connect_timeout: Duration::from_secs(5),
            table_interval: Duration::from_millis(50),
            history_timeout: Duration::from_secs(2),
        }
    }
}

/// What another member told us.
#[derive(Debug, Clone)]
pub enum PeerEvent {
    /// It is there. First of all events of a stream; what was known of an
    /// earlier stream of the member is superseded.
    Hello {
        /// The member, as its certificate confirms.
        member: MemberName,
        /// Its process.
        instance: Instance,
        /// The highest epoch it settled, zero for none.
        highest_epoch: Epoch,
        /// How far it has read.
        frontier: Frontier,
    },
    /// It acts by this epoch's owners and nothing else.
    Settled {
        /// The member.
        member: MemberName,
        /// Its process.
        instance: Instance,
        /// The epoch.
        epoch: Epoch,
    },
    /// It acts on nothing any more and goes away.
    Departed {
        /// The member.
        member: MemberName,
        /// Its process.
        instance: Instance,
    },
    /// What its gateways have applied; replaces its table before.
    Applied {
        /// The member.
        member: MemberName,
        /// Its process.
        instance: Instance,
        /// The table.
        table: AppliedTable,
    },
    /// What the namespaces that it owns weigh; replaces what it said before.
    Loads {
        /// The member.
        member: MemberName,
        /// Its report.
        report: Arc<LoadReport>,
    },
    /// What it holds and acts on; replaces what it said before.
    Testimony {
        /// The member.
        member: MemberName,
        /// Its testimony.
        testimony: Arc<Testimony>,
    },
    /// An acknowledgement for a session that may be ours.
    ForwardedAck(Ack),
    /// A heartbeat for a session that may be ours.
    ForwardedHeartbeat {
        /// The session it names.
        session: SessionId,
        /// The gateway, as confirmed by the member that got it.
        gateway: GatewayId,
        /// The version it names.
        version: String,
    },
    /// Its stream to us ended. Its Lease tells whether it is gone.
    Lost {
        /// The member.
        member: MemberName,
        /// The process whose stream ended.
        instance: Instance,
    },
}

/// Deletions of one kind that a member remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// All deletions above the revision asked for, up to `until`.
    pub tombstones: Vec<Tombstone>,
    /// How far the member has read the kind.
    pub until: Revision,
}

/// Answers other members' questions for history: kind and the revision above
/// which deletions are wanted; `None` when that is too far back.
pub type HistorySource = Arc<dyn Fn(Kind, Revision) -> BoxFuture<'static, Option<History>> + Send + Sync>;

/// What this replica has to say, newest only.
#[derive(Debug, Clone, Default)]
struct Outbox {
    settled: Option<(Instance, Epoch)>,
    departed: Option<Instance>,
    frontier: Frontier,
    table: Option<Arc<AppliedTable>>,
    loads: Option<Arc<LoadReport>>,
    testimony: Option<Arc<Testimony>>,
}

/// The replica's voice towards its peers; clones are the same one.
#[derive(Clone)]
pub struct Peers {
    outbox: watch::Sender<Outbox>,
    lines: Arc<Mutex<Lines>>,
    config: Arc<PeersConfig>,
    metrics: Metrics,
}

/// Everything that makes up the exchange: the handle, the task that dials (to
/// be run by the supervisor), the service (to be served by an acceptor), and
/// what the others say.
pub struct PeersParts {
    /// The replica's voice.
    pub peers: Peers,
    /// Dials and keeps the streams.
    pub task: PeersTask,
    /// Listens to the others.
    pub service: PeerService,
    /// What they say.
    pub events: mpsc::Receiver<PeerEvent>,
}

impl Peers {
    /// Makes the parts. `addresses` lists the other members (ourselves is
    /// skipped); `history` answers their questions; `shutdown` ends streams.
    pub fn parts(
        config: PeersConfig,
        addresses: watch::Receiver<Vec<PeerAddress>>,
        history: HistorySource,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> PeersParts {
        let (events_in, events) = mpsc::channel(EVENTS);
        let config = Arc::new(config);
        let peers = Peers {
            outbox: watch::Sender::new(Outbox::default()),
            lines: Arc::default(),
            config: config.clone(),
            metrics,
        };
        let tasks = TaskTracker::new();
        let task = PeersTask::new(peers.clone(), addresses, shutdown.clone(), tasks.clone());
        let service = PeerService::new(config, events_in, history, shutdown, tasks);
        PeersParts { peers, task, service, events }
    }

    /// This replica's name.
    pub fn member(&self) -> &str {
        &self.config.identity.name
    }

    /// Sets what our gateways have applied. The same table again is no news.
    pub fn set_applied(&self, table: Arc<AppliedTable>) {
        self.outbox.send_if_modified(|outbox| {
            let news = !outbox.table.as_ref().is_some_and(|told| Arc::ptr_eq(told, &table));
            outbox.table = Some(table);
            news
        });
    }

    /// Sets what the namespaces that we own weigh.
    pub fn set_loads(&self, loads: Arc<LoadReport>) {
        self.outbox.send_modify(|outbox| outbox.loads = Some(loads));
    }

    /// Sets what we hold and act on.
    pub fn set_testimony(&self, testimony: Arc<Testimony>) {
        self.outbox.send_modify(|outbox| outbox.testimony = Some(testimony));
    }

    /// Sets how far we have read; told with the next Hello.
    pub fn set_frontier(&self, frontier: Frontier) {
        // Nobody is woken for it: it changes with every event of every watch.
        self.outbox.send_if_modified(|outbox| {
            outbox.frontier = frontier;
            false
        });
    }

    /// Tells that we act by this epoch's owners and nothing else. An older
    /// epoch that a slow member has not heard of yet is not told any more.
    pub fn announce_settled(&self, instance: Instance, epoch: Epoch) {
        self.outbox.send_if_modified(|outbox| {
            let known = outbox.settled.as_ref();
            let news = known.is_none_or(|(whose, last)| *whose != instance || epoch > *last);
            if news {
                outbox.settled = Some((instance, epoch));
            }
            news
        });
    }

    /// Tells that we act on nothing any more.
    pub fn announce_departed(&self, instance: Instance) {
        self.outbox.send_modify(|outbox| outbox.departed = Some(instance));
    }

    /// The members that we reach at present.
    pub fn connected(&self) -> Vec<MemberName> {
        self.lines().members().cloned().collect()
    }

    /// Passes an acknowledgement on to the replica that has its session. The
    /// member in the session's id granted it, but a gateway may have taken it
    /// along to another replica; so all are told, and the one that knows the
    /// session takes it. That is rare and small enough not to be clever about.
    ///
    /// Returns whether it was handed to anybody.
    pub fn forward_ack(&self, ack: &Ack) -> bool {
        self.forward("ack", || Message::ForwardedAck(convert::ack_out(ack)))
    }

    /// Passes a heartbeat on, as [`Peers::forward_ack`].
    pub fn forward_heartbeat(&self, session: &SessionId, gateway: &GatewayId, version: &str) -> bool {
        self.forward("heartbeat", || {
            Message::ForwardedHeartbeat(convert::heartbeat_out(session, gateway, version))
        })
    }

    fn forward(&self, what: &str, message: impl Fn() -> Message) -> bool {
        let mut handed = false;
        for line in self.lines().all() {
            let outcome = match line.forwards.try_send(message()) {
                Ok(()) => {
                    handed = true;
                    "sent"
                }
                Err(_) => "dropped",
            };
            self.metrics.forwarded.with_label_values(&[what, outcome]).inc();
        }
        handed
    }

    /// Asks all members for deletions of a kind above `since`. The first answer is taken that
    /// reaches up to `until`: one who is gone, and has not been missed yet, then keeps nobody waiting.
    pub async fn history(&self, kind: Kind, since: Revision, until: Revision) -> Option<History> {
        let clients: Vec<_> = self.lines().all().map(|line| line.client.clone()).collect();
        let mut questions: FuturesUnordered<_> = clients
            .into_iter()
            .map(|client| dial::ask(client, kind, since, self.config.history_timeout))
            .collect();
        while let Some(answer) = questions.next().await {
            match answer {
                Ok(Some(history)) if history.until >= until => return Some(history),
                Ok(_) => {}
                Err(error) => debug!(%error, %kind, "a peer could not be asked for history"),
            }
        }
        None
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Lines> {
        // A panic elsewhere leaves the lines whole: no change of them can panic.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
