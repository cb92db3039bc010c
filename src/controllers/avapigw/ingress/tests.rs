//! The rules of conversion by example, and random Ingresses: an answer always, the same for the same, and no name twice.

mod annotations;
mod world;

use flotilla_api::avapigw::{ApiRouteSpec, BackendSpec, GrpcBackendSpec, GrpcRouteSpec};
use flotilla_core::compile::Compiler as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::annotations::{Part, ROWS, nearest};
use super::*;
use crate::compile::AvapigwCompiler;

fn ingress(annotations: &[(&str, &str)], spec: &Value) -> Ingress {
    let annotations = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ingress {
        key: ObjectKey::new("shop", "api"),
        annotations: annotations.collect(),
        spec: serde_json::from_value(spec.clone()).unwrap(),
    }
}

fn service(name: &str, port: &Value) -> Value {
    json!({"service": {"name": name, "port": port}})
}

fn path(path: &str, kind: &str) -> Value {
    json!({"path": path, "pathType": kind, "backend": service("web", &json!({"number": 8080}))})
}

fn rule(host: &str, paths: &[Value]) -> Value {
    json!({"host": host, "http": {"paths": paths}})
}

/// One rule with one path, by TLS.
fn simple() -> Value {
    json!({
        "ingressClassName": "avapigw",
        "tls": [{"hosts": ["api.example.com"], "secretName": "s"}],
        "rules": [rule("api.example.com", &[path("/v1", "Prefix")])],
    })
}

/// The Service `web` has one port with a name.
fn ports(service: &str, port: &str) -> Option<u16> {
    (service == "web" && port == "http").then_some(8081)
}

fn converted(annotations: &[(&str, &str)], spec: &Value) -> Converted {
    convert(&ingress(annotations, spec), &ports).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(annotations: &[(&str, &str)], spec: &Value) -> Vec<(String, String)> {
    let found = convert(&ingress(annotations, spec), &ports).expect_err("it is converted");
    found.faults.into_iter().map(|fault| (fault.field.clone(), fault.to_string())).collect()
}

fn fields(spec: &Value) -> Vec<String> {
    faults(&[], spec).into_iter().map(|(field, _)| field).collect()
}

fn spec_of(produced: &Produced) -> Value {
    // As the types of the kind have it, which no misspelt field survives.
    let spec: Value = serde_json::from_slice(&produced.spec).unwrap();
    let typed = match produced.kind {
        Kind::ApiRoute => serde_json::to_value(serde_json::from_value::<ApiRouteSpec>(spec.clone()).unwrap()),
        Kind::GrpcRoute => {
            serde_json::to_value(serde_json::from_value::<GrpcRouteSpec>(spec.clone()).unwrap())
        }
        Kind::Backend => serde_json::to_value(serde_json::from_value::<BackendSpec>(spec.clone()).unwrap()),
        Kind::GrpcBackend => {
            serde_json::to_value(serde_json::from_value::<GrpcBackendSpec>(spec.clone()).unwrap())
        }
    };
    let typed = typed.unwrap();
    if spec["match"] != json!([]) {
        assert_eq!(typed, spec, "a field that the kind does not have");
    }
    spec
}

fn names(converted: &Converted) -> Vec<String> {
    let name = |one: &Produced| {
        let end = one.key.name.rsplit('-').next().unwrap();
        let hashed = one.kind.is_route() && end.len() == 16;
        let key = one.key.to_string();
        format!("{} {}", one.kind, if hashed { key.replace(end, "HASH") } else { key })
    };
    converted.resources.iter().map(name).collect()
}

/// The only route, or the only backend.
fn only(converted: &Converted, part: Part) -> Value {
    let of = |one: &&Produced| one.kind.is_route() == (part == Part::Route);
    let found: Vec<Value> = converted.resources.iter().filter(of).map(spec_of).collect();
    assert_eq!(found.len(), 1);
    found[0].clone()
}

const GRPC: (&str, &str) = ("avapigw.io/protocol", "grpc");

#[test]
fn the_documents_example_becomes_one_route_and_one_backend() {
    let spec = json!({
        "ingressClassName": "avapigw",
        "rules": [{"host": "api.example.com", "http": {"paths": [{
            "path": "/api/v1", "pathType": "Prefix",
            "backend": {"service": {"name": "api-service", "port": {"number": 8080}}},
        }]}}],
    });
    let annotations = [("avapigw.io/timeout", "30s"), ("avapigw.io/retries", "3")];
    let converted = converted(&annotations, &spec);
    assert_eq!(
        names(&converted),
        ["APIRoute shop/ingress-shop-api-HASH", "Backend shop/ingress-shop-api.api-service.8080",]
    );
    assert!(converted.warnings.is_empty() && converted.unresolved.is_empty());
    assert_eq!(
        spec_of(&converted.resources[0]),
        json!({
            "match": [{"uri": {"prefix": "/api/v1"}, "headers": [{"name": "Host", "exact": "api.example.com"}]}],
            "route": [{"destination": {"host": "shop/ingress-shop-api.api-service.8080", "port": 8080}, "weight": 100}],
            "timeout": "30s",
            "retries": {"attempts": 3},
        })
    );
    assert_eq!(
        spec_of(&converted.resources[1]),
        json!({
            "hosts": [{"address": "api-service.shop.svc", "port": 8080, "weight": 1}],
        })
    );
    // Gateways find the one by the name that the other has there.
    let sent = |one: &Produced| {
        let compiled = AvapigwCompiler::default().compile(&one.object(&"".into()), &|_, _| false);
        serde_json::from_slice::<Value>(&compiled.outcome.unwrap().spec_json).unwrap()
    };
    let [route, backend] = [0, 1].map(|place| sent(&converted.resources[place]));
    assert_eq!(route["route"][0]["destination"]["host"], backend["name"]);
}

#[test]
fn paths_and_hosts_become_matches() {
    let spec = json!({
        "tls": [{"hosts": ["*.example.com"], "secretName": "s"}],
        "rules": [
            rule("a.example.com", &[path("/x", "Exact"), path("/x", "Prefix"), path("/y", "ImplementationSpecific")]),
            rule("*.example.org", &[json!({"pathType": "ImplementationSpecific", "backend": service("web", &json!({"name": "http"}))})]),
            {"http": {"paths": [path("/x", "Exact")]}},
            {"host": "nothing.example.com"},
        ],
        "defaultBackend": service("rest", &json!({"number": 80})),
    });
    let converted = converted(&[("avapigw.io/tls-min-version", "TLS13")], &spec);
    let mut routes: Vec<(&str, &str, Value, Value)> = Vec::new();
    let specs: Vec<Value> = converted.resources.iter().map(spec_of).collect();
    for (one, spec) in converted.resources.iter().zip(&specs).filter(|(one, _)| one.kind == Kind::ApiRoute) {
        let default = if one.key.name.ends_with("-default") { "default" } else { "hash" };
        routes.push((&one.field, default, spec["match"][0].clone(), spec["tls"].clone()));
    }
    routes.sort_by_key(|route| route.0);
    let host = |uri: Value| json!({"uri": uri, "headers": [{"name": "Host", "exact": "a.example.com"}]});
    let tls = json!({"sniHosts": ["a.example.com"], "minVersion": "TLS13"});
    let wildcard = json!({"name": "Host", "regex": "^[^.]+\\.example\\.org$"});
    let none = Value::Null;
    let expected = [
        ("spec.defaultBackend", "default", json!({"uri": {"prefix": "/"}}), none.clone()),
        ("spec.rules[0].http.paths[0]", "hash", host(json!({"exact": "/x"})), tls.clone()),
        ("spec.rules[0].http.paths[1]", "hash", host(json!({"prefix": "/x"})), tls.clone()),
        ("spec.rules[0].http.paths[2]", "hash", host(json!({"prefix": "/y"})), tls),
        (
            "spec.rules[1].http.paths[0]",
            "hash",
            json!({"uri": {"prefix": "/"}, "headers": [wildcard]}),
            none.clone(),
        ),
        ("spec.rules[2].http.paths[0]", "hash", json!({"uri": {"exact": "/x"}}), none),
    ];
    assert_eq!(routes, expected);
    let backends: Vec<String> =
        names(&converted).into_iter().filter(|name| name.starts_with("Backend")).collect();
    assert_eq!(
        backends,
        [
            "Backend shop/ingress-shop-api.rest.80",
            "Backend shop/ingress-shop-api.web.8080",
            "Backend shop/ingress-shop-api.web.8081",
        ]
    );
}

#[test]
fn a_path_of_grpc_is_a_service_and_a_method() {
    let entry = |text: &str, kind: &str, more: &[(&str, &str)]| {
        let annotations: Vec<(&str, &str)> = more.iter().copied().chain([GRPC]).collect();
        let converted = converted(&annotations, &json!({"rules": [rule("a.example", &[path(text, kind)])]}));
        assert_eq!(
            names(&converted),
            ["GRPCRoute shop/ingress-grpc-shop-api-HASH", "GRPCBackend shop/ingress-grpc-shop-api.web.8080",]
        );
        let mut entry = only(&converted, Part::Route)["match"][0].clone();
        assert_eq!(entry.as_object_mut().unwrap().remove("authority"), Some(json!({"exact": "a.example"})));
        entry
    };
    assert_eq!(entry("/", "Prefix", &[]), json!({}));
    assert_eq!(entry("/shop", "Prefix", &[]), json!({"service": {"prefix": "shop"}}));
    assert_eq!(entry("/shop.Orders/", "Prefix", &[]), json!({"service": {"exact": "shop.Orders"}}));
    assert_eq!(entry("/shop.Orders", "Exact", &[]), json!({"service": {"exact": "shop.Orders"}}));
    let get = |how: &str| json!({"service": {"exact": "shop.Orders"}, "method": {how: "Get"}});
    assert_eq!(entry("/shop.Orders/Get", "Prefix", &[]), get("prefix"));
    assert_eq!(entry("/shop.Orders/Get", "Exact", &[]), get("exact"));
    let named = [
        ("avapigw.io/grpc-service", "shop.Orders"),
        ("avapigw.io/grpc-service-match-type", "exact"),
        ("avapigw.io/grpc-method", "Get"),
    ];
    assert_eq!(entry("/other.Service/Other", "Exact", &named), get("prefix"));
    let spec = json!({"rules": [rule("", &[path("/a/b/c", "Prefix")])]});
    assert_eq!(faults(&[GRPC], &spec)[0].0, "spec.rules[0].http.paths[0].path");
    // Everything, for whoever asks.
    let all = converted(&[GRPC], &json!({"defaultBackend": service("web", &json!({"number": 1}))}));
    assert_eq!(only(&all, Part::Route)["match"], json!([]));
}

#[test]
fn a_port_by_name_waits_for_the_service() {
    let named = |port: &str| json!({"path": "/a", "pathType": "Prefix", "backend": service("web", &json!({"name": port}))});
    let spec = json!({"rules": [rule("", &[named("http"), path("/b", "Prefix")])]});
    let found = converted(&[], &spec);
    assert_eq!(found.resources.len(), 4);
    let route = spec_of(&found.resources[0]);
    assert_eq!(route["route"][0]["destination"]["port"], 8081);
    let spec = json!({"rules": [rule("", &[named("grpc"), path("/b", "Prefix")])]});
    let missing = converted(&[], &spec);
    let unresolved = Unresolved {
        field: "spec.rules[0].http.paths[0].backend.service.port".into(),
        service: "web".into(),
        port: "grpc".into(),
    };
    assert_eq!(missing.unresolved, [unresolved]);
    assert_eq!(missing.resources.len(), 2, "the others do not wait");
    assert_eq!(missing.resources[0].field, "spec.rules[0].http.paths[1]");
}

#[test]
fn what_cannot_be_converted_is_named() {
    let paths = |paths: &[Value]| json!({"rules": [rule("", paths)]});
    let place = "spec.rules[0].http.paths[0]";
    let with = |backend: Value| json!({"path": "/a", "pathType": "Prefix", "backend": backend});
    for (path, field) in [
        (path("/a", "Regex"), ".pathType"),
        (path("a", "Prefix"), ".path"),
        (path("", "Exact"), ".path"),
        (with(json!({})), ".backend"),
        (with(json!({"resource": {"kind": "Bucket", "name": "b"}})), ".backend"),
        (with(service("", &json!({"number": 1}))), ".backend"),
        (with(json!({"service": {"name": "web"}})), ".backend.service.port"),
        (with(service("web", &json!({"number": 0}))), ".backend.service.port"),
        (with(service("web", &json!({"number": 65_536}))), ".backend.service.port"),
        (with(service("web", &json!({"number": 1, "name": "http"}))), ".backend.service.port"),
    ] {
        assert_eq!(fields(&paths(&[path])), [format!("{place}{field}")]);
    }
    assert_eq!(
        fields(&paths(&[path("/a", "Exact"), path("/b", "Exact"), path("/a", "Exact")])),
        ["spec.rules[0].http.paths[2]"]
    );
    let hosts = [
        "A.example",
        "a..b",
        ".a",
        "a.",
        "-a",
        "a_b",
        "a.*.b",
        "*",
        "*a.b",
        "a b",
        &"a".repeat(64),
        &"a.".repeat(130),
    ];
    for host in hosts {
        assert_eq!(
            fields(&json!({"rules": [rule(host, &[path("/", "Prefix")])]})),
            ["spec.rules[0].host"],
            "{host}"
        );
        assert_eq!(fields(&json!({"tls": [{"hosts": [host]}]})), ["spec.tls[0].hosts[0]"], "{host}");
    }
    let mut long = ingress(&[], &simple());
    long.key = ObjectKey::new("shop", "a".repeat(250));
    let found = convert(&long, &ports).unwrap_err();
    assert!(found.faults.iter().all(|fault| fault.field == "metadata.name"), "{found}");
}

#[test]
fn a_fault_of_a_spec_is_told_of_the_annotation_that_it_comes_from() {
    let of = |annotations: &[(&str, &str)]| faults(annotations, &simple());
    let late = of(&[("avapigw.io/timeout", "1s"), ("avapigw.io/retry-per-try-timeout", "2s")]);
    assert_eq!(late[0].0, "metadata.annotations[avapigw.io/retry-per-try-timeout]");
    let versions = of(&[("avapigw.io/tls-min-version", "TLS13"), ("avapigw.io/tls-max-version", "TLS12")]);
    assert_eq!(versions[0].0, "metadata.annotations[avapigw.io/tls-min-version]");
    let expression =
        of(&[GRPC, ("avapigw.io/grpc-service", "("), ("avapigw.io/grpc-service-match-type", "regex")]);
    assert!(expression[0].1.contains("service.regex"), "{expression:?}");
    let all = of(&[("avapigw.io/timeout", "x"), ("avapigw.io/retries", "y"), ("avapigw.io/cache-ttl", "z")]);
    assert_eq!(all.len(), 3, "also where it has no effect: {all:?}");
    let lacking = of(&[("avapigw.io/rate-limit-enabled", "true"), ("avapigw.io/rate-limit-rps", "5")]);
    assert!(lacking[0].1.contains("rate-limit-burst"), "{lacking:?}");
    let both = of(&[("avapigw.io/retries", "3"), ("avapigw.io/retry-attempts", "4")]);
    assert!(both.len() == 1 && both[0].1.contains("avapigw.io/retries"), "{both:?}");
    converted(&[("avapigw.io/retries", "3"), ("avapigw.io/retry-attempts", "3")], &simple());
}

#[test]
fn what_has_no_effect_is_said() {
    let warned =
        |annotations: &[(&str, &str)], spec: &Value| converted(annotations, spec).warnings.join("\n");
    let unknown =
        warned(&[("avapigw.io/time-out", "30s"), ("nginx.ingress.kubernetes.io/x", "y")], &simple());
    assert_eq!(
        unknown,
        "metadata.annotations[avapigw.io/time-out] is unknown and has no effect; the nearest is avapigw.io/timeout"
    );
    assert_eq!(nearest("retry-atempts"), "retry-attempts");
    let books = [("avapigw.io/applied-routes", "{}"), ("avapigw.io/observed-generation", "7")];
    assert_eq!(warned(&books, &simple()), "");
    assert!(
        warned(&[("avapigw.io/cors-max-age", "5")], &simple())
            .contains("without avapigw.io/cors-allow-origins")
    );
    assert_eq!(
        warned(&[("avapigw.io/cache-enabled", "false"), ("avapigw.io/cache-ttl", "5s")], &simple()),
        ""
    );
    assert!(
        warned(&[("avapigw.io/grpc-max-idle-conns", "5")], &simple())
            .contains("needs avapigw.io/protocol: grpc")
    );
    assert!(warned(&[GRPC, ("avapigw.io/rewrite-uri", "/x")], &simple()).contains("is not for gRPC"));
    assert!(
        warned(&[GRPC, ("avapigw.io/grpc-method-match-type", "exact")], &simple())
            .contains("without avapigw.io/grpc-method")
    );
    let plain = json!({"rules": [rule("", &[path("/", "Prefix")])], "defaultBackend": service("rest", &json!({"number": 80}))});
    let said = warned(&[("avapigw.io/tls-min-version", "TLS12")], &plain);
    assert!(
        said.contains("tls-min-version") && said.contains("spec.defaultBackend is never reached"),
        "{said}"
    );
    // What is said of HTTP stands aside where it is said of gRPC.
    let retries = converted(
        &[GRPC, ("avapigw.io/retry-on", "5xx"), ("avapigw.io/grpc-retry-on", "internal")],
        &simple(),
    );
    assert_eq!(only(&retries, Part::Route)["retries"], json!({"attempts": 3, "retryOn": "internal"}));
    let security = converted(
        &[("avapigw.io/security-enabled", "true"), ("avapigw.io/security-x-frame-options", "DENY")],
        &simple(),
    );
    assert_eq!(only(&security, Part::Route)["security"]["headers"]["enabled"], true);
}

#[test]
fn an_ingress_is_ours_by_its_class_and_what_it_says_of_itself() {
    let class = |is_default| Class { name: "avapigw".into(), is_default };
    let is = |is_default, name: Option<&str>, old: Option<&str>| {
        let annotations: Vec<(&str, &str)> =
            old.map(|old| ("kubernetes.io/ingress.class", old)).into_iter().collect();
        class(is_default).has(&ingress(&annotations, &json!({"ingressClassName": name})))
    };
    assert!(is(false, Some("avapigw"), None) && is(false, None, Some("avapigw")));
    assert!(
        !is(true, Some("nginx"), None)
            && !is(true, None, Some("nginx"))
            && !is(true, Some("nginx"), Some("avapigw"))
    );
    assert!(is(true, None, None) && !is(false, None, None));

    let base = ingress(&[("avapigw.io/timeout", "30s")], &simple());
    let with = |name: &str, value: &str| {
        let mut changed = base.clone();
        changed.annotations.insert(name.to_owned(), value.to_owned());
        changed
    };
    assert!(base.is_like(&with("avapigw.io/observed-generation", "3")) && base.is_like(&with("a/b", "c")));
    assert!(
        !base.is_like(&with("avapigw.io/timeout", "31s"))
            && !base.is_like(&with("kubernetes.io/ingress.class", "x"))
    );
}

#[test]
fn names_say_whose_they_are_and_stay_when_others_are_put_in_front() {
    let ours = ObjectKey::new("shop", "api");
    let part = |kind, namespace: &str, name: &str| {
        ingress_of(kind, &ObjectKey::new(namespace, name)).as_ref() == Some(&ours)
    };
    assert!(part(Kind::ApiRoute, "shop", "ingress-shop-api-0123456789abcdef"));
    assert!(part(Kind::GrpcRoute, "shop", "ingress-grpc-shop-api-default"));
    assert!(part(Kind::Backend, "shop", "ingress-shop-api.web.80"));
    for (kind, namespace, name) in [
        (Kind::ApiRoute, "shop", "ingress-shop-api-v2-0123456789abcdef"),
        (Kind::ApiRoute, "shop", "ingress-shop-api-r0-p0"),
        (Kind::ApiRoute, "other", "ingress-shop-api-default"),
        (Kind::GrpcRoute, "shop", "ingress-shop-api-default"),
        (Kind::Backend, "shop", "ingress-shop-api.web"),
        (Kind::Backend, "shop", "ingress-shop-api.v2.web.80"),
    ] {
        assert!(!part(kind, namespace, name), "{kind} {namespace}/{name}");
    }
    let named = |paths: &[Value]| -> Vec<ObjectKey> {
        let converted = converted(&[], &json!({"rules": [rule("", paths)]}));
        converted.resources.into_iter().filter(|one| one.kind.is_route()).map(|one| one.key).collect()
    };
    let (one, other) = (path("/a", "Prefix"), path("/b", "Prefix"));
    let alone = named(std::slice::from_ref(&one));
    // Releases agree, or an upgrade would rename everything.
    assert_eq!(&*alone[0].name, "ingress-shop-api-8c7c74c587fa8585");
    assert!(named(&[other, one]).contains(&alone[0]));
}

/// Mostly one of these, sometimes anything.
fn mostly(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![19 => prop::sample::select(words).prop_map(str::to_owned), 1 => ".{0,12}"]
}

fn value() -> impl Strategy<Value = String> {
    mostly(&["true", "false", "3", "30s", "grpc", "exact", "regex", "/a", "https", "a/b", "GET", "internal"])
}

fn host() -> impl Strategy<Value = String> {
    mostly(&["", "a.example.com", "b.example.com", "*.example.com"])
}

fn backend() -> impl Strategy<Value = Value> {
    prop_oneof![
        12 => (1_i32..3).prop_map(|number| service("web", &json!({"number": number}))),
        4 => mostly(&["http", "https"]).prop_map(|name| service("web", &json!({"name": name}))),
        1 => (".{0,5}", prop::option::of(any::<i32>()), prop::option::of(".{0,5}"))
            .prop_map(|(name, number, port)| service(&name, &json!({"number": number, "name": port}))),
        1 => Just(json!({"resource": {"kind": "k", "name": "n"}})),
    ]
}

prop_compose! {
    fn any_ingress()(
        name in "[a-z]{1,3}(-(r[0-9]|p[0-9]|default)){0,2}",
        annotations in prop::collection::btree_map(
            prop_oneof![
                6 => prop::sample::select(ROWS.iter().map(|row| format!("avapigw.io/{}", row.name)).collect::<Vec<_>>()),
                1 => ".{0,20}".prop_map(|name| format!("avapigw.io/{name}")),
            ],
            value(),
            0..3,
        ),
        rules in prop::collection::vec((host(), prop::collection::vec((
            mostly(&["/", "/a", "/b", "/a/b"]),
            mostly(&["Exact", "Prefix", "ImplementationSpecific"]),
            backend(),
        ), 0..3)), 0..3),
        tls in prop::collection::vec(prop::collection::vec(host(), 0..3), 0..2),
        default in prop::option::of(backend()),
    ) -> Ingress {
        let rules: Vec<Value> = rules.into_iter().map(|(host, paths)| {
            let path = |(path, kind, backend)| json!({"path": path, "pathType": kind, "backend": backend});
            rule(&host, &paths.into_iter().map(path).collect::<Vec<_>>())
        }).collect();
        let tls: Vec<Value> = tls.into_iter().map(|hosts| json!({"hosts": hosts})).collect();
        let spec = json!({"rules": rules, "tls": tls, "defaultBackend": default});
        Ingress {
            key: ObjectKey::new("shop", name),
            annotations,
            spec: serde_json::from_value(spec).unwrap(),
        }
    }
}

proptest! {
    #[test]
    fn any_ingress_has_one_answer_and_no_name_twice(one in any_ingress()) {
        let answer = convert(&one, &ports);
        prop_assert_eq!(&answer, &convert(&one, &ports));
        match &answer {
            Err(found) => {
                prop_assert!(!found.faults.is_empty());
                prop_assert!(found.faults.iter().all(|fault| !fault.problem.is_empty() && !fault.remedy.is_empty()));
            }
            Ok(converted) => {
                let names: BTreeSet<_> = converted.resources.iter().map(|it| (it.kind, it.key.clone())).collect();
                prop_assert_eq!(names.len(), converted.resources.len());
                for made in &converted.resources {
                    prop_assert_eq!(ingress_of(made.kind, &made.key), Some(one.key.clone()), "{}", made.key);
                    let compiled = AvapigwCompiler::default().compile(&made.object(&"".into()), &|_, _| false);
                    prop_assert!(compiled.outcome.is_ok());
                    spec_of(made);
                }
            }
        }
    }
}
