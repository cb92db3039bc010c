//! Why gateways cannot run. What happens while they run (lost connections,
//! bad updates) is no error: they go on, as the published gateway does.

use std::io;
use std::net::SocketAddr;

use flotilla_core::ids::GatewayId;

/// Why gateways cannot run.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An option makes no sense.
    #[error("gateway {gateway}: {field}: {problem}")]
    Option {
        /// The gateway.
        gateway: GatewayId,
        /// The option.
        field: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Two gateways have the same identity.
    #[error("gateway {gateway} is there twice; give every gateway a name of its own")]
    Duplicate {
        /// The identity.
        gateway: GatewayId,
    },
    /// There is no gateway to run.
    #[error("there is no gateway to run; ask for at least one")]
    NoGateway,
    /// Text that is no operator address.
    #[error("operator-address {text:?} is no HOST:PORT; write for example operator.avapigw.svc:9444")]
    Address {
        /// The text.
        text: String,
    },
    /// Text that is no cost model.
    #[error("apply-cost {text:?} is unknown; use none or real")]
    ApplyCost {
        /// The text.
        text: String,
    },
    /// A listener cannot be bound.
    #[error("cannot listen on {address} for {purpose}; choose another address, or free this one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it was for.
        purpose: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The ports after the first one do not reach for all gateways.
    #[error("{count} gateways do not fit between port {first} and 65535; choose a lower first port")]
    Ports {
        /// The first port.
        first: u16,
        /// Number of gateways.
        count: usize,
    },
    /// A task of the process ended that must not end.
    #[error("the task {task} ended by itself; this is a defect")]
    Task {
        /// Its name.
        task: String,
    },
}
