//! What panics while it is played is found, made small, kept, replayed and explained as
//! what breaks a promise is.

use flotilla_sim::{Broken, Outcome, Scenario, Size, Stopped, World, draw, shrink};

const SECONDS: u64 = 1_000_000_000;

/// Plays with a listener who panics at the first fault after a while.
fn played(scenario: &Scenario) -> Outcome {
    let mut listen = |at: u64, words: &str| {
        assert!(at < 20 * SECONDS || !words.starts_with("=== Fault("), "tired of {words}");
    };
    World::with_story(scenario, Some(&mut listen)).run()
}

fn found(outcome: &Outcome) -> &Broken {
    let broken = outcome.violation.as_ref().unwrap();
    assert!(broken.text.starts_with("panicked: tired of === Fault("), "{}", broken.text);
    let Some(Stopped::Panic { place }) = &broken.stopped else { panic!("{broken:?}") };
    assert!(place.starts_with("chaos/sim/tests/it/stopped.rs:"), "{place}");
    assert!(broken.text.ends_with(place), "{}", broken.text);
    broken
}

#[test]
fn a_scenario_that_panics_is_made_small() {
    let seeds = (0..100).map(|seed| draw(seed, Size::small(1)));
    let scenario = seeds.clone().find(|scenario| played(scenario).violation.is_some()).unwrap();
    let outcome = played(&scenario);
    let broken = found(&outcome);
    assert!(broken.at >= 20 * SECONDS);
    assert_eq!(broken.at, outcome.statistics.simulated);
    assert_eq!(played(&scenario), outcome);
    let mut breaks = |scenario: &Scenario| {
        let again = played(scenario).violation.filter(|again| again.is_like(broken))?;
        Some(again.at / 1_000_000)
    };
    let shrunk = shrink(scenario.clone(), &mut breaks, &mut || true);
    assert!(shrunk.minimal && shrunk.scenario.plan.len() == 1, "{:?}", shrunk.scenario.plan);
    found(&played(&shrunk.scenario));
    // Nobody listens: whoever plays next on this thread is not concerned.
    assert_eq!(World::new(&scenario).run().violation, None);
}

/// Only where overflows are checked: an act comes at a time that cannot be told.
#[cfg(debug_assertions)]
#[test]
fn a_scenario_that_panics_is_kept_and_explained() {
    use flotilla_sim::{Kept, explain};

    let mut scenario = draw(3, Size::small(1));
    scenario.plan.truncate(3);
    scenario.plan[2].at = u64::MAX;
    let kept = Kept { says: "it panics".to_owned(), breakage: None, scenario };
    let kept = Kept::read(&kept.write().unwrap()).unwrap();
    let broken = kept.play().violation.unwrap();
    assert!(broken.text.starts_with("panicked: attempt to multiply with overflow at chaos/"), "{broken:?}");
    assert_eq!(broken.at, kept.scenario.plan[1].at * 1_000_000);
    let text = explain(&kept.scenario, kept.breakages(), &broken);
    assert!(text.starts_with(&broken.text) && !text.contains("did not break the same"), "{text}");
    // Also before anything has happened.
    let first = Scenario { plan: kept.scenario.plan[2..].to_vec(), ..kept.scenario.clone() };
    let at_once = World::new(&first).run().violation.unwrap();
    assert!(at_once.is_like(&broken) && at_once.at == 0, "{at_once:?}");
}
