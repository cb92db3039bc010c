//! Delivery: the rules one by one, then all of them at once in a simulation.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, a story is told on stdout"
)]

mod bench;
mod contest;
mod gateway;
mod holdings;
mod log;
mod loud;
mod rejections;
mod resume;
mod sending;
mod sessions;
mod simulation;
mod store;
mod storm;
mod unheard;
