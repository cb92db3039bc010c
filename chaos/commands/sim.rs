//! `chaos sim`: plays seeds in the simulator until one breaks a promise.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use flotilla_core::breakage::{Breakage, Breakages};
use flotilla_sim::{Count, Outcome, Scenario, Size, Statistics, World, draw, draw_bench};

use super::found::Wishes;
use super::{checker, found};

/// Plays seeds in the simulator: replicas, API server, network and gateways in
/// virtual time, with faults, around the product's own decisions.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// How many seeds to play
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "FIRST", default_value_t = 1)]
    seed: u64,
    /// Simulated minutes of faults and changes per seed; time to settle comes on top
    #[arg(long, value_name = "M", default_value_t = 10)]
    minutes: u32,
    /// Go on with further seeds for so many hours
    #[arg(long, value_name = "H")]
    hours: Option<f64>,
    /// Seeds that are played beside each other
    #[arg(long, value_name = "J", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: u16,
    /// Larger worlds: up to 5 replicas, 50 gateways, 100 namespaces
    #[arg(long)]
    large: bool,
    /// In some worlds etcd is restored from a backup, or empty of a sudden
    #[arg(long)]
    restores: bool,
    /// Routes of a namespace claim the same, of which the oldest is delivered
    #[arg(long)]
    contests: bool,
    /// Tell everything that happens in the first seed, and play no other
    #[arg(long)]
    story: bool,
    /// Measure the speed: 5 replicas, 50 gateways, 100 namespaces, 20 changes per second, no faults
    #[arg(long, conflicts_with_all = ["seeds", "hours", "story"])]
    bench: bool,
    /// Play scenarios that were written down, and explain what they break
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["seeds", "seed", "hours", "story", "bench"])]
    replay: Vec<PathBuf>,
    /// Break the core on purpose, one precaution at a time, and show how soon that is found; at most N
    /// seeds are played for each
    #[arg(long, conflicts_with_all = ["hours", "story", "bench", "replay"])]
    check_the_checker: bool,
    /// Play with one precaution of the core taken away
    #[arg(long, value_name = "NAME", value_parser = breakage)]
    breakage: Option<Breakage>,
    /// Seconds to spend on making a scenario that breaks a promise small
    #[arg(long, value_name = "S", default_value_t = 60)]
    shrink_seconds: u64,
    /// Directory to write such scenarios into; with --check-the-checker they are written only when this is
    /// given
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Reads the name of a breakage.
fn breakage(name: &str) -> Result<Breakage, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Returns whether every promise was kept.
///
/// # Errors
/// When nothing can be said about what was found.
pub fn run(args: &SimArgs, out: &mut dyn std::io::Write) -> anyhow::Result<bool> {
    if args.bench {
        return bench(args, out);
    }
    if !args.replay.is_empty() {
        return found::replay(&args.replay, out);
    }
    let shrink = Duration::from_secs(args.shrink_seconds);
    let breakages = args.breakage.map_or(Breakages::default(), Breakages::only);
    let size = if args.large { Size::large(args.minutes) } else { Size::small(args.minutes) };
    let size = Size { restores: args.restores, contests: args.contests, ..size };
    if args.check_the_checker {
        let keep = args.keep.as_deref().map(|keep| Wishes { shrink, keep });
        return checker::check(args.seed, args.seeds, size, args.jobs, keep, out);
    }
    if args.story {
        let scenario = draw(args.seed, size);
        let mut lines = std::io::BufWriter::new(&mut *out);
        let mut tell = |at: u64, words: &str| {
            // A reader that has gone away has seen enough.
            let _ = writeln!(lines, "{:>11.6} {words}", at as f64 / 1e9);
        };
        let outcome = World::with_story(&scenario, Some(&mut tell)).breaking(breakages).run();
        drop(lines);
        return Ok(say_violation(args, args.seed, &outcome, out)?.is_none());
    }
    let began = Instant::now();
    let until = args.hours.map(|hours| began + Duration::from_secs_f64(hours * 3_600.0));
    let last = args.seed.saturating_add(args.seeds.max(1));
    let (next, stop) = (AtomicU64::new(args.seed), AtomicBool::new(false));
    let (sender, results) = mpsc::channel();
    let mut total = Statistics::default();
    let mut broken: Vec<(u64, Outcome)> = Vec::new();
    std::thread::scope(|threads| {
        for _ in 0..args.jobs {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            threads.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let more = until.map_or(seed < last, |until| Instant::now() < until);
                    if !more || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = World::new(&draw(seed, size)).breaking(breakages).run();
                    // An error means that nobody wants to know any more.
                    let _ = sender.send((seed, outcome));
                }
            });
        }
        drop(sender);
        for (seed, outcome) in results {
            total.absorb(&outcome.statistics);
            if outcome.violation.is_some() {
                stop.store(true, Ordering::Relaxed);
                broken.push((seed, outcome));
            }
        }
    });
    broken.sort_by_key(|(seed, _)| *seed);
    let keep = args.keep.clone().unwrap_or_else(|| PathBuf::from("chaos-found"));
    let wishes = Wishes { shrink, keep: &keep };
    for (seed, outcome) in &broken {
        if let Some(broken) = &outcome.violation {
            let name = format!("seed {seed}");
            found::report(&name, draw(*seed, size), broken, args.breakage, wishes, out)?;
        }
    }
    say_total(&total, began.elapsed(), u32::from(args.jobs), out)?;
    Ok(broken.is_empty())
}

fn say_violation(
    args: &SimArgs,
    seed: u64,
    outcome: &Outcome,
    out: &mut dyn std::io::Write,
) -> anyhow::Result<Option<()>> {
    let Some(broken) = &outcome.violation else { return Ok(None) };
    writeln!(out, "seed {seed}: {}", broken.text)?;
    let large = if args.large { " --large" } else { "" };
    let restores = if args.restores { " --restores" } else { "" };
    let contests = if args.contests { " --contests" } else { "" };
    writeln!(
        out,
        "  again: chaos sim --seed {seed} --minutes {}{large}{restores}{contests} --story",
        args.minutes
    )?;
    Ok(Some(()))
}

fn say_total(
    total: &Statistics,
    took: Duration,
    jobs: u32,
    out: &mut dyn std::io::Write,
) -> anyhow::Result<()> {
    write!(out, "{total}")?;
    let seconds = took.as_secs_f64();
    let (events, simulated) = (total.of(Count::Events) as f64, total.simulated as f64 / 1e9);
    writeln!(
        out,
        "{:>12.1} s, {:.0} events per second, {:.0} simulated seconds per second and job",
        seconds,
        events / seconds,
        simulated / seconds / f64::from(jobs),
    )
    .context("saying what was found")
}

/// What this thread has had of a processor, where the system tells: other work on
/// the machine does not count.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

fn bench(args: &SimArgs, out: &mut dyn std::io::Write) -> anyhow::Result<bool> {
    let scenario: Scenario = draw_bench(args.seed, args.minutes);
    let (began, before) = (Instant::now(), processor_time());
    let outcome = World::new(&scenario).run();
    let (took, after) = (began.elapsed(), processor_time());
    let kept = say_violation(args, args.seed, &outcome, out)?.is_none();
    say_total(&outcome.statistics, took, 1, out)?;
    // Equal for equal runs: what makes the simulator faster is not to change it.
    writeln!(out, "{:>16x} is the sum of the run", outcome.trace)?;
    if let (Some(before), Some(after)) = (before, after) {
        let seconds = after.saturating_sub(before).as_secs_f64();
        let simulated = outcome.statistics.simulated as f64 / 1e9;
        let speed = simulated / seconds;
        writeln!(out, "{seconds:>12.1} s of a processor, {speed:.0} simulated seconds in each of them")?;
    }
    Ok(kept)
}
