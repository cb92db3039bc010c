//! I2, I4, I5 and I8: what single gateways hold.

use flotilla_observer::{Content, Event, Invariant, Refused, Removal};

use crate::fleet::{Fleet, PLAIN, Spec};

#[test]
fn forward_over_reconnects_is_fine() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    let second = fleet.write(route, Spec { generation: 2, ..PLAIN });
    fleet.holds(gateway, route, first);
    fleet.see(&Event::Disconnected { gateway });
    fleet.connect(gateway, "r1");
    fleet.holds(gateway, route, first);
    fleet.holds(gateway, route, second);
    fleet.is_fine();
}

#[test]
fn a_gateway_that_goes_back_is_reported_on_whatever_replica() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    let second = fleet.write(route, Spec { generation: 2, ..PLAIN });
    fleet.holds(gateway, route, second);
    fleet.see(&Event::Disconnected { gateway });
    fleet.connect(gateway, "r1");
    fleet.holds(gateway, route, first);
    fleet.breaks(Invariant::I2, &["g went back", "APIRoute team-a/web", "revision 102"]);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    fleet.holds(gateway, route, first);
    fleet.delete(route);
    fleet.loses(gateway, route);
    fleet.is_fine();
    fleet.holds(gateway, route, first);
    fleet.breaks(Invariant::I2, &["g went back to content 1", "revision 102"]);
}

#[test]
fn what_a_gateway_refused_may_have_gone_from_it_before_it_was_deleted() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    fleet.holds(gateway, route, first);
    fleet.write(route, Spec { generation: 2, refused: Refused::By(&[gateway]), ..PLAIN });
    let third = fleet.write(route, Spec { generation: 3, ..PLAIN });
    fleet.delete(route);
    // Its replica has not heard of the third yet.
    fleet.loses(gateway, route);
    fleet.holds(gateway, route, third);
    fleet.is_fine();
    fleet.loses(gateway, route);
    fleet.holds(gateway, route, third);
    fleet.breaks(Invariant::I2, &["g went back to content 3"]);
}

#[test]
fn a_gateway_that_starts_again_may_begin_anywhere() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    let second = fleet.write(route, Spec { generation: 2, ..PLAIN });
    fleet.holds(gateway, route, second);
    fleet.see(&Event::GatewayRestarted { gateway });
    fleet.connect(gateway, "r1");
    fleet.holds(gateway, route, first);
    fleet.is_fine();
}

#[test]
fn what_nobody_wrote_there_is_reported() {
    let mut fleet = Fleet::new();
    let (gateway, route, other) = (fleet.gateway("g"), fleet.route("web"), fleet.route("api"));
    fleet.write(route, PLAIN);
    let elsewhere = fleet.write(other, PLAIN);
    fleet.holds(gateway, route, elsewhere);
    fleet.breaks(Invariant::I3, &["content 2", "APIRoute team-a/web"]);
}

#[test]
fn what_cannot_be_delivered_and_is_delivered_is_reported() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let broken = fleet.write(route, Spec { valid: false, ..PLAIN });
    fleet.holds(gateway, route, broken);
    fleet.breaks(Invariant::I3, &["none is to have"]);
}

#[test]
fn removals_that_tenants_asked_for_are_fine() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    fleet.holds(gateway, route, first);
    fleet.delete(route);
    let second = fleet.write(route, Spec { uid: 2, ..PLAIN });
    // The gateway is behind: the deletion reaches it before the new object.
    fleet.loses(gateway, route);
    fleet.holds(gateway, route, second);
    fleet.write(route, Spec { uid: 2, generation: 2, valid: false, ..PLAIN });
    fleet.loses(gateway, route);
    fleet.is_fine();
    assert_eq!(fleet.observer.tally().removed, 2);
}

#[test]
fn a_removal_that_nobody_asked_for_is_reported() {
    for by in [Removal::Deletion, Removal::Snapshot] {
        let mut fleet = Fleet::new();
        let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
        let first = fleet.write(route, PLAIN);
        fleet.holds(gateway, route, first);
        fleet.see(&Event::Dropped { gateway, object: route, by });
        fleet.breaks(Invariant::I4, &["g lost APIRoute team-a/web", "revision 101"]);
    }
}

#[test]
fn a_removal_whose_reason_is_superseded_is_reported() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    fleet.write(route, PLAIN);
    fleet.delete(route);
    let second = fleet.write(route, Spec { uid: 2, ..PLAIN });
    fleet.holds(gateway, route, second);
    fleet.loses(gateway, route);
    fleet.breaks(Invariant::I4, &["g lost APIRoute team-a/web"]);
}

#[test]
fn whoever_refuses_a_content_may_lose_the_one_before() {
    let mut fleet = Fleet::new();
    let (gateway, picky, route) = (fleet.gateway("g"), fleet.gateway("picky"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    fleet.holds(picky, route, first);
    fleet.holds(gateway, route, first);
    fleet.write(route, Spec { generation: 2, refused: Refused::By(&[picky]), ..PLAIN });
    fleet.see(&Event::Dropped { gateway: picky, object: route, by: Removal::Snapshot });
    fleet.holds(picky, route, first);
    fleet.is_fine();
    fleet.see(&Event::Dropped { gateway, object: route, by: Removal::Snapshot });
    fleet.breaks(Invariant::I4, &["g lost"]);
}

#[test]
fn what_a_gateway_does_not_ask_for_any_more_goes() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    fleet.holds(gateway, route, first);
    let (instance, other) = (fleet.instance("r1"), fleet.namespace("team-b"));
    fleet.see(&Event::Connected { gateway, instance, namespaces: &[other], kinds: 0 });
    fleet.loses(gateway, route);
    fleet.is_fine();
}

#[test]
fn a_gateway_without_a_stream_keeps_what_it_has() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    fleet.holds(gateway, route, first);
    fleet.see(&Event::Disconnected { gateway });
    fleet.delete(route);
    fleet.is_fine();
    fleet.loses(gateway, route);
    fleet.breaks(Invariant::I5, &["g lost", "without a stream"]);
}

#[test]
fn of_two_that_claim_the_same_the_oldest_is_delivered() {
    let mut fleet = Fleet::new();
    let (gateway, old, young) = (fleet.gateway("g"), fleet.route("z"), fleet.route("a"));
    let claim = Some(7);
    let winner = fleet.write(old, Spec { claim, created: 1, ..PLAIN });
    let loser = fleet.write(young, Spec { claim, created: 2, ..PLAIN });
    fleet.holds(gateway, old, winner);
    // When the older one goes, the younger one is delivered.
    fleet.delete(old);
    fleet.loses(gateway, old);
    fleet.holds(gateway, young, loser);
    fleet.is_fine();
    // An older one that comes to claim the same displaces it.
    fleet.write(old, Spec { uid: 2, claim, created: 1, ..PLAIN });
    fleet.loses(gateway, young);
    fleet.is_fine();
}

#[test]
fn a_younger_one_that_is_delivered_beside_the_oldest_is_reported() {
    let mut fleet = Fleet::new();
    let (gateway, old, young) = (fleet.gateway("g"), fleet.route("z"), fleet.route("a"));
    let claim = Some(7);
    fleet.write(old, Spec { claim, created: 1, ..PLAIN });
    let loser = fleet.write(young, Spec { claim, created: 2, ..PLAIN });
    fleet.holds(gateway, young, loser);
    fleet.breaks(Invariant::I3, &["APIRoute team-a/a", "none is to have"]);
}

#[test]
fn at_the_same_age_names_decide() {
    let mut fleet = Fleet::new();
    let (gateway, z, a) = (fleet.gateway("g"), fleet.route("z"), fleet.route("a"));
    let claim = Some(7);
    fleet.write(z, Spec { claim, ..PLAIN });
    let winner = fleet.write(a, Spec { claim, ..PLAIN });
    fleet.holds(gateway, a, winner);
    fleet.is_fine();
}

#[test]
fn admissions_of_the_same_claim_are_reported_when_both_are_written() {
    for both in [false, true] {
        let mut fleet = Fleet::new();
        for (name, allowed) in [("a", true), ("b", both)] {
            let object = fleet.route(name);
            fleet.see(&Event::Admission { object, claim: 7, allowed });
        }
        for name in ["a", "b"] {
            let object = fleet.route(name);
            fleet.write(object, Spec { claim: Some(7), ..PLAIN });
        }
        match both {
            // Whoever goes past admission is no fault of it.
            false => fleet.is_fine(),
            true => fleet.breaks(Invariant::I8, &["APIRoute team-a/b", "APIRoute team-a/a"]),
        }
    }
}

#[test]
fn numbers_of_contents_need_no_order() {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    fleet.holds(gateway, route, Content(99));
    fleet.breaks(Invariant::I3, &["content 99"]);
}
