//! Changes at a steady rate.

use serde::Serialize;

use super::bench::Bench;
use super::yardstick::yardstick;
use crate::cli::Propagation;
use crate::report::{Conditions, Measured, Report, Spread, say};
use crate::workload::Whose;

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    controller: Spread,
    limit: Option<Spread>,
    /// To the last gateway, controller by limit.
    p50_ratio: Option<f64>,
    p99_ratio: Option<f64>,
    /// CPU time for a change on a gateway, controller by limit.
    cpu_ratio: Option<f64>,
    /// Bytes of messages to a gateway, controller by limit, which sends one message
    /// for each change.
    bytes_ratio: Option<f64>,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        let limit = self.limit.iter().map(|limit| ("limit".to_owned(), limit));
        std::iter::once(("controller".to_owned(), &self.controller)).chain(limit).collect()
    }
}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &Propagation) -> anyhow::Result<bool> {
    let steady = &args.steady;
    let mut bench = Bench::open(&steady.fleet, steady.size, true).await?;
    let (controller, ()) = bench.changes(steady.pace(Whose::All), async |_| Ok(())).await?;
    let conditions = Conditions::new("propagation", &steady.fleet, steady.size);
    let routes = bench.routes.clone();
    let outcome = bench.close().await?;
    controller.say("controller");
    let limit = match args.vs_limit {
        true => Some(yardstick(steady, &routes).await?),
        false => None,
    };
    if let Some(limit) = &limit {
        limit.say("limit");
    }
    let by = |of: fn(&Spread) -> f64| limit.as_ref().map(|limit| of(&controller) / of(limit));
    let found = Found {
        rate: steady.rate,
        seconds: steady.seconds,
        p50_ratio: by(|spread| spread.last_ms.p50),
        p99_ratio: by(|spread| spread.last_ms.p99),
        cpu_ratio: by(|spread| spread.cpu_micros_per_delivery),
        bytes_ratio: by(|spread| spread.bytes_per_gateway),
        controller,
        limit,
    };
    if let (Some(p50), Some(p99), Some(cpu)) = (found.p50_ratio, found.p99_ratio, found.cpu_ratio) {
        say(&format!("controller by limit: p50 {p50:.2}, p99 {p99:.2}, CPU {cpu:.2}"));
    }
    Report { conditions, found, outcome }.finish(&steady.fleet)
}
