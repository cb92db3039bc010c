//! What is read from a Lease, what is written to it, and how one replica
//! obtains, keeps and gives up a Lease of its own.
//!
//! Rules that make a Lease trustworthy although it is no fence:
//! - Its holder relies on a renewal for duration − margin, counted from the
//!   moment the request was *sent*.
//! - Another candidate takes it when it is released, or when it has stayed
//!   unchanged for its whole duration since the candidate *saw* it change. The
//!   take-over names the revision it was judged by, so a renewal that was not
//!   seen makes it fail. Wall clocks are never compared.
//! - A deleted Lease proves nothing: its last holder may not know yet. One who
//!   knows that there was a holder waits its whole duration.
//! - Every write names who held it before (`previous`), so that whoever reads a
//!   Lease with a new holder or none knows whose time has ended in an orderly way.
//!
//! A [`Claim`] is in one of these states, moved by answers, by what watches
//! show, and by time:
//!
//! | state | moves on when |
//! |---|---|
//! | unread | it has been read |
//! | absent, held by another | it may be created, or taken over |
//! | held | validity has passed, another holder shows, or it is gone: not held |
//! | released | never: the process ends |

use std::sync::Arc;
use std::time::Duration;

use super::config::{LeaseTiming, MAX_LEASE_DURATION};
use crate::backoff::{Backoff, BackoffConfig, Jitter};
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

/// A request that a claim wants made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimRequest {
    Read,
    Write(LeaseWrite),
}

/// What a claim is to do at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Want {
    /// Obtain it and keep it, with this as content (`previous`, `transitions`
    /// and `duration` are filled in).
    Hold { holder: Instance, address: Arc<str>, settled: Option<Epoch>, highest: Epoch },
    /// Give it up if any of our instances has it.
    Release,
    /// Nothing.
    Rest,
}

#[derive(Debug, Clone)]
enum Known {
    Unread,
    /// `free_at`: when it may be created, because `last`, who held it, can then
    /// no longer rely on it.
    Absent {
        free_at: Mono,
        last: Option<Instance>,
    },
    Present {
        record: LeaseRecord,
        seen_at: Mono,
    },
}

#[derive(Debug, Clone)]
struct Held {
    instance: Instance,
    sent_at: Mono,
    valid_until: Mono,
}

#[derive(Debug, Clone)]
enum InFlight {
    Read { sent_at: Mono },
    Hold { sent_at: Mono, holder: Instance },
    Release,
}

/// One replica's claim to one Lease.
#[derive(Debug)]
pub(super) struct Claim {
    timing: LeaseTiming,
    /// The process whose instances all start like this.
    base: Instance,
    known: Known,
    held: Option<Held>,
    in_flight: Option<InFlight>,
    /// What was known last is not what the API server has.
    must_read: bool,
    backoff: Backoff,
    conflicts: Backoff,
    /// No request before this.
    retry_at: Mono,
    /// Renew without waiting for the interval to pass.
    renew_soon: bool,
}

impl Claim {
    pub(super) fn new(timing: LeaseTiming, backoff: BackoffConfig, base: Instance) -> Self {
        Claim {
            timing,
            base,
            known: Known::Unread,
            held: None,
            in_flight: None,
            must_read: false,
            backoff: Backoff::new(backoff),
            conflicts: Backoff::new(backoff),
            retry_at: Mono(0),
            renew_soon: false,
        }
    }

    /// Until when the Lease is ours; `None` when it is not.
    pub(super) fn valid_until(&self) -> Option<Mono> {
        self.held.as_ref().map(|held| held.valid_until)
    }

    /// The instance that holds it, if it is ours.
    pub(super) fn holder(&self) -> Option<&Instance> {
        self.held.as_ref().map(|held| &held.instance)
    }

    /// Gives up the hold without telling the API server, and lets nothing that
    /// is still in flight restore it.
    pub(super) fn forget(&mut self) {
        self.held = None;
        self.renew_soon = false;
    }

    /// Ends a hold whose validity has passed.
    pub(super) fn expire(&mut self, now: Mono) {
        if self.held.as_ref().is_some_and(|held| now >= held.valid_until) {
            self.forget();
        }
    }

    /// What would be written has changed: do not wait for the next renewal.
    pub(super) fn renew_soon(&mut self) {
        self.renew_soon = true;
    }

    /// Whether this is an instance of our own process.
    fn is_own(&self, instance: &Instance) -> bool {
        let rest = instance.as_str().strip_prefix(self.base.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The Lease was seen (in an answer, a list, or a watch).
    pub(super) fn observe(&mut self, now: Mono, record: &LeaseRecord) {
        match &self.known {
            Known::Present { record: known, .. } if known.revision >= record.revision => return,
            _ => {}
        }
        if self.held.as_ref().is_some_and(|held| record.content.holder.as_ref() != Some(&held.instance)) {
            self.forget();
        }
        // Someone has written it, so the API server can be reached, and
        // whatever we waited for may have become possible.
        if self.backoff.failures() > 0 && self.in_flight.is_none() {
            self.retry_at = self.retry_at.min(now);
        }
        self.known = Known::Present { record: record.clone(), seen_at: now };
    }

    /// The Lease was seen to be absent at `revision` of the API server, by a
    /// request that was sent at `sent_at` or by a watch.
    pub(super) fn observe_absent(&mut self, now: Mono, revision: Option<Revision>, sent_at: Mono) {
        let (free_at, last) = match &self.known {
            Known::Absent { .. } => return,
            Known::Unread => (now, None),
            Known::Present { record, seen_at } => {
                let stale = match revision {
                    Some(revision) => revision < record.revision,
                    None => sent_at < *seen_at,
                };
                if stale {
                    return;
                }
                let holder = record.content.holder.clone();
                let free_at = match &holder {
                    Some(holder) if !self.is_own(holder) => now + record.patience(self.timing.duration),
                    _ => now,
                };
                (free_at, holder.or_else(|| record.content.previous.clone()))
            }
        };
        self.known = Known::Absent { free_at, last };
        self.forget();
    }

    /// The answer to the request in flight.
    pub(super) fn answer(
        &mut self,
        now: Mono,
        answer: Result<Option<&LeaseRecord>, RequestError>,
        jitter: &mut Jitter,
    ) {
        let Some(in_flight) = self.in_flight.take() else { return };
        match answer {
            Ok(record) => {
                self.backoff.succeed();
                self.retry_at = now;
                self.must_read = false;
                match (record, in_flight) {
                    (Some(record), in_flight) => {
                        self.observe(now, record);
                        if let InFlight::Hold { sent_at, holder } = in_flight {
                            self.conflicts.succeed();
                            self.renewed(now, sent_at, holder, record);
                        }
                    }
                    (None, InFlight::Read { sent_at }) => self.observe_absent(now, None, sent_at),
                    (None, _) => self.must_read = true,
                }
            }
            Err(RequestError::Conflict) => {
                // The API server works: read again at once. If that goes on,
                // do it slower, so that two writers cannot race for ever.
                self.must_read = true;
                let delay = self.conflicts.fail(jitter);
                self.retry_at = if self.conflicts.failures() == 1 { now } else { now + self.capped(delay) };
            }
            Err(RequestError::Unavailable) => {
                // A write may have had effect all the same: then the next one
                // meets a conflict, and what is read is our own.
                let delay = self.backoff.fail(jitter);
                self.retry_at = now + self.capped(delay);
            }
        }
    }

    fn capped(&self, delay: Duration) -> Duration {
        if self.held.is_some() { delay.min(self.timing.renew) } else { delay }
    }

    fn renewed(&mut self, now: Mono, sent_at: Mono, holder: Instance, record: &LeaseRecord) {
        if record.content.holder.as_ref() != Some(&holder) {
            return;
        }
        // A newer record than the answer, with another holder, is already known.
        if let Known::Present { record: known, .. } = &self.known
            && known.content.holder.as_ref() != Some(&holder)
        {
            return;
        }
        let valid_until = sent_at + self.timing.validity();
        if now < valid_until {
            self.held = Some(Held { instance: holder, sent_at, valid_until });
        }
    }

    /// The request to make now, if any. The caller makes it at once and passes
    /// the answer to [`Claim::answer`].
    pub(super) fn poll(&mut self, now: Mono, want: &Want) -> Option<ClaimRequest> {
        self.due(want).filter(|due| *due <= now)?;
        let request = self.request(want)?;
        self.in_flight = Some(match (&request, want) {
            (ClaimRequest::Read, _) => InFlight::Read { sent_at: now },
            (ClaimRequest::Write(_), Want::Hold { holder, .. }) => {
                self.renew_soon = false;
                InFlight::Hold { sent_at: now, holder: holder.clone() }
            }
            (ClaimRequest::Write(_), _) => InFlight::Release,
        });
        Some(request)
    }

    /// When [`Claim::poll`] will have something to do; `None`: only after an
    /// answer or an observation.
    pub(super) fn due(&self, want: &Want) -> Option<Mono> {
        if self.in_flight.is_some() {
            return None;
        }
        let due = match (want, &self.known) {
            (Want::Rest, _) => return None,
            _ if self.must_read => Mono(0),
            (_, Known::Unread) => Mono(0),
            (Want::Hold { holder, .. }, Known::Present { record, seen_at }) => match &self.held {
                Some(held) if held.instance == *holder => {
                    if self.renew_soon {
                        Mono(0)
                    } else {
                        held.sent_at + self.timing.renew
                    }
                }
                _ => match &record.content.holder {
                    Some(other) if !self.is_own(other) => *seen_at + record.patience(self.timing.duration),
                    _ => Mono(0),
                },
            },
            (Want::Hold { .. }, Known::Absent { free_at, .. }) => *free_at,
            (Want::Release, Known::Present { record, .. }) => {
                record.content.holder.as_ref().filter(|holder| self.is_own(holder))?;
                Mono(0)
            }
            (Want::Release, Known::Absent { .. }) => return None,
        };
        Some(due.max(self.retry_at))
    }

    /// Whether there is nothing left to release.
    pub(super) fn is_released(&self) -> bool {
        self.in_flight.is_none() && self.due(&Want::Release).is_none()
    }

    fn request(&self, want: &Want) -> Option<ClaimRequest> {
        let (holder, address, settled, highest) = match want {
            Want::Hold { holder, address, settled, highest } => {
                (Some(holder.clone()), address.clone(), *settled, *highest)
            }
            Want::Release => (None, "".into(), None, Epoch(0)),
            Want::Rest => return None,
        };
        if self.must_read {
            return Some(ClaimRequest::Read);
        }
        let write = match &self.known {
            Known::Unread => return Some(ClaimRequest::Read),
            Known::Absent { last, .. } => LeaseWrite {
                precondition: Precondition::Absent,
                content: LeaseContent {
                    previous: last.clone().filter(|last| Some(last) != holder.as_ref()),
                    holder,
                    duration: self.timing.duration,
                    transitions: 0,
                    address,
                    settled,
                    highest,
                },
            },
            Known::Present { record, .. } => {
                let known = &record.content;
                let changes = known.holder != holder;
                let previous = match &known.holder {
                    Some(before) if changes => Some(before.clone()),
                    _ => known.previous.clone(),
                };
                LeaseWrite {
                    precondition: Precondition::Unchanged {
                        uid: record.uid.clone(),
                        revision: record.revision,
                    },
                    content: LeaseContent {
                        previous,
                        duration: self.timing.duration,
                        transitions: known.transitions.saturating_add(u32::from(changes && holder.is_some())),
                        highest: highest.max(if holder.is_none() { known.highest } else { Epoch(0) }),
                        holder,
                        address,
                        settled,
                    },
                }
            }
        };
        Some(ClaimRequest::Write(write))
    }
}
