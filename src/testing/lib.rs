//! Test support: real and embedded API servers, waiting with deadlines.
