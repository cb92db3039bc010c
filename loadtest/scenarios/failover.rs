//! Replicas end and come back while changes are made: one after the other by a
//! schedule, or all in turn as in a rolling update.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::bench::Bench;
use crate::cli::{Failover, Steady};
use crate::fleet::{Ending, Fleet};
use crate::report::{Conditions, Measured, Report, Spread, say};
use crate::workload::Whose;

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    /// How replicas were ended.
    ending: Ending,
    /// How many were.
    ended: u32,
    controller: Spread,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        vec![("controller".to_owned(), &self.controller)]
    }
}

/// Ends one replica every few seconds, each in its turn; `false` when something
/// went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn failover(args: &Failover) -> anyhow::Result<bool> {
    let run = Duration::from_secs(u64::from(args.steady.seconds));
    let (every, down) = (Duration::from_secs_f64(args.every), Duration::from_secs_f64(args.down));
    anyhow::ensure!(down < every, "--down {:?} must be shorter than --every {:?}", args.down, args.every);
    disturbed("failover", &args.steady, args.ending, async |fleet: &mut Fleet| {
        let all = fleet.replicas();
        anyhow::ensure!(
            (args.at_once as usize) < all.max(2),
            "--at-once {} is too much for {all} replicas, of which one must be left",
            args.at_once
        );
        let begun = Instant::now();
        let (mut rounds, mut ended) = (0, 0);
        while every * (rounds + 1) < run {
            sleep_until(begun + every * (rounds + 1)).await;
            let hit: Vec<usize> = (ended..ended + args.at_once).map(|one| one as usize % all).collect();
            for &index in &hit {
                fleet.end(index, args.ending).await?;
            }
            sleep_until(begun + every * (rounds + 1) + down).await;
            for index in hit {
                fleet.start_again(index).await?;
            }
            (rounds, ended) = (rounds + 1, ended + args.at_once);
        }
        Ok(ended)
    })
    .await
}

/// Restarts all replicas, the last first, each when the one before serves again;
/// `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn rolling(args: &Steady) -> anyhow::Result<bool> {
    disturbed("rolling", args, Ending::Term, async |fleet: &mut Fleet| {
        restart(fleet, 0..fleet.replicas()).await?;
        Ok(fleet.replicas() as u32)
    })
    .await
}

/// Restarts these replicas as a StatefulSet does it.
///
/// # Errors
/// When they are not its own.
pub async fn restart(fleet: &mut Fleet, which: Range<usize>) -> anyhow::Result<()> {
    for index in which.rev() {
        fleet.end(index, Ending::Term).await?;
        fleet.start_again(index).await?;
    }
    Ok(())
}

async fn disturbed(
    scenario: &'static str,
    steady: &Steady,
    ending: Ending,
    meanwhile: impl AsyncFnOnce(&mut Fleet) -> anyhow::Result<u32>,
) -> anyhow::Result<bool> {
    let mut bench = Bench::open(&steady.fleet, steady.size, true).await?;
    let (controller, ended) = bench.changes(steady.pace(Whose::All), meanwhile).await?;
    controller.say(scenario);
    say(&format!("{ended} replicas were ended"));
    let found = Found { rate: steady.rate, seconds: steady.seconds, ending, ended, controller };
    let conditions = Conditions::new(scenario, &steady.fleet, steady.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&steady.fleet)
}
