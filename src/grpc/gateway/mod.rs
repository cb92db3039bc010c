//! The gateways' configuration service and the task that feeds it.
//!
//! ```text
//! watches, peers ──▶ DeliveryHandle ──▶ DeliveryTask ──▶ StreamBody ──▶ gateway
//!                          ▲            (owns the engine)                  │
//!                          └────────────── GatewayService ◀────────────────┘
//! ```
//! The engine is single-threaded and pure; one task owns it and everybody else
//! sends it events. A gateway that listens has a stream like all others, only
//! that what comes out of it is carried there by calls (`crate::push`). The service decides
//! who may call and translates; it holds no rules about configuration. Acknowledgements, the
//! most frequent call, have a way of their own past the router and the codec (`ack`).

mod ack;
mod body;
mod encode;
mod frames;
mod handle;
mod lag;
mod pushed;
mod service;
mod task;

pub(crate) use encode::kind_of;
pub use encode::{EncodedBatch, EncodedBatches};
pub use frames::Frames;
pub use handle::{DeliveryGone, DeliveryHandle, DeliveryInbox, delivery_channel};
pub(crate) use pushed::PushedUpdates;
pub use service::{GatewayCalls, GatewayService, GatewayServiceConfig};
pub(crate) use service::{labels, scope, shorten};
pub use task::{DeliveryOutputs, DeliveryTask, DeliveryView, HistoryWanted};
