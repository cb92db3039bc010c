//! A fleet in a test: one authority, replicas that run in this process, and
//! gateways that dial them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flotilla_certs::{
    Alpn, Authority, CertificatePem, ClientAuth, ClientTls, Identity, LeafRequest, ServerCheck, ServerTls,
};
use flotilla_core::compile::{Compilation, Compiled, Compiler};
use flotilla_core::delivery::{Delivery, DeliveryConfig, Unlimited};
use flotilla_core::ids::{Instance, Kind, MemberName, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_grpc::acceptor::{Acceptor, AcceptorConfig};
use flotilla_grpc::clock::MonoClock;
use flotilla_grpc::gateway::{
    DeliveryHandle, DeliveryOutputs, DeliveryTask, GatewayService, GatewayServiceConfig, delivery_channel,
};
use flotilla_grpc::metrics::Metrics;
use flotilla_grpc::peers::{HistorySource, PeerAddress, PeerEvent, Peers, PeersConfig, PeersParts};
use flotilla_grpc::push::StatusService;
use flotilla_proto::operator::configuration_service_client::ConfigurationServiceClient;
use flotilla_proto::operator::{
    AcknowledgeConfigurationRequest, AcknowledgeConfigurationResponse, ConfigurationUpdate, GatewayInfo,
    RegisterGatewayRequest, StreamConfigurationRequest,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub const TRUST_DOMAIN: &str = "fleet.local";

/// Longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a future, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Every object compiles, to its spec with its name in front.
pub struct Plain;

impl Compiler for Plain {
    fn compile(&self, object: &RawObject, _exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
        let rest = std::str::from_utf8(&object.spec).unwrap().trim_start_matches('{').to_owned();
        let comma = if rest == "}" { "" } else { "," };
        let spec_json = Bytes::from(format!("{{\"name\":\"{}\"{comma}{rest}", object.key));
        Compilation {
            outcome: Ok(Compiled { spec_json, rank: 0 }),
            references: Vec::new(),
            claims: Vec::new(),
        }
    }
}

pub fn route(name: &str, revision: u64, spec: &str) -> RawObject {
    RawObject {
        kind: Kind::ApiRoute,
        key: ObjectKey::new("team", name),
        uid: format!("uid-{name}").into(),
        revision: Revision(revision),
        generation: i64::try_from(revision).unwrap(),
        created: "2026-11-21T10:00:00Z".into(),
        deleting: false,
        held: false,
        spec: Bytes::from(spec.to_owned()),
        status: Bytes::new(),
    }
}

pub struct Fleet {
    pub authority: Authority,
}

impl Fleet {
    pub fn new() -> Self {
        Fleet { authority: Authority::generate("fleet authority", SystemTime::now()).unwrap() }
    }

    pub fn controller(&self, trust_domain: &str, namespace: &str, member: &str) -> CertificatePem {
        let identity = Identity::controller(trust_domain, namespace, member).unwrap();
        let ips = vec!["127.0.0.1".parse().unwrap()];
        self.authority
            .issue_leaf(&LeafRequest::controller(identity, Vec::new(), ips), SystemTime::now())
            .unwrap()
    }

    pub fn gateway(&self, name: &str) -> CertificatePem {
        let identity = Identity::gateway(TRUST_DOMAIN, "edge", name).unwrap();
        self.authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now()).unwrap()
    }

    /// What a gateway dials with.
    pub fn client(&self, certificate: Option<&CertificatePem>) -> ClientTls {
        ClientTls::new(certificate, self.authority.roots(), ServerCheck::Name, Alpn::H2).unwrap()
    }

    /// What a replica dials gateways with.
    pub fn dialler(&self, certificate: &CertificatePem) -> ClientTls {
        let check = ServerCheck::Gateway { trust_domain: TRUST_DOMAIN.into() };
        ClientTls::new(Some(certificate), self.authority.roots(), check, Alpn::H2).unwrap()
    }

    /// What a replica dials with.
    pub fn peer_client(&self, certificate: &CertificatePem) -> ClientTls {
        let check = ServerCheck::Controller { trust_domain: TRUST_DOMAIN.into() };
        ClientTls::new(Some(certificate), self.authority.roots(), check, Alpn::H2).unwrap()
    }
}

/// How long a peer is waited for that was asked for deletions.
pub const HISTORY: Duration = Duration::from_secs(1);

/// How a replica is to be started.
pub struct Options {
    pub member: &'static str,
    pub instance: &'static str,
    pub delivery: DeliveryConfig,
    pub acceptor: AcceptorConfig,
    /// Where to listen; a free port unless set.
    pub listen: Option<SocketAddr>,
    /// Whether delivery tells the peers what it applied, or the test does.
    pub tell_peers: bool,
    /// Whether peers that ask for deletions get no answer.
    pub silent: bool,
    /// Whether client certificates are required.
    pub client_auth: ClientAuth,
    /// Whether gateways without one are believed.
    pub anonymous: bool,
}

impl Options {
    pub fn named(member: &'static str) -> Self {
        Options {
            member,
            instance: "1",
            delivery: DeliveryConfig { duty_cycle: 1.0, ..DeliveryConfig::avapigw("0a1b2c3d") },
            acceptor: AcceptorConfig { close_grace: Duration::from_millis(300), ..AcceptorConfig::default() },
            listen: None,
            tell_peers: true,
            silent: false,
            client_auth: ClientAuth::Required,
            anonymous: false,
        }
    }
}

pub struct Replica {
    pub member: MemberName,
    pub instance: Instance,
    pub address: SocketAddr,
    pub tls: ServerTls,
    pub delivery: DeliveryHandle<Plain>,
    pub outputs: DeliveryOutputs,
    pub peers: Peers,
    pub addresses: watch::Sender<Vec<PeerAddress>>,
    pub events: mpsc::Receiver<PeerEvent>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    pub delivery_task: JoinHandle<()>,
    acceptor: JoinHandle<()>,
    peers_task: JoinHandle<()>,
}

impl Replica {
    pub async fn start(fleet: &Fleet, options: Options) -> Self {
        let certificate = fleet.controller(TRUST_DOMAIN, "system", options.member);
        let identity = Identity::controller(TRUST_DOMAIN, "system", options.member).unwrap();
        let member = MemberName::from(options.member);
        let instance = Instance::from(format!("{}/{}", options.member, options.instance));
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let shutdown = CancellationToken::new();
        let (delivery, inbox) = delivery_channel::<Plain>();

        let (addresses, listed) = watch::channel(Vec::new());
        let config = PeersConfig {
            backoff: (Duration::from_millis(20), Duration::from_millis(200)),
            history_timeout: HISTORY,
            incarnation: options.delivery.incarnation.clone(),
            ..PeersConfig::new(identity, instance.clone(), fleet.peer_client(&certificate))
        };
        let history: HistorySource = match options.silent {
            true => Arc::new(|_, _| Box::pin(std::future::pending())),
            false => delivery.history_source(),
        };
        let PeersParts { peers, task, service, events } =
            Peers::parts(config, listed, history, metrics.clone(), shutdown.clone());

        let engine = Delivery::new(options.delivery.clone(), Plain);
        let clock = MonoClock::start();
        let told = options.tell_peers.then(|| peers.clone());
        let (delivery_task, outputs) =
            DeliveryTask::new(engine, Box::new(Unlimited), inbox, clock, told, metrics.clone());

        let gateways = GatewayService::new(
            GatewayServiceConfig {
                member: member.clone(),
                cluster: options.delivery.cluster.clone(),
                incarnation: options.delivery.incarnation.clone(),
                trust_domain: TRUST_DOMAIN.into(),
                heartbeat_interval: options.delivery.heartbeat_interval,
                anonymous: options.anonymous,
            },
            delivery.clone(),
        );
        let status = StatusService::new(delivery.clone(), TRUST_DOMAIN.into());
        let calls = gateways.into_calls().and(service.into_server()).and(status.into_server());
        let tls =
            ServerTls::new(&certificate, fleet.authority.roots(), options.client_auth, Alpn::H2).unwrap();
        let listen = options.listen.unwrap_or_else(|| "127.0.0.1:0".parse().unwrap());
        let listener = TcpListener::bind(listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener, tls.clone(), calls, options.acceptor, metrics.clone());
        Replica {
            member,
            instance,
            address,
            tls,
            delivery,
            outputs,
            peers,
            addresses,
            events,
            metrics,
            delivery_task: tokio::spawn(delivery_task.run(shutdown.clone())),
            acceptor: tokio::spawn(acceptor.run(shutdown.clone())),
            peers_task: tokio::spawn(task.run()),
            shutdown,
        }
    }

    /// A replica that has read everything: these routes, and nothing else.
    pub async fn with_routes(fleet: &Fleet, options: Options, routes: Vec<RawObject>) -> Self {
        let replica = Self::start(fleet, options).await;
        replica.list(routes, 100).await;
        replica
    }

    pub async fn list(&self, routes: Vec<RawObject>, revision: u64) {
        self.delivery.listed(Kind::ApiRoute, routes, Revision(revision)).await.unwrap();
        for kind in [Kind::GrpcRoute, Kind::Backend, Kind::GrpcBackend] {
            self.delivery.listed(kind, Vec::new(), Revision(revision)).await.unwrap();
        }
    }

    pub fn peer_address(&self) -> PeerAddress {
        PeerAddress {
            member: self.member.clone(),
            instance: self.instance.clone(),
            address: self.address.to_string(),
        }
    }

    /// Ends everything and waits for it.
    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the replica's end", async {
            // A test may have made this one panic.
            let _ = self.delivery_task.await;
            self.acceptor.await.unwrap();
            self.peers_task.await.unwrap();
        })
        .await;
    }
}

/// A connection over TLS; errors are those of the handshake.
pub async fn channel(address: SocketAddr, tls: &ClientTls) -> Result<Channel, tonic::transport::Error> {
    let tls = tls.clone();
    let connector = tower::service_fn(move |_| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::from(address.ip());
            TlsConnector::from(tls.config()).connect(name, stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://replica").connect_with_connector(connector).await
}

/// Dials a replica over TLS; errors are those of the handshake.
pub async fn dial(
    address: SocketAddr,
    tls: &ClientTls,
) -> Result<ConfigurationServiceClient<Channel>, tonic::transport::Error> {
    let channel = channel(address, tls).await?;
    Ok(ConfigurationServiceClient::new(channel).max_decoding_message_size(4 * 1024 * 1024))
}

pub fn info(name: &str) -> Option<GatewayInfo> {
    Some(GatewayInfo { name: name.to_owned(), namespace: "edge".to_owned(), ..GatewayInfo::default() })
}

/// A gateway: what it was given, and how to answer.
pub struct Gateway {
    pub name: String,
    pub client: ConfigurationServiceClient<Channel>,
    pub session: String,
    pub updates: Streaming<ConfigurationUpdate>,
}

impl Gateway {
    /// Registers and opens a stream.
    pub async fn connect(fleet: &Fleet, replica: &Replica, name: &str, version: &str) -> Self {
        let tls = fleet.client(Some(&fleet.gateway(name)));
        let client = dial(replica.address, &tls).await.unwrap();
        Self::open(client, name, version).await
    }

    pub async fn open(mut client: ConfigurationServiceClient<Channel>, name: &str, version: &str) -> Self {
        let request = RegisterGatewayRequest { gateway: info(name), capabilities: None };
        let registered = client.register_gateway(request).await.unwrap().into_inner();
        assert!(registered.success, "{}", registered.error_message);
        assert!(registered.initial_config.is_none());
        let session = registered.session_id;
        let updates = client.stream_configuration(stream_request(name, &session, version)).await.unwrap();
        Gateway { name: name.to_owned(), client, session, updates: updates.into_inner() }
    }

    pub async fn next(&mut self) -> Result<ConfigurationUpdate, Status> {
        within("an update", self.updates.message()).await?.ok_or_else(|| Status::ok("the stream ended"))
    }

    /// The status with which the stream ends, after whatever comes before.
    pub async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    pub async fn ack(&mut self, version: &str) -> AcknowledgeConfigurationResponse {
        let request = ack_request(&self.name, &self.session, version);
        self.client.acknowledge_configuration(request).await.unwrap().into_inner()
    }

    /// Takes and acknowledges everything up to the first snapshot.
    pub async fn synchronise(&mut self) -> ConfigurationUpdate {
        loop {
            let update = self.apply_next().await;
            if update.snapshot.is_some() {
                return update;
            }
        }
    }

    /// Takes one update and acknowledges it.
    pub async fn apply_next(&mut self) -> ConfigurationUpdate {
        let update = self.next().await.unwrap();
        self.ack(&update.version).await;
        update
    }
}

pub fn stream_request(name: &str, session: &str, version: &str) -> StreamConfigurationRequest {
    StreamConfigurationRequest {
        session_id: session.to_owned(),
        gateway: info(name),
        last_config_version: version.to_owned(),
        ..StreamConfigurationRequest::default()
    }
}

pub fn ack_request(name: &str, session: &str, version: &str) -> AcknowledgeConfigurationRequest {
    AcknowledgeConfigurationRequest {
        session_id: session.to_owned(),
        gateway: info(name),
        config_version: version.to_owned(),
        success: true,
        error_message: String::new(),
        apply_duration: Some(prost_types::Duration { seconds: 0, nanos: 1_000_000 }),
    }
}
