//! A proxy that plays planned faults between a replica and its API server.
