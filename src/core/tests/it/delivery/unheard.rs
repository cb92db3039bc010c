//! What happens when answers to updates are lost, some of which were rejected.

use std::time::Duration;

use flotilla_core::delivery::Notice;
use flotilla_core::ids::Kind;

use super::bench::{Bench, key, words};
use super::gateway::Answer;
use super::rejections::{plain, rejected, with_routes};

#[test]
fn one_whose_answer_was_lost_is_suspected_like_those_before_it() {
    let mut bench = with_routes(6);
    bench.backend("a/gone", "v1");
    bench.ballast();
    bench.settle();
    for (name, spec) in [("a/1", "v2 poison"), ("a/2", "v2"), ("a/3", "v2 poison")] {
        bench.route(name, spec);
    }
    bench.delete(Kind::Backend, "a/gone");
    let sent = answer_some(&mut bench, &[0, 1, 4]);
    assert_eq!(sent, ["heartbeat", "~a/1", "~a/2", "~a/3", "-a/gone"]);
    bench.settle();
    assert_eq!(sorted(rejected(&bench)), ["a/1", "a/3"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v1");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/2").unwrap(), "name=a/2 v2");
    assert!(bench.gateways["g"].removed.iter().all(|(gone, _)| gone.kind == Kind::Backend));
    assert!(!bench.gateways["g"].broken(true));
}

/// Lets a gateway take a batch, but only the answers to some of it arrive.
fn answer_some(bench: &mut Bench, heard: &[usize]) -> Vec<String> {
    let (name, batch, first) = bench.poll().remove(0);
    let answers = bench.take(&name, &batch, first);
    for index in heard {
        let result = match &answers[*index] {
            Answer::Nacked(words) => Err(words.as_str()),
            _ => Ok(()),
        };
        bench.ack(&name, &batch.updates[*index].version, result);
    }
    words(&batch)
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn after_a_lost_answer_the_next_one_is_not_taken_for_the_culprit() {
    for mute in [false, true] {
        let mut bench = with_routes(4);
        bench.ballast();
        bench.settle();
        bench.gateway("g").mute = mute;
        bench.backend("a/b", "v2 poison");
        bench.route("a/1", "v2");
        assert_eq!(answer_some(&mut bench, &[0, 2]), ["heartbeat", "~a/b", "~a/1"]);
        // It fails with the one before it.
        bench.backend("a/a", "v1");
        bench.settle_for(Duration::from_secs(20));
        assert_eq!(rejected(&bench), ["a/b"]);
        assert_eq!(bench.holds("g", Kind::Backend, "a/a").unwrap(), "name=a/a v1");
        assert_eq!(bench.holds("g", Kind::Backend, "a/b").unwrap(), "name=a/b v1");
        assert!(!bench.gateways["g"].broken(false));
        assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
    }
}

#[test]
fn what_cannot_be_decoded_is_found_although_its_answer_was_lost() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.settle();
    bench.route("a/1", "v2 undecodable");
    bench.route("a/2", "v2");
    assert_eq!(answer_some(&mut bench, &[0, 2]), ["heartbeat", "~a/1", "~a/2"]);
    bench.settle();
    assert_eq!(rejected(&bench), ["a/1"]);
    let table = bench.delivery.applied_table();
    assert_eq!(table.rows[0].excluded.len(), 1, "nobody says that it has it: {table:?}");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v1");
}

#[test]
fn a_repair_whose_answer_was_lost_is_sent_again() {
    let mut bench = with_routes(4);
    bench.backend("a/c", "v1");
    bench.ballast();
    bench.settle();
    for name in ["a/b", "a/c"] {
        bench.backend(name, "v2 poison");
    }
    bench.route("a/1", "v2 poison");
    assert_eq!(answer_some(&mut bench, &[0, 1, 2, 3]), ["heartbeat", "~a/b", "~a/c", "~a/1"]);
    // Of the two that were bad one still is, and that is not heard.
    assert_eq!(answer_some(&mut bench, &[1]), ["~a/b", "~a/1"]);
    bench.backend("a/a", "v1");
    bench.settle_for(Duration::from_secs(20));
    assert_eq!(sorted(rejected(&bench)), ["a/1", "a/b", "a/c"]);
    assert_eq!(bench.holds("g", Kind::Backend, "a/a").unwrap(), "name=a/a v1");
    assert!(!bench.gateways["g"].broken(false) && !bench.gateways["g"].broken(true));
    assert!(bench.gateways["g"].removed.is_empty());
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn the_words_about_a_deletion_tell_who_was_rejected_unheard() {
    let mut bench = with_routes(4);
    for name in ["a/c", "a/gone"] {
        bench.backend(name, "v1");
    }
    bench.ballast();
    bench.settle();
    bench.backend("a/b", "v2 poison");
    bench.backend("a/c", "v2");
    bench.delete(Kind::Backend, "a/gone");
    assert_eq!(answer_some(&mut bench, &[0, 3]), ["heartbeat", "~a/b", "~a/c", "-a/gone"]);
    bench.settle_for(Duration::from_secs(20));
    assert_eq!(rejected(&bench), ["a/b"]);
    assert_eq!(bench.holds("g", Kind::Backend, "a/c").unwrap(), "name=a/c v2");
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new(), "it did not go back");
}

#[test]
fn what_a_gateway_may_have_taken_unheard_is_what_it_goes_back_to() {
    // With an earlier rejection of the same object, and without.
    for earlier in ["v2 undecodable", "v2"] {
        let mut bench = with_routes(4);
        bench.ballast();
        bench.settle();
        bench.route("a/1", earlier);
        bench.settle();
        bench.route("a/1", "v3");
        bench.route("a/2", "v3");
        bench.route("a/new", "v3");
        bench.route("a/other", "v3");
        let sent = answer_some(&mut bench, &[0, 2, 4]);
        assert_eq!(sent, ["heartbeat", "~a/1", "~a/2", "+a/new", "+a/other"]);
        bench.route("a/1", "v4 undecodable");
        bench.route("a/new", "v4 undecodable");
        bench.settle();
        assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v3");
        assert_eq!(bench.holds("g", Kind::ApiRoute, "a/new").unwrap(), "name=a/new v3");
        assert!(bench.gateways["g"].removed.is_empty());
        assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
    }
}

#[test]
fn of_two_that_went_unheard_the_first_comes_back_when_the_second_is_bad() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.settle();
    bench.route("a/1", "v2 undecodable");
    bench.settle();
    for spec in ["v3", "v4 poison"] {
        bench.route("a/1", spec);
        bench.route("a/2", spec.trim_end_matches(" poison"));
        let sent = answer_some(&mut bench, &[0, 2]);
        assert_eq!(sent, ["heartbeat", "~a/1", "~a/2"]);
    }
    bench.settle_for(Duration::from_secs(20));
    assert_eq!(rejected(&bench), ["a/1", "a/1"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v3");
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new(), "it went back");
}

#[test]
fn what_went_unheard_does_not_come_back_after_a_rejection() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.settle();
    bench.route("a/1", "v2 undecodable");
    bench.settle();
    bench.delete(Kind::ApiRoute, "a/1");
    bench.delete(Kind::ApiRoute, "a/2");
    assert_eq!(answer_some(&mut bench, &[0, 2]), ["heartbeat", "-a/1", "-a/2"]);
    bench.route("a/1", "v3 undecodable");
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1"), None);
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn what_is_named_and_is_invalid_by_now_is_removed_and_nothing_else() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.backend("a/z", "v1");
    bench.settle();
    bench.route("a/3", "v2 poison");
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    // Nobody heard of it, and it is no more what it was.
    bench.route("a/1", "v2");
    bench.route("a/3", "invalid");
    bench.restart_replica(plain());
    bench.delete(Kind::Backend, "a/z");
    bench.connect("g");
    let sent = answer_some(&mut bench, &[0, 1, 3]);
    assert_eq!(sent, ["reset", "~a/1", "-a/3", "-a/z"]);
    bench.settle_for(Duration::from_secs(60));
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v2");
    let removed: Vec<_> = bench.gateways["g"].removed.iter().map(|(gone, _)| gone.key.to_string()).collect();
    assert_eq!(removed, ["a/3", "a/z"]);
}

#[test]
fn only_what_a_gateway_said_it_took_counts_as_applied() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.settle();
    for (name, spec) in [("a/0", "v2"), ("a/1", "v2"), ("a/2", "v2"), ("a/3", "v2 poison")] {
        bench.route(name, spec);
    }
    bench.notices.clear();
    let sent = answer_some(&mut bench, &[0, 1, 3, 4]);
    assert_eq!(sent, ["heartbeat", "~a/0", "~a/1", "~a/2", "~a/3"]);
    bench.poll();
    let counted = bench.notices.iter().find_map(|notice| match notice {
        Notice::Applied { updates, .. } => Some(*updates),
        _ => None,
    });
    // Neither what only sets the version, nor what was not answered, nor what was rejected.
    assert_eq!(counted, Some(2));
}

#[test]
fn who_is_named_before_its_own_answer_is_lost_costs_the_others_nothing() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    for n in 0..4 {
        bench.backend(&format!("a/{n}"), "v1");
    }
    bench.connected("g");
    bench.backend("a/2", "v2 poison");
    assert_eq!(answer_some(&mut bench, &[]), ["~a/2"]);
    // Who serves it then does not know what was before.
    for n in 0..4 {
        bench.backend(&format!("a/{n}"), if n == 2 { "v3 poison" } else { "v3" });
    }
    bench.route("a/r", "v2");
    bench.restart_replica(plain());
    bench.connect("g");
    let sent = answer_some(&mut bench, &[0, 1, 2, 5]);
    assert_eq!(sent, ["reset", "~a/0", "~a/1", "~a/2", "~a/3", "~a/r"]);
    bench.settle_for(Duration::from_secs(20));
    let gateway = &bench.gateways["g"];
    assert!(gateway.removed.iter().all(|(gone, _)| gone.key == key("a/2")), "{:?}", gateway.removed);
    assert!(!gateway.broken(false));
    assert_eq!(rejected(&bench), ["a/2"]);
    assert_eq!(bench.holds("g", Kind::Backend, "a/3").unwrap(), "name=a/3 v3");
}

#[test]
fn what_was_deleted_unheard_does_not_come_back_by_a_rejection() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.settle();
    bench.route("a/1", "v2 invalid");
    bench.route("a/2", "v2");
    let sent = answer_some(&mut bench, &[0, 1]);
    assert_eq!(sent, ["heartbeat", "~a/2", "-a/1"]);
    assert!(bench.holds("g", Kind::ApiRoute, "a/1").is_none());
    bench.pass(Duration::from_secs(60));
    bench.route("a/1", "v3 undecodable");
    bench.settle_for(Duration::from_secs(20));
    assert!(bench.holds("g", Kind::ApiRoute, "a/1").is_none(), "an older one came back");
}
