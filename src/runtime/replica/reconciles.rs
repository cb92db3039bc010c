//! Reconciliations of all controllers, and the finalizers that they set and take out, under
//! the names that dashboards for Kubernetes controllers look for, and those of the
//! published operator.

use std::time::Duration;

use flotilla_core::ids::Kind;
use flotilla_k8s::Error;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// What became of a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It was planned from an old view: it is planned again, or the object is gone.
    Again,
    /// It failed, and is tried again.
    Failed,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 3] = [Outcome::Done, Outcome::Again, Outcome::Failed];

    /// What became of one that wrote something. Who was too late looks again.
    pub fn of<T>(answer: &Result<T, Error>) -> Self {
        match answer {
            Ok(_) => Outcome::Done,
            Err(Error::Conflict { .. } | Error::NotFound { .. }) => Outcome::Again,
            Err(_) => Outcome::Failed,
        }
    }

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Done => "success",
            Outcome::Again => "requeue",
            Outcome::Failed => "error",
        }
    }
}

/// Counts them, by controller; clones are the same.
#[derive(Clone)]
pub struct Reconciles {
    total: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
    results: IntCounterVec,
    operator_errors: IntCounterVec,
    operator_seconds: HistogramVec,
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
            results: IntCounterVec::new(
                Opts::new(
                    "avapigw_operator_reconcile_total",
                    "Statuses and Ingresses reconciled, by controller and what became of them.",
                ),
                &["controller", "result"],
            )?,
            operator_errors: IntCounterVec::new(
                Opts::new("avapigw_operator_reconcile_errors_total", "Reconciliations that failed."),
                controller,
            )?,
            operator_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "avapigw_operator_reconcile_duration_seconds",
                    "How long reconciliations took.",
                ),
                controller,
            )?,
        };
        registry.register(Box::new(counted.total.clone()))?;
        registry.register(Box::new(counted.errors.clone()))?;
        for counters in [&counted.results, &counted.operator_errors] {
            registry.register(Box::new(counters.clone()))?;
        }
        for seconds in [&counted.seconds, &counted.operator_seconds] {
            registry.register(Box::new(seconds.clone()))?;
        }
        Ok(counted)
    }

    /// A controller that has done nothing yet.
    pub fn start(&self, controller: &str) {
        self.total.with_label_values(&[controller]).inc_by(0);
        self.errors.with_label_values(&[controller]).inc_by(0);
        self.operator_errors.with_label_values(&[controller]).inc_by(0);
        for outcome in Outcome::ALL {
            self.results.with_label_values(&[controller, outcome.name()]).inc_by(0);
        }
    }

    /// One reconciliation and how long it took.
    pub fn observe(&self, controller: &str, took: Duration, outcome: Outcome) {
        self.total.with_label_values(&[controller]).inc();
        self.results.with_label_values(&[controller, outcome.name()]).inc();
        for seconds in [&self.seconds, &self.operator_seconds] {
            seconds.with_label_values(&[controller]).observe(took.as_secs_f64());
        }
        if outcome == Outcome::Failed {
            self.errors.with_label_values(&[controller]).inc();
            self.operator_errors.with_label_values(&[controller]).inc();
        }
    }
}

/// Counts finalizers that are set and taken out, under the published operator's name, by
/// controller; clones are the same.
#[derive(Clone)]
pub struct Finalizers(IntCounterVec);

/// What is done with one, as its label says it.
const SET: &str = "add";
const TAKEN_OUT: &str = "remove";

impl Finalizers {
    /// Registers the metric.
    ///
    /// # Errors
    /// When its name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counted = IntCounterVec::new(
            Opts::new(
                "avapigw_operator_finalizer_operations_total",
                "Finalizers set and taken out, by controller.",
            ),
            &["controller", "operation"],
        )?;
        registry.register(Box::new(counted.clone()))?;
        for kind in Kind::ALL {
            for operation in [SET, TAKEN_OUT] {
                counted.with_label_values(&[&*controller(kind), operation]).inc_by(0);
            }
        }
        // We set none to Ingresses.
        counted.with_label_values(&[INGRESS, TAKEN_OUT]).inc_by(0);
        Ok(Finalizers(counted))
    }

    /// One was set.
    pub fn set(&self, kind: Kind) {
        self.0.with_label_values(&[&*controller(kind), SET]).inc();
    }

    /// One was taken out of a route or backend.
    pub fn taken_out(&self, kind: Kind) {
        self.0.with_label_values(&[&*controller(kind), TAKEN_OUT]).inc();
    }

    /// One was taken out of an Ingress.
    pub fn taken_out_of_ingress(&self) {
        self.0.with_label_values(&[INGRESS, TAKEN_OUT]).inc();
    }
}

/// The name of the controller of a kind, in logs and metrics.
pub fn controller(kind: Kind) -> String {
    kind.name().to_lowercase()
}

/// The name of the controller of Ingresses, likewise.
pub const INGRESS: &str = "ingress";
