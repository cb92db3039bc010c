//! Generated protocol types and services.
