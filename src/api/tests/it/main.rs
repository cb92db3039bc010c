//! Tests over the crate's public surface.

#![expect(clippy::panic, reason = "helpers of tests fail by panicking with what they were given")]

mod cases;
mod chart;
mod matching;
mod published;
mod samples;
mod schema;
mod splice;
mod table;
mod validation;
