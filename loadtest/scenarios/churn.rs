//! Gateways that join and leave while changes are made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::bench::Bench;
use crate::cli::Churn;
use crate::client::{Board, Crew, Model, Reading, Violations};
use crate::fleet::Fleet;
use crate::report::{Conditions, Measured, Report, Spread, say};
use crate::workload::Whose;

#[derive(Debug, Serialize)]
struct Found {
    rate: u32,
    seconds: u32,
    /// Gateways that came, stayed for `stay_seconds`, and went.
    came: u32,
    stay_seconds: f64,
    controller: Spread,
    /// Writes of statuses a second, besides one for each change.
    status_patches_beside_per_second: Option<f64>,
    /// What must not have happened to those that came and went.
    violations_of_guests: Violations,
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
pub async fn run(args: &Churn) -> anyhow::Result<bool> {
    let steady = &args.steady;
    // The count of gateways in statuses moves all the time.
    let mut bench = Bench::open(&steady.fleet, steady.size, false).await?;
    let (controller, (came, violations)) =
        bench.changes(steady.pace(Whose::All), async |fleet| come_and_go(fleet, args).await).await?;
    controller.say("churn");
    let beside = |per_change: f64| (per_change - 1.0) * f64::from(steady.rate);
    let found = Found {
        rate: steady.rate,
        seconds: steady.seconds,
        came,
        stay_seconds: args.stay,
        status_patches_beside_per_second: controller.status_patches_per_change.map(beside),
        controller,
        violations_of_guests: violations,
    };
    say(&format!("{came} gateways came and went; {:?}", found.violations_of_guests));
    let conditions = Conditions::new("churn", &steady.fleet, steady.size);
    let guests_held = found.violations_of_guests.none();
    let report = Report { conditions, found, outcome: bench.close().await? };
    Ok(report.finish(&steady.fleet)? && guests_held)
}

async fn come_and_go(fleet: &mut Fleet, args: &Churn) -> anyhow::Result<(u32, Violations)> {
    let (begun, pause) = (Instant::now(), Duration::from_secs(1).div_f64(args.joins));
    let stay = Duration::from_secs_f64(args.stay);
    let run = Duration::from_secs(u64::from(args.steady.seconds));
    let mut guests: VecDeque<(Instant, Crew)> = VecDeque::new();
    let (mut came, mut violations) = (0, Violations::default());
    loop {
        let next = Some(pause * came).filter(|at| *at < run).map(|at| begun + at);
        let due = guests.front().map(|(since, _)| *since + stay);
        let Some(at) = next.into_iter().chain(due).min() else { break };
        sleep_until(at).await;
        if due == Some(at) {
            let gone = guests.pop_front().map(|(_, crew)| crew.violations());
            violations.add(&gone.unwrap_or_default());
        } else {
            let mut crew = Crew::new(Arc::new(Board::new(1, false)), Model::Instant);
            fleet.start_reader(&mut crew, &format!("guest-{came:05}"), Reading::Freely)?;
            guests.push_back((Instant::now(), crew));
            came += 1;
        }
    }
    Ok((came, violations))
}
