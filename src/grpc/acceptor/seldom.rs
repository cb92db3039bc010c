//! A future beside another one, that is polled only when it was woken.
//!
//! `select!` polls all its futures whenever one of them wakes its task. Beside a
//! connection, which wakes for every frame, that is thousands of looks a second at
//! tokens and timers that hardly ever have anything to say, each behind a lock.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{FuturesUnordered, Stream as _};

/// See the module. It has ended when it is ready, and must not be polled again.
#[derive(Debug)]
pub(crate) struct Seldom<F>(FuturesUnordered<F>);

impl<F: Future> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        Seldom(std::iter::once(future).collect())
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match Pin::new(&mut self.0).poll_next(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            // Empty only after it was ready.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::{Notify, oneshot};

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_for_its_neighbour() {
        let polls = Arc::new(AtomicU32::new(0));
        let (wake, woken) = oneshot::channel::<u8>();
        let mut woken = Box::pin(woken);
        let counted = {
            let polls = polls.clone();
            std::future::poll_fn(move |cx| {
                polls.fetch_add(1, Ordering::Relaxed);
                woken.as_mut().poll(cx)
            })
        };
        let mut seldom = Seldom::new(counted);
        let neighbour = Notify::new();
        for _ in 0..10 {
            neighbour.notify_one();
            tokio::select! {
                biased;
                _ = &mut seldom => panic!("nobody has woken it"),
                () = neighbour.notified() => {}
            }
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        wake.send(7).unwrap();
        assert_eq!(seldom.await, Ok(7));
    }
}
