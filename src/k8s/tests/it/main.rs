//! The adapters against API servers: the embedded one and a real
//! kube-apiserver answer the same questions.

mod ca;
mod coordination;
mod server;
mod status;
mod watch;
