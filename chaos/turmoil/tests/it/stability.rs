//! What replicas cannot know, they take from nobody: an hour without an API
//! server, kinds that are refused, missing or silent, and a past that is told as
//! the present. Time is simulated: an hour takes a minute or so.

use std::time::Duration;

use flotilla_apiserver::{Effect, Verb};
use flotilla_turmoil::{Fleet, MEMBERS, Shape};

use crate::{TWO, seconds, with};

/// One: every seed is an hour and more.
const SEEDS: u64 = 1;
const READS: [Verb; 3] = [Verb::Get, Verb::List, Verb::Watch];

fn minutes(minutes: u64) -> Duration {
    seconds(60 * minutes)
}

fn restart_all(fleet: &mut Fleet, shape: Shape) -> anyhow::Result<()> {
    for member in &MEMBERS[..shape.replicas] {
        fleet.crash(member);
    }
    let away = fleet.below(5_000);
    fleet.pass(Duration::from_millis(away))?;
    for member in &MEMBERS[..shape.replicas] {
        fleet.start(member);
    }
    Ok(())
}

#[test]
fn an_hour_without_an_api_server_takes_nothing_from_a_gateway() {
    with(SEEDS, TWO, |fleet| {
        for member in &MEMBERS[..2] {
            fleet.network().partition(*member, "api");
        }
        // Who cannot renew stops acting, and nobody else begins.
        fleet.until("nobody to act", 30, |fleet| (0..2).all(|index| fleet.actors(index).is_empty()))?;
        fleet.pass(minutes(20))?;
        // Meanwhile a gateway has to go to another replica, and its former one starts
        // again and knows nothing.
        let before = fleet.server().expect("it is served");
        fleet.network().partition("gateway", before);
        fleet.until("another replica", 120, |fleet| fleet.server() != Some(before))?;
        fleet.network().repair("gateway", before);
        fleet.crash(before);
        fleet.start(before);
        fleet.pass(minutes(40))?;
        anyhow::ensure!(fleet.holds(1), "it serves on with what it had");
        anyhow::ensure!((0..2).all(|index| fleet.actors(index).is_empty()), "somebody acts");
        fleet.nothing_was_taken()?;
        for member in &MEMBERS[..2] {
            fleet.network().repair(*member, "api");
        }
        fleet.write(2);
        fleet.until("the change", 120, |fleet| fleet.holds(2))?;
        fleet.until("owners of all namespaces", 120, Fleet::is_owned)?;
        fleet.nothing_was_taken()
    });
}

#[test]
fn kinds_that_cannot_be_read_take_nothing_from_a_gateway() {
    with(SEEDS, TWO, |fleet| {
        let status = |code| Effect::Status { code, retry_after: None };
        // The right is taken away, the definition is missing, nothing answers.
        let effects = [status(403), status(404), Effect::Hang];
        for (effect, number) in effects.into_iter().zip(2..) {
            let half = ["apiroutes", "backends"].map(|kind| fleet.trouble(kind, &READS, effect.clone()));
            fleet.write(number);
            // Replicas that know everything, and then replicas that know nothing.
            fleet.pass(minutes(2))?;
            restart_all(fleet, TWO)?;
            fleet.pass(minutes(4))?;
            anyhow::ensure!(fleet.holds(number - 1), "it serves on with what it had: {effect:?}");
            fleet.nothing_was_taken()?;
            for rule in half {
                let (api, rule) = (fleet.api()?, rule?);
                anyhow::ensure!(api.faults().hits(rule) > 0, "nothing went wrong: {effect:?}");
                api.faults().remove(rule);
            }
            fleet.until("the change", 120, |fleet| fleet.holds(number))?;
        }
        fleet.nothing_was_taken()
    });
}

#[test]
fn a_kind_that_is_told_as_it_was_long_ago_takes_nothing_from_a_gateway() {
    with(SEEDS, TWO, |fleet| {
        let past = fleet.api()?.revision();
        fleet.write(2);
        fleet.until("the change", 60, |fleet| fleet.holds(2))?;
        // What is old by then is what the replicas are told again.
        fleet.pass(minutes(10))?;
        let stale = [
            fleet.trouble("apiroutes", &[Verb::Get, Verb::List], Effect::StaleRead { revision: past })?,
            fleet.trouble("apiroutes", &[Verb::Watch], Effect::FreezeEvents)?,
        ];
        fleet.write(3);
        fleet.pass(minutes(2))?;
        restart_all(fleet, TWO)?;
        fleet.pass(minutes(4))?;
        anyhow::ensure!(fleet.holds(2), "it serves on with what it had");
        fleet.nothing_was_taken()?;
        for rule in stale {
            anyhow::ensure!(fleet.api()?.faults().hits(rule) > 0, "nothing went wrong");
            fleet.api()?.faults().remove(rule);
        }
        fleet.until("the present", 120, |fleet| fleet.holds(3))?;
        fleet.nothing_was_taken()
    });
}
