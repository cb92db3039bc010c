//! Limits how often a client may ping.
//!
//! A PING costs its sender nothing and the server an answer, and an HTTP/2
//! library answers any number of them. gRPC's servers count them and forgive
//! those that come while data flows, because clients measure the bandwidth by
//! pings (gRPC proposal A8); so does this. hyper does not show the frames, so
//! their heads are read on the way to it: of each frame nine bytes, the rest is
//! skipped (RFC 9113, section 4.1).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What every client sends first (RFC 9113, section 3.4).
const PREFACE: usize = 24;
const HEAD: usize = 9;
const PING: u8 = 6;
const ACK: u8 = 1;
/// Pings are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// How many pings came since the last data was sent; clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Pings(Arc<AtomicU32>);

impl Pings {
    /// Data is on its way to the client.
    pub(super) fn forgive(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Finds the pings in what a client sends.
#[derive(Debug)]
struct Heads {
    /// Bytes to go until the next head.
    skip: usize,
    head: [u8; HEAD],
    /// How much of it is there.
    read: usize,
}

impl Heads {
    fn new() -> Self {
        Heads { skip: PREFACE, head: [0; HEAD], read: 0 }
    }

    /// How many pings begin in these bytes, which follow those before.
    fn pings(&mut self, mut bytes: &[u8]) -> u32 {
        let mut pings = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return pings;
            }
            let taken = (HEAD - self.read).min(bytes.len());
            self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
            self.read += taken;
            bytes = &bytes[taken..];
            if self.read == HEAD {
                let [a, b, c, kind, flags, ..] = self.head;
                self.read = 0;
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                pings += u32::from(kind == PING && flags & ACK == 0);
            }
        }
    }
}

/// A connection whose pings are counted.
pub(super) struct Counted<S> {
    stream: S,
    heads: Heads,
    pings: Pings,
    since: Instant,
    limit: u32,
    /// Cancelled when there are too many.
    too_many: CancellationToken,
}

impl<S> Counted<S> {
    /// At most `limit` pings a minute without data in between; with more,
    /// `too_many` is cancelled.
    pub(super) fn new(stream: S, pings: Pings, limit: u32, too_many: CancellationToken) -> Self {
        Counted { stream, heads: Heads::new(), pings, since: Instant::now(), limit, too_many }
    }

    fn count(&mut self, bytes: &[u8]) {
        let pings = self.heads.pings(bytes);
        if pings == 0 {
            return;
        }
        if self.since.elapsed() >= WINDOW {
            self.since = Instant::now();
            self.pings.forgive();
        }
        if self.pings.0.fetch_add(pings, Ordering::Relaxed) + pings > self.limit {
            self.too_many.cancel();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, into);
        self.count(&into.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend_from_slice(&[kind, flags, 0, 0, 0, 1]);
        frame.extend(std::iter::repeat_n(PING, payload));
        frame
    }

    #[test]
    fn pings_are_found_however_the_bytes_are_cut() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        for frames in [frame(4, 0, 6), frame(PING, 0, 8), frame(PING, ACK, 8), frame(0, 1, 70_000)] {
            bytes.extend(frames);
        }
        bytes.extend(frame(PING, 0, 8));
        bytes.extend(frame(1, 4, 0));
        for size in [1, 2, 7, 9, 10, 100, 16_384, bytes.len()] {
            let mut heads = Heads::new();
            let pings: u32 = bytes.chunks(size).map(|chunk| heads.pings(chunk)).sum();
            assert_eq!(pings, 2, "in pieces of {size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_forgiven_by_data_and_by_time() {
        let (pings, too_many) = (Pings::default(), CancellationToken::new());
        let mut counted = Counted::new((), pings.clone(), 3, too_many.clone());
        counted.heads.skip = 0;
        let mut ping = |times: usize| counted.count(&frame(PING, 0, 8).repeat(times));
        ping(3);
        pings.forgive();
        ping(3);
        tokio::time::advance(WINDOW).await;
        ping(3);
        assert!(!too_many.is_cancelled());
        ping(1);
        assert!(too_many.is_cancelled());
    }
}
