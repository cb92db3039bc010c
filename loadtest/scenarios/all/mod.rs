//! Everything, one run after the other, each in a process of its own; and the page
//! that tells what came out, against the targets.

mod page;
mod runs;
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;
use xxhash_rust::xxh3::xxh3_64;

use crate::cli::All;
use crate::report::say;
use page::page;
use runs::{Made, RUNS, Run};

/// What came of a run.
struct Found {
    run: &'static Run,
    /// How often it was made.
    times: usize,
    /// Whether nothing went wrong that must not, each time.
    held: bool,
    /// What names the builds that it was made with.
    builds: Vec<String>,
    /// Its medians.
    result: Value,
}

/// Runs everything but an hour of `soak`, or what is wished for; `false` when something went wrong that must
/// not. The page tells of all runs whose results are in the folder.
///
/// # Errors
/// When there is no such run, a run cannot be started, or the page cannot be written.
pub async fn run(args: &All) -> anyhow::Result<bool> {
    for name in &args.only {
        let names = || RUNS.iter().map(|run| run.name.as_str()).collect::<Vec<_>>().join(", ");
        anyhow::ensure!(RUNS.iter().any(|run| run.name == *name), "--only {name}: there are {}", names());
    }
    let (mut held, mut results) = (true, Vec::new());
    for run in RUNS.iter() {
        let folder = args.report.join(&run.name);
        let named = args.only.contains(&run.name);
        if named || (args.only.is_empty() && run.made != Made::WhenNamed) {
            say(&format!("--- {}: loadtest {}", run.name, run.arguments.join(" ")));
            let often = if run.made == Made::Often { args.times } else { 1 };
            for time in 1..=often {
                held &= measure(run, &folder.join(time.to_string())).await?;
            }
            // What is there besides is of before.
            for more in times(&folder).skip(often as usize) {
                std::fs::remove_dir_all(&more).with_context(|| more.display().to_string())?;
            }
        }
        results.extend(found(run, &folder));
    }
    let file = args.report.join("BENCHMARKS.md");
    std::fs::write(&file, page(&results)?).with_context(|| file.display().to_string())?;
    say(&format!("{}: figures; a page with plots in the folder of each run", file.display()));
    Ok(held)
}

/// Of one time of a run, says whether it held.
const HELD: &str = "held";

/// One run with its results in this folder: whether it held.
async fn measure(run: &Run, folder: &Path) -> anyhow::Result<bool> {
    // What is there is of another time.
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("--report {}", folder.display()))?;
    let program = std::env::current_exe()?;
    std::fs::write(folder.join(BUILD), build(&program).await?)?;
    let mut command = Command::new(&program);
    command.args(&run.arguments).stdin(Stdio::null()).kill_on_drop(true);
    match run.name.as_str() {
        // These have no plots.
        "admission" | "fleet-sim" | "reading" => command.arg("--json").arg(folder.join(RESULT)),
        _ => command.arg("--report").arg(folder),
    };
    let well = command.status().await.context("a run cannot be started")?.success();
    std::fs::write(folder.join(HELD), if well { "yes" } else { "no" })?;
    Ok(well)
}

/// Names a program that measures, and with it the controller, which is in it: the same for
/// the same bytes.
async fn build(program: &Path) -> anyhow::Result<String> {
    let bytes = tokio::fs::read(program).await.with_context(|| program.display().to_string())?;
    Ok(format!("{:016x}", xxh3_64(&bytes))[..8].to_owned())
}

/// Of one time of a run, names the build that it was made with.
const BUILD: &str = "build";

/// The figures of one time of a run.
const RESULT: &str = "result.json";

/// The folders of the times that a run was made.
fn times(folder: &Path) -> impl Iterator<Item = PathBuf> {
    (1..).map(|time: u32| folder.join(time.to_string())).take_while(|folder| folder.is_dir())
}

/// What is in the folder of a run, if it was made.
fn found(run: &'static Run, folder: &Path) -> Option<Found> {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let held = times(folder).all(|time| read(&time.join(HELD)).is_some_and(|text| text == "yes"));
    let result = |time: PathBuf| serde_json::from_str(&read(&time.join(RESULT))?).ok();
    let results: Vec<Value> = times(folder).filter_map(result).collect();
    let builds: BTreeSet<String> =
        times(folder).map(|time| read(&time.join(BUILD)).unwrap_or_else(|| "?".to_owned())).collect();
    let builds = builds.into_iter().collect();
    // A run without a result says so by not having held.
    times(folder).next().map(|_| Found { run, times: results.len(), held, builds, result: median(&results) })
}

/// One result of several of the same run: of every number the median, of two in the
/// middle the lower, and of all else what the first says.
fn median(results: &[Value]) -> Value {
    let Some(first) = results.first() else { return Value::Null };
    match first {
        Value::Number(_) => {
            let mut numbers: Vec<&Value> = results.iter().filter(|value| value.is_number()).collect();
            numbers.sort_by(|one, other| {
                let of = |value: &Value| value.as_f64().unwrap_or_default();
                of(one).total_cmp(&of(other))
            });
            numbers[(numbers.len() - 1) / 2].clone()
        }
        Value::Object(fields) => {
            let of = |name: &String| -> Vec<Value> {
                results.iter().filter_map(|result| result.get(name)).cloned().collect()
            };
            fields.keys().map(|name| (name.clone(), median(&of(name)))).collect()
        }
        Value::Array(items) => {
            let of = |place: usize| -> Vec<Value> {
                results.iter().filter_map(|result| result.get(place)).cloned().collect()
            };
            (0..items.len()).map(|place| median(&of(place))).collect()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_median_is_of_each_number_alone() {
        let result = |a: u32, b: f64| json!({"a": a, "rows": [{"b": b}], "name": "n", "none": null});
        let all = [result(3, 0.5), result(1, 0.7), result(2, 0.1)];
        assert_eq!(median(&all), result(2, 0.5));
        assert_eq!(median(&all[..2]), result(1, 0.5));
        assert_eq!(median(&[]), Value::Null);
    }
}
