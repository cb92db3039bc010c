//! Bad resources: wire §2 point 13.

use flotilla_core::ids::Kind;
use flotilla_gateway::state::Outcome;

use crate::updates::{Tester, backend, resource, route};

fn nack(outcome: Outcome) -> String {
    match outcome {
        Outcome::Nack(message) => message,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

fn bad_regex(key: &str) -> flotilla_gateway::resource::Incoming {
    let spec = format!(r#"{{"name":"{key}","match":[{{"uri":{{"regex":"[a"}}}}]}}"#);
    resource(Kind::ApiRoute, key, 1, &spec)
}

#[test]
fn an_undecodable_increment_is_rejected_and_nothing_else_suffers() {
    let mut gateway = Tester::holding(vec![route("a/m", 1)]);
    let before = gateway.position();
    let message = nack(gateway.upsert(resource(Kind::ApiRoute, "a/b", 1, r#"{"timeout":5.5}"#)));
    assert!(message.contains("a/b"), "{message}");
    assert_eq!(gateway.position(), before);
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/m"]);
    assert_eq!(gateway.upsert(route("a/z", 1)), Outcome::Ack);
}

#[test]
fn a_rejected_update_does_not_use_up_its_sequence() {
    use flotilla_gateway::state::Change;
    let mut gateway = Tester::holding(vec![route("a/m", 1)]);
    nack(gateway.apply_as(20, "v20", Change::Upsert(bad_regex("a/b"))).outcome);
    let applied = gateway.apply_as(20, "v20b", Change::Upsert(route("a/b", 2)));
    assert_eq!(applied.outcome, Outcome::Ack);
    assert_eq!(gateway.position(), ("v20b".to_owned(), 20));
}

#[test]
fn a_bad_regex_takes_routes_with_larger_keys_out_of_service_until_it_is_repaired() {
    let mut gateway = Tester::holding(vec![route("a/a", 1), route("a/z", 1), backend("a/b", 1)]);
    let message = nack(gateway.upsert(bad_regex("a/m")));
    assert!(message.contains("a/m") && message.contains("[a"), "{message}");
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/a"]);
    assert!(!gateway.state.fully_loaded());
    // Later route increments are rejected too, whatever they are.
    nack(gateway.upsert(route("a/y", 1)));
    nack(gateway.delete(route("a/a", 1)));
    assert!(gateway.loaded(Kind::ApiRoute).is_empty());
    // Backends are another matter.
    assert_eq!(gateway.upsert(backend("a/b", 2)), Outcome::Ack);
    // A good version repairs everything.
    assert_eq!(gateway.upsert(route("a/m", 2)), Outcome::Ack);
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/m", "a/y", "a/z"]);
    assert!(gateway.state.fully_loaded());
}

#[test]
fn to_put_back_what_was_before_a_bad_one_is_no_regression() {
    let mut gateway = Tester::holding(vec![route("a/m", 1), route("a/z", 1)]);
    let spec = r#"{"name":"a/m","match":[{"uri":{"regex":"[a"}}]}"#;
    nack(gateway.upsert(resource(Kind::ApiRoute, "a/m", 2, spec)));
    nack(gateway.upsert(route("a/z", 2)));
    assert_eq!(gateway.upsert(route("a/m", 1)), Outcome::Ack);
    assert_eq!(gateway.state.stats.regressions, 0);
    // The other one was good, and is held since.
    assert_eq!(gateway.upsert(route("a/z", 1)), Outcome::Ack);
    assert_eq!(gateway.state.stats.regressions, 1);
}

#[test]
fn deleting_the_bad_route_repairs_everything() {
    let mut gateway = Tester::holding(vec![route("a/a", 1), route("a/z", 1)]);
    nack(gateway.upsert(bad_regex("a/m")));
    assert_eq!(gateway.delete(bad_regex("a/m")), Outcome::Ack);
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/a", "a/z"]);
}

#[test]
fn a_duplicate_name_is_rejected_like_a_bad_regex() {
    let mut gateway = Tester::holding(vec![route("a/a", 1), route("a/z", 1)]);
    let twin = resource(Kind::ApiRoute, "a/m", 1, r#"{"name":"a/a"}"#);
    let message = nack(gateway.upsert(twin.clone()));
    assert!(message.contains("a/m") && message.contains("name"), "{message}");
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/a"]);
    assert_eq!(gateway.delete(route("a/a", 1)), Outcome::Ack);
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/m", "a/z"]);
}

#[test]
fn a_name_may_be_shared_by_different_kinds() {
    let mut gateway = Tester::holding(vec![route("a/x", 1)]);
    assert_eq!(gateway.upsert(backend("a/x", 1)), Outcome::Ack);
    let grpc = resource(Kind::GrpcRoute, "a/x", 1, r#"{"name":"a/x"}"#);
    assert_eq!(gateway.upsert(grpc), Outcome::Ack);
    assert!(gateway.state.fully_loaded());
}

#[test]
fn a_backend_without_hosts_blocks_later_backend_increments_and_keeps_the_old_set_in_force() {
    let mut gateway = Tester::holding(vec![backend("a/a", 1), backend("a/m", 1), route("a/r", 1)]);
    let message = nack(gateway.upsert(resource(Kind::Backend, "a/m", 2, r#"{"name":"a/m"}"#)));
    assert!(message.contains("a/m") && message.contains("hosts"), "{message}");
    nack(gateway.upsert(backend("a/z", 1)));
    assert_eq!(gateway.loaded(Kind::Backend), ["a/a", "a/m"]);
    let old = gateway.state.loaded(Kind::Backend).find(|backend| &*backend.key == "a/m").unwrap();
    assert_eq!(old.generation, 1);
    // Routes are another matter.
    assert_eq!(gateway.upsert(route("a/s", 1)), Outcome::Ack);
    assert_eq!(gateway.upsert(backend("a/m", 3)), Outcome::Ack);
    assert_eq!(gateway.loaded(Kind::Backend), ["a/a", "a/m", "a/z"]);
}

#[test]
fn an_undecodable_entry_of_a_full_synchronisation_vanishes_with_success() {
    let mut gateway = Tester::new();
    let undecodable = resource(Kind::ApiRoute, "a/b", 1, r#"{"match":7}"#);
    let applied = gateway.full_sync(vec![route("a/a", 1), undecodable, route("a/c", 1)]);
    assert_eq!(applied.outcome, Outcome::Ack);
    assert_eq!(gateway.held(), ["a/a", "a/c"]);
    assert_eq!(gateway.position(), ("v1".to_owned(), 1));
}

#[test]
fn a_bad_route_of_a_full_synchronisation_stops_the_loading_there_and_backends_are_not_loaded() {
    let mut gateway = Tester::holding(vec![route("a/a", 1), backend("a/old", 1)]);
    let before = gateway.position();
    // In the order of the snapshot, not of the keys.
    let applied =
        gateway.full_sync(vec![route("a/z", 1), bad_regex("a/m"), route("a/a", 1), backend("a/new", 1)]);
    let message = nack(applied.outcome);
    assert!(message.contains("a/m"), "{message}");
    assert_eq!(gateway.position(), before);
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/z"]);
    assert_eq!(gateway.loaded(Kind::Backend), ["a/old"]);
    // What came is held all the same: the next increment loads it.
    assert_eq!(gateway.held(), ["a/a", "a/m", "a/z", "a/new"]);
    assert_eq!(gateway.upsert(route("a/m", 2)), Outcome::Ack);
    assert_eq!(gateway.upsert(backend("a/b", 1)), Outcome::Ack);
    assert!(gateway.state.fully_loaded());
    assert_eq!(gateway.loaded(Kind::Backend), ["a/b", "a/new"]);
}

#[test]
fn two_routes_of_one_name_in_a_full_synchronisation_are_rejected() {
    let mut gateway = Tester::new();
    let twin = resource(Kind::ApiRoute, "b/r", 1, r#"{"name":"a/r"}"#);
    nack(gateway.full_sync(vec![route("a/r", 1), twin]).outcome);
    let mut gateway = Tester::new();
    nack(gateway.full_sync(vec![route("a/r", 1), route("a/r", 2)]).outcome);
}

#[test]
fn a_good_full_synchronisation_repairs_everything() {
    let mut gateway = Tester::holding(vec![route("a/a", 1), backend("a/b", 1)]);
    nack(gateway.upsert(bad_regex("a/0")));
    nack(gateway.upsert(resource(Kind::Backend, "a/c", 1, "{}")));
    let applied = gateway.full_sync(vec![route("a/a", 1), route("a/0", 2), backend("a/b", 1)]);
    assert_eq!(applied.outcome, Outcome::Ack);
    assert!(gateway.state.fully_loaded());
}

#[test]
fn a_bad_grpc_route_leaves_http_routes_alone() {
    let mut gateway = Tester::holding(vec![route("a/a", 1)]);
    let spec = r#"{"name":"a/g","match":[{"service":{"regex":"("}}]}"#;
    nack(gateway.upsert(resource(Kind::GrpcRoute, "a/g", 1, spec)));
    assert_eq!(gateway.loaded(Kind::ApiRoute), ["a/a"]);
    assert_eq!(gateway.upsert(route("a/b", 1)), Outcome::Ack);
}
