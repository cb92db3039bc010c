//! Creations as fast as the API server takes them.

use std::sync::Arc;

use serde::Serialize;

use super::{SETTLE, all_hold, outcome, traffic};
use crate::cli::{Burst, Size};
use crate::client::{Board, Crew};
use crate::fleet::Fleet;
use crate::process::{Usage, load, wait};
use crate::report::{Outcome, Spread, say, write_json};
use crate::workload::Routes;

#[derive(Debug, Serialize)]
struct Result {
    scenario: &'static str,
    size: Size,
    replicas: usize,
    load_average: f64,
    /// Creations a second that the API server took.
    creations_per_second: f64,
    /// From the answer to the last creation until all gateways had everything.
    everywhere_after_ms: f64,
    controller: Spread,
    outcome: Outcome,
}

/// Runs it; `false` when something went wrong that must not.
pub async fn run(args: &Burst) -> anyhow::Result<bool> {
    let mut fleet = Fleet::open(&args.fleet).await?;
    let routes = Routes::new(fleet.client(), args.size);
    routes.namespaces().await;
    // One before, so that gateways are known to be served.
    routes.create(0..1, None).await?;
    let board = Arc::new(Board::new(args.size.gateways as usize, false));
    let mut crew = Crew::new(board.clone(), args.fleet.gateway_model);
    fleet.start_gateways(&mut crew, args.size.gateways)?;
    all_hold(&crew, 1).await?;
    say(&format!("creating {} routes for {} gateways", args.size.routes, args.size.gateways));
    let before = fleet.usage()?;
    let (messages, bytes) = traffic(&crew);
    let begun = board.now();
    routes.create(1..args.size.routes + 1, Some(&board)).await?;
    let answered = board.now();
    let _ = wait("everything is everywhere", SETTLE, || board.open() == 0).await;
    let everywhere = board.now();
    let used = Usage::since(&fleet.usage()?, &before);
    let (messages_now, bytes_now) = traffic(&crew);
    let tally = board.tally();
    let result = Result {
        scenario: "burst",
        size: args.size,
        replicas: args.fleet.start.replicas,
        load_average: load(),
        creations_per_second: f64::from(args.size.routes) / (answered - begun).as_secs_f64(),
        everywhere_after_ms: (everywhere - answered).as_secs_f64() * 1000.0,
        controller: Spread::new(&tally, args.size.gateways, messages_now - messages, bytes_now - bytes, used),
        outcome: outcome(&crew, &routes, tally.open).await?,
    };
    for line in result.controller.lines("burst") {
        say(&line);
    }
    say(&format!(
        "{:.0} creations a second; everywhere {:.0} ms after the last answer; {:?}",
        result.creations_per_second, result.everywhere_after_ms, result.outcome
    ));
    if let Some(file) = &args.fleet.json {
        write_json(&result, file)?;
    }
    Ok(result.outcome.held())
}
