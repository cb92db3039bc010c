//! The server-side tables that `kubectl get` prints.
