//! Ways to be wrong, on purpose: so that whoever looks for violations can show that
//! it finds them.
//!
//! A [`Breakage`] comes in by the configurations of the parts that it is about, as a
//! value; nothing is global. Without the feature `breakage`, which only the simulator
//! asks for, [`Breakages`] holds nothing, the answer is always no, and the compiler
//! leaves out what depends on it.

use serde::{Deserialize, Serialize};

/// One way to be wrong. Each takes away one of the precautions that the promises rest
/// on; the name says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Breakage {
    /// A replica that could not renew its member Lease goes on acting.
    SelfFencingOff,
    /// A renewal counts from its answer and not from its sending.
    ValidFromAnswer,
    /// A Lease is judged by the time that its holder wrote into it, compared with the
    /// own clock.
    WallClock,
    /// A fenced replica comes back under the name of the instance that was fenced.
    InstanceReused,
    /// What a map gives to a replica it acts on at once.
    BarrierSkipped,
    /// What a map takes away a replica goes on acting on.
    LossIgnored,
    /// That others have settled an epoch is not taken in.
    ReleaseUnheard,
    /// When the map has been deleted, epochs begin anew.
    EpochForgotten,
    /// Statuses are written without preconditions and after the writer's time.
    FencingOff,
    /// Every replica writes all statuses.
    EveryoneWrites,
    /// Statuses are written although tables of other replicas are missing.
    MissingTablesIgnored,
    /// Counts that moved because gateways came or went are not written again.
    CountsNotRefreshed,
    /// Deletions are forgotten although gateways may have to be told of them.
    TombstonesForgotten,
    /// A list that is older than what was seen is taken.
    StaleListTaken,
    /// A replica serves a gateway as soon as it has seen what the gateway has
    /// entirely, and not all of which it may have a part.
    LowForHigh,
    /// A replica serves a gateway that is ahead of it.
    FrontierIgnored,
    /// Any acknowledgement counts for the batch under way.
    OtherAckCounted,
    /// What a gateway rejected is forgotten when it comes to another replica.
    ExclusionsForgotten,
    /// A full synchronisation leaves one kind out.
    KindOmitted,
    /// Of objects that claim the same, the youngest is delivered.
    YoungestWins,
    /// Deletions are not sent.
    DeletionNotSent,
    /// What was sent counts as applied.
    SentCounted,
    /// Every change that a gateway has not seen is queued for it.
    QueuePerGateway,
    /// A full synchronisation is sent while the gateway ignores those that shrink.
    GuardIgnored,
    /// Every message of a batch carries the version of the batch's end.
    VersionTooEarly,
    /// After a rejection a gateway gets nothing more.
    RejectionBlocks,
    /// Gateways are served before all kinds are listed.
    UnlistedServed,
    /// A gateway rests for as long as its share of time asks, however slow it is.
    PauseUnbounded,
    /// What was admitted is not reserved until it shows up.
    ReservationsForgotten,
    /// Whoever is asked about an admission decides, and not the owner.
    OwnerNotAsked,
    /// Gateways that come holding something are served although for long nobody has said
    /// which history is the cluster's.
    SilenceIgnored,
    /// A Lease of the history that was renewed more often is a later one.
    MarksIgnored,
    /// The leader plans anew as soon as one carries more than another.
    Undamped,
    /// Whatever is planned is planned without regard to where everything was.
    PlacedAnew,
}

impl Breakage {
    /// Those that the simulator finds.
    pub const FOUND: [Breakage; 25] = [
        Breakage::SelfFencingOff,
        Breakage::WallClock,
        Breakage::InstanceReused,
        Breakage::BarrierSkipped,
        Breakage::LossIgnored,
        Breakage::ReleaseUnheard,
        Breakage::EpochForgotten,
        Breakage::FencingOff,
        Breakage::CountsNotRefreshed,
        Breakage::TombstonesForgotten,
        Breakage::LowForHigh,
        Breakage::FrontierIgnored,
        Breakage::ExclusionsForgotten,
        Breakage::KindOmitted,
        Breakage::YoungestWins,
        Breakage::DeletionNotSent,
        Breakage::SentCounted,
        Breakage::QueuePerGateway,
        Breakage::GuardIgnored,
        Breakage::VersionTooEarly,
        Breakage::RejectionBlocks,
        Breakage::ReservationsForgotten,
        Breakage::OwnerNotAsked,
        Breakage::Undamped,
        Breakage::PlacedAnew,
    ];

    /// Those that it has not found yet, or only together with something else: another
    /// precaution covers them, or what they harm is too rare.
    pub const UNFOUND: [Breakage; 9] = [
        Breakage::ValidFromAnswer,
        Breakage::EveryoneWrites,
        Breakage::MissingTablesIgnored,
        Breakage::StaleListTaken,
        Breakage::OtherAckCounted,
        Breakage::UnlistedServed,
        Breakage::PauseUnbounded,
        Breakage::SilenceIgnored,
        Breakage::MarksIgnored,
    ];
}

/// Which ways of being wrong are in force: none by default, and one at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breakages {
    #[cfg(feature = "breakage")]
    one: Option<Breakage>,
}

impl Breakages {
    /// Only this one.
    #[cfg(feature = "breakage")]
    pub const fn only(one: Breakage) -> Self {
        Breakages { one: Some(one) }
    }

    /// Whether this one is in force.
    #[cfg(feature = "breakage")]
    pub fn is(self, one: Breakage) -> bool {
        self.one == Some(one)
    }

    /// Whether this one is in force: never.
    #[cfg(not(feature = "breakage"))]
    #[inline(always)]
    pub const fn is(self, _one: Breakage) -> bool {
        false
    }
}
