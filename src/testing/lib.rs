//! Test support: real and embedded API servers, fleets of real processes,
//! waiting with deadlines.

pub mod fleet;
pub mod real_kube;
