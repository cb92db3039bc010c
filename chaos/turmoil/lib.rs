//! The adapters, with their real IO, over a simulated network.
//!
//! What the simulations of the core leave out runs here: TLS, HTTP/2, gRPC, the
//! watches, the requests for Leases, and what they make of a network that holds,
//! drops and cuts. turmoil gives every host a runtime of its own, lets time pass
//! only when all of them wait, and draws latencies from a seed.
//!
//! | host | what runs there |
//! |---|---|
//! | `api` | the embedded API server over HTTP |
//! | `a`, `b`, … | a replica: coordination, watches, delivery, gateway service, peers |
//! | `gateway` | the reference gateway |
//!
//! After every step it is checked that no two replicas act on a namespace and that
//! nothing on the gateway went back. Latencies and faults follow from the seed;
//! what does not are the jitter of retries and the bytes of TLS, which draw on the
//! operating system's randomness, so a seed replays the same faults and not every
//! packet.

mod api;
mod fleet;
mod network;
mod pki;
mod replica;

pub use fleet::{Fleet, MEMBERS, Shape, seeds};
