//! Test support: real and embedded API servers, fleets of real processes, a real
//! OpenBao, waiting with deadlines.

pub mod bao;
pub mod fleet;
pub mod real_kube;
