//! What is counted of admission: under our names, and under those of the published
//! operator, whose dashboards go on showing it.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use super::Known;
use super::decide::{BY, Decider};
use super::review::{About, Answer, Operation, Outcome};

/// Metrics of admission; clones are the same.
#[derive(Clone)]
pub struct Metrics {
    reviews: IntCounterVec,
    decisions: IntCounterVec,
    seconds: Histogram,
    validations: IntCounterVec,
    durations: HistogramVec,
    warnings: IntCounterVec,
    duplicates: IntCounterVec,
}

/// What came of comparing what an object claims with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    /// Nobody has it.
    Free,
    /// Somebody has it.
    Conflict,
    /// Nobody could say.
    Undecided,
}

impl Checked {
    const ALL: [Checked; 3] = [Checked::Free, Checked::Conflict, Checked::Undecided];

    const fn name(self) -> &'static str {
        match self {
            Checked::Free => "ok",
            Checked::Conflict => "conflict",
            Checked::Undecided => "error",
        }
    }
}

const fn scope(cluster_wide: bool) -> &'static str {
    if cluster_wide { "cluster" } else { "namespace" }
}

impl Metrics {
    /// Decides by what is known, alone; see [`Decider::among`].
    pub fn decider(&self, known: &Known) -> Decider {
        Decider::alone(known.clone(), self.decisions.clone())
    }

    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let seconds = |name: &str, help: &str| {
            let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
            HistogramOpts::new(name, help).buckets(buckets)
        };
        let metrics = Metrics {
            reviews: counters(
                "flotilla_admission_reviews_total",
                "Admission reviews, by what became of them.",
                &["outcome"],
            )?,
            decisions: counters(
                "flotilla_admission_decisions_total",
                "What was asked of the replica that decides, by who did: the owner, one in its place, or this \
                 replica alone.",
                &["by"],
            )?,
            seconds: Histogram::with_opts(seconds(
                "flotilla_admission_seconds",
                "How long admission reviews took, from the head of the request to the answer.",
            ))?,
            validations: counters(
                "avapigw_operator_webhook_validations_total",
                "Objects that were admitted and refused, by kind and operation.",
                &["resource", "operation", "result"],
            )?,
            durations: HistogramVec::new(
                seconds(
                    "avapigw_operator_webhook_validation_duration_seconds",
                    "How long their reviews took, from the head of the request to the answer.",
                ),
                &["resource", "operation"],
            )?,
            warnings: counters(
                "avapigw_operator_webhook_validation_warnings_total",
                "Warnings that writers of objects were given, by kind.",
                &["resource"],
            )?,
            duplicates: counters(
                "avapigw_operator_webhook_duplicate_check_total",
                "Objects with something new that another one may have, by whether one has it.",
                &["resource_type", "scope", "result"],
            )?,
        };
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        for by in BY {
            metrics.decisions.with_label_values(&[by]).inc_by(0);
        }
        for outcome in Outcome::ALL {
            metrics.reviews.with_label_values(&[outcome.name()]).inc_by(0);
        }
        for about in About::all() {
            for operation in [Operation::Create, Operation::Update] {
                for result in ["allowed", "denied"] {
                    let labels = [about.kind(), operation.name(), result];
                    metrics.validations.with_label_values(&labels).inc_by(0);
                }
            }
            metrics.warnings.with_label_values(&[about.kind()]).inc_by(0);
        }
        Ok(metrics)
    }

    /// Of the scope that is compared, nothing was found yet.
    pub(super) fn start(&self, cluster_wide: bool) {
        for about in About::all() {
            for checked in Checked::ALL {
                let labels = [&about.kind().to_lowercase(), scope(cluster_wide), checked.name()];
                self.duplicates.with_label_values(&labels).inc_by(0);
            }
        }
    }

    /// Counts an answer.
    pub(super) fn answered(&self, answer: &Answer, took: Duration) {
        self.reviews.with_label_values(&[answer.outcome.name()]).inc();
        self.seconds.observe(took.as_secs_f64());
        let Some(told) = answer.told else { return };
        let (kind, operation) = (told.asked.about.kind(), told.asked.operation.name());
        let result = if answer.outcome == Outcome::Admitted { "allowed" } else { "denied" };
        self.validations.with_label_values(&[kind, operation, result]).inc();
        self.durations.with_label_values(&[kind, operation]).observe(took.as_secs_f64());
        self.warnings.with_label_values(&[kind]).inc_by(told.warnings as u64);
    }

    /// Counts what came of comparing an object with others.
    pub(super) fn checked(&self, about: About, cluster_wide: bool, checked: Checked) {
        let labels = [&about.kind().to_lowercase(), scope(cluster_wide), checked.name()];
        self.duplicates.with_label_values(&labels).inc();
    }
}
