//! What is sent, in which order, how much at once, and when.

use std::sync::Arc;
use std::time::Duration;

use flotilla_core::delivery::{Batch, Change, DeliveryConfig, Limits};
use flotilla_core::ids::{GatewayId, Kind, Revision};
use flotilla_core::time::Mono;

use super::bench::{Bench, config, key, words, words_to};
use super::log::Log;

const SECOND: Duration = Duration::from_secs(1);

fn plain() -> DeliveryConfig {
    // Tests of order and content see every change at once.
    DeliveryConfig { duty_cycle: 1.0, ..config() }
}

#[test]
fn nothing_is_sent_before_every_kind_is_listed() {
    let mut log = Log { revision: 100, ..Log::default() };
    log.put(Kind::ApiRoute, &key("a/r"), "v1");
    let mut bench = Bench::unlisted(plain(), log);
    bench.connect("g");
    for kind in [Kind::GrpcRoute, Kind::Backend, Kind::ApiRoute] {
        let at = Revision(bench.log.revision);
        bench.delivery.listed(kind, at, bench.log.list(kind, at));
        assert!(bench.poll().is_empty(), "{kind} is not the last");
    }
    bench.delivery.listed(Kind::GrpcBackend, Revision(101), Vec::new());
    assert_eq!(words_to("g", &bench.settle()), ["reset", "full(a/r|0)"]);
}

#[test]
fn a_new_gateway_gets_one_snapshot_with_backends_first_and_catch_alls_last() {
    let mut bench = Bench::new(plain());
    bench.route("a/first", "v1 catch-all");
    bench.route("z/last", "v1");
    bench.backend("m/b", "v1");
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "full(m/b z/last a/first|0)"]);
    bench.assert_equal("g");
}

#[test]
fn a_new_gateway_gets_an_empty_snapshot_when_there_is_nothing() {
    let mut bench = Bench::new(plain());
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "full(|0)"]);
}

#[test]
fn a_change_is_one_increment_that_carries_the_new_version() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    bench.route("a/r", "v2");
    bench.route("a/s", "v1");
    bench.delete(Kind::ApiRoute, "a/s");
    assert_eq!(words_to("g", &bench.settle()), ["~a/r"], "what came and went is not sent");
    bench.route("a/t", "v1");
    assert_eq!(words_to("g", &bench.settle()), ["+a/t"]);
    let view = bench.delivery.sessions().next().unwrap();
    assert_eq!(view.low, Some(bench.delivery.frontier()));
    bench.assert_equal("g");
}

#[test]
fn a_changed_status_is_no_news() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    let object = bench.log.status(Kind::ApiRoute, &key("a/r"), "{}");
    bench.delivery.changed(object);
    assert!(bench.settle().is_empty());
}

#[test]
fn backends_come_before_routes_and_leave_after_them() {
    let mut bench = Bench::new(plain());
    bench.route("a/old", "v1");
    bench.backend("a/old", "v1");
    bench.ballast();
    bench.connected("g");
    bench.delete(Kind::Backend, "a/old");
    bench.delete(Kind::ApiRoute, "a/old");
    bench.route("a/new", "v1");
    bench.backend("a/new", "v1");
    assert_eq!(
        words_to("g", &bench.settle()),
        ["heartbeat", "+a/new", "+a/new", "-a/old", "-a/old", "heartbeat"]
    );
    bench.assert_equal("g");
}

#[test]
fn the_last_resource_is_deleted_explicitly() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    bench.delete(Kind::ApiRoute, "a/r");
    assert_eq!(words_to("g", &bench.settle()), ["-a/r"]);
    assert!(bench.gateways["g"].table.is_empty());
}

#[test]
fn an_object_that_becomes_invalid_or_is_being_deleted_leaves_and_its_end_is_no_news() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.route("a/s", "v1");
    bench.connected("g");
    bench.route("a/r", "invalid");
    assert_eq!(words_to("g", &bench.settle()), ["-a/r"]);
    bench.route("a/r", "invalid still");
    let object = bench.log.mark_deleting(Kind::ApiRoute, &key("a/s"));
    bench.delivery.changed(object);
    assert_eq!(words_to("g", &bench.settle()), ["-a/s"]);
    bench.delete(Kind::ApiRoute, "a/r");
    bench.delete(Kind::ApiRoute, "a/s");
    bench.route("a/never", "invalid");
    assert!(bench.settle().is_empty());
}

#[test]
fn a_route_is_sent_again_when_its_backend_appears_or_disappears() {
    let mut bench = Bench::new(plain());
    bench.ballast();
    bench.route("a/r", "to=b v1");
    bench.route("b/r", "to=b v1");
    bench.connected("g");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r").unwrap(), "name=a/r to=b v1");
    bench.backend("a/b", "v1");
    assert_eq!(words_to("g", &bench.settle()), ["heartbeat", "+a/b", "~a/r", "heartbeat"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r").unwrap(), "name=a/r to=a/b v1");
    bench.backend("a/b", "v2");
    assert_eq!(words_to("g", &bench.settle()), ["~a/b"]);
    bench.delete(Kind::Backend, "a/b");
    assert_eq!(words_to("g", &bench.settle()), ["heartbeat", "~a/r", "-a/b", "heartbeat"]);
    bench.assert_equal("g");
}

#[test]
fn gateways_at_one_position_share_one_batch() {
    let mut bench = Bench::new(plain());
    for name in ["f", "g", "h"] {
        bench.connect(name);
    }
    bench.settle();
    bench.route("a/r", "v1");
    let sent = bench.poll();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|(_, batch, _)| Arc::ptr_eq(batch, &sent[0].1)));
    for (name, batch, first) in sent {
        bench.answer(&name, &batch, first);
    }
    bench.settle();
    assert_eq!(bench.delivery.applied_table().rows.len(), 1);
    assert_eq!(bench.delivery.footprint().batch_bytes, 0, "the batch is dropped when all have it");
}

#[test]
fn a_gateway_that_comes_back_shares_with_those_that_stayed() {
    let mut bench = Bench::new(plain());
    bench.connected("g");
    bench.route("a/r", "v1");
    bench.settle();
    bench.connected("h");
    bench.connect("g");
    bench.settle();
    bench.route("a/r", "v2");
    let sent = bench.poll();
    assert!(Arc::ptr_eq(&sent[0].1, &sent[1].1));
}

#[test]
fn bursts_coalesce_while_a_batch_is_in_flight() {
    let mut bench = Bench::new(plain());
    bench.connected("g");
    bench.route("a/r", "v1");
    let first = bench.poll();
    for n in 2..100 {
        bench.route("a/r", &format!("v{n}"));
        assert!(bench.poll().is_empty(), "one batch in flight");
    }
    bench.answer("g", &first[0].1, first[0].2);
    let sent = bench.settle();
    assert_eq!(words_to("g", &sent), ["~a/r"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r").unwrap(), "name=a/r v99");
}

#[test]
fn a_quiet_tenant_is_in_the_next_batch() {
    let config = DeliveryConfig { batch_updates: 10, ..plain() };
    let mut bench = Bench::new(config);
    bench.connected("g");
    // Too many for one message, so that increments are the only way.
    for n in 0..200 {
        bench.backend(&format!("loud/{n:03}"), &"x".repeat(30_000));
    }
    let first = bench.poll().remove(0);
    assert_eq!(first.1.updates.len(), 1 + 10);
    bench.route("quiet/r", "v1");
    bench.answer("g", &first.1, first.2);
    let second = bench.poll().remove(0);
    assert!(words(&second.1).contains(&"+quiet/r".into()), "{:?}", words(&second.1));
    bench.answer("g", &second.1, second.2);
    let rest = bench.settle_for(SECOND);
    assert_eq!(words_to("g", &rest).iter().filter(|word| word.starts_with('+')).count(), 181);
    bench.assert_equal("g");
}

#[test]
fn many_namespaces_take_turns() {
    let config = DeliveryConfig { batch_updates: 4, ..plain() };
    let mut bench = Bench::new(config);
    bench.connected("g");
    for namespace in 0..8 {
        for n in 0..100 {
            bench.backend(&format!("n{namespace}/{n}"), &"x".repeat(10_000));
        }
    }
    let mut namespaces = Vec::new();
    for _ in 0..4 {
        let (name, batch, first) = bench.poll().remove(0);
        bench.answer(&name, &batch, first);
        namespaces.push(words(&batch).iter().skip(1).map(|word| word[1..3].to_owned()).collect::<Vec<_>>());
    }
    let (odd, even) = (vec!["n0", "n1", "n2", "n3"], vec!["n4", "n5", "n6", "n7"]);
    assert_eq!(namespaces, [odd.clone(), even.clone(), odd, even]);
}

#[test]
fn who_has_little_to_bring_comes_first_and_every_backend_before_the_routes() {
    let mut bench = Bench::new(plain());
    // Too many for one message, so that increments are the only way.
    for n in 0..200 {
        bench.backend(&format!("a/{n:03}"), &"x".repeat(30_000));
    }
    bench.connected("g");
    for n in 0..3 {
        bench.backend(&format!("loud/b{n}"), "v1");
        bench.route(&format!("loud/r{n}"), "v1");
    }
    bench.backend("quiet/b", "v1");
    bench.route("quiet/r", "v1");
    let sent = bench.poll();
    let order: Vec<_> = words(&sent[0].1).into_iter().filter(|word| word.starts_with('+')).collect();
    let expected =
        ["+quiet/b", "+loud/b0", "+loud/b1", "+loud/b2", "+quiet/r", "+loud/r0", "+loud/r1", "+loud/r2"];
    assert_eq!(order, expected);
}

/// What a message is at least: the bytes of its specs and names.
fn content(change: &Change) -> u64 {
    match change {
        Change::Upsert { resource, .. } => resource.spec_json.len() as u64,
        Change::FullSync(snapshot) => snapshot.resources.iter().map(|r| r.spec_json.len() as u64 + 60).sum(),
        _ => 0,
    }
}

#[test]
fn no_message_is_above_the_limit_and_the_first_one_is_nearly_full() {
    let limit = 200_000;
    let config = DeliveryConfig { message_limit: limit, batch_bytes: 100_000, ..plain() };
    let mut bench = Bench::new(config);
    for n in 0..500 {
        bench.route(&format!("n{}/{n:03}", n % 7), &"x".repeat(1_000));
    }
    bench.connect("g");
    let sent = bench.settle_for(SECOND);
    let sizes: Vec<_> = sent.iter().flat_map(|(_, b)| b.updates.iter().map(|u| content(&u.change))).collect();
    assert!(sizes.iter().all(|size| *size <= limit), "{sizes:?}");
    assert!(sizes[1] > limit * 7 / 10, "{sizes:?}");
    assert_eq!(bench.gateways["g"].fulls, 1);
    bench.assert_equal("g");
    assert_eq!(bench.delivery.footprint().ahead, 0);
}

#[test]
fn an_object_that_fits_into_no_message_is_invalid_and_says_so() {
    let config = DeliveryConfig { message_limit: 10_000, ..plain() };
    let mut bench = Bench::new(config);
    bench.route("a/small", "v1");
    bench.route("a/large", &"x".repeat(10_000));
    bench.connected("g");
    let view = bench.delivery.content_of(Kind::ApiRoute, &key("a/large")).unwrap();
    let problem = view.outcome.as_ref().unwrap_err().to_string();
    assert!(problem.contains("gateways accept 10000") && problem.contains("smaller"), "{problem}");
    assert_eq!(bench.gateways["g"].table.len(), 1);
}

#[test]
fn nobody_wakes_up_at_the_end_of_a_pause_for_a_gateway_that_lacks_nothing() {
    let mut bench = Bench::new(config());
    bench.apply = Duration::from_millis(10);
    bench.connected("g");
    bench.route("a/r", "v1");
    assert_eq!(words_to("g", &bench.settle()), ["+a/r"]);
    let silence = config().heartbeat_interval * 3;
    assert_eq!(bench.delivery.next_deadline(), Some(bench.now + silence));
    bench.route("a/r", "v2");
    assert!(bench.settle().is_empty(), "it pauses");
    assert_eq!(bench.delivery.next_deadline(), Some(bench.now + Duration::from_millis(190)));
}

#[test]
fn a_gateway_is_left_alone_in_proportion_to_what_applying_took() {
    let mut bench = Bench::new(config());
    bench.apply = Duration::from_millis(10);
    bench.connected("g");
    bench.route("a/r", "v1");
    assert_eq!(words_to("g", &bench.settle()), ["+a/r"], "no pause after the first synchronisation");
    bench.route("a/r", "v2");
    // 5 %: 10 ms of 200 ms.
    bench.pass(Duration::from_millis(189));
    assert!(bench.settle().is_empty());
    assert_eq!(bench.delivery.next_deadline(), Some(bench.now + Duration::from_millis(1)));
    bench.pass(Duration::from_millis(1));
    assert_eq!(words_to("g", &bench.settle()), ["~a/r"]);
    bench.apply = Duration::from_secs(10);
    bench.pass(SECOND);
    bench.route("a/r", "v3");
    bench.settle();
    bench.route("a/r", "v4");
    bench.pass(config().max_pause - Duration::from_millis(1));
    assert!(bench.settle().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(words_to("g", &bench.settle()), ["~a/r"], "the pause is capped");
}

struct OneAtATime {
    free_at: Mono,
    asked: Vec<u64>,
}

impl Limits for OneAtATime {
    fn admit(&mut self, now: Mono, _gateway: &GatewayId, bytes: u64) -> Result<(), Mono> {
        self.asked.push(bytes);
        if now < self.free_at {
            return Err(self.free_at);
        }
        self.free_at = now + SECOND;
        Ok(())
    }
}

#[test]
fn limits_postpone_and_are_asked_again_when_they_said() {
    let mut bench = Bench::new(plain());
    bench.connect("g");
    bench.connect("h");
    let mut limits = OneAtATime { free_at: Mono::default(), asked: Vec::new() };
    assert_eq!(bench.poll_limited(&mut limits).len(), 1);
    let at = bench.now + SECOND;
    assert_eq!(bench.delivery.next_deadline(), Some(at));
    assert!(bench.poll_limited(&mut limits).is_empty());
    assert_eq!(limits.asked.len(), 2, "nobody asks before the time");
    bench.now = at;
    assert_eq!(bench.poll_limited(&mut limits).len(), 1);
}

#[test]
fn only_so_many_full_synchronisations_are_in_flight() {
    let config = DeliveryConfig { concurrent_full_syncs: 2, ..plain() };
    let mut bench = Bench::new(config);
    for name in ["d", "e", "f", "g", "h"] {
        bench.connect(name);
    }
    let sent = bench.poll();
    assert_eq!(sent.len(), 2);
    let (name, batch, first) = &sent[0];
    bench.answer(name, batch, *first);
    assert!(bench.delivery.next_deadline().unwrap() <= bench.now);
    assert_eq!(bench.poll().len(), 1);
    // One that leaves makes room too.
    let session = bench.session[&sent[1].0].clone();
    bench.delivery.disconnected(bench.now, &session);
    assert_eq!(bench.poll().len(), 1);
}

fn fleet_of_routes(bench: &mut Bench, count: usize) {
    for n in 0..count {
        bench.route(&format!("n/{n:04}"), "v1");
    }
}

#[test]
fn many_changes_are_one_snapshot_and_few_are_increments() {
    let mut bench = Bench::new(plain());
    fleet_of_routes(&mut bench, 1_000);
    bench.connected("g");
    bench.pass(Duration::from_secs(60));
    fleet_of_routes(&mut bench, 2);
    let few = bench.settle();
    assert_eq!(words_to("g", &few), ["heartbeat", "~n/0000", "~n/0001", "heartbeat"]);
    bench.pass(SECOND);
    bench.apply = Duration::from_millis(20);
    fleet_of_routes(&mut bench, 100);
    let many = bench.settle();
    assert!(many.iter().any(|(_, batch)| batch.full), "{:?}", words_to("g", &many));
    assert_eq!(bench.gateways["g"].increments, 2);
    bench.assert_equal("g");
}

#[test]
fn a_snapshot_within_the_guard_is_padded_with_what_it_removes() {
    let mut bench = Bench::new(plain());
    bench.apply = Duration::from_millis(20);
    fleet_of_routes(&mut bench, 1_000);
    bench.connected("g");
    for n in 0..100 {
        bench.delete(Kind::ApiRoute, &format!("n/{n:04}"));
    }
    let sent = bench.settle();
    let Change::FullSync(snapshot) = &sent[0].1.updates[1].change else { panic!("{:?}", words(&sent[0].1)) };
    assert_eq!((snapshot.resources.len(), snapshot.padding.len()), (900, 100));
    bench.assert_equal("g");
    bench.pass(Duration::from_secs(40));
    for n in 100..200 {
        bench.delete(Kind::ApiRoute, &format!("n/{n:04}"));
    }
    let sent = bench.settle();
    let Change::FullSync(snapshot) = &sent[0].1.updates[1].change else { panic!("{:?}", words(&sent[0].1)) };
    assert_eq!((snapshot.resources.len(), snapshot.padding.len()), (800, 0));
    bench.assert_equal("g");
}

#[test]
fn a_quiet_gateway_is_told_its_version_and_its_answer_is_taken_silently() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    let before = bench.gateways["g"].version.clone();
    bench.log.revision += 50;
    bench.bookmark();
    assert!(bench.settle().is_empty(), "not at once");
    bench.pass(config().version_refresh);
    let sent = bench.poll();
    assert_eq!(words(&sent[0].1), ["heartbeat"]);
    assert_eq!(bench.delivery.sessions().next().unwrap().in_flight, 0, "it is not waited for");
    bench.answer("g", &sent[0].1, sent[0].2);
    assert_ne!(bench.gateways["g"].version, before);
    assert!(
        bench.notices.iter().all(|n| !matches!(n, flotilla_core::delivery::Notice::UnexpectedAck { .. }))
    );
    bench.pass(Duration::from_secs(30));
    assert!(bench.settle().is_empty(), "once is enough");
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset"]);
}

fn distinct_versions(batch: &Batch) -> bool {
    let mut versions: Vec<_> = batch.updates.iter().map(|update| update.version.clone()).collect();
    versions.sort();
    versions.dedup();
    versions.len() == batch.updates.len()
}

#[test]
fn a_batch_of_several_claims_nothing_before_all_are_acknowledged() {
    let mut bench = Bench::new(plain());
    bench.connected("g");
    bench.route("a/r", "v1");
    bench.route("a/s", "v1");
    let (_, batch, first) = bench.poll().remove(0);
    assert!(distinct_versions(&batch));
    assert!(batch.updates.iter().all(|update| update.version.contains('~')));
    assert_eq!(batch.updates.iter().map(|update| update.last).collect::<Vec<_>>(), [false, false, true]);
    assert!(matches!(batch.updates[0].change, Change::Heartbeat), "it names the difference before its parts");
    bench.answer("g", &batch, first);
    let sent = bench.settle();
    assert_eq!(words_to("g", &sent), ["heartbeat"]);
    assert!(!bench.gateways["g"].version.contains('~'));
}

#[test]
fn sequences_count_up_by_one() {
    let mut bench = Bench::new(plain());
    bench.connect("g");
    let mut next = 1;
    for n in 0..20 {
        for (name, batch, first) in bench.poll() {
            assert_eq!(first, next);
            next += batch.updates.len() as i64;
            bench.answer(&name, &batch, first);
        }
        bench.route(&format!("a/{}", n % 3), &format!("v{n}"));
    }
    assert!(next > 15);
}

#[test]
fn a_thousand_gateways_cost_one_batch_per_change_and_nothing_when_idle() {
    let mut bench = Bench::new(DeliveryConfig { concurrent_full_syncs: 1_000, ..plain() });
    for n in 0..1_000 {
        bench.connect(&format!("g{n}"));
    }
    bench.settle();
    bench.route("a/r", "v1");
    let sent = bench.poll();
    assert_eq!(sent.len(), 1_000);
    assert!(sent.iter().all(|(_, batch, _)| batch.id == sent[0].1.id));
    assert!(bench.poll().is_empty());
    assert!(bench.delivery.next_deadline().unwrap() > bench.now);
    for (name, batch, first) in sent {
        bench.answer(&name, &batch, first);
    }
    bench.settle();
    let footprint = bench.delivery.footprint();
    assert_eq!((footprint.plans <= 1, footprint.batch_bytes, footprint.ahead), (true, 0, 0), "{footprint:?}");
}
