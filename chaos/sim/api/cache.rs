//! A watch cache before the log, and the API server process that it belongs to.
//!
//! It shows an entry of the log some time after it was written, and may stand
//! still. Requests that only the log can answer (writes, consistent reads) go
//! through it and fail when it is down.

/// See the module's description. Times are true times.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cache {
    /// How far it lags behind the log.
    pub lag: u64,
    /// It stands still until then, at what it had seen at `frozen_from`.
    pub frozen_until: u64,
    /// See [`Cache::frozen_until`].
    pub frozen_from: u64,
    /// It answers nothing until then.
    pub down_until: u64,
    /// One in so many requests fails until then.
    pub failing: u32,
    /// See [`Cache::failing`].
    pub failing_until: u64,
    /// Lists are answered as of so long ago until then.
    pub stale_by: u64,
    /// See [`Cache::stale_by`].
    pub stale_until: u64,
}

impl Cache {
    /// When it shows what was written at `at`.
    pub fn shows(&self, at: u64) -> u64 {
        let seen = at.saturating_add(self.lag);
        if seen > self.frozen_from { seen.max(self.frozen_until) } else { seen }
    }

    /// It stands still from now on.
    pub fn freeze(&mut self, now: u64, until: u64) {
        if self.frozen_until <= now {
            self.frozen_from = now;
        }
        self.frozen_until = self.frozen_until.max(until);
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        *self = Cache { lag: self.lag, ..Cache::default() };
    }
}
