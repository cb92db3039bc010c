//! The patch formats a Kubernetes API server accepts, as pure functions on JSON values.
