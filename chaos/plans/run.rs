//! Runs plans, several at a time, each in a world of its own: ownership is
//! decided by one shard map per API server, so plans that shared a server would
//! disturb each other.

use std::io::Write;
use std::time::Instant;

use anyhow::Context as _;
use flotilla_testing::fleet::Against;
use futures::stream::{self, StreamExt as _};

use crate::generate;
use crate::judge::Outcome;
use crate::plan::Plan;
use crate::play::{Ground, Run, play};
use crate::report::{REFERENCE, Report, Verdict};

/// Which plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// A fixed set that strikes in every run.
    Fixed,
    /// Everything: made from the reference run, and the rest.
    All,
    /// These, by name.
    Named(Vec<Plan>),
}

/// What to play, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Binary and API server.
    pub ground: Ground,
    /// Which plans.
    pub choice: Choice,
    /// How many at a time.
    pub jobs: usize,
}

fn name(against: Against) -> &'static str {
    match against {
        Against::Inside | Against::Embedded => "embedded",
        Against::Real => "real",
    }
}

/// Runs the reference and every plan that was chosen; tells of each on `out` as
/// it ends.
///
/// # Errors
/// When the reference cannot be run, or `out` takes nothing. That a plan fails
/// is no error.
pub async fn run(options: Options, out: &mut (dyn Write + Send)) -> anyhow::Result<Report> {
    let began = Instant::now();
    let reference = reference(&options.ground).await?;
    let first = verdict(REFERENCE.to_owned(), &reference, &reference.outcome);
    writeln!(out, "{first}")?;
    let plans = plans(&options, &reference)?;
    let mut verdicts = vec![first];
    let outcome = &reference.outcome;
    let played = plans.into_iter().map(|plan| judge(options.ground.clone(), plan, outcome));
    let mut played = stream::iter(played).buffer_unordered(options.jobs.max(1));
    while let Some(verdict) = played.next().await {
        writeln!(out, "{verdict}")?;
        verdicts.push(verdict);
    }
    let seconds = began.elapsed().as_secs_f64();
    let report = Report { api: name(options.ground.against), jobs: options.jobs, seconds, verdicts };
    writeln!(out, "{report}")?;
    Ok(report)
}

/// The names of all plans that were chosen, one a line. Only a choice of all
/// needs the reference to be run.
///
/// # Errors
/// As for [`run`].
pub async fn list(options: Options, out: &mut (dyn Write + Send)) -> anyhow::Result<()> {
    let reference = match options.choice {
        Choice::All => reference(&options.ground).await?,
        _ => Run::default(),
    };
    for plan in plans(&options, &reference)? {
        writeln!(out, "{plan}")?;
    }
    Ok(())
}

async fn reference(ground: &Ground) -> anyhow::Result<Run> {
    play(ground.clone(), None).await.context("the reference run, without any fault")
}

/// Judges a run by the reference.
fn verdict(name: String, run: &Run, reference: &Outcome) -> Verdict {
    let mut problems = run.outcome.problems(reference);
    problems.extend(run.unrest.iter().chain(&run.broken).cloned());
    if run.struck == 0 && name != REFERENCE {
        problems.push("the fault never struck: there is no such occurrence".to_owned());
    }
    Verdict { judged: run.judged, ..Verdict::new(name, run.struck, run.took, problems) }
}

fn plans(options: &Options, reference: &Run) -> anyhow::Result<Vec<Plan>> {
    let parse = |names: &[&str]| -> anyhow::Result<Vec<Plan>> {
        names.iter().map(|name| Ok(name.parse()?)).collect()
    };
    match &options.choice {
        Choice::Fixed if options.ground.against == Against::Real => parse(generate::FIXED_REAL),
        Choice::Fixed => parse(generate::FIXED),
        Choice::Named(plans) => Ok(plans.clone()),
        Choice::All => {
            // The longest one first, beside which all others are played.
            let mut plans = vec![generate::long_outage()];
            plans.extend(generate::from_record(&reference.tape));
            plans.extend(generate::by_event(&reference.tape));
            plans.extend(generate::by_request());
            let fixed = parse(generate::FIXED)?;
            let others: Vec<Plan> = fixed.into_iter().filter(|plan| !plans.contains(plan)).collect();
            plans.extend(others);
            Ok(plans)
        }
    }
}

async fn judge(ground: Ground, plan: Plan, reference: &Outcome) -> Verdict {
    let name = plan.to_string();
    let began = Instant::now();
    match play(ground, Some(plan)).await {
        Ok(run) => verdict(name, &run, reference),
        Err(error) => Verdict::new(name, 0, began.elapsed(), vec![format!("{error:#}")]),
    }
}
