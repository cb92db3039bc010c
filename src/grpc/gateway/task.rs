//! The task that owns the delivery engine.
//!
//! It takes in all events that wait, then asks the engine once what to do, so a
//! burst becomes one decision. It never waits for a gateway: what a stream does
//! not take is the stream's problem. When it ends, for whatever reason, its
//! handles are dropped and every stream ends with trailers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use flotilla_core::compile::Compiler;
use flotilla_core::delivery::{
    AckVerdict, Action, AppliedTable, Batch, Change, Connect, Delivery, EndReason, Limits, Notice, Scope,
};
use flotilla_core::ids::{Frontier, GatewayId, Kind, Revision, SessionId};
use flotilla_core::policy::Asking;
use flotilla_core::time::Mono;
use prometheus::IntGauge;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, error, info, warn};

use super::body::{NotSent, Outgoing, StreamHandle};
use super::encode::EncodedBatches;
use super::handle::{Contact, Control, DeliveryInbox, Watch};
use super::lag::Lag;
use crate::clock::MonoClock;
use crate::metrics::Metrics;
use crate::peers::Peers;

/// How many events are taken in before the engine is asked: enough to make one
/// decision of a burst, few enough that acknowledgements are not late.
const EVENTS_PER_TURN: usize = 4096;

/// Least time between two publications of the view.
const VIEW_INTERVAL: Duration = Duration::from_millis(50);

/// The largest message that AVAPIGW gateways take.
const MESSAGE_LIMIT: u64 = 4 * 1024 * 1024;

/// How many questions and notices may wait for the runtime.
const OUTPUTS: usize = 256;

/// The engine does not remember deletions that far back: ask peers or the API
/// server, and answer with [`super::DeliveryHandle::history`] or
/// [`super::DeliveryHandle::history_unavailable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryWanted {
    /// The kind.
    pub kind: Kind,
    /// Deletions above this revision are wanted.
    pub since: Revision,
    /// How far this replica had read when it asked: an answer must reach it.
    pub until: Revision,
}

/// What the rest of the process sees of delivery.
#[derive(Debug, Clone, Default)]
pub struct DeliveryView {
    /// What this replica's gateways have applied.
    pub table: Arc<AppliedTable>,
    /// How far everything is read.
    pub frontier: Frontier,
    /// Whether every kind has been listed.
    pub ready: bool,
    /// Gateways with a stream here.
    pub gateways: usize,
}

/// What the delivery task tells the rest of the process.
pub struct DeliveryOutputs {
    /// Questions for history; one that finds no room is answered with
    /// "unavailable".
    pub history: mpsc::Receiver<HistoryWanted>,
    /// Notices, for Events; logs and metrics have them already. One that finds
    /// no room is left out.
    pub notices: mpsc::Receiver<Notice>,
    /// The view, at most 20 times a second.
    pub view: watch::Receiver<DeliveryView>,
}

/// A stream that is open here.
struct Stream {
    asking: Asking,
    /// What it gets of that.
    granted: Scope,
    handle: StreamHandle,
    /// Of a gateway without a certificate.
    _unconfirmed: Option<Unconfirmed>,
}

/// A stream that is counted as long as it is open.
struct Unconfirmed(IntGauge);

impl Unconfirmed {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Unconfirmed(gauge.clone())
    }
}

impl Drop for Unconfirmed {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Owns the engine; run it on the supervisor.
pub struct DeliveryTask<C: Compiler> {
    engine: Delivery<C>,
    limits: Box<dyn Limits + Send>,
    inbox: DeliveryInbox<C>,
    clock: MonoClock,
    /// Streams by session; the engine knows each of them.
    streams: BTreeMap<SessionId, Stream>,
    cache: EncodedBatches,
    peers: Option<Peers>,
    metrics: Metrics,
    history: mpsc::Sender<HistoryWanted>,
    notices: mpsc::Sender<Notice>,
    view: watch::Sender<DeliveryView>,
    /// [`Delivery::applied_changes`] of the published table.
    published: Option<u64>,
    /// Up to where it was looked whether something is news for gateways.
    read: Frontier,
    lag: Lag,
    view_due: Instant,
}

impl<C: Compiler> DeliveryTask<C> {
    /// A task over an engine. With `peers`, what belongs to other replicas is
    /// passed on, and they are told what is applied here.
    pub fn new(
        engine: Delivery<C>,
        limits: Box<dyn Limits + Send>,
        inbox: DeliveryInbox<C>,
        clock: MonoClock,
        peers: Option<Peers>,
        metrics: Metrics,
    ) -> (Self, DeliveryOutputs) {
        let (history_in, history) = mpsc::channel(OUTPUTS);
        let (notices_in, notices) = mpsc::channel(OUTPUTS);
        let (view_in, view) = watch::channel(DeliveryView::default());
        let task = DeliveryTask {
            engine,
            limits,
            inbox,
            clock,
            streams: BTreeMap::new(),
            cache: EncodedBatches::default(),
            peers,
            metrics,
            history: history_in,
            notices: notices_in,
            view: view_in,
            published: None,
            read: Frontier::default(),
            lag: Lag::default(),
            view_due: Instant::now(),
        };
        (task, DeliveryOutputs { history, notices, view })
    }

    /// Runs until shutdown, or until nobody can send it anything any more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let timer = self.next_timer();
            let more = tokio::select! {
                // Control before watch: acknowledgements are small and urgent.
                biased;
                () = shutdown.cancelled() => break,
                event = self.inbox.control.recv() => match event {
                    Some(event) => { self.control(event); true }
                    None => false,
                },
                event = self.inbox.watch.recv() => match event {
                    Some(event) => { self.watched(event); true }
                    None => false,
                },
                () = self.inbox.gone.notified() => { self.sweep(); true }
                () = sleep_until(timer) => true,
            };
            if !more {
                break;
            }
            self.take_in();
            let actions = self.engine.poll(self.clock.now(), self.limits.as_mut());
            for action in actions {
                self.act(action);
            }
            self.publish();
            // Taking from a full inbox never waits, so give way by hand.
            tokio::task::consume_budget().await;
        }
        info!(streams = self.streams.len(), "delivery ends");
        for (_, stream) in std::mem::take(&mut self.streams) {
            self.end_stream(stream, "shutdown", "this replica is going away; connect again", false);
        }
    }

    /// When to look again if nothing happens.
    fn next_timer(&self) -> Option<Instant> {
        let engine = self.engine.next_deadline().map(|moment| self.clock.instant(moment));
        let view = self.view_is_old().then_some(self.view_due);
        [engine, view].into_iter().flatten().min()
    }

    /// Takes in what waits, so that the engine decides on all of it at once.
    fn take_in(&mut self) {
        for _ in 0..EVENTS_PER_TURN {
            if let Ok(event) = self.inbox.control.try_recv() {
                self.control(event);
            } else if let Ok(event) = self.inbox.watch.try_recv() {
                self.watched(event);
            } else {
                return;
            }
        }
    }

    fn watched(&mut self, event: Watch) {
        match event {
            Watch::Listed { kind, objects, revision } => {
                info!(%kind, objects = objects.len(), %revision, "listed");
                self.engine.listed(kind, revision, objects);
            }
            Watch::Changed(object) => self.engine.changed(object),
            Watch::Deleted { kind, key, revision } => self.engine.deleted(kind, &key, revision),
            Watch::Bookmark { kind, revision } => self.engine.bookmark(kind, revision),
            Watch::History { kind, since, until, tombstones } => {
                self.engine.history(kind, since, until, tombstones);
            }
            Watch::HistoryUnavailable { kind, since } => self.engine.history_unavailable(kind, since),
        }
    }

    fn control(&mut self, event: Control<C>) {
        let now = self.clock.now();
        match event {
            Control::Registered(session, gateway) => self.engine.registered(now, session, gateway),
            Control::Connected { session, asking, version, contact, handle } => {
                self.connected(now, session.clone(), asking, version, handle);
                if let Contact::Dialled { batches } = contact {
                    self.engine.anchor(&session);
                    if !batches {
                        self.engine.one_a_call(&session);
                    }
                }
            }
            Control::Policy => self.review(now),
            Control::Acknowledged { ack, forward } => {
                let unknown = self.engine.acknowledged(now, ack.clone()) == AckVerdict::UnknownSession;
                let elsewhere =
                    || forward && self.peers.as_ref().is_some_and(|peers| peers.forward_ack(&ack));
                if unknown && !elsewhere() {
                    debug!(session = %ack.session, gateway = %ack.gateway, forward, "no session for an acknowledgement");
                }
            }
            Control::Heartbeat { session, gateway, version, sums, forward } => {
                self.heartbeat(now, &session, &gateway, &version, forward);
                if let Some(sums) = sums {
                    let holdings = self.engine.holds(now, &session, &gateway, &version, &sums);
                    self.metrics.compared(holdings);
                }
            }
            Control::Drain { spread } => self.engine.drain(now, spread),
            Control::Shed { count, spread } => self.engine.shed(now, count, spread),
            Control::Spare { but } => self.engine.spare(but),
            Control::InTouch { asked } => self.engine.in_touch(self.clock.moment(asked)),
            Control::Confirmed { asked } => self.engine.confirmed(self.clock.moment(asked)),
            Control::BeyondTheLog { asked, kind, newest } => {
                self.engine.beyond_the_log(self.clock.moment(asked), kind, newest);
            }
            Control::Inspect(question) => question(&self.engine),
        }
    }

    fn connected(
        &mut self,
        now: Mono,
        session: SessionId,
        asking: Asking,
        last_version: String,
        handle: StreamHandle,
    ) {
        let gateway = asking.gateway.clone();
        let there = self.engine.session_of(&gateway).and_then(|there| self.streams.get(&there.session));
        if asking.anonymous && there.is_some_and(|there| !there.asking.anonymous) {
            warn!(%gateway, %session, "a gateway without a certificate claims the name of one that has shown its own");
            let words =
                "a gateway of this name is connected with its certificate; show it, or take another name";
            handle.end(Status::permission_denied(words), false);
            return;
        }
        // The engine ends older streams of the gateway, but it knows them by
        // session: one under the same session has to go before.
        if let Some(old) = self.streams.remove(&session) {
            if old.asking.gateway != gateway {
                // Somebody else's session: theirs stays, this one is refused.
                warn!(%gateway, owner = %old.asking.gateway, %session, "a gateway names another's session");
                self.streams.insert(session, old);
                handle.end(
                    Status::permission_denied("this session is another gateway's; register first"),
                    false,
                );
                return;
            }
            self.end_stream(old, "superseded", "the gateway opened a newer stream", false);
            self.engine.disconnected(now, &session);
        }
        let granted = self.inbox.policy.load().grant(&asking);
        if granted != asking.scope {
            debug!(%gateway, ?granted, "the policy gives a gateway less than it asks for");
        }
        let (scope, session_id) = (granted.clone(), session.clone());
        let unconfirmed = asking.anonymous.then(|| Unconfirmed::new(&self.metrics.unconfirmed));
        self.streams.insert(session, Stream { asking, granted, handle, _unconfirmed: unconfirmed });
        let connect = Connect { session: session_id, gateway, scope, last_version, registered: None };
        self.engine.connected(now, connect);
        self.count_streams();
    }

    /// Ends the streams of those that get something else by the policy of now. A session
    /// is one of one scope: what the gateway may have no more is removed, and what it may
    /// have now is added, when it comes back.
    fn review(&mut self, now: Mono) {
        let policy = self.inbox.policy.load_full();
        let other = |(_, stream): &(&SessionId, &Stream)| policy.grant(&stream.asking) != stream.granted;
        let ended: Vec<_> = self.streams.iter().filter(other).map(|(session, _)| session.clone()).collect();
        for session in ended {
            let Some(stream) = self.streams.remove(&session) else { continue };
            info!(gateway = %stream.asking.gateway, %session, "the policy gives a gateway something else, ending its stream");
            self.end_stream(stream, "policy", "what this gateway may have has changed; connect again", true);
            self.engine.disconnected(now, &session);
        }
        self.count_streams();
    }

    fn heartbeat(
        &mut self,
        now: Mono,
        session: &SessionId,
        gateway: &GatewayId,
        version: &str,
        forward: bool,
    ) {
        if self.engine.heartbeat(now, session, gateway, version) != AckVerdict::UnknownSession {
            return;
        }
        if forward
            && let Some(peers) = &self.peers
            && peers.forward_heartbeat(session, gateway, version)
        {
            return;
        }
        // Nobody else could be told. Or another replica passed it on: then it
        // is for the one that granted the session to say that it has no stream.
        if forward || self.granted(session) {
            self.engine.homeless_heartbeat(now, gateway);
        }
    }

    fn granted(&self, session: &SessionId) -> bool {
        let member = session.as_str().rsplit_once('/').map(|(member, _)| member);
        self.peers.as_ref().is_none_or(|peers| member == Some(peers.member()))
    }

    /// Finds the streams whose clients are gone.
    fn sweep(&mut self) {
        let closed: Vec<SessionId> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.handle.is_closed())
            .map(|(session, _)| session.clone())
            .collect();
        for session in closed {
            self.forget(&session);
        }
    }

    /// A stream is over without the engine having said so.
    fn forget(&mut self, session: &SessionId) -> Option<Stream> {
        let stream = self.streams.remove(session)?;
        info!(gateway = %stream.asking.gateway, %session, "a gateway's stream is over");
        self.engine.disconnected(self.clock.now(), session);
        self.count_streams();
        Some(stream)
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Send { session, batch, first_sequence } => self.send(&session, &batch, first_sequence),
            Action::End { session, reason } => {
                let Some(stream) = self.streams.remove(&session) else { return };
                let (label, words) = words(reason);
                info!(gateway = %stream.asking.gateway, %session, reason = label, "ending a gateway's stream");
                // After a drain the gateway is to go elsewhere; after a silence
                // it may not read what we write. Either way the connection is
                // of no more use. A newer stream may share it, though.
                let close = !matches!(reason, EndReason::Superseded);
                match reason {
                    EndReason::AckTimeout => self.metrics.push_errors.inc(),
                    EndReason::Stale => self.metrics.reaped.inc(),
                    EndReason::Superseded | EndReason::Drain | EndReason::Balance => {}
                }
                self.end_stream(stream, label, words, close);
                self.count_streams();
            }
            Action::NeedHistory { kind, since } => {
                let until = self.engine.frontier().get(kind);
                if self.history.try_send(HistoryWanted { kind, since, until }).is_err() {
                    warn!(%kind, %since, "nobody can be asked for history");
                    self.engine.history_unavailable(kind, since);
                }
            }
            Action::Notice(notice) => self.notice(notice),
        }
    }

    fn send(&mut self, session: &SessionId, batch: &Arc<Batch>, first_sequence: i64) {
        let Some(stream) = self.streams.get(session) else { return };
        let (encoded, made) = self.cache.get(batch, SystemTime::now());
        if made {
            self.metrics.encoded.inc();
            if encoded.largest() > MESSAGE_LIMIT {
                // The engine plans with upper bounds; one that does not hold
                // would make gateways drop their streams for ever.
                error!(planned = batch.bytes, encoded = encoded.largest(), "a message is over the limit");
            }
        }
        let bytes = encoded.bytes();
        match stream.handle.send(Outgoing { batch: encoded, first_sequence }) {
            Ok(()) => {
                let kind = if batch.full {
                    "full"
                } else if batch.updates.iter().all(|update| matches!(update.change, Change::Heartbeat)) {
                    "version"
                } else {
                    "increments"
                };
                self.metrics.batches.with_label_values(&[kind]).inc();
                self.metrics.bytes.inc_by(bytes);
                self.metrics.pushes.inc();
            }
            // The one batch in flight always has room, so this one only moves
            // the version, of a client that does not read. Another will.
            Err(NotSent::Full)
                if batch.updates.iter().all(|update| matches!(update.change, Change::Heartbeat)) => {}
            Err(NotSent::Full) => {
                error!(gateway = %stream.asking.gateway, %session, "a stream has no room for its batch");
                self.metrics.push_errors.inc();
                if let Some(stream) = self.forget(session) {
                    self.end_stream(stream, "full", "the stream does not keep up; connect again", true);
                }
            }
            Err(NotSent::Closed) => {
                self.metrics.push_errors.inc();
                self.forget(session);
            }
        }
    }

    fn end_stream(&self, stream: Stream, label: &str, words: &str, close: bool) {
        self.metrics.streams_ended.with_label_values(&[label]).inc();
        stream.handle.end(Status::unavailable(words), close);
    }

    fn count_streams(&self) {
        self.metrics.gateways_connected.set(i64::try_from(self.streams.len()).unwrap_or(i64::MAX));
    }

    fn notice(&self, notice: Notice) {
        match &notice {
            Notice::NotResumable { gateway, reason } => {
                self.metrics.unknown_versions.inc();
                info!(%gateway, reason, "a gateway's version cannot be resumed");
            }
            Notice::AheadOfUs { gateway, high } => {
                info!(%gateway, ?high, "a gateway is ahead of this replica")
            }
            Notice::OtherHistory { gateway, incarnation } => {
                info!(%gateway, %incarnation, "a gateway's version is of another history, asking which one is now");
            }
            Notice::OutOfTouch { since: None } => debug!("gateways wait for the first look at the history"),
            Notice::OutOfTouch { since: Some(_) } => {
                warn!(
                    "gateways wait: the API server has not said for a while which history is the cluster's"
                );
            }
            Notice::Rejected { gateway, kind, key, message } => {
                self.metrics.rejected.inc();
                self.metrics.push_errors.inc();
                warn!(%gateway, %kind, %key, words = message, "a gateway rejected a resource");
            }
            Notice::Applied { gateway, took, updates, full } => {
                self.metrics.delivery_seconds.observe(took.as_secs_f64());
                self.metrics.config_applied.inc_by(*updates as u64);
                debug!(%gateway, ?took, updates, full, "a batch is applied");
            }
            Notice::Zombie { gateway } => {
                self.metrics.zombies.inc();
                warn!(%gateway, "a gateway heartbeats without a stream; only its restart helps");
            }
            Notice::StaleList { kind, revision, seen } => {
                warn!(%kind, %revision, %seen, "a list is older than what was seen; it is ignored");
            }
            Notice::Unrepairable { gateway, message } => {
                self.metrics.push_errors.inc();
                warn!(%gateway, words = message, "a gateway rejects what repaired others; it is synchronised anew");
            }
            Notice::HoldsOther { gateway, lacks, parts } => {
                let lacks: Vec<_> = lacks.iter().map(|(kind, key)| format!("{kind} {key}")).collect();
                warn!(%gateway, lacks = lacks.join(", "), parts,
                    "a gateway does not hold what it acknowledged: compare it with another one and restart the one that is wrong");
            }
            Notice::UnexpectedAck { gateway, version } => {
                self.metrics.unexpected_acks.inc();
                warn!(%gateway, version, "an acknowledgement for something never sent");
            }
        }
        // Nobody may be listening; see `DeliveryOutputs::notices`.
        let _ = self.notices.try_send(notice);
    }

    fn view_is_old(&self) -> bool {
        let view = self.view.borrow();
        self.published != Some(self.engine.applied_changes())
            || view.frontier != self.engine.frontier()
            || view.gateways != self.streams.len()
            || view.ready != self.engine.store().ready()
    }

    /// Marks when something was read that gateways are to get.
    fn mark(&mut self) {
        let frontier = self.engine.frontier();
        if frontier != self.read {
            let store = self.engine.store();
            if store.ready() && store.has_news_since(&self.read) {
                self.lag.read(Instant::now(), frontier);
            }
            self.read = frontier;
        }
    }

    fn publish(&mut self) {
        self.mark();
        if Instant::now() < self.view_due || !self.view_is_old() {
            return;
        }
        self.view_due = Instant::now() + VIEW_INTERVAL;
        let changes = self.engine.applied_changes();
        let table = if self.published == Some(changes) {
            self.view.borrow().table.clone()
        } else {
            Arc::new(self.engine.applied_table())
        };
        self.published = Some(changes);
        for took in self.lag.applied(Instant::now(), &table) {
            self.metrics.delivery_lag.observe(took.as_secs_f64());
        }
        self.metrics.delivery_pending(self.lag.pending_since());
        let frontier = self.engine.frontier();
        if let Some(peers) = &self.peers {
            peers.set_frontier(frontier);
            peers.set_applied(table.clone());
        }
        self.view.send_replace(DeliveryView {
            table,
            frontier,
            ready: self.engine.store().ready(),
            gateways: self.streams.len(),
        });
    }
}

/// A reason as a label and for the gateway's log.
fn words(reason: EndReason) -> (&'static str, &'static str) {
    match reason {
        EndReason::AckTimeout => ("ack_timeout", "no acknowledgement came in time; connect again"),
        EndReason::Superseded => ("superseded", "the gateway opened a newer stream"),
        EndReason::Stale => ("stale", "three heartbeats were missed; connect again"),
        EndReason::Drain => ("drain", "this replica is going away; connect again"),
        EndReason::Balance => ("balance", "this replica has more gateways than its share; connect again"),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
