//! The gateways' configuration service and the task that feeds it.
//!
//! ```text
//! watches, peers ──▶ DeliveryHandle ──▶ DeliveryTask ──▶ StreamBody ──▶ gateway
//!                          ▲            (owns the engine)                  │
//!                          └────────────── GatewayService ◀────────────────┘
//! ```
//! The engine is single-threaded and pure; one task owns it and everybody else
//! sends it events. The service decides who may call and translates; it holds
//! no rules about configuration.

mod body;
mod encode;
mod handle;
mod lag;
mod service;
mod task;

pub use handle::{AckAnswer, DeliveryGone, DeliveryHandle, DeliveryInbox, delivery_channel};
pub use service::{GatewayService, GatewayServiceConfig};
pub use task::{DeliveryOutputs, DeliveryTask, DeliveryView, HistoryWanted};
