//! A proxy that plays planned faults between a replica and its API server, and
//! the plans it plays.
//!
//! A reference run records what replicas write and what watches tell them.
//! Plans are made from that record by the rules of Sieve (Sun et al., "Automatic
//! Reliability Testing for Cluster Management Controllers", OSDI 2022). Every
//! plan is played with an API server, proxies and processes of its own, and
//! judged by the reference: see [`run`].

mod generate;
mod history;
mod ingresses;
mod judge;
mod plan;
mod play;
mod promises;
mod proxy;
mod report;
mod run;
mod scenario;
mod stage;
pub mod tape;
mod world;

pub use plan::{Fault, Object, Occasion, Plan, PlanError, Target};
pub use play::Ground;
pub use promises::Judged;
pub use proxy::{Proxy, Theatre};
pub use report::{Report, Verdict};
pub use run::{Choice, Options, list, run};
pub use stage::Stage;

/// Which API server replicas run against.
pub use flotilla_testing::fleet::Against;
