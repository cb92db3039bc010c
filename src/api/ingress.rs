//! Kubernetes' own Ingress (`networking.k8s.io/v1`), for those who convert it.
//!
//! The types are those of `k8s-openapi`; they stand here so that whoever converts needs
//! no more than this crate, as for the kinds of our own.

pub use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};

/// API group of Ingresses.
pub const GROUP: &str = "networking.k8s.io";

/// Names the controller in IngressClasses that are ours.
pub const CONTROLLER: &str = "avapigw.io/ingress-controller";

/// Names the class of an Ingress in the way of before `spec.ingressClassName`.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What all annotations of this family begin with.
pub const ANNOTATIONS: &str = "avapigw.io/";

/// What the published operator keeps Ingresses from going with.
pub const FINALIZER: &str = "ingress.avapigw.io/finalizer";
