//! The adapters against API servers: the embedded one and a real
//! kube-apiserver answer the same questions.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod apply;
mod ca;
mod client;
mod clock;
mod coordination;
mod endpoints;
mod finalizers;
mod incarnation;
mod ingress;
mod server;
mod services;
mod status;
mod watch;
