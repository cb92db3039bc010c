//! Connections to the controller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flotilla_certs::Connection;
use flotilla_proto::operator::configuration_service_client::ConfigurationServiceClient;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};

use crate::gateway::Gateway;
use crate::options::OperatorAddress;

/// The client of one channel.
pub(crate) type OperatorClient = ConfigurationServiceClient<Channel>;

/// Messages of exactly this many bytes are accepted, as by the published
/// gateway.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;

/// How long one TCP connection and TLS handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Secured = TokioIo<Either<Connection, TlsStream<Connection>>>;

/// Makes channels. Every connection of every channel goes to another one of the
/// addresses than the last.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    gateway: Arc<Gateway>,
    last: Arc<AtomicUsize>,
}

impl Dialer {
    pub(crate) fn new(gateway: Arc<Gateway>) -> Self {
        let start = rand::random_range(0..gateway.options().operators.len().max(1));
        Dialer { gateway, last: Arc::new(AtomicUsize::new(start)) }
    }

    /// A channel that connects when it is first used, and again after GOAWAY
    /// or a broken connection: streams that run keep their connection, and
    /// calls that follow may reach another replica.
    pub(crate) fn client(&self) -> OperatorClient {
        let dialer = self.clone();
        // Which address it is, the connector decides; TLS is its matter too.
        let channel = Endpoint::from_static("http://operator")
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(3))
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let dialer = dialer.clone();
                async move { dialer.connect().await }
            }));
        ConfigurationServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT)
    }

    /// Tries every address once, the last one used after all others: a Service
    /// does not send connections to replicas that are gone either. Which one is
    /// first is drawn: if each gateway took the next in the list, all gateways of
    /// a replica that ends would meet at its neighbour.
    async fn connect(&self) -> io::Result<Secured> {
        let addresses = &self.gateway.options().operators;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no operator address");
        let from = self.last.load(Ordering::Relaxed);
        let others = addresses.len().saturating_sub(1).max(1);
        let drawn = rand::random_range(0..others);
        let turns = (0..others).map(|turn| 1 + (drawn + turn) % others).chain([0]);
        for turn in turns.take(addresses.len()) {
            let at = (from + turn) % addresses.len();
            let address = &addresses[at];
            self.last.store(at, Ordering::Relaxed);
            self.gateway.attempts();
            match tokio::time::timeout(CONNECT_TIMEOUT, self.connect_to(address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    let text = format!("cannot connect to {}:{}: {error}", address.host, address.port);
                    last = io::Error::new(error.kind(), text);
                }
                Err(_) => {
                    let text = format!("{}:{} does not answer", address.host, address.port);
                    last = io::Error::new(io::ErrorKind::TimedOut, text);
                }
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: &OperatorAddress) -> io::Result<Secured> {
        let options = self.gateway.options();
        let stream = options.dial.connect(address.to_string()).await?;
        let Some(tls) = &options.tls else { return Ok(TokioIo::new(Either::Left(stream))) };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(tls.config()).connect(name, stream).await?;
        Ok(TokioIo::new(Either::Right(stream)))
    }
}
