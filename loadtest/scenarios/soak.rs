//! Hours of changes with everything that happens in a cluster: gateways that
//! come and go, kills, rolling updates. What grows is seen.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::bench::Bench;
use crate::cli::Soak;
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
}

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    ended: u32,
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
    let (controller, (ended, samples)) =
        bench.changes(steady.pace(Whose::All), async |fleet| live(fleet, args).await).await?;
    controller.say("soak");
    let found = Found { rate: steady.rate, seconds: steady.seconds, ended, samples, controller };
    let conditions = Conditions::new("soak", &steady.fleet, steady.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&steady.fleet)
}

/// Ends a replica every `--every` seconds, by SIGKILL and SIGTERM in turn, and
/// looks at all of them before each.
async fn live(fleet: &mut Fleet, args: &Soak) -> anyhow::Result<(u32, Vec<Sample>)> {
    let (begun, every) = (Instant::now(), Duration::from_secs_f64(args.every));
    let run = Duration::from_secs(u64::from(args.steady.seconds));
    let (mut ended, mut samples) = (0, Vec::new());
    while every * (ended + 1) < run {
        sleep_until(begun + every * (ended + 1)).await;
        let Usage { rss, descriptors, cpu_seconds, .. } = fleet.usage()?;
        let seconds = begun.elapsed().as_secs_f64();
        say(&format!("{seconds:.0} s: {:.1} MiB, {descriptors} descriptors", mebibytes(rss)));
        samples.push(Sample { seconds, rss, descriptors, cpu_seconds });
        // The first replica is never ended, so that what grows in it is seen.
        let others = fleet.replicas() - 1;
        if others > 0 {
            let index = 1 + ended as usize % others;
            let how = if ended % 2 == 0 { Ending::Kill } else { Ending::Term };
            fleet.end(index, how).await?;
            fleet.start_again(index).await?;
        }
        ended += 1;
    }
    Ok((ended, samples))
}
