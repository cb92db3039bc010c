//! The reference gateway against values, an operator in the test, and small
//! upstream servers.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod admin;
mod data_plane;
mod operator;
mod properties;
mod protocol;
mod rejection;
mod state;
mod streams;
mod tls;
mod updates;
mod upstream;
