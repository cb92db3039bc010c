//! The process's monotonic clock, as the core counts it.

use std::time::Duration;

use flotilla_core::time::Mono;
use tokio::time::Instant;

/// Turns the runtime's instants into the core's moments and back. Copies of one
/// clock agree; two clocks do not, so a process makes one.
#[derive(Debug, Clone, Copy)]
pub struct MonoClock {
    origin: Instant,
}

impl MonoClock {
    /// A clock whose origin is now.
    pub fn start() -> Self {
        MonoClock { origin: Instant::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Mono {
        Mono::from_origin(self.origin.elapsed())
    }

    /// The moment of an instant; one before the origin counts as the origin.
    pub fn moment(&self, instant: Instant) -> Mono {
        Mono::from_origin(instant.saturating_duration_since(self.origin))
    }

    /// The instant of a moment, for timers.
    pub fn instant(&self, moment: Mono) -> Instant {
        // A moment beyond what the clock can hold never comes; a day is as good.
        let after = Duration::from_nanos(moment.0);
        self.origin.checked_add(after).unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}
