//! Reconciliations of all controllers, under the names that dashboards for Kubernetes
//! controllers look for.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Counts them, by controller; clones are the same.
#[derive(Clone)]
pub struct Reconciles {
    total: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
}

impl Reconciles {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let controller = &["controller"];
        let counted = Reconciles {
            total: IntCounterVec::new(
                Opts::new(
                    "controller_runtime_reconcile_total",
                    "Statuses and Ingresses reconciled, by controller.",
                ),
                controller,
            )?,
            errors: IntCounterVec::new(
                Opts::new(
                    "controller_runtime_reconcile_errors_total",
                    "Reconciliations that failed, by controller.",
                ),
                controller,
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "controller_runtime_reconcile_time_seconds",
                    "How long reconciliations took.",
                ),
                controller,
            )?,
        };
        registry.register(Box::new(counted.total.clone()))?;
        registry.register(Box::new(counted.errors.clone()))?;
        registry.register(Box::new(counted.seconds.clone()))?;
        Ok(counted)
    }

    /// A controller that has done nothing yet.
    pub fn start(&self, controller: &str) {
        self.total.with_label_values(&[controller]).inc_by(0);
        self.errors.with_label_values(&[controller]).inc_by(0);
    }

    /// One reconciliation and how long it took.
    pub fn observe(&self, controller: &str, took: Duration, failed: bool) {
        self.total.with_label_values(&[controller]).inc();
        self.seconds.with_label_values(&[controller]).observe(took.as_secs_f64());
        if failed {
            self.errors.with_label_values(&[controller]).inc();
        }
    }
}
