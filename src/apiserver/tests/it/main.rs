//! The server as its two judges see it: kube-rs and kubectl.

mod access;
mod definitions;
mod faults;
mod objects;
mod watches;
mod world;
