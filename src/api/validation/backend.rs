//! Rules for Backend and GRPCBackend specs.

use super::field::{FieldError, Path};
use super::limits::{
    COUNTS, PORTS, WEIGHTS, backend_authentication, cache, duration, max_sessions, number, rate_limit, tls,
};
use super::shape::{Backend, content};

pub(super) fn check(backend: &Backend<'_>, at: &Path<'_>) -> Result<(), FieldError> {
    check_hosts(backend, at)?;
    if let Some(health) = &backend.health_check {
        let at = at.field("healthCheck");
        duration(&health.interval, &at, "interval")?;
        duration(&health.timeout, &at, "timeout")?;
        number(health.healthy_threshold, COUNTS, &at, "healthyThreshold")?;
        number(health.unhealthy_threshold, COUNTS, &at, "unhealthyThreshold")?;
    }
    if let Some(breaker) = &backend.circuit_breaker {
        let at = at.field("circuitBreaker");
        number(breaker.threshold, COUNTS, &at, "threshold")?;
        duration(&breaker.timeout, &at, "timeout")?;
        number(breaker.half_open_requests, COUNTS, &at, "halfOpenRequests")?;
    }
    if let Some(pool) = &backend.connection_pool {
        let at = at.field("connectionPool");
        number(pool.max_idle_conns, COUNTS, &at, "maxIdleConns")?;
        number(pool.max_conns_per_host, COUNTS, &at, "maxConnsPerHost")?;
        duration(&pool.idle_conn_timeout, &at, "idleConnTimeout")?;
    }
    tls(&backend.tls, at)?;
    backend_authentication(&backend.authentication, at)?;
    cache(&backend.cache, at)?;
    max_sessions(&backend.max_sessions, at)?;
    rate_limit(&backend.rate_limit, at)
}

fn check_hosts(backend: &Backend<'_>, at: &Path<'_>) -> Result<(), FieldError> {
    let hosts = at.field("hosts");
    let entries = backend.hosts.as_deref().unwrap_or_default();
    if entries.is_empty() {
        return Err(hosts.error("is empty", "list at least one host with address and port"));
    }
    for (index, host) in entries.iter().enumerate() {
        let at = hosts.item(index);
        if content(&host.address).is_empty() {
            return Err(at.field("address").error("is empty", "give a host name or an IP address"));
        }
        number(Some(host.port.unwrap_or(0)), PORTS, &at, "port")?;
        number(host.weight, WEIGHTS, &at, "weight")?;
    }
    Ok(())
}
