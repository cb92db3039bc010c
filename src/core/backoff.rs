//! Delays between attempts, spread by jitter.
//!
//! Randomness is a seeded generator that the caller owns, so that a simulation
//! replays exactly and replicas with different seeds do not retry in step.

use std::time::Duration;

/// A small generator of random numbers (SplitMix64): good enough to spread
/// retries, never for secrets.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// A generator whose whole sequence follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Jitter(seed)
    }

    /// The next number, evenly distributed.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between half of `delay` and all of it.
    pub fn spread(&mut self, delay: Duration) -> Duration {
        let half = delay / 2;
        let span = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX - 1);
        half + Duration::from_nanos(self.next_u64() % (span + 1))
    }
}

/// First and longest delay of a series of retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffConfig {
    /// Delay after the first failure, before jitter.
    pub first: Duration,
    /// No delay is longer than this.
    pub longest: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        BackoffConfig { first: Duration::from_millis(100), longest: Duration::from_secs(2) }
    }
}

/// Doubling delays for one activity. It never gives up: how long to try is not
/// its business.
#[derive(Debug, Clone)]
pub struct Backoff {
    config: BackoffConfig,
    failures: u32,
}

impl Backoff {
    /// A series that has not failed yet.
    pub fn new(config: BackoffConfig) -> Self {
        Backoff { config, failures: 0 }
    }

    /// How often in a row it has failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a failure and tells how long to wait: between half of the doubled
    /// delay and all of it.
    pub fn fail(&mut self, jitter: &mut Jitter) -> Duration {
        let factor = 1u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX);
        let delay = self.config.first.saturating_mul(factor).min(self.config.longest);
        self.failures = self.failures.saturating_add(1);
        jitter.spread(delay)
    }

    /// Notes a success: the next failure waits the first delay again.
    pub fn succeed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_again_after_success() {
        let config = BackoffConfig { first: Duration::from_millis(100), longest: Duration::from_secs(1) };
        let mut backoff = Backoff::new(config);
        let mut jitter = Jitter::seeded(7);
        for most in [100, 200, 400, 800, 1000, 1000] {
            let delay = backoff.fail(&mut jitter);
            let most = Duration::from_millis(most);
            assert!(delay >= most / 2 && delay <= most, "{delay:?} is not in the upper half of {most:?}");
        }
        backoff.succeed();
        assert!(backoff.fail(&mut jitter) <= config.first);
    }

    #[test]
    fn a_thousand_failures_do_not_overflow() {
        let config = BackoffConfig { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
        let mut backoff = Backoff::new(config);
        let mut jitter = Jitter::seeded(1);
        for _ in 0..1000 {
            assert!(backoff.fail(&mut jitter) <= config.longest);
        }
        assert_eq!(backoff.failures(), 1000);
    }

    #[test]
    fn equal_seeds_give_equal_delays_and_others_differ() {
        let series = |seed| {
            let mut jitter = Jitter::seeded(seed);
            (0..8).map(|_| jitter.spread(Duration::from_secs(1))).collect::<Vec<_>>()
        };
        assert_eq!(series(3), series(3));
        assert_ne!(series(3), series(4));
    }
}
