//! I1: who acts.

use flotilla_observer::{Event, Invariant, Ready};

use crate::fleet::{Fleet, PLAIN};

#[test]
fn one_after_the_other_is_fine() {
    let mut fleet = Fleet::new();
    fleet.until("r0/1", 5);
    fleet.until("r1/1", 60);
    fleet.acts("r0/1", 1);
    fleet.acts("r0/1", 2);
    fleet.stops("r0/1");
    fleet.acts("r1/1", 3);
    fleet.is_fine();
}

#[test]
fn whoever_takes_over_after_the_others_time_is_fine() {
    let mut fleet = Fleet::new();
    fleet.until("r0/1", 5);
    fleet.acts("r0/1", 1);
    fleet.sleep(5);
    fleet.until("r1/1", 5);
    fleet.acts("r1/1", 2);
    fleet.is_fine();
}

#[test]
fn whoever_takes_over_from_the_dead_is_fine() {
    let mut fleet = Fleet::new();
    fleet.until("r0/1", 5);
    fleet.until("r1/1", 5);
    fleet.acts("r0/1", 1);
    let instance = fleet.instance("r0/1");
    fleet.see(&Event::InstanceEnded { instance });
    fleet.acts("r1/1", 2);
    fleet.is_fine();
}

#[test]
fn two_that_act_at_once_are_reported() {
    let mut fleet = Fleet::new();
    fleet.until("r0/1", 5);
    fleet.until("r1/1", 5);
    fleet.acts("r0/1", 1);
    fleet.sleep(4);
    fleet.acts("r1/1", 2);
    fleet.breaks(Invariant::I1, &["r1/1", "team-a", "epoch 2", "r0/1", "epoch 1"]);
}

#[test]
fn whoever_revives_its_time_while_another_acts_is_reported() {
    let mut fleet = Fleet::new();
    fleet.until("r0/1", 5);
    fleet.acts("r0/1", 1);
    fleet.sleep(6);
    fleet.until("r1/1", 5);
    fleet.acts("r1/1", 2);
    fleet.is_fine();
    fleet.until("r0/1", 5);
    fleet.breaks(Invariant::I1, &["r0/1", "r1/1"]);
}

#[test]
fn with_a_clock_that_is_wrong_only_writes_count() {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    fleet.write(route, PLAIN);
    fleet.until("r0/1", 60);
    fleet.until("r1/1", 60);
    let instance = fleet.instance("r0/1");
    fleet.see(&Event::ClockUntrusted { instance });
    fleet.acts("r0/1", 1);
    fleet.acts("r1/1", 2);
    // It changes nothing that the later owner wrote.
    fleet.says("r0/1", route, 1, Ready::NoGateways);
    fleet.says("r1/1", route, 1, Ready::NoGateways);
    fleet.is_fine();
    fleet.says("r0/1", route, 1, Ready::Invalid);
    fleet.breaks(Invariant::I1, &["r0/1", "APIRoute team-a/web", "later owner"]);
}

#[test]
fn a_late_write_over_a_later_owners_is_reported() {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    fleet.write(route, PLAIN);
    fleet.until("r0/1", 5);
    fleet.acts("r0/1", 1);
    fleet.sleep(10);
    fleet.until("r1/1", 60);
    fleet.acts("r1/1", 2);
    // Nobody has written since: it does no harm that is not corrected.
    fleet.says("r0/1", route, 1, Ready::NoGateways);
    fleet.says("r1/1", route, 1, Ready::NoGateways);
    fleet.is_fine();
    assert_eq!(fleet.observer.tally().late, 1);
    fleet.says("r0/1", route, 1, Ready::Invalid);
    fleet.breaks(Invariant::I1, &["r0/1", "APIRoute team-a/web"]);
}

#[test]
fn an_object_that_follows_another_at_its_place_is_written_anew() {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    fleet.write(route, PLAIN);
    for (instance, epoch) in [("r0/1", 1), ("r1/1", 2)] {
        fleet.until(instance, 5);
        fleet.acts(instance, epoch);
        fleet.sleep(10);
    }
    fleet.says("r1/1", route, 1, Ready::NoGateways);
    fleet.delete(route);
    fleet.write(route, crate::fleet::Spec { uid: 2, ..PLAIN });
    fleet.says("r0/1", route, 1, Ready::NoGateways);
    fleet.is_fine();
}

#[test]
fn a_write_by_someone_who_never_acted_is_reported() {
    let mut fleet = Fleet::new();
    let route = fleet.route("web");
    fleet.write(route, PLAIN);
    fleet.says("r0/1", route, 1, Ready::NoGateways);
    fleet.breaks(Invariant::I1, &["r0/1", "never acted on team-a"]);
}
