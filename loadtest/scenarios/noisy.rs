//! One loud tenant beside many quiet ones, which must not notice.

use serde::Serialize;

use super::bench::Bench;
use crate::cli::Noisy;
use crate::report::{Conditions, Measured, Report, Spread, say};
use crate::workload::{Pace, Whose};

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    /// Changes a second that the loud tenant was to make.
    loud_rate: u32,
    /// The quiet tenants' changes, without the loud one and beside it.
    alone: Spread,
    beside: Spread,
    /// To the last gateway, beside the loud one by alone.
    p99_ratio: f64,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        vec![("alone".to_owned(), &self.alone), ("beside".to_owned(), &self.beside)]
    }
}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure, or there is only one tenant.
pub async fn run(args: &Noisy) -> anyhow::Result<bool> {
    let steady = &args.steady;
    anyhow::ensure!(steady.size.namespaces > 1, "--namespaces 1: a loud tenant needs a quiet one beside it");
    let mut bench = Bench::open(&steady.fleet, steady.size, false).await?;
    let (alone, ()) = bench.changes(steady.pace(Whose::Quiet), async |_| Ok(())).await?;
    alone.say("quiet tenants alone");
    let (routes, board) = (bench.routes.clone(), bench.board.clone());
    let loud = Pace { rate: args.loud_rate, seconds: steady.seconds, whose: Whose::Loud };
    let (beside, ()) =
        bench.changes(steady.pace(Whose::Quiet), async |_| routes.keep_changing(&board, loud).await).await?;
    beside.say("quiet tenants beside a loud one");
    let found = Found {
        rate: steady.rate,
        seconds: steady.seconds,
        loud_rate: args.loud_rate,
        p99_ratio: beside.last_ms.p99 / alone.last_ms.p99,
        alone,
        beside,
    };
    say(&format!(
        "beside {} changes a second: p99 {:.2} times that of alone",
        args.loud_rate, found.p99_ratio
    ));
    let conditions = Conditions::new("noisy", &steady.fleet, steady.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&steady.fleet)
}
