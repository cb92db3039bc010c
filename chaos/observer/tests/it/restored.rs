//! What may be otherwise after the API server's log was replaced, and what may not.

use flotilla_observer::{Claim, Content, Event, GatewayId, Invariant, Map, ObjectId, Past, Ready};

use crate::fleet::{Fleet, PLAIN, Spec};

/// A route in its second content, which a gateway has, and its first content.
fn second() -> (Fleet, GatewayId, ObjectId, Content) {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let first = fleet.write(route, PLAIN);
    let second = fleet.write(route, Spec { generation: 2, ..PLAIN });
    fleet.holds(gateway, route, second);
    (fleet, gateway, route, first)
}

/// The route is what it was when it was first written.
fn restore(fleet: &mut Fleet, route: ObjectId, first: Content) {
    let says = Some(Claim { generation: 1, ready: Ready::True { gateways: 1 } });
    let past = Past { content: first, uid: 1, generation: 1, says, same: false };
    fleet.see(&Event::HistoryReplaced);
    fleet.see(&Event::Restored { object: route, revision: 101, past: Some(past) });
}

#[test]
fn what_is_restored_is_what_gateways_are_to_hold() {
    let (mut fleet, gateway, route, first) = second();
    restore(&mut fleet, route, first);
    fleet.holds(gateway, route, first);
    fleet.see(&Event::Quiet);
    fleet.is_fine();
}

#[test]
fn whoever_keeps_what_is_no_more_is_reported() {
    let (mut fleet, _, route, first) = second();
    restore(&mut fleet, route, first);
    fleet.see(&Event::Quiet);
    fleet.breaks(Invariant::I3, &["g holds content 2 of APIRoute team-a/web", "content 1"]);
}

#[test]
fn whoever_has_seen_the_restored_does_not_go_back_to_what_was_before() {
    let (mut fleet, gateway, route, first) = second();
    restore(&mut fleet, route, first);
    fleet.holds(gateway, route, first);
    fleet.holds(gateway, route, Content(2));
    fleet.breaks(Invariant::I2, &["g went back to content 2"]);
}

#[test]
fn what_the_backup_lacks_is_to_go_and_nothing_else() {
    let (mut fleet, gateway, route, _) = second();
    let other = fleet.backend("db");
    let there = fleet.write(other, PLAIN);
    fleet.holds(gateway, other, there);
    fleet.see(&Event::HistoryReplaced);
    let past = Past { content: there, uid: 1, generation: 1, says: None, same: true };
    fleet.see(&Event::Restored { object: other, revision: 100, past: Some(past) });
    fleet.see(&Event::Restored { object: route, revision: 100, past: None });
    fleet.loses(gateway, route);
    fleet.is_fine();
    fleet.loses(gateway, other);
    fleet.breaks(Invariant::I4, &["g lost Backend team-a/db"]);
}

#[test]
fn whoever_acted_before_is_not_held_to_what_is_no_more() {
    let mut fleet = Fleet::new();
    fleet.until("r0/1", 60);
    fleet.acts("r0/1", 7);
    fleet.see(&Event::HistoryReplaced);
    fleet.until("r1/2", 60);
    fleet.acts("r1/2", 3);
    let map =
        Map { epoch: 3, members: &[0, 1], seats: &[0, 1], owners: &[1], homes: &[1], pins: &[], basis: None };
    fleet.see(&Event::MapPublished(map));
    fleet.is_fine();
    fleet.until("r2/3", 60);
    fleet.acts("r2/3", 4);
    fleet.breaks(Invariant::I1, &["r2/3 acts on team-a", "r1/2"]);
}
