//! What is counted about gateways that are dialled. What is sent to them counts
//! as with streams: see [`crate::metrics::Metrics`].

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

/// The counters; clones share them.
#[derive(Debug, Clone)]
pub struct PushMetrics {
    /// `flotilla_push_targets`: gateways that this replica is to dial.
    pub targets: IntGauge,
    /// `flotilla_push_sessions`: those with which it has a session.
    pub sessions: IntGauge,
    /// `flotilla_push_failures_total{reason}`: attempts and sessions that failed:
    /// `connect` (no TLS connection), `identity` (somebody else answered), `call` (a
    /// call failed), `superseded` (another replica opened a session), `delivery` (this
    /// replica ended it).
    pub failures: IntCounterVec,
    /// `flotilla_push_calls_total{rpc,code}`: calls of gateways that ended.
    pub calls: IntCounterVec,
}

impl PushMetrics {
    /// Makes and registers them.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = PushMetrics {
            targets: IntGauge::new("flotilla_push_targets", "Gateways that this replica is to dial.")?,
            sessions: IntGauge::new(
                "flotilla_push_sessions",
                "Gateways that this replica has dialled and has a session with.",
            )?,
            failures: IntCounterVec::new(
                Opts::new(
                    "flotilla_push_failures_total",
                    "Attempts to dial a gateway, and sessions with one, that failed, by reason.",
                ),
                &["reason"],
            )?,
            calls: IntCounterVec::new(
                Opts::new("flotilla_push_calls_total", "Calls of gateways that ended, by call and status."),
                &["rpc", "code"],
            )?,
        };
        registry.register(Box::new(metrics.targets.clone()))?;
        registry.register(Box::new(metrics.sessions.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.calls.clone()))?;
        Ok(metrics)
    }

    /// Counts a call.
    pub(super) fn called(&self, rpc: &str, code: Code) {
        self.calls.with_label_values(&[rpc, &format!("{code:?}")]).inc();
    }
}
