//! Custom resources of AVAPIGW gateways (group `avapigw.io`).

mod kind;

pub use kind::Kind;

/// API group of the gateways' resources.
pub const GROUP: &str = "avapigw.io";
