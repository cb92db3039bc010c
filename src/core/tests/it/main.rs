//! Tests of the core through its public interface.

mod coordination;
mod delivery;
mod version;
