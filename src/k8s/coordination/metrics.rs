//! Gauges and counters of coordination.

use flotilla_core::placement::MoveReason;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Metrics of coordination; clones share them.
#[derive(Debug, Clone)]
pub struct CoordinationMetrics {
    /// `flotilla_leader`
    pub leader: IntGauge,
    /// `flotilla_epoch`
    pub epoch: IntGauge,
    /// `flotilla_leadership_changes_total`
    pub leadership_changes: prometheus::IntCounter,
    /// `flotilla_members`
    pub members: IntGauge,
    /// `flotilla_lease_request_seconds`
    pub lease_seconds: Histogram,
    /// `flotilla_lease_requests_total{result}`
    pub lease_requests: IntCounterVec,
    /// `flotilla_stop_acting_total`
    pub stopped: prometheus::IntCounter,
    /// `flotilla_member_load{member}`
    pub member_load: IntGaugeVec,
    /// `flotilla_member_namespaces{member}`
    pub member_namespaces: IntGaugeVec,
    /// `flotilla_load_imbalance`
    pub imbalance: Gauge,
    /// `flotilla_members_away`
    pub away: IntGauge,
    /// `flotilla_placement_exceptions`
    pub exceptions: IntGauge,
    /// `flotilla_namespace_moves_total{reason}`
    pub moves: IntCounterVec,
}

impl CoordinationMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = CoordinationMetrics {
            leader: IntGauge::new("flotilla_leader", "1 while this replica leads.")?,
            epoch: IntGauge::new("flotilla_epoch", "Epoch of the newest shard map accepted.")?,
            leadership_changes: prometheus::IntCounter::new(
                "flotilla_leadership_changes_total",
                "Times this replica began or ceased to lead.",
            )?,
            members: IntGauge::new("flotilla_members", "Members of the newest shard map accepted.")?,
            lease_seconds: Histogram::with_opts(
                HistogramOpts::new("flotilla_lease_request_seconds", "How long requests for Leases took.")
                    .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            )?,
            lease_requests: IntCounterVec::new(
                Opts::new("flotilla_lease_requests_total", "Requests for Leases, by what became of them."),
                &["result"],
            )?,
            stopped: prometheus::IntCounter::new(
                "flotilla_stop_acting_total",
                "Times this replica was told to stop acting on namespaces.",
            )?,
            member_load: IntGaugeVec::new(
                Opts::new("flotilla_member_load", "What the namespaces that a member owns weigh together."),
                &["member"],
            )?,
            member_namespaces: IntGaugeVec::new(
                Opts::new("flotilla_member_namespaces", "Namespaces with objects that a member owns."),
                &["member"],
            )?,
            imbalance: Gauge::new(
                "flotilla_load_imbalance",
                "The largest load of a member as a multiple of the mean.",
            )?,
            away: IntGauge::new("flotilla_members_away", "Members that are gone and expected back.")?,
            exceptions: IntGauge::new(
                "flotilla_placement_exceptions",
                "Namespaces at home elsewhere than the ring says.",
            )?,
            moves: IntCounterVec::new(
                Opts::new(
                    "flotilla_namespace_moves_total",
                    "Namespaces that got another owner, by reason, as this replica saw it.",
                ),
                &["reason"],
            )?,
        };
        for reason in MoveReason::ALL {
            metrics.moves.with_label_values(&[reason.name()]).inc_by(0);
        }
        registry.register(Box::new(metrics.member_load.clone()))?;
        registry.register(Box::new(metrics.member_namespaces.clone()))?;
        registry.register(Box::new(metrics.imbalance.clone()))?;
        registry.register(Box::new(metrics.away.clone()))?;
        registry.register(Box::new(metrics.exceptions.clone()))?;
        registry.register(Box::new(metrics.moves.clone()))?;
        registry.register(Box::new(metrics.leader.clone()))?;
        registry.register(Box::new(metrics.epoch.clone()))?;
        registry.register(Box::new(metrics.leadership_changes.clone()))?;
        registry.register(Box::new(metrics.members.clone()))?;
        registry.register(Box::new(metrics.lease_seconds.clone()))?;
        registry.register(Box::new(metrics.lease_requests.clone()))?;
        registry.register(Box::new(metrics.stopped.clone()))?;
        Ok(metrics)
    }
}
