//! Delivery: one session per gateway, driven by events.
//!
//! Adapters feed in what the API server and the gateways say, call
//! [`Delivery::poll`] when something happened or [`Delivery::next_deadline`]
//! has come, and carry out the actions. Nothing here waits, and nothing grows
//! with the number of changes a gateway has not seen: a session that is free
//! and behind gets the difference between its position and the frontier.

mod acks;
mod cost;
mod edge;
mod engine;
mod holdings;
mod loud;
mod plan;
mod poll;
mod position;
mod rejections;
mod repair;
mod resume;
pub(crate) mod scope;
mod search;
mod session;
pub(crate) mod size;
mod table;
mod types;

use std::time::Duration;

pub use scope::Scope;
pub(crate) use table::NAMED;
pub use types::*;

use crate::compile::Compiler;
use crate::digest::{Sums, digest};
use crate::ids::{Frontier, GatewayId, Kind, ObjectKey, Revision, SessionId};
use crate::object::RawObject;
use crate::store::{ContentView, Listed, Store};
use crate::time::Mono;
use engine::Engine;

/// The engine of one replica. See the module's description. A clone goes its
/// own way: models try every continuation of a state.
#[derive(Clone)]
pub struct Delivery<C> {
    compiler: C,
    engine: Engine,
}

impl<C: Compiler> Delivery<C> {
    /// An engine without objects and gateways.
    pub fn new(config: DeliveryConfig, compiler: C) -> Self {
        Delivery { compiler, engine: Engine::new(config) }
    }

    /// A complete list of one kind. A list that is older than what was seen is
    /// ignored and noticed.
    pub fn listed(&mut self, kind: Kind, revision: Revision, objects: Vec<RawObject>) -> Listed {
        self.engine.loud.other(kind, revision);
        let listed = self.engine.store.listed(&self.compiler, kind, revision, objects);
        if let Listed::Stale { seen } = listed {
            self.engine.notice(Notice::StaleList { kind, revision, seen });
        }
        listed
    }

    /// An object was created or modified.
    pub fn changed(&mut self, object: RawObject) {
        let known = self.engine.store.object(object.kind, &object.key);
        // A status is nobody's news.
        if known.is_none_or(|known| !known.has_content_of(&object)) {
            self.engine.loud.changed(&object.key.namespace, object.kind, object.revision);
        }
        self.engine.store.changed(&self.compiler, object);
    }

    /// An object was deleted at a revision.
    pub fn deleted(&mut self, kind: Kind, key: &ObjectKey, revision: Revision) {
        self.engine.loud.changed(&key.namespace, kind, revision);
        self.engine.store.deleted(&self.compiler, kind, key, revision);
    }

    /// Everything of a kind up to a revision has been seen.
    pub fn bookmark(&mut self, kind: Kind, revision: Revision) {
        self.engine.store.bookmark(kind, revision);
    }
}

impl<C> Delivery<C> {
    /// All deletions of a kind in (`since`, `until`]: the answer to
    /// [`Action::NeedHistory`]. It is of use only when `until` reaches our
    /// first list, so `until` should be our frontier when the question came.
    pub fn history(&mut self, kind: Kind, since: Revision, until: Revision, tombstones: Vec<Tombstone>) {
        self.engine.history(kind, since, until, tombstones);
    }

    /// Nobody knows what was deleted since: the gateways that asked are
    /// synchronised fully.
    pub fn history_unavailable(&mut self, kind: Kind, since: Revision) {
        self.engine.history_unavailable(kind, since);
    }

    /// At `asked` the history that this replica was started with was still the
    /// cluster's, as far as was read. That counts as long as no look came more than
    /// [`DeliveryConfig::out_of_touch`] after the one before it; then one has to be
    /// confirmed.
    pub fn in_touch(&mut self, asked: Mono) {
        self.engine.in_touch(asked);
    }

    /// The same, and proven by a write that was sent at `asked`, and that nothing read
    /// so far lies beyond. Gateways that came with a version of another history before
    /// that are synchronised fully, and those that waited because this replica was out
    /// of touch are served.
    pub fn confirmed(&mut self, asked: Mono) {
        self.engine.confirmed(asked);
    }

    /// It is proven that the log of a kind ended at `newest` when that was asked
    /// for at `asked`. Gateways that were ahead of it before are of a history
    /// that is no more, and are synchronised fully.
    pub fn beyond_the_log(&mut self, asked: Mono, kind: Kind, newest: Revision) {
        self.engine.beyond_the_log(asked, kind, newest);
    }

    /// A gateway registered: its guard against shrinking counts from here.
    pub fn registered(&mut self, now: Mono, session: SessionId, gateway: GatewayId) {
        self.engine.registered(now, session, gateway);
    }

    /// A gateway opened its stream. An older stream of the same gateway is
    /// ended, unless it had the same session: then the adapter has replaced
    /// the one by the other itself.
    pub fn connected(&mut self, now: Mono, connect: Connect) {
        self.engine.connected(now, connect);
    }

    /// A session's gateway was dialled, by the replica that has to: its stream is
    /// not ended for balance, or the same replica would only dial it again.
    pub fn anchor(&mut self, session: &SessionId) {
        self.engine.anchor(session);
    }

    /// A session's gateway takes one resource a call: a full synchronisation is one call
    /// for each that differs and a list of all, so it is only sent where nothing else
    /// is right, and never because it would be cheaper.
    pub fn one_a_call(&mut self, session: &SessionId) {
        self.engine.one_a_call(session);
    }

    /// A stream ended, for whatever reason. Sessions that are not known are
    /// fine.
    pub fn disconnected(&mut self, now: Mono, session: &SessionId) {
        self.engine.disconnected(now, session);
    }

    /// An acknowledgement came.
    pub fn acknowledged(&mut self, now: Mono, ack: Ack) -> AckVerdict {
        self.engine.acknowledged(now, ack)
    }

    /// A heartbeat came. `UnknownSession`: pass it on to the session's home.
    pub fn heartbeat(
        &mut self,
        now: Mono,
        session: &SessionId,
        gateway: &GatewayId,
        last_applied_version: &str,
    ) -> AckVerdict {
        self.engine.heartbeat(now, session, gateway, last_applied_version)
    }

    /// A gateway offers what it held when this was its version, with a heartbeat:
    /// compared with what it is to hold.
    pub fn holds(
        &mut self,
        now: Mono,
        session: &SessionId,
        gateway: &GatewayId,
        last_applied_version: &str,
        sums: &Sums,
    ) -> Holdings {
        self.engine.holds(now, session, gateway, last_applied_version, sums)
    }

    /// A heartbeat came whose session no replica knows.
    pub fn homeless_heartbeat(&mut self, now: Mono, gateway: &GatewayId) {
        self.engine.homeless_heartbeat(now, gateway);
    }

    /// Ends all streams, each at some moment of its own part of a while; streams
    /// that are opened later are ended at once.
    pub fn drain(&mut self, now: Mono, spread: Duration) {
        self.engine.drain(now, spread);
    }

    /// Ends `count` streams, each at some moment of its own part of a while,
    /// because this replica has more than its share. Those that are anchored stay.
    pub fn shed(&mut self, now: Mono, count: usize, spread: Duration) {
        self.engine.shed(now, count, spread);
    }

    /// Of the streams that are to be ended for balance all stay but the `but`
    /// that are to go next.
    pub fn spare(&mut self, but: usize) {
        self.engine.spare(but);
    }

    /// Decides what to do now.
    pub fn poll(&mut self, now: Mono, limits: &mut dyn Limits) -> Vec<Action> {
        self.engine.poll(now, limits)
    }

    /// When to poll next if nothing happens before: `Some` of a moment in the
    /// past means at once, `None` not at all.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.engine.next_deadline()
    }

    /// What this replica's gateways have applied.
    pub fn applied_table(&self) -> AppliedTable {
        self.engine.applied_table()
    }

    /// Moves whenever [`Delivery::applied_table`] may have.
    pub fn applied_changes(&self) -> u64 {
        self.engine.applied_changes
    }

    /// The objects and what they compile to.
    pub fn store(&self) -> &Store {
        &self.engine.store
    }

    /// One object as last seen.
    pub fn object(&self, kind: Kind, key: &ObjectKey) -> Option<&RawObject> {
        self.engine.store.object(kind, key)
    }

    /// All objects of a kind in the order of their keys.
    pub fn objects(&self, kind: Kind) -> impl Iterator<Item = &RawObject> {
        self.engine.store.objects(kind)
    }

    /// One object's content and what it compiles to.
    pub fn content_of(&self, kind: Kind, key: &ObjectKey) -> Option<ContentView<'_>> {
        self.engine.store.content_of(kind, key)
    }

    /// How far everything is seen.
    pub fn frontier(&self) -> Frontier {
        self.engine.store.frontier()
    }

    /// The sessions, for tools and metrics.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> {
        self.engine.sessions.values().map(|session| self.engine.session_view(session))
    }

    /// One gateway's session, if it is here.
    pub fn session_of(&self, gateway: &GatewayId) -> Option<SessionView> {
        let session = self.engine.sessions.get(self.engine.by_gateway.get(gateway)?)?;
        Some(self.engine.session_view(session))
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.engine.sessions.len()
    }

    /// What is kept besides objects and sessions.
    pub fn footprint(&self) -> Footprint {
        self.engine.footprint()
    }

    /// Digest of what a scope's gateways are to hold.
    pub fn digest(&self, scope: &Scope) -> String {
        digest(self.engine.store.entries(scope).map(|(_, resource)| resource.as_ref()))
    }
}
