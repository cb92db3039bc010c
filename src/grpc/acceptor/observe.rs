//! The layer around every call: knows the peer, counts the call, and turns a
//! panic into a status.
//!
//! A panic that reached hyper would drop the response half-written, which
//! HTTP/2 says with RST_STREAM(CANCEL): the one thing that gateways never
//! recover from.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::error;

use super::Peer;
use super::pings::Pings;
use crate::metrics::{Method, Metrics, OK};

/// What an [`Acceptor`](super::Acceptor) serves: calls in, answers out. Always ready, as
/// [`Routes`](tonic::service::Routes) are.
pub trait Calls:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Calls for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// See the module. One for every connection.
pub(super) struct Observe<C> {
    service: C,
    peer: Arc<Peer>,
    metrics: Arc<Metrics>,
    pings: Pings,
}

impl<C> Observe<C> {
    pub(super) fn new(service: C, peer: Peer, metrics: Arc<Metrics>, pings: Pings) -> Self {
        Observe { service, peer: Arc::new(peer), metrics, pings }
    }
}

impl<C: Calls> hyper::service::Service<Request<Incoming>> for Observe<C> {
    type Response = Response<Observed>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer.clone());
        let mut call = Call {
            method: Method::of(request.uri().path()),
            started: Instant::now(),
            metrics: Some(self.metrics.clone()),
        };
        let answer = AssertUnwindSafe(self.service.clone().call(request)).catch_unwind();
        let pings = self.pings.clone();
        Box::pin(async move {
            let response = match answer.await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => panicked(call.method.name(), panic.as_ref()).into_http(),
            };
            // An answer without a body has its status in the headers.
            if let Some(code) = code_of(response.headers()) {
                call.ended(code);
            }
            Ok(response.map(|body| Observed { body, call, pings, finished: false }))
        })
    }
}

/// One call to be counted when it ends.
struct Call {
    method: Method,
    started: Instant,
    /// `None` once it is counted.
    metrics: Option<Arc<Metrics>>,
}

impl Call {
    fn ended(&mut self, code: Code) {
        if let Some(metrics) = self.metrics.take() {
            metrics.call(self.method, name(code), self.started.elapsed());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Nobody saw a status: the client went away.
        self.ended(Code::Cancelled);
    }
}

/// A response's body under observation.
pub(super) struct Observed {
    body: Body,
    call: Call,
    pings: Pings,
    finished: bool,
}

impl HttpBody for Observed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        let this = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)));
        let frame = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(frame)) => frame,
            Err(panic) => Some(Err(panicked(this.call.method.name(), panic.as_ref()))),
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            // hyper would reset the stream on an error; trailers say the same
            // and end it in order.
            Some(Err(status)) => trailers(&status),
            None => {
                this.finished = true;
                this.call.ended(Code::Ok);
                return Poll::Ready(None);
            }
        };
        this.pings.forgive();
        if let Some(trailers) = frame.trailers_ref() {
            this.finished = true;
            this.call.ended(code_of(trailers).unwrap_or(Code::Unknown));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.finished || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Trailers that end a stream with a status.
pub(crate) fn trailers(status: &Status) -> Frame<Bytes> {
    let mut headers = HeaderMap::new();
    if status.add_header(&mut headers).is_err() {
        // Only a message with characters that headers cannot have; it is
        // percent-encoded, so this does not happen. The code alone always fits.
        headers = HeaderMap::new();
        let code = http::HeaderValue::from(status.code() as i32);
        headers.insert(Status::GRPC_STATUS, code);
    }
    Frame::trailers(headers)
}

fn panicked(method: &'static str, panic: &(dyn Any + Send)) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    error!(method, panic = text, "a call panicked");
    // UNAVAILABLE and not INTERNAL: the caller is to come again.
    Status::unavailable("the call failed inside the controller; its log says more")
}

fn code_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => OK,
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
