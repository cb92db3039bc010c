//! The response body of one configuration stream.
//!
//! It is a body of our own and not tonic's, for three reasons: shared batches
//! are written without being copied; a client that does not read holds a few
//! kilobytes and references to shared bytes; and whatever happens, it ends with
//! trailers, because a body that is dropped unfinished becomes RST_STREAM.
//!
//! It goes through two states: *open* (writes what it is given) and *ended*
//! (trailers are out). It ends when the delivery task says so, when that task
//! is gone, or when the connection is to be closed; a message that has begun is
//! finished first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::encode::EncodedBatch;
use super::frames::Frames;
use crate::acceptor::{ConnectionHandle, trailers};

/// How many batches may wait for a stream. One is in flight per session; the
/// rest are messages that only move the version.
const WAITING: usize = 4;

/// A batch for one stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub batch: Arc<EncodedBatch>,
    pub first_sequence: i64,
}

/// The delivery task's end of a stream. Dropping it ends the stream.
#[derive(Debug)]
pub(super) struct StreamHandle {
    updates: mpsc::Sender<Outgoing>,
    end: oneshot::Sender<Status>,
    connection: ConnectionHandle,
}

/// A batch could not be put into a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotSent {
    /// The client does not read.
    Full,
    /// The stream is over.
    Closed,
}

impl StreamHandle {
    pub(super) fn send(&self, outgoing: Outgoing) -> Result<(), NotSent> {
        self.updates.try_send(outgoing).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::Closed,
        })
    }

    /// Whether the client is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.updates.is_closed()
    }

    /// Ends the stream with this status. With `close`, its connection ends too,
    /// so that a client that does not read the trailers is rid of it.
    pub(super) fn end(self, status: Status, close: bool) {
        // An error means that the client has ended it already.
        let _ = self.end.send(status);
        if close {
            self.connection.close();
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct StreamBody {
    updates: mpsc::Receiver<Outgoing>,
    end: oneshot::Receiver<Status>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Batch being written.
    writing: Option<Frames>,
    ended: bool,
    /// Woken when this body is dropped.
    gone: Arc<Notify>,
}

/// A stream's end for the delivery task, and what comes out of it.
pub(super) fn handle(
    connection: ConnectionHandle,
) -> (StreamHandle, mpsc::Receiver<Outgoing>, oneshot::Receiver<Status>) {
    let (updates_in, updates_out) = mpsc::channel(WAITING);
    let (end_in, end_out) = oneshot::channel();
    (StreamHandle { updates: updates_in, end: end_in, connection }, updates_out, end_out)
}

/// A stream's two ends. `gone` is notified when the body is dropped, which is
/// when its client is gone or its trailers are on their way.
pub(super) fn stream(connection: ConnectionHandle, gone: Arc<Notify>) -> (StreamHandle, StreamBody) {
    let closing: CancellationToken = connection.closing().clone();
    let (handle, updates, end) = handle(connection);
    let body = StreamBody {
        updates,
        end,
        closing: Box::pin(closing.cancelled_owned()),
        writing: None,
        ended: false,
        gone,
    };
    (handle, body)
}

impl StreamBody {
    /// Why the stream has to end now, if it has to.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Status> {
        match Pin::new(&mut self.end).poll(cx) {
            Poll::Ready(Ok(status)) => return Some(status),
            Poll::Ready(Err(_)) => return Some(Status::unavailable("delivery has stopped; connect again")),
            Poll::Pending => {}
        }
        let closing = self.closing.as_mut().poll(cx).is_ready();
        closing.then(|| Status::unavailable("this connection is being closed; connect again"))
    }

    fn finish(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.ended = true;
        Poll::Ready(Some(Ok(trailers(status))))
    }
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            // Between messages, an end comes before what waits.
            if !this.writing.as_ref().is_some_and(Frames::within_a_message)
                && let Some(status) = this.poll_end(cx)
            {
                return this.finish(&status);
            }
            if let Some(slice) = this.writing.as_mut().and_then(Frames::next) {
                return Poll::Ready(Some(Ok(Frame::data(slice))));
            }
            this.writing = None;
            match this.updates.poll_recv(cx) {
                Poll::Ready(Some(Outgoing { batch, first_sequence })) => {
                    this.writing = Some(Frames::new(batch, first_sequence));
                }
                // The other half of the handle says how it ended, at once.
                Poll::Ready(None) => match this.poll_end(cx) {
                    Some(status) => return this.finish(&status),
                    None => return Poll::Pending,
                },
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        self.updates.close();
        self.gone.notify_one();
    }
}
