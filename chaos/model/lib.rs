//! Small models of the protocols, explored exhaustively: simulation finds what is
//! likely, this finds what is possible.
//!
//! | model | what decides in it | what is modelled around it |
//! |---|---|---|
//! | [`handover`] | the product's `Handover`, `plan_map`, `Ownership` | Leases, their expiry, messages, crashes |
//! | [`versions`] | the product's `Delivery` with its store and versions | log, watches, connections, gateways, crashes |
//! | [`designs`] | three ways to name a version, in a few lines each | the same, much smaller |
//!
//! Where the product's own state machine is part of the model's state, what was
//! explored is what runs. What is modelled around the hand-over (Leases, membership,
//! the leader) is held to the product only by the names of its events; the simulation
//! in `chaos/sim` runs it whole.
//!
//! Every model takes one deliberate mistake; each must be found, or the model
//! would prove nothing.

pub mod designs;
mod explore;
pub mod handover;
pub mod versions;

pub use explore::{Exploration, Limits, Promises, explore};
