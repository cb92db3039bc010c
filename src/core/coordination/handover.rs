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

use super::roster::Roster;
use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, Instance, MemberName};
use crate::shardmap::Ownership;
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

    /// When it ends by itself unless the Lease is renewed before.
    pub fn until(&self) -> Mono {
        self.until
    }
}

#[derive(Debug)]
pub(super) struct Handover {
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
    pub(super) fn new(member: MemberName, breakage: Breakages) -> Self {
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

    pub(super) fn current(&self) -> Option<&Arc<Ownership>> {
        self.current.as_ref()
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.current.as_ref().map_or(Epoch(0), |map| map.epoch())
    }

    /// The epoch last settled.
    pub(super) fn settled(&self) -> Option<Epoch> {
        self.settled
    }

    /// Whether `current` names the running tenure.
    pub(super) fn is_listed(&self) -> bool {
        match (&self.current, &self.tenure) {
            (Some(current), Some(tenure)) => current.map().lists(&self.member, tenure),
            _ => false,
        }
    }

    pub(super) fn acting(&self, until: Option<Mono>) -> Acting {
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

    pub(super) fn begin_tenure(&mut self, instance: Instance) {
        self.tenure = Some(instance);
    }

    /// Stops all acting.
    pub(super) fn fence(&mut self) -> DrainTicket {
        self.tenure = None;
        self.maps = Arc::new([]);
        self.passed = false;
        self.next_ticket()
    }

    /// Takes a map of a later epoch into account.
    pub(super) fn accept(&mut self, map: Arc<Ownership>) -> DrainTicket {
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
    pub(super) fn drained(&mut self, ticket: DrainTicket) -> Option<Epoch> {
        if !self.draining || ticket < self.ticket {
            return None;
        }
        self.draining = false;
        let epoch = self.current.as_ref()?.epoch();
        self.settled = Some(epoch);
        Some(epoch)
    }

    /// Passes the barrier if it is open. True if it has just been passed.
    pub(super) fn try_pass(&mut self, roster: &Roster) -> bool {
        let Some(current) = &self.current else { return false };
        if self.passed || !self.is_listed() {
            return false;
        }
        let epoch = current.epoch();
        let skipped = self.breakage.is(Breakage::BarrierSkipped);
        let open = skipped
            || current.map().members.iter().all(|member| {
                member.name == self.member
                    || roster.settled(&member.instance) == Some(epoch)
                    || roster.has_ended(&member.instance)
            });
        if open {
            self.maps = Arc::new([current.clone()]);
            self.passed = true;
        }
        open
    }

    /// Whether the barrier for the newest map has been passed.
    pub(super) fn has_passed(&self) -> bool {
        self.passed
    }
}
