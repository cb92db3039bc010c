//! Each rule by the field that it names, and specs that no schema has seen: an answer always, a panic never.

use bytes::Bytes;
use flotilla_core::ids::Revision;
use proptest::prelude::*;
use serde_json::json;
use std::sync::Arc;

use super::*;
use crate::conflicts::Scope;

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
    back(json!({"circuitBreaker": {"timeout": "10ms"}}), &["spec.circuitBreaker.timeout"]);
    assert_eq!(fields(Kind::GrpcBackend, &json!({})), ["spec.hosts"]);
}

#[test]
fn writers_are_warned_of_what_does_not_work_as_they_may_think() {
    let warned = |kind, spec: &Value| {
        let verdict = judge(&empty(), &object(kind, "n/x", "1", spec), None, References::Warn);
        assert_eq!(verdict.refusals, []);
        verdict.warnings
    };
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
    let basic =
        backend(json!({"authentication": {"type": "basic", "basic": {"enabled": true, "password": "p"}}}));
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
            "timeout": "5s", "retries": {"attempts": 2, "perTryTimeout": "1s"},
            "authentication": {"enabled": true, "jwt": {"enabled": true, "secret": "s"}, "oidc": {"providers": [{"clientSecret": "x"}]}},
            "tls": {"vault": {"enabled": true}, "clientValidation": {"enabled": true}},
            "transform": {"response": {"allowFields": ["a"], "denyFields": ["b"]}},
            "cache": {"enabled": true}, "healthCheck": {"interval": "10s", "timeout": "20s"},
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
