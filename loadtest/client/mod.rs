//! Light gateways: thousands in one process, with a decoder of their own.
//!
//! They share no code with the server or with the reference gateway, so that a
//! mistake made there is not made here again, and so that they cost little next
//! to what they measure.

mod board;
mod connection;
mod gateway;
mod holdings;
mod messages;
mod protobuf;

pub use board::{Board, Tally, Way};
pub use connection::{Reading, Target};
pub use gateway::{Counters, Crew, Model, Onlooker};
pub use holdings::{Held, Holdings, Violations, key};
pub use messages::{Resource, encode_snapshot, encode_update};
