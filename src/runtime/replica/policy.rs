//! The file that says which gateways may have what, and reading it again.
//!
//! It is looked at every few seconds, whole: a ConfigMap's folder is exchanged as one,
//! which watches of files miss. What is read twice is what is meant: a file that is
//! being written may be cut off behind any rule. A version that cannot be used changes
//! nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use flotilla_core::policy::{Document, Policy};
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Delivery;

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_secs(2);

/// Largest file. A ConfigMap takes 1 MiB.
const LARGEST: u64 = 1024 * 1024;

/// A policy and the file that it stands in.
pub struct PolicyFile {
    path: PathBuf,
    text: String,
    policy: Policy,
}

/// Metrics of this task.
pub struct Metrics {
    reads: IntCounterVec,
    stale: IntGauge,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            reads: IntCounterVec::new(
                Opts::new(
                    "flotilla_gateway_policy_versions_total",
                    "Versions of the gateway policy, by result.",
                ),
                &["result"],
            )?,
            stale: IntGauge::new(
                "flotilla_gateway_policy_stale",
                "1 while the file cannot be used and the policy before it goes on.",
            )?,
        };
        for result in ["used", "refused"] {
            metrics.reads.with_label_values(&[result]);
        }
        registry.register(Box::new(metrics.reads.clone()))?;
        registry.register(Box::new(metrics.stale.clone()))?;
        Ok(metrics)
    }
}

impl PolicyFile {
    /// Reads a policy.
    ///
    /// # Errors
    /// When there is none that can be used, by file, place and remedy.
    pub async fn open(path: &Path) -> anyhow::Result<PolicyFile> {
        let text = read(path).await?;
        let policy = parse(path, &text)?;
        Ok(PolicyFile { path: path.to_owned(), text, policy })
    }

    /// What it says.
    pub fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// Gives delivery every later version, until cancelled.
    pub async fn follow(self, delivery: Delivery, metrics: Metrics, cancel: CancellationToken) {
        let PolicyFile { path, text, .. } = self;
        metrics.reads.with_label_values(&["used"]).inc();
        let mut known = Ok(text);
        let mut last = known.clone();
        let mut ticks = interval(READ_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let found = read(&path).await.map_err(|error| format!("{error:#}"));
            if found != last {
                last = found;
                continue;
            }
            if found == known {
                continue;
            }
            let parsed = match &found {
                Ok(text) => parse(&path, text).map_err(|error| format!("{error:#}")),
                Err(error) => Err(error.clone()),
            };
            known = found;
            let result = if parsed.is_ok() { "used" } else { "refused" };
            metrics.reads.with_label_values(&[result]).inc();
            metrics.stale.set(i64::from(parsed.is_err()));
            match parsed {
                Ok(policy) => {
                    tracing::info!(file = %path.display(), "the gateway policy is another one");
                    // An error says that delivery is gone, and with it the process.
                    if delivery.set_policy(policy).await.is_err() {
                        return;
                    }
                }
                Err(error) => tracing::error!(file = %path.display(), error,
                    "the gateway policy cannot be used; the one before it goes on"),
            }
        }
    }
}

async fn read(path: &Path) -> anyhow::Result<String> {
    let size = tokio::fs::metadata(path).await.with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(size <= LARGEST, "{}: {size} bytes; a policy has at most {LARGEST}", path.display());
    tokio::fs::read_to_string(path).await.with_context(|| path.display().to_string())
}

fn parse(path: &Path, text: &str) -> anyhow::Result<Policy> {
    let document: Document = serde_saphyr::from_str(text).with_context(|| path.display().to_string())?;
    Policy::try_from(document).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::damage::damage;

    const GOOD: &str = "rules:\n- gateways: {namespaces: [edge], labels: {tier: public}}\n  namespaces: [team-*]\n  kinds: [APIRoute]\notherwise: everything\n";

    fn refusal(text: &str) -> String {
        format!("{:#}", parse(Path::new("policy.yaml"), text).unwrap_err())
    }

    #[test]
    fn a_policy_is_read_and_what_is_wrong_is_named() {
        parse(Path::new("policy.yaml"), GOOD).unwrap();
        parse(Path::new("policy.yaml"), "otherwise: nothing\n").unwrap();
        for (text, words) in [
            ("rules:\n- gateway: {}\n", "gateway"),
            ("rules:\n- gateways: {namespaces: [edge]}\n", "namespaces"),
            ("otherwise: perhaps\n", "perhaps"),
            ("", "it has no rules"),
            ("# rules:\n", "it has no rules"),
            ("rules: []\n", "it has no rules"),
            ("rules:\n- gateways: {labels: {a: b}}\n  namespaces: [x]\n", "rules[0].gateways"),
            ("rules: [", "policy.yaml"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with("policy.yaml: ") && refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn what_is_deep_or_multiplies_is_refused_and_not_followed() {
        let deep = format!("rules: {}", "[".repeat(100_000));
        let mut multiplying = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (from, to) in [('a', 'b'), ('b', 'c'), ('c', 'd'), ('d', 'e'), ('e', 'f'), ('f', 'g'), ('g', 'h')]
        {
            multiplying += &format!("{to}: &{to} [{}*{from}]\n", format!("*{from}, ").repeat(8));
        }
        multiplying += "rules: *h\n";
        for text in [deep, multiplying] {
            assert!(refusal(&text).starts_with("policy.yaml: "));
        }
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_is_used_or_refused_by_its_name(damage in damage(8)) {
            let bytes = damage.of(GOOD.as_bytes());
            let text = String::from_utf8_lossy(&bytes);
            if let Err(error) = parse(Path::new("policy.yaml"), &text) {
                let words = format!("{error:#}");
                prop_assert!(words.starts_with("policy.yaml: ") && words.len() > 20, "{}", words);
            }
        }
    }
}
