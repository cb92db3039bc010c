//! The reference gateway: the stream protocol's client side, push mode's server
//! side and an HTTP data plane.
//!
//! It behaves towards a controller as the published AVAPIGW gateway does, with
//! its guards, its back-off and its weaknesses, because it is what the
//! controller is tried against. [`state::State`] is that behaviour without IO;
//! the client task carries it over the network; the data plane serves requests
//! by what the state has loaded; the admin pages show it.
//!
//! Many gateways run in one process ([`Fleet`]) and share what they hold in
//! common: a thousand of them cost little more memory than one.

mod about;
mod admin;
mod backoff;
mod client;
mod connect;
mod cost;
mod duration;
mod error;
mod events;
mod fleet;
mod gateway;
mod held;
mod listen;
mod options;
mod proxy;
pub mod resource;
mod serve;
mod spec;
pub mod state;
mod stats;
mod update;

pub use error::GatewayError;
pub use events::{Event, EventKind};
pub use fleet::{Fleet, run, run_many};
pub use gateway::{Gateway, Link, Phase, View};
pub use options::{ApplyCost, FleetOptions, GatewayOptions, HttpListeners, Listen, OperatorAddress};
pub use proxy::ProxyStats;
pub use stats::Stats;
