//! Numbers, durations and TLS versions that several parts of a spec share.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::duration::parse_go_duration;
use super::field::{FieldError, Path};
use super::shape::{BackendAuthentication, Cache, MaxSessions, RateLimit, Redis, Text, TlsVersions, content};

/// Ports that something can listen on.
pub(super) const PORTS: RangeInclusive<i64> = 1..=65_535;

/// Weights of destinations and hosts.
pub(super) const WEIGHTS: RangeInclusive<i64> = 0..=100;

const DURATION_REMEDY: &str =
    "give numbers with the units ns, us, ms, s, m or h, for example 1h30m, 1.5s or 300ms";

/// Checks the duration in field `name`; absent and empty are zero.
pub(super) fn duration(
    text: &Option<Text<'_>>,
    parent: &Path<'_>,
    name: &'static str,
) -> Result<Duration, FieldError> {
    let text = content(text);
    parse_go_duration(text)
        .map_err(|error| parent.field(name).error(format!("{text:?} {error}"), DURATION_REMEDY))
}

/// Checks that a number, when it is there, lies in a range.
pub(super) fn number(
    value: Option<i64>,
    range: RangeInclusive<i64>,
    parent: &Path<'_>,
    name: &'static str,
) -> Result<(), FieldError> {
    match value {
        Some(value) if !range.contains(&value) => Err(parent.field(name).error(
            format!("is {value}"),
            if *range.end() == i64::MAX {
                format!("give {} or more", range.start())
            } else {
                format!("give a number from {} to {}", range.start(), range.end())
            },
        )),
        _ => Ok(()),
    }
}

/// What a gateway takes as a count of something to allocate.
pub(super) const COUNTS: RangeInclusive<i64> = 0..=i64::MAX;

pub(super) fn tls(versions: &Option<TlsVersions<'_>>, parent: &Path<'_>) -> Result<(), FieldError> {
    let Some(versions) = versions else { return Ok(()) };
    let (least, most) = (content(&versions.min_version), content(&versions.max_version));
    // TLS10 to TLS13: their order is that of the strings.
    if !least.is_empty() && !most.is_empty() && least > most {
        return Err(parent.field("tls").field("minVersion").error(
            format!("{least} is above maxVersion {most}, so no connection can be made"),
            "raise maxVersion or lower minVersion",
        ));
    }
    Ok(())
}

pub(super) fn cache(cache: &Option<Cache<'_>>, parent: &Path<'_>) -> Result<(), FieldError> {
    let Some(cache) = cache else { return Ok(()) };
    let at = parent.field("cache");
    number(cache.max_entries, COUNTS, &at, "maxEntries")?;
    duration(&cache.ttl, &at, "ttl")?;
    duration(&cache.stale_while_revalidate, &at, "staleWhileRevalidate")?;
    duration(&cache.negative_cache_ttl, &at, "negativeCacheTTL")?;
    redis(&cache.redis, &at)
}

fn redis(redis: &Option<Redis<'_>>, parent: &Path<'_>) -> Result<(), FieldError> {
    let Some(redis) = redis else { return Ok(()) };
    let at = parent.field("redis");
    number(redis.pool_size, COUNTS, &at, "poolSize")?;
    duration(&redis.connect_timeout, &at, "connectTimeout")?;
    duration(&redis.read_timeout, &at, "readTimeout")?;
    duration(&redis.write_timeout, &at, "writeTimeout")?;
    let Some(retry) = &redis.retry else { return Ok(()) };
    let at = at.field("retry");
    number(retry.max_retries, COUNTS, &at, "maxRetries")?;
    duration(&retry.initial_backoff, &at, "initialBackoff")?;
    duration(&retry.max_backoff, &at, "maxBackoff")?;
    Ok(())
}

pub(super) fn max_sessions(limit: &Option<MaxSessions<'_>>, parent: &Path<'_>) -> Result<(), FieldError> {
    let Some(limit) = limit else { return Ok(()) };
    let at = parent.field("maxSessions");
    number(limit.max_concurrent, COUNTS, &at, "maxConcurrent")?;
    number(limit.queue_size, COUNTS, &at, "queueSize")?;
    duration(&limit.queue_timeout, &at, "queueTimeout")?;
    Ok(())
}

pub(super) fn rate_limit(limit: &Option<RateLimit<'_>>, parent: &Path<'_>) -> Result<(), FieldError> {
    let Some(limit) = limit else { return Ok(()) };
    let at = parent.field("rateLimit");
    number(limit.requests_per_second, COUNTS, &at, "requestsPerSecond")?;
    number(limit.burst, COUNTS, &at, "burst")?;
    redis(&limit.redis, &at)
}

pub(super) fn backend_authentication(
    authentication: &Option<BackendAuthentication<'_>>,
    parent: &Path<'_>,
) -> Result<(), FieldError> {
    let oidc = authentication.as_ref().and_then(|auth| auth.jwt.as_ref()).and_then(|jwt| jwt.oidc.as_ref());
    let Some(oidc) = oidc else { return Ok(()) };
    let (at, jwt) = (parent.field("authentication"), "jwt");
    duration(&oidc.token_cache_ttl, &at.field(jwt).field("oidc"), "tokenCacheTTL")?;
    Ok(())
}
