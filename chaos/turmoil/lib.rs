//! The adapters, with their real IO, over a simulated network.
