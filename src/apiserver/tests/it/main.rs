//! The server as its two judges see it: kube-rs and kubectl.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that finds something unexpected has failed")]

mod access;
mod definitions;
mod faults;
mod kubectl;
mod objects;
mod watches;
mod world;
