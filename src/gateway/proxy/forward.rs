//! One HTTP exchange with upstreams: tries, time limits, and what is changed
//! on the way.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use http::header::{CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::body::{Answer, Body, Payload};
use super::matcher::PathMatch;
use super::retry::{Failure, RetryPolicy};
use super::route::{Destination, HttpRoute};
use super::table::ServingTable;
use super::{DataPlane, Target, add_forwarded, pick_target, remove_hop_by_hop, rewrite};

/// What one exchange works with.
pub(super) struct Exchange<'a> {
    pub(super) plane: &'a DataPlane,
    pub(super) table: &'a ServingTable,
    pub(super) route: &'a HttpRoute,
    /// What the path matched: rewriting replaces it.
    pub(super) path: &'a PathMatch,
}

/// How one try ended.
enum Try {
    Answered(Response<Body>),
    Failed { failure: Failure, message: String },
}

impl Exchange<'_> {
    /// Carries the exchange out within the route's timeout.
    pub(super) async fn run(
        &self,
        destinations: &[Destination],
        parts: Parts,
        body: Body,
        peer: SocketAddr,
    ) -> Response<Body> {
        let Some(timeout) = self.route.timeout else {
            return self.tries(destinations, parts, body, peer, None).await;
        };
        let deadline = Instant::now() + timeout;
        let tries = self.tries(destinations, parts, body, peer, Some(deadline));
        match tokio::time::timeout_at(deadline, tries).await {
            Ok(response) => response,
            Err(_) => self.plane.failure(
                StatusCode::GATEWAY_TIMEOUT,
                "the upstream did not answer within the route's timeout",
            ),
        }
    }

    async fn tries(
        &self,
        destinations: &[Destination],
        mut parts: Parts,
        body: Body,
        peer: SocketAddr,
        deadline: Option<Instant>,
    ) -> Response<Body> {
        let path = match self.route.rewrite.as_ref().and_then(|rewrite| rewrite.uri.as_deref()) {
            Some(new) => rewrite::rewritten(&parts.uri, self.path, new),
            None => parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        };
        remove_hop_by_hop(&mut parts.headers);
        add_forwarded(&mut parts.headers, peer);
        parts.headers.remove(HOST);
        self.route.request_headers.apply(&mut parts.headers);

        let mut payload = Payload::Once(Some(body));
        if self.route.retries.is_some()
            && let Payload::Once(Some(body)) = payload
        {
            payload = match Payload::keep(body).await {
                Ok(kept) => kept,
                Err(error) => {
                    let problem = format!("the request's body broke off: {error}");
                    return self.plane.failure(StatusCode::BAD_REQUEST, &problem);
                }
            };
            if let Payload::Kept(bytes) = &payload
                && !bytes.is_empty()
            {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            }
        }

        let mut retry = 0;
        loop {
            let target = match pick_target(self.table, destinations, false) {
                Ok(target) => target,
                Err(problem) => return self.plane.failure(StatusCode::SERVICE_UNAVAILABLE, problem),
            };
            let Some(body) = payload.take() else {
                return self.plane.failure(StatusCode::BAD_GATEWAY, "the request could not be sent again");
            };
            let outcome = self.attempt(target, &parts, &path, body, deadline).await;
            let failure = match &outcome {
                Try::Answered(response) => Failure::Status(response.status()),
                Try::Failed { failure, .. } => *failure,
            };
            let again = self.route.retries.as_ref().is_some_and(|policy| {
                retry < policy.attempts && policy.covers(failure) && payload.repeatable()
            });
            if again {
                retry += 1;
                self.plane.retries.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(RetryPolicy::pause(retry)).await;
                continue;
            }
            return match outcome {
                Try::Answered(response) => response,
                Try::Failed { failure, message } => {
                    let status = match failure {
                        Failure::PerTryTimeout => StatusCode::GATEWAY_TIMEOUT,
                        _ => StatusCode::BAD_GATEWAY,
                    };
                    self.plane.failure(status, &message)
                }
            };
        }
    }

    async fn attempt(
        &self,
        target: Target,
        parts: &Parts,
        path: &str,
        body: Body,
        deadline: Option<Instant>,
    ) -> Try {
        let request = match self.request(&target.authority, parts, path, body) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("{}{path} is no legal address: {error}", target.authority);
                return Try::Failed { failure: Failure::Connect, message };
            }
        };
        let sent = self.plane.http.request(request);
        let limit = self.route.retries.as_ref().and_then(|policy| policy.per_try_timeout);
        let answer = match limit {
            Some(limit) => match tokio::time::timeout(limit, sent).await {
                Ok(answer) => answer,
                Err(_) => {
                    let message = format!("{} did not answer within perTryTimeout", target.authority);
                    return Try::Failed { failure: Failure::PerTryTimeout, message };
                }
            },
            None => sent.await,
        };
        match answer {
            Ok(response) => {
                let mut response =
                    response.map(|body| Answer::new(body, deadline, target.in_flight).boxed_unsync());
                remove_hop_by_hop(response.headers_mut());
                self.route.response_headers.apply(response.headers_mut());
                Try::Answered(response)
            }
            Err(error) if error.is_connect() => Try::Failed {
                failure: Failure::Connect,
                message: format!("{} cannot be reached", target.authority),
            },
            Err(_) => Try::Failed {
                failure: Failure::Reset,
                message: format!("{} broke the connection off", target.authority),
            },
        }
    }

    fn request(
        &self,
        authority: &str,
        parts: &Parts,
        path: &str,
        body: Body,
    ) -> Result<Request<Body>, http::Error> {
        let uri: Uri = format!("http://{authority}{path}").parse()?;
        let mut request = Request::builder().method(parts.method.clone()).uri(uri).body(body)?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = parts.headers.clone();
        let rewritten = self.route.rewrite.as_ref().and_then(|rewrite| rewrite.authority.as_deref());
        // A `Host` that the route sets itself stays.
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(rewritten.unwrap_or(authority))?;
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }
}
