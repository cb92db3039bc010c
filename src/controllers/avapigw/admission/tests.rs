//! Each rule by the field that it names, and specs that no schema has seen: an answer always, a panic never.

use bytes::Bytes;
use flotilla_core::ids::Revision;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

use super::*;
use crate::conflicts::Scope;
use crate::ingress::{Ingress, convert};

fn object(kind: Kind, key: &str, created: &str, spec: &Value) -> RawObject {
    let (namespace, name) = key.split_once('/').unwrap();
    RawObject {
        kind,
        key: ObjectKey::new(namespace, name),
        uid: Arc::from(key),
        revision: Revision(1),
        generation: 1,
        created: Arc::from(created),
        deleting: false,
        held: false,
        spec: Bytes::from(spec.to_string()),
        status: Bytes::new(),
    }
}

fn empty() -> Conflicts {
    Conflicts::new(Scope::Namespace)
}

/// Judges where there are no Services.
fn judge(
    known: &Conflicts,
    object: &RawObject,
    before: Option<&RawObject>,
    references: References,
) -> Verdict {
    let mut services = Services::default();
    services.listed([]);
    super::judge(known, &services, object, before, references)
}

fn with(mut spec: Value, more: Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn route(more: Value) -> Value {
    with(
        json!({"match": [{"uri": {"prefix": "/a"}}], "route": [{"destination": {"host": "a.example", "port": 80}}]}),
        more,
    )
}

fn backend(more: Value) -> Value {
    with(json!({"hosts": [{"address": "x", "port": 80}]}), more)
}

fn fields(kind: Kind, spec: &Value) -> Vec<String> {
    let verdict = judge(&empty(), &object(kind, "n/x", "1", spec), None, References::Warn);
    verdict.refusals.into_iter().map(|refusal| refusal.field).collect()
}

#[test]
fn rules_of_admission_name_their_fields() {
    let api = |more, expected: &[&str]| assert_eq!(fields(Kind::ApiRoute, &route(more)), expected);
    api(json!({"timeout": "30s"}), &[]);
    api(json!({"timeout": "0s"}), &[]);
    api(json!({"timeout": "24h"}), &[]);
    api(json!({"timeout": "999ms"}), &["spec.timeout"]);
    api(json!({"timeout": "24h1s"}), &["spec.timeout"]);
    let abac = |expression| json!({"authorization": {"enabled": true, "abac": {"enabled": true, "policies": [{"name": "a", "expression": expression}]}}});
    api(abac("now.getHours() >= 8"), &[]);
    api(abac("now.hour >= 8"), &["spec.authorization.abac.policies[0].expression"]);
    api(json!({"authentication": {"enabled": true}}), &["spec.authentication"]);
    api(json!({"authentication": {"enabled": false, "jwt": {"enabled": true}}}), &[]);
    let jwt =
        |more| json!({"authentication": {"enabled": true, "jwt": with(json!({"enabled": true}), more)}});
    api(jwt(json!({"jwksUrl": "https://x"})), &[]);
    api(jwt(json!({})), &["spec.authentication.jwt"]);
    api(json!({"tls": {"clientValidation": {"enabled": true}}}), &["spec.tls.clientValidation"]);
    api(json!({"tls": {"clientValidation": {"enabled": true, "caFile": "/ca"}}}), &[]);
    api(json!({"tls": {"vault": {"enabled": true, "role": "r"}}}), &["spec.tls.vault"]);
    let both = json!({"transform": {"response": {"allowFields": ["a"], "denyFields": ["b"]}}});
    api(both, &["spec.transform.response"]);
    // What gateways could not take is found before, and said in the same way.
    api(json!({"timeout": "5"}), &["spec.timeout"]);

    let back = |more, expected: &[&str]| assert_eq!(fields(Kind::Backend, &backend(more)), expected);
    let health = |interval: &str, timeout: &str| json!({"healthCheck": {"path": "/health", "interval": interval, "timeout": timeout}});
    back(health("10s", "5s"), &[]);
    back(health("10s", "10s"), &["spec.healthCheck.timeout"]);
    back(health("500ms", "100ms"), &["spec.healthCheck.interval"]);
    back(json!({"circuitBreaker": {"enabled": true, "timeout": "10ms"}}), &["spec.circuitBreaker.timeout"]);
    assert_eq!(fields(Kind::GrpcBackend, &json!({})), ["spec.hosts"]);
}

/// What one refusal says, of the field that it must be about; nothing when it is admitted.
fn told(kind: Kind, spec: &Value, field: &str) -> Option<String> {
    let verdict = judge(&empty(), &object(kind, "n/x", "1", spec), None, References::Warn);
    let refusal = verdict.refusals.first()?.clone();
    assert_eq!((refusal.field.as_str(), verdict.refusals.len()), (field, 1), "{spec}: {verdict:?}");
    Some(refusal.problem)
}

/// Admitted without these words, refused with them.
fn check_told(kind: Kind, spec: &Value, field: &str, words: &str) {
    let problem = told(kind, spec, field);
    assert_eq!(problem.is_some(), !words.is_empty(), "{spec}: {problem:?}");
    assert!(problem.unwrap_or_default().contains(words), "{spec} {words}: {:?}", told(kind, spec, field));
}

fn warned(kind: Kind, spec: &Value) -> Vec<String> {
    let verdict = judge(&empty(), &object(kind, "n/x", "1", spec), None, References::Warn);
    assert_eq!(verdict.refusals, [], "{spec}");
    verdict.warnings
}

#[test]
fn methods_conditions_and_ages_are_what_gateways_know() {
    let matching = |methods: Value| route(json!({"match": [{"methods": ["GET"]}, {"methods": methods}]}));
    for (methods, words) in [
        (json!([]), ""),
        (json!(["GET", "post", "Patch", "HEAD", "PUT", "DELETE", "OPTIONS", "connect", "TRACE"]), ""),
        (json!(["GTE"]), "is \"GTE\", no method of HTTP; give one of GET, POST"),
        (json!([""]), "no method of HTTP"),
        (json!(["*"]), "no method of HTTP"),
        (json!(["x".repeat(9000)]), "no method of HTTP"),
    ] {
        check_told(Kind::ApiRoute, &matching(methods), "spec.match[1].methods[0]", words);
    }
    let beside = fields(Kind::ApiRoute, &matching(json!(["GTE", "GET", "PSOT"])));
    assert_eq!(beside, ["spec.match[1].methods[0]", "spec.match[1].methods[2]"]);
    let many = fields(Kind::ApiRoute, &matching(json!(vec!["GTE"; 1000])));
    assert!(many.len() < 20, "{} refusals", many.len());
    // Of gRPC there is no such field.
    assert_eq!(fields(Kind::GrpcRoute, &route(json!({"match": [{"methods": ["GTE"]}]}))), [""; 0]);

    let retrying = |on: &str| route(json!({"retries": {"attempts": 3, "retryOn": on}}));
    for (kind, on, words) in [
        (Kind::ApiRoute, "", ""),
        (Kind::ApiRoute, "5xx, reset,connect-failure", ""),
        (Kind::ApiRoute, "retriable-4xx,refused-stream,retriable-status-codes", ""),
        (Kind::ApiRoute, "retriable-headers,gateway-error", ""),
        (Kind::ApiRoute, "5xx,always", "has \"always\", which is no condition"),
        (Kind::ApiRoute, "5xx,", "has \"\""),
        (Kind::ApiRoute, "5XX", "give some of 5xx, reset"),
        (Kind::ApiRoute, "unavailable", "give some of 5xx, reset"),
        (Kind::GrpcRoute, "canceled,cancelled,deadline-exceeded,internal,resource-exhausted,unavailable", ""),
        (Kind::GrpcRoute, "5xx", "give some of canceled, cancelled, deadline-exceeded"),
    ] {
        check_told(kind, &retrying(on), "spec.retries.retryOn", words);
        if words.is_empty() {
            assert_eq!(warned(kind, &retrying(on)), [""; 0], "{on}");
        }
    }
    // What calls may fail with, and no requirement names.
    let [warning] = &warned(Kind::GrpcRoute, &retrying("internal,aborted"))[..] else {
        panic!("one warning")
    };
    assert!(
        warning.starts_with("spec.retries.retryOn has \"aborted\": gateways are only known"),
        "{warning}"
    );

    for kind in [Kind::ApiRoute, Kind::GrpcRoute] {
        for (age, words) in [(-1, "is -1; give seconds, 0 or more"), (0, ""), (86_400, "")] {
            check_told(kind, &route(json!({"cors": {"maxAge": age}})), "spec.cors.maxAge", words);
        }
    }
}

#[test]
fn checks_and_breakers_of_backends_stay_within_bounds() {
    let range = |group: &str, field: &str, most: i64| {
        for kind in [Kind::Backend, Kind::GrpcBackend] {
            for (count, words) in
                [(0, "is 0; give a number from 1 to"), (1, ""), (most, ""), (most + 1, "from 1 to")]
            {
                let spec = backend(json!({group: {"enabled": true, field: count}}));
                check_told(kind, &spec, &format!("spec.{group}.{field}"), words);
            }
        }
    };
    range("healthCheck", "healthyThreshold", 10);
    range("healthCheck", "unhealthyThreshold", 10);
    range("circuitBreaker", "threshold", 100);
    range("circuitBreaker", "halfOpenRequests", 10);
    // What is switched off is nobody's business.
    let off = json!({
        "circuitBreaker": {"enabled": false, "threshold": 500, "timeout": "1ms"},
        "healthCheck": {"enabled": false, "healthyThreshold": 20, "interval": "1ms", "timeout": "2ms"},
    });
    assert_eq!(fields(Kind::GrpcBackend, &backend(off)), [""; 0]);
    // What gateways could not take either is told once.
    let negative = told(
        Kind::Backend,
        &backend(json!({"circuitBreaker": {"threshold": -1}})),
        "spec.circuitBreaker.threshold",
    );
    assert_eq!(negative.as_deref(), Some("is -1; give 0 or more"));
    for (path, words) in [
        ("/", ""),
        ("/health", ""),
        ("health", "is \"health\", which does not begin with /"),
        ("https://a.example/health", "does not begin with /"),
    ] {
        let spec = backend(json!({"healthCheck": {"path": path}}));
        check_told(Kind::Backend, &spec, "spec.healthCheck.path", words);
    }
}

#[test]
fn what_a_gateway_shows_to_backends_must_be_there() {
    let vault = json!({"enabled": true, "pkiMount": "pki", "role": "r"});
    let files = json!({"certFile": "/c", "keyFile": "/k"});
    let mutual = |more: Value| with(json!({"enabled": true, "mode": "MUTUAL"}), more);
    let needed = "has mode MUTUAL and no certificate";
    for (tls, field, words) in [
        (mutual(files.clone()), "", ""),
        (mutual(json!({"vault": vault})), "", ""),
        (mutual(json!({})), "spec.tls", needed),
        (mutual(json!({"certFile": "/c"})), "spec.tls", needed),
        (mutual(json!({"certFile": "/c", "keyFile": ""})), "spec.tls", needed),
        (mutual(json!({"keyFile": "/k"})), "spec.tls", needed),
        (mutual(json!({"vault": {"enabled": false}})), "spec.tls", needed),
        (mutual(json!({"vault": {"enabled": true, "role": "r"}})), "spec.tls.vault", "without pkiMount"),
        (mutual(json!({"enabled": false})), "", ""),
        (mutual(json!({"mode": "SIMPLE"})), "", ""),
    ] {
        for kind in [Kind::Backend, Kind::GrpcBackend] {
            check_told(kind, &backend(json!({"tls": tls})), field, words);
        }
    }
    let on = |more: Value| with(json!({"enabled": true}), more);
    let jwt =
        |source: &str, more| json!({"type": "jwt", "jwt": with(on(json!({"tokenSource": source})), more)});
    let basic = |more| json!({"type": "basic", "basic": on(more)});
    let mtls = |more| json!({"type": "mtls", "mtls": on(more)});
    let (none, nobody) = ("spec.authentication.jwt", "has nothing to log in with");
    for (authentication, field, words) in [
        (json!({"type": "jwt"}), "spec.authentication", "has type jwt without jwt; set jwt"),
        (json!({"type": "basic", "jwt": {}}), "spec.authentication", "has type basic without basic"),
        (json!({"type": "mtls", "mtls": null}), "spec.authentication", "has type mtls without mtls"),
        (jwt("static", json!({"staticToken": "t"})), "", ""),
        (jwt("static", json!({"vaultPath": "p"})), none, "has tokenSource static without staticToken"),
        (jwt("vault", json!({"vaultPath": "p"})), "", ""),
        (jwt("vault", json!({"staticToken": "t"})), none, "has tokenSource vault without vaultPath"),
        (jwt("oidc", json!({"oidc": {"issuerUrl": "https://x", "clientId": "c"}})), "", ""),
        (jwt("oidc", json!({})), none, "has tokenSource oidc without oidc"),
        (jwt("oidc", json!({"enabled": false})), "", ""),
        (basic(json!({"username": "u", "password": "p"})), "", ""),
        (basic(json!({"vaultPath": "p"})), "", ""),
        (basic(json!({"username": "u"})), "spec.authentication.basic", nobody),
        (basic(json!({"password": "p"})), "spec.authentication.basic", nobody),
        (basic(json!({"enabled": false})), "", ""),
        (mtls(files), "", ""),
        (mtls(json!({"vault": vault})), "", ""),
        (mtls(json!({"keyFile": "/k"})), "spec.authentication.mtls", "has no certificate to show"),
        (
            mtls(json!({"vault": {"enabled": true, "pkiMount": "pki"}})),
            "spec.authentication.mtls.vault",
            "without role",
        ),
        (mtls(json!({"enabled": false})), "", ""),
    ] {
        for kind in [Kind::Backend, Kind::GrpcBackend] {
            check_told(kind, &backend(json!({"authentication": authentication})), field, words);
        }
        // Of targets it is said, and they are not refused for it.
        let target = json!({"name": "a", "destination": {"host": "a.example", "port": 80}, "authentication": authentication});
        let said =
            warned(Kind::ApiRoute, &route(json!({"aggregate": {"enabled": true, "targets": [target]}})));
        let expected = field.replace("spec.", "spec.aggregate.targets[0].");
        let found = said.iter().any(|warning| {
            !field.is_empty() && warning.starts_with(&format!("{expected} ")) && warning.contains(words)
        });
        assert_eq!(found, !words.is_empty(), "{authentication}: {said:?}");
    }
}

#[test]
fn secrets_in_plain_text_are_warned_of_wherever_they_stand() {
    let sentinel =
        json!({"masterName": "m", "sentinelAddrs": ["s:1"], "password": "p", "sentinelPassword": "q"});
    let both = |at: &str| [format!("{at}.sentinel.password"), format!("{at}.sentinel.sentinelPassword")];
    let target = |authentication: Value| json!({"name": "a", "destination": {"host": "a.example", "port": 80}, "authentication": authentication});
    let targets = json!([
        target(json!({"type": "basic", "basic": {"enabled": true, "vaultPath": "p"}})),
        target(json!({"type": "basic", "basic": {"enabled": true, "username": "u", "password": "p"}})),
        target(json!({"type": "jwt", "jwt": {"enabled": true, "tokenSource": "static", "staticToken": "t"}})),
        target(
            json!({"type": "jwt", "jwt": {"enabled": true, "tokenSource": "oidc", "oidc": {"clientSecret": "s"}}})
        ),
    ]);
    let secret_of_targets = [
        "spec.aggregate.targets[1].authentication.basic.password".to_owned(),
        "spec.aggregate.targets[2].authentication.jwt.staticToken".to_owned(),
        "spec.aggregate.targets[3].authentication.jwt.oidc.clientSecret".to_owned(),
    ];
    let from_vault = json!({"sentinel": {"masterName": "m", "passwordVaultPath": "p", "sentinelPasswordVaultPath": "q"}, "passwordVaultPath": "r", "password": ""});
    let url = |url: &str| json!({"rateLimit": {"redis": {"url": url}}});
    let cases: [(bool, Value, &[String]); 14] = [
        (true, json!({"cache": {"redis": {"sentinel": sentinel}}}), &both("spec.cache.redis")),
        (true, json!({"rateLimit": {"redis": {"sentinel": sentinel}}}), &both("spec.rateLimit.redis")),
        (
            true,
            json!({"authorization": {"cache": {"sentinel": sentinel}}}),
            &both("spec.authorization.cache"),
        ),
        (
            true,
            json!({"authorization": {"cache": {"redis": {"sentinel": sentinel}}}}),
            &both("spec.authorization.cache.redis"),
        ),
        (
            true,
            json!({"aggregate": {"spool": {"redisRef": {"password": "p", "sentinel": {"password": "q"}}}}}),
            &[
                "spec.aggregate.spool.redisRef.password".into(),
                "spec.aggregate.spool.redisRef.sentinel.password".into(),
            ],
        ),
        (true, json!({"aggregate": {"targets": targets}}), &secret_of_targets),
        (true, json!({"cache": {"redis": from_vault}, "rateLimit": {"redis": from_vault}}), &[]),
        (true, url("redis://:p@redis:6379/1"), &["spec.rateLimit.redis.url".into()]),
        (true, url("redis://redis:6379/a:b@c"), &[]),
        (true, url("rediss://user@redis:6379"), &[]),
        (false, json!({"cache": {"sentinel": sentinel}}), &both("spec.cache")),
        (false, json!({"rateLimit": {"redis": {"sentinel": sentinel}}}), &both("spec.rateLimit.redis")),
        (false, json!({"cache": {"sentinel": {"masterName": "m"}}}), &[]),
        (false, url("redis://u:p@redis"), &["spec.rateLimit.redis.url".into()]),
    ];
    for (is_route, more, expected) in cases {
        let (kinds, spec) = match is_route {
            true => ([Kind::ApiRoute, Kind::GrpcRoute], route(more)),
            false => ([Kind::Backend, Kind::GrpcBackend], backend(more)),
        };
        for kind in kinds {
            let mut said = warned(kind, &spec);
            said.retain(|warning| warning.contains("in plain text"));
            let found: Vec<&str> = said.iter().filter_map(|warning| warning.split(' ').next()).collect();
            assert_eq!(found, expected, "{kind} {spec}");
        }
    }
}

#[test]
fn several_mistakes_take_one_attempt() {
    let wrong = route(json!({
        "match": [{"uri": {"prefix": "/a", "exact": "/b"}, "methods": ["GTE"]}],
        "timeout": "100ms",
        "cors": {"maxAge": -5},
        "authentication": {"enabled": true},
    }));
    let expected = [
        "spec.match[0].uri",
        "spec.timeout",
        "spec.match[0].methods[0]",
        "spec.cors.maxAge",
        "spec.authentication",
    ];
    assert_eq!(fields(Kind::ApiRoute, &wrong), expected);
    // Also where a field is of another type than it should be.
    let typed = backend(
        json!({"healthCheck": {"path": "health", "interval": 5}, "circuitBreaker": {"enabled": true, "threshold": 500}}),
    );
    let expected = ["spec.healthCheck.interval", "spec.healthCheck.path", "spec.circuitBreaker.threshold"];
    assert_eq!(fields(Kind::Backend, &typed), expected);
    // What cannot be read at all is said once.
    let mut broken = object(Kind::ApiRoute, "n/x", "1", &json!({}));
    broken.spec = Bytes::from_static(b"{\"timeout\": ");
    assert_eq!(judge(&empty(), &broken, None, References::Deny).refusals.len(), 1);
}

#[test]
fn writers_are_warned_of_what_does_not_work_as_they_may_think() {
    assert_eq!(warned(Kind::ApiRoute, &route(json!({}))), [""; 0]);
    let secret = route(json!({"authentication": {"enabled": true, "jwt": {"enabled": true, "secret": "s"}}}));
    assert!(warned(Kind::ApiRoute, &secret)[0].starts_with("spec.authentication.jwt.secret is a secret"));
    let providers = json!([{"name": "a", "clientSecretRef": {"name": "s", "key": "k"}}, {"name": "b", "clientSecret": "s"}]);
    let oidc = route(
        json!({"authentication": {"enabled": true, "oidc": {"enabled": true, "providers": providers}}}),
    );
    let [warning] = &warned(Kind::ApiRoute, &oidc)[..] else { panic!("one warning") };
    assert!(warning.starts_with("spec.authentication.oidc.providers[1].clientSecret is"), "{warning}");
    let mtls = route(json!({"authentication": {"enabled": true, "mtls": {"enabled": true}}}));
    assert!(warned(Kind::GrpcRoute, &mtls)[0].contains("no caFile"));
    assert!(warned(Kind::Backend, &backend(json!({"cache": {"enabled": true}})))[0].contains("ignored"));
    let basic = backend(
        json!({"authentication": {"type": "basic", "basic": {"enabled": true, "username": "u", "password": "p"}}}),
    );
    assert!(warned(Kind::Backend, &basic)[0].contains("basic.password"));
}

#[test]
fn a_duplicate_is_refused_with_the_name_of_the_other() {
    let mut known = empty();
    known.insert(&object(Kind::ApiRoute, "n/first", "1", &route(json!({}))));
    let verdict =
        judge(&known, &object(Kind::ApiRoute, "n/second", "2", &route(json!({}))), None, References::Warn);
    let [refusal] = verdict.refusals.as_slice() else { panic!("{verdict:?}") };
    assert!(refusal.duplicate);
    assert_eq!(refusal.field, "spec.match[0]");
    assert!(
        refusal
            .problem
            .starts_with("duplicate route match found: uri prefix /a is taken by APIRoute n/first")
    );

    // The seed's own example has no destination either, and is told both.
    let verdict = judge(
        &known,
        &object(Kind::ApiRoute, "n/second", "2", &json!({"match": [{"uri": {"prefix": "/a"}}]})),
        None,
        References::Warn,
    );
    let fields: Vec<&str> = verdict.refusals.iter().map(|refusal| refusal.field.as_str()).collect();
    assert_eq!(fields, ["spec.route", "spec.match[0]"]);

    known.insert(&object(Kind::Backend, "n/b", "1", &backend(json!({}))));
    let verdict =
        judge(&known, &object(Kind::GrpcBackend, "n/b", "2", &backend(json!({}))), None, References::Warn);
    assert!(verdict.refusals[0].problem.contains("x:80 belongs to Backend n/b"), "{verdict:?}");
}

#[test]
fn only_changes_of_the_spec_are_judged() {
    let mut known = empty();
    known.insert(&object(Kind::ApiRoute, "n/first", "1", &route(json!({}))));
    let (broken, second) = (json!({"match": 5}), object(Kind::ApiRoute, "n/second", "2", &route(json!({}))));
    let asked = |object: &RawObject, before: Option<&RawObject>| {
        judge(&known, object, before, References::Warn).refusals.len()
    };
    assert_eq!(asked(&second, Some(&second)), 0);
    let reordered = object(
        Kind::ApiRoute,
        "n/second",
        "2",
        &serde_json::from_str(
            r#"{"route":[{"destination":
        {"port": 80, "host": "a.example"}}], "match":[{"uri":{"prefix":"/a"}}]}"#,
        )
        .unwrap(),
    );
    assert_eq!(asked(&reordered, Some(&second)), 0);
    let old = object(Kind::ApiRoute, "n/second", "2", &broken);
    assert_eq!(asked(&old, Some(&old)), 0);
    assert_eq!(asked(&old, None), 1);
    let mut deleting = old.clone();
    deleting.deleting = true;
    assert_eq!(asked(&deleting, None), 0);
}

#[test]
fn of_two_that_came_past_admission_the_older_may_change() {
    let mut known = empty();
    let (old, young) = ("n/old", "n/young");
    known.insert(&object(Kind::ApiRoute, old, "1", &route(json!({}))));
    known.insert(&object(Kind::ApiRoute, young, "2", &route(json!({}))));
    let change = |key, created| {
        let before = object(Kind::ApiRoute, key, created, &route(json!({})));
        let after = object(Kind::ApiRoute, key, created, &route(json!({"timeout": "5s"})));
        judge(&known, &after, Some(&before), References::Warn).refusals
    };
    assert_eq!(change(old, "1"), []);
    assert_eq!(change(young, "2").len(), 1);
    // But nobody may take what another one has, however old he is.
    let before = object(Kind::ApiRoute, "n/oldest", "0", &json!({"match": [{"uri": {"prefix": "/b"}}]}));
    let after = object(Kind::ApiRoute, "n/oldest", "0", &route(json!({})));
    assert_eq!(judge(&known, &after, Some(&before), References::Warn).refusals.len(), 2);
}

#[test]
fn destinations_that_nobody_knows_are_warned_of_or_refused() {
    let mut known = empty();
    let leading = |host: &str| {
        object(
            Kind::ApiRoute,
            "default/hello-route",
            "1",
            &json!({"route": [{"destination": {"host": host, "port": 8080}}]}),
        )
    };
    let outcome = |known: &Conflicts, host: &str, references| {
        let verdict = judge(known, &leading(host), None, references);
        (verdict.refusals.len(), verdict.warnings.len())
    };
    for host in ["hello-service", "hello-backend", "default/hello-backend"] {
        assert_eq!(outcome(&known, host, References::Warn), (0, 1), "{host}");
        assert_eq!(outcome(&known, host, References::Deny), (1, 0), "{host}");
    }
    let address = json!({"hosts": [{"address": "hello-service.default.svc.cluster.local", "port": 8080}]});
    known.insert(&object(Kind::Backend, "default/hello-backend", "1", &address));
    for host in ["hello-service", "hello-backend", "default/hello-backend", "10.0.0.1", "other.svc", "::1"] {
        assert_eq!(outcome(&known, host, References::Deny), (0, 0), "{host}");
    }
}

#[test]
fn where_a_route_led_already_is_no_reason_to_refuse_another_change() {
    let leading = |hosts: &[&str]| {
        let to =
            |host: &&str| json!({"destination": {"host": host, "port": 80}, "weight": 100 / hosts.len()});
        let spec = json!({"route": hosts.iter().map(to).collect::<Vec<_>>(), "timeout": format!("{}s", hosts.len())});
        object(Kind::ApiRoute, "shop/a", "1", &spec)
    };
    let judged = |before: &[&str], after: &[&str]| {
        let verdict = judge(&empty(), &leading(after), Some(&leading(before)), References::Deny);
        (verdict.warnings.len(), verdict.refusals.len())
    };
    assert_eq!(judged(&["gone"], &["gone", "web.example.com"]), (1, 0));
    assert_eq!(judged(&["gone"], &["gone", "new"]), (1, 1));
}

#[test]
fn destinations_may_be_services() {
    let mut known = empty();
    let mut services = Services::default();
    let told = |known: &Conflicts, services: &Services, host: &str| {
        let spec = json!({"route": [{"destination": {"host": host, "port": 80}}]});
        let [warned, refused] = [References::Warn, References::Deny].map(|references| {
            super::judge(known, services, &object(Kind::ApiRoute, "shop/a", "1", &spec), None, references)
        });
        let mut words = warned.warnings;
        assert!(warned.refusals.is_empty() && refused.warnings.is_empty());
        let refusals = refused.refusals.into_iter().map(|refusal| refusal.problem);
        assert_eq!(refusals.collect::<Vec<_>>(), words, "warned of and refused is the same");
        assert!(words.len() <= 1, "{words:?}");
        words.pop()
    };
    let names = ["web", "WEB.", "web.shop.svc", "web.shop.svc.cluster.local", "pod-0.web.shop.svc"];
    let others = ["api.team.svc", "api.team.svc.cluster.local"];
    let outside = ["web.example.com", "web.shop", "10.0.0.1", "::1", "x.pod.cluster.local"];
    let never = ["we_b", "shop/web"];
    let check = |known: &Conflicts, services: &Services, own: bool, other: bool| {
        let all = names.iter().map(|host| (host, own)).chain(others.iter().map(|host| (host, other)));
        let fixed = outside.iter().map(|host| (host, false)).chain(never.iter().map(|host| (host, true)));
        for (host, expected) in all.chain(fixed) {
            assert_eq!(told(known, services, host).is_some(), expected, "{host}");
        }
    };
    // Nothing is listed, and nothing is said of what may be Services.
    check(&known, &services, false, false);
    services.listed([]);
    check(&known, &services, true, true);
    assert_eq!(
        told(&known, &services, "web").unwrap(),
        "destination \"web\" is no Backend of shop, no Service there, nor a host that a Backend leads to; create it"
    );
    assert_eq!(
        told(&known, &services, "api.team.svc").unwrap(),
        "destination \"api.team.svc\": there is no Service api in team, nor a Backend that leads there; create it"
    );
    services.insert(ObjectKey::new("shop", "web"));
    check(&known, &services, false, true);
    assert!(told(&known, &services, "api").is_some(), "another namespace's has more of a name");
    services.insert(ObjectKey::new("team", "api"));
    check(&known, &services, false, false);
    services.remove(&ObjectKey::new("shop", "web"));
    check(&known, &services, true, false);
    // A Backend that leads there counts, under whichever of its names.
    let leads = json!({"hosts": [{"address": "web.shop.svc", "port": 80}]});
    known.insert(&object(Kind::Backend, "shop/b", "1", &leads));
    check(&known, &services, false, false);
    services.lost();
    check(&known, &services, false, false);
}

/// An Ingress of one rule, with annotations of this family.
fn ingress(annotations: &[(&str, &str)]) -> Ingress {
    let path = json!({"path": "/basket", "pathType": "Prefix", "backend": {"service": {"name": "basket", "port": {"number": 80}}}});
    let spec = json!({"ingressClassName": "avapigw", "rules": [{"host": "shop.example.org", "http": {"paths": [path]}}]});
    let named = |(name, value): &(&str, &str)| (format!("avapigw.io/{name}"), (*value).to_owned());
    Ingress {
        key: ObjectKey::new("shop", "all"),
        annotations: annotations.iter().map(named).collect(),
        spec: serde_json::from_value(spec).unwrap(),
    }
}

fn judged(annotations: &[(&str, &str)]) -> Verdict {
    let (created, services) = (Arc::from("1"), Services::default());
    judge_ingress(&empty(), &services, &ingress(annotations), None, &created, References::Deny).0
}

/// What is served of an Ingress stands in nobody's way but others'.
#[test]
fn an_ingress_that_is_served_may_be_changed_and_others_keep_what_is_theirs() {
    let created: Arc<str> = "2".into();
    let judge = |known: &Conflicts, new: &Ingress, before: Option<&Ingress>| {
        let (verdict, claims) =
            judge_ingress(known, &Services::default(), new, before, &created, References::Deny);
        (verdict.refusals.into_iter().map(|one| one.problem).collect::<Vec<_>>(), claims.len())
    };
    let served = |ingress: &Ingress| {
        let mut known = empty();
        let made = convert(ingress, &|_, _| Some(1)).unwrap();
        made.resources.iter().for_each(|one| known.insert(&one.object(&created)));
        known
    };
    let plain = ingress(&[]);
    let mut known = served(&plain);
    for annotations in [&[("timeout", "9s")][..], &[("protocol", "grpc")], &[("path-rewrite", "/x")]] {
        let changed = ingress(annotations);
        let (refusals, _) = judge(&known, &changed, Some(&plain));
        assert_eq!(refusals, [""; 0], "{annotations:?}");
    }
    assert_eq!(
        judge(&known, &ingress(&[("timeout", "9s")]), Some(&plain)),
        (vec![], 0),
        "it claims nothing new"
    );
    // Another Ingress with the same path, and one that leads to the same endpoint by the other protocol.
    let other = Ingress { key: ObjectKey::new("shop", "other"), ..ingress(&[]) };
    let (refusals, _) = judge(&known, &other, None);
    assert!(
        matches!(&refusals[..], [one] if one.contains("APIRoute shop/ingress-shop-all-")),
        "{refusals:?}"
    );
    let grpc = Ingress { key: ObjectKey::new("shop", "other"), ..ingress(&[("protocol", "grpc")]) };
    let (refusals, _) = judge(&known, &grpc, None);
    assert!(
        matches!(&refusals[..], [one] if one.contains("belongs to Backend shop/ingress-shop-all.basket.80")),
        "{refusals:?}"
    );
    // Of a port with a name nobody knows here where it leads.
    let mut named = grpc.clone();
    let paths = &mut named.spec.rules.as_mut().unwrap()[0].http.as_mut().unwrap().paths;
    paths[0].backend =
        serde_json::from_value(json!({"service": {"name": "basket", "port": {"name": "web"}}})).unwrap();
    let anywhere = json!({"hosts": [{"address": "basket.shop.svc.cluster.local", "port": 1}]});
    known.insert(&object(Kind::Backend, "shop/one", "1", &anywhere));
    assert_eq!(judge(&known, &named, None).0, [""; 0]);
    // An older route that has it already: nothing becomes worse by a change. One that is younger gives way.
    let mut path = plain.clone();
    path.spec.rules.as_mut().unwrap()[0].http.as_mut().unwrap().paths[0].path = Some("/cart".to_owned());
    let spec = convert(&plain, &|_, _| Some(1)).unwrap();
    let route = spec.resources.iter().find(|one| one.kind == Kind::ApiRoute).unwrap();
    let rival = RawObject { key: ObjectKey::new("shop", "rival"), ..route.object(&"1".into()) };
    known.insert(&rival);
    assert_eq!(judge(&known, &path, Some(&plain)), (vec![], 1), "it leaves what the older one has");
    let (refusals, _) = judge(&known, &ingress(&[("timeout", "9s")]), Some(&plain));
    assert!(matches!(&refusals[..], [one] if one.contains("shop/rival")), "{refusals:?}");
    known.insert(&RawObject { created: "3".into(), generation: 2, ..rival });
    assert_eq!(
        judge(&known, &ingress(&[("timeout", "9s")]), Some(&plain)).0,
        [""; 0],
        "the rival is younger"
    );
}

/// The published operator's sample of an Ingress with all that it has uses these: what it takes no notice of, or takes
/// only with another one, is warned of here and no reason to refuse.
#[test]
fn an_ingress_as_the_published_operator_shows_it_is_admitted() {
    let heeded = [
        ("timeout", "45s"),
        ("retries", "2"),
        ("retry-on", "reset,5xx"),
        ("cors-allow-origins", "https://shop.example.org,https://www.example.org"),
        ("cors-allow-methods", "GET,DELETE,PUT,POST"),
        ("cors-allow-headers", "Authorization,Content-Type"),
        ("load-balancer", "round-robin"),
        ("health-check-path", "/alive"),
        ("health-check-interval", "15s"),
        ("max-body-size", "2097152"),
    ];
    let idle = [
        ("rate-limit-rps", "50"),
        ("rate-limit-burst", "75"),
        ("circuit-breaker-threshold", "7"),
        ("circuit-breaker-timeout", "20s"),
        ("strip-prefix", "true"),
        ("websocket", "true"),
        ("request-headers-add", "X-Edge:shop,X-Trace:${trace}"),
        ("response-headers-add", "X-Answered-By:shop"),
        ("request-headers-remove", "X-Secret"),
    ];
    assert_eq!(judged(&heeded), Verdict::default());
    for (name, value) in idle {
        let Verdict { refusals, warnings } = judged(&[(name, value)]);
        assert_eq!(refusals, [], "{name}");
        let field = format!("metadata.annotations[avapigw.io/{name}] ");
        assert!(matches!(&warnings[..], [one] if one.starts_with(&field)), "{name}: {warnings:?}");
    }
    let all: Vec<(&str, &str)> = heeded.into_iter().chain(idle).collect();
    let Verdict { refusals, warnings } = judged(&all);
    assert_eq!((refusals.as_slice(), warnings.len()), ([].as_slice(), idle.len()), "{warnings:?}");
}

#[test]
fn what_rules_say_of_what_an_ingress_becomes_is_told_of_its_annotations() {
    let fields = |annotations: &[(&str, &str)]| -> Vec<String> {
        judged(annotations).refusals.into_iter().map(|refusal| refusal.field).collect()
    };
    assert_eq!(fields(&[("timeout", "1ms")]), ["metadata.annotations[avapigw.io/timeout]"]);
    // Without tokens that can be checked it would be open to everybody, which is not what it asks for.
    assert_eq!(
        fields(&[("auth-enabled", "true"), ("auth-type", "jwt")]),
        ["metadata.annotations[avapigw.io/auth-type]"]
    );
    for switch in [&[("auth-type", "jwt")][..], &[("auth-enabled", "false"), ("auth-type", "jwt")]] {
        assert_eq!(fields(switch), [""; 0]);
    }
    let grpc = judged(&[("protocol", "grpc"), ("grpc-retry-on", "aborted")]);
    assert_eq!(grpc.refusals, []);
    assert!(grpc.warnings.iter().any(|warning| warning.contains("retryOn has \"aborted\"")), "{grpc:?}");
}

proptest! {
    /// Whatever stands in a spec: an answer, and never a panic.
    #[test]
    fn any_spec_gets_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..4usize) {
        let mut known = empty();
        let mut any = object(Kind::ALL[which], "n/x", "1", &json!({}));
        any.spec = bytes.into();
        known.insert(&any);
        judge(&known, &any, None, References::Deny);
        prop_assert!(known.exists(any.kind, &any.key));
    }

    /// The same for specs that are nearly right: one place of them is something else.
    #[test]
    fn a_spec_with_one_wrong_place_gets_an_answer(place in any::<prop::sample::Index>(), wrong in 0..8usize, which in 0..4usize) {
        let wrongs = [json!(null), json!(-1), json!("x"), json!([]), json!({}), json!([null]), json!(1e300), json!({"enabled": 5})];
        let full = with(route(json!({
            "match": [{"uri": {"prefix": "/a"}, "methods": ["GET", "GTE"]}],
            "timeout": "5s", "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "5xx,aborted"},
            "authentication": {"enabled": true, "jwt": {"enabled": true, "secret": "s"}, "oidc": {"providers": [{"clientSecret": "x"}]}},
            "tls": {"vault": {"enabled": true}, "clientValidation": {"enabled": true}},
            "transform": {"response": {"allowFields": ["a"], "denyFields": ["b"]}},
            "cache": {"enabled": true, "redis": {"url": "redis://u:p@r", "sentinel": {"password": "p"}}},
            "cors": {"maxAge": -1}, "circuitBreaker": {"threshold": 500, "halfOpenRequests": 0},
            "healthCheck": {"path": "a", "interval": "10s", "timeout": "20s", "healthyThreshold": 11},
            "aggregate": {"targets": [{"tls": {"enabled": true, "mode": "MUTUAL"}, "authentication": {"type": "jwt", "jwt": {"enabled": true}}}]},
        })), backend(json!({})));
        let mut paths = Vec::new();
        collect(&full, String::new(), &mut paths);
        let mut spec = full;
        *spec.pointer_mut(place.get(&paths).as_str()).unwrap() = wrongs[wrong].clone();
        let asked = object(Kind::ALL[which], "n/x", "1", &spec);
        let mut known = empty();
        known.insert(&asked);
        let verdict = judge(&known, &asked, None, References::Deny);
        for refusal in &verdict.refusals {
            prop_assert!(refusal.field.starts_with("spec"), "{:?}", refusal);
        }
        prop_assert!(verdict.warnings.len() <= WARNINGS);
    }
}

fn collect(value: &Value, path: String, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| collect(value, format!("{path}/{key}"), into))
        }
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, value)| collect(value, format!("{path}/{index}"), into));
        }
        _ => {}
    }
    if !path.is_empty() {
        into.push(path);
    }
}
