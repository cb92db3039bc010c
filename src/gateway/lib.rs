//! The reference gateway: the stream protocol's client side and an HTTP data plane.
