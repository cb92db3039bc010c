//! Tests over the crate's public surface.
