//! What can be seen of a fleet from outside.
//!
//! Everything here is a fact about tenants, the API server, gateways and what
//! replicas do, never about what the product thinks of it: where a replica's belief
//! matters (that it may act), whoever watches asks the replica and reports the
//! answer. Events borrow what they list and own nothing, so that telling a million
//! of them allocates nothing.

use crate::ids::{At, Content, GatewayId, InstanceId, NamespaceId, ObjectId};

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A tenant's write of an object's spec has landed at the API server: its
    /// creation or a change.
    Written(Write<'a>),
    /// A tenant's deletion has landed: the object is gone, or is being deleted and
    /// only waits for a finalizer. Its end thereafter is no event.
    Deleted {
        /// Which object.
        object: ObjectId,
        /// At which `metadata.resourceVersion`.
        revision: u64,
    },

    /// The API server's log is replaced by that of a backup, or by nothing. Instances
    /// that are there may act on what is no more until they notice: they are held to
    /// nothing but what they write. Epochs and maps begin again where the backup is.
    /// What becomes of each object follows as [`Event::Restored`].
    HistoryReplaced,
    /// By that, an object is what it was once, or is not there.
    Restored {
        /// Which object.
        object: ObjectId,
        /// Its `metadata.resourceVersion`, or the end of the log.
        revision: u64,
        /// What it is; `None`: it is not there, or is being deleted.
        past: Option<Past>,
    },

    /// An instance believes from now on that it may act on a namespace, as long as
    /// its time lasts ([`Event::ActingUntil`]).
    ActingStarted {
        /// Who.
        instance: InstanceId,
        /// On what.
        namespace: NamespaceId,
        /// By which map.
        epoch: u64,
    },
    /// It does not any more.
    ActingStopped {
        /// Who.
        instance: InstanceId,
        /// On what.
        namespace: NamespaceId,
    },
    /// All acting of an instance ends at this moment of true time unless it is told
    /// again; until the first time that it is told, it acts on nothing.
    ActingUntil {
        /// Who.
        instance: InstanceId,
        /// The moment at which its own clock says so, in true time.
        until: At,
    },
    /// What an instance believes about its time may be wrong: its clock runs at another
    /// rate than the others', or jumped, or that of whoever publishes maps does. What it
    /// writes must do no harm all the same.
    ClockUntrusted {
        /// Whose.
        instance: InstanceId,
    },
    /// An instance is gone for ever: it crashed, finished, or fenced itself.
    InstanceEnded {
        /// Who.
        instance: InstanceId,
    },
    /// An instance's write of a status has landed and changed the object.
    StatusWritten {
        /// Who wrote.
        instance: InstanceId,
        /// What.
        object: ObjectId,
        /// The object's `metadata.resourceVersion` after it.
        revision: u64,
        /// What it says.
        says: Claim,
    },
    /// An instance's write of a status was refused by the API server, or changed
    /// nothing.
    StatusRefused {
        /// Whose.
        instance: InstanceId,
        /// Of what.
        object: ObjectId,
    },
    /// A map was published.
    MapPublished(Map<'a>),
    /// Somebody deleted the map: the next one is made without one before it.
    MapDeleted,

    /// A gateway's stream is open.
    Connected {
        /// The gateway.
        gateway: GatewayId,
        /// The instance that serves it.
        instance: InstanceId,
        /// The namespaces that it asked for; empty: all.
        namespaces: &'a [NamespaceId],
        /// The kinds that it asked for, as bits; 0: all.
        kinds: u32,
    },
    /// A gateway has no stream any more.
    Disconnected {
        /// The gateway.
        gateway: GatewayId,
    },
    /// A gateway's process starts again, with nothing.
    GatewayRestarted {
        /// The gateway.
        gateway: GatewayId,
    },
    /// A gateway holds this content of an object from now on.
    Holds {
        /// The gateway.
        gateway: GatewayId,
        /// The object.
        object: ObjectId,
        /// What of it.
        content: Content,
        /// Which of the content's references ([`Write::references`]) it got as
        /// present: bit i for the i-th.
        resolved: u32,
    },
    /// A gateway holds nothing of an object any more.
    Dropped {
        /// The gateway.
        gateway: GatewayId,
        /// The object.
        object: ObjectId,
        /// By what.
        by: Removal,
    },

    /// The admission of a write was decided, before the write.
    Admission {
        /// The object to be written.
        object: ObjectId,
        /// What it claims; two objects with the same claim are in conflict.
        claim: u32,
        /// Whether it was admitted.
        allowed: bool,
    },

    /// Something does not work as it should, by the world's fault and not the
    /// product's.
    Impaired(Subject),
    /// It works again.
    Recovered(Subject),
    /// What an instance keeps in memory.
    Memory(Memory),
    /// Tenants and operators have rested, everything works, and time enough has
    /// passed for all to be settled: now all must be equal.
    Quiet,
}

/// A tenant's write of a spec.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// What was written.
    pub object: ObjectId,
    /// A number for `metadata.uid`: another one after a deletion.
    pub uid: u32,
    /// `metadata.resourceVersion` after it.
    pub revision: u64,
    /// `metadata.generation` after it.
    pub generation: u32,
    /// The number that is in the spec.
    pub content: Content,
    /// Whether gateways are to get it: `false` when the specification of the kind
    /// says that it cannot be delivered (unusable regular expression, …).
    pub valid: bool,
    /// Who refuses it although it is valid.
    pub refused: Refused<'a>,
    /// The objects whose presence it asks about, at most 32, each once: a route's
    /// destinations that name Backends of its namespace.
    pub references: &'a [ObjectId],
    /// What it claims for itself alone, if anything: of several, the oldest gets it.
    pub claim: Option<u32>,
    /// `metadata.creationTimestamp`, in seconds.
    pub created: u64,
}

/// What an object has become again.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    /// What it holds: as it was written once.
    pub content: Content,
    /// A number for `metadata.uid`.
    pub uid: u32,
    /// `metadata.generation`
    pub generation: u32,
    /// What its status says.
    pub says: Option<Claim>,
    /// Whether it is what it was until now, its status apart.
    pub same: bool,
}

/// Which gateways refuse a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused<'a> {
    /// None.
    Nowhere,
    /// All.
    Everywhere,
    /// All, but those that get it in a full synchronisation leave it out and say
    /// nothing: a status may then count them among those that have it.
    Silently,
    /// These.
    By(&'a [GatewayId]),
}

/// What a status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// `status.observedGeneration`
    pub generation: u32,
    /// What it says of delivery.
    pub ready: Ready,
}

/// What the condition `Ready` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// `True`: so many gateways have it, all that are to.
    True {
        /// How many.
        gateways: u32,
    },
    /// On its way: these of those have it.
    Progress {
        /// How many have it.
        applied: u32,
        /// Of how many.
        gateways: u32,
    },
    /// Some gateways refused it.
    Rejected {
        /// How many have it.
        applied: u32,
        /// Of how many.
        gateways: u32,
    },
    /// It is not delivered, because it cannot be.
    Invalid,
    /// It is not delivered, because an older object claims the same.
    Conflict,
    /// No gateway is there to have it.
    NoGateways,
}

/// A published map. Members and seats are called by a number of the caller's choice
/// for their lasting names, in any order.
#[derive(Debug, Clone, Copy)]
pub struct Map<'a> {
    /// Its number.
    pub epoch: u64,
    /// Those that are there and may own namespaces.
    pub members: &'a [u32],
    /// They, and those that are away and whose place is kept.
    pub seats: &'a [u32],
    /// Who owns each namespace by this map, by namespace.
    pub owners: &'a [u32],
    /// At which seat each is at home: while that is away, somebody stands in for it.
    pub homes: &'a [u32],
    /// What operators wished in it: these namespaces move by order.
    pub pins: &'a [(NamespaceId, u32)],
    /// By what it was planned; `None`: nobody could see that.
    pub basis: Option<Basis<'a>>,
}

/// What was known to whoever planned a map when it did so.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The process that planned it.
    pub planner: InstanceId,
    /// When, by the planner's own clock.
    pub clock: u64,
    /// What namespaces weigh, as the members of the map before had told the planner
    /// since they had that map; 0: there is nothing in it. `None` while not all had.
    pub weights: Option<&'a [u64]>,
}

/// How a gateway came to lose an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It was told that the object is gone.
    Deletion,
    /// It got everything anew, and the object was not in it.
    Snapshot,
}

/// What may work or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The API server, for all.
    ApiServer,
    /// The network between replicas and gateways, for all.
    Network,
    /// One instance: paused, slow, or cut off from something.
    Instance(InstanceId),
    /// One gateway: slow, paused, or cut off.
    Gateway(GatewayId),
}

/// What an instance keeps in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Who.
    pub instance: InstanceId,
    /// Sessions of gateways.
    pub sessions: u64,
    /// Objects that it knows.
    pub objects: u64,
    /// Deletions that it remembers.
    pub tombstones: u64,
    /// Items that are kept for delivery, over all sessions: earlier contents, what
    /// was sent ahead, updates that wait.
    pub queued: u64,
    /// Bytes of batches that are kept or under way.
    pub queued_bytes: u64,
}
