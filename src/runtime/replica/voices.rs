//! Carries what the parts of a replica have to say to each other and to the
//! peers: applied tables, settled epochs, addresses, readiness, gauges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::agreement::{
    Auditor, Comparison, Coverage, NamespaceHash, Testimony, Witness, namespace_hash,
};
use flotilla_core::delivery::Notice;
use flotilla_core::ids::{Epoch, Frontier, Kind, MemberName};
use flotilla_core::inheritance::places;
use flotilla_core::placement::{LoadReport, Meter, Sample};
use flotilla_core::time::Mono;
use flotilla_grpc::gateway::DeliveryView;
use flotilla_grpc::peers::{PeerAddress, PeerEvent, Peers};
use flotilla_k8s::coordination::{ActingPermit, Announcement, OwnershipView, PeerNews};
use flotilla_k8s::watch::Wants;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::gaps::Gaps;
use super::lineage::Doubt;
use super::reporting::Input;
use crate::web::Readiness;

const GAUGES_EVERY: Duration = Duration::from_secs(2);

/// How often replicas tell each other what they hold and act on: some 20 bytes
/// for each namespace.
const TESTIFY_EVERY: Duration = Duration::from_secs(15);

/// How many namespaces that differ are named in the log.
const NAMED: usize = 8;

/// Least time between two reports of weights under the same map.
const LOADS_EVERY: Duration = Duration::from_secs(10);

/// Gauges about this replica's share.
#[derive(Clone)]
pub struct Metrics {
    owned: IntGauge,
    objects: IntGaugeVec,
    resources: IntGaugeVec,
    gap: Histogram,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            owned: IntGauge::new(
                "flotilla_owned_namespaces",
                "Namespaces with delivered objects that this replica owns.",
            )?,
            objects: IntGaugeVec::new(
                Opts::new("avapigw_operator_crds_total", "Objects known, by type."),
                &["type"],
            )?,
            // Not by namespace, as the published operator has it: these have no bound.
            resources: IntGaugeVec::new(
                Opts::new("avapigw_operator_resources_total", "Objects known, by kind."),
                &["kind"],
            )?,
            gap: Histogram::with_opts(
                HistogramOpts::new(
                    "flotilla_ownership_gap_seconds",
                    "Per namespace gained: from its last owner's last known right to act to the start here.",
                )
                .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 6.0, 7.5, 10.0, 15.0, 30.0, 60.0, 300.0]),
            )?,
        };
        registry.register(Box::new(metrics.gap.clone()))?;
        registry.register(Box::new(metrics.owned.clone()))?;
        registry.register(Box::new(metrics.objects.clone()))?;
        registry.register(Box::new(metrics.resources.clone()))?;
        Ok(metrics)
    }
}

/// Measures what our namespaces weigh, and remembers what was told of it.
pub struct Weighing {
    meter: Meter,
    origin: Instant,
    told: Option<(Instant, Epoch, Arc<LoadReport>)>,
}

impl Default for Weighing {
    fn default() -> Self {
        Weighing { meter: Meter::default(), origin: Instant::now(), told: None }
    }
}

impl Weighing {
    /// News are told at once after a new map, otherwise at a bounded rate.
    fn is_due(&self, epoch: Epoch, report: &LoadReport) -> bool {
        self.told
            .as_ref()
            .is_none_or(|(at, of, told)| **told != *report && (*of != epoch || at.elapsed() >= LOADS_EVERY))
    }
}

/// The detectors for disagreement, and what they show.
pub struct Audit {
    auditor: Auditor,
    comparisons: IntCounterVec,
    audits: IntCounterVec,
    different: IntGauge,
    unowned: IntGauge,
    doubled: IntGauge,
}

impl Audit {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let audit = Audit {
            auditor: Auditor::default(),
            comparisons: IntCounterVec::new(
                Opts::new(
                    "flotilla_digest_comparisons_total",
                    "Digests of namespaces compared with another replica's, by outcome.",
                ),
                &["result"],
            )?,
            audits: IntCounterVec::new(
                Opts::new(
                    "flotilla_ownership_audits_total",
                    "Looks at who acts on what: complete when all members had spoken of the same epoch.",
                ),
                &["result"],
            )?,
            different: IntGauge::new(
                "flotilla_namespaces_different",
                "Namespaces of which another replica holds something else after the same events: must be 0.",
            )?,
            unowned: IntGauge::new(
                "flotilla_namespaces_unowned",
                "Namespaces on which no replica acts, by what all replicas say: 0 but for hand-overs.",
            )?,
            doubled: IntGauge::new(
                "flotilla_namespaces_doubly_owned",
                "Namespaces on which several replicas act, by what all replicas say: must be 0.",
            )?,
        };
        registry.register(Box::new(audit.comparisons.clone()))?;
        registry.register(Box::new(audit.audits.clone()))?;
        registry.register(Box::new(audit.different.clone()))?;
        registry.register(Box::new(audit.unowned.clone()))?;
        registry.register(Box::new(audit.doubled.clone()))?;
        for result in ["equal", "different", "apart"] {
            audit.comparisons.with_label_values(&[result]).inc_by(0);
        }
        for result in ["complete", "incomplete"] {
            audit.audits.with_label_values(&[result]).inc_by(0);
        }
        Ok(audit)
    }

    /// Counts a comparison; returns what is different for a second time.
    fn compared(&self, comparison: &Comparison) -> BTreeSet<NamespaceHash> {
        let result = match comparison {
            Comparison::Apart => "apart",
            Comparison::Equal => "equal",
            Comparison::Different(_) => "different",
        };
        self.comparisons.with_label_values(&[result]).inc();
        let different = self.auditor.different();
        self.different.set(i64::try_from(different.len()).unwrap_or(i64::MAX));
        if matches!(comparison, Comparison::Different(_)) { different } else { BTreeSet::new() }
    }

    fn covered(&self, coverage: Option<&Coverage>) {
        let result = if coverage.is_some() { "complete" } else { "incomplete" };
        self.audits.with_label_values(&[result]).inc();
        let (unowned, doubled) = coverage.map_or((0, 0), |found| (found.unowned.len(), found.doubled.len()));
        self.unowned.set(i64::try_from(unowned).unwrap_or(i64::MAX));
        self.doubled.set(i64::try_from(doubled).unwrap_or(i64::MAX));
        if doubled > 0 {
            tracing::error!(doubled, "several replicas act on the same namespaces");
        }
    }
}

/// Everything that is carried.
pub struct Voices {
    /// This replica.
    pub member: MemberName,
    /// Our voice.
    pub peers: Peers,
    /// What peers say.
    pub peer_events: mpsc::Receiver<PeerEvent>,
    /// For forwarded messages.
    pub delivery: Delivery,
    /// What our gateways have applied.
    pub view: watch::Receiver<DeliveryView>,
    /// What delivery noticed: logged there; what makes one doubt the history is
    /// passed on.
    pub notices: mpsc::Receiver<Notice>,
    /// How far gateways have shown that the log goes.
    pub wants: Wants,
    /// Reasons to doubt the history.
    pub doubts: mpsc::Sender<Doubt>,
    /// Who owns what.
    pub ownership: watch::Receiver<Arc<OwnershipView>>,
    /// What coordination has to say to peers.
    pub announcements: mpsc::Receiver<Announcement>,
    /// What peers say that concerns coordination.
    pub coordination: mpsc::Sender<PeerNews>,
    /// Whom to dial.
    pub addresses: watch::Sender<Vec<PeerAddress>>,
    /// Tables for the reporter.
    pub reporting: mpsc::Sender<Input>,
    /// Where peers' gateways are, for [`super::inherit`] as long as it asks.
    pub places: mpsc::Sender<Vec<Frontier>>,
    /// Whether gateways can be served.
    pub readiness: Readiness,
    /// Gauges.
    pub metrics: Metrics,
    /// Weights of our namespaces.
    pub weighing: Weighing,
    /// Whether we act on a namespace right now.
    pub permit: ActingPermit,
    /// What does not fit together among replicas.
    pub audit: Audit,
}

impl Voices {
    /// Runs until cancelled or until a part is gone. Coordination may be gone
    /// earlier: a replica that is told to end gives up its Leases at once, and
    /// its gateways' tables are of interest until its last stream has ended.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut ready = false;
        let mut gaps = Gaps::new(self.member.clone());
        let mut gauges = interval(GAUGES_EVERY);
        gauges.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut testify = interval(TESTIFY_EVERY);
        testify.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let going = tokio::select! {
                biased; // ending first; then what others wait for
                () = cancel.cancelled() => false,
                Some(announcement) = self.announcements.recv() => { self.announce(announcement); true }
                event = self.peer_events.recv() => match event {
                    Some(event) => self.heard(event).await,
                    None => false,
                },
                changed = self.view.changed() => changed.is_ok() && self.viewed(&mut ready).await,
                Ok(()) = self.ownership.changed() => self.owned(&mut gaps).await,
                Some(notice) = self.notices.recv() => {
                    if let Notice::AheadOfUs { high, .. } = &notice {
                        // It waits until we know as much.
                        self.wants.raise(high);
                    }
                    if let Some(doubt) = Doubt::of(notice) {
                        // What finds no room is noticed again.
                        let _ = self.doubts.try_send(doubt);
                    }
                    true
                }
                _ = gauges.tick() => self.gauges().await,
                _ = testify.tick() => self.testify().await,
            };
            if !going {
                return;
            }
        }
    }

    /// What we hold and act on at this moment; `None` when delivery is gone.
    async fn testimony(&self) -> Option<Arc<Testimony>> {
        let accepted = self.ownership.borrow().epoch();
        let permit = self.permit.clone();
        let look = move |engine: &flotilla_core::delivery::Delivery<_>| {
            let store = engine.store();
            // The permit may be of a later map than what was accepted when this was asked.
            let permit = permit.current();
            let epoch = accepted.max(permit.epoch());
            let witness = |(namespace, digest): (&Arc<str>, &u64)| {
                (namespace_hash(namespace), Witness { digest: *digest, acting: permit.may_act(namespace) })
            };
            let namespaces = store.digests().iter().map(witness).collect();
            Arc::new(Testimony { epoch, events: store.events(), namespaces })
        };
        self.delivery.inspect(look).await.ok()
    }

    /// Tells the others what we hold, and looks whether every namespace is
    /// acted on exactly once.
    async fn testify(&mut self) -> bool {
        if !self.view.borrow().ready {
            return true;
        }
        let Some(ours) = self.testimony().await else { return false };
        self.peers.set_testimony(ours.clone());
        let members = self.ownership.borrow().members();
        let coverage = self.audit.auditor.audit(&self.member, ours, &members);
        self.audit.covered(coverage.as_ref());
        true
    }

    async fn testified(&mut self, member: MemberName, theirs: Arc<Testimony>) -> bool {
        if !self.view.borrow().ready {
            return true;
        }
        let Some(ours) = self.testimony().await else { return false };
        let comparison = self.audit.auditor.hear(&member, theirs, &ours);
        let different = self.audit.compared(&comparison);
        if !different.is_empty() {
            let names = self.delivery.inspect(move |engine| {
                let names =
                    engine.store().digests().keys().filter(|name| different.contains(&namespace_hash(name)));
                names.take(NAMED).map(ToString::to_string).collect::<Vec<_>>()
            });
            let Ok(names) = names.await else { return false };
            tracing::warn!(%member, namespaces = names.join(","),
                "a replica that has seen the same events holds something else of these namespaces");
        }
        true
    }

    fn announce(&self, announcement: Announcement) {
        match announcement {
            Announcement::Settled(instance, epoch) => self.peers.announce_settled(instance, epoch),
            Announcement::Departed(instance) => self.peers.announce_departed(instance),
        }
    }

    async fn heard(&mut self, event: PeerEvent) -> bool {
        match event {
            PeerEvent::Hello { member, highest_epoch, .. } => {
                // What an earlier stream told is superseded: its table counts
                // as doubted until this one tells it.
                if self.reporting.send(Input::Doubted(member)).await.is_err() {
                    return false;
                }
                self.coordinate(PeerNews::Hello { highest: highest_epoch }).await
            }
            PeerEvent::Settled { instance, epoch, .. } => {
                self.coordinate(PeerNews::Settled { instance, epoch }).await
            }
            PeerEvent::Departed { instance, .. } => self.coordinate(PeerNews::Departed { instance }).await,
            PeerEvent::Applied { member, table, .. } => {
                if !self.places.is_closed() {
                    // What finds no room is asked for when a gateway comes.
                    let _ = self.places.try_send(places(&table).collect());
                }
                self.reporting.send(Input::Applied(member, table)).await.is_ok()
            }
            PeerEvent::Lost { member, .. } => self.reporting.send(Input::Lost(member)).await.is_ok(),
            PeerEvent::Testimony { member, testimony } => self.testified(member, testimony).await,
            PeerEvent::Loads { member, report } => self.coordinate(PeerNews::Loads { member, report }).await,
            PeerEvent::ForwardedAck(ack) => self.delivery.forwarded_ack(ack).await.is_ok(),
            PeerEvent::ForwardedHeartbeat { session, gateway, version } => {
                self.delivery.forwarded_heartbeat(session, gateway, version).await.is_ok()
            }
        }
    }

    async fn coordinate(&self, news: PeerNews) -> bool {
        // An error says that coordination has ended, see `run`.
        let _ = self.coordination.send(news).await;
        true
    }

    async fn viewed(&mut self, ready: &mut bool) -> bool {
        let view = self.view.borrow_and_update().clone();
        self.peers.set_frontier(view.frontier);
        if view.ready && !*ready {
            *ready = true;
            self.readiness.set(true);
            tracing::info!("every kind is listed, gateways can be served");
        }
        let table = Input::Applied(self.member.clone(), (*view.table).clone());
        self.reporting.send(table).await.is_ok()
    }

    async fn owned(&mut self, gaps: &mut Gaps) -> bool {
        let view = self.ownership.borrow_and_update().clone();
        let address = |member: &flotilla_core::shardmap::MapMember| PeerAddress {
            member: member.name.clone(),
            instance: member.instance.clone(),
            address: member.address.to_string(),
        };
        let others: Vec<PeerAddress> = view
            .map()
            .map(|map| map.members.iter().filter(|member| member.name != self.member).map(address).collect())
            .unwrap_or_default();
        self.addresses.send_if_modified(|known| {
            let changed = *known != others;
            *known = others;
            changed
        });
        let Some(gained) = gaps.gained(&view) else { return true };
        let metrics = self.metrics.clone();
        let look = move |engine: &flotilla_core::delivery::Delivery<_>| {
            let mut namespaces = BTreeSet::new();
            for object in Kind::ALL.into_iter().flat_map(|kind| engine.objects(kind)) {
                namespaces.insert(&object.key.namespace);
            }
            let gaps: Vec<Duration> = namespaces.into_iter().filter_map(|name| gained.gap(name)).collect();
            gaps.iter().for_each(|gap| metrics.gap.observe(gap.as_secs_f64()));
            if let Some(longest) = gaps.iter().max() {
                let (namespaces, longest_ms) = (gaps.len(), longest.as_millis());
                tracing::info!(namespaces, longest_ms, "acting on namespaces of others from now on");
            }
        };
        self.delivery.inspect(look).await.is_ok()
    }

    /// Looks at every object, so not with every change.
    async fn gauges(&mut self) -> bool {
        let view = self.ownership.borrow().clone();
        let metrics = self.metrics.clone();
        let look = move |engine: &flotilla_core::delivery::Delivery<_>| {
            let mut samples: BTreeMap<Arc<str>, Sample> = BTreeMap::new();
            for kind in Kind::ALL {
                let mut count = 0;
                for object in engine.objects(kind) {
                    count += 1;
                    if !samples.contains_key(&object.key.namespace) {
                        samples.insert(object.key.namespace.clone(), Sample::default());
                    }
                    if let Some(sample) = samples.get_mut(&object.key.namespace) {
                        sample.objects += 1;
                        sample.changes += u64::try_from(object.generation).unwrap_or(0);
                    }
                }
                metrics.objects.with_label_values(&[&kind.name().to_lowercase()]).set(count);
                metrics.resources.with_label_values(&[kind.name()]).set(count);
            }
            samples
        };
        let Ok(samples) = self.delivery.inspect(look).await else { return false };
        let own = |namespace: &str| view.owner(namespace) == Some(&self.member);
        let owned = samples.keys().filter(|namespace| own(namespace)).count();
        self.metrics.owned.set(i64::try_from(owned).unwrap_or(i64::MAX));
        // What is half listed says nothing about weights.
        if !self.view.borrow().ready {
            return true;
        }
        self.weighing.meter.observe(Mono::from_origin(self.weighing.origin.elapsed()), &samples);
        let report = self.weighing.meter.report(view.epoch(), own);
        if self.weighing.is_due(view.epoch(), &report) {
            let report = Arc::new(report);
            self.weighing.told = Some((Instant::now(), view.epoch(), report.clone()));
            self.peers.set_loads(report.clone());
            return self.coordinate(PeerNews::Loads { member: self.member.clone(), report }).await;
        }
        true
    }
}
