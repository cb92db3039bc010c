//! Generated protocol types and services, and nothing else.
//!
//! The sources are in `proto/`; `build.rs` compiles them. Fields of type
//! `bytes` are [`bytes::Bytes`], so that encoded specs are shared.

/// The protocol of gateways that dial in: `avapigw.operator.v1alpha1`.
pub mod operator {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("avapigw.operator.v1alpha1");
}

/// The protocol between replicas: `flotilla.peer.v1`.
pub mod peer {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("flotilla.peer.v1");
}

/// The protocol of gateways that listen: `flotilla.gateway.v1`.
pub mod push {
    #![allow(missing_docs, clippy::all, reason = "generated code")]
    tonic::include_proto!("flotilla.gateway.v1");
}
