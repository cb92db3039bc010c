//! Gateways coming and going: registration, connecting, what their version
//! tells, and the history that some of them need.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::engine::{Engine, Registration};
use super::poll::DOUBT_AGAIN;
use super::position::{Base, Position, ScopeInfo};
use super::session::{Origin, Rejected, Session};
use super::{Connect, EndReason, Notice, Tombstone};
use crate::breakage::Breakage;
use crate::ids::{Frontier, GatewayId, Kind, ObjectKey, Revision, SessionId};
use crate::store::Store;
use crate::time::Mono;
use crate::version::{Exclusions, Version};

/// A gateway's guard counts from when our answer reached it, ours from when it
/// was sent.
const GUARD_MARGIN: Duration = Duration::from_secs(2);
/// Registrations of gateways that are not heard of any more leave after this.
const REGISTRATION: Duration = Duration::from_secs(600);

impl Engine {
    pub fn registered(&mut self, now: Mono, session: SessionId, gateway: GatewayId) {
        let guard_until = self.guard_from(now);
        if let Some(live) = self.by_gateway.get(&gateway).and_then(|slot| self.sessions.get_mut(slot)) {
            live.guard_until = live.guard_until.max(guard_until);
        }
        self.registrations.retain(|_, known| now.since(known.at) < REGISTRATION);
        let registration = Registration { session, at: now, streamless_since: now, warned: None };
        self.registrations.insert(gateway, registration);
    }

    fn guard_from(&self, registered: Mono) -> Mono {
        registered + self.config.shrink_guard + GUARD_MARGIN
    }

    pub fn connected(&mut self, now: Mono, connect: Connect) {
        let Connect { session: id, gateway, scope, last_version, registered } = connect;
        if let Some(slot) = self.by_id.get(&id).copied() {
            self.remove(now, slot);
        }
        if let Some(slot) = self.by_gateway.get(&gateway).copied() {
            self.end(now, slot, EndReason::Superseded);
        }
        let scope = ScopeInfo::new(scope);
        let (origin, doubt) = self.read(&scope, &last_version);
        let other = last_version.parse::<Version>().ok().filter(|version| self.is_other_history(version));
        if let Some(Version { incarnation, .. }) = &other {
            let (gateway, incarnation) = (gateway.clone(), incarnation.clone());
            self.notice(Notice::OtherHistory { gateway, incarnation });
            self.doubt_at = self.doubt_at.max(now + DOUBT_AGAIN);
        }
        if let Some(reason) = doubt {
            self.notice(Notice::NotResumable { gateway: gateway.clone(), reason });
        }
        let position = self.positions.unknown(&scope, origin.high());
        // Without knowing when it registered, it may have been just now.
        let guard_until = self.guard_from(registered.unwrap_or(now).min(now));
        let mut session = Session::new(id, gateway, origin, position, last_version.into(), now, guard_until);
        session.doubted = other.map(|_| now);
        if self.draining {
            session.end_at = Some(now);
        }
        self.insert(session);
    }

    pub fn anchor(&mut self, session: &SessionId) {
        if let Some(session) = self.session_mut(session) {
            session.anchored = true;
        }
    }

    pub fn one_a_call(&mut self, session: &SessionId) {
        if let Some(session) = self.session_mut(session) {
            session.no_full = true;
        }
    }

    fn session_mut(&mut self, session: &SessionId) -> Option<&mut Session> {
        let slot = self.by_id.get(session)?;
        self.sessions.get_mut(slot).map(Box::as_mut)
    }

    /// Whether a version is of this cluster and of another history of it.
    fn is_other_history(&self, version: &Version) -> bool {
        version.cluster == *self.positions.cluster() && version.incarnation != *self.positions.incarnation()
    }

    /// Whether nobody has said for so long that our history is still the cluster's that
    /// etcd may have been restored, and a gateway served by one who started since: what
    /// that one gave it lies below what we have read, and is newer.
    pub fn out_of_touch(&self, now: Mono) -> bool {
        let Some(limit) = self.config.out_of_touch else { return false };
        let ignored = self.config.breakage.is(Breakage::SilenceIgnored);
        !ignored && self.in_touch.is_none_or(|asked| now.since(asked) > limit)
    }

    pub fn in_touch(&mut self, asked: Mono) {
        // Whoever was out of touch may have read what is of no history any more.
        if !self.out_of_touch(asked) {
            self.in_touch = self.in_touch.max(Some(asked));
        }
    }

    pub fn confirmed(&mut self, asked: Mono) {
        self.confirmed = self.confirmed.max(Some(asked));
        self.in_touch = self.in_touch.max(Some(asked));
        let waits = |session: &Session| session.doubted.is_some() || session.origin.is_some();
        let waiting = self.sessions.iter().filter(|(_, session)| waits(session));
        self.touched.extend(waiting.map(|(slot, _)| *slot));
    }

    pub fn beyond_the_log(&mut self, asked: Mono, kind: Kind, newest: Revision) {
        for (slot, session) in &mut self.sessions {
            let Some(origin) = &session.origin else { continue };
            // Only what was said before the question was asked is refuted by its
            // answer.
            let early = session.warned_ahead.is_some_and(|warned| warned < asked);
            if origin.high().get(kind) > newest && early {
                session.origin = Some(Origin::Unknown { high: Frontier::default() });
                self.touched.insert(*slot);
            }
        }
    }

    pub fn disconnected(&mut self, now: Mono, session: &SessionId) {
        if let Some(slot) = self.by_id.get(session).copied() {
            self.remove(now, slot);
        }
    }

    /// What a version tells, and why not more.
    fn read(&self, scope: &ScopeInfo, text: &str) -> (Origin, Option<String>) {
        if text.is_empty() {
            return (Origin::Empty, None);
        }
        let nothing = Frontier::default();
        let version: Version = match text.parse() {
            Ok(version) => version,
            Err(error) => return (Origin::Unknown { high: nothing }, Some(error.to_string())),
        };
        let high = version.high;
        if version.cluster != *self.positions.cluster() {
            let reason = format!(
                "its version is of cluster {}, this is {}",
                version.cluster,
                self.positions.cluster()
            );
            return (Origin::Unknown { high: nothing }, Some(reason));
        }
        if version.incarnation != *self.positions.incarnation() {
            let reason = format!("its version is of the history {}", version.incarnation);
            return (Origin::Unknown { high: nothing }, Some(reason));
        }
        if version.scope != scope.hash {
            let reason = "it asked for other namespaces or kinds before, or another release served it";
            return (Origin::Unknown { high }, Some(reason.to_owned()));
        }
        if version.excluded == Exclusions::Unknown {
            let reason = "it had rejected more resources than a version names".to_string();
            return (Origin::Unknown { high }, Some(reason));
        }
        if version.low == nothing {
            let reason = "it was interrupted during its first synchronisation".to_string();
            return (Origin::Unknown { high }, Some(reason));
        }
        (Origin::At(version), None)
    }

    /// Turns what a gateway said into a position, now that the store has
    /// reached it.
    pub fn resolve(&mut self, now: Mono, session: &mut Session) {
        let Some(origin) = session.origin.take() else { return };
        self.applied_changes += 1;
        let position = match origin {
            Origin::Empty => self.positions.nothing(&session.scope),
            Origin::Unknown { high } => self.positions.unknown(&session.scope, high),
            Origin::At(version) => {
                let excluded = match &version.excluded {
                    Exclusions::Known(known)
                        if !known.is_empty() && !self.config.breakage.is(Breakage::ExclusionsForgotten) =>
                    {
                        owners(&self.store, known)
                    }
                    _ => BTreeMap::new(),
                };
                for (content, key) in &excluded {
                    let rejected = Rejected {
                        content: content.1,
                        held: None,
                        message: "rejected before this replica served the gateway".into(),
                    };
                    session.rejected.insert((content.0, key.clone()), rejected);
                }
                self.positions.intern(Position {
                    id: 0,
                    scope: session.scope.clone(),
                    base: Base::Log,
                    low: version.low,
                    high: version.high,
                    reach: version.high,
                    step: version.step,
                    ahead: Vec::new(),
                    doubtful: Vec::new(),
                    excluded,
                    bereft: false,
                    resumed: true,
                    turn: None,
                    version: "".into(),
                })
            }
        };
        session.move_to(now, position);
    }

    pub fn history(&mut self, kind: Kind, since: Revision, until: Revision, tombstones: Vec<Tombstone>) {
        // What was asked ahead may reach less far back than what a gateway waits for.
        if self.asked.get(&kind).is_some_and(|(asked, _)| since <= *asked) {
            self.asked.remove(&kind);
        }
        self.loud.other(kind, until);
        // A list may have overtaken the question, and left a gap that the answer says
        // nothing of: then it is asked again.
        let taken = self.store.history(kind, since, until, tombstones);
        // Whoever asked for no more than this and is still not covered will
        // not be by asking again.
        self.give_up(kind, |low| taken && low >= since);
    }

    pub fn history_unavailable(&mut self, kind: Kind, since: Revision) {
        self.asked.remove(&kind);
        self.give_up(kind, |low| low <= since);
    }

    fn give_up(&mut self, kind: Kind, concerned: impl Fn(Revision) -> bool) {
        let mut notices = Vec::new();
        for (slot, session) in &mut self.sessions {
            let position = &session.position;
            let Some(low) = position.since() else { continue };
            let covered = self.store.covers(kind, &low, &position.high);
            if session.origin.is_some() || covered {
                continue;
            }
            // Others ask for themselves.
            self.touched.insert(*slot);
            if concerned(low.get(kind)) && !session.full_required {
                session.full_required = true;
                notices.push(Notice::NotResumable {
                    gateway: session.gateway.clone(),
                    reason: format!("nobody knows which {} were deleted since it was served", kind.plural()),
                });
            }
        }
        notices.into_iter().for_each(|notice| self.notice(notice));
    }
}

/// Whose contents these are, as far as they are still current.
fn owners(store: &Store, contents: &BTreeSet<(Kind, u32)>) -> BTreeMap<(Kind, u32), ObjectKey> {
    let mut owners = BTreeMap::new();
    for kind in Kind::ALL {
        if !contents.iter().any(|(excluded, _)| *excluded == kind) {
            continue;
        }
        for object in store.objects(kind) {
            if let Some(view) = store.content_of(kind, &object.key)
                && contents.contains(&(kind, view.content))
            {
                owners.insert((kind, view.content), object.key.clone());
            }
        }
    }
    owners
}
