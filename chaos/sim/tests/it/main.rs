//! The simulator itself: that a scenario always goes the same way, that it can be
//! written down, and that what once found a broken promise does so no more.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod kept;
mod stopped;

use flotilla_sim::{Count, Scenario, Size, Statistics, World, draw};

#[test]
fn the_same_scenario_goes_the_same_way_on_any_thread() {
    for seed in [3, 4] {
        let scenario = draw(seed, Size::small(1));
        assert_eq!(scenario, draw(seed, Size::small(1)));
        let here = World::new(&scenario).run();
        let there =
            std::thread::scope(|threads| threads.spawn(|| World::new(&scenario).run()).join()).unwrap();
        assert_eq!(here, there, "seed {seed}");
        assert!(here.statistics.of(Count::Events) > 1_000);
    }
}

/// Seeds of minutes with all sorts of faults, and what their stories come to.
const STORIES: [(u64, u64); 3] =
    [(7, 7_371_695_856_191_044_695), (8, 7_439_513_016_451_345_017), (9, 1_112_747_138_586_074_307)];

/// The sum (FNV-1a, 64 bits) of everything that is told of a run, with its times.
fn sum_of_story(seed: u64) -> u64 {
    let scenario = draw(seed, Size { restores: true, contests: true, ..Size::small(2) });
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |at: u64, line: &str| {
        for byte in at.to_le_bytes().into_iter().chain(line.bytes()) {
            sum = (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    World::with_story(&scenario, Some(&mut take)).run();
    sum
}

/// A change of what replicas decide, or of what is told, changes these; what is only to be
/// quicker or easier to read does not. A machine that goes another way fails here, too.
#[test]
fn a_story_is_the_same_byte_for_byte_on_every_machine() {
    let told = STORIES.map(|(seed, _)| (seed, sum_of_story(seed)));
    assert_eq!(told, STORIES, "if replicas are to decide otherwise now, write what came out into STORIES");
}

/// A promise that is never judged proves nothing.
#[test]
fn everything_that_may_be_left_unjudged_is_judged_sometimes() {
    let mut all = Statistics::default();
    for seed in 0..40 {
        let outcome = World::new(&draw(seed, Size::small(5))).run();
        assert_eq!(outcome.violation, None, "seed {seed}");
        all.absorb(&outcome.statistics);
    }
    for count in Count::JUDGED {
        assert!(all.of(count) > 0, "{count:?} in\n{all}");
    }
}

#[test]
fn a_story_changes_nothing() {
    let scenario = draw(5, Size::small(1));
    let mut lines = 0;
    let mut count = |_: u64, _: &str| lines += 1;
    let told = World::with_story(&scenario, Some(&mut count)).run();
    assert_eq!(told, World::new(&scenario).run());
    assert!(lines > 1_000);
}

#[test]
fn a_scenario_can_be_written_down_and_played_again() {
    let scenario = draw(11, Size::small(1));
    let text = serde_json::to_string(&scenario).unwrap();
    let read: Scenario = serde_json::from_str(&text).unwrap();
    assert_eq!(read, scenario);
}

#[test]
fn entries_of_a_plan_can_be_left_out() {
    let mut scenario = draw(6, Size::small(1));
    let mut keep = false;
    scenario.plan.retain(|_| {
        keep = !keep;
        keep
    });
    let outcome = World::new(&scenario).run();
    assert_eq!(outcome.violation, None);
}
