//! The only place that talks to a Kubernetes API.
//!
//! Objects of delivered kinds are read as raw bytes ([`watch`]), because the
//! bytes that arrive are the bytes that leave; everything else goes through
//! `kube`. Nothing here decides: rules live in `flotilla-core`.

pub mod ca;
pub mod ca_bundle;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod coordination;
pub mod crd;
pub mod endpoints;
pub mod error;
pub mod event;
pub mod finalizers;
pub mod incarnation;
pub mod ingress;
mod mirror;
mod objects;
pub mod services;
pub mod status;
pub mod watch;

pub use error::Error;
