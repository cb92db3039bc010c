//! Where counting begins and ends.

use std::time::{Duration, Instant};

/// Callgrind's pattern for the one function in which it counts, `counted`.
pub const COUNTED: &str = "*meter::counted*";

/// What surrounds the part of a path that counts; the rest prepares it.
#[derive(Debug, Default)]
pub struct Meter {
    /// Time in what counts.
    pub spent: Duration,
}

impl Meter {
    /// Does what counts.
    pub fn count<R>(&mut self, work: impl FnOnce() -> R) -> Option<R> {
        let (mut work, mut done) = (Some(work), None);
        let begun = Instant::now();
        counted(&mut || done = work.take().map(|work| work()));
        self.spent += begun.elapsed();
        done
    }
}

/// Found by its name, so there is one of it, and it is called and returned from.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // Or the call would be the last thing here, and a jump.
    std::hint::black_box(());
}
