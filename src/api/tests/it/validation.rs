//! What is refused before it reaches a gateway, and what is not.

use flotilla_api::avapigw::Kind;
use flotilla_api::validation::{is_catch_all, route_destinations, validate_for_gateway};
use serde_json::{Value, json};

fn accept(kind: Kind, spec: Value) {
    if let Err(error) = validate_for_gateway(kind, spec.to_string().as_bytes()) {
        panic!("{kind} {spec}: {error}");
    }
}

fn refuse(kind: Kind, spec: Value, field: &str, problem: &str) {
    let error = validate_for_gateway(kind, spec.to_string().as_bytes()).expect_err(&spec.to_string());
    assert_eq!(error.field, field, "{spec}: {error}");
    assert!(error.problem.contains(problem), "{spec}: {error}");
    assert!(!error.remedy.is_empty());
}

/// A route with a destination and what is given.
fn route(with: Value) -> Value {
    let mut route = json!({ "route": [{ "destination": { "host": "api", "port": 80 } }] });
    merge(&mut route, with);
    route
}

fn backend(with: Value) -> Value {
    let mut backend = json!({ "hosts": [{ "address": "10.0.0.1", "port": 80 }] });
    merge(&mut backend, with);
    backend
}

fn merge(into: &mut Value, with: Value) {
    if let (Value::Object(into), Value::Object(with)) = (into, with) {
        into.extend(with);
    }
}

#[test]
fn a_route_needs_somewhere_to_go() {
    let answer = json!({ "directResponse": { "status": 204 } });
    for nowhere in [json!({}), json!({ "route": [] }), json!({ "route": null })] {
        refuse(Kind::ApiRoute, nowhere.clone(), "spec.route", "no destination");
        refuse(Kind::GrpcRoute, nowhere, "spec.route", "no destination");
    }
    accept(Kind::ApiRoute, answer.clone());
    accept(Kind::ApiRoute, json!({ "redirect": {} }));
    refuse(Kind::GrpcRoute, answer, "spec.route", "no destination");
    let fan_out = |enabled| json!({ "aggregate": { "enabled": enabled, "targets": [{ "name": "a", "destination": { "host": "a", "port": 1 } }] } });
    accept(Kind::ApiRoute, fan_out(true));
    refuse(Kind::ApiRoute, fan_out(false), "spec.route", "no destination");
}

#[test]
fn destinations_need_host_and_port() {
    let to = |destination: Value| json!({ "route": [{ "destination": { "host": "a", "port": 1 } }, { "destination": destination }] });
    refuse(Kind::ApiRoute, to(json!({ "port": 80 })), "spec.route[1].destination.host", "is empty");
    refuse(
        Kind::ApiRoute,
        to(json!({ "host": "", "port": 80 })),
        "spec.route[1].destination.host",
        "is empty",
    );
    refuse(
        Kind::ApiRoute,
        to(json!({ "host": 7, "port": 80 })),
        "spec.route[1].destination.host",
        "not a string",
    );
    refuse(Kind::ApiRoute, to(json!({ "host": "a" })), "spec.route[1].destination.port", "is 0");
    refuse(
        Kind::ApiRoute,
        to(json!({ "host": "a", "port": 65536 })),
        "spec.route[1].destination.port",
        "is 65536",
    );
    refuse(Kind::GrpcRoute, json!({ "route": [{}] }), "spec.route[0].destination.host", "is empty");
    refuse(
        Kind::ApiRoute,
        route(json!({ "mirror": { "destination": {} } })),
        "spec.mirror.destination.host",
        "is empty",
    );
    accept(Kind::ApiRoute, route(json!({ "mirror": { "destination": { "host": "copy", "port": 80 } } })));
}

#[test]
fn explicit_weights_add_up_and_defaulted_ones_need_not() {
    let shared = |weights: &[Option<i64>]| {
        let entries: Vec<_> = weights
            .iter()
            .map(|weight| {
                let mut entry = json!({ "destination": { "host": "a", "port": 1 } });
                if let Some(weight) = weight {
                    entry["weight"] = json!(weight);
                }
                entry
            })
            .collect();
        json!({ "route": entries })
    };
    for fine in [
        &[Some(70), Some(30)][..],
        &[Some(0), Some(0)],
        &[None, None],
        &[Some(100), Some(100)],
        &[Some(100), Some(0)],
        &[Some(20), None],
        &[Some(50)],
    ] {
        accept(Kind::ApiRoute, shared(fine));
    }
    refuse(Kind::ApiRoute, shared(&[Some(70), Some(20)]), "spec.route", "add up to 90");
    refuse(Kind::GrpcRoute, shared(&[Some(70), Some(70)]), "spec.route", "add up to 140");
    refuse(Kind::ApiRoute, shared(&[Some(101)]), "spec.route[0].weight", "is 101");
    refuse(Kind::ApiRoute, shared(&[Some(-1), Some(101)]), "spec.route[0].weight", "is -1");
}

#[test]
fn matches_compare_in_one_way() {
    let uri = |uri: Value| route(json!({ "match": [{}, { "uri": uri }] }));
    accept(Kind::ApiRoute, uri(json!({ "exact": "/a" })));
    accept(Kind::ApiRoute, uri(json!({ "exact": "/a", "prefix": "", "regex": null })));
    refuse(
        Kind::ApiRoute,
        uri(json!({ "exact": "/a", "prefix": "/" })),
        "spec.match[1].uri",
        "both exact and prefix",
    );
    refuse(
        Kind::ApiRoute,
        uri(json!({ "prefix": "/a", "regex": "x" })),
        "spec.match[1].uri",
        "both prefix and regex",
    );
    for field in ["service", "method", "authority"] {
        let spec = route(json!({ "match": [{ field: { "exact": "a", "regex": "a" } }] }));
        refuse(Kind::GrpcRoute, spec, &format!("spec.match[0].{field}"), "both exact and regex");
    }
}

/// An authorization with one good policy and one with this expression.
fn abac(authorization: bool, abac: bool, expression: &str) -> Value {
    let policies = json!([{ "name": "a", "expression": "true" }, { "name": "b", "expression": expression }]);
    route(json!({ "authorization": {
        "enabled": authorization,
        "abac": { "enabled": abac, "policies": policies },
    } }))
}

#[test]
fn abac_expressions_are_those_that_gateways_compile() {
    let at = "spec.authorization.abac.policies[1].expression";
    for kind in [Kind::ApiRoute, Kind::GrpcRoute] {
        accept(kind, abac(true, true, r#"ip_in_range(request.client_ip, "10.0.0.0/8")"#));
        for (expression, problem) in [
            ("subject.role = 'admin'", "has an unexpected `=`, at line 1, column 14"),
            ("user.role == 'admin'", "refers to `user`, which does not exist"),
            ("has_any(subject.roles)", "calls `has_any`, which does not exist"),
            ("has_role()", "calls `has_role` with 0 argument(s)"),
            ("", "is empty"),
        ] {
            refuse(kind, abac(true, true, expression), at, problem);
        }
        let missing = json!({ "enabled": true, "abac": { "enabled": true, "policies": [{ "name": "a" }] } });
        let field = "spec.authorization.abac.policies[0].expression";
        refuse(kind, route(json!({ "authorization": missing })), field, "is empty");
    }
}

/// Gateways compile nothing of what is switched off, so it harms nobody.
#[test]
fn abac_expressions_that_are_switched_off_are_left_alone() {
    for (authorization, switched) in [(false, true), (true, false), (false, false)] {
        accept(Kind::ApiRoute, abac(authorization, switched, "user.role = 'admin'"));
    }
    for none in [json!(null), json!({}), json!({ "enabled": null, "policies": null })] {
        accept(Kind::ApiRoute, route(json!({ "authorization": { "enabled": true, "abac": none } })));
    }
    let open = json!({ "enabled": true, "abac": { "enabled": true, "policies": null } });
    accept(Kind::GrpcRoute, route(json!({ "authorization": open })));
    accept(Kind::GrpcRoute, route(json!({ "authorization": null })));
}

#[test]
fn expressions_are_those_that_gateways_compile() {
    let broken = "^/users/(";
    let look_ahead = "(?!admin)";
    refuse(
        Kind::ApiRoute,
        route(json!({ "match": [{ "uri": { "regex": broken } }] })),
        "spec.match[0].uri.regex",
        "never closed",
    );
    for list in ["headers", "queryParams"] {
        let spec =
            route(json!({ "match": [{ list: [{ "name": "a" }, { "name": "b", "regex": look_ahead }] }] }));
        refuse(Kind::ApiRoute, spec, &format!("spec.match[0].{list}[1].regex"), "RE2");
    }
    let spec = route(json!({ "match": [{ "metadata": [{ "name": "b", "regex": "a**" }] }] }));
    refuse(Kind::GrpcRoute, spec, "spec.match[0].metadata[0].regex", "repetition");
    for field in ["service", "method", "authority"] {
        let spec = route(json!({ "match": [{ field: { "regex": "[z-a]" } }] }));
        refuse(Kind::GrpcRoute, spec, &format!("spec.match[0].{field}.regex"), "character class");
    }
    accept(Kind::ApiRoute, route(json!({ "match": [{ "uri": { "regex": "^/users/{id}/[[]\\d+$" } }] })));
    refuse(
        Kind::ApiRoute,
        route(json!({ "match": [{ "headers": [{ "exact": "b" }] }] })),
        "spec.match[0].headers[0].name",
        "empty",
    );
}

#[test]
fn path_parameters_have_usable_names() {
    let prefix = |prefix: &str| route(json!({ "match": [{ "uri": { "prefix": prefix } }] }));
    accept(Kind::ApiRoute, prefix("/users/{user_id}/orders/{order1}"));
    accept(Kind::ApiRoute, prefix("/users/a{b}c"));
    refuse(Kind::ApiRoute, prefix("/users/{user-id}"), "spec.match[0].uri.prefix", "{user-id}");
    for path in ["/a/{x}/{x}", "/{x}/b/{y}/{x}/c"] {
        refuse(Kind::ApiRoute, prefix(path), "spec.match[0].uri.prefix", "{x} more than once");
        let exact = route(json!({ "match": [{ "uri": { "exact": path } }] }));
        refuse(Kind::ApiRoute, exact, "spec.match[0].uri.exact", "{x} more than once");
    }
    accept(Kind::ApiRoute, prefix("/a/{x}/b{x}/{x"));
    let exact = route(json!({ "match": [{ "uri": { "exact": "/users/{}" } }] }));
    refuse(Kind::ApiRoute, exact, "spec.match[0].uri.exact", "{}");
}

#[test]
fn durations_parse_and_fit() {
    let too_long = "99999999h";
    let of_routes = [
        ("timeout", "spec.timeout"),
        ("retries/perTryTimeout", "spec.retries.perTryTimeout"),
        ("retries/backoffBaseInterval", "spec.retries.backoffBaseInterval"),
        ("retries/backoffMaxInterval", "spec.retries.backoffMaxInterval"),
        ("fault/delay/fixedDelay", "spec.fault.delay.fixedDelay"),
        ("cache/ttl", "spec.cache.ttl"),
        ("cache/staleWhileRevalidate", "spec.cache.staleWhileRevalidate"),
        ("cache/negativeCacheTTL", "spec.cache.negativeCacheTTL"),
        ("cache/redis/connectTimeout", "spec.cache.redis.connectTimeout"),
        ("cache/redis/readTimeout", "spec.cache.redis.readTimeout"),
        ("cache/redis/writeTimeout", "spec.cache.redis.writeTimeout"),
        ("cache/redis/retry/initialBackoff", "spec.cache.redis.retry.initialBackoff"),
        ("cache/redis/retry/maxBackoff", "spec.cache.redis.retry.maxBackoff"),
        ("rateLimit/redis/readTimeout", "spec.rateLimit.redis.readTimeout"),
        ("maxSessions/queueTimeout", "spec.maxSessions.queueTimeout"),
        ("authorization/external/timeout", "spec.authorization.external.timeout"),
        ("authorization/cache/ttl", "spec.authorization.cache.ttl"),
        ("aggregate/spool/ttl", "spec.aggregate.spool.ttl"),
    ];
    for (pointer, field) in of_routes {
        refuse(Kind::ApiRoute, route(nested(pointer, json!(too_long))), field, "longer than 292 years");
        refuse(Kind::GrpcRoute, route(nested(pointer, json!("5"))), field, "without a unit");
        accept(Kind::ApiRoute, route(nested(pointer, json!("1m30.5s"))));
        accept(Kind::ApiRoute, route(nested(pointer, json!(""))));
    }
    for (pointer, field) in [
        ("healthCheck/interval", "spec.healthCheck.interval"),
        ("healthCheck/timeout", "spec.healthCheck.timeout"),
        ("circuitBreaker/timeout", "spec.circuitBreaker.timeout"),
        ("connectionPool/idleConnTimeout", "spec.connectionPool.idleConnTimeout"),
        ("cache/ttl", "spec.cache.ttl"),
        ("maxSessions/queueTimeout", "spec.maxSessions.queueTimeout"),
        ("authentication/jwt/oidc/tokenCacheTTL", "spec.authentication.jwt.oidc.tokenCacheTTL"),
    ] {
        refuse(Kind::Backend, backend(nested(pointer, json!(too_long))), field, "longer than 292 years");
        refuse(Kind::GrpcBackend, backend(nested(pointer, json!("-5s"))), field, "negative");
        accept(Kind::GrpcBackend, backend(nested(pointer, json!("5m"))));
    }
    let target = json!({ "name": "a", "destination": { "host": "a", "port": 1 }, "timeout": too_long });
    let field = "spec.aggregate.targets[0].timeout";
    refuse(Kind::ApiRoute, json!({ "aggregate": { "targets": [target] } }), field, "longer than 292 years");
}

/// `{"a":{"b":value}}` for `a/b`.
fn nested(pointer: &str, value: Value) -> Value {
    pointer.rsplit('/').fold(value, |inner, key| json!({ key: inner }))
}

#[test]
fn a_try_is_shorter_than_the_whole() {
    let timing = |timeout: &str, per_try: &str| {
        route(json!({ "timeout": timeout, "retries": { "attempts": 3, "perTryTimeout": per_try } }))
    };
    accept(Kind::ApiRoute, timing("30s", "10s"));
    accept(Kind::ApiRoute, timing("", "10s"));
    accept(Kind::ApiRoute, timing("0s", "10s"));
    refuse(Kind::ApiRoute, timing("10s", "10s"), "spec.retries.perTryTimeout", "no retry can happen");
    refuse(Kind::GrpcRoute, timing("1s", "1m"), "spec.retries.perTryTimeout", "no retry can happen");
}

#[test]
fn tls_versions_leave_room_for_a_connection() {
    let versions = |least: &str, most: &str| json!({ "tls": { "minVersion": least, "maxVersion": most } });
    for kind in [Kind::ApiRoute, Kind::GrpcRoute] {
        accept(kind, route(versions("TLS12", "TLS13")));
        accept(kind, route(versions("TLS13", "")));
        refuse(kind, route(versions("TLS13", "TLS12")), "spec.tls.minVersion", "no connection");
    }
    refuse(Kind::GrpcBackend, backend(versions("TLS13", "TLS12")), "spec.tls.minVersion", "no connection");
}

#[test]
fn backends_have_hosts_with_address_and_port() {
    for kind in [Kind::Backend, Kind::GrpcBackend] {
        accept(kind, backend(json!({})));
        refuse(kind, json!({}), "spec.hosts", "is empty");
        refuse(kind, json!({ "hosts": [] }), "spec.hosts", "is empty");
        refuse(kind, json!({ "hosts": [{ "port": 80 }] }), "spec.hosts[0].address", "is empty");
        refuse(kind, json!({ "hosts": [{ "address": "a" }] }), "spec.hosts[0].port", "is 0");
        refuse(
            kind,
            json!({ "hosts": [{ "address": "a", "port": 1, "weight": -1 }] }),
            "spec.hosts[0].weight",
            "is -1",
        );
        accept(
            kind,
            json!({ "hosts": [{ "address": "a", "port": 1, "weight": 3 }, { "address": "b", "port": 1, "weight": 1 }] }),
        );
    }
}

#[test]
fn what_cannot_be_allocated_is_refused() {
    refuse(
        Kind::ApiRoute,
        route(json!({ "maxSessions": { "queueSize": -1 } })),
        "spec.maxSessions.queueSize",
        "is -1",
    );
    refuse(
        Kind::Backend,
        backend(json!({ "circuitBreaker": { "halfOpenRequests": -1 } })),
        "spec.circuitBreaker.halfOpenRequests",
        "is -1",
    );
    refuse(
        Kind::ApiRoute,
        route(json!({ "cors": { "maxAge": 1e300 } })),
        "spec.cors.maxAge",
        "floating point",
    );
    accept(Kind::ApiRoute, route(json!({ "cors": { "maxAge": -1 } })));
}

#[test]
fn a_spec_that_does_not_decode_is_refused_with_its_field() {
    refuse(Kind::ApiRoute, route(json!({ "timeout": 5 })), "spec.timeout", "invalid type");
    refuse(Kind::ApiRoute, route(json!({ "match": { "uri": 1 } })), "spec.match", "invalid type");
    refuse(
        Kind::Backend,
        json!({ "hosts": [{ "address": "a", "port": "80" }] }),
        "spec.hosts[0].port",
        "invalid type",
    );
    refuse(Kind::Backend, json!([]), "spec", "");
    assert!(validate_for_gateway(Kind::ApiRoute, b"").is_err());
    assert!(validate_for_gateway(Kind::ApiRoute, b"{\"route\":[").is_err());
    assert!(validate_for_gateway(Kind::ApiRoute, b"null").is_err());
}

#[test]
fn unknown_fields_are_no_reason_to_refuse() {
    accept(Kind::ApiRoute, route(json!({ "addedLater": { "timeout": 5 }, "match": [{ "addedLater": [] }] })));
    accept(Kind::Backend, backend(json!({ "addedLater": [1, 2] })));
}

#[test]
fn aggregate_targets_are_no_backends() {
    let spec = json!({ "aggregate": { "enabled": true, "targets": [{ "name": "a", "destination": { "host": "a", "port": 1 } }] } });
    assert_eq!(route_destinations(spec.to_string().as_bytes()), Ok(Vec::new()));
}

#[test]
fn a_catch_all_has_no_condition_but_the_root_prefix() {
    for all in [
        json!({}),
        json!({ "match": [] }),
        json!({ "match": [{}] }),
        json!({ "match": [{ "uri": { "prefix": "/" } }] }),
        json!({ "match": [{ "uri": { "exact": "/a" } }, { "uri": { "prefix": "/" }, "methods": [] }] }),
    ] {
        assert!(is_catch_all(Kind::ApiRoute, all.to_string().as_bytes()), "{all}");
    }
    for some in [
        json!({ "match": [{ "uri": { "prefix": "/a" } }] }),
        json!({ "match": [{ "uri": { "exact": "/" } }] }),
        json!({ "match": [{ "uri": { "regex": ".*" } }] }),
        json!({ "match": [{ "uri": { "prefix": "/" }, "methods": ["GET"] }] }),
        json!({ "match": [{ "headers": [{ "name": "a" }] }] }),
        json!({ "match": [{ "queryParams": [{ "name": "a" }] }] }),
        json!({ "match": 5 }),
    ] {
        assert!(!is_catch_all(Kind::ApiRoute, some.to_string().as_bytes()), "{some}");
    }
    assert!(is_catch_all(Kind::GrpcRoute, br#"{"match":[{"service":{"exact":"a"}},{}]}"#));
    for some in ["service", "method", "authority"] {
        let spec = json!({ "match": [{ some: { "prefix": "a" } }] });
        assert!(!is_catch_all(Kind::GrpcRoute, spec.to_string().as_bytes()), "{spec}");
    }
    assert!(!is_catch_all(Kind::GrpcRoute, br#"{"match":[{"withoutHeaders":["x"]}]}"#));
    assert!(!is_catch_all(Kind::Backend, b"{}"));
}
