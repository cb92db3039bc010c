//! Namespaces that change so often that others would feel it.

use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{Batch, DeliveryConfig};
use flotilla_core::ids::Kind;

use super::bench::{Bench, config, key, words, words_to};

const PATIENCE: Duration = Duration::from_millis(50);

/// A gateway in step with a namespace that has just become loud, and quiet ones.
fn with_a_loud_one() -> Bench {
    let config = DeliveryConfig { duty_cycle: 1.0, loud_changes: 10, loud_patience: PATIENCE, ..config() };
    let mut bench = Bench::new(config);
    bench.ballast();
    bench.route("quiet/r", "v1");
    bench.connected("g");
    // What came before is of another second.
    bench.pass(Duration::from_secs(2));
    bench.settle();
    for n in 0..9 {
        bench.route("loud/r", &format!("v{n}"));
    }
    assert_eq!(words_to("g", &bench.settle()), ["+loud/r"], "nine are not loud");
    bench.route("loud/r", "v10");
    assert!(bench.settle().is_empty(), "ten are");
    assert_eq!(words_to("g", &bench.settle_for(PATIENCE)), ["~loud/r"]);
    bench
}

#[test]
fn news_of_a_loud_namespace_waits_for_more_of_it_and_no_longer_than_that() {
    let mut bench = with_a_loud_one();
    bench.route("loud/r", "v11");
    assert!(bench.settle().is_empty());
    let until = bench.now + PATIENCE;
    assert_eq!(bench.delivery.next_deadline(), Some(until));
    bench.pass(PATIENCE / 2);
    bench.route("loud/s", "v1");
    bench.delete(Kind::ApiRoute, "loud/r");
    assert!(bench.settle().is_empty(), "what comes later waits no longer");
    assert_eq!(bench.delivery.next_deadline(), Some(until));
    assert_eq!(
        words_to("g", &bench.settle_for(PATIENCE / 2)),
        ["heartbeat", "+loud/s", "-loud/r", "heartbeat"]
    );
    bench.assert_equal("g");
}

#[test]
fn a_status_of_anybody_else_is_no_news() {
    let mut bench = with_a_loud_one();
    bench.route("loud/r", "v11");
    assert!(bench.settle().is_empty());
    let object = bench.log.status(Kind::ApiRoute, &key("quiet/r"), "{}");
    bench.delivery.changed(object);
    assert!(bench.settle().is_empty());
    assert_eq!(words_to("g", &bench.settle_for(PATIENCE)), ["~loud/r"]);
}

#[test]
fn a_change_of_anybody_else_goes_at_once_and_takes_along_what_waits() {
    let mut bench = with_a_loud_one();
    bench.route("loud/r", "v11");
    assert!(bench.settle().is_empty());
    bench.route("quiet/r", "v2");
    assert_eq!(words_to("g", &bench.settle()), ["heartbeat", "~loud/r", "~quiet/r", "heartbeat"]);
    bench.assert_equal("g");
}

#[test]
fn who_missed_a_change_of_anybody_else_while_a_batch_was_under_way_does_not_wait() {
    let mut bench = with_a_loud_one();
    bench.route("quiet/r", "v2");
    let (name, batch, first) = bench.poll().remove(0);
    bench.route("quiet/r", "v3");
    assert!(bench.poll().is_empty(), "a batch is under way");
    bench.route("loud/r", "v11");
    assert!(bench.poll().is_empty());
    bench.answer(&name, &batch, first);
    let sent = bench.poll();
    let [(_, batch, first)] = sent.as_slice() else { panic!("{} batches", sent.len()) };
    assert_eq!(words(batch)[..3], ["heartbeat", "~loud/r", "~quiet/r"]);
    bench.route("loud/r", "v12");
    bench.answer("g", batch, *first);
    assert!(bench.settle().is_empty(), "now it has what others changed");
    assert_eq!(words_to("g", &bench.settle_for(PATIENCE)), ["~loud/r"]);
    bench.assert_equal("g");
}

#[test]
fn who_comes_does_not_wait() {
    let mut bench = with_a_loud_one();
    bench.route("loud/r", "v11");
    assert!(bench.settle().is_empty());
    bench.connect("new");
    assert_eq!(bench.poll().len(), 1);
    bench.settle_for(PATIENCE);
    bench.assert_equal("g");
}

#[test]
fn who_is_loud_no_more_does_not_wait() {
    let mut bench = with_a_loud_one();
    bench.pass(Duration::from_secs(1));
    bench.route("loud/r", "v11");
    assert!(bench.settle().is_empty(), "a second ago it was");
    assert_eq!(words_to("g", &bench.settle_for(PATIENCE)), ["~loud/r"]);
    bench.pass(Duration::from_secs(1));
    bench.route("loud/r", "v12");
    assert_eq!(words_to("g", &bench.settle()), ["~loud/r"], "in the last second it was not");
}

#[test]
fn who_changes_a_lot_but_not_in_a_second_is_not_loud() {
    let mut bench = with_a_loud_one();
    // Nobody looks meanwhile.
    bench.pass(Duration::from_secs(60));
    bench.route("loud/r", "v11");
    assert_eq!(words_to("g", &bench.settle()), ["~loud/r"]);
    for n in 0..3 {
        bench.pass(Duration::from_secs(60));
        for m in 0..9 {
            bench.route("loud/r", &format!("v{n}{m}"));
        }
        assert_eq!(words_to("g", &bench.settle()), ["~loud/r"]);
    }
}

#[test]
fn what_a_list_shows_of_others_does_not_wait() {
    let mut bench = with_a_loud_one();
    bench.route("loud/r", "v11");
    let sent = bench.settle_for(PATIENCE - Duration::from_millis(1));
    assert!(sent.is_empty());
    bench.pass(Duration::from_millis(1));
    let (name, batch, first) = bench.poll().remove(0);
    // While that is under way, a list shows what no event told.
    bench.log.put(Kind::ApiRoute, &key("quiet/r"), "v2");
    bench.list_all();
    assert!(bench.poll().is_empty());
    bench.route("loud/r", "v12");
    assert!(bench.poll().is_empty());
    bench.answer(&name, &batch, first);
    let sent = bench.poll();
    assert!(words_to("g", &without_numbers(sent)).contains(&"~quiet/r".to_owned()));
}

fn without_numbers(sent: Vec<(String, Arc<Batch>, i64)>) -> Vec<(String, Arc<Batch>)> {
    sent.into_iter().map(|(name, batch, _)| (name, batch)).collect()
}

/// Loud news makes nobody lose a place among those that wait for a full synchronisation.
#[test]
fn who_waits_for_a_full_synchronisation_keeps_its_place() {
    let config = DeliveryConfig {
        duty_cycle: 1.0,
        concurrent_full_syncs: 1,
        loud_changes: 10,
        loud_patience: PATIENCE,
        ..config()
    };
    let mut bench = Bench::new(config);
    for n in 0..200 {
        bench.route(&format!("loud/{n:03}"), "v1");
    }
    let names: Vec<String> = (0..5).map(|n| format!("g{n}")).collect();
    names.iter().for_each(|name| bench.connected(name));
    bench.pass(Duration::from_secs(2));
    bench.settle();
    let churn = |bench: &mut Bench, spec: &str| {
        for n in 0..100 {
            bench.route(&format!("loud/{n:03}"), spec);
        }
    };
    churn(&mut bench, "v2");
    assert!(bench.poll().is_empty(), "it is loud");
    bench.pass(PATIENCE);
    let mut under_way = bench.poll();
    let mut served = Vec::new();
    while let Some((name, batch, first)) = under_way.pop() {
        assert!(under_way.is_empty() && batch.full, "one at a time");
        served.push(name.clone());
        churn(&mut bench, &format!("v3 {name}"));
        bench.answer(&name, &batch, first);
        under_way = bench.poll();
        if served.len() == names.len() {
            break;
        }
    }
    assert_eq!(served, names, "at once, and in their order");
}

#[test]
fn without_a_limit_nobody_is_loud() {
    let mut bench = Bench::new(DeliveryConfig { duty_cycle: 1.0, loud_changes: 0, ..config() });
    bench.ballast();
    bench.connected("g");
    for n in 0..1_000 {
        bench.route("a/r", &format!("v{n}"));
        assert_eq!(bench.settle().len(), 1, "{n}");
    }
}
