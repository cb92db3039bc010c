//! The hot paths and what measures them: `counts` counts their instructions, and
//! `benches/paths.rs` takes their time.

pub mod meter;
pub mod paths;
