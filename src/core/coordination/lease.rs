//! What is read from a Lease, and what is written to it.
//!
//! A Lease is no fence. What makes it trustworthy all the same is how it is
//! used: see `claim` for those who hold it, and `roster` for those who watch.

use std::sync::Arc;
use std::time::Duration;

use super::config::MAX_LEASE_DURATION;
use crate::ids::{Epoch, Instance, MemberName, Revision};
use crate::time::Mono;

/// Name of the leader's Lease.
pub const LEADER_LEASE: &str = "flotilla-leader";
/// What precedes a member's name in the name of its Lease.
pub const MEMBER_LEASE_PREFIX: &str = "flotilla-member-";

/// Which of our Leases.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseName {
    /// The leader's.
    Leader,
    /// A member's.
    Member(MemberName),
}

impl LeaseName {
    /// The Lease that has this name in Kubernetes; `None` if it is none of ours.
    pub fn parse(name: &str) -> Option<LeaseName> {
        if name == LEADER_LEASE {
            return Some(LeaseName::Leader);
        }
        let member = name.strip_prefix(MEMBER_LEASE_PREFIX).filter(|member| !member.is_empty())?;
        Some(LeaseName::Member(member.into()))
    }

    /// The Lease's `metadata.name`.
    pub fn object_name(&self) -> String {
        match self {
            LeaseName::Leader => LEADER_LEASE.to_owned(),
            LeaseName::Member(member) => format!("{MEMBER_LEASE_PREFIX}{member}"),
        }
    }
}

/// The part of a Lease that its writers decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseContent {
    /// `spec.holderIdentity`; `None` when released.
    pub holder: Option<Instance>,
    /// Annotation `fleet.flotilla.dev/previous`: the holder before this one, or
    /// the one that released it. Whoever is named here acts no more.
    pub previous: Option<Instance>,
    /// `spec.leaseDurationSeconds`
    pub duration: Duration,
    /// `spec.leaseTransitions`: for people to read.
    pub transitions: u32,
    /// Annotation `fleet.flotilla.dev/address`: where peers reach the holder.
    pub address: Arc<str>,
    /// Annotation `fleet.flotilla.dev/settled-epoch`: the holder acts only on
    /// what it owns in this epoch.
    pub settled: Option<Epoch>,
    /// Annotation `fleet.flotilla.dev/highest-epoch`: the highest epoch that
    /// the holder has heard of; zero if none.
    pub highest: Epoch,
}

/// A Lease as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: Revision,
    /// What its last writer decided.
    pub content: LeaseContent,
}

impl LeaseRecord {
    /// How long this record must stay unchanged before its holder counts as
    /// gone.
    pub fn patience(&self, own: Duration) -> Duration {
        if self.content.duration.is_zero() { own } else { self.content.duration.min(MAX_LEASE_DURATION) }
    }
}

/// What [`Breakage::WallClock`](crate::breakage::Breakage::WallClock) needs: Leases
/// that say when they were written, in the one field that is for people only.
impl LeaseRecord {
    /// When the holder wrote it, by the holder's clock.
    pub(super) fn written_at(&self) -> Mono {
        Mono::from_origin(Duration::from_secs(self.content.transitions.into()))
    }
}

impl Mono {
    /// What a writer puts there.
    pub(super) fn wall(self) -> u32 {
        u32::try_from(self.0 / 1_000_000_000).unwrap_or(u32::MAX)
    }
}

/// What must be true for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such Lease (POST).
    Absent,
    /// The Lease is still the one that was read (PUT with uid and
    /// resourceVersion; without the uid a PUT may create a deleted Lease).
    Unchanged {
        /// `metadata.uid`
        uid: Arc<str>,
        /// `metadata.resourceVersion`
        revision: Revision,
    },
}

/// A write of one Lease. Writers also set `spec.renewTime`, each time to a
/// later moment than before: a write that changes nothing would not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseWrite {
    /// What must be true for it to happen.
    pub precondition: Precondition,
    /// What is written.
    pub content: LeaseContent,
}

/// Why a request had no effect that we know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    /// The precondition did not hold (409, or 404 of an update): read again.
    Conflict,
    /// Anything else, time-outs included; the request may have had effect, or
    /// have it later. Try again, slower each time.
    Unavailable,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_leases_are_read_back_and_others_are_not_ours() {
        for name in [LeaseName::Leader, LeaseName::Member("flotilla-0".into())] {
            assert_eq!(LeaseName::parse(&name.object_name()), Some(name));
        }
        for other in ["", "flotilla-member-", "flotilla-leader-2", "kube-scheduler"] {
            assert_eq!(LeaseName::parse(other), None, "{other:?}");
        }
    }
}
