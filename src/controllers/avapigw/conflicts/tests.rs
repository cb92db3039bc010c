//! The index against a scan of all pairs, and what a question costs in claims looked at: counted, because time says little
//! on a busy machine.

use bytes::Bytes;
use flotilla_core::claims::Slot;
use flotilla_core::ids::Revision;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn object(kind: Kind, key: &str, created: u32, spec: &Value) -> RawObject {
    let (namespace, name) = key.split_once('/').unwrap();
    RawObject {
        kind,
        key: ObjectKey::new(namespace, name),
        uid: Arc::from(format!("{key}-{created}")),
        revision: Revision(1),
        generation: 1,
        created: Arc::from(format!("2026-11-21T10:{:02}:{:02}Z", created / 60, created % 60)),
        deleting: false,
        held: false,
        spec: Bytes::from(spec.to_string()),
        status: Bytes::new(),
    }
}

fn route(key: &str, created: u32, entry: &Value) -> RawObject {
    object(Kind::ApiRoute, key, created, &json!({ "match": [entry] }))
}

fn holding(objects: &[RawObject]) -> Conflicts {
    let mut conflicts = Conflicts::new(Scope::Namespace);
    objects.iter().for_each(|object| conflicts.insert(object));
    conflicts
}

/// Whether two routes that each have one entry of `match` are in conflict.
fn conflict(kind: Kind, one: &Value, other: &Value) -> bool {
    let with = |key, entry: &Value| object(kind, key, 0, &json!({ "match": [entry] }));
    let (one, other) = (with("n/one", one), with("n/other", other));
    let found = !holding(std::slice::from_ref(&one)).of(&other).is_empty();
    assert_eq!(found, !holding(&[other]).of(&one).is_empty(), "a conflict is mutual");
    found
}

#[test]
fn equal_matches_conflict_and_different_specificity_does_not() {
    let http = |one: Value, other: Value| conflict(Kind::ApiRoute, &one, &other);
    let prefix = || json!({"uri": {"prefix": "/api/v1"}});
    assert!(http(prefix(), prefix()));
    assert!(http(prefix(), json!({"uri": {"prefix": "/api/v1", "exact": ""}, "methods": [], "headers": []})));
    assert!(!http(prefix(), json!({"uri": {"exact": "/api/v1"}})));
    assert!(!http(prefix(), json!({"uri": {"regex": "/api/v1"}})));
    assert!(!http(prefix(), json!({"uri": {"prefix": "/api/v2"}})));
    assert!(!http(prefix(), json!({})));
    assert!(http(json!({}), json!({"uri": {}})));

    let methods = |list: &[&str]| json!({"uri": {"prefix": "/a"}, "methods": list});
    assert!(http(methods(&[]), methods(&["GET"])));
    assert!(http(methods(&["get", "POST"]), methods(&["GET"])));
    assert!(!http(methods(&["PUT", "POST"]), methods(&["GET"])));

    let header = |more: Value| json!({"headers": [{"name": "X-A", "exact": "1"}, more]});
    let b = || json!({"name": "b", "present": true});
    assert!(http(header(b()), json!({"headers": [b(), {"name": "x-a", "exact": "1", "absent": false}]})));
    assert!(!http(header(b()), header(json!({"name": "b", "absent": true}))));
    assert!(!http(header(b()), json!({"headers": [b()]})));
    let query = |name: &str| json!({"queryParams": [{"name": name, "exact": "1"}]});
    assert!(http(query("q"), query("q")));
    assert!(!http(query("q"), query("Q")), "parameters have a case");

    let grpc = |one: Value, other: Value| conflict(Kind::GrpcRoute, &one, &other);
    let full = || {
        json!({
            "service": {"prefix": "s"}, "method": {"exact": "m"}, "authority": {"exact": "a.example.org"},
            "metadata": [{"name": "X-Tenant", "exact": "1"}], "withoutHeaders": ["x-debug"],
        })
    };
    assert!(grpc(full(), full()));
    for (part, other) in [
        ("service", json!({"exact": "s"})),
        ("service", json!({"regex": "s"})),
        ("method", json!({"exact": "n"})),
        ("authority", json!({"exact": "b.example.org"})),
        ("authority", json!({"prefix": "a.example.org"})),
        ("authority", Value::Null),
        ("metadata", json!([{"name": "X-Tenant", "exact": "2"}])),
        ("metadata", json!([])),
        ("withoutHeaders", json!(["x-trace"])),
    ] {
        let mut different = full();
        different[part] = other.clone();
        assert!(!grpc(full(), different), "{part}: {other}");
    }
    let call = |method: &str| json!({"service": {"exact": "s"}, "method": {"exact": method}});
    assert!(grpc(call("m"), call("m")));
    assert!(!grpc(call("m"), call("n")));
    assert!(!grpc(call("m"), json!({"service": {"exact": "s"}})));
    assert!(!grpc(
        call("m"),
        json!({"service": {"exact": "s"}, "method": {"exact": "m"}, "withoutHeaders": ["a"]})
    ));
}

#[test]
fn a_conflict_names_field_claim_and_the_object_with_precedence() {
    let entry = json!({"uri": {"prefix": "/api/v1"}});
    let (old, young) = (route("n/b", 1, &entry), route("n/c", 2, &entry));
    let conflicts = holding(&[young, old]);
    let spec = json!({"match": [{"uri": {"exact": "/x"}}, entry]});
    let found = conflicts.of(&object(Kind::ApiRoute, "n/a", 2, &spec));
    let seen: Vec<_> = found.iter().map(|one| (one.other.to_string(), one.precedes)).collect();
    assert_eq!(seen, [("n/b".to_owned(), true), ("n/c".to_owned(), false)], "at the same time, by name");
    assert_eq!((found[0].field.as_str(), found[0].claim.as_str()), ("spec.match[1]", "uri prefix /api/v1"));
    assert!(conflicts.of(&route("other/a", 3, &json!({"uri": {"prefix": "/api/v1"}}))).is_empty());
}

/// Replicas tell each other what is claimed, also those of other releases.
#[test]
fn the_text_of_a_slot_is_fixed() {
    let entry = json!({"uri": {"prefix": "/a\"b"}, "headers": [{"name": "X-B", "present": true}, {"name": "a", "exact": "1"}],
        "queryParams": [{"name": "Q", "regex": ".*"}], "methods": ["get"]});
    let asked = route("n/a", 1, &entry);
    let [claim] = claims(&asked, Scope::Namespace).try_into().unwrap();
    let named = |name: &str, exact: &str, regex: &str, present: bool| {
        format!(
            r#"{{"name":"{name}","exact":"{exact}","prefix":"","regex":"{regex}","present":{present},"absent":false}}"#
        )
    };
    let (a, b, q) = (named("a", "1", "", false), named("x-b", "", "", true), named("Q", "", ".*", false));
    let slot =
        format!(r#"["n",{{"Http":{{"uri":{{"Prefix":"/a\"b"}},"headers":[{a},{b}],"query":[{q}]}}}}]"#);
    assert_eq!(claim.stake.slot, Slot::of(&slot));
    assert_eq!((claim.stake.interest.takes, claim.stake.interest.bars), (1, 1));
    assert_eq!(claim.words.as_ref(), "uri prefix /a\"b with the same 3 conditions");
    let [claim] = claims(&object(Kind::GrpcRoute, "n/a", 1, &json!({})), Scope::Cluster).try_into().unwrap();
    let condition = r#"{"service":null,"method":null,"authority":null,"metadata":[],"without":[]}"#;
    assert_eq!(claim.stake.slot, Slot::of(&format!(r#"[null,{{"Grpc":{condition}}}]"#)));
    assert_eq!((claim.field.as_ref(), claim.words.as_ref()), ("spec.match", "any service"));
    let full = json!({"match": [{"service": {"prefix": "s"}, "method": {"exact": "m"}, "authority": {"regex": "a.*"},
        "metadata": [{"name": "X-B", "present": true}], "withoutHeaders": ["D"]}]});
    let [claim] = claims(&object(Kind::GrpcRoute, "n/a", 1, &full), Scope::Cluster).try_into().unwrap();
    let condition = format!(
        r#"{{"service":{{"Prefix":"s"}},"method":{{"Exact":"m"}},"authority":{{"Regex":"a.*"}},"metadata":[{b}],"without":["d"]}}"#
    );
    assert_eq!(claim.stake.slot, Slot::of(&format!(r#"[null,{{"Grpc":{condition}}}]"#)));
    let [claim] = claims(
        &object(Kind::Backend, "n/a", 1, &json!({"hosts": [{"address": "B.", "port": 1}]})),
        Scope::Cluster,
    )
    .try_into()
    .unwrap();
    assert_eq!(claim.stake.slot, Slot::of(r#"[null,{"Endpoint":{"address":"b","port":1}}]"#));
}

#[test]
fn in_a_whole_cluster_namespaces_make_no_difference() {
    let entry = json!({"uri": {"prefix": "/"}});
    let mut conflicts = Conflicts::new(Scope::Cluster);
    conflicts.insert(&route("a/r", 1, &entry));
    assert_eq!(conflicts.of(&route("b/r", 2, &entry))[0].other.to_string(), "a/r");
}

#[test]
fn backends_of_different_kinds_may_not_lead_to_the_same_endpoint() {
    let spec = |host: &str, port: u16| json!({"hosts": [{"address": "x", "port": 1}, {"address": host, "port": port}]});
    let conflicts = holding(&[object(Kind::Backend, "n/web", 1, &spec("API.example.com", 80))]);
    let ask = |kind, key, host, port| conflicts.of(&object(kind, key, 2, &spec(host, port)));
    let found = ask(Kind::GrpcBackend, "n/rpc", "api.example.com.", 80);
    let [conflict] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((conflict.kind, conflict.other.to_string().as_str()), (Kind::Backend, "n/web"));
    assert!(ask(Kind::Backend, "n/more", "api.example.com", 80).is_empty(), "the same kind may");
    let other = json!({"hosts": [{"address": "api.example.com", "port": 81}]});
    assert!(conflicts.of(&object(Kind::GrpcBackend, "n/rpc", 2, &other)).is_empty());
}

#[test]
fn what_is_gone_or_going_claims_nothing_and_a_list_replaces_all() {
    let entry = json!({"uri": {"prefix": "/"}});
    let (mut old, asking) = (route("n/old", 1, &entry), route("n/new", 2, &entry));
    let mut conflicts = holding(&[old.clone()]);
    assert_eq!(conflicts.of(&asking).len(), 1);
    assert!(conflicts.of(&old).is_empty(), "nobody is in conflict with himself");
    old.deleting = true;
    conflicts.insert(&old);
    assert!(conflicts.of(&asking).is_empty());
    assert!(!conflicts.exists(Kind::ApiRoute, &old.key));

    old.deleting = false;
    conflicts.insert(&old);
    conflicts.listed(Kind::GrpcRoute, &[]);
    assert_eq!(conflicts.of(&asking).len(), 1, "a list of another kind");
    conflicts.listed(Kind::ApiRoute, &[route("n/x", 3, &json!({"uri": {"exact": "/x"}}))]);
    assert!(conflicts.of(&asking).is_empty());
    assert!(!conflicts.is_complete());
    conflicts.listed(Kind::Backend, &[]);
    conflicts.listed(Kind::GrpcBackend, &[]);
    assert!(conflicts.is_complete());
    conflicts.listed(Kind::ApiRoute, &[]);
    assert!(conflicts.known.is_empty() && conflicts.held.is_empty(), "nothing is left behind");
}

#[test]
fn a_service_is_reached_by_the_names_that_it_has_in_the_namespace() {
    let backend = |address: &str| json!({"hosts": [{"address": address, "port": 80}]});
    let hello =
        object(Kind::Backend, "default/hello", 1, &backend("hello-service.default.svc.cluster.local"));
    let mut conflicts = holding(&[hello, object(Kind::Backend, "default/far", 1, &backend("api.shop.svc"))]);
    let default = Arc::from("default");
    for host in
        ["hello-service", "Hello-Service.default.svc.cluster.local", "hello-service.default", "api.shop"]
    {
        assert!(conflicts.reaches(&default, host), "{host}");
    }
    assert!(!conflicts.reaches(&default, "api"), "in another namespace it has no such name");
    assert!(!conflicts.reaches(&Arc::from("shop"), "hello-service"));
    conflicts.listed(Kind::Backend, &[]);
    assert!(conflicts.reached.is_empty());
}

/// While an Ingress changes there are both what it was and what it will be.
#[test]
fn what_one_ingress_becomes_is_not_in_conflict_with_itself() {
    let entry = json!({"uri": {"prefix": "/"}});
    let hosts = json!({"hosts": [{"address": "web.shop.svc", "port": 80}]});
    let was = route("shop/ingress-shop-api-default", 1, &entry);
    let mut conflicts = holding(&[was, object(Kind::Backend, "shop/ingress-shop-api.web.80", 1, &hosts)]);
    let mut ask = |kind, key: &str, spec: &Value| {
        let asked = object(kind, key, 2, spec);
        let found: Vec<_> = conflicts.of(&asked).into_iter().map(|one| one.other.to_string()).collect();
        let claims = conflicts.new_claims(&asked, None);
        let taken = conflicts.admit(Mono(1), kind, &asked.key, &claims, false);
        assert_eq!(taken.into_iter().map(|one| one.key.to_string()).collect::<Vec<_>>(), found, "{key}");
        found
    };
    let spec = json!({ "match": [entry] });
    assert_eq!(ask(Kind::ApiRoute, "shop/ingress-shop-api-0123456789abcdef", &spec), [""; 0]);
    assert_eq!(ask(Kind::GrpcBackend, "shop/ingress-grpc-shop-api.web.80", &hosts), [""; 0]);
    for other in ["shop/mine", "shop/ingress-shop-api2-default", "shop/ingress-shop-api-x"] {
        assert_eq!(ask(Kind::ApiRoute, other, &spec), ["shop/ingress-shop-api-default"]);
    }
    for other in ["shop/mine", "shop/ingress-grpc-shop-api2.web.80"] {
        assert_eq!(ask(Kind::GrpcBackend, other, &hosts), ["shop/ingress-shop-api.web.80"]);
    }
}

/// Counted, not timed: how many claims of others one question looks at.
#[test]
fn asking_costs_the_same_among_a_hundred_and_ten_thousand_routes() {
    let spec = |number: u32| json!({"uri": {"prefix": format!("/{number}")}, "methods": ["GET"]});
    let cost = |routes: u32| {
        let mut conflicts = Conflicts::new(Scope::Namespace);
        for number in 0..routes {
            conflicts.insert(&route(&format!("n/r{number}"), 1, &spec(number)));
        }
        assert_eq!(conflicts.known.len(), routes as usize);
        let (found, looked_at) = conflicts.find(&route("n/asking", 2, &spec(7)));
        assert_eq!(found.len(), 1);
        assert_eq!(conflicts.find(&route("n/asking", 2, &spec(u32::MAX))).1, 0);
        looked_at
    };
    assert_eq!((cost(100), cost(1_000), cost(10_000)), (1, 1, 1));
}

#[test]
fn asking_about_what_thousands_claim_already_looks_at_a_few_and_names_the_oldest() {
    let entry = json!({"uri": {"prefix": "/"}});
    let mut conflicts = Conflicts::new(Scope::Namespace);
    for number in (0..3_000).rev() {
        conflicts.insert(&route(&format!("n/r{number:04}"), number, &entry));
    }
    let (found, looked_at) = conflicts.find(&route("n/asking", 3_599, &entry));
    assert_eq!((found.len(), looked_at), (NAMED, NAMED));
    assert_eq!(
        (found[0].other.to_string().as_str(), found[7].other.to_string().as_str()),
        ("n/r0000", "n/r0007")
    );
}

// Against a scan that compares every pair by the words of the requirement.

fn string_match() -> impl Strategy<Value = Value> {
    (prop::sample::select(vec!["exact", "prefix", "regex"]), prop::sample::select(vec!["/", "/a"]))
        .prop_map(|(how, text)| json!({ how: text }))
}

fn http_entry() -> impl Strategy<Value = Value> {
    let methods = prop::collection::vec(prop::sample::select(vec!["GET", "get", "POST", "PUT"]), 0..3);
    let header = prop::sample::select(vec!["a", "A", "b"]);
    (prop::option::of(string_match()), methods, prop::collection::vec(header, 0..3)).prop_map(
        |(uri, methods, headers)| {
            let headers: Vec<Value> =
                headers.iter().map(|name| json!({"name": name, "present": true})).collect();
            let mut entry = json!({"methods": methods, "headers": headers});
            if let Some(uri) = uri {
                entry["uri"] = uri;
            }
            entry
        },
    )
}

fn any_object() -> impl Strategy<Value = (RawObject, bool)> {
    let key = ("[ab]", "[a-f]").prop_map(|(namespace, name)| format!("{namespace}/{name}"));
    let hosts = prop::collection::vec(("[ab]", 1..3u16), 1..3);
    let spec = prop_oneof![
        3 => prop::collection::vec(http_entry(), 0..3)
            .prop_map(|entries| (Kind::ApiRoute, json!({"match": entries}))),
        2 => (any::<bool>(), hosts).prop_map(|(grpc, hosts)| {
            let hosts: Vec<Value> =
                hosts.iter().map(|(address, port)| json!({"address": address, "port": port})).collect();
            (if grpc { Kind::GrpcBackend } else { Kind::Backend }, json!({"hosts": hosts}))
        }),
    ];
    (key, 0..4u32, spec, any::<bool>())
        .prop_map(|(key, created, (kind, spec), gone)| (object(kind, &key, created, &spec), gone))
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

fn duplicates(one: &Value, other: &Value) -> bool {
    let lower = |value: &Value| -> BTreeSet<String> {
        list(value).iter().map(|one| one.as_str().unwrap().to_lowercase()).collect()
    };
    let (mine, theirs) = (lower(&one["methods"]), lower(&other["methods"]));
    let overlap = mine.is_empty() || theirs.is_empty() || !mine.is_disjoint(&theirs);
    let headers = |entry: &Value| -> BTreeSet<String> {
        list(&entry["headers"]).iter().map(|one| one["name"].as_str().unwrap().to_lowercase()).collect()
    };
    one["uri"] == other["uri"] && overlap && headers(one) == headers(other)
}

fn scanned(objects: &[RawObject], asked: &RawObject, scope: Scope) -> BTreeSet<(Kind, ObjectKey)> {
    let entries = |object: &RawObject, name: &str| {
        let spec: Value = serde_json::from_slice(&object.spec).unwrap();
        let found = list(&spec[name]);
        if name == "match" && found.is_empty() { vec![json!({})] } else { found }
    };
    let pair = |other: &RawObject| match (asked.kind, other.kind) {
        (Kind::ApiRoute, Kind::ApiRoute) => entries(asked, "match")
            .iter()
            .any(|one| entries(other, "match").iter().any(|two| duplicates(one, two))),
        (Kind::Backend, Kind::GrpcBackend) | (Kind::GrpcBackend, Kind::Backend) => {
            entries(asked, "hosts").iter().any(|one| entries(other, "hosts").contains(one))
        }
        _ => false,
    };
    objects
        .iter()
        .filter(|other| (other.kind, &other.key) != (asked.kind, &asked.key))
        .filter(|other| scope == Scope::Cluster || other.key.namespace == asked.key.namespace)
        .filter(|other| pair(other))
        .map(|other| (other.kind, other.key.clone()))
        .collect()
}

proptest! {
    #[test]
    fn the_index_says_what_a_scan_says(
        changes in prop::collection::vec(any_object(), 0..24),
        asked in any_object(),
        cluster in any::<bool>(),
    ) {
        let scope = if cluster { Scope::Cluster } else { Scope::Namespace };
        let mut conflicts = Conflicts::new(scope);
        let mut objects: Vec<RawObject> = Vec::new();
        for (number, (mut object, gone)) in changes.into_iter().enumerate() {
            object.generation = number as i64;
            objects.retain(|known| (known.kind, &known.key) != (object.kind, &object.key));
            if gone {
                conflicts.remove(object.kind, &object.key);
            } else {
                conflicts.insert(&object);
                objects.push(object);
            }
        }
        let asked = asked.0;
        let expected = scanned(&objects, &asked, scope);
        let found = conflicts.of(&asked);
        let named: BTreeSet<_> = found.iter().map(|one| (one.kind, one.other.clone())).collect();
        prop_assert_eq!(found.len(), named.len(), "each once");
        prop_assert!(named.is_subset(&expected), "{:?} {:?}", named, expected);
        prop_assert_eq!(named.len(), expected.len().min(NAMED));
        let created = |one: &Conflict| {
            let at = objects.iter().find(|object| (object.kind, &object.key) == (one.kind, &one.other)).unwrap();
            (at.created.clone(), at.key.clone(), at.kind)
        };
        prop_assert!(found.is_sorted_by_key(created), "by precedence");
        for one in &found {
            let own = (asked.created.clone(), asked.key.clone(), asked.kind);
            prop_assert_eq!(one.precedes, created(one) < own);
        }
        for object in &objects {
            conflicts.remove(object.kind, &object.key);
        }
        prop_assert!(conflicts.known.is_empty() && conflicts.held.is_empty() && conflicts.reached.is_empty());
    }
}
