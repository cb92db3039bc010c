//! Streams, acknowledgements and heartbeats.

use std::time::Duration;

use flotilla_core::delivery::{AckVerdict, DeliveryConfig, EndReason, Notice};
use flotilla_core::ids::{Kind, SessionId};

use super::bench::{Bench, config, gateway_id, words, words_to};

const SECOND: Duration = Duration::from_secs(1);

fn plain() -> DeliveryConfig {
    DeliveryConfig { duty_cycle: 1.0, ..config() }
}

fn with_gateway() -> Bench {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    bench
}

fn unexpected(bench: &Bench) -> usize {
    bench.notices.iter().filter(|notice| matches!(notice, Notice::UnexpectedAck { .. })).count()
}

#[test]
fn an_acknowledgement_is_taken_once() {
    let mut bench = with_gateway();
    bench.route("a/r", "v2");
    let (_, batch, first) = bench.poll().remove(0);
    bench.answer("g", &batch, first);
    let version = batch.updates[0].version.clone();
    assert_eq!(bench.ack("g", &version, Ok(())), AckVerdict::NeverSent, "a duplicate");
    assert_eq!(bench.ack("g", "f1.never.sent", Ok(())), AckVerdict::NeverSent);
    assert_eq!(bench.ack("g", "", Err("no")), AckVerdict::NeverSent);
    bench.settle();
    assert_eq!(unexpected(&bench), 3);
    bench.session.insert("g".into(), "elsewhere/7".into());
    assert_eq!(bench.ack("g", &version, Ok(())), AckVerdict::UnknownSession);
    bench.assert_equal("g");
}

#[test]
fn a_gateways_session_is_found_by_its_name() {
    let mut bench = with_gateway();
    bench.connected("other");
    let found = bench.delivery.session_of(&gateway_id("other")).unwrap();
    assert_eq!((found.gateway, found.session), (gateway_id("other"), bench.session["other"].clone()));
    assert!(bench.delivery.session_of(&gateway_id("nobody")).is_none());
}

#[test]
fn nobody_acknowledges_for_another_gateway() {
    let mut bench = with_gateway();
    bench.route("a/r", "v2");
    let (_, batch, _) = bench.poll().remove(0);
    let session = bench.session["g"].clone();
    bench.session.insert("evil".into(), session);
    assert_eq!(bench.ack("evil", &batch.updates[0].version, Ok(())), AckVerdict::NeverSent);
    assert_eq!(bench.delivery.sessions().next().unwrap().in_flight, 1);
}

#[test]
fn a_later_acknowledgement_ends_a_batch_and_what_was_not_heard_of_is_sent_again() {
    let mut bench = with_gateway();
    for n in 0..3 {
        bench.route(&format!("a/{n}"), "v1");
    }
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    assert_eq!(bench.ack("g", &batch.updates[3].version, Ok(())), AckVerdict::Taken);
    // It may have been unable to decode those, and say so by their answers only.
    assert_eq!(words_to("g", &bench.settle()), ["heartbeat", "+a/0", "+a/1", "heartbeat"]);
    assert_eq!(bench.ack("g", &batch.updates[1].version, Ok(())), AckVerdict::NeverSent, "it comes late");
    bench.assert_equal("g");
}

#[test]
fn a_heartbeat_that_names_the_version_is_an_acknowledgement() {
    let mut bench = with_gateway();
    bench.route("a/r", "v2");
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    let (session, version) = (bench.session["g"].clone(), bench.gateways["g"].version.clone());
    let verdict = bench.delivery.heartbeat(bench.now, &session, &gateway_id("g"), &version);
    assert_eq!(verdict, AckVerdict::Taken);
    assert_eq!(bench.delivery.sessions().next().unwrap().in_flight, 0);
    assert!(bench.settle().is_empty());
}

#[test]
fn silence_ends_the_stream_but_slow_progress_does_not() {
    let mut bench = with_gateway();
    for n in 0..3 {
        bench.route(&format!("a/{n}"), "v1");
    }
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    for update in &batch.updates[..2] {
        bench.pass(plain().ack_timeout - SECOND);
        bench.poll();
        assert_eq!(bench.ack("g", &update.version, Ok(())), AckVerdict::Taken);
    }
    bench.pass(plain().ack_timeout);
    bench.poll();
    assert_eq!(bench.ended, [(bench.session["g"].clone(), EndReason::AckTimeout)]);
    assert_eq!(bench.delivery.session_count(), 0);
    bench.connect("g");
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn a_newer_stream_of_the_same_gateway_ends_the_older() {
    let mut bench = with_gateway();
    let old = bench.session["g"].clone();
    bench.connect("g");
    bench.settle();
    assert_eq!(bench.ended, [(old.clone(), EndReason::Superseded)]);
    // The end of the old one says nothing about the new one.
    bench.delivery.disconnected(bench.now, &old);
    assert_eq!(bench.delivery.session_count(), 1);
    bench.route("a/r", "v2");
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn three_missed_heartbeats_end_the_stream() {
    let mut bench = with_gateway();
    let session = bench.session["g"].clone();
    for _ in 0..5 {
        bench.pass(plain().heartbeat_interval * 2);
        bench.settle();
        bench.delivery.heartbeat(bench.now, &session, &gateway_id("g"), "");
    }
    assert!(bench.ended.is_empty());
    bench.settle_for(plain().heartbeat_interval * 3 - SECOND);
    assert!(bench.ended.is_empty());
    bench.settle_for(SECOND);
    assert_eq!(bench.ended, [(session, EndReason::Stale)]);
}

fn zombies(bench: &mut Bench) -> usize {
    bench.settle();
    bench.notices.iter().filter(|notice| matches!(notice, Notice::Zombie { .. })).count()
}

#[test]
fn a_heartbeat_without_stream_is_a_zombie_once_it_had_time_to_come_back() {
    let mut bench = with_gateway();
    let session = bench.session["g"].clone();
    let beat = |bench: &mut Bench, seconds: u64| {
        bench.pass(SECOND * seconds as u32);
        bench.delivery.heartbeat(bench.now, &session, &gateway_id("g"), "")
    };
    bench.delivery.disconnected(bench.now, &session);
    assert_eq!(beat(&mut bench, 20), AckVerdict::Taken);
    assert_eq!(zombies(&mut bench), 0, "it may still be backing off");
    beat(&mut bench, 20);
    beat(&mut bench, 20);
    assert_eq!(zombies(&mut bench), 1, "said once");
    beat(&mut bench, 90);
    assert_eq!(zombies(&mut bench), 2, "and again after a while");
    bench.connect("g");
    beat(&mut bench, 90);
    assert_eq!(zombies(&mut bench), 2, "its stream is back");
}

#[test]
fn heartbeats_of_unknown_sessions_are_passed_on_and_homeless_ones_watched() {
    let mut bench = with_gateway();
    let other: SessionId = "gone/1".into();
    let verdict = bench.delivery.heartbeat(bench.now, &other, &gateway_id("h"), "");
    assert_eq!(verdict, AckVerdict::UnknownSession);
    for _ in 0..3 {
        bench.delivery.homeless_heartbeat(bench.now, &gateway_id("h"));
        bench.delivery.homeless_heartbeat(bench.now, &gateway_id("g"));
        bench.pass(SECOND * 20);
    }
    assert_eq!(zombies(&mut bench), 1);
}

#[test]
fn a_drain_spreads_the_ends_and_takes_no_new_streams() {
    let mut bench = Bench::new(plain());
    for n in 0..4 {
        bench.connect(&format!("g{n}"));
    }
    bench.settle();
    bench.delivery.drain(bench.now, SECOND * 4);
    let mut counts = Vec::new();
    for _ in 0..4 {
        bench.settle();
        counts.push(bench.ended.len());
        bench.pass(SECOND);
    }
    // One in each second, at some moment of it.
    bench.settle();
    counts.push(bench.ended.len());
    assert_eq!(counts, [0, 1, 2, 3, 4]);
    assert!(bench.ended.iter().all(|(_, reason)| *reason == EndReason::Drain));
    bench.connect("late");
    bench.settle();
    assert_eq!((bench.ended.len(), bench.delivery.session_count()), (5, 0));
}

#[test]
fn shedding_ends_as_many_as_asked_and_the_others_go_on() {
    let mut bench = Bench::new(plain());
    for n in 0..4 {
        bench.connect(&format!("g{n}"));
    }
    bench.settle();
    bench.delivery.shed(bench.now, 2, SECOND);
    bench.settle_for(SECOND);
    assert_eq!((bench.ended.len(), bench.delivery.session_count()), (2, 2));
    assert!(bench.ended.iter().all(|(_, reason)| *reason == EndReason::Balance));
    bench.connect("new");
    bench.settle();
    assert_eq!(bench.delivery.session_count(), 3);
}

#[test]
fn those_that_were_to_leave_and_are_spared_stay() {
    let mut bench = Bench::new(plain());
    for n in 0..10 {
        bench.connect(&format!("g{n}"));
    }
    bench.settle();
    bench.delivery.shed(bench.now, 8, SECOND * 8);
    bench.settle_for(SECOND * 2);
    assert_eq!(bench.ended.len(), 2);
    // More than are to leave still.
    bench.delivery.spare(20);
    bench.settle_for(SECOND * 2);
    assert_eq!(bench.ended.len(), 4);
    // The next one leaves, the others do not.
    bench.delivery.spare(1);
    bench.settle_for(SECOND * 10);
    assert_eq!((bench.ended.len(), bench.delivery.session_count()), (5, 5));
    // A replica that goes away spares nobody.
    bench.delivery.drain(bench.now, SECOND);
    bench.delivery.spare(0);
    bench.settle_for(SECOND);
    assert_eq!(bench.delivery.session_count(), 0);
}

#[test]
fn the_table_says_who_has_applied_what() {
    let mut bench = with_gateway();
    bench.connect("h");
    bench.settle();
    let before = bench.delivery.applied_changes();
    let frontier = bench.delivery.frontier();
    bench.route("a/r", "v2");
    let sent = bench.poll();
    bench.answer("g", &sent[0].1, sent[0].2);
    let table = bench.delivery.applied_table();
    let lows: Vec<_> = table.rows.iter().map(|row| (row.low.get(Kind::ApiRoute), row.gateways)).collect();
    let revision = bench.delivery.content_of(Kind::ApiRoute, &super::bench::key("a/r")).unwrap().revision;
    assert_eq!(lows, [(frontier.get(Kind::ApiRoute), 1), (revision, 1)]);
    assert_eq!(table.rows[1].names, [gateway_id("g")]);
    assert_ne!(bench.delivery.applied_changes(), before);
    let before = bench.delivery.applied_changes();
    bench.poll();
    assert_eq!(bench.delivery.applied_changes(), before, "nothing changed");
    assert_eq!(words(&sent[1].1), ["~a/r"]);
}

#[test]
fn the_engine_may_move_to_the_thread_that_owns_it() {
    fn movable<T: Send>(_: &T) {}
    movable(&with_gateway().delivery);
}
