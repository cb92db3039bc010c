//! How one replica obtains, keeps and gives up a Lease.
//!
//! - The holder relies on a renewal for duration − margin, counted from the
//!   moment the request was *sent*.
//! - Another candidate takes the Lease when it is released, or when it has
//!   stayed unchanged for its whole duration since the candidate *saw* it
//!   change. The take-over names the revision it was judged by, so a renewal
//!   that was not seen makes it fail. Wall clocks are never compared.
//! - A deleted Lease proves nothing: its last holder may not know yet. One who
//!   knows that there was a holder waits its whole duration.
//! - Every write names who held it before (`previous`), so that whoever reads a
//!   Lease with a new holder or none knows whose time has ended in order.
//!
//! | state | moves on when |
//! |---|---|
//! | unread | it has been read |
//! | absent, held by another | it may be created, or taken over |
//! | held | validity has passed, another holder shows, or it is gone: not held |
//! | released | never: the process ends |

use std::sync::Arc;
use std::time::Duration;

use super::config::LeaseTiming;
use super::lease::{LeaseContent, LeaseRecord, LeaseWrite, Precondition, RequestError};
use crate::backoff::{Backoff, BackoffConfig, Jitter};
use crate::breakage::{Breakage, Breakages};
use crate::ids::{Epoch, Instance, Revision};
use crate::time::Mono;

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
    breakage: Breakages,
}

impl Claim {
    pub(super) fn new(
        timing: LeaseTiming,
        backoff: BackoffConfig,
        base: Instance,
        breakage: Breakages,
    ) -> Self {
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
            breakage,
        }
    }

    /// How long a renewal is relied on from its sending.
    pub(super) fn validity(&self) -> Duration {
        self.timing.validity()
    }

    /// Until when the Lease is ours; `None` when it is not.
    pub(super) fn valid_until(&self) -> Option<Mono> {
        let for_ever = self.breakage.is(Breakage::SelfFencingOff);
        self.held.as_ref().map(|held| if for_ever { Mono(u64::MAX) } else { held.valid_until })
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
        if self.valid_until().is_some_and(|valid_until| now >= valid_until) {
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
        let from = if self.breakage.is(Breakage::ValidFromAnswer) { now } else { sent_at };
        let valid_until = from + self.timing.validity();
        if now < valid_until {
            self.held = Some(Held { instance: holder, sent_at, valid_until });
        }
    }

    /// The request to make now, if any. The caller makes it at once and passes
    /// the answer to [`Claim::answer`].
    pub(super) fn poll(&mut self, now: Mono, want: &Want) -> Option<ClaimRequest> {
        self.due(want).filter(|due| *due <= now)?;
        let mut request = self.request(want)?;
        if let ClaimRequest::Write(write) = &mut request
            && self.breakage.is(Breakage::WallClock)
        {
            write.content.transitions = now.wall();
        }
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
                    Some(other) if !self.is_own(other) => {
                        let wall = self.breakage.is(Breakage::WallClock);
                        let since = if wall { record.written_at() } else { *seen_at };
                        since + record.patience(self.timing.duration)
                    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A claim of `b/1` and the moment it starts.
    struct Candidate {
        claim: Claim,
        jitter: Jitter,
        now: Mono,
    }

    impl Candidate {
        fn new() -> Self {
            let claim = Claim::new(
                LeaseTiming::default(),
                BackoffConfig::default(),
                "b/1".into(),
                Breakages::default(),
            );
            Candidate { claim, jitter: Jitter::seeded(1), now: Mono::from_origin(SECOND * 100) }
        }

        fn want(&self) -> Want {
            Want::Hold { holder: "b/1".into(), address: "b:1".into(), settled: None, highest: Epoch(0) }
        }

        fn poll(&mut self) -> Option<ClaimRequest> {
            let want = self.want();
            self.claim.expire(self.now);
            self.claim.poll(self.now, &want)
        }

        fn write(&mut self) -> LeaseWrite {
            match self.poll() {
                Some(ClaimRequest::Write(write)) => write,
                other => panic!("a write was expected, not {other:?}"),
            }
        }

        fn reads(&mut self) {
            assert_eq!(self.poll(), Some(ClaimRequest::Read));
        }

        fn answer(&mut self, answer: Result<Option<LeaseRecord>, RequestError>) {
            let answer = answer.as_ref().map(Option::as_ref).map_err(|error| *error);
            self.claim.answer(self.now, answer, &mut self.jitter);
        }

        fn rests(&mut self, time: Duration) {
            self.now = self.now + time - Duration::from_millis(1);
            assert_eq!(self.poll(), None, "nothing is to be done for {time:?}");
            self.now = self.now + Duration::from_millis(1);
        }

        /// Obtains the Lease, at revision 1.
        fn holding(mut self) -> Self {
            self.reads();
            self.answer(Ok(None));
            let write = self.write();
            assert_eq!(write.precondition, Precondition::Absent);
            self.answer(Ok(Some(record(1, Some("b/1")))));
            assert!(self.claim.valid_until().is_some());
            self
        }

        /// Has read that `a/1` holds the Lease, at revision 1.
        fn waiting() -> Self {
            let mut candidate = Candidate::new();
            candidate.reads();
            candidate.answer(Ok(Some(record(1, Some("a/1")))));
            candidate
        }
    }

    fn record(revision: u64, holder: Option<&str>) -> LeaseRecord {
        LeaseRecord {
            uid: "u".into(),
            revision: Revision(revision),
            content: LeaseContent {
                holder: holder.map(Instance::from),
                previous: None,
                duration: SECOND * 5,
                transitions: 4,
                address: "".into(),
                settled: None,
                highest: Epoch(0),
            },
        }
    }

    #[test]
    fn a_held_lease_is_taken_after_its_whole_duration_unchanged_and_by_the_revision_seen() {
        let mut candidate = Candidate::waiting();
        candidate.rests(SECOND * 4);
        candidate.claim.observe(candidate.now, &record(2, Some("a/1")));
        candidate.rests(SECOND * 5);
        let write = candidate.write();
        assert_eq!(write.precondition, Precondition::Unchanged { uid: "u".into(), revision: Revision(2) });
        assert_eq!(write.content.holder, Some("b/1".into()));
        assert_eq!(write.content.previous, Some("a/1".into()));
        assert_eq!(write.content.transitions, 5);
    }

    #[test]
    fn a_release_that_a_watch_shows_is_followed_at_once() {
        let mut candidate = Candidate::waiting();
        candidate.rests(SECOND);
        candidate.claim.observe(candidate.now, &record(2, None));
        assert_eq!(candidate.write().content.holder, Some("b/1".into()));
    }

    #[test]
    fn the_deletion_of_a_held_lease_is_no_release() {
        let mut candidate = Candidate::waiting();
        candidate.claim.observe_absent(candidate.now, Some(Revision(2)), candidate.now);
        candidate.rests(SECOND * 5);
        let write = candidate.write();
        assert_eq!(write.precondition, Precondition::Absent);
        assert_eq!(write.content.previous, Some("a/1".into()), "by now its time has ended");
    }

    #[test]
    fn the_deletion_of_a_released_lease_is_followed_at_once() {
        let mut candidate = Candidate::waiting();
        let now = candidate.now;
        candidate.claim.observe(now, &record(2, None));
        candidate.claim.observe_absent(now, Some(Revision(3)), now);
        assert_eq!(candidate.write().precondition, Precondition::Absent);
    }

    #[test]
    fn validity_counts_from_sending_and_not_from_the_answer() {
        let mut candidate = Candidate::new().holding();
        candidate.rests(SECOND);
        let sent_at = candidate.now;
        candidate.write();
        candidate.now = candidate.now + SECOND * 2;
        candidate.answer(Ok(Some(record(2, Some("b/1")))));
        assert_eq!(candidate.claim.valid_until(), Some(sent_at + LeaseTiming::default().validity()));
    }

    #[test]
    fn an_answer_that_comes_after_its_own_validity_gives_nothing() {
        let mut candidate = Candidate::new().holding();
        candidate.rests(SECOND);
        candidate.write();
        candidate.now = candidate.now + SECOND * 5;
        candidate.claim.expire(candidate.now);
        candidate.answer(Ok(Some(record(2, Some("b/1")))));
        assert_eq!(candidate.claim.valid_until(), None);
        let write = candidate.write();
        assert_eq!(write.content.previous, None, "it has had no other holder");
    }

    #[test]
    fn an_outage_of_an_hour_does_not_end_the_candidacy() {
        let mut candidate = Candidate::new().holding();
        let end = candidate.now + SECOND * 3600;
        let mut attempts = 0;
        while candidate.now < end {
            let want = candidate.want();
            let due = candidate.claim.due(&want).expect("it always tries again");
            candidate.now = candidate.now.max(due);
            assert!(candidate.poll().is_some());
            candidate.answer(Err(RequestError::Unavailable));
            attempts += 1;
        }
        assert!((1_800..8_000).contains(&attempts), "{attempts} attempts in an hour");
        assert_eq!(candidate.claim.valid_until(), None);
        candidate.now = candidate.now + SECOND * 2;
        candidate.write();
        candidate.answer(Ok(Some(record(9, Some("b/1")))));
        assert!(candidate.claim.valid_until().is_some());
    }

    #[test]
    fn an_edit_by_someone_else_costs_one_read_and_not_the_lease() {
        let mut candidate = Candidate::new().holding();
        candidate.rests(SECOND);
        candidate.write();
        candidate.answer(Err(RequestError::Conflict));
        candidate.reads();
        candidate.answer(Ok(Some(record(7, Some("b/1")))));
        assert!(candidate.claim.valid_until().is_some());
        let write = candidate.write();
        assert_eq!(write.precondition, Precondition::Unchanged { uid: "u".into(), revision: Revision(7) });
        assert_eq!(write.content.transitions, 4, "the holder is the same");
    }

    #[test]
    fn whoever_sees_another_holder_or_no_lease_has_lost_it() {
        for lose in [
            (|claim, now| Claim::observe(claim, now, &record(2, Some("a/1")))) as fn(&mut Claim, Mono),
            |claim, now| claim.observe_absent(now, Some(Revision(2)), now),
        ] {
            let mut candidate = Candidate::new().holding();
            lose(&mut candidate.claim, candidate.now);
            assert_eq!(candidate.claim.valid_until(), None);
        }
    }

    #[test]
    fn older_news_change_nothing() {
        let mut candidate = Candidate::new();
        candidate.reads();
        candidate.answer(Ok(Some(record(5, Some("b/1")))));
        candidate.write();
        candidate.answer(Ok(Some(record(6, Some("b/1")))));
        candidate.claim.observe(candidate.now, &record(4, Some("a/1")));
        candidate.claim.observe_absent(candidate.now, Some(Revision(5)), candidate.now);
        assert!(candidate.claim.valid_until().is_some());
    }

    #[test]
    fn conflicts_without_end_are_retried_ever_more_slowly() {
        let mut candidate = Candidate::waiting();
        candidate.claim.observe(candidate.now, &record(2, None));
        let begin = candidate.now;
        for revision in 3..13 {
            candidate.write();
            candidate.answer(Err(RequestError::Conflict));
            let want = candidate.want();
            candidate.now = candidate.claim.due(&want).unwrap().max(candidate.now);
            candidate.reads();
            candidate.answer(Ok(Some(record(revision, None))));
        }
        assert!(candidate.now.since(begin) > SECOND * 4, "ten rounds took {:?}", candidate.now.since(begin));
    }

    #[test]
    fn a_release_names_who_released_and_is_repeated_until_it_succeeds() {
        let mut candidate = Candidate::new().holding();
        for _ in 0..3 {
            let want = Want::Release;
            candidate.now = candidate.claim.due(&want).unwrap().max(candidate.now);
            let Some(ClaimRequest::Write(write)) = candidate.claim.poll(candidate.now, &want) else {
                panic!("a write was expected");
            };
            assert_eq!((write.content.holder, write.content.previous), (None, Some("b/1".into())));
            assert!(!candidate.claim.is_released());
            candidate.answer(Err(RequestError::Unavailable));
        }
        candidate.claim.observe(candidate.now, &record(3, None));
        assert!(candidate.claim.is_released());
    }

    #[test]
    fn another_process_of_the_same_member_is_waited_for() {
        let mut candidate = Candidate::new();
        candidate.reads();
        candidate.answer(Ok(Some(record(1, Some("b/2")))));
        candidate.rests(SECOND * 5);
        candidate.write();
    }

    #[test]
    fn an_earlier_tenure_of_the_same_process_is_not_waited_for() {
        let mut candidate = Candidate::new();
        candidate.reads();
        candidate.answer(Ok(Some(record(1, Some("b/1.3")))));
        assert_eq!(candidate.write().content.previous, Some("b/1.3".into()));
    }
}
