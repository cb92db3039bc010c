//! I7 and I9: how late a change may be, and how much may be kept.

use flotilla_observer::{At, Event, Invariant, Memory, Refused, Subject};

use crate::fleet::{Fleet, PLAIN, Spec};

/// Two gateways, one tenant at rest, everything sound for long; then a change.
fn changed() -> Fleet {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    fleet.gateway("g");
    fleet.gateway("h");
    fleet.sleep(100);
    fleet.write(route, PLAIN);
    fleet
}

fn arrives(fleet: &mut Fleet, name: &str, content: u32) {
    let (route, gateway) = (fleet.route("web"), fleet.observer.names_mut().gateway(name));
    fleet.holds(gateway, route, flotilla_observer::Content(content));
}

fn passes(fleet: &mut Fleet, seconds: u64) {
    fleet.sleep(seconds);
    let instance = fleet.instance("r0");
    fleet.see(&Event::ActingUntil { instance, until: At(0) });
}

#[test]
fn a_change_that_arrives_in_time_is_fine() {
    let mut fleet = changed();
    arrives(&mut fleet, "g", 1);
    arrives(&mut fleet, "h", 1);
    passes(&mut fleet, 60);
    fleet.is_fine();
    assert_eq!(fleet.observer.tally().reached, 2);
}

#[test]
fn a_change_that_does_not_arrive_is_reported() {
    let mut fleet = changed();
    arrives(&mut fleet, "g", 1);
    passes(&mut fleet, 10);
    fleet.is_fine();
    passes(&mut fleet, 10);
    fleet.breaks(Invariant::I7, &["h has not got the change of APIRoute team-a/web", "revision 101"]);
}

#[test]
fn what_is_superseded_need_not_arrive() {
    let mut fleet = changed();
    let route = fleet.route("web");
    fleet.write(route, Spec { generation: 2, ..PLAIN });
    arrives(&mut fleet, "g", 2);
    arrives(&mut fleet, "h", 2);
    passes(&mut fleet, 60);
    fleet.is_fine();
    // A gateway that never had it need not hear of its deletion.
    let mut fleet = changed();
    fleet.delete(route);
    passes(&mut fleet, 60);
    fleet.is_fine();
}

#[test]
fn a_gateway_that_is_impaired_is_not_waited_for() {
    for subject in ["gateway", "instance", "network"] {
        let mut fleet = Fleet::new();
        let route = fleet.route("web");
        let gateway = fleet.gateway("g");
        let instance = fleet.instance("r0");
        let subject = match subject {
            "gateway" => Subject::Gateway(gateway),
            "instance" => Subject::Instance(instance),
            _ => Subject::Network,
        };
        fleet.sleep(100);
        fleet.see(&Event::Impaired(subject));
        fleet.sleep(100);
        fleet.see(&Event::Recovered(subject));
        fleet.write(route, PLAIN);
        passes(&mut fleet, 60);
        fleet.is_fine();
        // Long after its recovery it is.
        fleet.sleep(100);
        fleet.write(route, Spec { generation: 2, ..PLAIN });
        passes(&mut fleet, 60);
        fleet.breaks(Invariant::I7, &["g has not got"]);
    }
}

#[test]
fn a_busy_tenant_waits_for_itself() {
    let mut fleet = changed();
    let route = fleet.route("web");
    arrives(&mut fleet, "g", 1);
    arrives(&mut fleet, "h", 1);
    let other = fleet.route("other");
    fleet.write(other, PLAIN);
    fleet.write(route, Spec { generation: 2, ..PLAIN });
    passes(&mut fleet, 60);
    fleet.is_fine();
}

#[test]
fn what_comes_back_as_it_was_has_arrived() {
    let mut fleet = Fleet::new();
    let (route, older) = (fleet.route("web"), fleet.route("older"));
    fleet.gateway("g");
    // It is displaced before any gateway has it, and comes back as it was.
    let claim = Some(7);
    let content = fleet.write(route, Spec { claim, created: 2, ..PLAIN });
    fleet.write(older, Spec { claim, created: 1, ..PLAIN });
    fleet.sleep(100);
    let latest = fleet.write(older, Spec { generation: 2, created: 1, ..PLAIN });
    let gateway = fleet.observer.names_mut().gateway("g");
    fleet.holds(gateway, route, content);
    fleet.holds(gateway, older, latest);
    passes(&mut fleet, 60);
    fleet.is_fine();
    assert!(fleet.observer.tally().reached > 0);
}

#[test]
fn whoever_refuses_it_is_not_waited_for() {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    fleet.gateway("g");
    fleet.sleep(100);
    fleet.write(route, Spec { refused: Refused::Everywhere, ..PLAIN });
    passes(&mut fleet, 60);
    fleet.is_fine();
}

/// What is kept with one object and one gateway.
fn check(figures: impl FnOnce(&mut Memory), reported: Option<&str>) {
    let mut fleet = Fleet::new();
    fleet.route("web");
    fleet.gateway("g");
    let instance = fleet.instance("r0");
    let mut memory =
        Memory { instance, sessions: 1, objects: 1, tombstones: 10, queued: 3, queued_bytes: 900 };
    figures(&mut memory);
    fleet.see(&Event::Memory(memory));
    match reported {
        None => fleet.is_fine(),
        Some(words) => fleet.breaks(Invariant::I9, &["r0", words]),
    }
}

#[test]
fn memory_is_bounded_by_objects_and_gateways() {
    check(|_| {}, None);
    check(|memory| memory.queued = 1_000, Some("1000 items kept for delivery"));
    check(|memory| memory.queued_bytes = 1_000_000, Some("1000000 bytes kept for delivery"));
    check(|memory| memory.sessions = 9, Some("9 sessions"));
    check(|memory| memory.objects = 2, Some("2 objects"));
    check(|memory| memory.tombstones = 1_000_000, Some("1000000 remembered deletions"));
}
