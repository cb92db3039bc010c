//! A whole fleet returns at once: full synchronisations are few at a time,
//! waiting for one costs next to nothing, and nobody who is in step waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{Batch, DeliveryConfig};
use flotilla_core::ids::Kind;

use super::bench::{Bench, config, gateway_id, key, words};

const AT_ONCE: usize = 4;

/// Gateways in step, `returning` others that have just connected, and the
/// batches under way to them.
fn storm(returning: usize) -> (Bench, Vec<(String, Arc<Batch>, i64)>) {
    let config = DeliveryConfig { concurrent_full_syncs: AT_ONCE, duty_cycle: 1.0, ..config() };
    let mut bench = Bench::new(config);
    for n in 0..50 {
        bench.route(&format!("a/{n:02}"), &"x".repeat(1_000));
    }
    for n in 0..10 {
        bench.connected(&format!("calm{n}"));
    }
    for n in 0..returning {
        bench.connect(&format!("back{n:04}"));
    }
    let under_way = bench.poll();
    assert_eq!(under_way.len(), AT_ONCE);
    assert!(under_way.iter().all(|(_, batch, _)| batch.full));
    (bench, under_way)
}

#[test]
fn a_change_reaches_those_in_step_while_a_thousand_wait() {
    let (mut bench, _) = storm(1_000);
    bench.route("a/00", "changed");
    let sent = bench.poll();
    assert_eq!(sent.len(), 10, "all that are in step, at once, and nobody else");
    assert!(sent.iter().all(|(name, batch, _)| name.starts_with("calm") && words(batch) == ["~a/00"]));
}

#[test]
fn those_that_wait_are_served_in_the_order_of_their_coming() {
    let (mut bench, mut under_way) = storm(1_000);
    let mut served = Vec::new();
    while !under_way.is_empty() {
        for (name, batch, first) in std::mem::take(&mut under_way) {
            bench.answer(&name, &batch, first);
            if batch.full {
                served.push(name);
                // Changes go on meanwhile, and cost nobody his place.
                if served.len().is_multiple_of(100) {
                    bench.route("a/01", &format!("v{}", served.len()));
                }
            }
            under_way.extend(bench.poll());
        }
    }
    let expected: Vec<_> = (0..1_000).map(|n| format!("back{n:04}")).collect();
    assert_eq!(served, expected);
    bench.settle();
    bench.assert_equal("back0000");
    bench.assert_equal("back0999");
}

#[test]
fn what_is_kept_for_those_that_wait_does_not_grow_with_their_number() {
    let kept = |returning| {
        let (bench, _) = storm(returning);
        let footprint = bench.delivery.footprint();
        (footprint.plans, footprint.batch_bytes, footprint.ahead, footprint.previous)
    };
    assert_eq!(kept(10), kept(1_000));
}

/// Gateways that hold two hundred routes, half of which have just changed, and the
/// batches under way to them.
fn burst(gateways: usize) -> (Bench, Vec<(String, Arc<Batch>, i64)>) {
    let mut bench =
        Bench::new(DeliveryConfig { concurrent_full_syncs: AT_ONCE, duty_cycle: 1.0, ..config() });
    for n in 0..200 {
        bench.route(&format!("a/{n:03}"), "old");
    }
    for n in 0..gateways {
        bench.connected(&format!("g{n:02}"));
    }
    bench.pass(Duration::from_secs(60));
    bench.settle();
    for n in 0..100 {
        bench.route(&format!("a/{n:03}"), "new");
    }
    let under_way = bench.poll();
    (bench, under_way)
}

#[test]
fn a_burst_is_one_snapshot_for_each_with_all_that_came_while_it_waited() {
    let (mut bench, mut under_way) = burst(12);
    // What each got first.
    let (mut first_of, mut served) = (BTreeMap::new(), Vec::new());
    while !under_way.is_empty() {
        assert!(under_way.iter().filter(|(_, batch, _)| batch.full).count() <= AT_ONCE);
        let (name, batch, first) = under_way.remove(0);
        bench.answer(&name, &batch, first);
        let known = first_of.len();
        first_of.entry(name.clone()).or_insert(batch.full);
        if first_of.len() > known {
            served.push(name);
            // Meanwhile the tenants go on.
            bench.route(&format!("a/{:03}", 150 + first_of.len()), "new");
        }
        under_way.extend(bench.poll());
    }
    assert!(first_of.len() == 12 && first_of.values().all(|full| *full), "{first_of:?}");
    assert!(served.is_sorted(), "in the order of their coming: {served:?}");
    bench.assert_equal("g00");
    bench.assert_equal("g11");
}

#[test]
fn gateways_that_are_stuck_hold_up_a_burst_for_a_moment_only() {
    let (mut bench, under_way) = burst(12);
    assert_eq!(under_way.len(), AT_ONCE);
    let stuck: Vec<_> = under_way.into_iter().map(|(name, ..)| name).collect();
    bench.pass(Duration::from_millis(500));
    let sent = bench.poll();
    assert_eq!(sent.len(), 12 - AT_ONCE);
    assert!(sent.iter().all(|(name, batch, _)| !batch.full && !stuck.contains(name)));
}

#[test]
fn nobody_waits_for_a_turn_much_longer_than_it_is_worth() {
    let (mut bench, mut under_way) = burst(12);
    let mut waiting = 12 - under_way.len();
    // Turns end all the time, but slowly.
    let mut turns = 0;
    while waiting > 0 {
        assert!(turns < 6, "{waiting} still wait");
        bench.pass(Duration::from_millis(400));
        let (name, batch, first) = under_way.remove(0);
        bench.answer(&name, &batch, first);
        turns += 1;
        waiting -= bench.poll().len();
    }
}

#[test]
fn who_has_nothing_comes_before_those_that_increments_would_help() {
    let (mut bench, under_way) = burst(12);
    bench.connect("empty");
    assert!(bench.poll().is_empty());
    let (name, batch, first) = &under_way[0];
    bench.answer(name, batch, *first);
    let next: Vec<_> = bench.poll().into_iter().filter(|(_, batch, _)| batch.full).collect();
    assert_eq!(next.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["empty"]);
}

/// Statuses are written while a fleet is brought up to date: they are no news, and gateways that are
/// looked at before and after one get the very same batches.
#[test]
fn a_status_in_between_does_not_end_what_gateways_share() {
    let config = DeliveryConfig { message_limit: 20_000, batch_updates: 4, duty_cycle: 1.0, ..config() };
    let mut bench = Bench::new(config);
    for n in 0..60 {
        bench.route(&format!("a/{n:02}"), &"x".repeat(1_000));
    }
    bench.connect("first");
    bench.connect("second");
    let mut statuses = 0;
    let mut told = |bench: &mut Bench| {
        statuses += 1;
        let object = bench.log.status(Kind::ApiRoute, &key("a/00"), &format!("{{\"told\":{statuses}}}"));
        bench.delivery.changed(object);
        bench.bookmark();
    };
    let mut under_way = bench.poll();
    let mut rounds = 0;
    while let [(one, batch, at), (other, same, there)] = under_way.as_slice() {
        assert!(Arc::ptr_eq(batch, same), "round {rounds}: {:?} {:?}", words(batch), words(same));
        rounds += 1;
        told(&mut bench);
        bench.answer(one, batch, *at);
        let mut next = bench.poll();
        told(&mut bench);
        bench.answer(other, same, *there);
        next.extend(bench.poll());
        under_way = next;
    }
    assert!(under_way.is_empty() && rounds > 10, "{rounds} rounds");
    bench.settle();
    bench.assert_equal("first");
    bench.assert_equal("second");
    let position = |name: &str| bench.delivery.session_of(&gateway_id(name)).unwrap().low;
    assert_eq!(position("first"), Some(bench.delivery.frontier()), "over the statuses, too");
    assert_eq!(position("second"), position("first"));
}
