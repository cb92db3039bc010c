//! Everything, one run after the other, each in a process of its own; and the page
//! that tells what came out, against the targets.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::Value;
use tokio::process::Command;

use crate::cli::All;
use crate::report::say;

/// One run: a name for its results, and the command line.
struct Run {
    name: &'static str,
    arguments: &'static [&'static str],
}

const fn run_of(name: &'static str, arguments: &'static [&'static str]) -> Run {
    Run { name, arguments }
}

/// What is measured. Sizes are those of the targets; where this machine would be
/// the bottleneck, smaller, as the page says.
const RUNS: &[Run] = &[
    run_of("propagation", &["propagation", "--vs-limit"]),
    run_of("propagation-10000-routes", &["propagation", "--vs-limit", "--routes", "10000"]),
    run_of("propagation-1000-gateways", &["propagation", "--vs-limit", "--gateways", "1000", "--rate", "2"]),
    run_of("propagation-real", &["propagation", "--start", "replicas=3,api=real"]),
    run_of("burst", &["burst"]),
    run_of("poisoned", &["poisoned", "--gateways", "50"]),
    run_of("coldsync", &["coldsync", "--routes", "10000", "--vs-limit"]),
    run_of("reconnect", &["reconnect", "--start", "replicas=3,api=embedded", "--gateways", "600"]),
    run_of("churn", &["churn"]),
    run_of(
        "failover",
        &["failover", "--start", "replicas=3,api=embedded", "--rate", "20", "--seconds", "60"],
    ),
    run_of("rolling", &["rolling", "--start", "replicas=3,api=embedded", "--rate", "20"]),
    run_of("noisy", &["noisy", "--gateways", "20"]),
    run_of("slow", &["slow", "--routes", "10000"]),
    run_of("scale", &["scale", "--gateways", "100"]),
    run_of("admission", &["admission", "--start", "replicas=3,api=real"]),
    run_of("reading", &["reading"]),
    run_of("fleet-sim", &["fleet-sim"]),
];

/// What a result must not exceed.
struct Target {
    what: &'static str,
    run: &'static str,
    /// JSON pointer into the run's result.
    at: &'static str,
    at_most: f64,
    /// If it is missed: why, as far as profiles told.
    why: &'static str,
}

const fn target(what: &'static str, run: &'static str, at: &'static str, at_most: f64) -> Target {
    Target { what, run, at, at_most, why: "" }
}

impl Target {
    const fn missed_because(self, why: &'static str) -> Target {
        Target { why, ..self }
    }
}

const TARGETS: &[Target] = &[
    target("p50 to the last of 200 gateways, by the yardstick", "propagation", "/p50_ratio", 1.5),
    target("p99 of the same", "propagation", "/p99_ratio", 1.5)
        .missed_because("The slowest 3 of 300 changes: one run differs from the next by as much, and they have been below 1 with ten times the routes or five times the gateways."),
    target("p50 with 10,000 routes", "propagation-10000-routes", "/p50_ratio", 1.5),
    target("p99 with 10,000 routes", "propagation-10000-routes", "/p99_ratio", 1.5),
    target("p50 with 1,000 gateways", "propagation-1000-gateways", "/p50_ratio", 1.5),
    target("p99 with 1,000 gateways", "propagation-1000-gateways", "/p99_ratio", 1.5),
    target("CPU of a delivery, by the yardstick", "propagation", "/cpu_ratio", 1.3)
        .missed_because("Besides what the yardstick does, a change is read, compiled and given a version, each session's position is kept, and a status is written: some 28 µs of 108 µs a delivery."),
    target("bytes to a gateway, by the yardstick", "propagation", "/bytes_ratio", 1.1),
    target("burst of 1,000: everywhere after, in ms", "burst", "/everywhere_after_ms", 1000.0)
        .missed_because("Every gateway gets one or two snapshots of everything, 0.7 MB, through TLS, from two cores that gateways and the API server need as well."),
    target("cold start: all in sync, by the yardstick", "coldsync", "/time_ratio", 1.5),
    target("cold start: memory over what is allowed", "coldsync", "/peak_by_allowed", 1.0)
        .missed_because("A configuration above 4 MiB goes in many steps, and of each step that a gateway is at, what is lacking there is kept."),
    target("memory in peace over what is allowed", "coldsync", "/rss_by_allowed", 1.0)
        .missed_because("An object of 0.6 kB takes some 3 kB: its spec as written and as it is delivered, its status, its entry, and what it claims, once for delivery and once for admission. The program's code alone takes 27 MiB of the 30 MiB that are allowed before the first object."),
    target("writes of statuses a change", "propagation", "/controller/status_patches_per_change", 1.05),
    target("writes of statuses a second under churn, besides one a change", "churn", "/status_patches_beside_per_second", 10.0),
    target("CPU of listing 100,000 routes, by kube's typed watcher", "reading", "/list_cpu_ratio", 0.333),
    target("CPU of watching their changes, by the same", "reading", "/watch_cpu_ratio", 0.333),
    target("start with them, by the time of a bare list", "reading", "/start_ratio", 1.5)
        .missed_because("A bare list is bytes only. Reading 100,000 objects as JSON takes 0.9 s of CPU alone; compiling and indexing them for delivery and for admission is the rest."),
    target("CPU of 5 replicas, by that of one", "scale", "/rows/3/cpu_ratio", 1.3)
        .missed_because("A delivery costs the more the fewer gateways a replica serves, as each time that it wakes up there are fewer answers: with 20 gateways a replica uses about twice as much for each as with 200, also when it is alone. Besides, every replica reads every change, so that each can serve every gateway and nobody waits for a lease."),
    target("writes of the replica of 5 farthest from the mean", "scale", "/rows/3/writes_off_mean", 0.15)
        .missed_because("What is shared are namespaces, here 50, and no replica has more than its bound of them; one of five may have 7 or 13."),
    target("gateways of the replica of 5 farthest from the mean", "scale", "/rows/3/gateways_off_mean", 0.1),
    target("quiet tenants' p99 beside a loud one, by alone", "noisy", "/p99_ratio", 1.5)
        .missed_because("1,000 changes a second to 20 gateways, and the API server that takes them, need more than two cores: a quiet tenant's change is 60 ms old when the first gateway has it, and then waits for the batch that is under way to each."),
    target("p99 beside gateways that never read, by alone", "slow", "/p99_ratio", 1.1),
    target("memory beside gateways that never read, by alone", "slow", "/rss_ratio", 1.1),
    target("admission: p99 with 10,000 routes, by that with 100", "admission", "/p99_ratio", 1.2)
        .missed_because("The p50 is the same (0.4 ms). The slowest 1 % of 2,000 reviews differ by 1 to 2 ms, beside the replicas' other work for ten thousand objects that have just been created."),
    target("kills: to the last gateway that stayed, in ms", "failover", "/controller/stayed_ms/max", 1000.0),
];

/// What came of a run.
struct Found {
    run: &'static Run,
    /// How often it was made.
    times: usize,
    /// Whether nothing went wrong that must not, each time.
    held: bool,
    /// Its medians.
    result: Value,
}

/// Runs everything, or what is wished for; `false` when something went wrong that must
/// not. The page tells of all runs whose results are in the folder.
///
/// # Errors
/// When a run cannot be started, or the page cannot be written.
pub async fn run(args: &All) -> anyhow::Result<bool> {
    let mut held = true;
    let mut results = Vec::new();
    for run in RUNS {
        let folder = args.report.join(run.name);
        if args.only.is_empty() || args.only.iter().any(|name| name == run.name) {
            say(&format!("--- {}: loadtest {}", run.name, run.arguments.join(" ")));
            for time in 1..=args.times {
                held &= measure(run, &folder.join(time.to_string())).await?;
            }
            // What is there besides is of before.
            for more in times(&folder).skip(args.times as usize) {
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
    let mut command = Command::new(std::env::current_exe()?);
    command.args(run.arguments).stdin(Stdio::null()).kill_on_drop(true);
    match run.name {
        // These have no plots.
        "admission" | "fleet-sim" | "reading" => command.arg("--json").arg(folder.join(RESULT)),
        _ => command.arg("--report").arg(folder),
    };
    let well = command.status().await.context("a run cannot be started")?.success();
    std::fs::write(folder.join(HELD), if well { "yes" } else { "no" })?;
    Ok(well)
}

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
    // A run without a result says so by not having held.
    times(folder).next().map(|_| Found { run, times: results.len(), held, result: median(&results) })
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

fn page(results: &[Found]) -> anyhow::Result<String> {
    let mut page = include_str!("benchmarks.md").replace("{machine}", &machine());
    writeln!(page, "\n## Targets\n\n| what | run | at most | measured | |\n|---|---|---|---|---|")?;
    let mut missed = Vec::new();
    for target in TARGETS {
        let found = results.iter().find(|found| found.run.name == target.run);
        let Some(measured) = found.and_then(|found| found.result.pointer(target.at)?.as_f64()) else {
            continue;
        };
        let verdict = if measured <= target.at_most {
            "held"
        } else {
            missed.push(target);
            "**missed**"
        };
        writeln!(
            page,
            "| {} | {} | {} | {measured:.2} | {verdict} |",
            target.what, target.run, target.at_most
        )?;
    }
    reasons(&mut page, &missed)?;
    writeln!(
        page,
        "\n## Runs\n\n| run | command | times | load average | nothing lost, nothing back |\n|---|---|---|---|---|"
    )?;
    for Found { run, times, held, result } in results {
        writeln!(
            page,
            "| {} | `loadtest {}` | {times} | {} | {} |",
            run.name,
            run.arguments.join(" "),
            result["load_average"].as_f64().map_or_else(|| "–".to_owned(), |load| format!("{load:.1}")),
            if *held { "yes" } else { "**no**" }
        )?;
    }
    distributions(&mut page, results)?;
    let tables: [(&str, Table); 3] =
        [("poisoned", poisoned), ("admission", admission), ("fleet-sim", fleet_sim)];
    for (name, table) in tables {
        // A run that could not measure has said so above, by not having held.
        let found = results.iter().find(|found| found.run.name == name && found.times > 0);
        if let Some(found) = found {
            table(&mut page, &found.result)?;
        }
    }
    Ok(page)
}

/// Why targets were missed, each reason once.
fn reasons(page: &mut String, missed: &[&Target]) -> anyhow::Result<()> {
    if missed.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Why targets are missed\n\n\
         As profiles and single runs have shown it so far; a figure that is much worse than those in the text has another reason.\n"
    )?;
    for (number, target) in missed.iter().enumerate() {
        let told_before = missed[..number].iter().any(|other| other.why == target.why);
        if !told_before {
            let same = missed.iter().filter(|other| other.why == target.why).map(|other| other.what);
            let why = if target.why.is_empty() { "Not known." } else { target.why };
            writeln!(page, "- *{}*: {why}", same.collect::<Vec<_>>().join("*; *"))?;
        }
    }
    Ok(())
}

/// Milliseconds of every distribution that a run has.
fn distributions(page: &mut String, results: &[Found]) -> anyhow::Result<()> {
    writeln!(
        page,
        "\n## Milliseconds from the answer to a write, p50 / p99 / max\n\n\
         | run | | first gateway | last gateway | last that stayed | last acknowledgement | status Ready | µs of CPU a delivery |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    for Found { run, result, .. } in results {
        for part in ["controller", "limit", "alone", "beside"] {
            let spread = &result[part];
            if spread.is_null() {
                continue;
            }
            let three = |name: &str| {
                let at = |quantile: &str| spread[name][quantile].as_f64();
                match (at("p50"), at("p99"), at("max")) {
                    (Some(p50), Some(p99), Some(max)) => format!("{p50:.1} / {p99:.1} / {max:.1}"),
                    _ => "–".to_owned(),
                }
            };
            writeln!(
                page,
                "| {} | {part} | {} | {} | {} | {} | {} | {:.1} |",
                run.name,
                three("first_ms"),
                three("last_ms"),
                three("stayed_ms"),
                three("acknowledged_ms"),
                three("ready_ms"),
                spread["cpu_micros_per_delivery"].as_f64().unwrap_or_default()
            )?;
        }
    }
    Ok(())
}

/// What a run has to tell besides distributions.
type Table = fn(&mut String, &Value) -> anyhow::Result<()>;

fn poisoned(page: &mut String, result: &Value) -> anyhow::Result<()> {
    let number = |name: &str| result[name].as_f64().unwrap_or_default();
    // In a cell of a table, whatever it says.
    let said = result["message"].as_str().unwrap_or_default().replace(['\n', '\r'], " ").replace('|', "\\|");
    writeln!(
        page,
        "\n## A burst with one route that no gateway can load\n\n\
         Milliseconds: of the others from the answer to the last creation; of the bad one from the answer to its own, and to its mending.\n\n\
         | routes | gateways | others everywhere | status tells of the bad one | in these words | Ready when mended |\n\
         |---|---|---|---|---|---|\n\
         | {} | {} | {:.0} | {:.0} | {said} | {:.0} |",
        result["routes"],
        result["gateways"],
        number("everywhere_after_ms"),
        number("said_after_ms"),
        number("ready_after_ms")
    )?;
    Ok(())
}

fn admission(page: &mut String, result: &Value) -> anyhow::Result<()> {
    writeln!(
        page,
        "\n## Milliseconds of an admission review, p50 / p99 / max\n\n\
         {} replicas in turn, {} reviews of each sort.\n\n\
         | routes | a match that somebody has, refused | one that nobody has, admitted |\n\
         |---|---|---|",
        result["replicas"], result["asks"]
    )?;
    for row in result["rows"].as_array().into_iter().flatten() {
        let three = |name: &str| {
            let at = |quantile: &str| row[name][quantile].as_f64().unwrap_or_default();
            format!("{:.2} / {:.2} / {:.2}", at("p50"), at("p99"), at("max"))
        };
        writeln!(page, "| {} | {} | {} |", row["routes"], three("refused_ms"), three("admitted_ms"))?;
    }
    Ok(())
}

fn fleet_sim(page: &mut String, result: &Value) -> anyhow::Result<()> {
    writeln!(
        page,
        "\n## Decisions alone, as the fleet grows\n\n\
         | ten times as many | gateways | namespaces | objects | replicas | µs a change | ns a delivery | µs a status | bytes a session | bytes an object |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    )?;
    for row in result["rows"].as_array().into_iter().flatten() {
        let number = |name: &str| row[name].as_f64().unwrap_or_default();
        writeln!(
            page,
            "| {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} |",
            row["larger"].as_str().unwrap_or_default(),
            row["gateways"],
            row["namespaces"],
            row["objects"],
            row["replicas"],
            number("cpu_micros_per_change"),
            number("cpu_nanos_per_delivery"),
            number("status_micros_per_change"),
            number("bytes_per_session"),
            number("bytes_per_object")
        )?;
    }
    Ok(())
}

/// What this machine is.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
            .unwrap_or_else(|| "?".to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores of {}, {} of memory, Linux {}",
        field(&cpu, "model name"),
        field(&memory, "MemTotal"),
        // Without what a distribution adds.
        kernel.trim().split('-').next().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_target_is_of_a_run_and_the_page_says_whether_it_was_held() {
        for target in TARGETS {
            assert!(RUNS.iter().any(|run| run.name == target.run), "{}", target.run);
        }
        let spread =
            json!({"last_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0}, "status_patches_per_change": 1.0});
        let result = json!({"load_average": 1.5, "p50_ratio": 1.2, "p99_ratio": 9.0, "controller": spread});
        let page = page(&[Found { run: &RUNS[0], times: 3, held: true, result }]).unwrap();
        assert!(
            page.contains("| 1.5 | 1.20 | held |") && page.contains("| 1.5 | 9.00 | **missed** |"),
            "{page}"
        );
        assert!(page.contains("1.0 / 2.0 / 3.0") && !page.contains('{'), "{page}");
        assert!(page.contains("| 3 | 1.5 | yes |") && page.contains("- *p99 of the same*: "), "{page}");
    }

    #[test]
    fn what_a_poisoned_burst_and_admissions_found_is_on_the_page() {
        let found = |name: &str, times, result| {
            let run = RUNS.iter().find(|run| run.name == name).unwrap();
            Found { run, times, held: times > 0, result }
        };
        let bad = json!({
            "routes": 1000, "gateways": 50, "everywhere_after_ms": 812.4, "said_after_ms": 1530.6,
            "message": "3 of 50 reject it:\nregex \"(a|b\"", "ready_after_ms": 97.2,
        });
        let at = |p50: f64| json!({"p50": p50, "p99": p50 * 2.0, "max": p50 * 3.0});
        let row =
            |routes: u32, p50| json!({"routes": routes, "refused_ms": at(p50), "admitted_ms": at(p50 + 0.1)});
        let asked = json!({"replicas": 3, "asks": 2000, "rows": [row(100, 0.4), row(10_000, 0.5)]});
        let both = [found("poisoned", 1, bad), found("admission", 1, asked)];
        let page = page(&both).unwrap();
        for line in [
            "| 1000 | 50 | 812 | 1531 | 3 of 50 reject it: regex \"(a\\|b\" | 97 |",
            "3 replicas in turn, 2000 reviews of each sort.",
            "| 100 | 0.40 / 0.80 / 1.20 | 0.50 / 1.00 / 1.50 |",
            "| 10000 | 0.50 / 1.00 / 1.50 | 0.60 / 1.20 / 1.80 |",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in {page}");
        }
        let none = [found("poisoned", 0, Value::Null), found("admission", 0, Value::Null)];
        let page = super::page(&none).unwrap();
        assert!(!page.contains("null") && !page.contains("## A burst with"), "{page}");
    }

    #[test]
    fn a_median_is_of_each_number_alone() {
        let result = |a: u32, b: f64| json!({"a": a, "rows": [{"b": b}], "name": "n", "none": null});
        let all = [result(3, 0.5), result(1, 0.7), result(2, 0.1)];
        assert_eq!(median(&all), result(2, 0.5));
        assert_eq!(median(&all[..2]), result(1, 0.5));
        assert_eq!(median(&[]), Value::Null);
    }
}
