//! Admission webhooks: whether an object may be written, asked by the API server
//! over HTTPS (A-90 … A-100).
//!
//! Every replica answers, from the objects that its own watches have shown it. What
//! is said is decided by `flotilla_avapigw::judge`; here is only how it is asked and
//! told. What that would admit and others may want at the same moment is asked of
//! the one replica that decides (see `decide`).

mod answer;
mod decide;
mod review;
mod server;

use std::sync::{Arc, PoisonError, RwLock};

use flotilla_avapigw::{Class, Conflicts, References, Scope, Services};
use flotilla_core::time::Mono;
use flotilla_grpc::peers::{AdmissionAnswer, AdmissionQuestion};
use flotilla_k8s::services::{KnownService, Seen};
use flotilla_k8s::watch::ObjectEvent;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

use review::{Outcome, Rules};

pub use decide::Decider;
pub use server::{Limits, serve};

/// What this replica's watches have shown; clones are the same.
#[derive(Clone)]
pub struct Known(Arc<RwLock<Shown>>);

/// What was shown.
struct Shown {
    /// Objects of our kinds, by what they claim.
    conflicts: Conflicts,
    services: Services,
}

impl Known {
    /// Nothing yet.
    pub fn new(scope: Scope) -> Self {
        let shown = Shown { conflicts: Conflicts::new(scope), services: Services::default() };
        Known(Arc::new(RwLock::new(shown)))
    }

    /// Takes note of what a watch tells.
    pub fn tell(&self, event: &ObjectEvent) {
        let known = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).conflicts;
        match event {
            ObjectEvent::Listed { kind, objects, .. } => known.listed(*kind, objects),
            ObjectEvent::Changed(object) => known.insert(object),
            ObjectEvent::Deleted(kind, key, _) => known.remove(*kind, key),
            ObjectEvent::Bookmark(..) => {}
        }
    }

    /// Takes note of what the watch of Services tells.
    pub fn tell_services(&self, seen: &Seen<KnownService>) {
        let services = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).services;
        match seen {
            Seen::All(all) => services.listed(all.iter().map(|service| service.key.clone())),
            Seen::Is(service) => services.insert(service.key.clone()),
            Seen::Gone(service) => services.remove(&service.key),
            Seen::Lost => services.lost(),
        }
    }

    /// Asks something; must not take long.
    fn ask<T>(&self, question: impl FnOnce(&Shown) -> T) -> T {
        question(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether matches are compared over all namespaces.
    fn is_cluster_wide(&self) -> bool {
        self.ask(|shown| shown.conflicts.scope() == Scope::Cluster)
    }

    /// Decides about an admission, and reserves what was admitted.
    fn decide(&self, now: Mono, question: &AdmissionQuestion) -> AdmissionAnswer {
        let AdmissionQuestion { kind, key, claims, reserve, .. } = question;
        let known = &mut self.0.write().unwrap_or_else(PoisonError::into_inner).conflicts;
        if !known.is_complete() {
            return AdmissionAnswer::NotReady;
        }
        let taken = known.admit(now, *kind, key, claims, *reserve);
        if taken.is_empty() { AdmissionAnswer::Free } else { AdmissionAnswer::Taken(taken) }
    }
}

/// What answers reviews; clones share it.
#[derive(Clone)]
pub struct Webhooks {
    known: Known,
    decider: Decider,
    rules: Rules,
    metrics: Metrics,
}

impl Webhooks {
    /// Answers from what is known. `class`: of Ingresses that are ours, if any are.
    pub fn new(
        known: Known,
        decider: Decider,
        references: References,
        class: Option<Class>,
        metrics: Metrics,
    ) -> Self {
        Webhooks { known, decider, rules: Rules { references, class }, metrics }
    }
}

/// Metrics of admission.
#[derive(Clone)]
pub struct Metrics {
    reviews: IntCounterVec,
    decisions: IntCounterVec,
    seconds: Histogram,
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
        let metrics = Metrics {
            reviews: IntCounterVec::new(
                Opts::new("flotilla_admission_reviews_total", "Admission reviews, by what became of them."),
                &["outcome"],
            )?,
            decisions: IntCounterVec::new(
                Opts::new(
                    "flotilla_admission_decisions_total",
                    "What was asked of the replica that decides, by who did: the owner, one in its place, or this \
                     replica alone.",
                ),
                &["by"],
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
        registry.register(Box::new(metrics.decisions.clone()))?;
        for by in decide::BY {
            metrics.decisions.with_label_values(&[by]).inc_by(0);
        }
        for outcome in Outcome::ALL {
            metrics.reviews.with_label_values(&[outcome.name()]).inc_by(0);
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests;
