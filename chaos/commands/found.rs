//! What is done about a broken promise: the scenario is made small, written down, and
//! explained; and a scenario that was written down is played again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use flotilla_core::breakage::{Breakage, Breakages};
use flotilla_sim::{Broken, Kept, Outcome, Scenario, World, explain, shrink};

/// What to do about it.
#[derive(Debug, Clone, Copy)]
pub struct Wishes<'a> {
    /// How long to try to make it small.
    pub shrink: Duration,
    /// Where to write it.
    pub keep: &'a Path,
}

/// Makes a scenario that broke a promise small, writes it down, and says what led to
/// the breach and how to see it again.
///
/// # Errors
/// When it cannot be written down or nobody listens.
pub fn report(
    name: &str,
    scenario: Scenario,
    broken: &Broken,
    breakage: Option<Breakage>,
    wishes: Wishes<'_>,
    out: &mut dyn Write,
) -> anyhow::Result<PathBuf> {
    writeln!(out, "{name}: {}", broken.text)?;
    let breakages = breakage.map_or(Breakages::default(), Breakages::only);
    let acts = scenario.plan.len();
    let began = Instant::now();
    let mut breaks = |scenario: &Scenario| {
        let found = World::new(scenario).breaking(breakages).run().violation?;
        // What is broken on purpose must stay the reason.
        let same =
            found.is_like(broken) && (breakage.is_none() || World::new(scenario).run().violation.is_none());
        same.then_some(found.at / 1_000_000)
    };
    let shrunk = shrink(scenario, &mut breaks, &mut || began.elapsed() < wishes.shrink);
    writeln!(
        out,
        "  made small: {} of {acts} acts are left after {} plays in {:.1} s{}",
        shrunk.scenario.plan.len(),
        shrunk.played,
        began.elapsed().as_secs_f64(),
        if shrunk.minimal { "" } else { "; more could go with more time (--shrink-seconds)" },
    )?;
    let again = World::new(&shrunk.scenario).breaking(breakages).run().violation;
    let broken = again.as_ref().unwrap_or(broken);
    let kept =
        Kept { says: format!("found by {name}: {}", broken.text), breakage, scenario: shrunk.scenario };
    let file = wishes.keep.join(format!("{}.json", name.replace(' ', "-")));
    std::fs::create_dir_all(wishes.keep)
        .and_then(|()| std::fs::write(&file, kept.write()?))
        .with_context(|| format!("writing {}", file.display()))?;
    writeln!(out, "  again: chaos sim --replay {}\n", file.display())?;
    writeln!(out, "{}", explain(&kept.scenario, breakages, broken))?;
    Ok(file)
}

/// Plays scenarios that were written down. Returns whether all went as they should.
/// Only one that did not, or that is the only one, is explained.
///
/// # Errors
/// When one cannot be read or nobody listens.
pub fn replay(files: &[PathBuf], out: &mut dyn Write) -> anyhow::Result<bool> {
    let (mut right, mut broken) = (0, 0);
    for file in files {
        let kept = read(file)?;
        let outcome = kept.play();
        if outcome.violation.is_some() == kept.breakage.is_some() && files.len() > 1 {
            right += 1;
            broken += usize::from(kept.breakage.is_some());
        } else {
            right += usize::from(explain_replay(file, &kept, &outcome, out)?);
        }
    }
    if files.len() > 1 {
        let wrong = files.len() - right;
        writeln!(out, "{right} go as they should, {broken} of them with something broken; {wrong} do not")?;
    }
    Ok(right == files.len())
}

fn read(file: &Path) -> anyhow::Result<Kept> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Kept::read(&text).with_context(|| format!("reading {}", file.display()))
}

/// Says how one went. Returns whether it went as it should: the promises are kept, or,
/// with something broken on purpose, they are not.
fn explain_replay(file: &Path, kept: &Kept, outcome: &Outcome, out: &mut dyn Write) -> anyhow::Result<bool> {
    writeln!(out, "{}: {}", file.display(), kept.says)?;
    match (&outcome.violation, kept.breakage) {
        (Some(broken), _) => writeln!(out, "{}", explain(&kept.scenario, kept.breakages(), broken))?,
        (None, None) => writeln!(out, "every promise is kept")?,
        (None, Some(breakage)) => writeln!(out, "{breakage:?} is in force, and no promise was found broken")?,
    }
    Ok(outcome.violation.is_some() == kept.breakage.is_some())
}
