//! Admission webhooks: whether an object may be written, asked by the API server
//! over HTTPS (A-90 … A-100).
//!
//! Every replica answers, from the objects that its own watches have shown it. What
//! is said is decided by `flotilla_avapigw::judge`; here is only how it is asked and
//! told. What that would admit and others may want at the same moment is asked of
//! the one replica that decides (see `decide`).

mod answer;
mod decide;
mod metrics;
mod review;
mod server;

use std::sync::{Arc, PoisonError, RwLock};

use flotilla_avapigw::{Class, Conflicts, References, Scope, Services};
use flotilla_core::time::Mono;
use flotilla_grpc::peers::{AdmissionAnswer, AdmissionQuestion};
use flotilla_k8s::services::{KnownService, Seen};
use flotilla_k8s::watch::ObjectEvent;

use review::Rules;

pub use decide::Decider;
pub use metrics::Metrics;
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
        metrics.start(known.is_cluster_wide());
        Webhooks { known, decider, rules: Rules { references, class }, metrics }
    }
}

#[cfg(test)]
mod tests;
