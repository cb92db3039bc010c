//! Hours of changes with everything that happens in a cluster: gateways that
//! come and go, kills, rolling updates. What grows is seen.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::all_hold;
use super::bench::Bench;
use super::failover::restart;
use crate::cli::Soak;
use crate::client::{Board, Crew, Model, Reading, Violations};
use crate::fleet::{Ending, Fleet};
use crate::process::Usage;
use crate::report::{Conditions, Measured, Report, Spread, mebibytes, say};
use crate::workload::Whose;

/// What all replicas together have at a time.
#[derive(Debug, Serialize)]
struct Sample {
    seconds: f64,
    rss: u64,
    descriptors: u64,
    cpu_seconds: f64,
    /// The first replica alone, which runs from the beginning to the end.
    first_rss: u64,
    first_descriptors: u64,
}

/// What was done to the fleet meanwhile.
#[derive(Debug, Default, Serialize)]
struct Done {
    kills: u32,
    rolling_restarts: u32,
    /// Gateways that came, got everything, and went.
    guests: u32,
    /// What must not have happened to them.
    violations_of_guests: Violations,
}

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    done: Done,
    samples: Vec<Sample>,
    controller: Spread,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        vec![("controller".to_owned(), &self.controller)]
    }
}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &Soak) -> anyhow::Result<bool> {
    let steady = &args.steady;
    let mut bench = Bench::open(&steady.fleet, steady.size, true).await?;
    let (controller, (done, samples)) =
        bench.changes(steady.pace(Whose::All), async |fleet| live(fleet, args).await).await?;
    controller.say("soak");
    say(&format!("{done:?}"));
    let guests_held = done.violations_of_guests.none();
    let found = Found { rate: steady.rate, seconds: steady.seconds, done, samples, controller };
    let conditions = Conditions::new("soak", &steady.fleet, steady.size);
    let report = Report { conditions, found, outcome: bench.close().await? };
    Ok(report.finish(&steady.fleet)? && guests_held)
}

/// Looks at all replicas every `--every` seconds, and then does something to the fleet,
/// in turn: a replica is killed, guests come and go, all but the first are restarted.
async fn live(fleet: &mut Fleet, args: &Soak) -> anyhow::Result<(Done, Vec<Sample>)> {
    let (begun, every) = (Instant::now(), Duration::from_secs_f64(args.every));
    let run = Duration::from_secs(u64::from(args.steady.seconds));
    let (mut done, mut samples) = (Done::default(), Vec::new());
    for round in 0.. {
        let at = every * (round + 1);
        if at >= run {
            break;
        }
        sleep_until(begun + at).await;
        samples.push(look(fleet, begun.elapsed())?);
        // The first replica is never ended, so that what grows in it is seen.
        let others = 1..fleet.replicas();
        match round % 3 {
            0 if !others.is_empty() => {
                let index = others.start + done.kills as usize % others.len();
                fleet.end(index, Ending::Kill).await?;
                fleet.start_again(index).await?;
                done.kills += 1;
            }
            2 if !others.is_empty() => {
                restart(fleet, others).await?;
                done.rolling_restarts += 1;
            }
            _ => {
                let violations = guests(fleet, args, round).await?;
                done.violations_of_guests.add(&violations);
                done.guests += args.guests;
            }
        }
    }
    Ok((done, samples))
}

fn look(fleet: &mut Fleet, passed: Duration) -> anyhow::Result<Sample> {
    let Usage { rss, descriptors, cpu_seconds, .. } = fleet.usage()?;
    // Of another's replicas nothing is known.
    let first = fleet.usage_by_replica()?.first().copied().unwrap_or_default();
    let seconds = passed.as_secs_f64();
    say(&format!(
        "{seconds:.0} s: {:.1} MiB, {descriptors} descriptors; the first replica {:.1} MiB, {}",
        mebibytes(rss),
        mebibytes(first.rss),
        first.descriptors
    ));
    Ok(Sample {
        seconds,
        rss,
        descriptors,
        cpu_seconds,
        first_rss: first.rss,
        first_descriptors: first.descriptors,
    })
}

/// Gateways come, stay until they have what is there, and go.
async fn guests(fleet: &Fleet, args: &Soak, round: u32) -> anyhow::Result<Violations> {
    let mut crew = Crew::new(Arc::new(Board::new(args.guests as usize, false)), Model::Instant);
    for guest in 0..args.guests {
        fleet.start_reader(&mut crew, &format!("guest-{round}-{guest}"), Reading::Freely)?;
    }
    all_hold(&crew, args.steady.size.routes as usize).await?;
    Ok(crew.violations())
}
