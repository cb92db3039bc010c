//! Gateways that read slowly or not at all, beside others: these must not notice.

use std::sync::Arc;

use serde::Serialize;

use super::bench::Bench;
use crate::cli::Slow;
use crate::client::{Board, Crew, Model, Reading, Violations};
use crate::process::Usage;
use crate::report::{Conditions, Measured, Report, Spread, mebibytes, say};
use crate::workload::Whose;

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    slow_gateways: u32,
    /// Bytes a second that they read.
    slow_rate: u32,
    alone: Spread,
    beside: Spread,
    /// To the last of those that read, beside the others by alone.
    p99_ratio: f64,
    /// Memory of the replicas at the end of each half.
    alone_rss: u64,
    beside_rss: u64,
    /// `beside_rss` by `alone_rss`.
    rss_ratio: f64,
    /// What must not have happened to the slow ones.
    violations_of_slow: Violations,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        vec![("alone".to_owned(), &self.alone), ("beside".to_owned(), &self.beside)]
    }
}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &Slow) -> anyhow::Result<bool> {
    let steady = &args.steady;
    // While gateways lag behind, no status says Ready, as it should be.
    let mut bench = Bench::open(&steady.fleet, steady.size, false).await?;
    let (alone, ()) = bench.changes(steady.pace(Whose::All), async |_| Ok(())).await?;
    let Usage { rss: alone_rss, .. } = bench.fleet.usage()?;
    alone.say("alone");
    let mut crew = Crew::new(Arc::new(Board::new(args.slow as usize, false)), Model::Instant);
    let reading = match args.slow_rate {
        0 => Reading::Never,
        rate => Reading::Slowly(rate),
    };
    bench.fleet.start_readers(&mut crew, "slow", args.slow, reading)?;
    let (beside, ()) = bench.changes(steady.pace(Whose::All), async |_| Ok(())).await?;
    let Usage { rss: beside_rss, .. } = bench.fleet.usage()?;
    beside.say("beside");
    let found = Found {
        rate: steady.rate,
        seconds: steady.seconds,
        slow_gateways: args.slow,
        slow_rate: args.slow_rate,
        p99_ratio: beside.last_ms.p99 / alone.last_ms.p99,
        alone,
        beside,
        alone_rss,
        beside_rss,
        rss_ratio: beside_rss as f64 / alone_rss as f64,
        violations_of_slow: crew.violations(),
    };
    say(&format!(
        "beside {} that read {} bytes a second: p99 {:.2} times that of alone; memory {:.1} MiB, then {:.1} MiB",
        args.slow,
        args.slow_rate,
        found.p99_ratio,
        mebibytes(alone_rss),
        mebibytes(beside_rss)
    ));
    drop(crew);
    let conditions = Conditions::new("slow", &steady.fleet, steady.size);
    let slow_held = found.violations_of_slow.none();
    let report = Report { conditions, found, outcome: bench.close().await? };
    Ok(report.finish(&steady.fleet)? && slow_held)
}
