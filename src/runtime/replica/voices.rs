//! Carries what the parts of a replica have to say to each other and to the
//! peers: applied tables, settled epochs, addresses, readiness, gauges.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::Notice;
use flotilla_core::ids::{Epoch, Kind, MemberName};
use flotilla_core::placement::{LoadReport, Meter, Sample};
use flotilla_core::time::Mono;
use flotilla_grpc::gateway::DeliveryView;
use flotilla_grpc::peers::{PeerAddress, PeerEvent, Peers};
use flotilla_k8s::coordination::{Announcement, OwnershipView, PeerNews};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::lineage::Doubt;
use super::reporting::Input;
use crate::web::Readiness;

const GAUGES_EVERY: Duration = Duration::from_secs(2);

/// Least time between two reports of weights under the same map.
const LOADS_EVERY: Duration = Duration::from_secs(10);

/// Gauges about this replica's share.
#[derive(Clone)]
pub struct Metrics {
    owned: IntGauge,
    objects: IntGaugeVec,
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
        };
        registry.register(Box::new(metrics.owned.clone()))?;
        registry.register(Box::new(metrics.objects.clone()))?;
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
    /// Whether gateways can be served.
    pub readiness: Readiness,
    /// Gauges.
    pub metrics: Metrics,
    /// Weights of our namespaces.
    pub weighing: Weighing,
}

impl Voices {
    /// Runs until cancelled or until a part is gone. Coordination may be gone
    /// earlier: a replica that is told to end gives up its Leases at once, and
    /// its gateways' tables are of interest until its last stream has ended.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut ready = false;
        let mut gauges = interval(GAUGES_EVERY);
        gauges.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                Ok(()) = self.ownership.changed() => { self.owned(); true }
                Some(notice) = self.notices.recv() => {
                    if let Some(doubt) = Doubt::of(notice) {
                        // What finds no room is noticed again.
                        let _ = self.doubts.try_send(doubt);
                    }
                    true
                }
                _ = gauges.tick() => self.gauges().await,
            };
            if !going {
                return;
            }
        }
    }

    fn announce(&self, announcement: Announcement) {
        match announcement {
            Announcement::Settled(instance, epoch) => self.peers.announce_settled(instance, epoch),
            Announcement::Departed(instance) => self.peers.announce_departed(instance),
        }
    }

    async fn heard(&self, event: PeerEvent) -> bool {
        match event {
            PeerEvent::Hello { highest_epoch, .. } => {
                self.coordinate(PeerNews::Hello { highest: highest_epoch }).await
            }
            PeerEvent::Settled { instance, epoch, .. } => {
                self.coordinate(PeerNews::Settled { instance, epoch }).await
            }
            PeerEvent::Departed { instance, .. } => self.coordinate(PeerNews::Departed { instance }).await,
            PeerEvent::Applied { member, table, .. } => {
                self.reporting.send(Input::Applied(member, table)).await.is_ok()
            }
            PeerEvent::Lost { member, .. } => self.reporting.send(Input::Lost(member)).await.is_ok(),
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

    fn owned(&mut self) {
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
