//! A replica dies, and its gateways come back to the others at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::bench::Bench;
use super::{SETTLE, traffic};
use crate::cli::Furnished;
use crate::fleet::Ending;
use crate::process::{Usage, wait};
use crate::report::{Conditions, Measured, Quantiles, Report, mebibytes, say};

#[derive(Debug, Serialize)]
struct Found {
    /// Gateways that lost their stream.
    lost: usize,
    /// From the kill until every gateway had a stream again; gateways wait for
    /// their own back-off of a second or more in it.
    all_back_after_ms: f64,
    /// How long gateways were without a stream.
    away_ms: Quantiles,
    /// Bytes and full synchronisations to those that came back, on average.
    bytes_per_gateway: f64,
    full_syncs: u64,
    /// Memory of the replicas that stayed, before and at most.
    rss_before: u64,
    peak_rss: u64,
    cpu_seconds: f64,
}

impl Measured for Found {}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &Furnished) -> anyhow::Result<bool> {
    let mut bench = Bench::open(&args.fleet, args.size, false).await?;
    anyhow::ensure!(bench.fleet.replicas() > 1, "--start replicas=1: gateways need another replica to go to");
    let all = args.size.gateways as usize;
    let counters = |bench: &Bench| bench.crew.counters().full_syncs.load(Ordering::Relaxed);
    let connected = |bench: &Bench| bench.crew.counters().connected.load(Ordering::Relaxed);
    wait("every gateway has a stream", SETTLE, || connected(&bench) == all).await?;
    let ((_, bytes), full_syncs) = (traffic(&bench.crew), counters(&bench));
    let losses = bench.crew.counters().losses.load(Ordering::Relaxed);
    let begun = Instant::now();
    bench.fleet.end(0, Ending::Kill).await?;
    let before = stayed(&mut bench)?;
    let lost = |bench: &Bench| (bench.crew.counters().losses.load(Ordering::Relaxed) - losses) as usize;
    wait("the replica's gateways have noticed", SETTLE, || lost(&bench) > 0).await?;
    wait("all are back", SETTLE, || connected(&bench) == all).await?;
    let took = begun.elapsed();
    // What is sent to them follows at once.
    let mut last = traffic(&bench.crew);
    let mut quiet = Instant::now();
    wait("what they are sent has come", SETTLE, || {
        let now = traffic(&bench.crew);
        if std::mem::replace(&mut last, now) != now {
            quiet = Instant::now();
        }
        quiet.elapsed() > Duration::from_secs(1)
    })
    .await?;
    let now = stayed(&mut bench)?;
    let found = Found {
        lost: lost(&bench),
        all_back_after_ms: took.as_secs_f64() * 1000.0,
        away_ms: (&bench.board.tally().away).into(),
        bytes_per_gateway: (traffic(&bench.crew).1 - bytes) as f64 / lost(&bench) as f64,
        full_syncs: counters(&bench) - full_syncs,
        rss_before: before.rss,
        peak_rss: now.peak_rss,
        cpu_seconds: now.since(&before).cpu_seconds,
    };
    say(&format!(
        "{} gateways lost their stream; all were back after {:.0} ms (away {:.0} ms p50, {:.0} ms at most); \
         {:.0} bytes each, {} full synchronisations; {:.2} s of CPU; {:.1} MiB before, {:.1} MiB at most",
        found.lost,
        found.all_back_after_ms,
        found.away_ms.p50,
        found.away_ms.max,
        found.bytes_per_gateway,
        found.full_syncs,
        found.cpu_seconds,
        mebibytes(found.rss_before),
        mebibytes(found.peak_rss)
    ));
    let conditions = Conditions::new("reconnect", &args.fleet, args.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&args.fleet)
}

fn stayed(bench: &mut Bench) -> anyhow::Result<Usage> {
    let mut sum = Usage::default();
    bench.fleet.usage_by_replica()?.iter().for_each(|usage| sum.add(usage));
    Ok(sum)
}
