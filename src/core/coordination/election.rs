//! Candidacy for the leader's Lease: always a candidate, until shutdown.
//!
//! The leader only plans and publishes the map. Two leaders at a time would do
//! no harm, since publishing is a compare-and-swap, so leadership needs no
//! hand-over: it is a claim to a Lease and nothing else. Errors never end the
//! candidacy; they only slow it down.

use super::claim::{Claim, ClaimRequest, Want};
use super::config::{CoordinationConfig, Identity};
use super::lease::{LeaseRecord, RequestError};
use crate::backoff::Jitter;
use crate::ids::Epoch;
use crate::time::Mono;

#[derive(Debug)]
pub(super) struct Election {
    identity: Identity,
    pub(super) claim: Claim,
    resigned: bool,
}

impl Election {
    pub(super) fn new(config: &CoordinationConfig, identity: &Identity) -> Self {
        Election {
            identity: identity.clone(),
            claim: Claim::new(
                config.leader_lease,
                config.backoff,
                identity.instance.clone(),
                config.breakage,
            ),
            resigned: false,
        }
    }

    /// Until when we lead; `None` when we do not.
    pub(super) fn leading_until(&self) -> Option<Mono> {
        if self.resigned { None } else { self.claim.valid_until() }
    }

    /// Ends the candidacy and gives up the Lease at once.
    pub(super) fn resign(&mut self) {
        self.resigned = true;
        self.claim.forget();
    }

    pub(super) fn is_done(&self) -> bool {
        self.resigned && self.claim.is_released()
    }

    fn want(&self, highest: Epoch) -> Want {
        if self.resigned {
            return Want::Release;
        }
        Want::Hold {
            holder: self.identity.instance.clone(),
            address: self.identity.address.clone(),
            settled: None,
            highest,
        }
    }

    pub(super) fn poll(&mut self, now: Mono, highest: Epoch) -> Option<ClaimRequest> {
        let want = self.want(highest);
        self.claim.poll(now, &want)
    }

    pub(super) fn answer(
        &mut self,
        now: Mono,
        answer: Result<Option<&LeaseRecord>, RequestError>,
        jitter: &mut Jitter,
    ) {
        self.claim.answer(now, answer, jitter);
        if self.resigned {
            self.claim.forget();
        }
    }

    pub(super) fn deadline(&self, highest: Epoch) -> Option<Mono> {
        let due = self.claim.due(&self.want(highest));
        [due, self.claim.valid_until()].into_iter().flatten().min()
    }
}
