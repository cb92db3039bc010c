//! The demo's own small HTTP client: what it knows of gateways and replicas it
//! asks them over their public ports, like anybody else.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(5);

/// Opens a connection and asks for one path. The connection's task ends when
/// the body is dropped.
pub async fn open(address: SocketAddr, path: &str) -> anyhow::Result<Incoming> {
    let ask = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends by itself: with the response's body, or with the other side.
        tokio::spawn(async move { connection.await.ok() });
        let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            bail!("{address}{path} answered {}", response.status());
        }
        Ok(response.into_body())
    };
    timeout(PATIENCE, ask).await.with_context(|| format!("{address}{path} did not answer in time"))?
}

/// Reads one path to its end, as text.
pub async fn text(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let body = open(address, path).await?;
    let bytes = timeout(PATIENCE, body.collect()).await.context("body did not come in time")??.to_bytes();
    String::from_utf8(bytes.to_vec()).context("no text")
}
