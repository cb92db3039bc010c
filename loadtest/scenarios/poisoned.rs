//! A burst of creations, one of which no gateway can load.

use serde::Serialize;

use super::bench::Bench;
use super::{SETTLE, traffic};
use crate::cli::{Furnished, Size};
use crate::process::wait;
use crate::report::{Conditions, Measured, Report, Spread, say};

#[derive(Debug, Serialize)]
struct Found {
    /// From the answer to the last creation until all gateways had all others.
    everywhere_after_ms: f64,
    /// From the answer to the creation of the bad one until its status said which gateway rejects it,
    said_after_ms: f64,
    /// in these words.
    message: String,
    /// From its mending until its status said Ready.
    ready_after_ms: f64,
    /// The others.
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
/// When it cannot measure, or the bad one's status does not say so in time.
pub async fn run(args: &Furnished) -> anyhow::Result<bool> {
    let Size { gateways, routes: count, .. } = args.size;
    anyhow::ensure!(count > 2, "--routes {count}: one that is there, a bad one, and others: use 3 or more");
    let mut bench = Bench::open(&args.fleet, Size { routes: 1, ..args.size }, false).await?;
    say(&format!("creating {} routes for {gateways} gateways, one of them bad", count - 1));
    let Bench { fleet, routes, board, crew, .. } = &mut bench;
    let before = fleet.usage()?;
    let (messages, bytes) = traffic(crew);
    let bad = count / 2;
    routes.create(1..bad, Some(board)).await?;
    routes.create_unloadable(bad).await?;
    let poisoned = board.now();
    let others = async {
        routes.create(bad + 1..count, Some(board)).await?;
        let answered = board.now();
        let _ = wait("all others are everywhere", SETTLE, || board.open() == 0).await;
        anyhow::Ok(board.now() - answered)
    };
    let said = async {
        let message = routes.says(bad, "False", "ApplyFailed").await?;
        anyhow::Ok((board.now() - poisoned, message))
    };
    let (everywhere, (said, message)) = futures::try_join!(others, said)?;
    let used = fleet.usage()?.since(&before);
    let (messages_now, bytes_now) = traffic(crew);
    let tally = board.tally();
    routes.mend(bad).await?;
    let mended = board.now();
    routes.says(bad, "True", "Reconciled").await?;
    let found = Found {
        everywhere_after_ms: everywhere.as_secs_f64() * 1000.0,
        said_after_ms: said.as_secs_f64() * 1000.0,
        message,
        ready_after_ms: (board.now() - mended).as_secs_f64() * 1000.0,
        controller: Spread::new(tally, gateways, messages_now - messages, bytes_now - bytes, used),
    };
    found.controller.say("the others");
    say(&format!(
        "everywhere {:.0} ms after the last answer; the bad one said so after {:.0} ms: {}; Ready {:.0} ms after it \
         was mended",
        found.everywhere_after_ms, found.said_after_ms, found.message, found.ready_after_ms
    ));
    let conditions = Conditions::new("poisoned", &args.fleet, args.size);
    Report { conditions, found, outcome: bench.close().await? }.finish(&args.fleet)
}
