//! Delivery: one session per gateway, driven by events.

mod types;

pub use types::*;
