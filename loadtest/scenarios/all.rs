//! Everything, one run after the other, each in a process of its own; and the page
//! that tells what came out, against the targets.

use std::fmt::Write as _;
use std::path::Path;
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
    run_of("slow", &["slow"]),
    run_of("scale", &["scale", "--gateways", "100"]),
    run_of("admission", &["admission", "--start", "replicas=3,api=embedded"]),
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
}

const fn target(what: &'static str, run: &'static str, at: &'static str, at_most: f64) -> Target {
    Target { what, run, at, at_most }
}

const TARGETS: &[Target] = &[
    target("p50 to the last of 200 gateways, by the yardstick", "propagation", "/p50_ratio", 1.5),
    target("p99 of the same", "propagation", "/p99_ratio", 1.5),
    target("p50 with 10,000 routes", "propagation-10000-routes", "/p50_ratio", 1.5),
    target("p99 with 10,000 routes", "propagation-10000-routes", "/p99_ratio", 1.5),
    target("p50 with 1,000 gateways", "propagation-1000-gateways", "/p50_ratio", 1.5),
    target("p99 with 1,000 gateways", "propagation-1000-gateways", "/p99_ratio", 1.5),
    target("CPU of a delivery, by the yardstick", "propagation", "/cpu_ratio", 1.3),
    target("bytes to a gateway, by the yardstick", "propagation", "/bytes_ratio", 1.1),
    target("burst of 1,000: everywhere after, in ms", "burst", "/everywhere_after_ms", 1000.0),
    target("cold start: all in sync, by the yardstick", "coldsync", "/time_ratio", 1.5),
    target("cold start: memory over what is allowed", "coldsync", "/peak_by_allowed", 1.0),
    target("memory in peace over what is allowed", "coldsync", "/rss_by_allowed", 1.0),
    target("writes of statuses a change", "propagation", "/controller/status_patches_per_change", 1.05),
    target("writes of statuses a second under churn", "churn", "/status_patches_per_second", 20.0),
    target("CPU of listing 100,000 routes, by kube's typed watcher", "reading", "/list_cpu_ratio", 0.333),
    target("CPU of watching their changes, by the same", "reading", "/watch_cpu_ratio", 0.333),
    target("start with them, by the time of a bare list", "reading", "/start_ratio", 1.5),
    target("CPU of 5 replicas, by that of one", "scale", "/rows/3/cpu_ratio", 1.3),
    target("writes of the replica of 5 farthest from the mean", "scale", "/rows/3/writes_off_mean", 0.15),
    target("gateways of the replica of 5 farthest from the mean", "scale", "/rows/3/gateways_off_mean", 0.1),
    target("quiet tenants' p99 beside a loud one, by alone", "noisy", "/p99_ratio", 1.5),
    target("p99 beside gateways that never read, by alone", "slow", "/p99_ratio", 1.1),
    target("memory beside gateways that never read, by alone", "slow", "/rss_ratio", 1.1),
    target("admission: p99 with 10,000 routes, by that with 100", "admission", "/p99_ratio", 1.2),
    target("kills: to the last gateway that stayed, in ms", "failover", "/controller/stayed_ms/max", 1000.0),
];

/// Runs everything; `false` when something went wrong that must not.
///
/// # Errors
/// When a run cannot be started, or the page cannot be written.
pub async fn run(args: &All) -> anyhow::Result<bool> {
    let mut held = true;
    let mut results = Vec::new();
    for run in RUNS.iter().filter(|run| args.only.is_empty() || args.only.iter().any(|name| name == run.name))
    {
        say(&format!("--- {}: loadtest {}", run.name, run.arguments.join(" ")));
        let (mut ran_well, mut found) = (true, Vec::new());
        for time in 1..=args.times {
            let folder = args.report.join(run.name).join(time.to_string());
            let (well, result) = measure(run, &folder).await?;
            ran_well &= well;
            found.extend(result);
        }
        held &= ran_well;
        results.push((run, ran_well, median(&found)));
    }
    let file = args.report.join("BENCHMARKS.md");
    std::fs::write(&file, page(&results, args.times)?).with_context(|| file.display().to_string())?;
    say(&format!("{}: figures; a page with plots in the folder of each run", file.display()));
    Ok(held)
}

/// One run with its results in this folder: whether it held, and what it found.
async fn measure(run: &Run, folder: &Path) -> anyhow::Result<(bool, Option<Value>)> {
    std::fs::create_dir_all(folder).with_context(|| format!("--report {}", folder.display()))?;
    let file = folder.join("result.json");
    let mut command = Command::new(std::env::current_exe()?);
    command.args(run.arguments).stdin(Stdio::null()).kill_on_drop(true);
    match run.name {
        // These have no plots.
        "admission" | "fleet-sim" | "reading" => command.arg("--json").arg(&file),
        _ => command.arg("--report").arg(folder),
    };
    let status = command.status().await.context("a run cannot be started")?;
    let result = std::fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
    Ok((status.success(), result))
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

type Results<'a> = [(&'a Run, bool, Value)];

fn page(results: &Results<'_>, times: u32) -> anyhow::Result<String> {
    let figures = match times {
        1 => "Every run was made once.".to_owned(),
        _ => format!("Every run was made {times} times; figures are medians."),
    };
    let mut page =
        include_str!("benchmarks.md").replace("{machine}", &machine()).replace("{figures}", &figures);
    writeln!(page, "\n## Targets\n\n| what | run | at most | measured | |\n|---|---|---|---|---|")?;
    for target in TARGETS {
        let found = results.iter().find(|(run, ..)| run.name == target.run);
        let Some(measured) = found.and_then(|(_, _, result)| result.pointer(target.at)?.as_f64()) else {
            continue;
        };
        let verdict = if measured <= target.at_most { "held" } else { "**missed**" };
        writeln!(
            page,
            "| {} | {} | {} | {measured:.2} | {verdict} |",
            target.what, target.run, target.at_most
        )?;
    }
    writeln!(
        page,
        "\n## Runs\n\n| run | command | load average | nothing lost, nothing back |\n|---|---|---|---|"
    )?;
    for (run, held, result) in results {
        writeln!(
            page,
            "| {} | `loadtest {}` | {} | {} |",
            run.name,
            run.arguments.join(" "),
            result["load_average"].as_f64().map_or_else(|| "–".to_owned(), |load| format!("{load:.1}")),
            if *held { "yes" } else { "**no**" }
        )?;
    }
    distributions(&mut page, results)?;
    if let Some((.., result)) = results.iter().find(|(run, ..)| run.name == "fleet-sim") {
        fleet_sim(&mut page, result)?;
    }
    Ok(page)
}

/// Milliseconds of every distribution that a run has.
fn distributions(page: &mut String, results: &Results<'_>) -> anyhow::Result<()> {
    writeln!(
        page,
        "\n## Milliseconds from the answer to a write, p50 / p99 / max\n\n\
         | run | | first gateway | last gateway | last that stayed | last acknowledgement | status Ready | µs of CPU a delivery |\n\
         |---|---|---|---|---|---|---|---|"
    )?;
    for (run, _, result) in results {
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
        kernel.trim()
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
        let page = page(&[(&RUNS[0], true, result)], 3).unwrap();
        assert!(
            page.contains("| 1.5 | 1.20 | held |") && page.contains("| 1.5 | 9.00 | **missed** |"),
            "{page}"
        );
        assert!(page.contains("1.0 / 2.0 / 3.0") && !page.contains('{'), "{page}");
        assert!(page.contains("made 3 times; figures are medians"), "{page}");
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
