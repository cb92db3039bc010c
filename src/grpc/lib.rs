//! The gateways' configuration service and the peers' service over mutual TLS.
