//! What a [`Coordinator`](super::Coordinator) is told, and what it asks for.

use std::sync::Arc;

use super::handover::DrainTicket;
use super::lease::{LeaseName, LeaseRecord, LeaseWrite, RequestError};
use super::roster::LeaseList;
use crate::ids::{Epoch, Instance, MemberName, Revision};
use crate::placement::LoadReport;
use crate::shardmap::{OperatorSpec, PublishedMap};
use crate::time::Mono;

/// The ShardMap object as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRecord {
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: Revision,
    /// What operators wish.
    pub spec: OperatorSpec,
    /// What was published; `None` before the first time.
    pub published: Option<PublishedMap>,
    /// Whether `published` was planned from this very spec. If it was not, the
    /// leader publishes anew, be it only to say so.
    pub in_step: bool,
}

/// A write of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapWrite {
    /// Create the object with an empty spec and nothing published.
    Create,
    /// Publish `map`, if the object is still the one of `uid` and `revision`.
    Publish {
        /// `metadata.uid`
        uid: Arc<str>,
        /// `metadata.resourceVersion`
        revision: Revision,
        /// What to publish.
        map: PublishedMap,
    },
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time has passed: the first event, and whenever
    /// [`Coordinator::next_deadline`](super::Coordinator::next_deadline) is reached.
    Tick,
    /// Answer to [`Action::ListLeases`], or a list read for a watch.
    LeasesListed(Result<LeaseList, RequestError>),
    /// A watch shows that a Lease was created or changed.
    LeaseChanged(LeaseName, LeaseRecord),
    /// A watch shows that a Lease was deleted, at this revision.
    LeaseDeleted(LeaseName, Revision),
    /// Answer to [`Action::ReadLease`] (`None`: there is none) or
    /// [`Action::WriteLease`] (what is there now).
    LeaseAnswered(LeaseName, Result<Option<LeaseRecord>, RequestError>),
    /// Answer to [`Action::ReadMap`], or a read for a watch.
    MapRead {
        /// When the request was sent (read before sending).
        sent_at: Mono,
        /// The object; `None` if there is none.
        answer: Result<Option<MapRecord>, RequestError>,
    },
    /// A watch shows that the map was created or changed.
    MapChanged(MapRecord),
    /// A watch shows that the map was deleted, at this revision.
    MapDeleted(Revision),
    /// Answer to [`Action::WriteMap`]: what is there now.
    MapWritten(Result<MapRecord, RequestError>),
    /// A peer says that it acts only on what it owns in this epoch.
    PeerSettled {
        /// The peer's instance.
        instance: Instance,
        /// The epoch.
        epoch: Epoch,
    },
    /// A peer says that it acts no more.
    PeerDeparted {
        /// The peer's instance.
        instance: Instance,
    },
    /// A peer says what the highest epoch is that it has heard of.
    PeerHello {
        /// That epoch.
        highest: Epoch,
    },
    /// A member, ourselves included, says what the namespaces that it owns
    /// weigh; it replaces what it said before.
    Loads {
        /// The member.
        member: MemberName,
        /// Its report.
        report: Arc<LoadReport>,
    },
    /// All writes for namespaces that are not acted on any more have ended.
    Drained(DrainTicket),
    /// Stop acting, give up both Leases, and finish.
    Shutdown,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read one Lease consistently.
    ReadLease(LeaseName),
    /// Write one Lease.
    WriteLease(LeaseName, LeaseWrite),
    /// Read all Leases consistently (no `resourceVersion` in the request).
    ListLeases,
    /// Delete the Lease of a member that is long gone, if it is still this one.
    /// Not answered.
    DeleteLease {
        /// Which.
        name: LeaseName,
        /// `metadata.uid`
        uid: Arc<str>,
        /// `metadata.resourceVersion`
        revision: Revision,
    },
    /// Read the map consistently.
    ReadMap,
    /// Write the map.
    WriteMap(MapWrite),
    /// [`Coordinator::acting`](super::Coordinator::acting) has shrunk: finish or abandon what is being
    /// written for other namespaces and answer [`Event::Drained`]. A later
    /// ticket includes the earlier ones.
    StopActing(DrainTicket),
    /// Tell all peers.
    AnnounceSettled {
        /// Our instance.
        instance: Instance,
        /// The epoch.
        epoch: Epoch,
    },
    /// Tell all peers that we act no more.
    AnnounceDeparted {
        /// Our instance.
        instance: Instance,
    },
    /// Shutdown is complete; no further action follows.
    Finished,
}
