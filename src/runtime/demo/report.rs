//! The demo's result.

use serde::Serialize;

use super::ledger::Quantiles;

/// What happened when one replica was killed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Kill {
    /// The replica that got SIGKILL.
    pub victim: String,
    /// From the kill until the first change made after it, in a namespace of
    /// the victim, had reached the last gateway, in milliseconds. Gateways of
    /// the victim wait a second before they connect again.
    pub next_change_ms: f64,
    /// Namespaces whose owner changed.
    pub namespaces_moved: usize,
    /// Namespaces that the victim owned: what had to move.
    pub namespaces_of_victim: usize,
}

/// The figures of one round, as `--output json` prints them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Replicas at the start.
    pub replicas: u32,
    /// Gateways.
    pub gateways: u32,
    /// Namespaces of tenants.
    pub namespaces: usize,
    /// Objects at the end.
    pub resources: usize,
    /// Changes that tenants made.
    pub changes: usize,
    /// Every change reached every gateway.
    pub applied_everywhere: bool,
    /// Every gateway holds exactly what the API server holds.
    pub digests_equal: bool,
    /// Every object says `Ready=True` for its generation and all gateways.
    pub statuses_true: bool,
    /// Times a gateway went back to an older generation.
    pub regressions: u64,
    /// Removals on gateways that no tenant asked for.
    pub spurious_deletions: usize,
    /// From the API server's answer to the last gateway, in milliseconds, over
    /// all changes, those around the kill included.
    pub propagation_ms: Quantiles,
    /// The same over the changes before the kill.
    pub propagation_before_kill_ms: Quantiles,
    /// What happened when one replica was killed.
    pub kill: Kill,
    /// Status patches that were written, per change, before the kill.
    pub status_patches_per_change: f64,
    /// From the start of the first process to the end of the round, in seconds.
    pub seconds: f64,
    /// What did not hold, in words; empty when all held.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.problems.is_empty()
    }
}
