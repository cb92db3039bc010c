//! Versions: nothing is found in what is, something in every mistake.

use flotilla_model::versions::{ALL_PER_MESSAGE, Action, Mistake, Model, ONE_PER_MESSAGE, Size};
use flotilla_model::{Exploration, Limits, explore};

const SMALL: Size = Size { replicas: 2, namespaces: 2, gateways: 1, writes: 2, crashes: 0, cuts: 1 };

fn run(size: Size, before: &[Action], message_limit: u64, mistake: Option<Mistake>) -> Exploration {
    let before = before.to_vec();
    let model = Model { size, before, tombstones: 8, message_limit, mistake };
    explore(model, Limits { states: 300_000, ..Limits::default() })
}

fn nothing_is_found(size: Size) {
    let found = run(size, &[], ALL_PER_MESSAGE, None);
    assert_eq!(found.violation, None);
    assert!(found.complete && found.states > 100, "{found:?}");
}

#[test]
fn a_gateway_moves_between_lagging_replicas() {
    nothing_is_found(Size { writes: 1, ..SMALL });
}

#[test]
fn a_gateway_outlives_a_crash() {
    nothing_is_found(Size { writes: 1, crashes: 1, cuts: 0, ..SMALL });
}

/// From a state in which a mistake can do harm it must be found, by so few steps;
/// without the mistake nothing must be found from there.
fn is_found(mistake: Mistake, size: Size, before: &[Action], promise: &str, steps: usize) {
    // Only in increments a gateway can have a part of what was sent.
    let partly = matches!(mistake, Mistake::LowForHigh | Mistake::HighForLow);
    let limit = if partly { ONE_PER_MESSAGE } else { ALL_PER_MESSAGE };
    let found = run(size, before, limit, Some(mistake));
    let (broken, way) = found.violation.expect("the mistake is found");
    assert!(broken.starts_with(promise), "{mistake:?} broke {broken}");
    assert!(way.len() <= steps, "{mistake:?} took {way:#?}");
    let right = run(size, before, limit, None);
    assert!(right.complete && right.violation.is_none(), "{mistake:?} without it: {right:?}");
}

const WRITE: Action = Action::Write { object: 0 };
const OTHER: Action = Action::Write { object: 1 };
const DELETE: Action = Action::Delete { object: 0 };
const CUT: Action = Action::Disconnected { gateway: 0 };

#[test]
fn low_used_for_high_is_found() {
    let size = Size { writes: 3, cuts: 2, ..SMALL };
    is_found(Mistake::LowForHigh, size, &[CUT, WRITE, WRITE, OTHER], "I2", 12);
}

#[test]
fn half_a_batch_taken_for_all_of_it_is_found() {
    let size = Size { cuts: 2, ..SMALL };
    is_found(Mistake::HighForLow, size, &[CUT, WRITE, OTHER], "I3", 16);
}

#[test]
fn a_version_that_is_not_looked_at_is_found() {
    let watched = Action::Watched { at: 0, kind: 0 };
    let before = [WRITE, watched, Action::Delivered { gateway: 0 }, CUT];
    is_found(Mistake::VersionIgnored, Size { writes: 1, ..SMALL }, &before, "I2", 6);
}

#[test]
fn forgotten_tombstones_are_found() {
    let (crash, start) = (|at| Action::Crash { at }, |at| Action::Start { at });
    let before = [DELETE, crash(0), crash(1), start(0), start(1)];
    let size = Size { writes: 1, crashes: 2, cuts: 0, ..SMALL };
    is_found(Mistake::TombstonesForgotten, size, &before, "I3", 8);
}

#[test]
fn a_version_told_before_it_was_applied_is_found() {
    is_found(Mistake::AckedAhead, Size { writes: 1, ..SMALL }, &[WRITE], "I3", 12);
}

/// A limit of what is promised, and not a mistake: a snapshot replaces everything,
/// and what does not fit into one message with it comes after it. It takes that
/// nobody remembers what was deleted since, and more than 4 MiB of configuration.
#[test]
fn what_does_not_fit_into_one_snapshot_is_gone_until_the_rest_follows() {
    let (crash, start) = (Action::Crash { at: 0 }, Action::Start { at: 0 });
    let watched = Action::Watched { at: 0, kind: 0 };
    let before = [WRITE, watched, Action::Delivered { gateway: 0 }, crash, start];
    let size = Size { replicas: 1, writes: 1, crashes: 1, cuts: 0, ..SMALL };
    let found = run(size, &before, ONE_PER_MESSAGE, None);
    assert!(found.violation.is_some_and(|(broken, _)| broken.starts_with("I4")));
    assert_eq!(run(size, &before, ALL_PER_MESSAGE, None).violation, None);
}
