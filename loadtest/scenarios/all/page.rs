//! The page of all results.

use std::fmt::Write as _;

use serde_json::Value;

use super::Found;
use super::targets::{TARGETS, Target};

/// The page that tells what came out.
///
/// # Errors
/// Never: it is written into a text.
pub fn page(results: &[Found]) -> anyhow::Result<String> {
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
        "\n## Runs\n\n| run | command | times | build | load average | nothing lost, nothing back |\n|---|---|---|---|---|---|"
    )?;
    for Found { run, times, held, builds, result } in results {
        writeln!(
            page,
            "| {} | `loadtest {}` | {times} | {} | {} | {} |",
            run.name,
            run.arguments.join(" "),
            builds.join(", "),
            result["load_average"].as_f64().map_or_else(|| "–".to_owned(), |load| format!("{load:.1}")),
            if *held { "yes" } else { "**no**" }
        )?;
    }
    distributions(&mut page, results)?;
    let tables: [(&str, Table); 4] =
        [("poisoned", poisoned), ("admission", admission), ("soak", soak), ("fleet-sim", fleet_sim)];
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

/// Minutes at which the page tells what a soak holds.
const MINUTES: [u32; 3] = [10, 30, 60];

fn soak(page: &mut String, result: &Value) -> anyhow::Result<()> {
    let done = |name: &str| result["done"][name].as_u64().unwrap_or_default();
    writeln!(
        page,
        "\n## An hour with changes, kills, guests and rolling restarts\n\n\
         {} changes a second to {} gateways; {} kills, {} rolling restarts, {} gateways that came and went. The first replica is\n\
         not ended: what grows shows in it.\n\n\
         | minute | MiB of all {} replicas | descriptors | MiB of the first | descriptors |\n\
         |---|---|---|---|---|",
        result["rate"],
        result["gateways"],
        done("kills"),
        done("rolling_restarts"),
        done("guests"),
        result["replicas"]
    )?;
    let samples: Vec<&Value> = result["samples"].as_array().into_iter().flatten().collect();
    for minute in MINUTES {
        // A look that was due then may have been a little late.
        let is_due = |sample: &&&Value| sample["seconds"].as_f64() >= Some(f64::from(minute * 60));
        let Some(sample) = samples.iter().find(is_due) else { continue };
        let number = |name: &str| sample[name].as_f64().unwrap_or_default();
        let mebibytes = |name: &str| number(name) / f64::from(1 << 20);
        writeln!(
            page,
            "| {minute} | {:.1} | {} | {:.1} | {} |",
            mebibytes("rss"),
            number("descriptors"),
            mebibytes("first_rss"),
            number("first_descriptors")
        )?;
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

    use super::super::runs::RUNS;
    use super::*;

    #[test]
    fn every_target_is_of_a_run_and_the_page_says_whether_it_was_held() {
        for target in TARGETS {
            assert!(RUNS.iter().any(|run| run.name == target.run), "{}", target.run);
        }
        let spread =
            json!({"last_ms": {"p50": 1.0, "p99": 2.0, "max": 3.0}, "status_patches_per_change": 1.0});
        let result = json!({"load_average": 1.5, "p50_ratio": 1.2, "p99_ratio": 9.0, "controller": spread});
        let page = page(&[Found {
            run: &RUNS[0],
            times: 3,
            held: true,
            builds: vec!["0a".into(), "1b".into()],
            result,
        }])
        .unwrap();
        assert!(
            page.contains("| 1.5 | 1.20 | held |") && page.contains("| 1.5 | 9.00 | **missed** |"),
            "{page}"
        );
        assert!(page.contains("1.0 / 2.0 / 3.0") && !page.contains('{'), "{page}");
        assert!(
            page.contains("| 3 | 0a, 1b | 1.5 | yes |") && page.contains("- *p99 of the same*: "),
            "{page}"
        );
    }

    #[test]
    fn what_a_poisoned_burst_admissions_and_a_soak_found_is_on_the_page() {
        let found = |name: &str, times, result| {
            let run = RUNS.iter().find(|run| run.name == name).unwrap();
            Found { run, times, held: times > 0, builds: Vec::new(), result }
        };
        let bad = json!({
            "routes": 1000, "gateways": 50, "everywhere_after_ms": 812.4, "said_after_ms": 1530.6,
            "message": "3 of 50 reject it:\nregex \"(a|b\"", "ready_after_ms": 97.2,
        });
        let at = |p50: f64| json!({"p50": p50, "p99": p50 * 2.0, "max": p50 * 3.0});
        let row =
            |routes: u32, p50| json!({"routes": routes, "refused_ms": at(p50), "admitted_ms": at(p50 + 0.1)});
        let asked = json!({"replicas": 3, "asks": 2000, "rows": [row(100, 0.4), row(10_000, 0.5)]});
        let mebibytes = |count: u32| count << 20;
        let sample = |minute: u32| {
            json!({
                "seconds": minute * 60, "rss": mebibytes(3 * minute), "descriptors": 190,
                "first_rss": mebibytes(minute), "first_descriptors": 60 + minute,
            })
        };
        let done = json!({"kills": 20, "rolling_restarts": 19, "guests": 200});
        let samples: Vec<Value> = (1..=60).map(sample).collect();
        let soaked = json!({"rate": 10, "gateways": 100, "replicas": 3, "done": done, "samples": samples});
        let all = [found("poisoned", 1, bad), found("admission", 1, asked), found("soak", 1, soaked)];
        let page = page(&all).unwrap();
        for line in [
            "| 1000 | 50 | 812 | 1531 | 3 of 50 reject it: regex \"(a\\|b\" | 97 |",
            "3 replicas in turn, 2000 reviews of each sort.",
            "| 100 | 0.40 / 0.80 / 1.20 | 0.50 / 1.00 / 1.50 |",
            "| 10000 | 0.50 / 1.00 / 1.50 | 0.60 / 1.20 / 1.80 |",
            "| 10 | 30.0 | 190 | 10.0 | 70 |",
            "| 60 | 180.0 | 190 | 60.0 | 120 |",
        ] {
            assert!(page.lines().any(|found| found == line), "no {line:?} in {page}");
        }
        let none = ["poisoned", "admission", "soak"].map(|name| found(name, 0, Value::Null));
        let page = super::page(&none).unwrap();
        let silent = ["null", "## A burst with", "## An hour"].iter().all(|words| !page.contains(words));
        assert!(silent, "{page}");
    }
}
