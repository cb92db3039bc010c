//! The commands, one module each.

mod checker;
mod found;
#[cfg(feature = "processes")]
pub mod kills;
pub mod model;
#[cfg(feature = "processes")]
pub mod plans;
pub mod sim;
