//! The commands, one module each.

mod checker;
mod found;
pub mod model;
pub mod plans;
pub mod sim;
