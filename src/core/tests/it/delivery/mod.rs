//! Delivery: the rules one by one, then all of them at once in a simulation.

mod bench;
mod gateway;
mod log;
mod rejections;
mod resume;
mod sending;
mod sessions;
mod simulation;
mod store;
