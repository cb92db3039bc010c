//! Gateways that come back: from where they were, and from where we cannot
//! tell.

use std::time::Duration;

use flotilla_core::delivery::{Change, DeliveryConfig, Notice, Scope};
use flotilla_core::ids::{Kind, Revision};
use flotilla_core::lineage::OUT_OF_TOUCH;
use flotilla_core::time::Mono;
use flotilla_core::version::{Exclusions, Version, scope_hash};

use super::bench::{Bench, CLUSTER, config, key, words, words_to};

const GUARD: Duration = Duration::from_secs(33);

fn plain() -> DeliveryConfig {
    DeliveryConfig { duty_cycle: 1.0, ..config() }
}

/// A replica with some routes and a gateway that has them all and has gone.
fn away() -> Bench {
    let mut bench = Bench::new(plain());
    bench.backend("a/b", "v1");
    for n in 0..5 {
        bench.route(&format!("a/{n}"), "v1");
    }
    bench.connected("g");
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    bench
}

#[test]
fn what_changed_meanwhile_is_all_that_is_sent() {
    let mut bench = away();
    bench.route("a/1", "v2");
    bench.delete(Kind::ApiRoute, "a/2");
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "~a/1", "-a/2", "heartbeat"]);
    bench.assert_equal("g");
}

#[test]
fn a_gateway_that_missed_nothing_still_learns_our_sequence() {
    let mut bench = away();
    // Another replica had counted far beyond.
    bench.gateway("g").sequence = 1 << 40;
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset"]);
    bench.route("a/1", "v2");
    assert_eq!(words_to("g", &bench.settle()), ["~a/1"]);
    bench.assert_equal("g");
}

#[test]
fn any_replica_resumes_what_another_began() {
    let mut bench = away();
    bench.restart_replica(plain());
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset"]);
    bench.route("a/1", "v2");
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn an_unfinished_batch_is_sent_again_from_its_beginning() {
    let mut bench = away();
    bench.connect("g");
    bench.settle();
    for n in 0..4 {
        bench.route(&format!("a/{n}"), "v2");
    }
    let (_, batch, first) = bench.poll().remove(0);
    let now = bench.now;
    // Two updates arrive, then the stream breaks.
    for (update, sequence) in batch.updates.iter().zip(first..).take(2) {
        bench.gateway("g").takes(now, update, sequence);
    }
    bench.delivery.disconnected(now, &bench.session["g"].clone());
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "~a/0", "~a/1", "~a/2", "~a/3", "heartbeat"]);
    bench.assert_equal("g");
}

#[test]
fn a_gateway_ahead_of_us_keeps_what_it_has_until_we_catch_up() {
    let mut bench = away();
    bench.connect("g");
    bench.settle();
    bench.route("a/1", "v2");
    bench.settle();
    // A replica whose watch of one kind lags behind.
    let behind = Revision(bench.log.revision - 1);
    bench.delivery = flotilla_core::delivery::Delivery::new(plain(), super::log::TestCompiler);
    for kind in Kind::ALL {
        let at = if kind == Kind::ApiRoute { behind } else { Revision(bench.log.revision) };
        bench.delivery.listed(kind, at, bench.log.list(kind, at));
    }
    bench.notices.clear();
    bench.connect("g");
    assert!(bench.settle().is_empty());
    assert!(matches!(bench.notices[..], [Notice::AheadOfUs { .. }]), "{:?}", bench.notices);
    bench.pass(Duration::from_secs(30));
    assert!(bench.settle().is_empty());
    assert_eq!(bench.notices.len(), 1, "said once");
    let table = bench.delivery.applied_table();
    assert!(!table.rows[0].unknown, "what it has counts, whoever sent it");
    let object = bench.log.live[&(Kind::ApiRoute, key("a/1"))].clone();
    bench.delivery.changed(object);
    assert_eq!(words_to("g", &bench.settle()), ["reset"]);
    bench.assert_equal("g");
}

#[test]
fn one_kind_is_enough_to_see_that_a_gateway_is_ahead_of_us() {
    let mut bench = away();
    let before = Revision(bench.log.revision);
    bench.route("a/1", "v2");
    bench.connect("g");
    bench.settle();
    bench.delivery = flotilla_core::delivery::Delivery::new(plain(), super::log::TestCompiler);
    bench.notices.clear();
    bench.connect("g");
    assert!(bench.settle().is_empty());
    assert!(bench.notices.is_empty(), "nothing is listed that it could be ahead of");
    bench.delivery.listed(Kind::ApiRoute, before, bench.log.list(Kind::ApiRoute, before));
    assert!(bench.settle().is_empty());
    assert!(matches!(bench.notices[..], [Notice::AheadOfUs { .. }]), "{:?}", bench.notices);
}

#[test]
fn deletions_from_before_our_first_list_are_asked_for() {
    let mut bench = away();
    bench.delete(Kind::ApiRoute, "a/2");
    bench.route("a/1", "v2");
    bench.restart_replica(plain());
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "~a/1"], "what is known is sent meanwhile");
    let asked = bench.asked.clone();
    assert_eq!(asked.len(), 4, "every kind moved: {asked:?}");
    let until = Revision(bench.log.revision);
    for (kind, since) in asked {
        let found = bench.log.deletions(kind, since, until);
        bench.delivery.history(kind, since, until, found);
    }
    assert_eq!(words_to("g", &bench.settle()), ["-a/2"]);
    bench.assert_equal("g");
    assert_eq!(bench.gateways["g"].fulls, 1, "only the very first");
}

#[test]
fn what_was_asked_ahead_and_reaches_less_far_back_does_not_make_one_ask_again() {
    let mut bench = away();
    bench.delete(Kind::ApiRoute, "a/2");
    let later = Revision(bench.log.revision);
    bench.route("a/1", "v2");
    bench.restart_replica(plain());
    bench.connect("g");
    bench.settle();
    let until = Revision(bench.log.revision);
    bench.delivery.history(Kind::ApiRoute, later, until, Vec::new());
    bench.settle();
    let asked: Vec<_> = bench.asked.iter().filter(|(kind, _)| *kind == Kind::ApiRoute).copied().collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let (kind, since) = asked[0];
    assert!(since < later);
    let found = bench.log.deletions(kind, since, until);
    bench.delivery.history(kind, since, until, found);
    assert_eq!(words_to("g", &bench.settle()), ["-a/2"]);
}

#[test]
fn a_question_that_a_list_has_overtaken_is_asked_again() {
    let mut bench = away();
    bench.delete(Kind::ApiRoute, "a/2");
    bench.restart_replica(plain());
    bench.connect("g");
    bench.settle();
    let (early, asked) = (Revision(bench.log.revision), std::mem::take(&mut bench.asked));
    // Another gateway knew more of a quiet kind, which was listed anew for it; what came
    // and went in between may be on this one.
    let object = bench.log.put(Kind::ApiRoute, &key("a/1"), "v2");
    bench.list_all();
    bench.delivery.changed(object);
    let answer = |bench: &mut Bench, asked: Vec<(Kind, Revision)>, until: Revision| {
        for (kind, since) in asked {
            let found = bench.log.deletions(kind, since, until);
            bench.delivery.history(kind, since, until, found);
        }
    };
    answer(&mut bench, asked.clone(), early);
    assert_eq!(words_to("g", &bench.settle()), ["~a/1"]);
    let again = std::mem::take(&mut bench.asked);
    assert_eq!(again, asked);
    let lost = |notice: &Notice| matches!(notice, Notice::NotResumable { .. });
    assert!(!bench.notices.iter().any(lost), "{:?}", bench.notices);
    let until = Revision(bench.log.revision);
    answer(&mut bench, again, until);
    assert_eq!(words_to("g", &bench.settle()), ["-a/2"]);
    bench.assert_equal("g");
    assert_eq!(bench.gateways["g"].fulls, 1, "only the very first");
}

#[test]
fn history_is_asked_for_once_however_many_gateways_need_it() {
    let mut bench = away();
    bench.connect("h");
    bench.settle();
    bench.delete(Kind::ApiRoute, "a/2");
    bench.restart_replica(plain());
    bench.connect("g");
    bench.connect("h");
    bench.settle();
    assert_eq!(bench.asked.len(), 4);
    bench.pass(Duration::from_secs(30));
    bench.settle();
    assert_eq!(bench.asked.len(), 8, "asked again when nobody answered");
}

/// A gateway that is back with a replica that cannot learn what was deleted
/// meanwhile.
fn without_history() -> Bench {
    let mut bench = away();
    bench.delete(Kind::ApiRoute, "a/2");
    bench.restart_replica(plain());
    bench.connect("g");
    bench.settle();
    for (kind, since) in bench.asked.clone() {
        bench.delivery.history_unavailable(kind, since);
    }
    bench
}

#[test]
fn without_history_a_full_synchronisation_waits_for_the_guard() {
    let mut bench = without_history();
    bench.route("a/1", "v2");
    assert_eq!(words_to("g", &bench.settle()), ["~a/1"], "news does not wait");
    let sent = bench.settle_for(GUARD);
    assert_eq!(words_to("g", &sent), ["heartbeat", "full(a/b a/0 a/1 a/3 a/4|0)"]);
    bench.assert_equal("g");
    assert!(bench.notices.iter().any(|n| matches!(n, Notice::NotResumable { .. })));
}

#[test]
fn after_a_full_synchronisation_a_rejection_puts_back_what_that_one_brought() {
    let mut bench = without_history();
    bench.route("a/1", "v2 poison");
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v1");
    // What follows the bad one comes with the snapshot.
    bench.pass(GUARD);
    bench.route("a/1", "v3");
    assert!(bench.settle().iter().any(|(_, batch)| batch.full));
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v3");
    bench.route("a/1", "v4 poison");
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v3");
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn too_many_deletions_make_an_old_gateway_need_history() {
    let config = DeliveryConfig { tombstones: 3, ..plain() };
    let mut bench = Bench::new(config);
    for n in 0..9 {
        bench.route(&format!("a/{n}"), "v1");
    }
    bench.connected("g");
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    for n in 0..4 {
        bench.delete(Kind::ApiRoute, &format!("a/{n}"));
    }
    bench.connect("g");
    bench.settle();
    assert_eq!(bench.asked.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [Kind::ApiRoute]);
    assert_eq!(bench.delivery.footprint().tombstones, 3);
    bench.delivery.history_unavailable(Kind::ApiRoute, bench.asked[0].1);
    bench.settle_for(GUARD);
    bench.assert_equal("g");
}

fn version_of(bench: &Bench) -> Version {
    bench.gateways["g"].version.parse().unwrap()
}

#[test]
fn unknown_holdings_wait_for_the_guard_and_are_replaced_by_a_snapshot() {
    let foreign = |bench: &Bench| Version { cluster: "ffffffff".into(), ..version_of(bench) }.to_string();
    let other_scope = |bench: &Bench| Version { scope: 7, ..version_of(bench) }.to_string();
    let too_many = |bench: &Bench| Version { excluded: Exclusions::Unknown, ..version_of(bench) }.to_string();
    let unreadable = |_: &Bench| "37f0a2b1".to_string();
    let cases: [&dyn Fn(&Bench) -> String; 4] = [&foreign, &other_scope, &too_many, &unreadable];
    for version in cases {
        let mut bench = away();
        let version = version(&bench);
        bench.gateway("g").version.clone_from(&version);
        bench.delete(Kind::ApiRoute, "a/2");
        bench.connect("g");
        assert!(bench.settle().is_empty(), "{version}");
        let notice = bench.notices.iter().find_map(|notice| match notice {
            Notice::NotResumable { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        assert!(notice.is_some(), "{version}");
        assert!(bench.delivery.applied_table().rows[0].unknown);
        let sent = bench.settle_for(GUARD);
        assert_eq!(words_to("g", &sent), ["reset", "full(a/b a/0 a/1 a/3 a/4|0)"], "{version}");
        bench.assert_equal("g");
    }
}

fn other_history(bench: &Bench) -> String {
    Version { incarnation: "00000001".into(), ..version_of(bench) }.to_string()
}

#[test]
fn a_version_of_another_history_waits_until_ours_is_confirmed() {
    let mut bench = away();
    bench.gateway("g").version = other_history(&bench);
    // What a question said that was asked before means nothing.
    bench.delivery.confirmed(bench.now);
    bench.pass(Duration::from_secs(1));
    bench.connect("g");
    let asked = |bench: &Bench| bench.notices.iter().any(|one| matches!(one, Notice::OtherHistory { .. }));
    assert!(bench.settle_for(2 * GUARD).is_empty() && asked(&bench));
    // Its heartbeats keep it alive meanwhile.
    bench.delivery.confirmed(bench.now);
    let sent = bench.settle_for(GUARD);
    assert_eq!(words_to("g", &sent), ["reset", "full(a/b a/0 a/1 a/2 a/3 a/4|0)"]);
    bench.assert_equal("g");
    // From then on its version is of ours, and it is resumed like any other.
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    bench.route("a/1", "v2");
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "~a/1"]);
}

#[test]
fn an_unanswered_question_about_the_history_is_asked_again_once_for_all_who_wait() {
    let mut bench = away();
    for gateway in ["g", "h"] {
        bench.gateway(gateway).version = other_history(&bench);
        bench.connect(gateway);
    }
    let asked = |bench: &mut Bench| {
        let told = std::mem::take(&mut bench.notices).into_iter();
        told.filter(|one| matches!(one, Notice::OtherHistory { .. })).count()
    };
    bench.settle();
    assert_eq!(asked(&mut bench), 2);
    // Its answer was lost. They live on, and are not forgotten.
    assert!(bench.settle_for(Duration::from_secs(21)).is_empty());
    assert_eq!(asked(&mut bench), 4);
    bench.delivery.confirmed(bench.now);
    bench.settle_for(GUARD);
    bench.assert_equal("g");
    bench.assert_equal("h");
    assert_eq!(asked(&mut bench), 0);
}

/// Of a replica whose history somebody looks after.
fn watchful() -> DeliveryConfig {
    DeliveryConfig { out_of_touch: Some(OUT_OF_TOUCH), ..config() }
}

/// How often it was asked which history it is.
fn asked_in(bench: &mut Bench) -> usize {
    let told = std::mem::take(&mut bench.notices).into_iter();
    told.filter(|notice| matches!(notice, Notice::OutOfTouch { .. })).count()
}

#[test]
fn a_replica_out_of_touch_sends_nothing_to_who_comes_holding_something() {
    let mut bench = away();
    bench.restart_replica(watchful());
    bench.route("a/1", "v2");
    // Nobody has looked since it started, or not for too long.
    let too_long = OUT_OF_TOUCH + Duration::from_millis(1);
    for waits in [Duration::ZERO, too_long] {
        bench.pass(waits);
        bench.connect("g");
        assert!(bench.settle_for(Duration::from_secs(4)).is_empty());
        // What was confirmed too long ago says nothing, and to read is not to confirm.
        bench.delivery.confirmed(bench.now - too_long);
        bench.delivery.in_touch(bench.now);
        assert!(bench.settle_for(Duration::from_secs(2)).is_empty());
        // The question may have been lost, so it is asked again.
        assert_eq!(asked_in(&mut bench), 2);
        bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
        // Who holds nothing can be taken back by nothing.
        bench.gateways.remove("empty");
        bench.connected("empty");
        bench.delivery.disconnected(bench.now, &bench.session["empty"].clone());
        bench.delivery.confirmed(bench.now);
    }
    bench.pass(too_long);
    bench.connect("g");
    assert!(bench.settle().is_empty());
    bench.delivery.confirmed(bench.now);
    assert_eq!(words_to("g", &bench.settle()), ["reset", "~a/1"]);
    bench.assert_equal("g");
    asked_in(&mut bench);
    // As long as it is read every few seconds nobody waits, and nothing is asked, also
    // when an answer comes late.
    for _ in 0..5 {
        bench.settle_for(OUT_OF_TOUCH);
        bench.delivery.in_touch(bench.now);
        bench.delivery.in_touch(bench.now - OUT_OF_TOUCH);
    }
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    bench.route("a/1", "v3");
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset", "~a/1"]);
    assert_eq!(asked_in(&mut bench), 0);
}

#[test]
fn whom_a_replica_served_before_it_was_out_of_touch_it_serves_on() {
    let mut bench = Bench::new(watchful());
    bench.delivery.confirmed(bench.now);
    bench.connected("g");
    bench.settle_for(Duration::from_secs(30));
    bench.pass(OUT_OF_TOUCH);
    bench.route("a/1", "v1");
    assert_eq!(words_to("g", &bench.settle()), ["+a/1"]);
    assert_eq!(asked_in(&mut bench), 0);
}

#[test]
fn whoever_is_proven_to_be_beyond_the_log_is_synchronised_fully() {
    let mut bench = away();
    let mut beyond = version_of(&bench);
    let newest = beyond.high.get(Kind::Backend);
    beyond.high.advance(Kind::Backend, Revision(newest.0 + 1_000));
    beyond.low = beyond.high;
    bench.gateway("g").version = beyond.to_string();
    bench.delivery.beyond_the_log(bench.now, Kind::Backend, newest);
    bench.connect("g");
    assert!(bench.settle_for(GUARD).is_empty(), "we may only be slow");
    // A proof that is older than its claim is none, and one for less neither.
    bench.delivery.beyond_the_log(Mono::default(), Kind::Backend, newest);
    bench.delivery.beyond_the_log(bench.now, Kind::Backend, Revision(newest.0 + 1_000));
    bench.delivery.beyond_the_log(bench.now, Kind::ApiRoute, newest);
    assert!(bench.settle_for(GUARD).is_empty());
    bench.delivery.beyond_the_log(bench.now, Kind::Backend, newest);
    assert_eq!(words_to("g", &bench.settle()), ["reset", "full(a/b a/0 a/1 a/2 a/3 a/4|0)"]);
    bench.assert_equal("g");
}

#[test]
fn unknown_holdings_are_never_met_with_an_empty_snapshot() {
    let mut bench = away();
    bench.gateway("g").version = "37f0a2b1".into();
    bench.delete(Kind::Backend, "a/b");
    for n in 0..5 {
        bench.delete(Kind::ApiRoute, &format!("a/{n}"));
    }
    bench.connect("g");
    let sent = bench.settle_for(GUARD);
    assert_eq!(words_to("g", &sent), ["reset", "full(|1)"]);
    assert!(bench.gateways["g"].table.is_empty());
}

#[test]
fn a_register_on_a_live_stream_starts_the_guard_again() {
    let mut bench = away();
    bench.gateway("g").version = "37f0a2b1".into();
    bench.connect("g");
    bench.settle_for(Duration::from_secs(20));
    let (session, now) = (bench.session["g"].clone(), bench.now);
    bench.delivery.registered(now, session, super::bench::gateway_id("g"));
    bench.gateway("g").registers(now);
    assert!(bench.settle_for(Duration::from_secs(25)).is_empty());
    bench.settle_for(GUARD);
    bench.assert_equal("g");
}

#[test]
fn a_replica_that_did_not_see_the_registration_counts_from_the_stream() {
    let mut bench = away();
    let now = bench.now;
    bench.gateway("g").registers(now);
    let connect = flotilla_core::delivery::Connect {
        session: "elsewhere/1".into(),
        gateway: super::bench::gateway_id("g"),
        scope: Scope::default(),
        last_version: "37f0a2b1".into(),
        registered: None,
    };
    bench.session.insert("g".into(), "elsewhere/1".into());
    bench.delivery.connected(now, connect);
    assert!(bench.settle_for(Duration::from_secs(31)).is_empty());
    assert_eq!(bench.settle_for(Duration::from_secs(2)).len(), 1);
    bench.assert_equal("g");
}

#[test]
fn what_came_and_went_while_our_watch_was_cut_is_found_out() {
    let mut bench = away();
    bench.connect("g");
    bench.settle();
    let before = bench.delivery.frontier();
    // Our watch is cut. Another replica serves the gateway: it gets an object
    // that is deleted again before we list anew.
    bench.log.put(Kind::ApiRoute, &key("a/ghost"), "v1");
    let low = Revision(bench.log.revision);
    let ghost = bench.log.list(Kind::ApiRoute, low).into_iter().find(|o| o.key == key("a/ghost")).unwrap();
    bench.log.delete(Kind::ApiRoute, &key("a/ghost"));
    let resource = flotilla_core::object::Resource {
        kind: Kind::ApiRoute,
        key: ghost.key.clone(),
        uid: ghost.uid.clone(),
        generation: 1,
        revision: ghost.revision,
        created: ghost.created.clone(),
        spec_json: "name=a/ghost v1".into(),
        rank: 0,
    };
    bench.gateway("g").table.insert((Kind::ApiRoute, key("a/ghost")), resource.into());
    let mut at = before;
    at.advance(Kind::ApiRoute, low);
    let version = Version {
        cluster: CLUSTER.into(),
        incarnation: "00000000".into(),
        scope: scope_hash(&Scope::default()),
        low: at,
        high: at,
        step: 0,
        excluded: Exclusions::none(),
    };
    bench.gateway("g").version = version.to_string();
    bench.list_all();
    bench.connect("g");
    bench.settle();
    let (kind, since) = bench.asked[0];
    assert_eq!((kind, since), (Kind::ApiRoute, low));
    let until = Revision(bench.log.revision);
    bench.delivery.history(kind, since, until, bench.log.deletions(kind, since, until));
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn a_new_list_costs_our_own_gateways_nothing() {
    let mut bench = away();
    bench.connect("g");
    bench.settle();
    bench.log.put(Kind::ApiRoute, &key("a/1"), "v2");
    bench.log.delete(Kind::ApiRoute, &key("a/2"));
    bench.list_all();
    assert_eq!(words_to("g", &bench.settle()), ["heartbeat", "~a/1", "-a/2", "heartbeat"]);
    assert!(bench.asked.is_empty());
    bench.assert_equal("g");
}

#[test]
fn several_new_lists_cost_our_own_gateways_nothing() {
    let mut bench = away();
    bench.connect("g");
    bench.settle();
    for version in ["v2", "v3", "v4"] {
        bench.log.put(Kind::ApiRoute, &key("a/1"), version);
        bench.list_all();
        assert_eq!(words_to("g", &bench.settle()).first().map(String::as_str), Some("~a/1"));
    }
    assert!(bench.asked.is_empty());
    bench.assert_equal("g");
}

#[test]
fn a_gateway_that_restarts_gets_everything_again_at_once() {
    let mut bench = away();
    bench.gateway("g").restart();
    bench.connect("g");
    let sent = bench.settle();
    assert!(matches!(sent[0].1.updates[1].change, Change::FullSync(_)), "{:?}", words(&sent[0].1));
    bench.assert_equal("g");
}

#[test]
fn scopes_see_only_their_part() {
    let mut bench = away();
    bench.route("b/r", "v1");
    let scope = Scope { namespaces: ["b".into()].into(), kinds: [Kind::ApiRoute].into() };
    bench.connect_scoped("s", scope.clone());
    assert_eq!(words_to("s", &bench.settle()), ["reset", "full(b/r|0)"]);
    bench.route("a/1", "v2");
    bench.backend("b/b", "v1");
    assert!(bench.settle().is_empty());
    bench.route("b/r", "v2");
    assert_eq!(words_to("s", &bench.settle()), ["~b/r"]);
    assert_eq!(bench.gateways["s"].digest(), bench.delivery.digest(&scope));
}

/// A gateway that another replica brought to the log's present state, while
/// our watch of every kind was cut.
fn served_elsewhere(bench: &mut Bench) {
    let mut other = Bench::over(plain(), std::mem::take(&mut bench.log));
    other.gateways = std::mem::take(&mut bench.gateways);
    comes_back(&mut other);
    bench.log = std::mem::take(&mut other.log);
    bench.gateways = std::mem::take(&mut other.gateways);
}

/// It comes to us, whatever history says.
fn comes_back(bench: &mut Bench) {
    bench.connect("g");
    bench.settle();
    for (kind, since) in std::mem::take(&mut bench.asked) {
        let until = Revision(bench.log.revision);
        bench.delivery.history(kind, since, until, bench.log.deletions(kind, since, until));
    }
    bench.settle();
    bench.assert_equal("g");
    assert_eq!(bench.gateways["g"].fulls, 1);
}

#[test]
fn what_was_valid_only_while_our_watch_was_cut_is_removed() {
    let mut bench = away();
    bench.route("a/r", "invalid");
    bench.log.put(Kind::ApiRoute, &key("a/r"), "v2");
    served_elsewhere(&mut bench);
    bench.log.put(Kind::ApiRoute, &key("a/r"), "invalid again");
    bench.list_all();
    comes_back(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r"), None);
}

#[test]
fn what_won_only_while_our_watch_was_cut_is_removed() {
    // What keeps it from being delivered is younger than what it is itself.
    let mut bench = away();
    bench.route("a/r", "invalid");
    bench.log.put(Kind::ApiRoute, &key("a/r"), "takes=k");
    served_elsewhere(&mut bench);
    bench.log.put(Kind::ApiRoute, &key("a/1"), "takes=k");
    bench.list_all();
    comes_back(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r"), None);

    // It had lost before, to another.
    let mut bench = away();
    bench.route("a/1", "takes=k");
    bench.route("a/r", "takes=k");
    bench.log.put(Kind::ApiRoute, &key("a/1"), "v2");
    served_elsewhere(&mut bench);
    assert!(bench.holds("g", Kind::ApiRoute, "a/r").is_some());
    bench.log.put(Kind::ApiRoute, &key("a/2"), "takes=k");
    bench.list_all();
    comes_back(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r"), None);
}

#[test]
fn what_was_valid_only_while_our_watch_was_cut_is_removed_after_its_deletion_too() {
    let mut bench = away();
    bench.route("a/r", "invalid");
    bench.log.put(Kind::ApiRoute, &key("a/r"), "v2");
    served_elsewhere(&mut bench);
    bench.log.delete(Kind::ApiRoute, &key("a/r"));
    bench.list_all();
    comes_back(&mut bench);
}

#[test]
fn an_object_that_comes_after_an_unseen_one_of_its_name_does_not_hide_it() {
    let mut bench = away();
    bench.route("a/r", "v1");
    bench.delete(Kind::ApiRoute, "a/r");
    bench.log.put(Kind::ApiRoute, &key("a/r"), "v2");
    served_elsewhere(&mut bench);
    bench.log.delete(Kind::ApiRoute, &key("a/r"));
    bench.list_all();
    bench.route("a/r", "invalid");
    comes_back(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r"), None);
}

#[test]
fn a_backend_that_was_gone_while_our_watch_was_cut_has_its_routes_sent_again() {
    let mut bench = away();
    bench.route("a/r", "to=b v1");
    bench.log.delete(Kind::Backend, &key("a/b"));
    served_elsewhere(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r").unwrap(), "name=a/r to=b v1");
    bench.log.put(Kind::Backend, &key("a/b"), "v2");
    bench.list_all();
    comes_back(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r").unwrap(), "name=a/r to=a/b v1");
}

#[test]
fn a_backend_that_is_being_deleted_when_we_list_has_its_routes_sent_again() {
    let mut bench = away();
    bench.route("a/r", "to=b v1");
    served_elsewhere(&mut bench);
    bench.log.mark_deleting(Kind::Backend, &key("a/b"));
    bench.restart_replica(plain());
    comes_back(&mut bench);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/r").unwrap(), "name=a/r to=b v1");
}

#[test]
fn history_that_does_not_fit_is_not_taken_for_complete() {
    let mut bench = away();
    for n in 0..4 {
        bench.delete(Kind::ApiRoute, &format!("a/{n}"));
    }
    bench.restart_replica(DeliveryConfig { tombstones: 2, ..plain() });
    bench.connect("g");
    bench.settle();
    for (kind, since) in std::mem::take(&mut bench.asked) {
        let until = Revision(bench.log.revision);
        bench.delivery.history(kind, since, until, bench.log.deletions(kind, since, until));
    }
    bench.settle_for(GUARD);
    bench.assert_equal("g");
}

/// Two replicas, and where a gateway was served: `a/1` was deleted since. The first lists
/// now, and its watch stands still from here on.
fn one_stands_still() -> (Bench, Bench, Revision) {
    let mut bench = Bench::new(plain());
    bench.route("a/1", "v1");
    bench.route("a/2", "v1");
    bench.connected("g");
    let since = Revision(bench.log.revision);
    let mut ahead = Bench::over(plain(), std::mem::take(&mut bench.log));
    ahead.delete(Kind::ApiRoute, "a/1");
    let here = Revision(ahead.log.revision);
    bench.delivery = flotilla_core::delivery::Delivery::new(plain(), super::log::TestCompiler);
    for kind in Kind::ALL {
        bench.delivery.listed(kind, here, ahead.log.list(kind, here));
    }
    (bench, ahead, since)
}

#[test]
fn a_replica_that_lags_learns_of_deletions_of_what_lives_again_at_its_peer() {
    let (mut bench, mut ahead, since) = one_stands_still();
    for spec in ["v2", "v3"] {
        ahead.route("a/1", spec);
        ahead.delete(Kind::ApiRoute, "a/1");
    }
    ahead.route("a/1", "v4");
    bench.connect("g");
    bench.settle();
    for kind in Kind::ALL {
        let until = Revision(ahead.log.revision);
        let tombstones = ahead.delivery.store().tombstones(kind, since).unwrap();
        bench.delivery.history(kind, since, until, tombstones);
    }
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1"), None);
    assert!(bench.holds("g", Kind::ApiRoute, "a/2").is_some());
}

#[test]
fn who_only_heard_of_a_deletion_tells_those_who_lag_of_it_too() {
    let (mut bench, mut ahead, since) = one_stands_still();
    ahead.route("a/1", "v2");
    // Another lists when it lives again, and asks the first what was deleted.
    let mut between = Bench::over(plain(), std::mem::take(&mut ahead.log));
    let until = Revision(between.log.revision);
    let tell = |from: &Bench, to: &mut Bench| {
        for kind in Kind::ALL {
            let tombstones = from.delivery.store().tombstones(kind, since).unwrap();
            to.delivery.history(kind, since, until, tombstones);
        }
    };
    tell(&ahead, &mut between);
    bench.connect("g");
    bench.settle();
    tell(&between, &mut bench);
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1"), None);
    assert!(bench.holds("g", Kind::ApiRoute, "a/2").is_some());
}
