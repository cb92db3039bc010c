//! What goes into the delivery engine and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Scope;
use crate::breakage::Breakages;
use crate::digest::digest;
use crate::ids::{Frontier, GatewayId, Kind, ObjectKey, Revision, SessionId};
use crate::object::Resource;
use crate::time::Mono;

/// A gateway opened its stream.
#[derive(Debug, Clone)]
pub struct Connect {
    /// The session that its registration got (or a fresh one if it has none
    /// that we know).
    pub session: SessionId,
    /// Who it is, as confirmed by its certificate.
    pub gateway: GatewayId,
    /// What it gets of what it asked for.
    pub scope: Scope,
    /// The version it last applied; empty after its restart.
    pub last_version: String,
    /// When it last registered, if this replica saw that: its guards count
    /// from there. `None` means that it may have been just now.
    pub registered: Option<Mono>,
}

/// An acknowledgement, from whichever connection or replica it came.
#[derive(Debug, Clone)]
pub struct Ack {
    /// The session it names.
    pub session: SessionId,
    /// The gateway it came from.
    pub gateway: GatewayId,
    /// The version it acknowledges.
    pub version: String,
    /// `Err` carries the gateway's own words.
    pub result: Result<(), String>,
    /// How long the gateway says it took.
    pub apply_duration: Duration,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckVerdict {
    /// It was the one the session waited for.
    Taken,
    /// This replica has no such session: pass it on.
    UnknownSession,
    /// The session exists and never sent that version, or it was acknowledged
    /// before.
    NeverSent,
}

/// What became of comparing what a gateway holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holdings {
    /// Nothing can be said: something is under way to it, is news for it, or was
    /// rejected by it.
    Apart,
    /// It holds what it is to hold.
    Equal,
    /// It does not.
    Different,
}

/// A deletion that happened at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Kind of the object.
    pub kind: Kind,
    /// The object that is gone.
    pub key: ObjectKey,
    /// The revision of its deletion.
    pub revision: Revision,
}

/// What the adapter has to do, in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Write these updates to the session's stream, with sequence numbers
    /// counting up from `first_sequence`.
    Send {
        /// The session to write to.
        session: SessionId,
        /// What to write: shared with other sessions at the same position.
        batch: Arc<Batch>,
        /// Sequence of the batch's first update.
        first_sequence: i64,
    },
    /// End the session's stream with status UNAVAILABLE and this message.
    End {
        /// The session to end.
        session: SessionId,
        /// Why, for the status and the log.
        reason: EndReason,
    },
    /// A gateway resumes from before our tombstones: find out what was deleted
    /// since, from peers or from the API server's own history, and answer with
    /// `history` or `history_unavailable`.
    NeedHistory {
        /// The kind whose tombstones do not reach back far enough.
        kind: Kind,
        /// How far back they have to reach (deletions above this revision).
        since: Revision,
    },
    /// Something worth a log line and a metric.
    Notice(Notice),
}

/// Why the engine ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// No acknowledgement came in time.
    AckTimeout,
    /// The same gateway opened a newer stream.
    Superseded,
    /// It missed three heartbeats.
    Stale,
    /// This replica is going away.
    Drain,
    /// This replica has more than its share.
    Balance,
}

/// Things the engine noticed, for logs and metrics.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A gateway's version cannot be resumed; the reason is for people.
    NotResumable {
        /// The gateway.
        gateway: GatewayId,
        /// Why (other cluster, other scope, unreadable, beyond our history).
        reason: String,
    },
    /// A gateway is ahead of this replica: nothing is sent until we catch up.
    AheadOfUs {
        /// The gateway.
        gateway: GatewayId,
        /// How far it is.
        high: Frontier,
    },
    /// A gateway's version is of another history: nothing is sent to it until
    /// this replica's is confirmed (see [`super::Delivery::confirmed`]). Said
    /// again every few seconds for as long as one waits.
    OtherHistory {
        /// The gateway.
        gateway: GatewayId,
        /// The history that its version names.
        incarnation: Arc<str>,
    },
    /// For too long nobody has said which history is the cluster's, because this process
    /// stood still or the API server does not answer. Nothing is sent to gateways that
    /// come holding something until that is confirmed (see [`super::Delivery::confirmed`]).
    /// Said again every few seconds for as long as one waits.
    OutOfTouch {
        /// Since when at least; `None`: since the start.
        since: Option<Mono>,
    },
    /// A gateway rejected a resource; its last good version stays there.
    Rejected {
        /// The gateway.
        gateway: GatewayId,
        /// Kind of the resource.
        kind: Kind,
        /// The resource.
        key: ObjectKey,
        /// The gateway's words.
        message: String,
    },
    /// A batch was acknowledged as a whole.
    Applied {
        /// The gateway.
        gateway: GatewayId,
        /// From handing the batch to the transport to its last acknowledgement.
        took: Duration,
        /// Number of updates that it took, of those that change what it holds.
        updates: usize,
        /// Whether it was a full synchronisation.
        full: bool,
    },
    /// A gateway heartbeats without having a stream (wire: a "zombie").
    Zombie {
        /// The gateway.
        gateway: GatewayId,
    },
    /// A list was older than what this replica had seen already, and was
    /// ignored: the API server answered from an old cache or was restored.
    StaleList {
        /// The kind that was listed.
        kind: Kind,
        /// The list's revision.
        revision: Revision,
        /// What had been seen.
        seen: Revision,
    },
    /// A gateway rejected messages and did not get well by anything that was
    /// tried: it is synchronised anew.
    Unrepairable {
        /// The gateway.
        gateway: GatewayId,
        /// Its words about the last attempt.
        message: String,
    },
    /// A gateway does not hold what it has acknowledged.
    HoldsOther {
        /// The gateway.
        gateway: GatewayId,
        /// Resources that it lacks, as far as its sums tell them; not all of many.
        lacks: Vec<(Kind, ObjectKey)>,
        /// In how many parts of the sums it differs.
        parts: usize,
    },
    /// An acknowledgement for something never sent.
    UnexpectedAck {
        /// The gateway.
        gateway: GatewayId,
        /// The version that it named.
        version: String,
    },
}

/// Updates that go out together; identical for every session at the same
/// position. One or none is in flight per session.
#[derive(Debug)]
pub struct Batch {
    /// Unique in this process: the key under which adapters keep the encoded form.
    pub id: u64,
    /// In sending order.
    pub updates: Vec<Update>,
    /// Upper bound of the encoded size in bytes, for rate limits.
    pub bytes: u64,
    /// Whether it holds a full synchronisation with a snapshot.
    pub full: bool,
}

/// One message to a gateway.
#[derive(Debug)]
pub struct Update {
    /// What it changes.
    pub change: Change,
    /// The version that the gateway has after it.
    pub version: Arc<str>,
    /// Whether it is the last of its batch.
    pub last: bool,
}

/// The change that one message makes.
#[derive(Debug)]
pub enum Change {
    /// Add or replace one resource.
    Upsert {
        /// The resource.
        resource: Arc<Resource>,
        /// Whether the gateway is thought not to have it yet (ADDED or MODIFIED).
        added: bool,
    },
    /// Remove one resource.
    Delete {
        /// Its kind.
        kind: Kind,
        /// Its key.
        key: ObjectKey,
    },
    /// Replace everything.
    FullSync(Snapshot),
    /// A full synchronisation without snapshot: sets sequence and version and
    /// nothing else (wire point 7).
    Reset,
    /// Sets the version and nothing else (wire point 9). It is not waited for.
    Heartbeat,
}

/// The content of a full synchronisation.
#[derive(Debug)]
pub struct Snapshot {
    /// Per kind in the order they are to be sent.
    pub resources: Vec<Arc<Resource>>,
    /// Entries with an empty spec that only count (wire point 10): they keep
    /// the gateway's guard against shrinking quiet and are dropped by it.
    pub padding: Vec<(Kind, ObjectKey)>,
}

impl Snapshot {
    /// Lower-case hex SHA-256 over the resources' content, see [`crate::digest`].
    /// Worked out anew with each call: it is asked for once, when the snapshot is
    /// encoded for all who get it, and never for one that is not sent.
    pub fn checksum(&self) -> String {
        digest(self.resources.iter().map(Arc::as_ref))
    }
}

/// Rates that the adapter enforces; the engine asks before it sends.
pub trait Limits {
    /// May a batch of this many bytes go to this gateway now? `Err` says when
    /// to ask again.
    fn admit(&mut self, now: Mono, gateway: &GatewayId, bytes: u64) -> Result<(), Mono>;
}

/// No limits.
#[derive(Debug, Default, Clone, Copy)]
pub struct Unlimited;

impl Limits for Unlimited {
    fn admit(&mut self, _now: Mono, _gateway: &GatewayId, _bytes: u64) -> Result<(), Mono> {
        Ok(())
    }
}

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// First part of every version: 8 hex digits that name the cluster.
    pub cluster: Arc<str>,
    /// Second part of every version: 8 hex digits that name the history.
    pub incarnation: Arc<str>,
    /// Largest encoded message in bytes (4,194,304 for AVAPIGW gateways).
    pub message_limit: u64,
    /// Largest number of updates in one batch.
    pub batch_updates: usize,
    /// Largest encoded size of one batch of increments in bytes.
    pub batch_bytes: u64,
    /// Share of a gateway's time that applying may take, 0 < d ≤ 1 (0.05).
    pub duty_cycle: f64,
    /// Longest pause that the duty cycle may cause.
    pub max_pause: Duration,
    /// How long to wait for a batch's acknowledgements.
    pub ack_timeout: Duration,
    /// Heartbeat interval told to gateways; three missed make it stale.
    pub heartbeat_interval: Duration,
    /// For how long after a Register a gateway ignores shrinking full
    /// synchronisations (30 s).
    pub shrink_guard: Duration,
    /// How many full synchronisations may be in flight at once.
    pub concurrent_full_syncs: usize,
    /// Changes in a second from which on news of a namespace, if there is no other, waits for
    /// more of it; 0: never.
    pub loud_changes: u32,
    /// For how long at most.
    pub loud_patience: Duration,
    /// Quiet time after which a gateway's version is moved forward by an empty
    /// message, so that it can be resumed precisely.
    pub version_refresh: Duration,
    /// How many tombstones are kept per kind.
    pub tombstones: usize,
    /// How old the last look at the cluster's history may be before gateways wait for
    /// another one ([`Notice::OutOfTouch`]); `None` where nobody looks.
    pub out_of_touch: Option<Duration>,
    /// What is wrong on purpose: see [`crate::breakage`].
    pub breakage: Breakages,
}

impl DeliveryConfig {
    /// The defaults for AVAPIGW gateways of one cluster.
    pub fn avapigw(cluster: impl Into<Arc<str>>) -> Self {
        DeliveryConfig {
            cluster: cluster.into(),
            incarnation: "00000000".into(),
            message_limit: 4 * 1024 * 1024,
            batch_updates: 512,
            batch_bytes: 4 * 1024 * 1024,
            duty_cycle: 0.05,
            max_pause: Duration::from_secs(5),
            ack_timeout: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(30),
            shrink_guard: Duration::from_secs(30),
            concurrent_full_syncs: 16,
            loud_changes: 100,
            loud_patience: Duration::from_millis(50),
            version_refresh: Duration::from_secs(5),
            tombstones: 100_000,
            out_of_touch: None,
            breakage: Breakages::default(),
        }
    }
}

/// One row of the "position → gateways" table that replicas exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedRow {
    /// What these gateways asked for.
    pub scope: Scope,
    /// Everything up to here is applied.
    pub low: Frontier,
    /// Content hashes (see [`crate::version::content_hash`]) of resources that
    /// these gateways lack although `low` includes them.
    pub excluded: Vec<(Kind, u32)>,
    /// `low` cannot be trusted at all: they were found with an exclusion list
    /// that was too long, or synchronise for the first time.
    pub unknown: bool,
    /// How many gateways.
    pub gateways: u32,
    /// Their identities, when the replica serves few enough (32 or fewer).
    pub names: Vec<GatewayId>,
}

/// A rejection that is in force on one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Kind of the resource.
    pub kind: Kind,
    /// The resource.
    pub key: ObjectKey,
    /// Content hash of the rejected state.
    pub content: u32,
    /// The gateway.
    pub gateway: GatewayId,
    /// Its own words.
    pub message: String,
}

/// What one replica's gateways have applied: complete, not a difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppliedTable {
    /// Most often one row: all gateways at the newest position.
    pub rows: Vec<AppliedRow>,
    /// At most 256; the rest still counts in the rows' exclusions.
    pub rejections: Vec<Rejection>,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// It waits for this replica to see as much as the gateway holds.
    Waiting,
    /// What the gateway holds is not known precisely: it waits until a full
    /// synchronisation is taken.
    AwaitingFullSync,
    /// Nothing is under way.
    Idle,
    /// A batch is under way.
    InFlight,
}

/// A session, for tools and metrics.
#[derive(Debug, Clone)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// Its gateway.
    pub gateway: GatewayId,
    /// What the gateway asked for.
    pub scope: Scope,
    /// Everything up to here is applied; `None`: not known.
    pub low: Option<Frontier>,
    /// Nothing beyond here was sent.
    pub high: Frontier,
    /// Revisions between `low` and the replica's frontier, of the kind that
    /// lags most.
    pub lag: u64,
    /// Updates in the batch under way.
    pub in_flight: usize,
    /// Nothing is sent before this moment (duty cycle).
    pub pause_until: Mono,
    /// What it is doing.
    pub state: SessionState,
    /// Resources that the gateway rejected.
    pub rejections: usize,
    /// Whether its gateway was dialled: see [`super::Delivery::anchor`].
    pub dialled: bool,
}

/// What the engine keeps besides objects and sessions: bounded by both, never
/// by the number of changes. For metrics and tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Positions for which something is computed and cached.
    pub plans: usize,
    /// Bytes of the batches that are cached or under way, each counted once
    /// per position.
    pub batch_bytes: u64,
    /// Outcomes remembered as delivered ahead of a position, over all sessions.
    pub ahead: usize,
    /// Resources kept because some gateway may still hold them.
    pub previous: usize,
    /// Deletions kept, over all kinds.
    pub tombstones: usize,
}

/// The bytes of one delivered spec, as tests and digests see them.
pub type SpecJson = Bytes;
