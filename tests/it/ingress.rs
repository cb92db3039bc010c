//! Ingresses against real replicas and gateways: what they become is delivered, follows every change of them, and goes
//! with them, whichever replica acts.

mod late;
mod requests;

use std::collections::BTreeMap;

use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use flotilla_core::ids::Kind;
use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::objects::answering;
use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, http, webhooks};

const ADDRESS: &str = "10.0.0.7";

fn namespaces() -> Vec<String> {
    (0..6).map(|number| format!("team-{number}")).collect()
}

/// The document's example, word for word.
fn example() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "api-ingress",
            "annotations": {"avapigw.io/timeout": "30s", "avapigw.io/retries": "3"},
        },
        "spec": {
            "ingressClassName": "avapigw",
            "rules": [{
                "host": "api.example.com",
                "http": {"paths": [{
                    "path": "/api/v1",
                    "pathType": "Prefix",
                    "backend": {"service": {"name": "api-service", "port": {"number": 8080}}},
                }]},
            }],
        },
    })
}

fn path(text: &str, port: Value) -> Value {
    json!({"path": text, "pathType": "Prefix", "backend": {"service": {"name": "web", "port": port}}})
}

fn ingresses(fleet: &Fleet, namespace: &str) -> Api<Ingress> {
    Api::namespaced(fleet.client(), namespace)
}

async fn create(fleet: &Fleet, namespace: &str, ingress: &Value) -> Result<Ingress, kube::Error> {
    let ingress = serde_json::from_value(ingress.clone()).unwrap();
    ingresses(fleet, namespace).create(&PostParams::default(), &ingress).await
}

async fn change(fleet: &Fleet, namespace: &str, name: &str, patch: Value) {
    let patch = Patch::Merge(patch);
    ingresses(fleet, namespace).patch(name, &PatchParams::default(), &patch).await.unwrap();
}

/// What there is in a namespace, by kind and name.
async fn there(fleet: &Fleet, namespace: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for kind in Kind::ALL {
        let objects = fleet.tenants.api(kind, namespace).list(&ListParams::default()).await.unwrap();
        all.extend(
            objects
                .into_iter()
                .map(|object| (format!("{kind} {}", object.name_any()), object.data["spec"].clone())),
        );
    }
    all
}

/// Waits until there is this in a namespace; what it is, in the order of kinds and names.
async fn becomes(fleet: &Fleet, namespace: &str, what: &str, fits: impl Fn(&[(&str, &Value)]) -> bool) {
    within(SOON, &format!("{namespace} has {what}"), async || {
        let there = there(fleet, namespace).await;
        let all: Vec<(&str, &Value)> = there.iter().map(|(name, spec)| (name.as_str(), spec)).collect();
        fits(&all).then_some(()).ok_or_else(|| format!("{all:?}"))
    })
    .await;
}

fn routes(all: &[(&str, &Value)]) -> usize {
    all.iter().filter(|(name, _)| name.contains("Route ")).count()
}

async fn told(fleet: &Fleet, namespace: &str, name: &str, reason: &str, words: &str) {
    within(SOON, &format!("an event {reason} about {name}"), async || {
        let events = Api::<Event>::namespaced(fleet.client(), namespace).list(&ListParams::default()).await;
        let events = events.map_err(|error| error.to_string())?.items;
        let fits = |event: &Event| {
            event.involved_object.name.as_deref() == Some(name)
                && event.reason.as_deref() == Some(reason)
                && event.message.as_deref().unwrap_or_default().contains(words)
        };
        events.iter().any(fits).then_some(()).ok_or_else(|| format!("{events:?}"))
    })
    .await;
}

async fn fleet_of(against: Against) -> Option<Fleet> {
    let mut fleet = Fleet::start(against).await?;
    fleet.tenants.namespaces(namespaces()).await;
    let address = format!("--ingress-lb-address={ADDRESS}");
    fleet.add_replicas_with(3, &["--enable-ingress-controller=true", &address]).await;
    fleet.add_gateways("gateway", 2).await;
    Some(fleet)
}

async fn ingresses_are_served_as_they_are_now(against: Against) {
    let Some(mut fleet) = fleet_of(against).await else { return };
    for namespace in namespaces() {
        create(&fleet, &namespace, &example()).await.unwrap();
    }
    for namespace in namespaces() {
        becomes(&fleet, &namespace, "a route and a backend", |all| {
            all.len() == 2 && routes(all) == 1 && all[0].1["timeout"] == "30s"
        })
        .await;
        told(&fleet, &namespace, "api-ingress", "IngressReconciled", "1 routes and 1 backends").await;
        within(SOON, "its status says where it is reached", async || {
            let ingress =
                ingresses(&fleet, &namespace).get("api-ingress").await.map_err(|e| e.to_string())?;
            let status = json!(ingress.status.and_then(|status| status.load_balancer));
            (status["ingress"] == json!([{"ip": ADDRESS}])).then_some(()).ok_or_else(|| status.to_string())
        })
        .await;
    }
    fleet.settled().await;

    // Only an annotation, a path in front, and a port by name whose Service comes later.
    change(
        &fleet,
        "team-0",
        "api-ingress",
        json!({"metadata": {"annotations": {"avapigw.io/timeout": "60s"}}}),
    )
    .await;
    becomes(&fleet, "team-0", "another timeout", |all| all.len() == 2 && all[0].1["timeout"] == "60s").await;
    let before: Vec<String> = there(&fleet, "team-0").await.into_keys().collect();
    let mut paths = example()["spec"]["rules"][0]["http"]["paths"].clone();
    paths.as_array_mut().unwrap().insert(0, path("/named", json!({"name": "http"})));
    let rules = json!([{"host": "api.example.com", "http": {"paths": paths}}]);
    change(&fleet, "team-0", "api-ingress", json!({"spec": {"rules": rules}})).await;
    told(&fleet, "team-0", "api-ingress", "IngressReconcileFailed", "Service web has no port http").await;
    assert_eq!(there(&fleet, "team-0").await.into_keys().collect::<Vec<_>>(), before);
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 8081}]},
    });
    let service: Service = serde_json::from_value(service).unwrap();
    Api::<Service>::namespaced(fleet.client(), "team-0")
        .create(&PostParams::default(), &service)
        .await
        .unwrap();
    becomes(&fleet, "team-0", "the port that has a name", |all| {
        let port = all.iter().any(|(name, spec)| {
            *name == "Backend ingress-team-0-api-ingress.web.8081"
                && spec["hosts"][0]["address"] == "web.team-0.svc"
        });
        port && routes(all) == 2 && before.iter().all(|name| all.iter().any(|(there, _)| there == name))
    })
    .await;

    // What was made is put right, and a class that is not ours any more takes it away.
    fleet.tenants.delete(Kind::ApiRoute, "team-1", before_route(&there(&fleet, "team-1").await)).await;
    becomes(&fleet, "team-1", "its route again", |all| routes(all) == 1).await;
    change(&fleet, "team-1", "api-ingress", json!({"spec": {"ingressClassName": "another"}})).await;
    becomes(&fleet, "team-1", "nothing", |all| all.is_empty()).await;
    // A request finds its way by what an Ingress says.
    let moved = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "moved", "annotations": {"avapigw.io/redirect-uri": "/new", "avapigw.io/redirect-code": "308"}},
        "spec": {"ingressClassName": "avapigw", "rules": [{"http": {"paths": [path("/moved", json!({"number": 80}))]}}]},
    });
    create(&fleet, "team-1", &moved).await.unwrap();
    becomes(&fleet, "team-1", "a redirect", |all| routes(all) == 1).await;
    fleet.settled().await;
    for gateways in &fleet.gateways {
        assert_eq!(http::get(gateways.http, "/moved").await.unwrap().0.as_u16(), 308);
    }

    // What the published operator has left behind is taken over, and may go, also with another class by then.
    let mut taken_over = example();
    taken_over["metadata"]["finalizers"] = json!(["ingress.avapigw.io/finalizer"]);
    taken_over["metadata"]["annotations"]["avapigw.io/applied-routes"] = json!("ingress-team-1-old-r0-p0");
    for (name, class) in [("old", "avapigw"), ("left", "another")] {
        taken_over["metadata"]["name"] = json!(name);
        create(&fleet, "team-1", &taken_over).await.unwrap();
        becomes(&fleet, "team-1", "what it says, too", |all| routes(all) == 2).await;
        change(&fleet, "team-1", name, json!({"spec": {"ingressClassName": class}})).await;
        ingresses(&fleet, "team-1").delete(name, &DeleteParams::default()).await.unwrap();
        within(SOON, &format!("{name} goes"), async || {
            let there = ingresses(&fleet, "team-1").get_opt(name).await.map_err(|error| error.to_string())?;
            there.map_or(Ok(()), |ingress| Err(format!("{:?}", ingress.metadata)))
        })
        .await;
        becomes(&fleet, "team-1", "only the redirect", |all| routes(all) == 1).await;
    }

    // Whoever owned some of them is killed; the others go on.
    fleet.replicas[1].kill().await;
    for namespace in &namespaces()[2..] {
        change(
            &fleet,
            namespace,
            "api-ingress",
            json!({"metadata": {"annotations": {"avapigw.io/timeout": "45s"}}}),
        )
        .await;
    }
    for namespace in &namespaces()[2..] {
        becomes(&fleet, namespace, "the new timeout", |all| all.len() == 2 && all[0].1["timeout"] == "45s")
            .await;
    }
    // All of them come back, and nothing is written or removed that is as it should be.
    fleet.settled().await;
    for replica in fleet.replicas.iter_mut().filter(|replica| replica.runs()) {
        replica.kill().await;
    }
    fleet.restart_all_stopped().await;
    fleet.settled().await;
    let removed = fleet.removed().len();
    for namespace in &namespaces()[2..4] {
        ingresses(&fleet, namespace).delete("api-ingress", &DeleteParams::default()).await.unwrap();
    }
    for namespace in &namespaces()[2..4] {
        becomes(&fleet, namespace, "nothing", |all| all.is_empty()).await;
    }
    fleet.settled().await;
    // Two gateways, two namespaces, a route and a backend each.
    assert_eq!(fleet.removed().len() - removed, 8, "{:?}", fleet.removed());
    fleet.nothing_went_back().await;
}

/// The name of the only route.
fn before_route(there: &BTreeMap<String, Value>) -> &str {
    there.keys().find_map(|name| name.strip_prefix("APIRoute ")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingresses_are_served_as_they_are_now_by_the_embedded_api_server() {
    ingresses_are_served_as_they_are_now(Against::Inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ingresses_are_served_as_they_are_now_by_a_real_api_server() {
    ingresses_are_served_as_they_are_now(Against::Real).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_refuses_ingresses_that_cannot_be_served() {
    let Some(mut fleet) = fleet_of(Against::Real).await else { return };
    webhooks::ask_the_first(&fleet).await;
    fleet.tenants.create(Kind::ApiRoute, "team-0", "taken", answering("team-0", "taken", "x")).await;
    let taken = answering("team-0", "taken", "x")["match"][0]["uri"].clone();
    let refused = async |ingress: Value, words: &[&str]| {
        within(SOON, &format!("an Ingress is refused: {words:?}"), async || {
            let said = match create(&fleet, "team-0", &ingress).await {
                Err(kube::Error::Api(status)) => status.message.clone(),
                other => {
                    other.unwrap();
                    ingresses(&fleet, "team-0")
                        .delete("api-ingress", &DeleteParams::default())
                        .await
                        .unwrap();
                    return Err("it is admitted".to_owned());
                }
            };
            let start = "admission webhook \"vingress.avapigw.io\" denied the request: validation failed: ";
            let told = said.starts_with(start) && words.iter().all(|word| said.contains(word));
            told.then_some(()).ok_or(said)
        })
        .await;
    };
    let mut late = example();
    late["metadata"]["annotations"]["avapigw.io/timeout"] = json!("soon");
    refused(late, &["metadata.annotations[avapigw.io/timeout]", "is \"soon\"", "1h30m"]).await;
    let text = taken["prefix"].as_str().or(taken["exact"].as_str()).unwrap();
    let mut same = example();
    let kind = if taken["prefix"].is_null() { "Exact" } else { "Prefix" };
    let mut twin = path(text, json!({"number": 80}));
    twin["pathType"] = json!(kind);
    same["spec"]["rules"] = json!([{"http": {"paths": [twin]}}]);
    refused(same, &["duplicate route match found", "APIRoute team-0/taken"]).await;

    // What it becomes is admitted, although what it claims is reserved for it.
    create(&fleet, "team-0", &example()).await.unwrap();
    becomes(&fleet, "team-0", "both", |all| routes(all) == 2).await;

    // While it changes there are both what it was and what it will be: neither is refused because of the other.
    let all_of_it = path("/", json!({"number": 80}));
    let default = json!({"spec": {"defaultBackend": all_of_it["backend"], "rules": null}});
    let rule = json!({"spec": {"defaultBackend": null, "rules": [{"http": {"paths": [all_of_it]}}]}});
    let grpc = json!({"metadata": {"annotations": {"avapigw.io/protocol": "grpc"}}});
    let http = json!({"metadata": {"annotations": {"avapigw.io/protocol": null}}});
    for (what, patch, is_route) in [
        ("a default backend", &default, "APIRoute ingress-team-0-api-ingress-default"),
        ("a rule for the same", &rule, "APIRoute ingress-team-0-api-ingress-"),
        ("the default backend again", &default, "APIRoute ingress-team-0-api-ingress-default"),
        ("another protocol", &grpc, "GRPCRoute ingress-grpc-team-0-api-ingress-default"),
        ("the protocol it had", &http, "APIRoute ingress-team-0-api-ingress-default"),
    ] {
        change(&fleet, "team-0", "api-ingress", patch.clone()).await;
        becomes(&fleet, "team-0", what, |all| {
            let made: Vec<&str> =
                all.iter().map(|(name, _)| *name).filter(|name| name.contains("ingress-")).collect();
            let default = |name: &str| name.ends_with("-default");
            let route = made.iter().find(|name| name.starts_with(is_route));
            made.len() == 2 && route.is_some_and(|name| default(name) == default(is_route))
        })
        .await;
    }
    fleet.settled().await;
    fleet.check().unwrap();
}

/// Whatever the API server answers to what is written for Ingresses, and whenever it ends the watches: in the end
/// everything is there, and nothing of it was ever away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_api_server_does_not_do_at_once_is_done_in_the_end() {
    let Some(mut fleet) = fleet_of(Against::Inside).await else { return };
    for namespace in namespaces() {
        create(&fleet, &namespace, &example()).await.unwrap();
    }
    for namespace in namespaces() {
        becomes(&fleet, &namespace, "a route and a backend", |all| all.len() == 2).await;
    }
    fleet.settled().await;
    let mut stayed: Vec<String> = Vec::new();
    for namespace in namespaces() {
        let names = there(&fleet, &namespace).await.into_keys();
        stayed.extend(names.map(|name| name.split_once(' ').unwrap().1.to_owned()));
    }
    let about = |resource: &str, verbs: &[Verb]| Matcher {
        verbs: verbs.to_vec(),
        resource: Some(resource.to_owned()),
        ..Matcher::default()
    };
    let status = |code| Effect::Status { code, retry_after: None };
    let writes = [Verb::Create, Verb::Patch, Verb::Delete];
    let troubles: [(&str, Rule); 6] = [
        ("500", Rule::new(about("apiroutes", &writes), status(500)).times(4)),
        ("409", Rule::new(about("backends", &writes), status(409)).times(4)),
        ("an answer that is lost", Rule::new(about("apiroutes", &writes), Effect::LoseAnswer).times(4)),
        ("410", Rule::new(about("ingresses", &[Verb::Watch]), status(410)).times(3)),
        ("no list", Rule::new(about("apiroutes", &[Verb::List]), status(503)).times(3)),
        ("no events", Rule::new(about("events", &[Verb::Create]), status(403)).times(20)),
    ];
    for (round, (name, rule)) in troubles.into_iter().enumerate() {
        eprintln!("{name}");
        for number in 0..fleet.replicas.len() {
            let matcher = Matcher { user: Some(replica_user(number)), ..rule.matcher.clone() };
            fleet.server.faults().add(Rule { matcher, ..rule.clone() });
            for resource in ["ingresses", "apiroutes", "services"] {
                let watches = about(resource, &[]);
                let user = Some(replica_user(number));
                fleet.server.faults().cut_watches(&Matcher { user, ..watches });
            }
        }
        let timeout = format!("{}s", round + 1);
        let mut paths = example()["spec"]["rules"][0]["http"]["paths"].clone();
        paths.as_array_mut().unwrap().push(path(&format!("/{round}"), json!({"number": 80 + round})));
        let rules = json!([{"host": "api.example.com", "http": {"paths": paths}}]);
        for namespace in namespaces() {
            let annotations = json!({"annotations": {"avapigw.io/timeout": timeout}});
            change(
                &fleet,
                &namespace,
                "api-ingress",
                json!({"metadata": annotations, "spec": {"rules": rules}}),
            )
            .await;
        }
        for namespace in namespaces() {
            let backend = format!("Backend ingress-{namespace}-api-ingress.web.{}", 80 + round);
            becomes(&fleet, &namespace, "two routes as they are now", |all| {
                let new = all.iter().any(|(name, _)| *name == backend);
                let current =
                    |(name, spec): &(&str, &Value)| !name.contains("Route ") || spec["timeout"] == *timeout;
                new && all.len() == 4 && routes(all) == 2 && all.iter().all(current)
            })
            .await;
        }
        fleet.settled().await;
    }
    // What was in every Ingress all the time never left a gateway.
    let removed = fleet.removed();
    assert!(removed.len() >= 5 * 2 * namespaces().len(), "{removed:?}");
    assert!(removed.iter().all(|key| stayed.iter().all(|name| !key.ends_with(name))), "{removed:?}");
    fleet.nothing_went_back().await;
}
