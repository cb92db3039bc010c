//! A replica's host: the adapters put together as the runtime does it, without what
//! needs no network (statuses, web pages, renewal of certificates).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flotilla_avapigw::AvapigwCompiler;
use flotilla_core::coordination::{CoordinationConfig, Identity as Candidate};
use flotilla_core::delivery::{Delivery as Engine, DeliveryConfig, Notice, Unlimited};
use flotilla_core::ids::{Instance, Kind, MemberName};
use flotilla_grpc::acceptor::{Acceptor, AcceptorConfig};
use flotilla_grpc::clock::MonoClock;
use flotilla_grpc::gateway::{
    DeliveryHandle, DeliveryTask, GatewayService, GatewayServiceConfig, HistoryWanted, delivery_channel,
};
use flotilla_grpc::metrics::Metrics;
use flotilla_grpc::peers::{PeerAddress, PeerEvent, Peers, PeersConfig, PeersParts};
use flotilla_k8s::coordination::{
    Announcement, Coordination, CoordinationMetrics, Handles, OwnershipView, PeerNews,
};
use flotilla_k8s::watch::{ObjectEvent, Wants, WatchConfig, WatchMetrics, Wiring, follow, replay_deletions};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::api::AUTHORITY;
use crate::network::{Port, dial, kube_client};
use crate::pki::{NAMESPACE, Pki, TRUST_DOMAIN};

/// Where gateways are served, and peers.
pub const GATEWAYS: u16 = 9444;
const PEERS: u16 = 9445;

type Delivery = DeliveryHandle<AvapigwCompiler>;

/// Says at every step on which namespaces the replica may act.
pub type Report = Arc<dyn Fn(&str, Vec<bool>) + Send + Sync>;

/// Runs until the host crashes. `restarted` counts the gateways that could not go on
/// where they had been, at all replicas together.
pub async fn run(
    member: &'static str,
    process: u32,
    pki: Arc<Pki>,
    namespaces: Vec<String>,
    report: Report,
    restarted: Arc<AtomicU32>,
) -> turmoil::Result {
    let clock = MonoClock::start();
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let cancel = CancellationToken::new();
    let (identity, server_tls, client_tls) = pki.replica(member)?;
    let instance = Instance::from(format!("{member}/{process}"));
    let member_name = MemberName::from(member);
    let client = kube_client(AUTHORITY);
    let cluster = cluster_id(&client).await;

    let (delivery, inbox) = delivery_channel::<AvapigwCompiler>();
    let (addresses, listed) = watch::channel(Vec::new());
    let config = PeersConfig { dial: dial(), ..PeersConfig::new(identity, instance.clone(), client_tls) };
    let PeersParts { peers, task: peers_task, service: peer_service, events } =
        Peers::parts(config, listed, delivery.history_source(), metrics.clone(), cancel.clone());
    let engine = Engine::new(config_of(&cluster), AvapigwCompiler::default());
    let (delivery_task, outputs) =
        DeliveryTask::new(engine, Box::new(Unlimited), inbox, clock, Some(peers.clone()), metrics.clone());
    tokio::spawn(delivery_task.run(cancel.clone()));
    tokio::spawn(peers_task.run());

    let service = GatewayServiceConfig {
        member: member_name.clone(),
        cluster: cluster.as_str().into(),
        incarnation: config_of(&cluster).incarnation,
        trust_domain: TRUST_DOMAIN.into(),
        heartbeat_interval: Duration::from_secs(30),
        anonymous: false,
    };
    let gateways = GatewayService::new(service, delivery.clone()).into_calls();
    let (port, config) = (Port::bind(GATEWAYS).await?, AcceptorConfig::default());
    let acceptor = Acceptor::new(port, server_tls.clone(), gateways, config, metrics.clone());
    tokio::spawn(acceptor.run(cancel.clone()));
    let (port, calls) = (Port::bind(PEERS).await?, peer_service.into_routes());
    let acceptor = Acceptor::new(port, server_tls.clone(), calls, config, metrics.clone());
    tokio::spawn(acceptor.run(cancel.clone()));

    let candidate =
        Candidate { member: member_name.clone(), instance, address: format!("{member}:{PEERS}").into() };
    let (coordination, handles) = Coordination::new(
        kube_client(AUTHORITY),
        NAMESPACE,
        candidate,
        CoordinationConfig { assume_new_cluster: true, ..CoordinationConfig::default() },
        CoordinationMetrics::new(&registry)?,
    )?;
    tokio::spawn(coordination.run(cancel.clone(), cancel.clone()));

    let (objects_in, objects) = mpsc::channel(1024);
    // Nobody restores this API server from a backup: doubts would have no ground.
    let (doubts, _doubts) = mpsc::channel(16);
    let watch_metrics = WatchMetrics::new(&registry)?;
    let wants = Wants::default();
    for kind in Kind::ALL {
        let wiring = Wiring { events: objects_in.clone(), doubts: doubts.clone(), wants: wants.clone() };
        let (client, metrics, cancel) = (client.clone(), watch_metrics.clone(), cancel.clone());
        tokio::spawn(follow(client, kind, WatchConfig::default(), metrics, wiring, cancel));
    }
    tokio::spawn(feed(objects, delivery.clone()));
    tokio::spawn(history(outputs.history, client, peers.clone(), delivery.clone()));

    let permit = handles.permit.clone();
    tokio::spawn(carry(Carried {
        member: member_name,
        peers,
        events,
        delivery,
        view: outputs.view,
        notices: outputs.notices,
        wants,
        handles,
        addresses,
        restarted,
    }));
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        ticks.tick().await;
        report(member, namespaces.iter().map(|namespace| permit.may_act(namespace)).collect());
    }
}

fn config_of(cluster: &str) -> DeliveryConfig {
    DeliveryConfig::avapigw(cluster)
}

/// Asks until the API server answers.
async fn cluster_id(client: &kube::Client) -> String {
    loop {
        let asked = flotilla_k8s::cluster::cluster_id(client);
        if let Ok(Ok(cluster)) = tokio::time::timeout(Duration::from_secs(2), asked).await {
            return cluster;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn feed(mut events: mpsc::Receiver<ObjectEvent>, delivery: Delivery) {
    while let Some(event) = events.recv().await {
        let told = match event {
            ObjectEvent::Listed { kind, revision, objects } => delivery.listed(kind, objects, revision).await,
            ObjectEvent::Changed(object) => delivery.changed(object).await,
            ObjectEvent::Deleted(kind, key, revision) => delivery.deleted(kind, key, revision).await,
            ObjectEvent::Bookmark(kind, revision) => delivery.bookmark(kind, revision).await,
        };
        if told.is_err() {
            return;
        }
    }
}

async fn history(
    mut questions: mpsc::Receiver<HistoryWanted>,
    client: kube::Client,
    peers: Peers,
    delivery: Delivery,
) {
    while let Some(HistoryWanted { kind, since, until }) = questions.recv().await {
        let found = match peers.history(kind, since, until).await {
            Some(history) => Some((history.until, history.tombstones)),
            None => replay_deletions(client.clone(), kind, since, until).await.map(|found| (until, found)),
        };
        let told = match found {
            Some((until, tombstones)) => delivery.history(kind, since, until, tombstones).await,
            None => delivery.history_unavailable(kind, since).await,
        };
        if told.is_err() {
            return;
        }
    }
}

/// What the parts have to say to each other.
struct Carried {
    member: MemberName,
    peers: Peers,
    events: mpsc::Receiver<PeerEvent>,
    delivery: Delivery,
    view: watch::Receiver<flotilla_grpc::gateway::DeliveryView>,
    notices: mpsc::Receiver<Notice>,
    wants: Wants,
    handles: Handles,
    addresses: watch::Sender<Vec<PeerAddress>>,
    restarted: Arc<AtomicU32>,
}

async fn carry(mut parts: Carried) {
    loop {
        tokio::select! {
            biased; // in the same order whenever the same is ready
            Some(announcement) = parts.handles.announcements.recv() => match announcement {
                Announcement::Settled(instance, epoch) => parts.peers.announce_settled(instance, epoch),
                Announcement::Departed(instance) => parts.peers.announce_departed(instance),
            },
            Some(event) = parts.events.recv() => hear(&parts, event).await,
            Ok(()) = parts.view.changed() => {
                let frontier = parts.view.borrow_and_update().frontier;
                parts.peers.set_frontier(frontier);
            }
            Ok(()) = parts.handles.ownership.changed() => {
                let view = parts.handles.ownership.borrow_and_update().clone();
                parts.addresses.send_replace(others(&view, &parts.member));
            }
            Some(notice) = parts.notices.recv() => match notice {
                Notice::AheadOfUs { high, .. } => parts.wants.raise(&high),
                Notice::NotResumable { .. } => {
                    parts.restarted.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            },
            // Nothing is being written that would have to end first: dropping it says so.
            Some(drain) = parts.handles.drains.recv() => drop(drain),
            else => return,
        }
    }
}

async fn hear(parts: &Carried, event: PeerEvent) {
    let news = match event {
        PeerEvent::Hello { highest_epoch, .. } => PeerNews::Hello { highest: highest_epoch },
        PeerEvent::Settled { instance, epoch, .. } => PeerNews::Settled { instance, epoch },
        PeerEvent::Departed { instance, .. } => PeerNews::Departed { instance },
        PeerEvent::Loads { member, report } => PeerNews::Loads { member, report },
        PeerEvent::ForwardedAck(ack) => {
            // An error says that delivery is gone, and with it the host.
            let _ = parts.delivery.forwarded_ack(ack).await;
            return;
        }
        PeerEvent::ForwardedHeartbeat { session, gateway, version } => {
            let _ = parts.delivery.forwarded_heartbeat(session, gateway, version).await;
            return;
        }
        PeerEvent::Applied { .. } | PeerEvent::Lost { .. } | PeerEvent::Testimony { .. } => return,
    };
    let _ = parts.handles.peers.send(news).await;
}

fn others(view: &OwnershipView, own: &MemberName) -> Vec<PeerAddress> {
    let members = view.map().map(|map| map.members.as_slice()).unwrap_or_default();
    members
        .iter()
        .filter(|member| member.name != *own)
        .map(|member| PeerAddress {
            member: member.name.clone(),
            instance: member.instance.clone(),
            address: member.address.to_string(),
        })
        .collect()
}
