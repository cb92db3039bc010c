//! What happens when a gateway rejects something.

use std::time::Duration;

use flotilla_core::delivery::{DeliveryConfig, Notice};
use flotilla_core::ids::{Kind, Revision};
use flotilla_core::version::{Exclusions, Version};

use super::bench::{Bench, config, key, words, words_to};

pub fn plain() -> DeliveryConfig {
    DeliveryConfig { duty_cycle: 1.0, ..config() }
}

pub fn with_routes(count: usize) -> Bench {
    let mut bench = Bench::new(plain());
    bench.backend("a/b", "v1");
    for n in 0..count {
        bench.route(&format!("a/{n}"), "v1");
    }
    bench.connected("g");
    bench
}

pub fn rejected(bench: &Bench) -> Vec<String> {
    let name = |notice: &Notice| match notice {
        Notice::Rejected { key, .. } => Some(key.to_string()),
        _ => None,
    };
    bench.notices.iter().filter_map(name).collect()
}

#[test]
fn a_rejected_change_is_put_back_and_the_rest_is_delivered() {
    let mut bench = with_routes(4);
    bench.route("a/1", "v2 undecodable");
    bench.route("a/2", "v2");
    let sent = bench.settle();
    assert_eq!(words_to("g", &sent), ["heartbeat", "~a/1", "~a/2", "~a/1", "heartbeat"]);
    assert_eq!(rejected(&bench), ["a/1"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v1");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/2").unwrap(), "name=a/2 v2");
    let table = bench.delivery.applied_table();
    assert_eq!(table.rows[0].excluded.len(), 1);
    assert_eq!(table.rows[0].low, bench.delivery.frontier(), "everything else is applied");
    assert_eq!(table.rejections[0].key, key("a/1"));
    assert!(table.rejections[0].message.starts_with("failed to decode APIRoute a/1"), "{table:?}");
}

#[test]
fn a_rejected_new_resource_is_removed() {
    let mut bench = with_routes(2);
    bench.route("a/new", "v1 poison");
    assert_eq!(words_to("g", &bench.settle()), ["+a/new", "-a/new", "heartbeat"]);
    assert!(!bench.gateways["g"].broken(true));
}

#[test]
fn an_exclusion_ends_when_the_object_changes() {
    let mut bench = with_routes(2);
    bench.route("a/1", "v2 undecodable");
    bench.settle();
    let object = bench.log.status(Kind::ApiRoute, &key("a/1"), "{}");
    bench.delivery.changed(object);
    assert!(words_to("g", &bench.settle()).is_empty(), "a status does not end it");
    bench.route("a/1", "v3");
    assert_eq!(words_to("g", &bench.settle()), ["~a/1"]);
    assert!(bench.delivery.applied_table().rejections.is_empty());
    assert!(bench.delivery.applied_table().rows[0].excluded.is_empty());
    bench.assert_equal("g");
}

#[test]
fn an_excluded_object_that_is_deleted_leaves_the_gateway() {
    let mut bench = with_routes(2);
    bench.route("a/1", "v2 undecodable");
    bench.settle();
    bench.delete(Kind::ApiRoute, "a/1");
    assert_eq!(words_to("g", &bench.settle()), ["-a/1"]);
    assert!(bench.delivery.applied_table().rejections.is_empty());
    bench.assert_equal("g");
}

#[test]
fn the_last_good_version_outlives_several_bad_ones() {
    let mut bench = with_routes(2);
    for bad in ["v2 undecodable", "v3 poison", "v4 undecodable"] {
        bench.route("a/1", bad);
        bench.settle();
        assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v1");
    }
    assert_eq!(bench.delivery.applied_table().rejections.len(), 1);
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn those_rejected_along_with_a_bad_one_are_delivered_after_it_is_put_back() {
    let mut bench = with_routes(8);
    bench.route("a/1", "v2 poison");
    for n in 2..6 {
        bench.route(&format!("a/{n}"), "v2");
    }
    bench.settle();
    assert_eq!(rejected(&bench), ["a/1"]);
    for n in 2..6 {
        assert_eq!(bench.holds("g", Kind::ApiRoute, &format!("a/{n}")).unwrap(), format!("name=a/{n} v2"));
    }
    assert!(!bench.gateways["g"].broken(true));
}

#[test]
fn several_bad_ones_are_found_one_after_the_other() {
    let mut bench = with_routes(8);
    for n in 0..8 {
        bench.route(&format!("a/{n}"), if n % 3 == 1 { "v2 poison" } else { "v2" });
    }
    bench.route("a/fresh", "v1 poison");
    bench.settle();
    let mut found = rejected(&bench);
    found.sort();
    assert_eq!(found, ["a/1", "a/4", "a/7", "a/fresh"]);
    for n in 0..8 {
        let expected = if n % 3 == 1 { "v1" } else { "v2" };
        let held = bench.holds("g", Kind::ApiRoute, &format!("a/{n}")).unwrap();
        assert_eq!(held, format!("name=a/{n} {expected}"));
    }
    assert_eq!(bench.delivery.applied_table().rejections.len(), 4);
}

#[test]
fn a_bad_backend_does_not_touch_the_routes() {
    let mut bench = with_routes(4);
    bench.backend("a/b", "v2 poison");
    bench.backend("a/c", "v1");
    bench.route("a/1", "v2");
    bench.settle();
    assert_eq!(rejected(&bench), ["a/b"]);
    assert_eq!(bench.holds("g", Kind::Backend, "a/b").unwrap(), "name=a/b v1");
    assert!(bench.holds("g", Kind::Backend, "a/c").is_some());
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v2");
}

#[test]
fn the_bad_one_of_a_first_snapshot_is_found_by_halving() {
    let mut bench = Bench::new(plain());
    for n in 0..100 {
        let spec = if n == 37 || n == 80 { "v1 poison" } else { "v1" };
        bench.route(&format!("a/{n:02}"), spec);
    }
    bench.backend("a/b", "v1");
    bench.gateway("g").mute = true;
    bench.connect("g");
    let sent = bench.settle();
    let mut found = rejected(&bench);
    found.sort();
    assert_eq!(found, ["a/37", "a/80"]);
    assert_eq!(bench.gateways["g"].table.len(), 99);
    assert!(sent.len() < 22, "{} messages", sent.len());
    // No prefix without what was known to be good, and never fewer than the
    // gateway may count.
    let counts: Vec<_> = sent
        .iter()
        .filter_map(|(_, batch)| match &batch.updates[0].change {
            flotilla_core::delivery::Change::FullSync(s) => Some(s.resources.len() + s.padding.len()),
            _ => None,
        })
        .collect();
    assert!(counts.iter().all(|count| *count == 101), "{counts:?}");
    bench.route("a/37", "v2");
    bench.settle();
    assert_eq!(bench.gateways["g"].table.len(), 100);
}

#[test]
fn nobody_is_accused_in_place_of_one_for_whom_there_was_no_room_in_a_probe() {
    // What comes with the snapshot in one batch takes room from a probe for it. The one
    // that falls out of it is among these.
    for bad in 0..60 {
        let config = DeliveryConfig { message_limit: 10_000, batch_bytes: 100_000, ..plain() };
        let mut bench = Bench::new(config);
        for n in 0..60 {
            let poison = if n == bad { " poison" } else { "" };
            bench.route(&format!("a/{n:02}"), &format!("v1{poison} {}", "x".repeat(200)));
        }
        bench.gateway("g").mute = true;
        bench.connect("g");
        bench.settle_for(Duration::from_secs(60));
        assert_eq!(rejected(&bench), [format!("a/{bad:02}")]);
        assert_eq!(bench.gateways["g"].table.len(), 59);
    }
}

#[test]
fn a_gateway_that_rejects_a_cheaper_snapshot_gets_increments_and_loses_nothing() {
    let mut bench = Bench::new(plain());
    bench.apply = Duration::from_millis(20);
    bench.backend("a/b", "v1");
    for n in 0..1_000 {
        bench.route(&format!("a/{n:03}"), "v1");
    }
    bench.connected("g");
    bench.pass(Duration::from_secs(60));
    for n in 0..50 {
        bench.route(&format!("a/{n:03}"), if n == 17 { "v2 poison" } else { "v2" });
    }
    let sent = bench.settle_for(Duration::from_secs(5));
    assert!(sent[0].1.full, "{:?}", words(&sent[0].1));
    assert!(sent[1..].iter().all(|(_, batch)| !batch.full));
    assert_eq!(rejected(&bench), ["a/017"]);
    assert_eq!(bench.gateways["g"].table.len(), 1_001);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/017").unwrap(), "name=a/017 v1");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/018").unwrap(), "name=a/018 v2");
    assert!(bench.gateways["g"].removed.is_empty());
}

/// A gateway that has 1,000 routes and gets 50 new ones by a snapshot, one of
/// them bad.
fn rejecting_a_snapshot(mute: bool) -> (Bench, Vec<String>) {
    let mut bench = Bench::new(plain());
    bench.apply = Duration::from_millis(20);
    bench.gateway("g").mute = mute;
    bench.backend("a/b", "v1");
    for n in 0..1_000 {
        bench.route(&format!("a/{n:03}"), "v1");
    }
    bench.connected("g");
    bench.pass(Duration::from_secs(60));
    for n in 0..50 {
        bench.route(&format!("a/{n:03}"), if n == 17 { "v2 poison" } else { "v2" });
    }
    bench.delete(Kind::ApiRoute, "a/900");
    let sent = bench.settle_for(Duration::from_secs(5));
    assert!(sent[0].1.full, "{:?}", words(&sent[0].1));
    assert_eq!(rejected(&bench), ["a/017"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/018").unwrap(), "name=a/018 v2");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/017").unwrap(), "name=a/017 v1");
    (bench, words_to("g", &sent[1..]))
}

#[test]
fn nothing_but_the_bad_one_goes_back_when_a_snapshot_is_rejected() {
    let (bench, sent) = rejecting_a_snapshot(false);
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
    assert_eq!(sent[..2], ["~a/b", "~a/017"], "the backends are loaded, the bad one is put back");
    assert!(sent.contains(&"-a/900".to_owned()), "a deletion is explicit: {sent:?}");
    assert_eq!(sent.iter().filter(|word| **word == "~a/018").count(), 1, "{sent:?}");
}

#[test]
fn a_gateway_that_does_not_name_the_bad_one_is_made_well_all_the_same() {
    let (_, sent) = rejecting_a_snapshot(true);
    assert_eq!(sent[..2], ["~a/b", "~a/050"], "something that it has tells whether it loads at all");
    let times = sent.iter().filter(|word| **word == "~a/018").count();
    assert!(times >= 2, "put back and sent again: {times}");
}

#[test]
fn an_object_that_came_and_went_with_a_rejected_update_is_removed() {
    let mut bench = with_routes(4);
    bench.route("a/1", "v2 poison");
    bench.route("a/new", "v1");
    let (name, batch, first) = bench.poll().remove(0);
    bench.delete(Kind::ApiRoute, "a/new");
    bench.answer(&name, &batch, first);
    bench.settle();
    assert_eq!(rejected(&bench), ["a/1"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/new"), None);
}

#[test]
fn a_replica_that_lags_does_not_take_back_what_was_rejected_along_with_a_bad_one() {
    let mut bench = with_routes(4);
    let before = Revision(bench.log.revision);
    bench.route("a/0", "v2 poison");
    bench.route("a/1", "v2");
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    // Nobody hears of it. The next replica has not read that far.
    bench.delivery = flotilla_core::delivery::Delivery::new(plain(), super::log::TestCompiler);
    for kind in Kind::ALL {
        bench.delivery.listed(kind, before, bench.log.list(kind, before));
    }
    bench.connect("g");
    assert!(bench.settle().is_empty(), "it waits");
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
    bench.list_all();
    bench.settle_for(Duration::from_secs(60));
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v2");
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn what_was_rejected_is_remembered_by_the_version() {
    let mut bench = with_routes(4);
    bench.route("a/1", "v2 undecodable");
    bench.settle();
    let version: Version = bench.gateways["g"].version.parse().unwrap();
    assert!(matches!(version.excluded, Exclusions::Known(known) if known.len() == 1));
    bench.restart_replica(plain());
    bench.notices.clear();
    bench.connect("g");
    assert_eq!(words_to("g", &bench.settle()), ["reset"], "it is not tried again");
    assert!(rejected(&bench).is_empty());
    assert_eq!(bench.delivery.applied_table().rejections.len(), 1);
    bench.route("a/1", "v3");
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn a_gateway_that_leaves_in_the_middle_of_a_rejection_is_made_well_elsewhere() {
    let mut bench = with_routes(6);
    bench.route("a/1", "v2 poison");
    bench.route("a/2", "v2");
    bench.route("a/3", "v2");
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    // Nothing of it was acknowledged to anybody.
    bench.restart_replica(plain());
    bench.connect("g");
    bench.settle_for(Duration::from_secs(60));
    assert!(!bench.gateways["g"].broken(true));
    for n in 2..4 {
        assert_eq!(bench.holds("g", Kind::ApiRoute, &format!("a/{n}")).unwrap(), format!("name=a/{n} v2"));
    }
}

#[test]
fn many_rejections_make_the_version_say_unknown_and_a_resume_synchronises_fully() {
    let mut bench = with_routes(40);
    for n in 0..40 {
        bench.route(&format!("a/{n}"), "v2 undecodable");
        bench.settle();
    }
    assert_eq!(rejected(&bench).len(), 40);
    assert!(bench.gateways["g"].version.ends_with("!*"), "{}", bench.gateways["g"].version);
    assert_eq!(bench.delivery.applied_table().rows[0].excluded.len(), 40, "we still know them");
    bench.restart_replica(plain());
    bench.connect("g");
    assert!(bench.settle().is_empty());
    assert!(bench.settle_for(Duration::from_secs(33)).iter().any(|(_, batch)| batch.full));
}

#[test]
fn a_gateway_that_has_just_come_back_keeps_its_last_good_version_too() {
    let mut bench = with_routes(4);
    bench.connect("g");
    bench.settle();
    // Whether it was sound before is not known.
    bench.route("a/1", "v2 poison");
    bench.settle();
    assert_eq!(rejected(&bench), ["a/1"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v1");
    assert!(!bench.gateways["g"].broken(true));
}

#[test]
fn a_gateway_that_comes_back_broken_does_not_cost_the_innocent() {
    let mut bench = with_routes(6);
    bench.route("a/4", "v2 poison");
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    // It leaves before we hear of it, and the bad one is repaired meanwhile.
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    for n in 0..6 {
        bench.route(&format!("a/{n}"), "v3");
    }
    bench.connect("g");
    bench.settle_for(Duration::from_secs(60));
    assert_eq!(rejected(&bench), Vec::<String>::new());
    bench.assert_equal("g");
}

#[test]
fn a_gateway_of_unknown_holdings_loses_nothing_but_the_bad_one_to_a_rejected_snapshot() {
    let mut bench = with_routes(20);
    bench.gateway("g").version = "1699887766".into();
    for n in [3, 11] {
        bench.route(&format!("a/{n}"), "v2 poison");
    }
    bench.backend("a/b", "v2 poison");
    bench.connect("g");
    let sent = bench.settle_for(Duration::from_secs(60));
    let mut found = rejected(&bench);
    found.sort();
    assert_eq!(found, ["a/11", "a/3", "a/b"]);
    assert_eq!(sent.iter().filter(|(_, batch)| batch.full).count(), 4, "one for each that it names");
    let gateway = &bench.gateways["g"];
    assert_eq!(gateway.table.len(), 18);
    let lost: Vec<_> = gateway.removed.iter().map(|(resource, _)| resource.key.to_string()).collect();
    assert!(lost.iter().all(|key| found.contains(key)), "{lost:?}");
}

#[test]
fn what_was_put_back_is_not_what_its_kind_is_touched_with() {
    let mut bench = Bench::new(plain());
    bench.apply = Duration::from_millis(20);
    let all = |bench: &mut Bench, version: &str| {
        bench.backend("a/b", &format!("{version}{}", if version == "v1" { "" } else { " poison" }));
        for n in 0..200 {
            let bad = n == 0 && version != "v1";
            bench.route(&format!("a/{n:03}"), &format!("{version}{}", if bad { " poison" } else { "" }));
        }
    };
    all(&mut bench, "v1");
    bench.connected("g");
    bench.pass(Duration::from_secs(60));
    // Every route is in the snapshot in a new content: there is nothing to
    // touch with that is beyond suspicion.
    all(&mut bench, "v2");
    let sent = bench.settle_for(Duration::from_secs(5));
    assert!(sent[0].1.full);
    let mut found = rejected(&bench);
    found.sort();
    assert_eq!(found, ["a/000", "a/b"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/000").unwrap(), "name=a/000 v1");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/001").unwrap(), "name=a/001 v2");
    assert!(bench.gateways["g"].removed.is_empty());
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn an_object_that_changed_while_it_was_being_rejected_does_not_leave() {
    let mut bench = with_routes(2);
    bench.route("a/1", "v2 poison");
    let sent = bench.poll();
    bench.route("a/1", "v3");
    for (name, batch, first) in sent {
        bench.answer(&name, &batch, first);
    }
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1").unwrap(), "name=a/1 v3");
    assert!(bench.gateways["g"].removed.is_empty());
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn words_from_before_its_turn_do_not_remove_one_that_is_being_put_back() {
    let mut bench = with_routes(4);
    bench.backend("a/c", "v1");
    bench.ballast();
    bench.settle();
    bench.route("a/1", "v2 undecodable");
    bench.route("a/2", "v2 poison");
    // The backends take another step, so that there is one in which it could go.
    bench.backend("a/b", "v2 poison");
    bench.backend("a/c", "v2 poison");
    let sent = bench.settle();
    let mut found = rejected(&bench);
    found.sort();
    assert_eq!(found, ["a/1", "a/2", "a/b", "a/c"], "{:?}", words_to("g", &sent));
    for n in 1..3 {
        assert_eq!(bench.holds("g", Kind::ApiRoute, &format!("a/{n}")).unwrap(), format!("name=a/{n} v1"));
    }
    assert!(bench.gateways["g"].removed.is_empty(), "{:?}", words_to("g", &sent));
}

#[test]
fn what_is_named_and_is_nowhere_any_more_is_removed_and_nothing_else() {
    let mut bench = with_routes(4);
    bench.ballast();
    bench.settle();
    // It takes one that it cannot load, and its replica ends.
    bench.route("a/1", "v2 poison");
    let (name, batch, first) = bench.poll().remove(0);
    bench.answer(&name, &batch, first);
    assert!(bench.gateways["g"].broken(true));
    bench.log.delete(Kind::ApiRoute, &key("a/1"));
    // The next one has just listed: of the deletion it knows nothing, and nobody
    // tells.
    bench.delivery = flotilla_core::delivery::Delivery::new(plain(), super::log::TestCompiler);
    bench.list_all();
    bench.connect("g");
    bench.route("a/2", "v2");
    let sent = bench.settle_for(Duration::from_secs(20));
    assert!(!bench.gateways["g"].broken(true), "{:?}", words_to("g", &sent));
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/2").unwrap(), "name=a/2 v2");
    let removed: Vec<String> =
        bench.gateways["g"].removed.iter().map(|(gone, _)| gone.key.to_string()).collect();
    assert_eq!(removed, ["a/1"], "{:?}", words_to("g", &sent));
    assert_eq!(bench.gateways["g"].violations, Vec::<String>::new());
}

#[test]
fn what_a_repair_removes_is_sent_again_by_a_replica_to_which_it_is_no_news() {
    let mut bench = with_routes(6);
    bench.gateway("g").mute = true;
    for n in 0..6 {
        let object = bench.log.status(Kind::ApiRoute, &key(&format!("a/{n}")), "{}");
        bench.delivery.changed(object);
    }
    let knows = std::mem::replace(
        &mut bench.delivery,
        flotilla_core::delivery::Delivery::new(plain(), super::log::TestCompiler),
    );
    // To one that has just listed, all of this is news. It has to remove much
    // to make a gateway well that says nothing of use.
    let puts = ["a/1", "a/3"].map(|name| bench.log.put(Kind::ApiRoute, &key(name), "v2 poison"));
    bench.list_all();
    bench.connect("g");
    while bench.holds("g", Kind::ApiRoute, "a/5").is_some() {
        let (name, batch, first) = bench.poll().remove(0);
        bench.answer(&name, &batch, first);
    }
    assert!(bench.delivery.applied_table().rows[0].unknown, "what it holds is not what it had");
    // It comes to the one who knows that nothing of this has changed.
    bench.delivery = knows;
    puts.into_iter().for_each(|object| bench.delivery.changed(object));
    bench.bookmark();
    bench.connect("g");
    bench.settle_for(Duration::from_secs(60));
    for n in [0, 2, 4, 5] {
        assert_eq!(bench.holds("g", Kind::ApiRoute, &format!("a/{n}")).unwrap(), format!("name=a/{n} v1"));
    }
}

#[test]
fn what_was_removed_in_the_middle_of_a_difference_does_not_come_back_by_a_rejection() {
    let mut bench = Bench::new(DeliveryConfig { batch_updates: 1, ..plain() });
    bench.route("a/1", "v1");
    bench.connected("g");
    bench.route("a/1", "v2 invalid");
    bench.route("b/1", "v1");
    let (name, batch, first) = bench.poll().remove(0);
    assert_eq!(words(&batch), ["-a/1"]);
    bench.answer(&name, &batch, first);
    bench.route("a/1", "v3 poison");
    bench.settle();
    assert_eq!(rejected(&bench), ["a/1"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1"), None);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "b/1").unwrap(), "name=b/1 v1");
    assert!(!bench.gateways["g"].broken(true));
}

/// A gateway that comes back after so much has changed that a snapshot is the
/// cheaper way, and of which nobody knows what it holds of that. One is bad.
fn comes_back_to_a_bad_snapshot() -> Bench {
    let mut bench = Bench::new(plain());
    bench.apply = Duration::from_millis(20);
    bench.backend("a/b", "v1");
    for n in 0..200 {
        bench.route(&format!("a/{n:03}"), "v1");
    }
    bench.connected("g");
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    for n in 0..50 {
        bench.route(&format!("a/{n:03}"), if n == 17 { "v2 poison" } else { "v2" });
    }
    assert!(bench.poll().is_empty());
    bench.connect("g");
    bench
}

#[test]
fn what_has_changed_since_is_not_what_its_kind_is_touched_with() {
    let mut bench = comes_back_to_a_bad_snapshot();
    let (name, batch, first) = bench.poll().remove(0);
    assert!(batch.full);
    bench.answer(&name, &batch, first);
    bench.backend("a/b", "v2 poison");
    // What it says next is of no use.
    let (name, batch, first) = bench.poll().remove(0);
    bench.gateway("g").mute = true;
    bench.answer(&name, &batch, first);
    bench.settle_for(Duration::from_secs(60));
    let mut found = rejected(&bench);
    found.sort();
    assert_eq!(found, ["a/017", "a/b"]);
    assert_eq!(bench.holds("g", Kind::Backend, "a/b").unwrap(), "name=a/b v1");
    for n in (0..50).filter(|n| *n != 17) {
        assert_eq!(
            bench.holds("g", Kind::ApiRoute, &format!("a/{n:03}")).unwrap(),
            format!("name=a/{n:03} v2")
        );
    }
    assert!(bench.gateways["g"].removed.iter().all(|(gone, _)| gone.key == key("a/017")));
    assert!(!bench.gateways["g"].broken(true) && !bench.gateways["g"].broken(false));
}

#[test]
fn words_that_come_late_save_the_innocent_all_the_same() {
    let mut bench = comes_back_to_a_bad_snapshot();
    bench.gateway("g").mute = true;
    for _ in 0..2 {
        let (name, batch, first) = bench.poll().remove(0);
        bench.answer(&name, &batch, first);
    }
    // From the second attempt on it says what it does not like.
    bench.gateway("g").mute = false;
    bench.settle_for(Duration::from_secs(60));
    assert_eq!(rejected(&bench), ["a/017"]);
    assert!(bench.gateways["g"].removed.iter().all(|(gone, _)| gone.key == key("a/017")));
    assert!(!bench.gateways["g"].broken(true));
}

#[test]
fn what_was_rejected_unheard_and_is_gone_by_now_is_removed() {
    let mut bench = with_routes(4);
    bench.route("a/new", "v1 poison");
    let (_, batch, first) = bench.poll().remove(0);
    assert_eq!(words(&batch), ["+a/new"]);
    bench.take("g", &batch, first);
    // It leaves before we hear of it, and its version does not tell.
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    bench.delete(Kind::ApiRoute, "a/new");
    bench.connect("g");
    bench.settle();
    bench.assert_equal("g");
    assert!(!bench.gateways["g"].broken(true));
}

#[test]
fn the_guard_counts_what_was_rejected_unheard_too() {
    let mut bench = Bench::new(plain());
    for n in 0..200 {
        bench.route(&format!("a/{n:03}"), "v1");
    }
    bench.connected("g");
    bench.route("a/new", "v1 poison");
    let (_, batch, first) = bench.poll().remove(0);
    bench.take("g", &batch, first);
    bench.delivery.disconnected(bench.now, &bench.session["g"].clone());
    bench.delete(Kind::ApiRoute, "a/new");
    for n in 0..50 {
        bench.route(&format!("a/{n:03}"), "v2");
    }
    bench.connect("g");
    let (name, batch, first) = bench.poll().remove(0);
    assert!(batch.full);
    bench.answer(&name, &batch, first);
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn what_is_kept_in_place_of_what_is_rejected_is_in_the_first_part_of_a_synchronisation() {
    let mut bench = forgets_deletions_after_a_rejection(60);
    let sent = bench.settle_for(Duration::from_secs(60));
    let first = sent.iter().find(|(_, batch)| batch.full).map(|(_, batch)| words(batch)).unwrap();
    assert!(first[1].contains(" a/59|") && first.len() > 2, "{first:?}");
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/59").unwrap(), format!("name=a/59 {}", "x".repeat(200)));
    assert_eq!(bench.gateways["g"].table.len(), 56);
    let table = bench.delivery.applied_table();
    assert_eq!(table.rows[0].excluded.len(), 1);
    assert_eq!(table.rejections.len(), 1, "its status says why: {table:?}");
}

/// A gateway that rejected its last route, and has to be synchronised fully because
/// more was deleted than is remembered while it was busy.
fn forgets_deletions_after_a_rejection(routes: usize) -> Bench {
    let config = DeliveryConfig {
        message_limit: 10_000,
        batch_bytes: 100_000,
        batch_updates: 3,
        tombstones: 2,
        ..plain()
    };
    let mut bench = Bench::new(config);
    for n in 0..routes {
        bench.route(&format!("a/{n:02}"), &"x".repeat(200));
    }
    bench.connected("g");
    bench.pass(Duration::from_secs(60));
    let last = format!("a/{:02}", routes - 1);
    bench.route(&last, "undecodable");
    bench.settle();
    assert_eq!(rejected(&bench), [last]);
    bench.route("a/00", "v2");
    let (name, batch, first) = bench.poll().remove(0);
    for n in 1..5 {
        bench.delete(Kind::ApiRoute, &format!("a/{n:02}"));
    }
    bench.answer(&name, &batch, first);
    bench.settle();
    for (kind, since) in std::mem::take(&mut bench.asked) {
        bench.delivery.history_unavailable(kind, since);
    }
    bench
}

#[test]
fn what_is_kept_in_place_of_what_is_rejected_is_in_every_part_that_is_tried() {
    let mut bench = forgets_deletions_after_a_rejection(20);
    bench.gateway("g").mute = true;
    bench.route("a/07", "v2 poison");
    let sent = bench.settle_for(Duration::from_secs(60));
    let probes = sent.iter().filter(|(_, batch)| batch.full).count();
    assert!(probes > 2, "{:?}", words_to("g", &sent));
    assert_eq!(rejected(&bench), ["a/19", "a/07"]);
    let gateway = &bench.gateways["g"];
    assert!(gateway.removed.iter().all(|(gone, _)| gone.key != key("a/19")), "{:?}", words_to("g", &sent));
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/19").unwrap(), format!("name=a/19 {}", "x".repeat(200)));
}

#[test]
fn nothing_is_kept_of_what_is_not_to_be_delivered_at_all() {
    let config = DeliveryConfig { tombstones: 2, ..plain() };
    let mut bench = Bench::new(config);
    for n in 0..8 {
        bench.route(&format!("a/{n}"), "v1");
    }
    bench.route("a/young", "v1 takes=x");
    bench.connected("g");
    bench.pass(Duration::from_secs(60));
    bench.route("a/young", "v2 takes=x undecodable");
    bench.settle();
    assert_eq!(rejected(&bench), ["a/young"]);
    // While the gateway is busy more is deleted than is remembered, and before it is
    // synchronised an older one takes what that one claims.
    bench.route("a/7", "v2");
    let (name, batch, first) = bench.poll().remove(0);
    for n in 1..6 {
        bench.delete(Kind::ApiRoute, &format!("a/{n}"));
    }
    bench.answer(&name, &batch, first);
    bench.settle();
    for (kind, since) in std::mem::take(&mut bench.asked) {
        bench.delivery.history_unavailable(kind, since);
    }
    bench.route("a/0", "v2 takes=x");
    let sent = bench.settle_for(Duration::from_secs(60));
    assert!(sent.iter().any(|(_, batch)| batch.full), "{:?}", words_to("g", &sent));
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/young"), None, "{:?}", words_to("g", &sent));
}

#[test]
fn a_gateway_that_rejects_what_it_took_before_accuses_nobody() {
    let mut bench = Bench::new(plain());
    for n in 0..16 {
        bench.route(&format!("a/{n:02}"), if n == 12 { "v1 poison" } else { "v1" });
    }
    bench.gateway("g").mute = true;
    bench.connect("g");
    for _ in 0..3 {
        let (name, batch, first) = bench.poll().remove(0);
        bench.answer(&name, &batch, first);
    }
    bench.gateway("g").sick = true;
    let sent = bench.settle();
    assert!(sent.len() < 64, "{:?}", words_to("g", &sent));
    assert!(bench.notices.iter().any(|notice| matches!(notice, Notice::Unrepairable { .. })));
    bench.gateway("g").sick = false;
    bench.settle_for(Duration::from_secs(120));
    assert_eq!(bench.gateways["g"].table.len(), 15);
}

#[test]
fn what_is_rejected_is_so_again_when_it_wins_back_what_it_claims() {
    let mut bench = with_routes(2);
    bench.route("a/0", "v2 takes=x");
    bench.route("a/1", "v2 takes=x");
    bench.settle();
    bench.route("a/0", "v3");
    bench.route("a/1", "v3 takes=x undecodable");
    bench.settle();
    assert_eq!(rejected(&bench), ["a/1"]);
    bench.route("a/0", "v4 takes=x");
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1"), None);
    bench.route("a/0", "v5");
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/1"), None);
    let table = bench.delivery.applied_table();
    assert_eq!(table.rejections.len(), 1, "its status says why: {table:?}");
    bench.route("a/1", "v6 takes=x");
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn what_a_list_alone_would_have_let_win_is_nobodys_last_good_version() {
    let mut bench = with_routes(0);
    bench.route("a/old", "v1 takes=x");
    bench.route("a/young", "v1 takes=y");
    bench.settle();
    bench.route("a/old", "v2 takes=y");
    bench.settle();
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/young"), None);
    // Our watch was cut: at no time did it win what the other one gave up.
    bench.log.put(Kind::ApiRoute, &key("a/young"), "v2 undecodable");
    bench.log.put(Kind::ApiRoute, &key("a/old"), "v3 takes=x");
    bench.list_all();
    bench.settle();
    assert_eq!(rejected(&bench), ["a/young"]);
    assert_eq!(bench.holds("g", Kind::ApiRoute, "a/young"), None);
}
