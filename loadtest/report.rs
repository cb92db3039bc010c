//! What a run found, for people and for programs.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::{Tally, Violations};
use crate::process::Usage;

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
    /// To the status that says Ready; absent where statuses are not followed.
    pub ready_ms: Option<Quantiles>,
    /// Messages to each gateway, on average.
    pub messages_per_gateway: f64,
    /// Bytes of messages to each gateway, on average.
    pub bytes_per_gateway: f64,
    /// What the servers used meanwhile.
    pub servers: Usage,
    /// CPU time of the servers for one change on one gateway, in microseconds.
    pub cpu_micros_per_delivery: f64,
}

impl Spread {
    /// Puts together what was measured. `messages` and `bytes` are those of all
    /// gateways.
    pub fn new(tally: &Tally, gateways: u32, messages: u64, bytes: u64, servers: Usage) -> Self {
        let deliveries = tally.changes as f64 * f64::from(gateways);
        Spread {
            changes: tally.changes,
            missing: tally.open,
            first_ms: (&tally.first).into(),
            median_ms: (&tally.median).into(),
            last_ms: (&tally.last).into(),
            acknowledged_ms: (&tally.acknowledged).into(),
            ready_ms: (!tally.ready.is_empty()).then(|| (&tally.ready).into()),
            messages_per_gateway: messages as f64 / f64::from(gateways),
            bytes_per_gateway: bytes as f64 / f64::from(gateways),
            servers,
            cpu_micros_per_delivery: servers.cpu_seconds * 1e6 / deliveries.max(1.0),
        }
    }

    /// A few lines for people.
    pub fn lines(&self, name: &str) -> Vec<String> {
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
        lines.extend(self.ready_ms.as_ref().map(|ready| row("status Ready", ready)));
        lines.push(format!(
            "  per gateway            {:.1} messages, {:.0} bytes",
            self.messages_per_gateway, self.bytes_per_gateway
        ));
        lines.push(format!(
            "  servers                {:.2} s of CPU, {:.1} µs a delivery, peak {:.1} MiB",
            self.servers.cpu_seconds,
            self.cpu_micros_per_delivery,
            self.servers.peak_rss as f64 / f64::from(1 << 20)
        ));
        lines
    }
}

/// Whether everything ended as it must.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// What must never happen.
    pub violations: Violations,
    /// Gateways that do not hold what the API server holds.
    pub unequal_gateways: usize,
    /// Changes that did not get everywhere in time.
    pub missing: usize,
}

impl Outcome {
    /// Whether it did.
    pub fn held(&self) -> bool {
        self.violations.none() && self.unequal_gateways == 0 && self.missing == 0
    }
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
