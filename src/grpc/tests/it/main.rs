//! Replicas on the loopback interface, with tonic clients and with clients that
//! read HTTP/2 frames byte by byte.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod fleet;
mod frames;
mod garbage;
mod gateways;
mod peers;
mod push;
mod push_parts;
mod raw_http2;
mod refusals;
mod scopes;
