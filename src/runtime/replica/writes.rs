//! Writes for namespaces beside statuses: one begins only where this replica acts, and
//! none is begun or waited for after the word that it acts there no more. What was sent by
//! then may still arrive, and so names what it was planned from.

use std::sync::Arc;

use flotilla_k8s::Error;
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

    /// Carries out a write if `may_act` says yes; `None` when it does not.
    ///
    /// # Errors
    /// The write's, and `Conflict` when it was given up by [`Writes::finish`] for others'
    /// sake and may be tried again.
    pub async fn carry_out<T>(
        &self,
        what: &str,
        may_act: impl Fn() -> bool,
        write: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        // Before the question, so that who was told yes hears of everything that comes after,
        // and before the turn, so that who waits for one when others are given up goes, too.
        let mut given_up = self.given_up.subscribe();
        // It is never closed.
        let _under_way = self.under_way.acquire().await;
        if !may_act() {
            return Ok(None);
        }
        tokio::select! {
            biased; // nothing is sent any more once it is given up
            _ = given_up.changed() => match may_act() {
                true => Err(Error::Conflict { what: what.to_owned() }),
                false => Ok(None),
            },
            done = write => done.map(Some),
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
        let hang = |_| writes.carry_out("hang", || true, pending::<Result<(), Error>>());
        let hanging = futures::future::join_all((0..AT_ONCE + 2).map(hang));
        // Another's by the time that it is given up.
        let over = writes.carry_out("over", may_act, pending::<Result<(), Error>>());
        let waiting = async {
            tokio::task::yield_now().await;
            let write = async { panic!("it had no permission when its turn came") };
            writes.carry_out::<()>("wait", may_act, write).await
        };
        let finished = async {
            tokio::task::yield_now().await;
            may.store(false, Ordering::Relaxed);
            let since = Instant::now();
            writes.finish(since + WHILE).await;
            since.elapsed()
        };
        let (over, hung, waited, took) = tokio::join!(over, hanging, waiting, finished);
        let given_up = |hung: &Result<Option<()>, Error>| matches!(hung, Err(Error::Conflict { .. }));
        assert!(hung.iter().all(given_up), "{hung:?}");
        assert!(matches!((&over, &waited), (Ok(None), Ok(None))), "{over:?} {waited:?}");
        assert_eq!(took, WHILE);
        // The next ones are not given up because of those.
        may.store(true, Ordering::Relaxed);
        assert!(matches!(writes.carry_out("write", may_act, async { Ok(7) }).await, Ok(Some(7))));
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_in_time_is_waited_for_and_not_longer() {
        let writes = Writes::new();
        let since = Instant::now();
        let write = async {
            tokio::time::sleep(WHILE / 4).await;
            Ok(())
        };
        let write = writes.carry_out("write", || true, write);
        let (done, ()) = tokio::join!(write, writes.finish(since + WHILE));
        assert!(matches!(done, Ok(Some(()))), "{done:?}");
        assert_eq!(since.elapsed(), WHILE / 4);
    }
}
