//! The commands, one module each.

pub mod model;
pub mod plans;
pub mod sim;
