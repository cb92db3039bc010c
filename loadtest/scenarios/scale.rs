//! The same work on 1, 2, 3 and 5 replicas.

use serde::Serialize;

use super::bench::{Bench, PATCHES};
use crate::cli::{self, Steady};
use crate::report::{Conditions, Measured, Outcome, Report, Spread, say};
use crate::workload::Whose;

/// How many replicas share the work, in turn.
const REPLICAS: [usize; 4] = [1, 2, 3, 5];

#[derive(Debug, Serialize)]
struct Row {
    replicas: usize,
    controller: Spread,
    /// CPU time of all replicas together, by that of a single one.
    cpu_ratio: f64,
    /// What each replica wrote and served, by the mean.
    share_of_writes: Vec<f64>,
    share_of_gateways: Vec<f64>,
    /// How far the replica that is farthest from the mean is away from it.
    writes_off_mean: f64,
    gateways_off_mean: f64,
}

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    rows: Vec<Row>,
}

impl Measured for Found {
    fn spreads(&self) -> Vec<(String, &Spread)> {
        self.rows.iter().map(|row| (format!("{} replicas", row.replicas), &row.controller)).collect()
    }
}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &Steady) -> anyhow::Result<bool> {
    anyhow::ensure!(args.fleet.kubeconfig.is_none(), "scale starts its own replicas: leave out --kubeconfig");
    let mut found = Found { rate: args.rate, seconds: args.seconds, rows: Vec::new() };
    let mut outcome = Outcome::default();
    for replicas in REPLICAS {
        say(&format!("{replicas} replicas"));
        let start = cli::Start { replicas, ..args.fleet.start };
        let fleet = cli::Fleet { start, ..args.fleet.clone() };
        let mut bench = Bench::open(&fleet, args.size, true).await?;
        let patches = bench.fleet.metric_by_replica(PATCHES, "").await.unwrap_or_default();
        let (controller, ()) = bench.changes(args.pace(Whose::All), async |_| Ok(())).await?;
        let now = bench.fleet.metric_by_replica(PATCHES, "").await.unwrap_or_default();
        let writes: Vec<f64> = now.iter().zip(&patches).map(|(now, before)| now - before).collect();
        let gateways = bench.fleet.metric_by_replica(GATEWAYS, "").await.unwrap_or_default();
        controller.say(&format!("{replicas} replicas"));
        let alone = found.rows.first().map_or(controller.servers, |row: &Row| row.controller.servers);
        let (share_of_writes, share_of_gateways) = (by_mean(&writes), by_mean(&gateways));
        let row = Row {
            replicas,
            cpu_ratio: controller.servers.cpu_seconds / alone.cpu_seconds,
            controller,
            writes_off_mean: off_mean(&share_of_writes),
            gateways_off_mean: off_mean(&share_of_gateways),
            share_of_writes,
            share_of_gateways,
        };
        say(&format!(
            "  CPU {:.2} times that of one; writes {:.2?}, gateways {:.2?} of the mean",
            row.cpu_ratio, row.share_of_writes, row.share_of_gateways
        ));
        found.rows.push(row);
        outcome.add(&bench.close().await?);
    }
    let conditions = Conditions::new("scale", &args.fleet, args.size);
    Report { conditions, found, outcome }.finish(&args.fleet)
}

const GATEWAYS: &str = "avapigw_operator_gateways_connected";

fn off_mean(shares: &[f64]) -> f64 {
    shares.iter().map(|share| (share - 1.0).abs()).fold(0.0, f64::max)
}

fn by_mean(each: &[f64]) -> Vec<f64> {
    let mean = each.iter().sum::<f64>() / each.len().max(1) as f64;
    each.iter().map(|one| one / mean.max(f64::MIN_POSITIVE)).collect()
}
