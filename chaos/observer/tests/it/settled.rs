//! I3: what must be equal when all has rested, and what statuses say.

use flotilla_observer::{Event, Invariant, Ready, Refused};

use crate::fleet::{Fleet, PLAIN, Spec};

/// Two gateways that hold one route, and a status that says so.
fn settled() -> Fleet {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    let content = fleet.write(route, PLAIN);
    for name in ["g", "h"] {
        let gateway = fleet.gateway(name);
        fleet.holds(gateway, route, content);
    }
    fleet.until("r0", 600);
    fleet.acts("r0", 1);
    fleet.says("r0", route, 1, Ready::True { gateways: 2 });
    fleet
}

#[test]
fn equal_gateways_and_true_statuses_are_fine() {
    let mut fleet = settled();
    fleet.see(&Event::Quiet);
    fleet.is_fine();
    assert_eq!(fleet.observer.tally().settled, 1);
}

#[test]
fn a_gateway_that_lacks_something_is_reported() {
    let mut fleet = settled();
    let route = fleet.route("web");
    fleet.write(route, Spec { generation: 2, ..PLAIN });
    fleet.says("r0", route, 2, Ready::Progress { applied: 0, gateways: 2 });
    fleet.see(&Event::Quiet);
    fleet.breaks(Invariant::I3, &["g holds content 1 of APIRoute team-a/web", "content 2"]);
}

#[test]
fn a_gateway_that_kept_what_is_gone_is_reported() {
    let mut fleet = settled();
    let route = fleet.route("web");
    fleet.delete(route);
    fleet.see(&Event::Quiet);
    fleet.breaks(Invariant::I3, &["g holds content 1", "Gone"]);
}

#[test]
fn a_gateway_that_is_away_is_not_looked_at() {
    let mut fleet = settled();
    let route = fleet.route("web");
    for name in ["g", "h"] {
        let gateway = fleet.gateway(name);
        fleet.see(&Event::Disconnected { gateway });
    }
    fleet.says("r0", route, 1, Ready::NoGateways);
    fleet.see(&Event::Quiet);
    fleet.is_fine();
}

#[test]
fn references_are_to_be_resolved_as_things_are() {
    let mut fleet = Fleet::new();
    let (gateway, route, backend) = (fleet.gateway("g"), fleet.route("web"), fleet.backend("shop"));
    let content = fleet.write(route, Spec { references: &[backend], ..PLAIN });
    fleet.until("r0", 600);
    fleet.acts("r0", 1);
    fleet.see(&Event::Holds { gateway, object: route, content, resolved: 0 });
    fleet.says("r0", route, 1, Ready::True { gateways: 1 });
    fleet.see(&Event::Quiet);
    fleet.is_fine();
    let shop = fleet.write(backend, PLAIN);
    fleet.holds(gateway, backend, shop);
    fleet.says("r0", backend, 1, Ready::True { gateways: 1 });
    fleet.see(&Event::Quiet);
    fleet.breaks(Invariant::I3, &["g holds content 1 of APIRoute team-a/web", "as 1"]);
}

#[test]
fn whoever_refuses_a_content_keeps_the_one_before_or_nothing() {
    for keeps in [true, false] {
        let mut fleet = settled();
        let (route, picky) = (fleet.route("web"), fleet.gateway("h"));
        let second = fleet.write(route, Spec { generation: 2, refused: Refused::By(&[picky]), ..PLAIN });
        let gateway = fleet.gateway("g");
        fleet.holds(gateway, route, second);
        if !keeps {
            fleet.loses(picky, route);
        }
        fleet.says("r0", route, 2, Ready::Rejected { applied: 1, gateways: 2 });
        fleet.see(&Event::Quiet);
        fleet.is_fine();
        // That it was rejected must be said.
        fleet.says("r0", route, 2, Ready::True { gateways: 2 });
        fleet.see(&Event::Quiet);
        fleet.breaks(Invariant::I3, &["APIRoute team-a/web", "Rejected { applied: 1, gateways: 2 }"]);
    }
}

/// What a status says in the end of an object that was written with `spec`.
fn check(spec: Spec<'_>, held: bool, says: Option<(u32, Ready)>, fine: bool) {
    let mut fleet = Fleet::new();
    let (gateway, route) = (fleet.gateway("g"), fleet.route("web"));
    let content = fleet.write(route, spec);
    if held {
        fleet.holds(gateway, route, content);
    }
    fleet.until("r0", 600);
    fleet.acts("r0", 1);
    if let Some((generation, ready)) = says {
        fleet.says("r0", route, generation, ready);
    }
    fleet.see(&Event::Quiet);
    match fine {
        true => fleet.is_fine(),
        false => fleet.breaks(Invariant::I3, &["the status of APIRoute team-a/web"]),
    }
}

#[test]
fn statuses_say_what_is_true() {
    let second = Spec { generation: 2, ..PLAIN };
    let everywhere = Ready::True { gateways: 1 };
    check(second, true, Some((2, everywhere)), true);
    check(second, true, Some((1, everywhere)), false);
    check(second, true, None, false);
    check(second, true, Some((2, Ready::True { gateways: 2 })), false);
    check(second, true, Some((2, Ready::Progress { applied: 1, gateways: 1 })), false);
    let invalid = Spec { valid: false, ..PLAIN };
    check(invalid, false, Some((1, Ready::Invalid)), true);
    check(invalid, false, Some((1, Ready::NoGateways)), false);
}

#[test]
fn what_is_left_out_in_silence_may_be_counted_and_is_not_overlooked() {
    let silent = Spec { refused: Refused::Silently, ..PLAIN };
    check(silent, false, Some((1, Ready::True { gateways: 1 })), true);
    check(silent, false, Some((1, Ready::Rejected { applied: 0, gateways: 1 })), true);
    check(silent, false, Some((1, Ready::True { gateways: 2 })), false);
    check(silent, false, Some((1, Ready::Progress { applied: 0, gateways: 1 })), false);
    check(Spec { generation: 2, ..silent }, false, Some((1, Ready::True { gateways: 1 })), false);
    check(silent, false, None, false);
    let loud = Spec { refused: Refused::Everywhere, ..PLAIN };
    check(loud, false, Some((1, Ready::True { gateways: 1 })), false);
}

#[test]
fn the_status_of_an_object_does_not_speak_for_the_next_one() {
    let mut fleet = settled();
    let route = fleet.route("web");
    fleet.delete(route);
    let second = fleet.write(route, Spec { uid: 2, ..PLAIN });
    for name in ["g", "h"] {
        let gateway = fleet.gateway(name);
        fleet.holds(gateway, route, second);
    }
    fleet.see(&Event::Quiet);
    fleet.breaks(Invariant::I3, &["says nothing"]);
}

#[test]
fn a_status_that_says_everywhere_is_true_of_all_that_have_been_there() {
    let mut fleet = settled();
    let route = fleet.route("web");
    fleet.sleep(60);
    // A newcomer may be unknown to whoever writes the status.
    fleet.gateway("newcomer");
    let second = fleet.write(route, Spec { generation: 2, ..PLAIN });
    let gateway = fleet.gateway("g");
    fleet.holds(gateway, route, second);
    let gateway = fleet.observer.names_mut().gateway("h");
    fleet.holds(gateway, route, second);
    fleet.says("r0", route, 2, Ready::True { gateways: 2 });
    fleet.is_fine();
    assert_eq!(fleet.observer.tally().everywhere, 1);
}

#[test]
fn a_status_that_says_everywhere_too_early_is_reported() {
    let mut fleet = settled();
    let route = fleet.route("web");
    fleet.sleep(60);
    let second = fleet.write(route, Spec { generation: 2, ..PLAIN });
    let gateway = fleet.observer.names_mut().gateway("g");
    fleet.holds(gateway, route, second);
    fleet.says("r0", route, 2, Ready::True { gateways: 2 });
    fleet.breaks(Invariant::I3, &["r0 says of APIRoute team-a/web (generation 2)", "h has never had it"]);
}
