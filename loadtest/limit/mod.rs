//! The yardstick: a bare tonic server that sends to every stream what it is
//! given, and nothing else. No replica can be faster than this; how close it
//! comes is what counts.

mod codec;
mod process;
mod server;

pub use process::Limit;
pub use server::{Args, run};
