//! A controller for tests: it records what gateways call, and sends what it is
//! told to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use flotilla_certs::ServerTls;
use flotilla_gateway::{FleetOptions, Gateway, GatewayOptions};
use flotilla_proto::operator as proto;
use flotilla_proto::operator::configuration_service_server::{
    ConfigurationService, ConfigurationServiceServer,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tonic::{Request, Response, Status};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `check` gives something; panics with `what` after a deadline.
pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < end, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// One recorded call.
#[derive(Debug, Clone)]
pub struct Call<T> {
    pub at: Instant,
    pub peer: SocketAddr,
    pub message: T,
}

#[derive(Debug, Default)]
struct Log {
    registers: Vec<Call<proto::RegisterGatewayRequest>>,
    streams: Vec<Call<proto::StreamConfigurationRequest>>,
    acks: Vec<Call<proto::AcknowledgeConfigurationRequest>>,
    heartbeats: Vec<Call<proto::HeartbeatRequest>>,
    senders: Vec<mpsc::Sender<Result<proto::ConfigurationUpdate, Status>>>,
}

/// How the operator answers.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// So many registrations fail first.
    pub failing_registers: usize,
    /// What answers leave out or name.
    pub heartbeat_interval: Duration,
    pub should_reconnect: bool,
    pub initial: Option<proto::ConfigurationSnapshot>,
    /// Connections get GOAWAY at this age; streams go on.
    pub connection_age: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            failing_registers: 0,
            heartbeat_interval: Duration::from_secs(30),
            should_reconnect: false,
            initial: None,
            connection_age: None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Operator {
    pub address: SocketAddr,
    behaviour: Arc<Behaviour>,
    log: Arc<Mutex<Log>>,
    /// Acknowledgements wait while this is set.
    hold_acks: watch::Sender<bool>,
}

impl Operator {
    pub async fn start(behaviour: Behaviour) -> Operator {
        let (operator, listener, server) = Self::prepare(behaviour).await;
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        operator
    }

    /// An operator that serves over TLS only.
    pub async fn start_tls(behaviour: Behaviour, tls: ServerTls) -> Operator {
        let (operator, listener, server) = Self::prepare(behaviour).await;
        let handshakes = futures::stream::unfold(listener, move |listener| {
            let tls = tls.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    // Failed handshakes are the client's matter.
                    if let Ok(stream) = TlsAcceptor::from(tls.config()).accept(stream).await {
                        return Some((Ok::<_, std::io::Error>(TlsIo(stream)), listener));
                    }
                }
            }
        });
        tokio::spawn(server.serve_with_incoming(handshakes));
        operator
    }

    async fn prepare(behaviour: Behaviour) -> (Operator, TcpListener, tonic::transport::server::Router) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let operator = Operator {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(behaviour),
            log: Arc::default(),
            hold_acks: watch::Sender::new(false),
        };
        let service =
            ConfigurationServiceServer::new(operator.clone()).max_encoding_message_size(16 * 1024 * 1024);
        let mut server = tonic::transport::Server::builder();
        if let Some(age) = operator.behaviour.connection_age {
            server = server.max_connection_age(age);
        }
        let router = server.add_service(service);
        (operator, listener, router)
    }

    /// Options of a gateway that dials this operator.
    pub fn gateway(&self, name: &str) -> GatewayOptions {
        let id = flotilla_core::ids::GatewayId { namespace: "edge".into(), name: name.into() };
        GatewayOptions { backoff_scale: 0.02, ..GatewayOptions::new(id, vec![self.address.into()], None) }
    }

    /// A gateway that has opened its stream.
    pub async fn with_gateway(&self) -> (flotilla_gateway::Fleet, Arc<Gateway>) {
        let fleet =
            flotilla_gateway::Fleet::start(vec![self.gateway("gw")], FleetOptions::default()).await.unwrap();
        let gateway = fleet.gateways()[0].clone();
        let streams = self.streams().len();
        eventually("a stream", || (self.streams().len() > streams).then_some(())).await;
        (fleet, gateway)
    }

    pub fn registers(&self) -> Vec<Call<proto::RegisterGatewayRequest>> {
        self.log.lock().unwrap().registers.clone()
    }

    pub fn streams(&self) -> Vec<Call<proto::StreamConfigurationRequest>> {
        self.log.lock().unwrap().streams.clone()
    }

    pub fn acks(&self) -> Vec<Call<proto::AcknowledgeConfigurationRequest>> {
        self.log.lock().unwrap().acks.clone()
    }

    pub fn heartbeats(&self) -> Vec<Call<proto::HeartbeatRequest>> {
        self.log.lock().unwrap().heartbeats.clone()
    }

    pub fn hold_acks(&self, hold: bool) {
        self.hold_acks.send_replace(hold);
    }

    /// Sends on the newest stream.
    pub async fn send(&self, update: proto::ConfigurationUpdate) {
        self.push(Ok(update)).await;
    }

    /// Sends on every stream.
    pub async fn send_to_all(&self, update: proto::ConfigurationUpdate) {
        let senders = self.log.lock().unwrap().senders.clone();
        for sender in senders {
            sender.send(Ok(update.clone())).await.unwrap();
        }
    }

    /// Sends and waits for the answer.
    pub async fn send_acked(
        &self,
        update: proto::ConfigurationUpdate,
    ) -> proto::AcknowledgeConfigurationRequest {
        let before = self.acks().len();
        let version = update.version.clone();
        self.send(update).await;
        eventually(&format!("the acknowledgement of {version}"), || {
            self.acks().get(before).map(|call| call.message.clone())
        })
        .await
    }

    /// Ends the newest stream, cleanly without a status.
    pub async fn end_stream(&self, status: Option<Status>) {
        match status {
            Some(status) => self.push(Err(status)).await,
            None => drop(self.log.lock().unwrap().senders.pop()),
        }
    }

    async fn push(&self, item: Result<proto::ConfigurationUpdate, Status>) {
        let sender = self.log.lock().unwrap().senders.last().unwrap().clone();
        sender.send(item).await.unwrap();
    }
}

/// A TLS connection that tells tonic its peer's address.
struct TlsIo(TlsStream<TcpStream>);

impl Connected for TlsIo {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn call<T>(request: Request<T>) -> Call<T> {
    let peer = request.remote_addr().unwrap();
    Call { at: Instant::now(), peer, message: request.into_inner() }
}

#[tonic::async_trait]
impl ConfigurationService for Operator {
    type StreamConfigurationStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<proto::ConfigurationUpdate, Status>> + Send>>;

    async fn register_gateway(
        &self,
        request: Request<proto::RegisterGatewayRequest>,
    ) -> Result<Response<proto::RegisterGatewayResponse>, Status> {
        let mut log = self.log.lock().unwrap();
        log.registers.push(call(request));
        let number = log.registers.len();
        if number <= self.behaviour.failing_registers {
            return Err(Status::unavailable("not yet"));
        }
        Ok(Response::new(proto::RegisterGatewayResponse {
            success: true,
            session_id: format!("session-{number}"),
            initial_config: self.behaviour.initial.clone(),
            heartbeat_interval: self.behaviour.heartbeat_interval.try_into().ok(),
            ..proto::RegisterGatewayResponse::default()
        }))
    }

    async fn stream_configuration(
        &self,
        request: Request<proto::StreamConfigurationRequest>,
    ) -> Result<Response<Self::StreamConfigurationStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let mut log = self.log.lock().unwrap();
        log.senders.push(sender);
        log.streams.push(call(request));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn get_configuration(
        &self,
        _request: Request<proto::GetConfigurationRequest>,
    ) -> Result<Response<proto::ConfigurationSnapshot>, Status> {
        Err(Status::unimplemented("gateways never call it"))
    }

    async fn heartbeat(
        &self,
        request: Request<proto::HeartbeatRequest>,
    ) -> Result<Response<proto::HeartbeatResponse>, Status> {
        self.log.lock().unwrap().heartbeats.push(call(request));
        Ok(Response::new(proto::HeartbeatResponse {
            acknowledged: true,
            should_reconnect: self.behaviour.should_reconnect,
            ..proto::HeartbeatResponse::default()
        }))
    }

    async fn acknowledge_configuration(
        &self,
        request: Request<proto::AcknowledgeConfigurationRequest>,
    ) -> Result<Response<proto::AcknowledgeConfigurationResponse>, Status> {
        self.log.lock().unwrap().acks.push(call(request));
        let mut held = self.hold_acks.subscribe();
        let _ = held.wait_for(|hold| !hold).await;
        Ok(Response::new(proto::AcknowledgeConfigurationResponse { received: true, server_time: None }))
    }
}
