//! How the fleet's own authority is replaced by another, without anybody noticing.
//!
//! All replicas share what is stored, and each may take the next step; the store
//! lets only the first of them. So a step follows from what is stored and the time
//! alone, and the time is one that the store's server shares ([`same_time`]): one
//! clock that is fast must not end what all others go by.
//!
//! | state | what is stored | who signs | who is trusted | left |
//! |---|---|---|---|---|
//! | settled | one signer | the signer | the signer | at two thirds of its life: [`Step::Announce`] |
//! | announced | signer and next | the signer | both | after the overlap: [`Step::Promote`] |
//! | promoted | the next as signer, the old one's certificate | the next | both | at the old one's end: [`Step::Retire`] |
//!
//! In the overlap everybody learns to trust the next authority before anything that
//! it signed is shown to them: replicas within a minute, API servers by the bundle in
//! the webhook configuration, gateways with the `ca.crt` that comes with their next
//! certificate. The key of the old one is forgotten with the promotion. Its
//! certificate stays trusted to its end, because what it signed does not live longer.

use std::time::{Duration, SystemTime};

use crate::material::{certificate_pem, text};
use crate::{Authority, CLOCK_SKEW, CertError, CertificatePem, TrustRoots};

/// How long authorities last, and how long the next one is known before it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Life of an authority. Default: a year.
    pub lifetime: Duration,
    /// From the announcement of the next one until it signs. Default: 30 days, as
    /// long as a gateway's certificate lasts.
    pub overlap: Duration,
}

impl Default for Rotation {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Rotation { lifetime: 365 * DAY, overlap: 30 * DAY }
    }
}

impl Rotation {
    /// The longest overlap that authorities of this life leave room for: the next one is
    /// announced when a third is left, and signs when half of that is over at the latest.
    pub fn longest_overlap(&self) -> Duration {
        self.lifetime / 6
    }
}

/// Whether two clocks agree within [`CLOCK_SKEW`]: `now`, which this machine's says, and
/// what `whose`, for example `the API server`, said at about the same moment.
///
/// # Errors
/// [`CertError::Clocks`].
pub fn same_time(now: SystemTime, whose: &str, theirs: SystemTime) -> Result<(), CertError> {
    if between(now, theirs).max(between(theirs, now)) <= CLOCK_SKEW {
        return Ok(());
    }
    Err(CertError::Clocks { ours: text(now), whose: whose.to_owned(), theirs: text(theirs) })
}

/// What is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Everybody who is trusted, as PEM; the signer first.
    pub bundle: String,
    /// The signer's private key as PEM.
    pub private_key: String,
    /// Certificate and key of the next signer, once it is announced.
    pub next: Option<(String, String)>,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the next authority and have it trusted.
    Announce,
    /// The next authority signs from now on.
    Promote,
    /// Drop those whose time is over.
    Retire,
    /// The signer has ended and no next one is there: begin anew.
    Replace,
}

/// What is stored, taken up.
pub struct Authorities {
    signer: Authority,
    next: Option<Authority>,
    roots: TrustRoots,
    stored: Stored,
}

impl Authorities {
    /// Makes the first authority.
    ///
    /// # Errors
    /// See [`Authority::generate`].
    pub fn first(common_name: &str, rotation: Rotation, now: SystemTime) -> Result<Stored, CertError> {
        let made = Authority::generate_for(common_name, now, rotation.lifetime)?;
        Ok(settled(&made))
    }

    /// Takes up what is stored. `what` names the place for error texts, for example
    /// `Secret flotilla-system/flotilla-ca`. A signer whose time is over is taken
    /// up, too: a step follows from it.
    ///
    /// # Errors
    /// When something is unreadable, not yet valid, no authority, or a key belongs
    /// to another certificate.
    pub fn read(what: &str, stored: Stored, now: SystemTime) -> Result<Self, CertError> {
        let pem = |certificate: &str, key: &str| CertificatePem {
            certificate: certificate.to_owned(),
            private_key: key.to_owned(),
        };
        let signer = Authority::of_any_time(what, pem(&stored.bundle, &stored.private_key))?;
        let next = stored.next.as_ref().map(|(certificate, key)| {
            let what = format!("the next authority in {what}");
            // One whose time has not come, because the clock of who announced it is fast, is
            // trusted like any other and signs when its time has come.
            Authority::of_any_time(&what, pem(certificate, key))
        });
        let next = next.transpose()?;
        early(what, &signer, now)?;
        let mut roots = TrustRoots::from_pem(what, &stored.bundle)?;
        if let Some(next) = &next {
            roots = roots.and(next.roots(), SystemTime::UNIX_EPOCH)?;
        }
        Ok(Authorities { signer, next, roots, stored })
    }

    /// Who signs.
    pub fn signer(&self) -> &Authority {
        &self.signer
    }

    /// Who is trusted at this time: the signer first.
    ///
    /// # Errors
    /// [`CertError::Expired`] when all have ended.
    pub fn roots(&self, now: SystemTime) -> Result<TrustRoots, CertError> {
        self.roots.and(&self.roots, now)
    }

    /// What was read.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Whether these stand where `held` should: no step leads from those here, because
    /// every step keeps the signer before it in the bundle to its end. Somebody made
    /// others, and everybody who trusts `held` would be a stranger. Of two the older
    /// one is right, so that those who hold either come to an end.
    pub fn usurp(&self, held: &Authorities, now: SystemTime) -> bool {
        let (here, there) = (self.signer.validity(), held.signer.validity());
        let strange = |signer: TrustRoots| {
            let both = self.roots.and(&signer, SystemTime::UNIX_EPOCH);
            both.is_ok_and(|both| both.count() > self.roots.count())
        };
        there.not_before < here.not_before
            && now < there.not_after
            && held.signer.own_roots().is_ok_and(strange)
    }

    /// What is to be done by now.
    pub fn due(&self, rotation: Rotation, now: SystemTime) -> Option<Step> {
        let (begins, ends) =
            (self.signer.validity().not_before + CLOCK_SKEW, self.signer.validity().not_after);
        match &self.next {
            Some(next) if now >= ends || now >= self.promotion(next, rotation) => Some(Step::Promote),
            Some(_) => None,
            None if now >= ends => Some(Step::Replace),
            None if now >= begins + between(begins, ends) / 3 * 2 => Some(Step::Announce),
            None => {
                self.roots(now).is_ok_and(|left| left.count() < self.roots.count()).then_some(Step::Retire)
            }
        }
    }

    /// When the next one signs: after the overlap, or half-way to the signer's end if
    /// that is sooner.
    fn promotion(&self, next: &Authority, rotation: Rotation) -> SystemTime {
        let announced = next.validity().not_before + CLOCK_SKEW;
        announced + rotation.overlap.min(between(announced, self.signer.validity().not_after) / 2)
    }

    /// What is to be stored after a step.
    ///
    /// # Errors
    /// See [`Authority::generate`].
    pub fn after(
        &self,
        step: Step,
        common_name: &str,
        rotation: Rotation,
        now: SystemTime,
    ) -> Result<Stored, CertError> {
        let bundle = |first: &Authority| Ok(first.own_roots()?.and(&self.roots, now)?.pem().to_owned());
        Ok(match (step, &self.next) {
            (Step::Announce, None) => {
                let next = Authority::generate_for(common_name, now, rotation.lifetime)?;
                let roots = self.roots.and(next.roots(), now)?;
                Stored {
                    bundle: roots.pem().to_owned(),
                    next: Some((next.pem().certificate.clone(), next.pem().private_key.clone())),
                    ..self.stored.clone()
                }
            }
            (Step::Promote, Some(next)) => {
                Stored { bundle: bundle(next)?, private_key: next.pem().private_key.clone(), next: None }
            }
            (Step::Retire, _) => Stored { bundle: bundle(&self.signer)?, ..self.stored.clone() },
            (Step::Replace, _) => Self::first(common_name, rotation, now)?,
            // There is nothing to do it with, or it is done.
            (Step::Announce | Step::Promote, _) => self.stored.clone(),
        })
    }
}

fn settled(authority: &Authority) -> Stored {
    let pem = authority.pem();
    Stored { bundle: pem.certificate.clone(), private_key: pem.private_key.clone(), next: None }
}

/// An error when its time has not come: this machine's clock is wrong, or the other's.
fn early(what: &str, authority: &Authority, now: SystemTime) -> Result<(), CertError> {
    match authority.validity().check(what, now) {
        Err(error @ CertError::NotYetValid { .. }) => Err(error),
        _ => Ok(()),
    }
}

fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

impl Authority {
    /// Its own certificate alone, of a bundle that may hold others.
    fn own_roots(&self) -> Result<TrustRoots, CertError> {
        let chain = self.pem().chain("the authority")?;
        TrustRoots::from_pem("the authority", &certificate_pem(&chain[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, LeafRequest, check_issued};

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const WHAT: &str = "Secret sys/ca";

    fn day(number: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + 20_000 * DAY + number * DAY
    }

    fn rotation() -> Rotation {
        Rotation::default()
    }

    fn read(stored: &Stored, now: SystemTime) -> Authorities {
        Authorities::read(WHAT, stored.clone(), now).unwrap()
    }

    /// Takes every step that is due at `now`, as one replica after the other would.
    fn settle(stored: &mut Stored, now: SystemTime) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(step) = read(stored, now).due(rotation(), now) {
            *stored = read(stored, now).after(step, "flotilla", rotation(), now).unwrap();
            steps.push(step);
            assert!(steps.len() < 4, "{steps:?}");
        }
        steps
    }

    #[test]
    fn an_authority_is_announced_then_signs_and_the_old_one_goes_at_its_end() {
        let mut stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let mut seen = Vec::new();
        for number in 0..800 {
            let now = day(number);
            seen.extend(settle(&mut stored, now).into_iter().map(|step| (number, step)));
            assert!(read(&stored, now).signer().validity().check("signer", now).is_ok(), "day {number}");
        }
        let expected = [
            (244, Step::Announce),
            (274, Step::Promote),
            (366, Step::Retire),
            (488, Step::Announce),
            (518, Step::Promote),
            (610, Step::Retire),
            (732, Step::Announce),
            (762, Step::Promote),
        ];
        assert_eq!(seen, expected);
    }

    /// What is the point of it all: whoever knows the bundle of one day believes what
    /// is signed for the whole overlap after it, and everything that was signed is
    /// believed by those who know any later bundle.
    #[test]
    fn nobody_is_strange_to_somebody_who_looked_within_the_overlap() {
        let identity = Identity::gateway("fleet.local", "edge", "gw").unwrap();
        let request = LeafRequest::gateway(identity);
        let mut stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let mut bundles = Vec::new();
        let mut leaves = Vec::new();
        for number in 0..500 {
            let now = day(number);
            settle(&mut stored, now);
            let authorities = read(&stored, now);
            bundles.push(authorities.roots(now).unwrap());
            leaves.push(authorities.signer().issue_leaf(&request, now).unwrap());
            for back in 0..30.min(number as usize) {
                let bundle = &bundles[number as usize - back];
                check_issued("a new leaf", &leaves[number as usize], bundle, &request, now).unwrap();
                let old = &leaves[number as usize - back];
                if old.validity("old").unwrap().check("old", now).is_ok() {
                    check_issued("an old leaf", old, &bundles[number as usize], &request, now).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_step_is_taken_once_however_many_take_it() {
        let stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let announced =
            read(&stored, day(250)).after(Step::Announce, "flotilla", rotation(), day(250)).unwrap();
        let again =
            read(&announced, day(250)).after(Step::Announce, "flotilla", rotation(), day(250)).unwrap();
        assert!(again == announced);
        let promoted =
            read(&announced, day(290)).after(Step::Promote, "flotilla", rotation(), day(290)).unwrap();
        let again = read(&promoted, day(290)).after(Step::Promote, "flotilla", rotation(), day(290)).unwrap();
        assert!(again == promoted);
        assert_ne!(promoted.private_key, stored.private_key, "the old key is forgotten");
        assert_eq!(read(&promoted, day(290)).roots(day(290)).unwrap().count(), 2);
    }

    #[test]
    fn with_nobody_there_in_the_overlap_the_next_one_still_signs_before_the_old_one_ends() {
        let stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let late = read(&stored, day(360)).after(Step::Announce, "flotilla", rotation(), day(360)).unwrap();
        assert_eq!(read(&late, day(362)).due(rotation(), day(362)), None);
        assert_eq!(read(&late, day(363)).due(rotation(), day(363)), Some(Step::Promote));
        assert_eq!(read(&late, day(380)).due(rotation(), day(380)), Some(Step::Promote));
    }

    #[test]
    fn an_authority_that_ended_is_replaced_and_its_successor_taken_if_there_is_one() {
        let mut stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        assert!(read(&stored, day(400)).roots(day(400)).is_err());
        assert_eq!(settle(&mut stored, day(400)), [Step::Replace]);
        assert_eq!(read(&stored, day(400)).roots(day(400)).unwrap().count(), 1);
    }

    #[test]
    fn only_what_no_step_leads_to_usurps() {
        let mut stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let held = read(&stored, day(200));
        for number in 200..360 {
            settle(&mut stored, day(number));
            assert!(!read(&stored, day(number)).usurp(&held, day(number)), "day {number}");
        }
        let made = Authorities::first("flotilla", rotation(), day(210)).unwrap();
        let made = read(&made, day(210));
        assert!(made.usurp(&held, day(210)));
        assert!(!held.usurp(&made, day(210)), "the older one stays");
        assert!(!made.usurp(&held, day(366)), "the older one has ended");
    }

    #[test]
    fn a_next_one_of_a_fast_clock_waits_for_its_time() {
        let stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let fast = read(&stored, day(250)).after(Step::Announce, "flotilla", rotation(), day(250)).unwrap();
        let ours = read(&fast, day(220));
        assert_eq!(ours.due(rotation(), day(220)), None);
        assert_eq!(ours.roots(day(220)).unwrap().count(), 2);
        assert_eq!(read(&fast, day(281)).due(rotation(), day(281)), Some(Step::Promote));
    }

    #[test]
    fn clocks_may_differ_as_far_as_certificates_allow() {
        let server = "the API server";
        let second = Duration::from_secs(1);
        for near in [day(1), day(1) + CLOCK_SKEW, day(1) - CLOCK_SKEW] {
            assert!(same_time(near, server, day(1)).is_ok());
        }
        for far in [day(1) + CLOCK_SKEW + second, day(1) - CLOCK_SKEW - second] {
            let text = same_time(far, server, day(1)).unwrap_err().to_string();
            assert!(text.contains(server) && text.contains("set the clock"), "{text}");
        }
    }

    #[test]
    fn the_longest_overlap_is_given_in_full_and_no_longer_one() {
        let stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let longest = rotation().longest_overlap();
        let hour = Duration::from_secs(3600);
        let due = day(0) + rotation().lifetime / 3 * 2;
        let announced = read(&stored, due).after(Step::Announce, "flotilla", rotation(), due).unwrap();
        let promoted = |overlap: Duration, after: Duration| {
            let rotation = Rotation { overlap, ..rotation() };
            read(&announced, due + after).due(rotation, due + after) == Some(Step::Promote)
        };
        assert!(!promoted(longest, longest - hour) && promoted(longest, longest + hour));
        assert!(promoted(longest + 3 * hour, longest + hour), "a longer one would be cut");
    }

    #[test]
    fn what_is_wrong_in_the_store_is_named() {
        let stored = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let other = Authorities::first("flotilla", rotation(), day(0)).unwrap();
        let wrong = |stored: Stored, now| Authorities::read(WHAT, stored, now).err().unwrap().to_string();
        let next = Some((other.bundle.clone(), stored.private_key.clone()));
        let text = wrong(Stored { next, ..stored.clone() }, day(1));
        assert!(text.contains("the next authority in Secret sys/ca"), "{text}");
        let text = wrong(Stored { private_key: other.private_key, ..stored.clone() }, day(1));
        assert!(text.contains(WHAT) && text.contains("does not belong"), "{text}");
        let cut = format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n", stored.bundle);
        let text = wrong(Stored { bundle: cut, ..stored.clone() }, day(1));
        assert!(text.contains(WHAT), "{text}");
        let text = Authorities::read(WHAT, stored, SystemTime::UNIX_EPOCH).err().unwrap().to_string();
        assert!(text.contains("clocks"), "{text}");
    }
}
