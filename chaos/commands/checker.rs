//! `chaos sim --check-the-checker`: breaks the core on purpose, one precaution at a
//! time, and shows how soon each breach is found.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use flotilla_core::breakage::Breakage;
use flotilla_sim::{Hunt, Size, draw, hunt};

use super::found::{self, Wishes};

/// Plays at most `most` seeds from `first` on for each breakage. Returns whether all
/// were found. With wishes, what found each is made small and written down.
///
/// # Errors
/// When nobody listens.
pub fn check(
    first: u64,
    most: u64,
    size: Size,
    jobs: u16,
    keep: Option<Wishes<'_>>,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    writeln!(
        out,
        "{:<22} {:>6} {:>6}  {:<8} {:>10} {:>10} {:>8}  what was found",
        "breakage", "seeds", "seed", "promise", "at s", "sim. h", "real s"
    )?;
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    let mut missed = Vec::new();
    std::thread::scope(|threads| -> anyhow::Result<()> {
        for _ in 0..jobs.max(1) {
            let (sender, next) = (sender.clone(), &next);
            threads.spawn(move || {
                while let Some(breakage) = Breakage::FOUND.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    // An error means that nobody wants to know any more.
                    let _ = sender.send((hunt(*breakage, first, most, size), began.elapsed()));
                }
            });
        }
        drop(sender);
        for (hunt, took) in results {
            say(&hunt, took, out)?;
            if let (Some(wishes), Some((seed, broken))) = (keep, &hunt.found) {
                let name = format!("broken {:?}", hunt.breakage);
                found::report(
                    &name,
                    draw(*seed, size),
                    broken,
                    Some(hunt.breakage),
                    wishes,
                    &mut std::io::sink(),
                )?;
            }
            if hunt.found.is_none() {
                missed.push(hunt.breakage);
            }
        }
        Ok(())
    })?;
    if missed.is_empty() {
        writeln!(out, "all {} are found", Breakage::FOUND.len())?;
    } else {
        writeln!(out, "not found within {most} seeds: {missed:?}")?;
    }
    Ok(missed.is_empty())
}

fn say(hunt: &Hunt, took: Duration, out: &mut dyn Write) -> anyhow::Result<()> {
    let hours = hunt.simulated as f64 / 3.6e12;
    let (name, real) = (format!("{:?}", hunt.breakage), took.as_secs_f64());
    match &hunt.found {
        None => writeln!(
            out,
            "{name:<22} {:>6} {:>6}  {:<8} {:>10} {hours:>10.2} {real:>8.1}",
            hunt.seeds, "-", "-", "-"
        )?,
        Some((seed, broken)) => {
            let promise = broken.promise();
            let text: String = broken.text.chars().take(120).collect();
            writeln!(
                out,
                "{name:<22} {:>6} {seed:>6}  {promise:<8} {:>10.1} {hours:>10.2} {real:>8.1}  {text}",
                hunt.seeds,
                broken.at as f64 / 1e9,
            )?;
        }
    }
    Ok(())
}
