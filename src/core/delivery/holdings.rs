//! Whether a gateway holds what it has acknowledged: compared when nothing is
//! under way to it and nothing is news for it, so that what it is to hold is
//! what is here now.
//!
//! Nothing is done about a difference. Either side may be the one that is wrong,
//! and a snapshot from a replica that lacks something would take it from the
//! gateway, too.

use std::time::Duration;

use super::engine::Engine;
use super::position::Base;
use super::session::Session;
use super::{Holdings, Notice};
use crate::digest::{Sums, summand};
use crate::ids::{GatewayId, Kind, ObjectKey, SessionId};
use crate::time::Mono;

/// How many missing resources are named.
const NAMED: usize = 8;
/// How often it is said again that a gateway holds something else.
const SAY_AGAIN: Duration = Duration::from_secs(600);

impl Engine {
    pub fn holds(
        &mut self,
        now: Mono,
        session: &SessionId,
        gateway: &GatewayId,
        version: &str,
        theirs: &Sums,
    ) -> Holdings {
        let Some(slot) = self.by_id.get(session).copied() else { return Holdings::Apart };
        let Some(mut known) = self.sessions.remove(&slot) else { return Holdings::Apart };
        let holdings = match known.gateway == *gateway && self.is_certain(&known, version) {
            true => self.compare(now, &mut known, theirs),
            false => Holdings::Apart,
        };
        self.sessions.insert(slot, known);
        holdings
    }

    /// Whether this version means exactly what is here now.
    fn is_certain(&mut self, session: &Session, version: &str) -> bool {
        let position = session.position.clone();
        let undisturbed = session.origin.is_none()
            && session.flight.is_none()
            && session.trouble.is_none()
            && session.rejected.is_empty();
        let plain = position.base == Base::Log
            && position.excluded.is_empty()
            && position.doubtful.is_empty()
            && !(position.bereft || position.resumed);
        if !(undisturbed && plain && *session.told == *version && self.store.ready()) {
            return false;
        }
        let plan = self.plan(&position);
        plan.covered && plan.difference.items.is_empty()
    }

    fn compare(&mut self, now: Mono, session: &mut Session, theirs: &Sums) -> Holdings {
        if self.total_sum(session) == theirs.total() {
            session.differs_said = None;
            return Holdings::Equal;
        }
        if session.differs_said.is_none_or(|at| now >= at + SAY_AGAIN) {
            session.differs_said = Some(now);
            let (lacks, parts) = self.lacking(session, theirs);
            self.notice(Notice::HoldsOther { gateway: session.gateway.clone(), lacks, parts });
        }
        Holdings::Different
    }

    fn total_sum(&self, session: &Session) -> u64 {
        let scope = &session.scope.scope;
        if !scope.kinds.is_empty() {
            let entries = self.store.entries(scope);
            let sums = entries.map(|(_, one)| summand(one.kind, &one.key, &one.spec_json));
            return sums.fold(0, u64::wrapping_add);
        }
        let digests = self.store.digests();
        let sum = |sum: u64, digest: &u64| sum.wrapping_add(*digest);
        scope.select(digests).fold(0, sum)
    }

    /// Resources that it lacks, as far as they can be told, and how many parts of
    /// the sums differ.
    fn lacking(&self, session: &Session, theirs: &Sums) -> (Vec<(Kind, ObjectKey)>, usize) {
        let entries = || self.store.entries(&session.scope.scope).map(|(_, resource)| resource);
        let ours = Sums::of(entries().map(|one| (one.kind, &one.key, one.spec_json.as_ref())));
        let lacking = entries()
            .filter(|one| ours.is_lacking(theirs, one.kind, &one.key, &one.spec_json))
            .map(|one| (one.kind, one.key.clone()));
        (lacking.take(NAMED).collect(), ours.differences(theirs))
    }
}
