//! How long a gateway waits before it registers again (wire §2 point 2).

use std::time::Duration;

/// Waits of 1, 2, 4, 8, 16 and then 30 s, so that a gateway tries 1, 3, 7, 15
/// and 31 s after it lost its stream. There is no jitter: the published
/// gateway has none, and a controller has to cope with that.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    attempt: u32,
    scale: f64,
}

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

impl Backoff {
    /// `scale` multiplies every wait.
    pub(crate) fn new(scale: f64) -> Self {
        Backoff { attempt: 0, scale }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.attempt.min(10)).min(LONGEST);
        self.attempt += 1;
        wait.mul_f64(self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_follow_after_1_3_7_15_and_31_seconds() {
        let mut backoff = Backoff::new(1.0);
        let mut elapsed = Duration::ZERO;
        let mut attempts = Vec::new();
        for _ in 0..7 {
            elapsed += backoff.next();
            attempts.push(elapsed.as_secs());
        }
        assert_eq!(attempts, [1, 3, 7, 15, 31, 61, 91]);
        assert_eq!(Backoff::new(0.01).next(), Duration::from_millis(10));
    }
}
