//! Gateways that come all at once and have nothing.

use std::sync::Arc;

use serde::Serialize;

use super::{all_hold, outcome, traffic};
use crate::cli::{Coldsync, Size};
use crate::client::{Board, Crew};
use crate::fleet::Fleet;
use crate::process::{Usage, load};
use crate::report::{Outcome, say, write_json};
use crate::workload::Routes;

#[derive(Debug, Serialize)]
struct Result {
    scenario: &'static str,
    size: Size,
    replicas: usize,
    load_average: f64,
    /// From the first connection until every gateway had everything.
    all_in_sync_after_ms: f64,
    bytes_per_gateway: f64,
    messages_per_gateway: f64,
    /// Memory of the replicas before any gateway came.
    idle_rss: u64,
    servers: Usage,
    outcome: Outcome,
}

/// Runs it; `false` when something went wrong that must not.
pub async fn run(args: &Coldsync) -> anyhow::Result<bool> {
    let mut fleet = Fleet::open(&args.fleet).await?;
    let routes = Routes::new(fleet.client(), args.size);
    routes.namespaces().await;
    say(&format!("{} routes, then {} gateways at once", args.size.routes, args.size.gateways));
    routes.create(0..args.size.routes, None).await?;
    let board = Arc::new(Board::new(args.size.gateways as usize, false));
    let mut crew = Crew::new(board.clone(), args.fleet.gateway_model);
    let before = fleet.usage()?;
    let begun = board.now();
    fleet.start_gateways(&mut crew, args.size.gateways)?;
    all_hold(&crew, args.size.routes as usize).await?;
    let took = board.now() - begun;
    let (messages, bytes) = traffic(&crew);
    let result = Result {
        scenario: "coldsync",
        size: args.size,
        replicas: args.fleet.start.replicas,
        load_average: load(),
        all_in_sync_after_ms: took.as_secs_f64() * 1000.0,
        bytes_per_gateway: bytes as f64 / f64::from(args.size.gateways),
        messages_per_gateway: messages as f64 / f64::from(args.size.gateways),
        idle_rss: before.iter().map(|usage| usage.rss).sum(),
        servers: Usage::since(&fleet.usage()?, &before),
        outcome: outcome(&crew, &routes, 0).await?,
    };
    say(&format!(
        "all in sync after {:.0} ms; {:.0} bytes in {:.1} messages a gateway; {:.2} s of CPU, {:.1} MiB at most \
         ({:.1} MiB before); {:?}",
        result.all_in_sync_after_ms,
        result.bytes_per_gateway,
        result.messages_per_gateway,
        result.servers.cpu_seconds,
        result.servers.peak_rss as f64 / f64::from(1 << 20),
        result.idle_rss as f64 / f64::from(1 << 20),
        result.outcome
    ));
    if let Some(file) = &args.fleet.json {
        write_json(&result, file)?;
    }
    Ok(result.outcome.held())
}
