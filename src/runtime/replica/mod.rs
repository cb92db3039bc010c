//! One replica: everything that `flotilla controller` runs, put together.
//!
//! ```text
//! watches ─▶ delivery ◀─▶ gateways          coordination ─▶ ownership
//!               │  ▲                              │  ▲
//!               ▼  └── history      peers ◀───────┴──┘
//!           reporting ◀──────────── tables
//! ```
//! Nothing here decides; it connects what decides with what talks.

mod events;
mod feed;
mod gaps;
mod history;
mod holding;
mod ingress;
mod inherit;
mod leaving;
mod lineage;
mod policy;
mod push;
mod reconciles;
mod reporting;
mod retries;
mod services;
mod settings;
mod voices;
mod writes;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_avapigw::{AvapigwCompiler, Class, References, Scope};
use flotilla_certs::Identity;
use flotilla_core::coordination::Identity as Candidate;
use flotilla_core::delivery::{Delivery as Engine, DeliveryConfig};
use flotilla_core::ids::{Instance, Kind, MemberName};
use flotilla_core::lineage::OUT_OF_TOUCH;
use flotilla_core::report::ReportConfig;
use flotilla_grpc::acceptor::{Acceptor, AcceptorConfig};
use flotilla_grpc::clock::MonoClock;
use flotilla_grpc::gateway::{
    DeliveryHandle, DeliveryTask, GatewayService, GatewayServiceConfig, delivery_channel,
};
use flotilla_grpc::limits::GovernorLimits;
use flotilla_grpc::peers::{PING, Peers, PeersConfig, PeersParts};
use flotilla_grpc::push::{MayDial, PushConfig, PushMetrics, PushTask, StatusService};
use flotilla_k8s::ca_bundle::CaBundle;
use flotilla_k8s::client::{Clients, connect};
use flotilla_k8s::coordination::{Coordination, CoordinationMetrics, Handles};
use flotilla_k8s::incarnation::{Incarnation, Incarnations};
use flotilla_k8s::watch::{Wants, WatchConfig, WatchMetrics, Wiring, follow};
use lineage::{Doubt, Lineage};
use prometheus::{Opts, Registry};
use rand::Rng as _;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::certs::{self, Keeping, Material, ReplicaTls, Source};
use crate::cli::{ControllerArgs, WebhookReferences};
use crate::registry;
use crate::supervisor::{Supervisor, beside};
use crate::web::{Readiness, listen, serve_metrics, serve_probes};
use crate::webhook::{self, Decider, Known, Webhooks};

use policy::PolicyFile;
use settings::Settings;

/// The handle of this family's delivery task.
pub type Delivery = DeliveryHandle<AvapigwCompiler>;

/// How long the parts of a replica may take to end, beyond the time over which
/// streams are spread.
const GRACE: Duration = Duration::from_secs(10);

/// How long a replica that API servers are told to ask goes on at least once it is told
/// to end, however fast its streams are ended: so long it may take until every API
/// server has seen that it is not ready. Who asks at a closed port may not write.
const UNASKED: Duration = Duration::from_secs(3);

/// How long answers of the web servers may take at the end.
const WEB_GRACE: Duration = Duration::from_secs(2);

/// How long one attempt to get from the API server what a start needs may take:
/// the client itself waits for ever for an answer.
const ATTEMPT: Duration = Duration::from_secs(20);

/// A replica that listens, and knows who it is.
pub struct Replica {
    args: ControllerArgs,
    settings: Settings,
    policy: Option<PolicyFile>,
    clients: Clients,
    gateways: TcpListener,
    peers: TcpListener,
    webhooks: Option<TcpListener>,
    metrics: TcpListener,
    probes: TcpListener,
}

impl Replica {
    /// Checks the flags and opens every port, so that mistakes show before
    /// anything runs.
    ///
    /// # Errors
    /// A flag, file or address that cannot be used, by its name.
    pub async fn open(args: ControllerArgs) -> anyhow::Result<Replica> {
        let settings = Settings::new(&args)?;
        let policy = match &args.gateway_policy {
            Some(path) => Some(PolicyFile::open(path).await.context("--gateway-policy")?),
            None => None,
        };
        let clients = connect(args.kubeconfig.as_deref()).await?;
        let at = |port| SocketAddr::new(args.bind_address, port);
        let webhooks = match args.enable_webhooks {
            true => Some(listen("webhook-port", at(args.webhook_port)).await?),
            false => None,
        };
        Ok(Replica {
            webhooks,
            gateways: listen("grpc-port", at(args.grpc_port)).await?,
            peers: listen("peer-port", at(args.peer_port)).await?,
            metrics: listen("metrics-bind-address", args.metrics_bind_address).await?,
            probes: listen("health-probe-bind-address", args.health_probe_bind_address).await?,
            args,
            settings,
            policy,
            clients,
        })
    }

    /// The port for gateways.
    pub fn grpc_port(&self) -> u16 {
        self.gateways.local_addr().map_or(0, |address| address.port())
    }

    /// Where peers reach this replica.
    fn advertised(&self) -> anyhow::Result<String> {
        if let Some(address) = &self.args.peer_advertise_address {
            return Ok(address.clone());
        }
        let local = self.peers.local_addr()?;
        let ip = match (self.args.pod_ip, local.ip()) {
            (Some(pod), _) => pod,
            (None, IpAddr::V4(any)) if any.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            (None, ip) => ip,
        };
        Ok(SocketAddr::new(ip, local.port()).to_string())
    }

    /// Runs until cancelled, then drains: streams end spread over a few
    /// seconds, namespaces are released and Leases given up at once.
    ///
    /// # Errors
    /// When a part ends that must not end.
    pub async fn run(self, cancel: CancellationToken) -> anyhow::Result<()> {
        let registry = registry::registry()?;
        let readiness = Readiness::default();
        // Web servers outlive the rest: an ending replica can still be watched.
        let web = CancellationToken::new();
        let mut servers = Supervisor::new(web.clone());
        let advertised = self.advertised()?;
        let Replica { args, settings, policy, clients, gateways, peers, webhooks, metrics, probes } = self;
        servers.spawn_fallible("metrics", serve_metrics(metrics, registry.clone(), web.clone()));
        servers.spawn_fallible("probes", serve_probes(probes, readiness.clone(), web.clone()));
        let told = cancel.clone();
        let work = async move {
            match Standby::open(&args, &settings, &clients, &readiness, &told).await? {
                // Told to end before the API server was there.
                None => Ok(()),
                Some(standby) => {
                    let ports = Ports { gateways, peers, webhooks, advertised };
                    assemble(args, settings, policy, clients, standby, ports, registry, readiness, told).await
                }
            }
        };
        beside(servers, WEB_GRACE, web, cancel, work).await
    }
}

/// What a replica needs of the API server before it can serve anybody.
struct Standby {
    cluster: String,
    incarnations: Incarnations,
    /// And when it was asked for.
    incarnation: (Incarnation, tokio::time::Instant),
    tls: ReplicaTls,
    held: Material,
    source: Source,
}

impl Standby {
    /// Waits for the API server for as long as it takes; gateways keep what
    /// they have meanwhile. `None` when told to end.
    async fn open(
        args: &ControllerArgs,
        settings: &Settings,
        clients: &Clients,
        readiness: &Readiness,
        cancel: &CancellationToken,
    ) -> anyhow::Result<Option<Standby>> {
        let mut pause = Duration::from_millis(200);
        let mut source = Source::new(args, settings.member.as_str(), clients.objects.clone()).await?;
        let attempt_time = ATTEMPT + source.patience();
        loop {
            let attempt = async {
                let cluster = flotilla_k8s::cluster::cluster_id(&clients.objects).await?;
                let incarnations = Incarnations::new(clients.leases.clone(), &args.cert_namespace);
                let asked = tokio::time::Instant::now();
                let incarnation = incarnations.confirm(lineage::fresh()).await?;
                let (tls, held) = source.open().await?;
                anyhow::Ok((cluster, incarnations, incarnation, asked, tls, held))
            };
            let error = tokio::select! {
                biased; // ending needs no API server
                () = cancel.cancelled() => return Ok(None),
                attempt = tokio::time::timeout(attempt_time, attempt) => match attempt {
                    Ok(Ok((cluster, incarnations, incarnation, confirmed, tls, held))) => {
                        let incarnation = (incarnation, confirmed);
                        return Ok(Some(Standby { cluster, incarnations, incarnation, tls, held, source }));
                    }
                    Ok(Err(error)) => error,
                    Err(_) => flotilla_k8s::Error::timeout("start", attempt_time).into(),
                },
            };
            let waits = error
                .downcast_ref::<flotilla_k8s::Error>()
                .is_some_and(|error| !matches!(error, flotilla_k8s::Error::Permanent { .. }));
            if !waits {
                return Err(error);
            }
            tracing::warn!(error = format!("{error:#}"), "standing by until the API server is there");
            readiness.waits_for(&format!("standing by until the API server is there: {error:#}\n"));
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::select! {
                biased; // as above
                () = cancel.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            }
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }
}

/// The open ports of all services.
struct Ports {
    gateways: TcpListener,
    peers: TcpListener,
    /// `None` when there are to be no webhooks.
    webhooks: Option<TcpListener>,
    advertised: String,
}

#[expect(clippy::too_many_arguments, reason = "everything comes together here, once")]
async fn assemble(
    args: ControllerArgs,
    settings: Settings,
    policy: Option<PolicyFile>,
    clients: Clients,
    standby: Standby,
    ports: Ports,
    registry: Registry,
    readiness: Readiness,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let standby = Standby { cluster: named_after(&standby.cluster, scope(&args)), ..standby };
    let clock = MonoClock::start();
    let origin = std::time::Instant::now();
    let member = settings.member.clone();
    let instance = Instance::from(format!("{member}/{:08x}", rand::rng().random::<u32>()));
    tracing::info!(member = %member, instance = %instance, cluster = standby.cluster,
        incarnation = standby.incarnation.0.id, "replica starts");
    // Parts end in two steps: first what takes on work, then what carries it out.
    let delivering = CancellationToken::new();
    let mut supervisor = Supervisor::new(delivering.clone());
    let grpc_metrics = flotilla_grpc::metrics::Metrics::new(&registry)?;
    let gateways = grpc_metrics.gateways_connected.clone();
    let opts = Opts::new("avapigw_operator_grpc_active_gateways", "As avapigw_operator_gateways_connected.");
    #[expect(clippy::cast_precision_loss, reason = "gateways are few")]
    registry::looked_at(&registry, opts, move || gateways.get() as f64)?;

    let (delivery, inbox) = delivery_channel::<AvapigwCompiler>();
    if let Some(policy) = &policy {
        // Before anybody can connect.
        delivery.set_policy(policy.policy()).await?;
    }
    let (addresses_in, addresses) = watch::channel(Vec::new());
    let identity = Identity::controller(&args.trust_domain, &args.cert_namespace, member.as_str())?;
    let peers_config = PeersConfig {
        incarnation: standby.incarnation.0.id.as_str().into(),
        ..PeersConfig::new(identity, instance.clone(), standby.tls.client.clone())
    };
    let PeersParts { peers, task: peers_task, service: peer_service, events: peer_events } = Peers::parts(
        peers_config,
        addresses,
        delivery.history_source(),
        grpc_metrics.clone(),
        delivering.clone(),
    );

    let config = DeliveryConfig {
        incarnation: standby.incarnation.0.id.as_str().into(),
        duty_cycle: args.gateway_duty_cycle,
        ack_timeout: args.ack_timeout,
        heartbeat_interval: args.heartbeat_interval,
        concurrent_full_syncs: args.concurrent_full_syncs.get(),
        out_of_touch: Some(OUT_OF_TOUCH),
        ..DeliveryConfig::avapigw(standby.cluster.clone())
    };
    let (task, outputs) = DeliveryTask::new(
        Engine::new(config, AvapigwCompiler { scope: scope(&args) }),
        Box::new(GovernorLimits::new(settings.limits)),
        inbox,
        clock,
        Some(peers.clone()),
        grpc_metrics.clone(),
    );
    let candidate = Candidate {
        member: member.clone(),
        instance: instance.clone(),
        address: ports.advertised.as_str().into(),
    };
    let (coordination, handles) = Coordination::new(
        clients.leases.clone(),
        &args.cert_namespace,
        candidate,
        settings.coordination.clone(),
        CoordinationMetrics::new(&registry)?,
    )?;
    let (known, webhooks, peer_service) = match &ports.webhooks {
        Some(_) => {
            let (known, decider, webhooks) = webhooks(&args, &settings, &peers, &handles, &registry)?;
            let peer_service = peer_service.with_admission(decider.source());
            supervisor.spawn("admission", decider.follow(delivering.clone()));
            (Some(known), Some(webhooks), peer_service)
        }
        None => (None, None, peer_service),
    };
    supervisor.spawn("delivery", task.run(delivering.clone()));
    supervisor.spawn("peers", peers_task.run());
    spawn_servers(
        &mut supervisor,
        &args,
        &settings,
        &standby,
        ports.gateways,
        ports.peers,
        &delivery,
        peer_service,
        &grpc_metrics,
        &delivering,
    );

    // Leases are given up at once when told to end, long before the last stream
    // has ended; that is no reason to end everything else.
    let ended = delivering.clone();
    let coordinating = coordination.run(cancel.clone(), ended.clone());
    supervisor.spawn("coordination", async move {
        coordinating.await;
        ended.cancelled().await;
    });

    let (objects_in, objects) = mpsc::channel(1024);
    let (behind_in, mut behind) = mpsc::channel(16);
    let (doubts_in, doubts) = mpsc::channel(64);
    let watch_metrics = WatchMetrics::new(&registry)?;
    readiness.explained_by(watch_metrics.clone());
    let wants = Wants::default();
    for kind in Kind::ALL {
        let task = follow(
            clients.objects.clone(),
            kind,
            WatchConfig::default(),
            watch_metrics.clone(),
            Wiring { events: objects_in.clone(), doubts: behind_in.clone(), wants: wants.clone() },
            delivering.clone(),
        );
        supervisor.spawn(kind.plural(), task);
    }
    drop(objects_in);
    let behind_doubts = doubts_in.clone();
    supervisor.spawn("doubts", async move {
        // Ends when the watches have.
        while let Some((kind, seen)) = behind.recv().await {
            // What finds no room is told again.
            let _ = behind_doubts.try_send(Doubt::Behind(kind, seen));
        }
    });
    drop(behind_in);
    let lineage = Lineage {
        client: clients.objects.clone(),
        incarnations: standby.incarnations.clone(),
        known: standby.incarnation.0.clone(),
        confirmed: standby.incarnation.1,
        delivery: delivery.clone(),
        doubts,
        metrics: lineage::Metrics::new(&registry)?,
        ahead: BTreeSet::new(),
    };
    supervisor.spawn_fallible("history of the cluster", lineage.run(delivering.clone()));
    let mut asked = false;
    if let (Some(listener), Some(webhooks)) = (ports.webhooks, webhooks) {
        let (tls, limits) = (standby.tls.webhooks.clone(), webhook::Limits::default());
        if let Some(name) = args.webhook_configuration.clone().filter(|name| !name.is_empty()) {
            asked = true;
            let bundle = CaBundle {
                client: clients.objects.clone(),
                name,
                trusted: standby.tls.trusted.subscribe(),
                ownership: handles.ownership.clone(),
                writes: CaBundle::metric(&registry)?,
            };
            supervisor.spawn("CA bundle", bundle.run(delivering.clone()));
        }
        supervisor.spawn("webhooks", webhook::serve(listener, tls, webhooks, limits, delivering.clone()));
    }
    spawn_push(
        &mut supervisor,
        &args,
        &member,
        &standby,
        &clients.objects,
        &delivery,
        &handles,
        &registry,
        (&cancel, &delivering),
    )?;
    let writes = writes::Writes::new();
    let finalizers = reconciles::Finalizers::new(&registry)?;
    let leaving = leaving::Leaving::new(args.deletion_timeout);
    let holding = args.finalizers.then(holding::Holding::default);
    if let Some(holding) = holding.clone() {
        let (permit, ownership) = (handles.permit.clone(), handles.ownership.clone());
        let client = clients.objects.clone();
        let (writes, counted) = (writes.clone(), finalizers.clone());
        let held = holding.run(client, permit, ownership, writes, counted, delivering.clone());
        supervisor.spawn("holding", held);
    }
    let (permit, ownership) = (handles.permit.clone(), handles.ownership.clone());
    let (events, writing) = events::Events::new(&registry)?;
    supervisor.spawn("events", writing.run(clients.objects.clone(), permit.clone(), delivering.clone()));
    let letting_go = leaving.clone().run(
        clients.objects.clone(),
        permit,
        ownership,
        writes.clone(),
        (events.clone(), finalizers.clone()),
        delivering.clone(),
    );
    supervisor.spawn("leaving", letting_go);
    supervisor.spawn(
        "feed",
        feed::run(
            objects,
            delivery.clone(),
            known.clone(),
            (leaving.clone(), holding),
            doubts_in.clone(),
            delivering.clone(),
        ),
    );
    let searches = history::Searches::new(clients.objects.clone(), peers.clone(), &registry)?;
    let (places_in, places) = mpsc::channel(64);
    let inherit =
        inherit::run(places, outputs.view.clone(), searches.ahead(), delivery.clone(), delivering.clone());
    supervisor.spawn("inheritance", inherit);
    let answer = history::answer(outputs.history, searches, delivery.clone(), delivering.clone());
    supervisor.spawn("history", answer);
    if let Some(policy) = policy {
        let follow = policy.follow(delivery.clone(), policy::Metrics::new(&registry)?, delivering.clone());
        supervisor.spawn("gateway policy", follow);
    }
    let reconciles = reconciles::Reconciles::new(&registry)?;
    let mut for_ingresses = None;
    if let Some(class) = class(&args) {
        let (observed_in, observed) = mpsc::channel(1024);
        for_ingresses = Some(observed_in.clone());
        let follow = flotilla_k8s::ingress::follow(clients.objects.clone(), observed_in, delivering.clone());
        supervisor.spawn("watches of Ingresses", follow);
        let ingresses = ingress::Ingresses {
            client: clients.objects.clone(),
            class,
            addresses: args.ingress_lb_address.as_deref().map(ingress::address).unwrap_or_default(),
            permit: handles.permit.clone(),
            ownership: handles.ownership.clone(),
            writes: writes.clone(),
            observed,
            events: events.clone(),
            metrics: ingress::Metrics::new(&registry, reconciles.clone(), finalizers)?,
        };
        supervisor.spawn("Ingresses", ingresses.run(delivering.clone()));
    }
    if known.is_some() || for_ingresses.is_some() {
        let (seen_in, seen) = mpsc::channel(64);
        let follow = flotilla_k8s::services::follow(clients.objects.clone(), seen_in, delivering.clone());
        supervisor.spawn("watch of Services", follow);
        supervisor.spawn("Services", services::run(seen, known, for_ingresses, delivering.clone()));
    }
    let (inputs_in, inputs) = mpsc::channel(256);
    let voices = voices::Voices {
        member,
        peers,
        peer_events,
        delivery: delivery.clone(),
        view: outputs.view.clone(),
        notices: outputs.notices,
        wants,
        doubts: doubts_in,
        ownership: handles.ownership.clone(),
        announcements: handles.announcements,
        coordination: handles.peers,
        addresses: addresses_in,
        reporting: inputs_in,
        places: places_in,
        readiness: readiness.clone(),
        metrics: voices::Metrics::new(&registry)?,
        weighing: voices::Weighing::default(),
        permit: handles.permit.clone(),
        audit: voices::Audit::new(&registry)?,
    };
    supervisor.spawn("voices", voices.run(delivering.clone()));
    let stay = if asked { args.drain_spread.max(UNASKED) } else { args.drain_spread };
    let reporting = reporting::Reporting {
        member: settings.member.clone(),
        client: clients.objects,
        delivery: delivery.clone(),
        ownership: handles.ownership,
        permit: handles.permit,
        drains: handles.drains,
        writes,
        inputs,
        view: outputs.view,
        config: ReportConfig {
            concurrency: args.status_concurrency.get(),
            patience: settings.coordination.member_lease.duration + Duration::from_secs(1),
            refresh_every: Duration::from_secs(1) / args.status_refresh_rate.get(),
            ..ReportConfig::default()
        },
        rate: args.status_rate,
        origin,
        events,
        leaving,
        metrics: reporting::Metrics::new(&registry, reconciles)?,
    };
    supervisor.spawn("reporting", reporting.run(delivering.clone()));
    let Standby { source, tls, held, .. } = standby;
    let metrics = certs::Metrics::new(&registry, args.cert_provider, settings.member.as_str(), &held)?;
    let keeping = Keeping { source, tls, held, metrics };
    supervisor.spawn("certificates", keeping.run(delivering.clone()));
    supervisor.spawn("drain", drain(cancel, readiness, delivery, args.drain_spread, stay, delivering));
    supervisor.run(args.drain_spread + GRACE).await
}

#[expect(clippy::too_many_arguments, reason = "two servers that differ only in what they serve")]
fn spawn_servers(
    supervisor: &mut Supervisor,
    args: &ControllerArgs,
    settings: &Settings,
    standby: &Standby,
    gateways: TcpListener,
    peers: TcpListener,
    delivery: &Delivery,
    peer_service: flotilla_grpc::peers::PeerService,
    metrics: &flotilla_grpc::metrics::Metrics,
    cancel: &CancellationToken,
) {
    if args.enable_grpc_server {
        if !args.require_client_certificate {
            let rules = args.gateway_policy.is_some();
            tracing::warn!(
                rules,
                "gateways without a client certificate are let in and believed who they say they are; they get what \
                 rules of --gateway-policy give them. Give gateways certificates, then set \
                 --require-client-certificate true"
            );
        }
        let config = GatewayServiceConfig {
            member: settings.member.clone(),
            cluster: standby.cluster.as_str().into(),
            incarnation: standby.incarnation.0.id.as_str().into(),
            trust_domain: Arc::from(args.trust_domain.as_str()),
            heartbeat_interval: args.heartbeat_interval,
            anonymous: !args.require_client_certificate,
        };
        let service = GatewayService::new(config, delivery.clone());
        let status = StatusService::new(delivery.clone(), Arc::from(args.trust_domain.as_str()));
        let service = service.into_calls().and(status.into_server());
        let tls = standby.tls.gateways.clone();
        let acceptor = Acceptor::new(gateways, tls, service, AcceptorConfig::default(), metrics.clone());
        supervisor.spawn("gateways", acceptor.run(cancel.clone()));
    }
    let service = peer_service.into_routes();
    let tls = standby.tls.peers.clone();
    // As those who dial do: until its connection is lost, who is gone without a word counts.
    let config =
        AcceptorConfig { keep_alive_interval: PING, keep_alive_timeout: PING, ..AcceptorConfig::default() };
    let acceptor = Acceptor::new(peers, tls, service, config, metrics.clone());
    supervisor.spawn("peer server", acceptor.run(cancel.clone()));
}

/// Dials the gateways that listen, if any are named.
#[expect(clippy::too_many_arguments, reason = "what is shared with the rest of the replica")]
fn spawn_push(
    supervisor: &mut Supervisor,
    args: &ControllerArgs,
    member: &MemberName,
    standby: &Standby,
    client: &kube::Client,
    delivery: &Delivery,
    handles: &Handles,
    registry: &Registry,
    (told, delivering): (&CancellationToken, &CancellationToken),
) -> anyhow::Result<()> {
    let metrics = PushMetrics::new(registry)?;
    let named = !args.push_gateways.is_empty() || !args.push_gateway_dns.is_empty();
    if !named && args.push_gateway_services.is_empty() {
        return Ok(());
    }
    let (found_in, found) = watch::channel(BTreeSet::new());
    let (chosen_in, chosen) = watch::channel(BTreeSet::new());
    let trust_domain = Arc::from(args.trust_domain.as_str());
    let config = PushConfig {
        heartbeat_interval: args.heartbeat_interval,
        call_timeout: args.push_call_timeout,
        ..PushConfig::new(member.clone(), trust_domain, standby.tls.listeners.clone())
    };
    let (behind_in, behind) = mpsc::channel(16);
    for service in &args.push_gateway_services {
        let follow = flotilla_k8s::endpoints::follow(
            client.clone(),
            service.clone(),
            behind_in.clone(),
            delivering.clone(),
        );
        supervisor.spawn("endpoints of gateways", follow);
    }
    let (fixed, names) = (push::distinct(&args.push_gateways)?, args.push_gateway_dns.clone());
    let search = push::Search { fixed, names, behind, found: found_in };
    let choosing = push::Choosing {
        member: member.clone(),
        ownership: handles.ownership.clone(),
        found,
        chosen: chosen_in,
    };
    let permit = handles.permit.clone();
    let may_dial: MayDial = Arc::new(move |target| permit.current().may_act(&target.ring_key()));
    let task = PushTask::new(config, delivery.clone(), chosen, may_dial, metrics, told.clone());
    supervisor.spawn("search for gateways", search.run(delivering.clone()));
    supervisor.spawn("choice of gateways", choosing.run(delivering.clone()));
    supervisor.spawn("push", task.run(delivering.clone()));
    Ok(())
}

/// The cluster as it stands in versions. With matches compared over all namespaces the
/// same frontier holds something else, so a gateway's version from before such a
/// change must not be resumed: its last bit is turned.
fn named_after(cluster: &str, scope: Scope) -> String {
    match (scope, u32::from_str_radix(cluster, 16)) {
        (Scope::Cluster, Ok(number)) => format!("{:08x}", number ^ 1),
        _ => cluster.to_owned(),
    }
}

/// Whose matches are compared.
fn scope(args: &ControllerArgs) -> Scope {
    if args.enable_cluster_wide_duplicate_check { Scope::Cluster } else { Scope::Namespace }
}

/// The class of Ingresses that are ours; `None` when none are.
fn class(args: &ControllerArgs) -> Option<Class> {
    args.enable_ingress_controller
        .then(|| Class { name: args.ingress_class_name.clone(), is_default: args.ingress_class_is_default })
}

/// What webhooks know, who decides with the others, and what answers reviews.
fn webhooks(
    args: &ControllerArgs,
    settings: &Settings,
    peers: &Peers,
    handles: &Handles,
    registry: &Registry,
) -> anyhow::Result<(Known, Decider, Webhooks)> {
    let references = match args.webhook_references {
        WebhookReferences::Warn => References::Warn,
        WebhookReferences::Deny => References::Deny,
    };
    let known = Known::new(scope(args));
    let metrics = webhook::Metrics::new(registry)?;
    let decider = metrics.decider(&known);
    let decider = decider.among(settings.member.clone(), peers.clone(), handles);
    let webhooks = Webhooks::new(known.clone(), decider.clone(), references, class(args), metrics);
    Ok((known, decider, webhooks))
}

/// Ends the replica in order once it is told to: not ready, streams ended one
/// after the other over `spread`, everything else after `stay`.
async fn drain(
    cancel: CancellationToken,
    readiness: Readiness,
    delivery: Delivery,
    spread: Duration,
    stay: Duration,
    delivering: CancellationToken,
) {
    tokio::select! {
        biased; // a part that failed has ended everything already
        () = delivering.cancelled() => return,
        () = cancel.cancelled() => {}
    }
    readiness.set(false);
    // An error says that there are no streams any more.
    let _ = delivery.drain(spread).await;
    tokio::select! {
        () = delivering.cancelled() => {}
        () = tokio::time::sleep(stay) => delivering.cancel(),
    }
}
