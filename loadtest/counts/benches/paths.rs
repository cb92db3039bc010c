//! How long the hot paths take by the clock: caches, memory and waiting are in it, which
//! the counts of instructions leave out.
//!
//! Only what counts is timed. What is compared with is the run before on the same
//! machine: a clock says nothing of another one.

use std::io::Write as _;
use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use flotilla_counts::meter::Meter;
use flotilla_counts::paths::{PATHS, Path};

fn main() {
    let few = Criterion::default()
        .sample_size(10)
        // Criterion's clock for these two also runs while a path is prepared.
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(5));
    let mut criterion = few.configure_from_args();
    let mut group = criterion.benchmark_group("paths");
    // Or the last sample would be of ten times the rounds of the first.
    group.sampling_mode(SamplingMode::Flat);
    for path in PATHS {
        group.bench_function(path.name, |bencher| bencher.iter_custom(|rounds| spent(path, rounds)));
    }
    group.finish();
    criterion.final_summary();
}

/// Time in what counts of so many rounds.
fn spent(path: &Path, rounds: u64) -> Duration {
    let mut meter = Meter::default();
    for _ in 0..rounds {
        if let Err(error) = path.go(&mut meter) {
            // Nobody takes an error from here, and a path that does nothing must not look fast.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            std::process::exit(1);
        }
    }
    meter.spent
}
