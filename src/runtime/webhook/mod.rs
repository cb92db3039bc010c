//! Admission webhooks: whether an object may be written, asked by the API server
//! over HTTPS (A-90 … A-100).
//!
//! Every replica answers, from the objects that its own watches have shown it.
//! So an answer needs nobody else, and two writes at the same moment may both be
//! admitted. What is said is decided by `flotilla_avapigw::judge`; here is only
//! how it is asked and told.

mod answer;
mod review;
mod server;

use std::sync::{Arc, PoisonError, RwLock};

use flotilla_avapigw::{Conflicts, References, Scope};
use flotilla_k8s::watch::ObjectEvent;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use review::Outcome;

pub use server::{Limits, serve};

/// What this replica's watches have shown; clones are the same.
#[derive(Clone)]
pub struct Known(Arc<RwLock<Conflicts>>);

impl Known {
    /// Nothing yet.
    pub fn new(scope: Scope) -> Self {
        Known(Arc::new(RwLock::new(Conflicts::new(scope))))
    }

    /// Takes note of what a watch tells.
    pub fn tell(&self, event: &ObjectEvent) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            ObjectEvent::Listed { kind, objects, .. } => known.listed(*kind, objects),
            ObjectEvent::Changed(object) => known.insert(object),
            ObjectEvent::Deleted(kind, key, _) => known.remove(*kind, key),
            ObjectEvent::Bookmark(..) => {}
        }
    }

    /// Asks something; must not take long.
    fn ask<T>(&self, question: impl FnOnce(&Conflicts) -> T) -> T {
        question(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What answers reviews; clones share it.
#[derive(Clone)]
pub struct Webhooks {
    known: Known,
    references: References,
    metrics: Metrics,
}

impl Webhooks {
    /// Answers from what is known.
    pub fn new(known: Known, references: References, metrics: Metrics) -> Self {
        Webhooks { known, references, metrics }
    }
}

/// Metrics of admission.
#[derive(Clone)]
pub struct Metrics {
    reviews: IntCounterVec,
    seconds: Histogram,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            reviews: IntCounterVec::new(
                Opts::new("flotilla_admission_reviews_total", "Admission reviews, by what became of them."),
                &["outcome"],
            )?,
            seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "flotilla_admission_seconds",
                    "How long admission reviews took, from the head of the request to the answer.",
                )
                .buckets(vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0]),
            )?,
        };
        registry.register(Box::new(metrics.reviews.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        for outcome in Outcome::ALL {
            metrics.reviews.with_label_values(&[outcome.name()]).inc_by(0);
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests;
