//! This replica's own member Lease, and its *tenures*.
//!
//! A tenure is an unbroken time of holding the member Lease. Each has its own
//! instance name: the process's for the first, then with `.1`, `.2`, … behind
//! it. So whatever others concluded about an instance stays true for ever: a
//! replica that was fenced and comes back is somebody else, is in no map yet,
//! and acts on nothing until a map names it and everybody has settled that map.
//! That holds before a tenure has begun, too: a write whose answer was lost may
//! have been seen by others, who count the time from it.
//!
//! | phase | moves on when |
//! |---|---|
//! | seeking | the Lease was obtained: member; it was not in time after the first try: seeking, as a new instance |
//! | member | the Lease was not renewed in time, was deleted or taken, or a map left us out: fencing |
//! | fencing | all writes of the tenure have finished or were given up: seeking, as a new instance |
//! | leaving | all writes have finished or were given up: releasing |
//! | releasing | the Lease is released |

use std::time::Duration;

use super::claim::{Claim, ClaimRequest, Want};
use super::config::{CoordinationConfig, Identity};
use super::handover::DrainTicket;
use super::lease::{LeaseRecord, RequestError};
use crate::backoff::Jitter;
use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, Instance};
use crate::time::Mono;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Seeking,
    Member,
    Fencing(DrainTicket),
    Leaving(DrainTicket),
    Releasing,
}

#[derive(Debug)]
pub(super) struct Membership {
    identity: Identity,
    pub(super) claim: Claim,
    phase: Phase,
    /// How many tenures have ended.
    ended: u64,
    /// When the first write for the next tenure was sent.
    tried_at: Option<Mono>,
    /// Since when, during this tenure, no map names us.
    unlisted_since: Option<Mono>,
    /// How long no map may name us before we try as a new instance: the leader
    /// may have concluded that this one has ended.
    unlisted_patience: Duration,
    breakage: Breakages,
}

impl Membership {
    pub(super) fn new(config: &CoordinationConfig, identity: &Identity) -> Self {
        Membership {
            identity: identity.clone(),
            claim: Claim::new(
                config.member_lease,
                config.backoff,
                identity.instance.clone(),
                config.breakage,
            ),
            breakage: config.breakage,
            phase: Phase::Seeking,
            ended: 0,
            tried_at: None,
            unlisted_since: None,
            unlisted_patience: config.member_lease.duration * 2,
        }
    }

    /// The instance of this tenure or, between two, of the next.
    pub(super) fn instance(&self) -> Instance {
        match self.ended {
            0 => self.identity.instance.clone(),
            ended => Instance::from(format!("{}.{ended}", self.identity.instance)),
        }
    }

    /// The running tenure's instance.
    pub(super) fn tenure(&self) -> Option<Instance> {
        (self.phase == Phase::Member).then(|| self.instance())
    }

    /// Until when the running tenure may act.
    pub(super) fn acting_until(&self) -> Option<Mono> {
        if self.phase == Phase::Member { self.claim.valid_until() } else { None }
    }

    /// Whether the tenure is over although nobody has been told yet.
    pub(super) fn is_broken(&self) -> bool {
        self.phase == Phase::Member && self.claim.holder() != Some(&self.instance())
    }

    /// Ends the tenure; its writes stop under `ticket`.
    pub(super) fn fence(&mut self, ticket: DrainTicket) {
        self.claim.forget();
        self.unlisted_since = None;
        self.phase = Phase::Fencing(ticket);
    }

    /// The process is to end; its writes stop under `ticket`.
    pub(super) fn leave(&mut self, ticket: DrainTicket) {
        self.claim.forget();
        self.phase = Phase::Leaving(ticket);
    }

    /// Writes have stopped. Returns the instance whose time has thereby ended.
    pub(super) fn drained(&mut self, ticket: DrainTicket) -> Option<Instance> {
        let ended = self.instance();
        match self.phase {
            Phase::Fencing(waiting) if ticket >= waiting => {
                self.ended += u64::from(!self.breakage.is(Breakage::InstanceReused));
                self.tried_at = None;
                self.phase = Phase::Seeking;
                Some(ended)
            }
            Phase::Leaving(waiting) if ticket >= waiting => {
                self.phase = Phase::Releasing;
                Some(ended)
            }
            _ => None,
        }
    }

    /// Gives up a name under which the Lease was not obtained in time: others
    /// may have seen it as the holder for so long that it has ended for them.
    /// Returns it.
    pub(super) fn give_up(&mut self, now: Mono) -> Option<Instance> {
        let tried_at = self.tried_at.filter(|_| self.phase == Phase::Seeking)?;
        if now < tried_at + self.claim.validity() {
            return None;
        }
        let ended = self.instance();
        self.claim.forget();
        self.tried_at = None;
        self.ended += 1;
        Some(ended)
    }

    /// Whether a tenure has just begun.
    pub(super) fn begin(&mut self, now: Mono) -> bool {
        let begins = self.phase == Phase::Seeking && self.claim.holder() == Some(&self.instance());
        if begins {
            self.phase = Phase::Member;
            self.tried_at = None;
            self.unlisted_since = Some(now);
        }
        begins
    }

    /// A map was accepted. True if it says that this tenure has no future: an
    /// earlier map named us, and this one does not.
    pub(super) fn observe_map(&mut self, listed: bool) -> bool {
        if self.phase != Phase::Member {
            return false;
        }
        if listed {
            self.unlisted_since = None;
        }
        !listed && self.unlisted_since.is_none()
    }

    /// When to try as a new instance, should no map name us until then.
    pub(super) fn impatient_at(&self) -> Option<Mono> {
        let since = self.unlisted_since.filter(|_| self.phase == Phase::Member)?;
        Some(since + self.unlisted_patience)
    }

    pub(super) fn is_done(&self) -> bool {
        self.phase == Phase::Releasing && self.claim.is_released()
    }

    fn want(&self, settled: Option<Epoch>, highest: Epoch) -> Want {
        match self.phase {
            Phase::Seeking | Phase::Member => {
                let (holder, address) = (self.instance(), self.identity.address.clone());
                Want::Hold { holder, address, settled, highest }
            }
            Phase::Fencing(_) | Phase::Leaving(_) => Want::Rest,
            Phase::Releasing => Want::Release,
        }
    }

    pub(super) fn poll(&mut self, now: Mono, settled: Option<Epoch>, highest: Epoch) -> Option<ClaimRequest> {
        let want = self.want(settled, highest);
        let request = self.claim.poll(now, &want);
        if self.phase == Phase::Seeking && matches!(request, Some(ClaimRequest::Write(_))) {
            self.tried_at.get_or_insert(now);
        }
        request
    }

    pub(super) fn answer(
        &mut self,
        now: Mono,
        answer: Result<Option<&LeaseRecord>, RequestError>,
        jitter: &mut Jitter,
    ) {
        self.claim.answer(now, answer, jitter);
        // A renewal that was in flight when the tenure ended does not revive it.
        if !matches!(self.phase, Phase::Seeking | Phase::Member) {
            self.claim.forget();
        }
    }

    pub(super) fn deadline(&self, settled: Option<Epoch>, highest: Epoch) -> Option<Mono> {
        let due = self.claim.due(&self.want(settled, highest));
        [due, self.acting_until()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::config::LeaseTiming;
    use super::super::lease::{LeaseContent, LeaseWrite, Precondition};
    use super::*;
    use crate::ids::Revision;

    /// A process that seeks its first tenure, and the moment.
    struct Seeker {
        membership: Membership,
        jitter: Jitter,
        now: Mono,
    }

    impl Seeker {
        fn new() -> Self {
            let identity = Identity { member: "a".into(), instance: "a/1".into(), address: Arc::from("a:1") };
            let membership = Membership::new(&CoordinationConfig::default(), &identity);
            let now = Mono::from_origin(Duration::from_secs(100));
            let mut seeker = Seeker { membership, jitter: Jitter::seeded(1), now };
            assert_eq!(seeker.step(), Some(ClaimRequest::Read));
            seeker.answer(Ok(None));
            seeker
        }

        fn step(&mut self) -> Option<ClaimRequest> {
            self.membership.give_up(self.now);
            self.membership.poll(self.now, None, Epoch(0))
        }

        fn writes(&mut self) -> LeaseWrite {
            match self.step() {
                Some(ClaimRequest::Write(write)) => write,
                other => panic!("a write was expected, not {other:?}"),
            }
        }

        fn answer(&mut self, answer: Result<Option<&LeaseRecord>, RequestError>) {
            self.membership.answer(self.now, answer, &mut self.jitter);
            self.membership.give_up(self.now);
            self.membership.begin(self.now);
        }

        /// The first write has effect, and its answer is lost. The API server
        /// can be reached again after `time`.
        fn heard_of_its_write_after(time: Duration) -> Self {
            let mut seeker = Seeker::new();
            let write = seeker.writes();
            assert_eq!(write.precondition, Precondition::Absent);
            seeker.answer(Err(RequestError::Unavailable));
            seeker.now = seeker.now + time;
            seeker.membership.claim.observe(seeker.now, &record(1, write.content));
            let write = seeker.writes();
            seeker.answer(Ok(Some(&record(2, write.content))));
            seeker
        }
    }

    fn record(revision: u64, content: LeaseContent) -> LeaseRecord {
        LeaseRecord { uid: "u".into(), revision: Revision(revision), content }
    }

    #[test]
    fn a_name_that_others_may_have_given_up_is_not_acted_under() {
        let soon = Seeker::heard_of_its_write_after(Duration::from_secs(1));
        assert_eq!(soon.membership.tenure(), Some("a/1".into()));
        let validity = LeaseTiming::default().validity();
        let late = Seeker::heard_of_its_write_after(validity);
        assert_eq!(late.membership.tenure(), Some("a/1.1".into()));
    }

    #[test]
    fn the_time_counts_from_the_first_try() {
        let mut seeker = Seeker::new();
        let begin = seeker.now;
        while seeker.now < begin + LeaseTiming::default().validity() {
            if seeker.step().is_some() {
                seeker.answer(Err(RequestError::Unavailable));
            }
            seeker.now = seeker.now + Duration::from_millis(100);
        }
        let holder: Instance = "a/1.1".into();
        loop {
            match seeker.step() {
                Some(ClaimRequest::Write(write)) => break assert_eq!(write.content.holder, Some(holder)),
                Some(ClaimRequest::Read) => seeker.answer(Ok(None)),
                None => seeker.now = seeker.now + Duration::from_millis(100),
            }
        }
    }
}
