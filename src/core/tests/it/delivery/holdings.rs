//! Whether a gateway holds what it acknowledged, by the sums that it offers.

use std::time::Duration;

use flotilla_core::delivery::{DeliveryConfig, Holdings, Notice, Scope};
use flotilla_core::digest::Sums;
use flotilla_core::ids::{Kind, ObjectKey};

use super::bench::{Bench, config, gateway_id, key};

/// What a gateway would say with its heartbeat now, and what comes of it.
fn compared(bench: &mut Bench, name: &str) -> Holdings {
    let gateway = &bench.gateways[name];
    let held = gateway.table.iter().map(|((kind, key), one)| (*kind, key, one.spec_json.as_ref()));
    let (sums, version) = (Sums::of(held), gateway.version.clone());
    let session = bench.session[name].clone();
    bench.delivery.heartbeat(bench.now, &session, &gateway_id(name), &version);
    bench.delivery.holds(bench.now, &session, &gateway_id(name), &version, &sums)
}

fn differences(bench: &mut Bench) -> Vec<(Vec<(Kind, ObjectKey)>, usize)> {
    bench.settle();
    let differs = |notice: Notice| match notice {
        Notice::HoldsOther { lacks, parts, .. } => Some((lacks, parts)),
        _ => None,
    };
    std::mem::take(&mut bench.notices).into_iter().filter_map(differs).collect()
}

fn furnished() -> Bench {
    let mut bench = Bench::new(DeliveryConfig { duty_cycle: 1.0, ..config() });
    for n in 0..30 {
        bench.route(&format!("team-{}/{n}", n % 3), "v1");
    }
    bench.backend("team-0/api", "b1");
    bench.connected("g");
    bench
}

#[test]
fn a_gateway_that_lost_an_object_is_noticed_by_its_name() {
    let mut bench = furnished();
    assert_eq!(compared(&mut bench, "g"), Holdings::Equal);
    let lost = (Kind::ApiRoute, key("team-1/13"));
    let resource = bench.gateway("g").table.remove(&lost).unwrap();
    assert_eq!(compared(&mut bench, "g"), Holdings::Different);
    assert_eq!(differences(&mut bench), [(vec![lost.clone()], 1)]);
    // It is said again only after a while.
    bench.pass(Duration::from_secs(30));
    assert_eq!(compared(&mut bench, "g"), Holdings::Different);
    assert_eq!(differences(&mut bench), []);
    bench.pass(Duration::from_secs(30));
    bench.gateway("g").table.insert(lost, resource);
    assert_eq!(compared(&mut bench, "g"), Holdings::Equal);
    // Another one's content in its place is noticed, too, without a name.
    let other = bench.gateways["g"].table[&(Kind::ApiRoute, key("team-0/0"))].clone();
    bench.gateway("g").table.insert((Kind::ApiRoute, key("team-2/2")), other);
    assert_eq!(compared(&mut bench, "g"), Holdings::Different);
    assert_eq!(differences(&mut bench), [(vec![], 1)]);
}

#[test]
fn nothing_is_said_while_something_is_under_way_or_news() {
    let mut bench = furnished();
    let session = bench.session["g"].clone();
    let version = bench.gateways["g"].version.clone();
    bench.route("team-0/0", "v2");
    assert_eq!(compared(&mut bench, "g"), Holdings::Apart, "it is news");
    let (_, batch, first) = bench.poll().remove(0);
    assert_eq!(compared(&mut bench, "g"), Holdings::Apart, "it is under way");
    bench.answer("g", &batch, first);
    bench.settle();
    let nothing = Sums::default();
    let late = bench.delivery.holds(bench.now, &session, &gateway_id("g"), &version, &nothing);
    assert_eq!(late, Holdings::Apart, "the version is not what it was told last");
    let stranger = bench.delivery.holds(bench.now, &session, &gateway_id("h"), &version, &nothing);
    assert_eq!(stranger, Holdings::Apart);
    assert_eq!(compared(&mut bench, "g"), Holdings::Equal);
    assert_eq!(differences(&mut bench), []);
}

#[test]
fn a_gateway_is_compared_by_what_it_asked_for() {
    let mut bench = furnished();
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    for (name, namespaces, kinds) in [
        ("some", names(&["team-1"]), [].into()),
        ("routes", names(&[]), [Kind::ApiRoute].into()),
        ("backends", names(&["team-0", "team-9"]), [Kind::Backend].into()),
    ] {
        bench.connect_scoped(name, Scope { namespaces, kinds });
        bench.settle();
        assert_eq!(compared(&mut bench, name), Holdings::Equal, "{name}");
        let (first, _) = bench.gateway(name).table.pop_first().unwrap();
        assert_eq!(compared(&mut bench, name), Holdings::Different, "{name}");
        assert_eq!(differences(&mut bench), [(vec![first], 1)], "{name}");
    }
}

#[test]
fn a_gateway_that_rejected_something_is_not_compared() {
    let mut bench = furnished();
    bench.route("team-0/0", super::gateway::POISON);
    bench.settle();
    assert_eq!(compared(&mut bench, "g"), Holdings::Apart);
    bench.route("team-0/0", "v3");
    bench.settle();
    assert_eq!(compared(&mut bench, "g"), Holdings::Equal);
    assert_eq!(differences(&mut bench), []);
}
