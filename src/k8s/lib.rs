//! The only place that talks to a Kubernetes API: list and watch, Leases, status, Secrets, Events.
