//! The proxy in front of an API server, without any replica.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod proxy;
