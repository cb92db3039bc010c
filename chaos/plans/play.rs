//! Plays one plan from the first process to the verdict.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use flotilla_testing::fleet::Against;
use futures::FutureExt as _;
use tokio::time::sleep;

use crate::judge::{Outcome, Unrest};
use crate::plan::Plan;
use crate::scenario;
use crate::stage::Stage;
use crate::tape::Tape;
use crate::world::World;

/// How long a phase may take to settle without a fault.
/// Far above what a quiet machine needs: it ends a run that hangs, and judges none.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long nothing may happen after a fresh start.
const QUIET: Duration = Duration::from_secs(3);

/// What every run needs to know.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The built `flotilla` binary.
    pub program: PathBuf,
    /// Which API server.
    pub against: Against,
}

/// A run and what was seen of it.
#[derive(Debug, Default)]
pub struct Run {
    /// What it came to.
    pub outcome: Outcome,
    /// What was seen until the fresh start.
    pub tape: Tape,
    /// How often the fault struck.
    pub struck: u64,
    /// What the fresh start changed.
    pub unrest: Unrest,
    /// How long it took.
    pub took: Duration,
}

/// Plays a plan, or the reference without one. What keeps it from going on in
/// the fleet panics there, and is an error here.
///
/// # Errors
/// When a world cannot be started, does not settle, or loses a process.
pub async fn play(ground: Ground, plan: Option<Plan>) -> anyhow::Result<Run> {
    // Nothing of the run is used again after a panic.
    let outcome = AssertUnwindSafe(perform(&ground, plan)).catch_unwind().await;
    outcome.unwrap_or_else(|words| Err(anyhow!("{}", spoken(words.as_ref()))))
}

/// The words of a panic.
fn spoken(words: &(dyn std::any::Any + Send)) -> &str {
    let text = words.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| words.downcast_ref::<&str>().copied()).unwrap_or("panicked without words")
}

async fn perform(ground: &Ground, plan: Option<Plan>) -> anyhow::Result<Run> {
    let began = Instant::now();
    let lasts = plan.as_ref().map(Plan::lasts).unwrap_or_default();
    let patience = PATIENCE + lasts * 2;
    let mut world = World::start(&ground.program, ground.against, Stage::new(plan)).await?;
    match scenes(&mut world, patience).await {
        Ok(run) => {
            world.stop().await;
            Ok(Run { took: began.elapsed(), ..run })
        }
        // Its files go with the world, so what they say last is kept here.
        Err(error) => Err(anyhow!("{error:#}\n{}", world.last_words())),
    }
}

/// The scenario, and a fresh start over what it left.
async fn scenes(world: &mut World, patience: Duration) -> anyhow::Result<Run> {
    world.perform(patience, async |fleet, theatre| scenario::play(fleet, theatre, patience).await).await?;
    let (tape, struck) = {
        let mut stage = world.theatre.stage();
        stage.calm();
        (stage.tape.clone(), stage.struck())
    };
    let logs = world.logs();
    let outcome = Outcome::of(&world.fleet, &tape, &logs).await?;

    let since = world.theatre.elapsed();
    world.start_afresh().await?;
    let settled = async |fleet: &mut _, _: &_| {
        scenario::settled(fleet, patience).await?;
        sleep(QUIET).await;
        scenario::settled(fleet, patience).await
    };
    world.perform(patience, settled).await?;
    let after = world.theatre.stage().tape.clone();
    let unrest = Outcome::of(&world.fleet, &after, &logs).await?.unrest(&outcome, &after, since);
    Ok(Run { outcome, tape, struck, unrest, took: Duration::ZERO })
}
