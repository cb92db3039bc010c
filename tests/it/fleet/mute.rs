//! A client that opens a configuration stream and then does not read any more:
//! not its messages, and not a byte of its connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use flotilla_certs::{Alpn, Authority, ClientTls, Identity, LeafRequest, ServerCheck};
use flotilla_proto::operator as proto;
use flotilla_proto::operator::configuration_service_client::ConfigurationServiceClient;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint, Uri};

use super::gateways::{GATEWAYS, TRUST_DOMAIN};

/// Its open stream.
pub struct Mute {
    _client: ConfigurationServiceClient<Channel>,
    _updates: Streaming<proto::ConfigurationUpdate>,
}

impl Mute {
    /// Registers as a gateway and opens its stream. Once `deaf` is set, nothing
    /// is read any more.
    pub async fn connect(port: u16, authority: &Authority, name: &str, deaf: Arc<AtomicBool>) -> Mute {
        let mut client = dial(port, authority, name, deaf).await;
        let (_, updates) = open(&mut client, &info(name)).await;
        Mute { _client: client, _updates: updates }
    }
}

/// A client with a gateway's certificate. Once `deaf` is set, it reads nothing any
/// more.
pub(super) async fn dial(
    port: u16,
    authority: &Authority,
    name: &str,
    deaf: Arc<AtomicBool>,
) -> ConfigurationServiceClient<Channel> {
    let identity = Identity::gateway(TRUST_DOMAIN, GATEWAYS, name).unwrap();
    let leaf = authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now()).unwrap();
    let tls = ClientTls::new(Some(&leaf), authority.roots(), ServerCheck::Name, Alpn::H2).unwrap();
    let connector = tower::service_fn(move |_: Uri| {
        let (tls, deaf) = (tls.clone(), deaf.clone());
        async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let name = "127.0.0.1".try_into().map_err(io::Error::other)?;
            let stream = TlsConnector::from(tls.config()).connect(name, Deaf { stream, deaf }).await?;
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://operator").connect_with_connector(connector).await.unwrap();
    ConfigurationServiceClient::new(channel)
}

/// What a gateway of this name says of itself.
pub(super) fn info(name: &str) -> proto::GatewayInfo {
    proto::GatewayInfo {
        name: name.to_owned(),
        namespace: GATEWAYS.to_owned(),
        ..proto::GatewayInfo::default()
    }
}

/// Registers and opens the stream; the session comes first.
pub(super) async fn open(
    client: &mut ConfigurationServiceClient<Channel>,
    info: &proto::GatewayInfo,
) -> (String, Streaming<proto::ConfigurationUpdate>) {
    let gateway = Some(info.clone());
    let register = proto::RegisterGatewayRequest { gateway, ..proto::RegisterGatewayRequest::default() };
    let answer = client.register_gateway(register).await.unwrap().into_inner();
    assert!(answer.success, "{}", answer.error_message);
    let stream = proto::StreamConfigurationRequest {
        session_id: answer.session_id.clone(),
        gateway: Some(info.clone()),
        ..proto::StreamConfigurationRequest::default()
    };
    (answer.session_id, client.stream_configuration(stream).await.unwrap().into_inner())
}

/// A connection that stops reading when it is told to.
struct Deaf {
    stream: TcpStream,
    deaf: Arc<AtomicBool>,
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.deaf.load(Ordering::Relaxed) {
            // For ever: nobody wakes it.
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
