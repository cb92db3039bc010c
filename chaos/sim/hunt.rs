//! The checker is checked: the core is broken on purpose, one precaution at a time,
//! and each time seeds are played until a promise is found broken. What is not found
//! within its bound is a hole in the simulator or in the observer.

use flotilla_core::breakage::{Breakage, Breakages};

use crate::draw::{Size, draw};
use crate::witness::Broken;
use crate::world::World;

/// How a hunt for one breakage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunt {
    /// What was broken.
    pub breakage: Breakage,
    /// Seeds that were played.
    pub seeds: u64,
    /// The seed that found it, and what it found.
    pub found: Option<(u64, Broken)>,
    /// Nanoseconds that were simulated.
    pub simulated: u64,
}

/// Plays at most `most` seeds from `first` on with something broken.
pub fn hunt(breakage: Breakage, first: u64, most: u64, size: Size) -> Hunt {
    let mut hunt = Hunt { breakage, seeds: 0, found: None, simulated: 0 };
    for seed in first..first.saturating_add(most) {
        let scenario = draw(seed, size);
        let outcome = World::new(&scenario).breaking(Breakages::only(breakage)).run();
        hunt.seeds += 1;
        hunt.simulated += outcome.statistics.simulated;
        // What is found without it as well does not show that it is found.
        if let Some(broken) = outcome.violation
            && World::new(&scenario).run().violation.is_none()
        {
            hunt.found = Some((seed, broken));
            break;
        }
    }
    hunt
}
