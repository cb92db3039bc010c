//! Gateways that come all at once and have nothing.

use serde::Serialize;

use super::bench::{Bench, statuses_rest};
use super::yardstick::{Cold, cold};
use super::{all_hold, traffic};
use crate::cli;
use crate::process::Usage;
use crate::report::{Conditions, Measured, Report, mebibytes, say};

#[derive(Debug, Serialize)]
struct Found {
    /// From the first connection until every gateway had everything.
    all_in_sync_after_ms: f64,
    bytes_per_gateway: f64,
    messages_per_gateway: f64,
    /// Memory of the replicas before any gateway came.
    idle_rss: u64,
    servers: Usage,
    /// What was needed besides, by what is allowed: three encoded configurations
    /// and 64 KiB for each gateway.
    peak_by_allowed: f64,
    /// Memory when all is quiet, by what is allowed: 30 MiB, two and a half times
    /// the objects' JSON, and 24 KiB for each gateway.
    rss_by_allowed: f64,
    limit: Option<Cold>,
    /// `all_in_sync_after_ms`, controller by limit.
    time_ratio: Option<f64>,
}

impl Measured for Found {}

/// Runs it; `false` when something went wrong that must not.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &cli::Coldsync) -> anyhow::Result<bool> {
    let cli::Coldsync { furnished: args, vs_limit } = args;
    let mut bench = Bench::without_gateways(&args.fleet, args.size, false).await?;
    let before = bench.fleet.usage()?;
    let begun = bench.board.now();
    bench.start_gateways()?;
    all_hold(&bench.crew, args.size.routes as usize).await?;
    let took = bench.board.now() - begun;
    let (messages, bytes) = traffic(&bench.crew);
    let servers = bench.fleet.usage()?.since(&before);
    let gateways = f64::from(args.size.gateways);
    let needed = servers.peak_rss.saturating_sub(before.rss) as f64;
    let allowed = 3.0 * bytes as f64 / gateways + 65_536.0 * gateways;
    // Until then every status goes out and comes back as a change.
    statuses_rest(&bench.fleet, args.size.routes).await?;
    let at_rest = 30.0 * 1_048_576.0 + 2.5 * bench.routes.bytes().await? as f64 + 24_576.0 * gateways;
    let mut found = Found {
        all_in_sync_after_ms: took.as_secs_f64() * 1000.0,
        bytes_per_gateway: bytes as f64 / f64::from(args.size.gateways),
        messages_per_gateway: messages as f64 / f64::from(args.size.gateways),
        idle_rss: before.rss,
        servers,
        peak_by_allowed: needed / allowed,
        rss_by_allowed: bench.fleet.usage()?.rss as f64 / at_rest,
        limit: None,
        time_ratio: None,
    };
    say(&format!(
        "all in sync after {:.0} ms; {:.0} bytes in {:.1} messages a gateway; {:.2} s of CPU, {:.1} MiB at most \
         ({:.1} MiB before): {:.2} of what is allowed, {:.2} at rest",
        found.all_in_sync_after_ms,
        found.bytes_per_gateway,
        found.messages_per_gateway,
        found.servers.cpu_seconds,
        mebibytes(found.servers.peak_rss),
        mebibytes(found.idle_rss),
        found.peak_by_allowed,
        found.rss_by_allowed,
    ));
    let conditions = Conditions::new("coldsync", &args.fleet, args.size);
    let routes = bench.routes.clone();
    let outcome = bench.close().await?;
    if *vs_limit {
        let limit = cold(args.size, &routes).await?;
        let ratio = found.all_in_sync_after_ms / limit.all_in_sync_after_ms;
        say(&format!(
            "limit: all in sync after {:.0} ms; {:.0} bytes a gateway; {:.2} s of CPU: controller by limit {ratio:.2}",
            limit.all_in_sync_after_ms, limit.bytes_per_gateway, limit.servers.cpu_seconds,
        ));
        (found.limit, found.time_ratio) = (Some(limit), Some(ratio));
    }
    Report { conditions, found, outcome }.finish(&args.fleet)
}
