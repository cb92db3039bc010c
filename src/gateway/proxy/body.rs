//! Bodies on their way through: requests that can be sent again, and answers
//! that count as in flight, and under their route's timeout, to their end.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::{Instant, Sleep};

use super::backend::InFlight;

/// Any error of any body.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The one body type of the data plane.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of these bytes.
pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The longest request body that is kept for another try, in bytes.
const REPLAY_LIMIT: usize = 1024 * 1024;

/// A request body, kept if it is short enough.
pub(crate) enum Payload {
    /// Can be sent any number of times.
    Kept(Bytes),
    /// Can be sent once; `None` when it has been.
    Once(Option<Body>),
}

impl Payload {
    /// Reads the body as far as it may be kept; a longer one goes out as it is.
    pub(crate) async fn keep(mut body: Body) -> Result<Self, BodyError> {
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            read.extend_from_slice(&data);
            if read.len() > REPLAY_LIMIT {
                let whole = Prefixed { first: Some(read.freeze()), rest: body };
                return Ok(Payload::Once(Some(whole.boxed_unsync())));
            }
        }
        Ok(Payload::Kept(read.freeze()))
    }

    /// The body for one try, or nothing if it is used up.
    pub(crate) fn take(&mut self) -> Option<Body> {
        match self {
            Payload::Kept(bytes) if bytes.is_empty() => Some(empty()),
            Payload::Kept(bytes) => Some(full(bytes.clone())),
            Payload::Once(body) => body.take(),
        }
    }

    /// Whether there can be another try.
    pub(crate) fn repeatable(&self) -> bool {
        matches!(self, Payload::Kept(_) | Payload::Once(Some(_)))
    }
}

/// What was read already, then the rest.
struct Prefixed {
    first: Option<Bytes>,
    rest: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// The route's timeout passed while the answer's body was coming.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer took longer than the route's timeout; raise the timeout")]
struct TimedOut;

/// An answer's body with what has to live as long as it does.
pub(crate) struct Answer<B> {
    body: B,
    deadline: Option<Pin<Box<Sleep>>>,
    _in_flight: Option<InFlight>,
}

impl<B> Answer<B> {
    pub(crate) fn new(body: B, deadline: Option<Instant>, in_flight: Option<InFlight>) -> Self {
        let deadline = deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        Answer { body, deadline, _in_flight: in_flight }
    }
}

impl<B> http_body::Body for Answer<B>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        match self.deadline.as_mut().map(|deadline| deadline.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Some(Err(TimedOut.into()))),
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
