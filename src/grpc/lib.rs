//! The gateways' configuration service and the peers' service over mutual TLS.
//!
//! Everything here moves bytes and knows who is at the other end; what is to be
//! sent to whom is decided in `flotilla-core`.

pub mod acceptor;
pub mod clock;
mod dial;
pub mod gateway;
pub mod limits;
pub mod metrics;
pub mod peers;
pub mod push;
