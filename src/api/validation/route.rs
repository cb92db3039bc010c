//! Rules for APIRoute and GRPCRoute specs.

use super::cel::check_cel;
use super::destinations::decoded;
use super::field::{FieldError, Path};
use super::limits::{
    COUNTS, PORTS, WEIGHTS, backend_authentication, cache, duration, max_sessions, number, rate_limit, tls,
};
use super::matches::Match;
use super::shape::{Aggregate, Authorization, Destination, Retries, Route, WeightedDestination, content};

/// The weight that the schema gives a destination without one.
const DEFAULT_WEIGHT: i64 = 100;

/// What explicit weights add up to.
const WHOLE: i64 = 100;

/// Status codes that a gateway can write.
const STATUS_CODES: std::ops::RangeInclusive<i64> = 100..=999;

pub(super) fn check<M: Match>(route: &Route<'_, M>, http: bool, at: &Path<'_>) -> Result<(), FieldError> {
    for (index, entry) in route.matches.iter().flatten().enumerate() {
        entry.check(&at.field("match").item(index))?;
    }
    check_destinations(route, http, at)?;
    check_timing(route, at)?;
    tls(&route.tls, at)?;
    cache(&route.cache, at)?;
    max_sessions(&route.max_sessions, at)?;
    rate_limit(&route.rate_limit, at)?;
    match &route.authorization {
        Some(authorization) => check_authorization(authorization, &at.field("authorization")),
        None => Ok(()),
    }
}

fn check_authorization(authorization: &Authorization<'_>, at: &Path<'_>) -> Result<(), FieldError> {
    cache(&authorization.cache, at)?;
    if let Some(external) = &authorization.external {
        duration(&external.timeout, &at.field("external"), "timeout")?;
    }
    // Gateways compile nothing of what is switched off.
    let enabled = |switch: Option<bool>| switch.unwrap_or(false);
    let Some(abac) = authorization.abac.as_ref().filter(|abac| enabled(abac.enabled)) else { return Ok(()) };
    if !enabled(authorization.enabled) {
        return Ok(());
    }
    let at = at.field("abac");
    let at = at.field("policies");
    for (index, policy) in abac.policies.iter().flatten().enumerate() {
        check_cel(content(&policy.expression))
            .map_err(|error| at.item(index).field("expression").error(error.to_string(), error.remedy()))?;
    }
    Ok(())
}

fn check_destinations<M>(route: &Route<'_, M>, http: bool, at: &Path<'_>) -> Result<(), FieldError> {
    let entries = route.route.as_deref().unwrap_or_default();
    let fans_out = check_aggregate(&route.aggregate, at)?;
    let answers = http && (route.redirect.is_some() || route.direct_response.is_some());
    if entries.is_empty() && !fans_out && !answers {
        return Err(at.field("route").error(
            "has no destination",
            if http { "add a destination, a redirect or a directResponse" } else { "add a destination" },
        ));
    }
    for (index, entry) in entries.iter().enumerate() {
        let routes = at.field("route");
        let at = routes.item(index);
        check_destination(entry.destination.as_ref(), &at)?;
        number(entry.weight, WEIGHTS, &at, "weight")?;
    }
    check_weights(entries, at)?;
    if let Some(mirror) = &route.mirror {
        check_destination(mirror.destination.as_ref(), &at.field("mirror"))?;
    }
    if http {
        number(route.redirect.as_ref().and_then(|r| r.port), PORTS, &at.field("redirect"), "port")?;
        let status = route.direct_response.as_ref().map(|response| response.status.unwrap_or(0));
        number(status, STATUS_CODES, &at.field("directResponse"), "status")?;
    }
    Ok(())
}

fn check_destination(destination: Option<&Destination<'_>>, parent: &Path<'_>) -> Result<(), FieldError> {
    let at = parent.field("destination");
    let remedy = "name a Backend of this namespace or a network host";
    let host = destination.and_then(|destination| destination.host);
    match host {
        Some(raw) if !decoded(raw, &at)?.is_empty() => {}
        _ => return Err(at.field("host").error("is empty", remedy)),
    }
    number(Some(destination.and_then(|d| d.port).unwrap_or(0)), PORTS, &at, "port")
}

/// Weights are shares of 100 when every destination sets one (or all are
/// zero). The schema's default makes an unset weight look like 100, and two of
/// those are no mistake: then weights are relative.
fn check_weights(entries: &[WeightedDestination<'_>], at: &Path<'_>) -> Result<(), FieldError> {
    let weights = entries.iter().map(|entry| entry.weight.unwrap_or(DEFAULT_WEIGHT));
    if entries.len() < 2 || weights.clone().any(|weight| weight == DEFAULT_WEIGHT) {
        return Ok(());
    }
    match weights.sum::<i64>() {
        0 | WHOLE => Ok(()),
        sum => Err(at.field("route").error(
            format!("has weights that add up to {sum}"),
            "let the weights add up to 100, or leave them out to share equally",
        )),
    }
}

/// Whether requests fan out to targets instead of going to a destination.
fn check_aggregate(aggregate: &Option<Aggregate<'_>>, at: &Path<'_>) -> Result<bool, FieldError> {
    let Some(aggregate) = aggregate else { return Ok(false) };
    let at = at.field("aggregate");
    if let Some(spool) = &aggregate.spool {
        duration(&spool.ttl, &at.field("spool"), "ttl")?;
    }
    let targets = aggregate.targets.as_deref().unwrap_or_default();
    for (index, target) in targets.iter().enumerate() {
        let targets = at.field("targets");
        let at = targets.item(index);
        check_destination(target.destination.as_ref(), &at)?;
        duration(&target.timeout, &at, "timeout")?;
        tls(&target.tls, &at)?;
        backend_authentication(&target.authentication, &at)?;
    }
    Ok(aggregate.enabled.unwrap_or(false) && !targets.is_empty())
}

fn check_timing<M>(route: &Route<'_, M>, at: &Path<'_>) -> Result<(), FieldError> {
    let timeout = duration(&route.timeout, at, "timeout")?;
    if let Some(delay) = route.fault.as_ref().and_then(|fault| fault.delay.as_ref()) {
        duration(&delay.fixed_delay, &at.field("fault").field("delay"), "fixedDelay")?;
    }
    let Some(retries) = &route.retries else { return Ok(()) };
    let at = at.field("retries");
    let per_try = check_retries(retries, &at)?;
    if !timeout.is_zero() && per_try >= timeout {
        return Err(at.field("perTryTimeout").error(
            format!("{per_try:?} is not below the route's timeout {timeout:?}, so no retry can happen"),
            "lower perTryTimeout or raise timeout",
        ));
    }
    Ok(())
}

fn check_retries(retries: &Retries<'_>, at: &Path<'_>) -> Result<std::time::Duration, FieldError> {
    number(retries.attempts, COUNTS, at, "attempts")?;
    duration(&retries.backoff_base_interval, at, "backoffBaseInterval")?;
    duration(&retries.backoff_max_interval, at, "backoffMaxInterval")?;
    duration(&retries.per_try_timeout, at, "perTryTimeout")
}
