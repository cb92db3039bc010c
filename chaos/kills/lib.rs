//! Kills real processes and measures what that costs.
//!
//! A fleet of real replicas on a real API server serves gateways that live in
//! this process, while tenants keep changing things. Replicas are killed, told
//! to end, and stopped; each comes back. What is measured is seen from outside:
//! what gateways apply, what replicas say that they wrote, the published maps.

mod acts;
mod book;
mod edge;
mod fleet;
mod options;
mod report;
mod rolling;
mod run;
mod tenants;

pub use options::{Api, Blow, Options};
pub use report::{Phase, Quantiles, Report, Rolling};
pub use run::run;
