//! Custom resource types, conditions, pure validation and defaulting.
//!
//! Nothing here can reach a Kubernetes API: the crate uses `kube-core` and
//! `kube-derive`, not `kube`, so no client is in reach.

pub mod avapigw;
pub mod conditions;
pub mod crd;
pub mod fleet;
pub mod ingress;
pub mod reference;
pub mod validation;

mod structural;
