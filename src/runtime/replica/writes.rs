//! Writes for namespaces beside statuses: one begins only where this replica acts, and
//! none is begun or waited for after the word that it acts there no more. What was sent by
//! then may still arrive, and so names what it was planned from.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// How many may be under way at a time.
pub const AT_ONCE: u32 = 8;

/// What is under way; clones are the same.
#[derive(Debug, Clone)]
pub struct Writes {
    /// One permit for each write: whoever holds all of them knows that there is none.
    under_way: Arc<Semaphore>,
    /// Moves when what is under way is given up.
    given_up: watch::Sender<()>,
}

impl Writes {
    /// Nothing is under way.
    pub fn new() -> Self {
        Writes { under_way: Arc::new(Semaphore::new(AT_ONCE as usize)), given_up: watch::Sender::new(()) }
    }

    /// Carries out a write if `may_act` says yes. `None` when it does not, and when the write
    /// was given up by [`Writes::finish`].
    pub async fn carry_out<T>(
        &self,
        may_act: impl Fn() -> bool,
        write: impl Future<Output = T>,
    ) -> Option<T> {
        // Before the question, so that who was told yes hears of everything that comes after,
        // and before the turn, so that who waits for one when others are given up goes, too.
        let mut given_up = self.given_up.subscribe();
        // It is never closed.
        let _under_way = self.under_way.acquire().await;
        if !may_act() {
            return None;
        }
        tokio::select! {
            biased; // nothing is sent any more once it is given up
            _ = given_up.changed() => None,
            done = write => Some(done),
        }
    }

    /// Waits for what is under way, and gives up what is not done at `until`. What begins
    /// after this was called asks for permission after it was called.
    pub async fn finish(&self, until: Instant) {
        let all = self.under_way.acquire_many(AT_ONCE);
        tokio::pin!(all);
        if timeout_at(until, &mut all).await.is_err() {
            self.given_up.send_replace(());
            // Who came before has been given up, and who comes now waits behind.
            let _ = all.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    const WHILE: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_hangs_is_given_up_and_nothing_begins_without_permission() {
        let (writes, may) = (Writes::new(), AtomicBool::new(true));
        let may_act = || may.load(Ordering::Relaxed);
        // All places taken by what never ends, more of it that waits for a place, and one that
        // has no permission any more when its turn comes.
        let hang = |_| writes.carry_out(|| true, pending::<()>());
        let hanging = futures::future::join_all((0..AT_ONCE + 2).map(hang));
        let waiting = async {
            tokio::task::yield_now().await;
            writes.carry_out(may_act, async { panic!("it had no permission when its turn came") }).await
        };
        let finished = async {
            tokio::task::yield_now().await;
            may.store(false, Ordering::Relaxed);
            let since = Instant::now();
            writes.finish(since + WHILE).await;
            since.elapsed()
        };
        let (hung, waited, took) = tokio::join!(hanging, waiting, finished);
        assert!(hung.iter().all(Option::is_none));
        assert_eq!((waited, took), (None::<()>, WHILE));
        // The next ones are not given up because of those.
        may.store(true, Ordering::Relaxed);
        assert_eq!(writes.carry_out(may_act, async { 7 }).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_is_waited_for_and_not_longer() {
        let writes = Writes::new();
        let since = Instant::now();
        let write = writes.carry_out(|| true, tokio::time::sleep(WHILE / 4));
        let (done, ()) = tokio::join!(write, writes.finish(since + WHILE));
        assert_eq!((done, since.elapsed()), (Some(()), WHILE / 4));
    }
}
