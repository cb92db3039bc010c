//! Small upstream servers, and a client for the data plane.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// What an upstream does with the first requests; afterwards it echoes.
#[derive(Debug, Clone, Copy)]
pub enum First {
    /// Answers with this status.
    Status(u16),
    /// Never answers.
    Hang,
    /// Sends a head and some body, then nothing more.
    Stall,
}

/// Echoes requests as JSON and counts them.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Upstream {
    pub async fn start(name: &str) -> Upstream {
        Self::failing(name, 0, First::Hang).await
    }

    /// Does `what` with the first so many requests.
    pub async fn failing(name: &str, first: usize, what: First) -> Upstream {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (name, requests) = (name.to_owned(), upstream.requests.clone());
        let router = axum::Router::new().fallback(move |request: Request| {
            let number = requests.fetch_add(1, Ordering::SeqCst);
            answer(name.clone(), request, (number < first).then_some(what))
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        upstream
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn answer(name: String, request: Request, first: Option<First>) -> Response {
    match first {
        Some(First::Status(status)) => return StatusCode::from_u16(status).unwrap().into_response(),
        Some(First::Hang) => std::future::pending::<()>().await,
        Some(First::Stall) => {
            let one = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from("some")) });
            let body = futures::StreamExt::chain(one, futures::stream::pending());
            return Body::from_stream(body).into_response();
        }
        None => {}
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: Value = parts
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let echo = json!({
        "upstream": name,
        "method": parts.method.as_str(),
        "target": parts.uri.path_and_query().unwrap().as_str(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    ([("x-upstream", name)], Json(echo)).into_response()
}

/// An answer as tests look at it.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `Err` when the body broke off.
    pub body: Result<Bytes, String>,
}

impl Answer {
    pub fn json(&self) -> Value {
        let body = self.body.as_ref().unwrap();
        serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error} in {body:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A client of one address.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

impl Http {
    pub fn to(address: SocketAddr) -> Http {
        Http { client: Client::builder(TokioExecutor::new()).build_http(), address }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.send(Method::GET, target, &[], "").await
    }

    pub async fn send(&self, method: Method, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request =
            http::Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        let exchange = async {
            let response = self.client.request(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string());
            Answer { status: parts.status.as_u16(), headers: parts.headers, body }
        };
        tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an answer within 20 s")
    }
}
