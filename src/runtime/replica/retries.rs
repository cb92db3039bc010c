//! What failed and is tried again, each after a pause of its own that doubles.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_core::backoff::{Backoff, BackoffConfig, Jitter};
use tokio::time::Instant;

/// First and longest pause.
const PAUSES: BackoffConfig =
    BackoffConfig { first: Duration::from_secs(1), longest: Duration::from_secs(30) };

/// Bounded by the things there are: whoever keeps it forgets those that are gone.
#[derive(Debug)]
pub struct Retries<K> {
    waiting: BTreeMap<K, (Instant, Backoff)>,
    jitter: Jitter,
}

impl<K: Ord> Retries<K> {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Retries { waiting: BTreeMap::new(), jitter: Jitter::seeded(rand::random()) }
    }

    /// When something is to be tried again.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|(at, _)| *at).min()
    }

    /// Whether something is not to be tried yet.
    pub fn waits(&self, what: &K, now: Instant) -> bool {
        self.waiting.get(what).is_some_and(|(at, _)| *at > now)
    }

    /// It failed. Returns how often in a row.
    pub fn failed(&mut self, what: K) -> u32 {
        let fresh = || (Instant::now(), Backoff::new(PAUSES));
        let (at, backoff) = self.waiting.entry(what).or_insert_with(fresh);
        *at = Instant::now() + backoff.fail(&mut self.jitter);
        backoff.failures()
    }

    /// It is done, or not to be tried any more.
    pub fn forget(&mut self, what: &K) {
        self.waiting.remove(what);
    }

    /// Only these are to be tried again.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.waiting.retain(|what, _| keep(what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_waits_for_itself_and_longer_each_time() {
        let mut retries = Retries::new();
        assert!(retries.next().is_none() && !retries.waits(&'a', Instant::now()));
        let mut pauses = Vec::new();
        for times in 1..=8 {
            assert_eq!(retries.failed('a'), times);
            let pause = retries.next().unwrap() - Instant::now();
            assert!(retries.waits(&'a', Instant::now()) && !retries.waits(&'b', Instant::now()));
            tokio::time::advance(pause).await;
            assert!(!retries.waits(&'a', Instant::now()));
            pauses.push(pause);
        }
        assert!(pauses[0] <= PAUSES.first && pauses[7] > 10 * PAUSES.first, "{pauses:?}");
        retries.forget(&'a');
        assert_eq!(retries.failed('a'), 1);
        retries.retain(|what| *what == 'b');
        assert!(retries.next().is_none());
    }
}
