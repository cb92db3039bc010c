//! gRPC calls: the same way through, over HTTP/2 on both sides. Failures are
//! told as gRPC does: status 200 and a `grpc-status`.

use std::net::SocketAddr;

use http::header::{CONTENT_TYPE, HOST, TE};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::body::{Answer, Body, empty};
use super::table::ServingTable;
use super::{DataPlane, add_forwarded, pick_target, remove_hop_by_hop};

/// The codes that the gateway itself answers with.
#[derive(Debug, Clone, Copy)]
enum Code {
    DeadlineExceeded = 4,
    Unimplemented = 12,
    Unavailable = 14,
}

/// Whether a request is a gRPC call.
pub(super) fn is_call(request: &Request<Body>) -> bool {
    request.version() == Version::HTTP_2
        && request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/grpc"))
}

impl DataPlane {
    /// Answers one call by the GRPCRoutes.
    pub(super) async fn serve_call(
        &self,
        table: &ServingTable,
        request: Request<Body>,
        peer: SocketAddr,
    ) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let (service, method) = parts.uri.path().trim_start_matches('/').split_once('/').unwrap_or_default();
        let authority = parts.uri.host().unwrap_or_default();
        let Some(route) = table.find_call(service, method, authority, &parts.headers) else {
            self.unrouted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return status(Code::Unimplemented, "no route matches this call");
        };
        let target = match pick_target(table, &route.destinations, true) {
            Ok(target) => target,
            Err(problem) => return self.call_failure(Code::Unavailable, problem),
        };
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = format!("http://{}{path}", target.authority).parse::<Uri>() else {
            return self.call_failure(Code::Unavailable, "the destination is no legal address");
        };
        remove_hop_by_hop(&mut parts.headers);
        // gRPC servers want to be told that trailers are understood.
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
        add_forwarded(&mut parts.headers, peer);
        parts.headers.remove(HOST);
        let mut upstream = Request::new(body);
        *upstream.method_mut() = parts.method;
        *upstream.uri_mut() = uri;
        *upstream.version_mut() = Version::HTTP_2;
        *upstream.headers_mut() = parts.headers;

        let deadline = route.timeout.map(|timeout| Instant::now() + timeout);
        let sent = self.http2.request(upstream);
        let answer = match deadline {
            Some(deadline) => match tokio::time::timeout_at(deadline, sent).await {
                Ok(answer) => answer,
                Err(_) => return self.call_failure(Code::DeadlineExceeded, "the route's timeout passed"),
            },
            None => sent.await,
        };
        match answer {
            Ok(response) => response.map(|body| Answer::new(body, deadline, target.in_flight).boxed_unsync()),
            Err(_) => self.call_failure(Code::Unavailable, "the upstream cannot be reached or broke off"),
        }
    }

    fn call_failure(&self, code: Code, message: &'static str) -> Response<Body> {
        self.failed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        status(code, message)
    }
}

/// An answer that consists of a gRPC status only.
fn status(code: Code, message: &'static str) -> Response<Body> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code as u16));
    headers.insert("grpc-message", HeaderValue::from_static(message));
    response
}
