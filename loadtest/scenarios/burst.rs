//! Creations as fast as the API server takes them.

use serde::Serialize;

use super::bench::Bench;
use super::{SETTLE, traffic};
use crate::cli::{Furnished, Size};
use crate::process::wait;
use crate::report::{Conditions, Measured, Report, Spread, say};

#[derive(Debug, Serialize)]
struct Found {
    /// Creations a second that the API server took.
    creations_per_second: f64,
    /// From the answer to the last creation until all gateways had everything.
    everywhere_after_ms: f64,
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
pub async fn run(args: &Furnished) -> anyhow::Result<bool> {
    // One before, so that gateways are known to be served.
    let Size { gateways, routes: count, .. } = args.size;
    let mut bench = Bench::open(&args.fleet, Size { routes: 1, ..args.size }, false).await?;
    say(&format!("creating {count} routes for {gateways} gateways"));
    let Bench { fleet, routes, board, crew, .. } = &mut bench;
    let before = fleet.usage()?;
    let (messages, bytes) = traffic(crew);
    let begun = board.now();
    routes.create(1..count + 1, Some(board)).await?;
    let answered = board.now();
    let _ = wait("everything is everywhere", SETTLE, || board.open() == 0).await;
    let everywhere = board.now();
    let used = fleet.usage()?.since(&before);
    let (messages_now, bytes_now) = traffic(crew);
    let tally = board.tally();
    let found = Found {
        creations_per_second: f64::from(count) / (answered - begun).as_secs_f64(),
        everywhere_after_ms: (everywhere - answered).as_secs_f64() * 1000.0,
        controller: Spread::new(tally, gateways, messages_now - messages, bytes_now - bytes, used),
    };
    found.controller.say("burst");
    say(&format!(
        "{:.0} creations a second; everywhere {:.0} ms after the last answer",
        found.creations_per_second, found.everywhere_after_ms
    ));
    let conditions = Conditions::new("burst", &args.fleet, args.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&args.fleet)
}
