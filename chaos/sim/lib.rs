//! A deterministic simulation of a fleet: the product's own decisions (coordination,
//! delivery with its store, status reports) in as many replicas as a scenario has,
//! around them models of the API server, of gateways and of the network, in virtual
//! time. Everything follows from a [`Scenario`], which follows from a seed; the same
//! scenario goes the same way, byte for byte, on every machine.
//!
//! What happens is told to the observer of `flotilla-observer`, which knows nothing
//! of the product; the first promise that it finds broken ends the run. So does a panic
//! of what is played, and time that does not move on: both are reported as broken promises
//! are.
//!
//! ```text
//! draw(seed) ─▶ Scenario ─▶ World ─▶ Outcome { violation, trace, statistics }
//!                            │
//!                            ├ api        log, watch caches, Leases, map
//!                            ├ replica    one process: the core, put together
//!                            ├ gateway    the guards of the real gateway
//!                            └ witness    ─▶ observer
//! ```
//! To find out what matters in a scenario, leave out entries of its
//! [`plan`](Scenario::plan) and run it again: each actor has dice of its own, so the
//! rest stays much the same. [`World::with_story`] tells everything that happens.

mod api;
mod clock;
mod compiler;
mod dice;
mod draw;
mod gateway;
mod hunt;
mod kept;
mod network;
mod panics;
mod queue;
mod replica;
mod scenario;
mod shrink;
mod statistics;
mod trace;
mod universe;
mod witness;
mod world;

pub use draw::{Size, draw, draw_bench};
pub use hunt::{Hunt, hunt};
pub use kept::{Kept, Unreadable};
pub use scenario::{
    End, Fault, GatewayShape, Operator, Place, Planned, Scenario, Shape, Tenant, Weather, What,
};
pub use shrink::{Shrunk, shrink};
pub use statistics::{Count, Statistics};
pub use trace::explain;
pub use universe::{Flavour, Spec};
pub use witness::{Broken, Stopped, Story};
pub use world::{Outcome, World};
