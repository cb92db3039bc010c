//! One HTTP/2 connection over mutual TLS, with gRPC's framing on it.
//!
//! Source: "gRPC over HTTP2" of the gRPC project. Messages are never compressed.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::protobuf::Malformed;

const SERVICE: &str = "/avapigw.operator.v1alpha1.ConfigurationService/";

/// What a gateway reads ahead at most, per stream and per connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Real gateways take messages up to this size.
const MESSAGE_LIMIT: usize = 4 << 20;

/// Where a gateway connects to, and as whom.
#[derive(Clone)]
pub struct Target {
    /// The replicas; a gateway goes on to the next whenever it loses one, as it
    /// would behind a Service.
    pub operators: Arc<Vec<SocketAddr>>,
    /// Where among them it starts.
    pub first: usize,
    /// The name that the server's certificate must have.
    pub server: ServerName<'static>,
    /// The client's certificate and the CA.
    pub tls: Arc<ClientConfig>,
}

/// Why a call or a stream came to nothing.
#[derive(Debug)]
pub enum Lost {
    /// The connection could not be made or broke.
    Connection(String),
    /// The server ended the call with this gRPC status.
    Status(u32, String),
    /// What the server sent cannot be read.
    Protocol(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lost::Connection(what) => write!(f, "connection lost: {what}"),
            Lost::Status(code, message) => write!(f, "gRPC status {code}: {message}"),
            Lost::Protocol(what) => write!(f, "protocol error: {what}"),
        }
    }
}

impl From<h2::Error> for Lost {
    fn from(error: h2::Error) -> Self {
        Lost::Connection(error.to_string())
    }
}

impl From<Malformed> for Lost {
    fn from(error: Malformed) -> Self {
        Lost::Protocol(error.to_string())
    }
}

/// An open connection; it ends when dropped.
pub struct Connection {
    send: SendRequest<Bytes>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target, attempt: usize) -> Result<Connection, Lost> {
        let broken = |error: std::io::Error| Lost::Connection(error.to_string());
        let address = target.operators[attempt % target.operators.len()];
        let tcp = TcpStream::connect(address).await.map_err(broken)?;
        tcp.set_nodelay(true).map_err(broken)?;
        let tls = TlsConnector::from(target.tls.clone()).connect(target.server.clone(), tcp).await;
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(tls.map_err(broken)?)
            .await?;
        // How a connection ends shows on its streams.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Connection { send, driver })
    }

    async fn call(&self, method: &str, message: &[u8]) -> Result<Incoming, Lost> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://fleet{SERVICE}{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| Lost::Protocol(error.to_string()))?;
        let mut send = self.send.clone().ready().await?;
        let (response, mut body) = send.send_request(request, false)?;
        body.send_data(framed(message), true)?;
        let response = response.await?;
        if response.status() != 200 {
            return Err(Lost::Protocol(format!("HTTP status {}", response.status())));
        }
        status(response.headers())?;
        Ok(Incoming { body: response.into_body(), buffer: BytesMut::new() })
    }

    /// Calls a method with one answer.
    pub async fn unary(&self, method: &str, message: &[u8]) -> Result<Bytes, Lost> {
        let mut incoming = self.call(method, message).await?;
        let answer = incoming.next(Reading::Freely).await?;
        let answer = answer.ok_or_else(|| Lost::Protocol(format!("{method} was answered with nothing")))?;
        // The status comes behind the answer.
        incoming.next(Reading::Freely).await?;
        Ok(answer)
    }

    /// Opens the stream of updates.
    pub async fn stream(&self, message: &[u8]) -> Result<Incoming, Lost> {
        self.call("StreamConfiguration", message).await
    }
}

/// How fast a gateway reads its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As fast as it comes.
    Freely,
    /// So many bytes a second.
    Slowly(u32),
    /// Not at all.
    Never,
}

/// Messages that come in.
pub struct Incoming {
    body: RecvStream,
    buffer: BytesMut,
}

impl Incoming {
    /// The next message; `None` after a good end. May be cancelled.
    pub async fn next(&mut self, reading: Reading) -> Result<Option<Bytes>, Lost> {
        loop {
            if let Some(message) = self.message()? {
                return Ok(Some(message));
            }
            if reading == Reading::Never {
                pending::<()>().await;
            }
            let Some(chunk) = self.body.data().await else {
                let trailers = self.body.trailers().await?;
                status(&trailers.unwrap_or_default())?;
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(Lost::Protocol("the stream ended inside a message".to_owned())),
                };
            };
            let chunk = chunk?;
            // Taken over before anything can interrupt: nothing is lost then.
            self.buffer.extend_from_slice(&chunk);
            self.body.flow_control().release_capacity(chunk.len())?;
            if let Reading::Slowly(rate) = reading {
                let pause = chunk.len() as f64 / f64::from(rate.max(1));
                tokio::time::sleep(std::time::Duration::from_secs_f64(pause)).await;
            }
        }
    }

    fn message(&mut self) -> Result<Option<Bytes>, Lost> {
        let Some((&[compressed, a, b, c, d], rest)) = self.buffer.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if compressed != 0 || length > MESSAGE_LIMIT {
            return Err(Lost::Protocol(format!("a message of {length} bytes, or a compressed one")));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(5);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(0);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

fn status(headers: &HeaderMap) -> Result<(), Lost> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(code) => {
            Err(Lost::Status(code.parse().unwrap_or(2), text("grpc-message").unwrap_or_default().to_owned()))
        }
    }
}
