//! From an Ingress to the answer of a gateway: what its hosts, paths and annotations say is what a gateway holds and
//! how it answers, and of many Ingresses every single one arrives.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_core::ids::Kind;
use futures::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::{create, ingresses, namespaces};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, http};

/// An Ingress with one rule: a host, and paths with their types.
fn ingress(name: &str, host: &str, paths: &[(&str, &str)], annotations: &[(&str, &str)]) -> Value {
    let path = |&(path, how): &(&str, &str)| {
        json!({
            "path": path,
            "pathType": how,
            "backend": {"service": {"name": "web", "port": {"number": 80}}},
        })
    };
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| (format!("avapigw.io/{name}"), json!(value))).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "ingressClassName": "avapigw",
            "rules": [{"host": host, "http": {"paths": paths.iter().map(path).collect::<Vec<_>>()}}],
        },
    })
}

async fn fleet() -> Option<Fleet> {
    let mut fleet = Fleet::start(Against::Inside).await?;
    fleet.tenants.namespaces(namespaces()).await;
    // Statuses of thousands of objects are not what is looked at.
    fleet.add_replicas_with(2, &["--enable-ingress-controller=true", "--status-rate=2000"]).await;
    Some(fleet)
}

/// The spec of the only resource of a kind that a gateway holds of an Ingress.
fn held(config: &Value, kind: Kind, namespace: &str, ingress: &str) -> Value {
    let beginning = format!("{namespace}/ingress-");
    let about = format!("-{namespace}-{ingress}");
    let resources = config["resources"].as_array().unwrap();
    let found: Vec<&Value> = resources
        .iter()
        .filter(|resource| resource["kind"] == kind.name())
        .filter(|resource| {
            let name = resource["name"].as_str().unwrap();
            name.starts_with(&beginning) && format!("-{name}").contains(&about)
        })
        .collect();
    assert_eq!(found.len(), 1, "{kind} of {namespace}/{ingress}: {config:#}");
    found[0]["spec"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_by_host_and_path_are_answered_as_their_ingress_says() {
    let Some(mut fleet) = fleet().await else { return };
    fleet.add_gateways("gateway", 1).await;
    let settings = [
        ("timeout", "7s"),
        ("retries", "2"),
        ("retry-on", "5xx,reset"),
        ("rate-limit-enabled", "true"),
        ("rate-limit-rps", "100"),
        ("rate-limit-burst", "20"),
        ("cors-allow-origins", "https://shop.example.com"),
        ("rewrite-uri", "/v2"),
        ("max-body-size", "1048576"),
        ("load-balancer-algorithm", "leastConn"),
        ("health-check-path", "/healthz"),
        ("health-check-interval", "9s"),
        ("circuit-breaker-enabled", "true"),
        ("circuit-breaker-threshold", "4"),
        ("circuit-breaker-timeout", "3s"),
    ];
    let mut shop = ingress("shop", "shop.example.com", &[("/api", "Prefix")], &settings);
    shop["spec"]["tls"] = json!([{"hosts": ["shop.example.com"], "secretName": "shop-tls"}]);
    let moved = [("redirect-uri", "/new"), ("redirect-code", "308")];
    let secure = [("redirect-uri", "/secure"), ("redirect-code", "301"), ("redirect-scheme", "https")];
    for one in [
        shop,
        ingress("moved", "old.example.com", &[("/a", "Prefix")], &moved),
        ingress("secure", "*.wild.example.com", &[("/b", "Exact")], &secure),
    ] {
        create(&fleet, "team-0", &one).await.unwrap();
    }
    within(SOON, "three routes and three backends", async || {
        let shown = fleet.gateways[0].first().await;
        (shown.held == 6).then_some(()).ok_or_else(|| format!("{shown:?}"))
    })
    .await;
    fleet.settled().await;

    let config = fleet.gateways[0].config().await;
    let route = held(&config, Kind::ApiRoute, "team-0", "shop");
    let backend = held(&config, Kind::Backend, "team-0", "shop");
    for (at, expected) in [
        ("/match/0/uri/prefix", json!("/api")),
        ("/match/0/headers/0/name", json!("Host")),
        ("/match/0/headers/0/exact", json!("shop.example.com")),
        ("/timeout", json!("7s")),
        ("/retries", json!({"attempts": 2, "retryOn": "5xx,reset"})),
        ("/rateLimit/requestsPerSecond", json!(100)),
        ("/rateLimit/burst", json!(20)),
        ("/cors/allowOrigins", json!(["https://shop.example.com"])),
        ("/rewrite/uri", json!("/v2")),
        ("/requestLimits/maxBodySize", json!(1_048_576)),
        ("/tls/sniHosts", json!(["shop.example.com"])),
        // The Backend that the gateway holds, under the name that it has there.
        ("/route/0/destination/host", backend["name"].clone()),
    ] {
        assert_eq!(route.pointer(at), Some(&expected), "{at}: {route:#}");
    }
    for (at, expected) in [
        ("/hosts/0/address", json!("web.team-0.svc")),
        ("/hosts/0/port", json!(80)),
        ("/loadBalancer/algorithm", json!("leastConn")),
        ("/healthCheck/path", json!("/healthz")),
        ("/healthCheck/interval", json!("9s")),
        ("/circuitBreaker", json!({"enabled": true, "threshold": 4, "timeout": "3s"})),
    ] {
        assert_eq!(backend.pointer(at), Some(&expected), "{at}: {backend:#}");
    }

    // By the answers that gateways give themselves: there is no Service here to ask.
    for (host, path, status, location) in [
        ("old.example.com", "/a", 308, "/new"),
        ("old.example.com", "/a/b?c=d", 308, "/new?c=d"),
        ("old.example.com", "/ab", 404, ""),
        ("old.example.com", "/b", 404, ""),
        ("other.example.com", "/a", 404, ""),
        ("x.wild.example.com", "/b", 301, "https://x.wild.example.com/secure"),
        ("x.wild.example.com", "/b/c", 404, ""),
        ("x.y.wild.example.com", "/b", 404, ""),
        ("wild.example.com", "/b", 404, ""),
    ] {
        let (answered, headers) = http::ask(fleet.gateways[0].http, host, path).await.unwrap();
        let told = headers.get("location").map_or("", |location| location.to_str().unwrap());
        assert_eq!((answered.as_u16(), told), (status, location), "{host}{path}");
    }

    // Another annotation is another answer; an Ingress that goes takes its answers along.
    let code = json!({"metadata": {"annotations": {"avapigw.io/redirect-code": "302"}}});
    super::change(&fleet, "team-0", "moved", code).await;
    ingresses(&fleet, "team-0").delete("secure", &kube::api::DeleteParams::default()).await.unwrap();
    within(SOON, "the answers of now", async || {
        let mut answers = Vec::new();
        for (host, path) in [("old.example.com", "/a"), ("x.wild.example.com", "/b")] {
            answers.push(http::ask(fleet.gateways[0].http, host, path).await?.0.as_u16());
        }
        (answers == [302, 404]).then_some(()).ok_or_else(|| format!("{answers:?}"))
    })
    .await;
    fleet.nothing_went_back().await;
}

/// How many Ingresses are written at once.
const MANY: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_thousand_ingresses_at_once_every_one_is_delivered() {
    let Some(mut fleet) = fleet().await else { return };
    fleet.add_gateways("gateway", 2).await;
    let namespaces = namespaces();
    let made: Vec<()> = stream::iter(0..MANY)
        .map(|number| {
            let path = format!("/many/{number}");
            let one = ingress(&format!("many-{number}"), "many.example.com", &[(&path, "Prefix")], &[]);
            let (fleet, namespace) = (&fleet, &namespaces[number % namespaces.len()]);
            async move { create(fleet, namespace, &one).await.map(drop).unwrap() }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    assert_eq!(made.len(), MANY);

    // A route and a backend of each.
    within(10 * SOON, "all are delivered", async || {
        let held: Vec<usize> = fleet.show().await?.iter().map(|gateway| gateway.held).collect();
        (held == [2 * MANY; 2]).then_some(()).ok_or_else(|| format!("{held:?}"))
    })
    .await;
    let config = fleet.gateways[0].config().await;
    let routes = config["resources"].as_array().unwrap().iter();
    let routes = routes.filter(|resource| resource["kind"] == Kind::ApiRoute.name());
    let paths: BTreeSet<String> =
        routes.map(|route| route["spec"]["match"][0]["uri"]["prefix"].as_str().unwrap().to_owned()).collect();
    assert_eq!(paths, (0..MANY).map(|number| format!("/many/{number}")).collect());
    fleet.settled_within(Duration::from_secs(600)).await;

    // Each was made once and never changed.
    let objects = fleet.tenants.all().await.unwrap();
    assert_eq!(objects.len(), 2 * MANY);
    assert!(objects.iter().all(|object| object.generation == 1));
    fleet.nothing_went_back().await;
}
