//! Tests of the core through its public interface.

mod balance;
mod coordination;
mod delivery;
mod version;
