//! The simulator itself: that a scenario always goes the same way, that it can be
//! written down, and that what once found a broken promise does so no more.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod kept;

use flotilla_sim::{Count, Scenario, Size, World, draw};

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
