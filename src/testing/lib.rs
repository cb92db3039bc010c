//! Test support: real and embedded API servers, waiting with deadlines.

pub mod real_kube;
