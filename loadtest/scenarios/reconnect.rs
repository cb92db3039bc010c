//! A replica dies while changes are made, and its gateways come back to the others
//! at once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::bench::Bench;
use super::{SETTLE, traffic};
use crate::cli::Reconnect;
use crate::client::{Counters, Holdings, Onlooker};
use crate::fleet::Ending;
use crate::process::{Usage, wait};
use crate::report::{Conditions, Measured, Report, Spread, mebibytes, say};
use crate::workload::Whose;

/// Changes are made for so long before the replica dies.
const BEFORE: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    /// Whether gateways that lost their stream lost what they had, too.
    forget: bool,
    /// Gateways that lost their stream.
    lost: usize,
    /// From the kill until every gateway had a stream again; gateways wait for
    /// their own back-off of a second or more in it.
    all_back_after_ms: f64,
    /// From the kill until every gateway held as many resources as there are.
    all_full_after_ms: f64,
    /// Bytes, full synchronisations included, to all gateways until then, by how
    /// many came back.
    bytes_per_gateway: f64,
    full_syncs: u64,
    /// Memory of the replicas that stayed, before, and at most until the end of
    /// the changes, their starts included.
    rss_before: u64,
    peak_rss: u64,
    /// What became of the changes.
    controller: Spread,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        vec![("controller".to_owned(), &self.controller)]
    }
}

/// What a storm was like.
struct Storm {
    lost: usize,
    back: Duration,
    full: Duration,
    bytes: u64,
    full_syncs: u64,
}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &Reconnect) -> anyhow::Result<bool> {
    let steady = &args.steady;
    let mut bench = Bench::without_gateways(&steady.fleet, steady.size, false).await?;
    anyhow::ensure!(bench.fleet.replicas() > 1, "--start replicas=1: gateways need another replica to go to");
    bench.fleet.elsewhere = args.elsewhere.map(|few| few as usize);
    bench.fill_gateways().await?;
    let before = stayed(&mut bench, 1)?;
    let onlooker = bench.crew.onlooker();
    if args.forget {
        onlooker.let_all_forget();
    }
    let routes = steady.size.routes as usize;
    let (controller, storm) = bench
        .changes(steady.pace(Whose::All), async |fleet| {
            sleep(BEFORE).await;
            let counters = onlooker.counters();
            let ((_, bytes), losses) = (traffic(&onlooker), counters.losses.load(Ordering::Relaxed));
            let full_syncs = counters.full_syncs.load(Ordering::Relaxed);
            let begun = Instant::now();
            fleet.end(0, Ending::Kill).await?;
            let lost = || (counters.losses.load(Ordering::Relaxed) - losses) as usize;
            wait("the replica's gateways have noticed", SETTLE, || lost() > 0).await?;
            wait("all are back", SETTLE, || all_connected(counters, onlooker.len())).await?;
            let back = begun.elapsed();
            wait("all hold everything", SETTLE, || all_full(&onlooker, routes)).await?;
            Ok(Storm {
                lost: lost(),
                back,
                full: begun.elapsed(),
                bytes: traffic(&onlooker).1 - bytes,
                full_syncs: counters.full_syncs.load(Ordering::Relaxed) - full_syncs,
            })
        })
        .await?;
    controller.say("reconnect");
    let found = Found {
        rate: steady.rate,
        seconds: steady.seconds,
        forget: args.forget,
        lost: storm.lost,
        all_back_after_ms: storm.back.as_secs_f64() * 1000.0,
        all_full_after_ms: storm.full.as_secs_f64() * 1000.0,
        bytes_per_gateway: storm.bytes as f64 / storm.lost as f64,
        full_syncs: storm.full_syncs,
        rss_before: before.rss,
        peak_rss: stayed(&mut bench, 0)?.peak_rss,
        controller,
    };
    say(&format!(
        "{} gateways lost their stream; all were back after {:.0} ms and had everything after {:.0} ms; {:.0} bytes \
         each, {} full synchronisations; replicas that stayed: {:.1} MiB before, {:.1} MiB at most",
        found.lost,
        found.all_back_after_ms,
        found.all_full_after_ms,
        found.bytes_per_gateway,
        found.full_syncs,
        mebibytes(found.rss_before),
        mebibytes(found.peak_rss)
    ));
    let conditions = Conditions::new("reconnect", &steady.fleet, steady.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&steady.fleet)
}

fn all_connected(counters: &Counters, all: usize) -> bool {
    counters.connected.load(Ordering::Relaxed) == all
}

fn all_full(crew: &Onlooker, routes: usize) -> bool {
    crew.each(Holdings::len).into_iter().all(|held| held == routes)
}

/// What the running replicas use, without the first `but`.
fn stayed(bench: &mut Bench, but: usize) -> anyhow::Result<Usage> {
    let mut sum = Usage::default();
    bench.fleet.usage_by_replica()?.iter().skip(but).for_each(|usage| sum.add(usage));
    Ok(sum)
}
