//! Faults of the network, and what the adapters make of them.
//!
//! `FLOTILLA_SIM_SEED=n` replays one seed, `FLOTILLA_SIM_SEEDS=n` tries so many.

mod stability;

use std::time::Duration;

use flotilla_turmoil::{Fleet, MEMBERS, Shape, seeds};

const SEEDS: u64 = 3;
const THREE: Shape = Shape { replicas: 3, namespaces: 4 };
const TWO: Shape = Shape { replicas: 2, namespaces: 2 };

/// Runs a scenario with every seed, on a fleet that has settled.
fn with_seeds(shape: Shape, scenario: impl Fn(&mut Fleet) -> anyhow::Result<()>) {
    with(SEEDS, shape, scenario);
}

fn with(usual: u64, shape: Shape, scenario: impl Fn(&mut Fleet) -> anyhow::Result<()>) {
    for seed in seeds(usual) {
        let mut fleet = Fleet::new(seed, shape).expect("certificates");
        let outcome = fleet.settle().and_then(|()| scenario(&mut fleet));
        assert!(outcome.is_ok(), "{:?}", outcome.err());
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_change_reaches_a_gateway_through_a_network_that_was_cut_and_healed() {
    with_seeds(TWO, |fleet| {
        for member in &MEMBERS[..2] {
            fleet.network().partition("gateway", *member);
        }
        fleet.write(2);
        let long = 1 + fleet.below(20);
        fleet.pass(seconds(long))?;
        anyhow::ensure!(fleet.holds(1), "it serves on with what it had");
        for member in &MEMBERS[..2] {
            fleet.network().repair("gateway", *member);
        }
        fleet.until("the change", 60, |fleet| fleet.holds(2))?;
        Ok(())
    });
}

#[test]
fn a_connection_that_is_silent_without_an_end_is_given_up_and_its_session_goes_elsewhere() {
    with_seeds(TWO, |fleet| {
        let before = fleet.server().expect("it is served");
        let quiet = fleet.below(5_000);
        fleet.pass(Duration::from_millis(quiet))?;
        fleet.network().hold("gateway", before);
        fleet.write(2);
        fleet.until("the change", 60, |fleet| fleet.holds(2))?;
        anyhow::ensure!(fleet.server() != Some(before), "it is served by another replica");
        // What was held comes late, and must not be taken for news.
        fleet.network().release("gateway", before);
        fleet.write(3);
        fleet.until("the next change", 60, |fleet| fleet.holds(3))?;
        fleet.pass(seconds(5))
    });
}

#[test]
fn peers_that_hear_each_other_only_one_way_never_act_both() {
    with_seeds(THREE, |fleet| {
        let (from, to) = (fleet.below(3) as usize, 1 + fleet.below(2) as usize);
        let (from, to) = (MEMBERS[from], MEMBERS[(from + to) % 3]);
        fleet.network().partition_oneway(from, to);
        for round in 0..3 {
            let (index, member) = (fleet.below(4) as usize, MEMBERS[fleet.below(3) as usize]);
            fleet.pin(index, member);
            let what = format!("{member} to act, round {round}");
            fleet.until(&what, 60, |fleet| fleet.actors(index) == [member])?;
        }
        fleet.network().repair_oneway(from, to);
        fleet.until("owners of all namespaces", 60, Fleet::is_owned)?;
        Ok(())
    });
}

#[test]
fn a_replica_whose_renewals_are_held_stops_before_another_acts() {
    with_seeds(THREE, |fleet| {
        let actor = fleet.actors(0).pop().expect("somebody acts");
        fleet.network().hold(actor.as_str(), "api");
        fleet.until("it to stop", 10, |fleet| fleet.actors(0) != [actor.as_str()])?;
        fleet
            .until("another to act", 60, |fleet| fleet.actors(0).first().is_some_and(|now| *now != actor))?;
        let long = fleet.below(10);
        fleet.pass(seconds(long))?;
        fleet.network().release(actor.as_str(), "api");
        fleet.pass(seconds(15))?;
        fleet.until("owners of all namespaces", 60, Fleet::is_owned)?;
        Ok(())
    });
}

/// Its renewals may arrive, and it hears nothing of them.
#[test]
fn a_replica_that_hears_no_answers_stops_before_another_acts() {
    with_seeds(THREE, |fleet| {
        let actor = fleet.actors(0).pop().expect("somebody acts");
        let moment = fleet.below(2_000);
        fleet.pass(Duration::from_millis(moment))?;
        fleet.network().partition_oneway("api", actor.as_str());
        fleet.until("it to stop", 10, |fleet| fleet.actors(0) != [actor.as_str()])?;
        fleet
            .until("another to act", 60, |fleet| fleet.actors(0).first().is_some_and(|now| *now != actor))?;
        // The gateway may be served by the one that hears nothing.
        fleet.write(2);
        let long = fleet.below(10);
        fleet.pass(seconds(long))?;
        fleet.network().repair_oneway("api", actor.as_str());
        // What was lost is not sent again by this network: a watch that is silent is given up
        // after 80 s.
        fleet.until("the change", 120, |fleet| fleet.holds(2))?;
        fleet.until("owners of all namespaces", 60, Fleet::is_owned)?;
        Ok(())
    });
}

/// It gets what is sent, and nobody hears that it did.
#[test]
fn a_gateway_whose_acknowledgements_do_not_arrive_goes_on_elsewhere() {
    with_seeds(TWO, |fleet| {
        let before = fleet.server().expect("it is served");
        fleet.network().partition_oneway("gateway", before);
        fleet.write(2);
        fleet.until("another to serve it", 120, |fleet| fleet.server().is_some_and(|now| now != before))?;
        fleet.write(3);
        fleet.until("the change", 60, |fleet| fleet.holds(3))?;
        fleet.network().repair_oneway("gateway", before);
        fleet.pass(seconds(5))
    });
}

/// What it says arrives, and what it is sent does not.
#[test]
fn a_gateway_that_hears_nothing_goes_on_elsewhere() {
    with_seeds(TWO, |fleet| {
        let before = fleet.server().expect("it is served");
        fleet.network().partition_oneway(before, "gateway");
        fleet.write(2);
        fleet.until("the change", 60, |fleet| fleet.holds(2))?;
        anyhow::ensure!(fleet.server() != Some(before), "it is served by another replica");
        fleet.network().repair_oneway(before, "gateway");
        fleet.write(3);
        fleet.until("the next change", 60, |fleet| fleet.holds(3))?;
        fleet.pass(seconds(5))
    });
}

#[test]
fn a_gateway_resumes_elsewhere_when_its_replica_crashes() {
    with_seeds(THREE, |fleet| {
        let before = fleet.server().expect("it is served");
        fleet.write(2);
        let moment = fleet.below(200);
        fleet.pass(Duration::from_millis(moment))?;
        fleet.crash(before);
        fleet.write(3);
        fleet.until("the change", 60, |fleet| fleet.holds(3))?;
        anyhow::ensure!(fleet.server() != Some(before), "it is served by another replica");
        // A snapshot says nothing: where everything changed it is the cheaper way.
        anyhow::ensure!(fleet.restarted() == 0, "it goes on where it was");
        fleet.start(before);
        fleet.write(4);
        fleet.until("the next change", 60, |fleet| fleet.holds(4))?;
        fleet.until("owners of all namespaces", 60, Fleet::is_owned)?;
        Ok(())
    });
}
