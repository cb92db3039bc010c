//! Plays a world to its end. Whoever plays a scenario does it here: to find, to make
//! small, to explain and to replay.
//!
//! A run ends early with the first broken promise, with a panic of what is played, or when
//! it does not get on: a replica that is never done with a moment would otherwise be
//! played for ever, by whoever happens to play that seed, and nobody would say which.

use super::{Outcome, World};
use crate::clock::SECONDS;
use crate::panics;
use crate::statistics::Count;
use crate::witness::Stopped;

/// Events within a second that are too many. The busiest second of the worlds that are
/// drawn has 2,000, that of `draw_bench` 4,200.
const MOST: u32 = 500_000;

/// Sees whether time moves on.
#[derive(Debug, Default)]
struct Pace {
    since: u64,
    events: u32,
}

impl Pace {
    /// Something happens at a time. Returns whether it is too much.
    fn is_lost(&mut self, at: u64) -> bool {
        if at - self.since >= SECONDS {
            *self = Pace { since: at, events: 0 };
        }
        self.events += 1;
        self.events > MOST
    }
}

impl World<'_> {
    /// Plays the scenario to its end, or to the first broken promise.
    pub fn run(mut self) -> Outcome {
        let aloud = self.witness.telling();
        if let Err(panic) = panics::catch(aloud, || self.play()) {
            let text = format!("panicked: {} at {}", panic.words, panic.place);
            self.witness.stopped(self.now, Stopped::Panic { place: panic.place }, text);
        }
        self.stats.simulated = self.now;
        let tally = self.witness.tally();
        let judged = [tally.everywhere, tally.removed, tally.maps, tally.reached, tally.memory];
        for (count, times) in Count::JUDGED.into_iter().zip(judged) {
            self.stats.add(count, times);
        }
        Outcome {
            violation: self.witness.first_broken().cloned(),
            trace: self.witness.sum(),
            statistics: self.stats,
        }
    }

    fn play(&mut self) {
        self.begin();
        let mut pace = Pace::default();
        while !self.ended && self.witness.first_broken().is_none() {
            let Some((at, what)) = self.queue.pop() else { break };
            self.now = at;
            if pace.is_lost(at) {
                // Some carry all that a replica knows.
                let next: String = format!("{what:?}").chars().take(120).collect();
                let (events, within) = (pace.events, at - pace.since);
                let text = format!("stands still: {events} events within {within} ns; the next is {next}");
                self.witness.stopped(at, Stopped::StandsStill, text);
                break;
            }
            self.happen(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use flotilla_observer::Subject;

    use super::*;
    use crate::draw::{Size, draw};
    use crate::world::Occurrence;

    #[test]
    fn time_that_moves_on_is_never_lost() {
        let mut pace = Pace::default();
        // Each second as much as is allowed, at whatever distances.
        for event in 0..u64::from(MOST) * 3 {
            assert!(!pace.is_lost(event * (SECONDS / u64::from(MOST))), "event {event}");
        }
    }

    #[test]
    fn time_that_stands_still_is_lost_at_some_time() {
        for step in [0, 1, 1_000] {
            let mut pace = Pace::default();
            let lost = (0..).position(|event| pace.is_lost(7 * SECONDS + event * step));
            assert_eq!(lost, Some(MOST as usize), "{step} ns apart");
        }
    }

    /// A minute to which something is added that cannot be.
    fn played(what: fn() -> Occurrence, times: u32) -> Outcome {
        let scenario = draw(5, Size::small(1));
        let mut world = World::new(&scenario);
        for _ in 0..times {
            world.queue.push(AT, what());
        }
        world.run()
    }

    const AT: u64 = 20 * SECONDS + 1;

    fn check(outcome: &Outcome, says: &str, stopped: fn(&Stopped) -> bool) {
        let broken = outcome.violation.as_ref().unwrap();
        assert_eq!((broken.at, broken.invariant), (AT, None));
        assert!(broken.text.contains(says), "{}", broken.text);
        assert!(broken.stopped.as_ref().is_some_and(stopped), "{broken:?}");
        assert_eq!((outcome.statistics.runs, outcome.statistics.simulated), (1, AT));
        assert!(outcome.statistics.of(Count::Events) > 1_000);
    }

    #[test]
    fn a_panic_is_a_violation_at_its_time() {
        let no_such_act = || Occurrence::Plan(1_000_000);
        let outcome = played(no_such_act, 1);
        let here = |stopped: &Stopped| match stopped {
            Stopped::Panic { place } => place.starts_with("chaos/sim/world/acts.rs:"),
            Stopped::StandsStill => false,
        };
        check(&outcome, "panicked: index out of bounds: ", here);
        check(&outcome, " at chaos/sim/world/acts.rs:", here);
        assert_eq!(played(no_such_act, 1), outcome);
    }

    #[test]
    fn time_that_stands_still_is_a_violation() {
        let nothing = || Occurrence::Recovered(Subject::Network, u32::MAX);
        check(&played(nothing, MOST + 1), "stands still: 500001 events within ", |stopped| {
            *stopped == Stopped::StandsStill
        });
    }
}
