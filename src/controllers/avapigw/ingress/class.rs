//! Whether an Ingress is for our gateways.

use flotilla_api::ingress::CLASS_ANNOTATION;

use super::Ingress;

/// The class of Ingresses that are ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name, as Ingresses say it.
    pub name: String,
    /// Whether those that name no class are ours, too. API servers fill in the default
    /// class when an Ingress is created; this is for those that came before it.
    pub is_default: bool,
}

impl Class {
    /// Whether an Ingress is of this class. `spec.ingressClassName` counts before the
    /// annotation of old, as in Kubernetes.
    pub fn has(&self, ingress: &Ingress) -> bool {
        let named = ingress.spec.ingress_class_name.as_ref().or(ingress.annotations.get(CLASS_ANNOTATION));
        named.map_or(self.is_default, |named| *named == self.name)
    }
}
