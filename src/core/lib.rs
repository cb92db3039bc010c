//! Decisions without IO.
//!
//! Everything here takes events and the time and returns what to do. It knows
//! neither tokio, kube, tonic nor the clock, so it is tested by properties and
//! can be driven by a simulator. Adapters own sockets, tasks and clocks, and
//! hold no rules.

pub mod agreement;
pub mod applied;
pub mod backoff;
pub mod balance;
pub mod breakage;
pub mod claims;
pub mod compile;
pub mod coordination;
pub mod delivery;
pub mod digest;
pub mod ids;
pub mod inheritance;
pub mod lineage;
pub mod object;
pub mod placement;
pub mod policy;
pub mod report;
pub mod ring;
pub mod shardmap;
pub mod store;
pub mod time;
pub mod version;
pub mod wire;
