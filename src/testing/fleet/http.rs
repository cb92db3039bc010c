//! A small HTTP client: gateways and replicas are asked over their public
//! ports, like by anybody else.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks for one path on a connection of its own, which ends with the body.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn open(address: SocketAddr, path: &str) -> Result<(StatusCode, Incoming), String> {
    send(address, Request::get(path).body(Full::default()).map_err(|error| error.to_string())?).await
}

/// Sends one request on a connection of its own, which ends with the body.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn send(
    address: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Incoming), String> {
    let response = exchange(address, request).await?;
    Ok((response.status(), response.into_body()))
}

/// Asks for one path of a host that is not this machine's; returns the head of the answer.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn ask(address: SocketAddr, host: &str, path: &str) -> Result<(StatusCode, HeaderMap), String> {
    let request = Request::get(path).header(HOST, host).body(Full::default());
    let response = exchange(address, request.map_err(|error| error.to_string())?).await?;
    Ok((response.status(), response.headers().clone()))
}

/// The host is the address, unless the request names another one.
async fn exchange(
    address: SocketAddr,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, String> {
    let path = request.uri().to_string();
    let ask = async {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(async move { connection.await.ok() });
        let host = HeaderValue::from_str(&address.to_string()).map_err(|error| error.to_string())?;
        request.headers_mut().entry(HOST).or_insert(host);
        sender.send_request(request).await.map_err(|error| error.to_string())
    };
    let answer: Result<_, String> =
        timeout(PATIENCE, ask).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    answer.map_err(|error| format!("http://{address}{path}: {error}"))
}

/// Status and text of one path.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, String), String> {
    let (status, body) = open(address, path).await?;
    Ok((status, whole(path, body).await?))
}

/// The text of a body.
///
/// # Errors
/// Why it did not end, in words.
pub async fn whole(path: &str, body: Incoming) -> Result<String, String> {
    let read =
        timeout(PATIENCE, body.collect()).await.map_err(|_| format!("{path}: the body did not end"))?;
    let bytes = read.map_err(|error| format!("{path}: {error}"))?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of one path that answers with success.
///
/// # Errors
/// Any other answer, in words.
pub async fn text(address: SocketAddr, path: &str) -> Result<String, String> {
    match get(address, path).await? {
        (status, text) if status.is_success() => Ok(text),
        (status, text) => Err(format!("http://{address}{path} answered {status}: {}", text.trim())),
    }
}
