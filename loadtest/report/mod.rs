//! What a run found, for people and for programs.

mod plots;

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::cli::{self, Size};
use crate::client::{Tally, Violations};
use crate::process::{Usage, load};
use crate::requests::Requests;

/// A distribution, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// Half of all are at most this.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl From<&Histogram<u64>> for Quantiles {
    fn from(micros: &Histogram<u64>) -> Self {
        let at = |quantile| micros.value_at_quantile(quantile) as f64 / 1000.0;
        Quantiles { p50: at(0.5), p99: at(0.99), max: micros.max() as f64 / 1000.0 }
    }
}

/// How changes reached gateways, counted from the moment at which the API server
/// answered the write.
#[derive(Debug, Serialize)]
pub struct Spread {
    /// Changes that were made.
    pub changes: u64,
    /// Changes that did not get everywhere.
    pub missing: usize,
    /// To the first gateway.
    pub first_ms: Quantiles,
    /// To the median gateway.
    pub median_ms: Quantiles,
    /// To the last gateway.
    pub last_ms: Quantiles,
    /// To the last acknowledgement.
    pub acknowledged_ms: Quantiles,
    /// To the last gateway of those whose stream was not interrupted meanwhile;
    /// absent where none was interrupted.
    pub stayed_ms: Option<Quantiles>,
    /// To the status that says Ready; absent where statuses are not followed.
    pub ready_ms: Option<Quantiles>,
    /// How long gateways were without a stream, and how long they then took to
    /// have all that was written before their return.
    pub away_ms: Option<Quantiles>,
    /// See `away_ms`.
    pub caught_up_ms: Option<Quantiles>,
    /// Writes of statuses for each change; absent where that is not known.
    pub status_patches_per_change: Option<f64>,
    /// Messages to each gateway, on average.
    pub messages_per_gateway: f64,
    /// Bytes of messages to each gateway, on average.
    pub bytes_per_gateway: f64,
    /// Requests to the API server meanwhile, by verb and resource, those of the tenants and
    /// of this program included; absent where that is not known.
    pub api_requests: Option<Requests>,
    /// What the servers used meanwhile.
    pub servers: Usage,
    /// CPU time of the servers for one change on one gateway, in microseconds.
    pub cpu_micros_per_delivery: f64,
    /// Everything that was measured.
    #[serde(skip)]
    tally: Tally,
}

impl Spread {
    /// Puts together what was measured. `messages` and `bytes` are those of all
    /// gateways.
    pub fn new(tally: Tally, gateways: u32, messages: u64, bytes: u64, servers: Usage) -> Self {
        let deliveries = tally.changes as f64 * f64::from(gateways);
        let known = |found: &Histogram<u64>| (!found.is_empty()).then(|| found.into());
        Spread {
            changes: tally.changes,
            missing: tally.open,
            first_ms: (&tally.first).into(),
            median_ms: (&tally.median).into(),
            last_ms: (&tally.last).into(),
            acknowledged_ms: (&tally.acknowledged).into(),
            stayed_ms: (!tally.away.is_empty()).then(|| (&tally.stayed).into()),
            ready_ms: known(&tally.ready),
            away_ms: known(&tally.away),
            caught_up_ms: known(&tally.caught_up),
            status_patches_per_change: None,
            api_requests: None,
            messages_per_gateway: messages as f64 / f64::from(gateways),
            bytes_per_gateway: bytes as f64 / f64::from(gateways),
            servers,
            cpu_micros_per_delivery: servers.cpu_seconds * 1e6 / deliveries.max(1.0),
            tally,
        }
    }

    /// Says how many statuses were written meanwhile.
    pub fn status_patches(&mut self, patches: f64) {
        self.status_patches_per_change = Some(patches / (self.changes as f64).max(1.0));
    }

    /// Says it to people.
    pub fn say(&self, name: &str) {
        self.lines(name).iter().for_each(|line| say(line));
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let row = |what: &str, found: &Quantiles| {
            format!(
                "  {what:<22} p50 {:>9.2} ms   p99 {:>9.2} ms   max {:>9.2} ms",
                found.p50, found.p99, found.max
            )
        };
        let mut lines = vec![
            format!("{name}: {} changes, {} not everywhere", self.changes, self.missing),
            row("first gateway", &self.first_ms),
            row("median gateway", &self.median_ms),
            row("last gateway", &self.last_ms),
            row("last acknowledgement", &self.acknowledged_ms),
        ];
        let optional = [
            ("… of those that stayed", &self.stayed_ms),
            ("status Ready", &self.ready_ms),
            ("without a stream", &self.away_ms),
            ("then caught up", &self.caught_up_ms),
        ];
        lines.extend(optional.iter().filter_map(|(what, found)| Some(row(what, found.as_ref()?))));
        lines.push(format!(
            "  per gateway            {:.1} messages, {:.0} bytes",
            self.messages_per_gateway, self.bytes_per_gateway
        ));
        lines.extend(
            self.status_patches_per_change
                .map(|patches| format!("  statuses               {patches:.2} writes a change")),
        );
        if let Some(requests) = &self.api_requests {
            let each: Vec<_> = requests.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            lines.push(format!("  API requests           {}", each.join(", ")));
        }
        lines.push(format!(
            "  servers                {:.2} s of CPU, {:.1} µs a delivery, peak {:.1} MiB",
            self.servers.cpu_seconds,
            self.cpu_micros_per_delivery,
            mebibytes(self.servers.peak_rss)
        ));
        lines
    }
}

/// Under which conditions something was measured.
#[derive(Debug, Serialize)]
pub struct Conditions {
    /// The scenario's name.
    pub scenario: &'static str,
    /// How much there was.
    #[serde(flatten)]
    pub size: Size,
    /// How many replicas.
    pub replicas: usize,
    /// Which API server.
    pub api: String,
    /// The machine's load average at the end, this run included.
    pub load_average: f64,
}

impl Conditions {
    /// Those of now.
    pub fn new(scenario: &'static str, args: &cli::Fleet, size: Size) -> Self {
        let (replicas, api) = match &args.kubeconfig {
            None => (args.start.replicas, format!("{:?}", args.start.api).to_lowercase()),
            Some(_) => (args.operators.len(), "another".to_owned()),
        };
        Conditions { scenario, size, replicas, api, load_average: load() }
    }
}

/// What a scenario found.
#[derive(Debug, Serialize)]
pub struct Report<T> {
    /// Under which conditions.
    #[serde(flatten)]
    pub conditions: Conditions,
    /// What is particular to it.
    #[serde(flatten)]
    pub found: T,
    /// Whether everything ended as it must.
    pub outcome: Outcome,
}

impl<T: Measured + Serialize> Report<T> {
    /// Says how it ended, writes it where it is wanted, and returns whether all
    /// held that must.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn finish(&self, args: &cli::Fleet) -> anyhow::Result<bool> {
        say(&format!("load average {:.1}; {:?}", self.conditions.load_average, self.outcome));
        if let Some(file) = &args.json {
            write_json(self, file)?;
        }
        if let Some(folder) = &args.report {
            plots::write(folder, self)?;
        }
        Ok(self.outcome.held())
    }
}

/// What has distributions that can be drawn.
pub trait Measured {
    /// Each by its name.
    fn spreads(&self) -> Vec<(String, &Spread)> {
        Vec::new()
    }
}

/// Whether everything ended as it must.
#[derive(Debug, Default, Serialize)]
pub struct Outcome {
    /// What must never happen.
    pub violations: Violations,
    /// Gateways that do not hold what the API server holds.
    pub unequal_gateways: usize,
    /// Changes that did not get everywhere in time.
    pub missing: usize,
}

impl Outcome {
    /// Adds another run's.
    pub fn add(&mut self, other: &Outcome) {
        self.violations.add(&other.violations);
        self.unequal_gateways += other.unequal_gateways;
        self.missing += other.missing;
    }

    /// Whether it did.
    pub fn held(&self) -> bool {
        self.violations.none() && self.unequal_gateways == 0 && self.missing == 0
    }
}

/// Bytes in the unit in which people think of memory.
pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Says a line to people: on standard error, since standard output may be JSON.
pub fn say(line: &str) {
    // Nobody may be reading any more, which is no reason to stop.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes a result where it is wanted.
///
/// # Errors
/// When the file cannot be written.
pub fn write_json(result: &impl Serialize, to: &Path) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(result)?;
    if to == Path::new("-") {
        writeln!(std::io::stdout().lock(), "{text}").context("standard output")
    } else {
        std::fs::write(to, text + "\n").with_context(|| format!("--json {}", to.display()))
    }
}
