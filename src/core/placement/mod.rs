//! Which namespaces are at home elsewhere than the ring says, so that no member
//! carries much more than its share.
//!
//! A ring alone spreads *numbers* of namespaces, and only roughly; tenants
//! differ in size by orders of magnitude. So owners measure what their
//! namespaces weigh ([`Meter`]) and tell all members ([`LoadReport`]); the
//! leader decides which namespaces leave the ring's owner ([`plan`]) and
//! publishes these exceptions in the map. The method is consistent hashing with
//! bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing
//! with Bounded Loads", 2016, arXiv:1608.01350), with weights, and starting
//! from where everything is instead of from an empty ring, which is what keeps
//! movement small.
//!
//! Nothing flaps, because of four things: change rates are averaged over
//! minutes, weights are rounded and move only when the measure has clearly left
//! the rounded value, the leader aims at [`AIM`] and acts only above
//! [`TOLERATED`] that lasts, and what fits where it is stays there.

mod load;
mod meter;
mod moves;
mod plan;

pub use load::{LoadReport, Loads, MAX_ENTRIES, Weight, imbalance};
pub use meter::{Meter, Sample};
pub use moves::{MoveReason, Moves, moves};
pub use plan::{MAX_EXCEPTIONS, plan};

/// A member may carry this share of the mean after planning, in percent.
pub const AIM: u64 = 110;

/// Above this share of the mean, in percent, the leader plans anew.
pub const TOLERATED: u64 = 115;
