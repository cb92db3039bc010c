//! The commands, one module each.

mod checker;
mod found;
pub mod kills;
pub mod model;
pub mod plans;
pub mod sim;
