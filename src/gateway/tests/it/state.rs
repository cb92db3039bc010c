//! The rules of wire §2 points 6 to 10, one fact per test; point 13 is in
//! `rejection`.

use flotilla_core::ids::Kind;
use flotilla_gateway::state::{Change, Difference, Guard, Outcome, Snapshot};

use crate::updates::{Tester, backend, message, padding, resource, route};

#[test]
fn increments_work_without_any_full_synchronisation() {
    let mut gateway = Tester::new();
    assert_eq!(gateway.upsert(route("a/r", 1)), Outcome::Ack);
    assert_eq!(gateway.upsert(backend("a/b", 1)), Outcome::Ack);
    assert_eq!(gateway.held(), ["a/r", "a/b"]);
    assert_eq!(gateway.position(), ("v2".to_owned(), 2));
}

#[test]
fn a_second_upsert_replaces_the_first() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    assert_eq!(gateway.upsert(route("a/r", 2)), Outcome::Ack);
    let held: Vec<_> = gateway.state.held().collect();
    assert_eq!((held.len(), held[0].generation), (1, 2));
}

#[test]
fn a_name_with_namespace_in_it_is_the_same_key() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    let mut same = route("a/r", 2);
    (same.namespace, same.name) = (String::new(), "a/r".to_owned());
    assert_eq!(gateway.upsert(same.clone()), Outcome::Ack);
    assert_eq!(gateway.held(), ["a/r"]);
    assert_eq!(gateway.delete(same), Outcome::Ack);
    assert!(gateway.held().is_empty());
}

#[test]
fn the_same_key_in_another_kind_is_another_resource() {
    let mut gateway = Tester::holding(vec![route("a/x", 1), backend("a/x", 1)]);
    assert_eq!(gateway.delete(route("a/x", 1)), Outcome::Ack);
    assert_eq!(gateway.state.held_of(Kind::Backend), 1);
    assert_eq!(gateway.state.held_of(Kind::ApiRoute), 0);
}

#[test]
fn deleting_needs_no_spec_and_no_resource() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    let mut bare = route("a/r", 0);
    bare.spec_json = bytes::Bytes::new();
    assert_eq!(gateway.delete(bare.clone()), Outcome::Ack);
    assert_eq!(gateway.delete(bare), Outcome::Ack);
    assert_eq!(gateway.state.stats.deletions, 1);
}

#[test]
fn the_last_resource_can_be_deleted() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    assert_eq!(gateway.delete(route("a/r", 1)), Outcome::Ack);
    assert_eq!(gateway.state.held_count(), 0);
}

#[test]
fn an_old_sequence_is_skipped_without_an_answer() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    gateway.apply_as(10, "v10", Change::Upsert(route("a/s", 1)));
    for sequence in [10, 9, 0, -1] {
        let applied = gateway.apply_as(sequence, "late", Change::Delete(route("a/s", 1)));
        assert_eq!(applied.outcome, Outcome::Skipped, "{sequence}");
    }
    assert_eq!(gateway.position(), ("v10".to_owned(), 10));
    assert_eq!(gateway.held(), ["a/r", "a/s"]);
    assert_eq!((gateway.state.stats.skipped, gateway.state.stats.nacks), (4, 0));
}

#[test]
fn sequences_are_exact_up_to_the_largest() {
    let mut gateway = Tester::new();
    assert_eq!(gateway.apply_as(1, "a", Change::Nothing).outcome, Outcome::Ack);
    assert_eq!(gateway.apply_as(i64::MAX - 1, "b", Change::Nothing).outcome, Outcome::Ack);
    assert_eq!(gateway.apply_as(i64::MAX, "c", Change::Nothing).outcome, Outcome::Ack);
    assert_eq!(gateway.apply_as(i64::MAX, "d", Change::Nothing).outcome, Outcome::Skipped);
}

#[test]
fn a_full_synchronisation_is_taken_with_any_sequence_and_sets_it_down_too() {
    let mut gateway = Tester::new();
    gateway.apply_as(100, "v100", Change::Upsert(route("a/r", 1)));
    let snapshot = Snapshot { resources: vec![route("a/r", 1), route("a/s", 1)] };
    let applied = gateway.apply_as(5, "v5", Change::FullSync(Some(snapshot)));
    assert_eq!(applied.outcome, Outcome::Ack);
    assert_eq!(gateway.position(), ("v5".to_owned(), 5));
    assert_eq!(gateway.apply_as(6, "v6", Change::Upsert(route("a/t", 1))).outcome, Outcome::Ack);
}

#[test]
fn a_full_synchronisation_without_snapshot_sets_sequence_and_version_only() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    let applied = gateway.apply_as(0, "reset", Change::FullSync(None));
    assert_eq!(applied.outcome, Outcome::Ack);
    assert_eq!(gateway.position(), ("reset".to_owned(), 0));
    assert_eq!(gateway.held(), ["a/r"]);
}

#[test]
fn a_full_synchronisation_replaces_everything() {
    let mut gateway = Tester::holding(vec![route("a/r", 1), route("a/s", 1), backend("a/b", 1)]);
    let applied = gateway.full_sync(vec![route("a/s", 1), route("a/t", 1), backend("a/b", 2)]);
    assert_eq!(applied.outcome, Outcome::Ack);
    assert_eq!(gateway.held(), ["a/s", "a/t", "a/b"]);
    let mut differences: Vec<String> = applied
        .differences
        .iter()
        .map(|difference| {
            let what = match difference {
                Difference::Added(_) => "added",
                Difference::Modified(_) => "modified",
                Difference::Removed(_) => "removed",
            };
            format!("{what} {}", difference.resource().key)
        })
        .collect();
    differences.sort();
    assert_eq!(differences, ["added a/t", "modified a/b", "removed a/r"]);
    assert_eq!((gateway.state.stats.deletions, gateway.state.stats.removed_by_full_sync), (0, 1));
}

#[test]
fn a_heartbeat_moves_the_version_even_when_it_is_empty() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    gateway.apply_as(50, "v50", Change::Nothing);
    assert_eq!(gateway.position(), ("v50".to_owned(), 50));
    gateway.apply_as(51, "", Change::Nothing);
    assert_eq!(gateway.position(), (String::new(), 51));
}

#[test]
fn a_gateway_that_has_just_started_has_no_version() {
    assert_eq!(Tester::new().position(), (String::new(), 0));
}

#[test]
fn a_shrinking_full_synchronisation_is_ignored_for_30_seconds_after_every_registration() {
    let all = vec![route("a/r", 1), route("a/s", 1), backend("a/b", 1)];
    let fewer = vec![route("a/r", 1), backend("a/b", 1)];
    let mut gateway = Tester::holding(all.clone());
    for _ in 0..2 {
        gateway.register();
        for _ in [0, 30] {
            let applied = gateway.full_sync(fewer.clone());
            assert_eq!((applied.outcome, applied.guard), (Outcome::Ack, Some(Guard::Shrinking)));
            assert_eq!(gateway.state.held_count(), 3);
            gateway.now += 30;
        }
    }
    // The last iteration left the clock 60 s after the registration.
    let applied = gateway.full_sync(fewer);
    assert_eq!((applied.outcome, applied.guard), (Outcome::Ack, None));
    assert_eq!(gateway.held(), ["a/r", "a/b"]);
    assert_eq!(gateway.state.stats.guard_ignored, 4);
}

#[test]
fn the_guard_counts_all_kinds_together() {
    let mut gateway = Tester::holding(vec![route("a/r", 1), route("a/s", 1)]);
    gateway.register();
    let applied = gateway.full_sync(vec![route("a/r", 1), backend("a/b", 1)]);
    assert_eq!(applied.guard, None);
    assert_eq!(gateway.held(), ["a/r", "a/b"]);
}

#[test]
fn an_ignored_full_synchronisation_moves_version_and_sequence_as_if_applied() {
    let mut gateway = Tester::holding(vec![route("a/r", 1), route("a/s", 1)]);
    gateway.register();
    let snapshot = Snapshot { resources: vec![route("a/r", 1)] };
    let applied = gateway.apply_as(77, "v77", Change::FullSync(Some(snapshot)));
    assert_eq!((applied.outcome, applied.guard), (Outcome::Ack, Some(Guard::Shrinking)));
    assert_eq!(gateway.position(), ("v77".to_owned(), 77));
}

#[test]
fn an_empty_full_synchronisation_is_ignored_always_if_anything_is_held() {
    let mut gateway = Tester::holding(vec![route("a/r", 1)]);
    gateway.now += 100_000;
    let applied = gateway.full_sync(vec![]);
    assert_eq!((applied.outcome, applied.guard), (Outcome::Ack, Some(Guard::Empty)));
    assert_eq!(gateway.held(), ["a/r"]);

    let mut empty = Tester::new();
    empty.register();
    assert_eq!(empty.full_sync(vec![]).guard, None);
}

#[test]
fn entries_with_an_empty_spec_count_for_the_guard_and_are_dropped() {
    let mut gateway = Tester::holding(vec![route("a/r", 1), route("a/s", 1)]);
    gateway.register();
    let applied = gateway.full_sync(vec![route("a/r", 1), padding("a/s")]);
    assert_eq!((applied.outcome, applied.guard), (Outcome::Ack, None));
    assert_eq!(gateway.held(), ["a/r"]);
    // Even everything can go this way.
    let applied = gateway.full_sync(vec![padding("a/r")]);
    assert_eq!((applied.outcome, applied.guard), (Outcome::Ack, None));
    assert!(gateway.held().is_empty());
}

#[test]
fn kinds_that_are_not_held_are_accepted_and_count() {
    let mut gateway = Tester::holding(vec![route("a/r", 1), route("a/s", 1)]);
    gateway.register();
    let mut graphql = route("a/g", 1);
    graphql.kind = None;
    assert_eq!(gateway.upsert(graphql.clone()), Outcome::Ack);
    assert_eq!(gateway.delete(graphql.clone()), Outcome::Ack);
    let applied = gateway.full_sync(vec![route("a/r", 1), graphql]);
    assert_eq!(applied.guard, None);
    assert_eq!(gateway.held(), ["a/r"]);
}

#[test]
fn an_initial_configuration_moves_no_version_and_obeys_the_guards() {
    let mut gateway = Tester::new();
    gateway.register();
    let now = gateway.mono();
    let snapshot = Snapshot { resources: vec![route("a/r", 1), route("a/s", 1)] };
    gateway.state.apply_initial(snapshot, now);
    assert_eq!(gateway.position(), (String::new(), 0));
    assert_eq!(gateway.held(), ["a/r", "a/s"]);
    let fewer = Snapshot { resources: vec![route("a/r", 1)] };
    assert_eq!(gateway.state.apply_initial(fewer, now).guard, Some(Guard::Shrinking));
}

#[test]
fn an_object_that_gets_older_is_counted_as_a_regression() {
    let mut gateway = Tester::holding(vec![route("a/r", 5)]);
    gateway.upsert(route("a/r", 6));
    assert_eq!(gateway.state.stats.regressions, 0);
    gateway.upsert(route("a/r", 4));
    assert_eq!(gateway.state.stats.regressions, 1);
    // Deleting in between does not hide it.
    gateway.delete(route("a/r", 4));
    gateway.upsert(route("a/r", 5));
    assert_eq!(gateway.state.stats.regressions, 2);
    // An object that was created anew has another uid and starts at 1.
    gateway.delete(route("a/r", 5));
    let mut anew = route("a/r", 1);
    anew.uid = "new".to_owned();
    gateway.upsert(anew);
    assert_eq!(gateway.state.stats.regressions, 2);
}

#[test]
fn an_object_that_comes_back_unchanged_is_counted_as_reappeared() {
    let mut gateway = Tester::holding(vec![route("a/r", 5), route("a/s", 1)]);
    gateway.upsert(route("a/r", 5));
    assert_eq!(gateway.state.stats.reappeared, 0);
    gateway.delete(route("a/r", 5));
    gateway.upsert(route("a/r", 5));
    assert_eq!((gateway.state.stats.reappeared, gateway.state.stats.regressions), (1, 0));
    gateway.full_sync(vec![route("a/s", 1)]);
    gateway.full_sync(vec![route("a/s", 1), route("a/r", 5)]);
    assert_eq!((gateway.state.stats.reappeared, gateway.state.stats.regressions), (2, 0));
}

#[test]
fn unchanged_resources_of_a_full_synchronisation_are_no_differences() {
    let all = vec![route("a/r", 1), backend("a/b", 1)];
    let mut gateway = Tester::holding(all.clone());
    assert!(gateway.full_sync(all).differences.is_empty());
}

#[test]
fn messages_become_the_changes_they_stand_for() {
    use flotilla_gateway::state::Update;
    use flotilla_proto::operator::{ConfigurationUpdate, UpdateType};

    let of = |kind: UpdateType, with_resource: bool| {
        let resource = with_resource.then(|| message(&route("a/r", 1)));
        let update = ConfigurationUpdate { r#type: kind.into(), resource, ..ConfigurationUpdate::default() };
        Update::from(update).change
    };
    assert!(matches!(of(UpdateType::Added, true), Change::Upsert(_)));
    assert!(matches!(of(UpdateType::Modified, true), Change::Upsert(_)));
    assert!(matches!(of(UpdateType::Deleted, true), Change::Delete(_)));
    assert!(matches!(of(UpdateType::FullSync, false), Change::FullSync(None)));
    assert!(matches!(of(UpdateType::Heartbeat, false), Change::Nothing));
    assert!(matches!(of(UpdateType::Unspecified, true), Change::Nothing));
    assert!(matches!(of(UpdateType::Added, false), Change::Nothing));
    let Change::Upsert(incoming) = of(UpdateType::Added, true) else { panic!("no upsert") };
    assert_eq!(incoming, route("a/r", 1));
    assert_eq!(resource(Kind::ApiRoute, "n", 1, "{}").key().as_ref(), "n");
}
