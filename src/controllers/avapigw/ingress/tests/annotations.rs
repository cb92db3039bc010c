//! Each annotation by what it becomes and by what it refuses.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::annotations::{Part, ROWS};
use super::super::{Ingress, convert};
use super::{GRPC, ingress, only, ports, simple};

/// What an annotation needs beside it to have an effect.
fn company(name: &str) -> Vec<(&'static str, &'static str)> {
    let groups: &[(&str, &[(&str, &str)])] = &[
        ("rate-limit", &[("rate-limit-enabled", "true"), ("rate-limit-rps", "7"), ("rate-limit-burst", "8")]),
        ("cors", &[("cors-allow-origins", "https://a.example")]),
        ("redirect", &[("redirect-uri", "/new")]),
        ("health-check", &[("health-check-path", "/health")]),
        (
            "circuit-breaker",
            &[
                ("circuit-breaker-enabled", "true"),
                ("circuit-breaker-threshold", "4"),
                ("circuit-breaker-timeout", "30s"),
            ],
        ),
        ("security", &[("security-enabled", "true")]),
        ("cache", &[("cache-enabled", "true")]),
        ("max-sessions", &[("max-sessions-enabled", "true"), ("max-sessions-max-concurrent", "9")]),
        ("auth", &[("auth-enabled", "true"), ("auth-type", "mtls")]),
        ("grpc-health-check", &[("grpc-health-check-enabled", "true")]),
        ("grpc-service-match-type", &[("grpc-service", "a.B")]),
        ("grpc-method-match-type", &[("grpc-method", "Get")]),
    ];
    let with = groups.iter().filter(|(group, _)| name.starts_with(group));
    with.flat_map(|(_, company)| *company).copied().filter(|(other, _)| *other != name).collect()
}

/// Annotation, under gRPC, a value, where it stands, as what, and values that are refused.
type Case = (&'static str, bool, &'static str, Part, &'static str, fn() -> Value, &'static [&'static str]);

const DURATIONS: &[&str] = &["", "30", "soon", "-1s", "1d"];
const TRUTHS: &[&str] = &["", "yes", "1", "True "];
const COUNTS: &[&str] = &["", "0", "-1", "+1", "1.0", "many", "99999999999999999999", " 1"];
const THRESHOLDS: &[&str] = &["0", "11", "x"];
const LISTS: &[&str] = &["", "a,,b", ","];
const TEXTS: &[&str] = &["", "a\nb"];

const CASES: &[Case] = &[
    ("timeout", false, "30s", Part::Route, "/timeout", || json!("30s"), DURATIONS),
    ("timeout", true, "1m30s", Part::Route, "/timeout", || json!("1m30s"), DURATIONS),
    ("retries", false, "3", Part::Route, "/retries/attempts", || json!(3), &["0", "11", "three", ""]),
    ("retry-attempts", true, "10", Part::Route, "/retries/attempts", || json!(10), &["0", "11", "3.0"]),
    (
        "retry-per-try-timeout",
        false,
        "10s",
        Part::Route,
        "/retries/perTryTimeout",
        || json!("10s"),
        DURATIONS,
    ),
    (
        "retry-on",
        false,
        "5xx, reset",
        Part::Route,
        "/retries/retryOn",
        || json!("5xx,reset"),
        &["", "5xx,", "always"],
    ),
    ("retry-on", true, "internal", Part::Route, "/retries/retryOn", || json!("internal"), &["5xx"]),
    (
        "grpc-retry-on",
        true,
        "unavailable,cancelled",
        Part::Route,
        "/retries/retryOn",
        || json!("unavailable,cancelled"),
        &["5xx", ""],
    ),
    (
        "grpc-backoff-base-interval",
        true,
        "100ms",
        Part::Route,
        "/retries/backoffBaseInterval",
        || json!("100ms"),
        DURATIONS,
    ),
    (
        "grpc-backoff-max-interval",
        true,
        "10s",
        Part::Route,
        "/retries/backoffMaxInterval",
        || json!("10s"),
        DURATIONS,
    ),
    ("rate-limit-enabled", false, "true", Part::Route, "/rateLimit/enabled", || json!(true), TRUTHS),
    ("rate-limit-rps", false, "100", Part::Route, "/rateLimit/requestsPerSecond", || json!(100), COUNTS),
    ("rate-limit-burst", true, "200", Part::Route, "/rateLimit/burst", || json!(200), COUNTS),
    ("rate-limit-per-client", false, "true", Part::Route, "/rateLimit/perClient", || json!(true), TRUTHS),
    (
        "cors-allow-origins",
        false,
        "https://a.example, *",
        Part::Route,
        "/cors/allowOrigins",
        || json!(["https://a.example", "*"]),
        LISTS,
    ),
    (
        "cors-allow-methods",
        false,
        "get,POST",
        Part::Route,
        "/cors/allowMethods",
        || json!(["GET", "POST"]),
        &["", "FETCH", "GET,"],
    ),
    (
        "cors-allow-headers",
        true,
        "Content-Type,Authorization",
        Part::Route,
        "/cors/allowHeaders",
        || json!(["Content-Type", "Authorization"]),
        LISTS,
    ),
    (
        "cors-expose-headers",
        false,
        "X-Request-ID",
        Part::Route,
        "/cors/exposeHeaders",
        || json!(["X-Request-ID"]),
        LISTS,
    ),
    ("cors-max-age", false, "0", Part::Route, "/cors/maxAge", || json!(0), &["", "-1", "1h"]),
    (
        "cors-allow-credentials",
        false,
        "false",
        Part::Route,
        "/cors/allowCredentials",
        || json!(false),
        TRUTHS,
    ),
    (
        "rewrite-uri",
        false,
        "/internal",
        Part::Route,
        "/rewrite/uri",
        || json!("/internal"),
        &["", "internal"],
    ),
    (
        "rewrite-authority",
        false,
        "a.example:80",
        Part::Route,
        "/rewrite/authority",
        || json!("a.example:80"),
        &["", "http://a", "a b"],
    ),
    ("redirect-uri", false, "/new", Part::Route, "/redirect/uri", || json!("/new"), TEXTS),
    ("redirect-code", false, "308", Part::Route, "/redirect/code", || json!(308), &["", "200", "305", "x"]),
    (
        "redirect-scheme",
        false,
        "https",
        Part::Route,
        "/redirect/scheme",
        || json!("https"),
        &["", "HTTPS", "ftp"],
    ),
    (
        "health-check-path",
        false,
        "/health",
        Part::Backend,
        "/healthCheck/path",
        || json!("/health"),
        &["", "health"],
    ),
    (
        "health-check-interval",
        false,
        "10s",
        Part::Backend,
        "/healthCheck/interval",
        || json!("10s"),
        DURATIONS,
    ),
    ("health-check-timeout", false, "5s", Part::Backend, "/healthCheck/timeout", || json!("5s"), DURATIONS),
    (
        "health-check-healthy-threshold",
        false,
        "2",
        Part::Backend,
        "/healthCheck/healthyThreshold",
        || json!(2),
        THRESHOLDS,
    ),
    (
        "health-check-unhealthy-threshold",
        false,
        "10",
        Part::Backend,
        "/healthCheck/unhealthyThreshold",
        || json!(10),
        THRESHOLDS,
    ),
    (
        "load-balancer-algorithm",
        false,
        "leastConn",
        Part::Backend,
        "/loadBalancer/algorithm",
        || json!("leastConn"),
        &["", "fastest"],
    ),
    (
        "load-balancer-algorithm",
        true,
        "least-conn",
        Part::Backend,
        "/loadBalancer/algorithm",
        || json!("leastConn"),
        &["least_conn", "LeastConn", "round robin"],
    ),
    (
        "load-balancer",
        false,
        "round-robin",
        Part::Backend,
        "/loadBalancer/algorithm",
        || json!("roundRobin"),
        &["roundrobin", "Round-Robin"],
    ),
    (
        "load-balancer",
        true,
        "random",
        Part::Backend,
        "/loadBalancer/algorithm",
        || json!("random"),
        &["Random"],
    ),
    (
        "circuit-breaker-enabled",
        false,
        "true",
        Part::Backend,
        "/circuitBreaker/enabled",
        || json!(true),
        TRUTHS,
    ),
    (
        "circuit-breaker-threshold",
        true,
        "100",
        Part::Backend,
        "/circuitBreaker/threshold",
        || json!(100),
        &["0", "101"],
    ),
    (
        "circuit-breaker-timeout",
        false,
        "1m",
        Part::Backend,
        "/circuitBreaker/timeout",
        || json!("1m"),
        DURATIONS,
    ),
    (
        "circuit-breaker-half-open",
        false,
        "3",
        Part::Backend,
        "/circuitBreaker/halfOpenRequests",
        || json!(3),
        THRESHOLDS,
    ),
    (
        "tls-min-version",
        false,
        "TLS12",
        Part::Route,
        "/tls/minVersion",
        || json!("TLS12"),
        &["", "1.2", "TLS11"],
    ),
    ("tls-max-version", true, "TLS13", Part::Route, "/tls/maxVersion", || json!("TLS13"), &["tls13"]),
    ("security-enabled", false, "true", Part::Route, "/security/enabled", || json!(true), TRUTHS),
    (
        "security-x-frame-options",
        false,
        "DENY",
        Part::Route,
        "/security/headers/xFrameOptions",
        || json!("DENY"),
        TEXTS,
    ),
    (
        "security-x-content-type-options",
        true,
        "nosniff",
        Part::Route,
        "/security/headers/xContentTypeOptions",
        || json!("nosniff"),
        TEXTS,
    ),
    (
        "security-x-xss-protection",
        false,
        "1; mode=block",
        Part::Route,
        "/security/headers/xXSSProtection",
        || json!("1; mode=block"),
        TEXTS,
    ),
    (
        "encoding-request-content-type",
        false,
        "application/json",
        Part::Route,
        "/encoding/request/contentType",
        || json!("application/json"),
        &["", "json", "a/"],
    ),
    (
        "encoding-response-content-type",
        true,
        "text/plain; charset=utf-8",
        Part::Route,
        "/encoding/response/contentType",
        || json!("text/plain; charset=utf-8"),
        &["/b"],
    ),
    ("cache-enabled", false, "true", Part::Route, "/cache/enabled", || json!(true), TRUTHS),
    ("cache-ttl", false, "5m", Part::Route, "/cache/ttl", || json!("5m"), DURATIONS),
    ("max-sessions-enabled", false, "true", Part::Route, "/maxSessions/enabled", || json!(true), TRUTHS),
    (
        "max-sessions-max-concurrent",
        true,
        "1000",
        Part::Route,
        "/maxSessions/maxConcurrent",
        || json!(1000),
        COUNTS,
    ),
    ("max-sessions-queue-size", false, "0", Part::Route, "/maxSessions/queueSize", || json!(0), &["", "-1"]),
    (
        "max-sessions-queue-timeout",
        false,
        "10s",
        Part::Route,
        "/maxSessions/queueTimeout",
        || json!("10s"),
        DURATIONS,
    ),
    (
        "max-body-size",
        false,
        "10485760",
        Part::Route,
        "/requestLimits/maxBodySize",
        || json!(10_485_760),
        &["", "0", "10MB"],
    ),
    ("auth-enabled", false, "true", Part::Route, "/authentication/enabled", || json!(true), TRUTHS),
    (
        "auth-type",
        true,
        "apiKey",
        Part::Route,
        "/authentication/apiKey/enabled",
        || json!(true),
        &["", "basic", "jwt"],
    ),
    ("protocol", false, "http", Part::Route, "/match/0/uri/prefix", || json!("/v1"), &["", "HTTP", "spdy"]),
    ("protocol", false, "h2c", Part::Route, "/match/0/uri/prefix", || json!("/v1"), &[]),
    ("protocol", true, "grpc", Part::Route, "/match/0/service/prefix", || json!("v1"), &[]),
    (
        "grpc-service",
        true,
        "shop.Orders",
        Part::Route,
        "/match/0/service/prefix",
        || json!("shop.Orders"),
        TEXTS,
    ),
    (
        "grpc-service-match-type",
        true,
        "regex",
        Part::Route,
        "/match/0/service/regex",
        || json!("a.B"),
        &["", "Exact"],
    ),
    ("grpc-method", true, "Get", Part::Route, "/match/0/method/prefix", || json!("Get"), TEXTS),
    (
        "grpc-method-match-type",
        true,
        "exact",
        Part::Route,
        "/match/0/method/exact",
        || json!("Get"),
        &["like"],
    ),
    (
        "grpc-health-check-enabled",
        true,
        "true",
        Part::Backend,
        "/healthCheck/enabled",
        || json!(true),
        TRUTHS,
    ),
    ("grpc-health-check-service", true, "", Part::Backend, "/healthCheck/service", || json!(""), &["a\tb"]),
    (
        "grpc-health-check-interval",
        true,
        "10s",
        Part::Backend,
        "/healthCheck/interval",
        || json!("10s"),
        DURATIONS,
    ),
    (
        "grpc-health-check-timeout",
        true,
        "5s",
        Part::Backend,
        "/healthCheck/timeout",
        || json!("5s"),
        DURATIONS,
    ),
    (
        "grpc-health-check-healthy-threshold",
        true,
        "2",
        Part::Backend,
        "/healthCheck/healthyThreshold",
        || json!(2),
        THRESHOLDS,
    ),
    (
        "grpc-health-check-unhealthy-threshold",
        true,
        "3",
        Part::Backend,
        "/healthCheck/unhealthyThreshold",
        || json!(3),
        THRESHOLDS,
    ),
    (
        "grpc-max-idle-conns",
        true,
        "100",
        Part::Backend,
        "/connectionPool/maxIdleConns",
        || json!(100),
        COUNTS,
    ),
    (
        "grpc-max-conns-per-host",
        true,
        "50",
        Part::Backend,
        "/connectionPool/maxConnsPerHost",
        || json!(50),
        COUNTS,
    ),
    (
        "grpc-idle-conn-timeout",
        true,
        "90s",
        Part::Backend,
        "/connectionPool/idleConnTimeout",
        || json!("90s"),
        DURATIONS,
    ),
];

#[test]
fn every_annotation_stands_where_it_belongs_and_refuses_what_it_cannot_be() {
    for row in ROWS {
        assert!(CASES.iter().any(|case| case.0 == row.name), "{} has no case", row.name);
    }
    for (name, grpc, value, part, at, expected, refused) in CASES {
        let full = |name: &str| format!("avapigw.io/{name}");
        let with = |value: &str| {
            let mut all: BTreeMap<String, String> = BTreeMap::new();
            if *grpc {
                all.insert(GRPC.0.to_owned(), GRPC.1.to_owned());
            }
            all.extend(company(name).into_iter().map(|(name, value)| (full(name), value.to_owned())));
            all.insert(full(name), value.to_owned());
            Ingress { annotations: all, ..ingress(&[], &simple()) }
        };
        let converted = convert(&with(value), &ports).unwrap_or_else(|faults| panic!("{name}: {faults}"));
        let spec = only(&converted, *part);
        assert_eq!(spec.pointer(at), Some(&expected()), "{name}: {spec}");
        let told = converted.warnings.iter().all(|warning| warning.contains("h2c"));
        assert!(told, "{name}: {:?}", converted.warnings);
        for value in *refused {
            let faults = convert(&with(value), &ports).expect_err(name);
            let words = faults.to_string();
            let field = format!("metadata.annotations[{}] is {value:?}: ", full(name));
            assert!(words.starts_with("Ingress shop/api: ") && words.contains(&field), "{words}");
            assert!(faults.faults.iter().all(|fault| !fault.remedy.is_empty()), "{words}");
        }
    }
}
