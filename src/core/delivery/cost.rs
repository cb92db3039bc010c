//! What applying a batch costs a gateway.
//!
//! A route increment makes a gateway rebuild its router, a full
//! synchronisation makes it rebuild everything once. Which is cheaper depends
//! on how many routes there are and on how loaded the gateway is. The table is
//! what the published gateway was measured to need; it is scaled by what each
//! gateway itself reports.

use std::time::Duration;

/// Measured: resources present → milliseconds for one increment and for a
/// full synchronisation.
const TABLE: [(f64, f64, f64); 5] = [
    (0.0, 0.3, 0.5),
    (100.0, 0.7, 2.0),
    (1_000.0, 7.0, 17.0),
    (5_000.0, 119.0, 212.0),
    (10_000.0, 650.0, 874.0),
];
/// Handling one message, whatever is in it.
const MESSAGE_MS: f64 = 1.0;
/// Restarting all backends and forgetting what is known of their health: not
/// work of the gateway, but a worse service for a while.
const RESTART_MS: f64 = 20.0;
/// Transport and decoding.
const BYTES_PER_MS: f64 = 50_000.0;
/// The same for a gateway that comes back: its share of the link of a replica that
/// serves a thousand of them over 8 Gbit/s. When a replica is updated they all come at
/// once, and snapshots for all cost the fleet more than the few increments that each of
/// them lacks.
const BYTES_PER_MS_COMING_BACK: f64 = 1_000.0;
/// Weight of the newest report.
const NEWEST: f64 = 0.3;

/// What is to be sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Number of updates of routes and of backends.
    pub routes: usize,
    pub backends: usize,
    pub bytes: u64,
}

/// One gateway's own factor on the table, per way of sending.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CostModel {
    increment: Option<f64>,
    full: Option<f64>,
}

impl CostModel {
    /// A report of `updates` increments onto `present` resources.
    pub fn increments_took(&mut self, updates: usize, present: usize, took: Duration) {
        if updates > 0 {
            let expected = table(present).0 * updates as f64;
            observe(&mut self.increment, millis(took) / expected);
        }
    }

    /// A report of one full synchronisation of `present` resources.
    pub fn full_took(&mut self, present: usize, took: Duration) {
        observe(&mut self.full, millis(took) / table(present).1);
    }

    /// What a full synchronisation of `full_bytes` saves, if it is cheaper; `back`: for a
    /// gateway that has just come back.
    pub fn full_saves(&self, load: Load, present: usize, full_bytes: u64, back: bool) -> Option<Duration> {
        let rate = if back { BYTES_PER_MS_COMING_BACK } else { BYTES_PER_MS };
        let (increment, full) = table(present);
        // What is not known of one way is taken from the other.
        let increment_scale = self.increment.or(self.full).unwrap_or(1.0);
        let full_scale = self.full.or(self.increment).unwrap_or(1.0);
        let updates = (load.routes + load.backends) as f64;
        let increments = updates * (increment * increment_scale + MESSAGE_MS)
            + load.backends as f64 * RESTART_MS
            + load.bytes as f64 / rate;
        let full = full * full_scale + MESSAGE_MS + RESTART_MS + full_bytes as f64 / rate;
        let saved = Duration::try_from_secs_f64((increments - full) / 1_000.0).ok();
        saved.filter(|saved| !saved.is_zero())
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

fn observe(scale: &mut Option<f64>, seen: f64) {
    // One report out of all proportion must not decide for long.
    let seen = seen.clamp(0.01, 100.0);
    *scale = Some(scale.map_or(seen, |known| known + NEWEST * (seen - known)));
}

/// Milliseconds for one increment and for a full synchronisation.
fn table(present: usize) -> (f64, f64) {
    let count = present as f64;
    let upper = TABLE.iter().position(|row| row.0 >= count).unwrap_or(TABLE.len() - 1).max(1);
    let (from, to) = (TABLE[upper - 1], TABLE[upper]);
    let share = (count - from.0) / (to.0 - from.0);
    (from.1 + share * (to.1 - from.1), from.2 + share * (to.2 - from.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(routes: usize) -> Load {
        Load { routes, backends: 0, bytes: 600 * routes as u64 }
    }

    #[test]
    fn few_changes_are_increments_and_many_are_a_full_synchronisation() {
        let model = CostModel::default();
        for (back, sizes) in [
            (false, [(1_000, 1, 20), (5_000, 1, 20), (10_000, 1, 20)]),
            (true, [(1_000, 20, 100), (5_000, 10, 50), (10_000, 5, 20)]),
        ] {
            for (present, few, many) in sizes {
                let bytes = 600 * present as u64;
                assert!(model.full_saves(routes(few), present, bytes, back).is_none(), "{present} {back}");
                assert!(model.full_saves(routes(many), present, bytes, back).is_some(), "{present} {back}");
            }
        }
        assert!(model.full_saves(routes(2), 20, 12_000, false).is_none());
    }

    #[test]
    fn every_backend_counts_as_a_restart_of_all() {
        let model = CostModel::default();
        assert!(model.full_saves(Load { backends: 30, ..routes(20) }, 1_000, 600_000, true).is_some());
    }

    #[test]
    fn a_gateway_that_is_slow_at_full_synchronisations_gets_increments() {
        let mut model = CostModel::default();
        model.increments_took(1, 1_000, Duration::from_millis(7));
        model.full_took(1_000, Duration::from_millis(900));
        assert!(model.full_saves(routes(100), 1_000, 600_000, true).is_none());
    }

    #[test]
    fn a_slow_start_is_forgotten() {
        let mut model = CostModel::default();
        model.increments_took(1, 1_000, Duration::from_secs(60));
        for _ in 0..40 {
            model.increments_took(1, 1_000, Duration::from_micros(70));
        }
        assert!(model.full_saves(routes(10), 1_000, 600_000, true).is_none());
    }
}
