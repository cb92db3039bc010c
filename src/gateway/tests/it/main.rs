//! The reference gateway against values, an operator in the test, and small
//! upstream servers.

mod admin;
mod data_plane;
mod operator;
mod properties;
mod protocol;
mod rejection;
mod state;
mod streams;
mod updates;
mod upstream;
