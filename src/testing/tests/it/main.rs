//! The real API server, started, broken and ended as tests do it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, and so do its helpers")]

mod real_kube;
