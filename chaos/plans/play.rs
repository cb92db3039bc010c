//! Plays one plan from the first process to the verdict.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use flotilla_testing::fleet::Against;
use flotilla_testing::fleet::events::now_ms;
use flotilla_testing::fleet::waiting::{SOON, attempt};
use futures::FutureExt as _;
use tokio::time::sleep;

use crate::judge::Outcome;
use crate::plan::Plan;
use crate::promises::{self, Judged, Seen};
use crate::scenario::{self, Phase};
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
    /// What the fresh start did, although there was nothing to do.
    pub unrest: Vec<String>,
    /// Promises that were broken, and how much there was to judge.
    pub broken: Vec<String>,
    /// See [`Run::broken`].
    pub judged: Judged,
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
    let mut phases = world
        .perform(patience, async |fleet, theatre, history| {
            let phases = scenario::play(fleet, theatre, history, patience).await?;
            // Statuses raise revisions, and who has just listed takes them for those of
            // contents: what a quiet gateway has not been told of yet would be sent once more.
            let told = async || fleet.versions_include(&fleet.is_settled().await?).await;
            attempt(SOON, "gateways know of the last statuses", told).await.map_err(anyhow::Error::msg)?;
            Ok(phases)
        })
        .await?;
    let (tape, struck) = {
        let mut stage = world.theatre.stage();
        stage.calm();
        (stage.tape.clone(), stage.struck())
    };
    let logs = world.logs();
    let outcome = Outcome::of(&world.fleet, &world.history, &tape, &logs).await?;
    let (since, began_ms) = (world.theatre.elapsed(), now_ms());
    world.history.phase(u32::try_from(phases.len()).unwrap_or(u32::MAX));
    world.start_afresh().await?;
    let settled = async |fleet: &mut _, _: &_, history: &_| {
        scenario::settled(fleet, history, scenario::LAST, patience).await?;
        sleep(QUIET).await;
        scenario::settled(fleet, history, scenario::LAST, patience).await
    };
    world.perform(patience, settled).await?;
    let after = world.theatre.stage().tape.clone();
    let unrest =
        Outcome::of(&world.fleet, &world.history, &after, &logs).await?.unrest(&outcome, &after, since);
    phases.push(Phase { name: "fresh start".to_owned(), began_ms, ended_ms: now_ms(), calm: false });
    let (broken, judged) = promises::judge(&Seen {
        heard: world.history.heard(),
        phases,
        events: world.fleet.gateways.iter().flat_map(|gateways| gateways.events.all()).collect(),
        kept: world.kept().await.map_err(anyhow::Error::msg)?,
    });
    Ok(Run { outcome, tape, struck, unrest, broken, judged, took: Duration::ZERO })
}
