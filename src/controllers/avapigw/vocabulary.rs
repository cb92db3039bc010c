//! Words that a field of a spec may have, where no schema says so: one list for objects
//! and for the annotations of Ingresses.

/// Methods of HTTP that a route may match, in any case.
pub(crate) const METHODS: [&str; 9] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE"];

/// What an HTTP request may be tried again on.
pub(crate) const HTTP_FAILURES: &[&str] = &[
    "5xx",
    "reset",
    "connect-failure",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "gateway-error",
];

/// What gateways try a gRPC call again on; the first is spelt in two ways.
pub(crate) const GRPC_RETRIED: &[&str] =
    &["canceled", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"];

/// How a gRPC call may fail: those above, and others that the published operator passes on
/// from annotations. Whether gateways heed these is not known.
pub(crate) const GRPC_FAILURES: &[&str] = &[
    "canceled",
    "cancelled",
    "unknown",
    "deadline-exceeded",
    "not-found",
    "already-exists",
    "permission-denied",
    "resource-exhausted",
    "failed-precondition",
    "aborted",
    "out-of-range",
    "unimplemented",
    "internal",
    "unavailable",
    "data-loss",
    "unauthenticated",
];

/// How a backend's hosts take turns, each in the spellings that are around: that of specs,
/// which comes first, and that of the published operator's documents and samples.
pub(crate) const BALANCING: &[(&str, &str)] = &[
    ("roundRobin", "roundRobin"),
    ("round-robin", "roundRobin"),
    ("weighted", "weighted"),
    ("leastConn", "leastConn"),
    ("least-conn", "leastConn"),
    ("random", "random"),
];
