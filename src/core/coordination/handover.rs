//! When this replica may act on what: the settled-epoch barrier.
//!
//! On a new map a replica at once stops acting on what the map gives to others
//! and, when its writes there have ended, *settles* the map's epoch: it tells
//! everybody "I act only on what I own in this epoch". What it keeps, it goes on
//! acting on. What it gains, it acts on when every other member of the map has
//! settled exactly this epoch, or has ended (see `roster`).
//!
//! Why that suffices. Suppose another process acts on a namespace that is ours
//! in epoch e. It acts under an earlier map (a later one it could have gained by
//! only after we settled that, and in e we own the namespace). If e's map names
//! it, it has not settled e. If not, whoever published e knew that it had ended,
//! as everybody must who publishes a map without a member of the map before.
//!
//! Why keeping is safe when epochs were skipped. Whoever owned the namespace in
//! a skipped epoch could gain it only after we had settled that epoch, which we
//! never did, or had ended, which we have not. That is also why a member that
//! has settled a *later* epoch does not count as settled: it may have kept what
//! our epoch gives to us.

use std::fmt;
use std::sync::Arc;

use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, Instance, MemberName};
use crate::shardmap::{MapMember, Ownership};
use crate::time::Mono;

/// So many maps may follow each other without the barrier being passed once;
/// then everything kept is given up too and waits for the barrier.
const MAX_PENDING_MAPS: usize = 32;

/// Names one request to stop acting; later requests have higher tickets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct DrainTicket(pub u64);

impl fmt::Display for DrainTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a replica may act on, and until when. A value, to be handed to whoever
/// asks from other tasks.
#[derive(Debug, Clone)]
pub struct Acting {
    member: MemberName,
    /// It acts on what it owns in all of these; on nothing if there are none.
    /// Usually one: more while the barrier for the last one is still closed.
    maps: Arc<[Arc<Ownership>]>,
    until: Mono,
    breakage: Breakages,
}

impl Acting {
    /// Acting on nothing.
    pub fn nothing(member: MemberName) -> Self {
        Acting { member, maps: Arc::new([]), until: Mono(0), breakage: Breakages::default() }
    }

    /// Whether `namespace` may be acted on at `now`. Ask immediately before
    /// each write: the answer holds until [`Acting::until`] at most.
    pub fn may_act(&self, now: Mono, namespace: &str) -> bool {
        (now < self.until || self.breakage.is(Breakage::FencingOff)) && self.covers(namespace)
    }

    /// Whether `namespace` is among what is acted on, whatever the time.
    pub fn covers(&self, namespace: &str) -> bool {
        !self.maps.is_empty() && self.maps.iter().all(|map| map.owner(namespace) == Some(&self.member))
    }

    /// The epoch in which it acts: that of the newest of its maps; zero while it
    /// acts on nothing.
    pub fn epoch(&self) -> Epoch {
        self.maps.iter().map(|map| map.epoch()).max().unwrap_or_default()
    }

    /// When it ends by itself unless the Lease is renewed before.
    pub fn until(&self) -> Mono {
        self.until
    }
}

/// What is known of a member's word about an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It may still act under an earlier map, as far as is known.
    Unknown,
    /// The epoch that it settled last.
    Settled(Epoch),
    /// It acts no more and never will again.
    Ended,
}

/// The barrier of one replica. See the module's description.
///
/// It is public for those who explore it apart from Leases and time; the
/// product reaches it through [`Coordinator`](super::Coordinator).
#[derive(Debug, Clone)]
pub struct Handover {
    member: MemberName,
    /// The running tenure.
    tenure: Option<Instance>,
    /// The newest accepted map.
    current: Option<Arc<Ownership>>,
    /// See [`Acting::maps`]. Every one of them names the running tenure.
    maps: Arc<[Arc<Ownership>]>,
    /// Whether the barrier for `current` has been passed.
    passed: bool,
    /// The last ticket given out.
    ticket: DrainTicket,
    /// The epoch that becomes settled when `ticket` is drained.
    draining: bool,
    settled: Option<Epoch>,
    breakage: Breakages,
}

impl Handover {
    /// The barrier of a replica that knows no map and has no tenure.
    pub fn new(member: MemberName, breakage: Breakages) -> Self {
        Handover {
            member,
            tenure: None,
            current: None,
            maps: Arc::new([]),
            passed: false,
            ticket: DrainTicket(0),
            draining: false,
            settled: None,
            breakage,
        }
    }

    /// The newest accepted map.
    pub fn current(&self) -> Option<&Arc<Ownership>> {
        self.current.as_ref()
    }

    /// The newest accepted map's epoch; zero before the first.
    pub fn epoch(&self) -> Epoch {
        self.current.as_ref().map_or(Epoch(0), |map| map.epoch())
    }

    /// The epoch last settled.
    pub fn settled(&self) -> Option<Epoch> {
        self.settled
    }

    /// Whether `current` names the running tenure.
    pub fn is_listed(&self) -> bool {
        match (&self.current, &self.tenure) {
            (Some(current), Some(tenure)) => current.map().lists(&self.member, tenure),
            _ => false,
        }
    }

    /// What may be acted on while the Lease is good until `until`.
    pub fn acting(&self, until: Option<Mono>) -> Acting {
        match until {
            Some(until) => {
                let (member, maps) = (self.member.clone(), self.maps.clone());
                Acting { member, maps, until, breakage: self.breakage }
            }
            None => Acting::nothing(self.member.clone()),
        }
    }

    fn next_ticket(&mut self) -> DrainTicket {
        self.ticket = DrainTicket(self.ticket.0 + 1);
        self.draining = true;
        self.ticket
    }

    /// The member Lease was obtained by `instance`.
    pub fn begin_tenure(&mut self, instance: Instance) {
        self.tenure = Some(instance);
    }

    /// Stops all acting.
    pub fn fence(&mut self) -> DrainTicket {
        self.tenure = None;
        self.maps = Arc::new([]);
        self.passed = false;
        self.next_ticket()
    }

    /// Takes a map of a later epoch into account.
    pub fn accept(&mut self, map: Arc<Ownership>) -> DrainTicket {
        self.passed = false;
        self.current = Some(map.clone());
        let mut maps = self.maps.to_vec();
        if !self.is_listed() || maps.len() >= MAX_PENDING_MAPS {
            maps.clear();
        } else if let Some(last) = maps.last_mut().filter(|_| !self.breakage.is(Breakage::LossIgnored)) {
            if last.owns_alike(&map) {
                *last = map;
            } else {
                maps.push(map);
            }
        }
        self.maps = maps.into();
        self.next_ticket()
    }

    /// The writes that `ticket` is about have ended. Returns the epoch that is
    /// settled thereby.
    pub fn drained(&mut self, ticket: DrainTicket) -> Option<Epoch> {
        if !self.draining || ticket < self.ticket {
            return None;
        }
        self.draining = false;
        let epoch = self.current.as_ref()?.epoch();
        self.settled = Some(epoch);
        Some(epoch)
    }

    /// Passes the barrier if it is open, by what `standing` knows of the other
    /// members. True if it has just been passed.
    pub fn try_pass(&mut self, standing: impl Fn(&MapMember) -> Standing) -> bool {
        let Some(current) = &self.current else { return false };
        if self.passed || !self.is_listed() {
            return false;
        }
        let epoch = current.epoch();
        let skipped = self.breakage.is(Breakage::BarrierSkipped);
        let open = skipped
            || current.map().members.iter().all(|member| {
                member.name == self.member
                    || match standing(member) {
                        Standing::Settled(settled) => settled == epoch,
                        Standing::Ended => true,
                        Standing::Unknown => false,
                    }
            });
        if open {
            self.maps = Arc::new([current.clone()]);
            self.passed = true;
        }
        open
    }

    /// Whether the barrier for the newest map has been passed.
    pub fn has_passed(&self) -> bool {
        self.passed
    }
}
