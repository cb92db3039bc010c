//! One process's monotonic clock: it may run a little faster or slower than true
//! time, and may jump ahead, but it never goes back.

use flotilla_core::time::Mono;

/// Nanoseconds in a millisecond.
pub const MILLIS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const SECONDS: u64 = 1_000 * MILLIS;

const EVEN: u64 = 1_000_000;

/// A clock: at the true time `from` it showed `shown`, and since then it has run
/// at `rate` millionths of the true rate.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    from: u64,
    shown: u64,
    rate: u64,
}

impl Clock {
    /// A clock that starts now. It does not start at zero, which counts as "long
    /// ago" in the core.
    pub fn start(now: u64, drift_ppm: i32) -> Self {
        Clock { from: now, shown: SECONDS, rate: rate(drift_ppm) }
    }

    /// What it shows at a true time.
    pub fn read(&self, now: u64) -> Mono {
        let passed = now.saturating_sub(self.from);
        if self.rate == EVEN {
            return Mono(self.shown + passed);
        }
        let scaled = u128::from(passed) * u128::from(self.rate) / u128::from(EVEN);
        Mono(self.shown.saturating_add(scaled as u64))
    }

    /// The first true time at which it shows at least `moment`.
    pub fn when(&self, moment: Mono) -> u64 {
        let ahead = moment.0.saturating_sub(self.shown);
        if self.rate == EVEN {
            return self.from.saturating_add(ahead);
        }
        let passed = (u128::from(ahead) * u128::from(EVEN)).div_ceil(u128::from(self.rate));
        self.from.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// From now on it runs so many millionths faster than true time.
    pub fn drift(&mut self, now: u64, drift_ppm: i32) {
        *self = Clock { from: now, shown: self.read(now).0, rate: rate(drift_ppm) };
    }

    /// It jumps ahead.
    pub fn jump(&mut self, now: u64, by: u64) {
        *self = Clock { from: now, shown: self.read(now).0 + by, rate: self.rate };
    }
}

fn rate(drift_ppm: i32) -> u64 {
    EVEN.saturating_add_signed(i64::from(drift_ppm)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_reached_when_the_clock_shows_it() {
        for drift in [-30_000, -1, 0, 7, 30_000] {
            let mut clock = Clock::start(5 * SECONDS, drift);
            clock.jump(9 * SECONDS, 17);
            for ahead in [1, 999, 1_000_003, 77 * SECONDS] {
                let moment = Mono(clock.read(10 * SECONDS).0 + ahead);
                let at = clock.when(moment);
                assert!(clock.read(at) >= moment, "{drift} {ahead}");
                assert!(clock.read(at - 2) < moment, "{drift} {ahead}");
            }
        }
    }
}
