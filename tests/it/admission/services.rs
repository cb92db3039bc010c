//! What routes and Ingresses lead to is looked up among the Services of an API server, by whatever a replica serves.

use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use flotilla_core::ids::Kind;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, webhooks};

/// A route of the quick start, with another host if one is given.
fn route(host: &str) -> Value {
    json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": "APIRoute",
        "metadata": {"name": "hello-route", "namespace": "default"},
        "spec": {
            "match": [{"uri": {"prefix": "/hello"}, "methods": ["GET"]}],
            "route": [{"destination": {"host": host, "port": 8080}}],
        },
    })
}

/// An Ingress of our class that leads to this Service.
fn ingress(service: &str) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": 8080}}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {
            "ingressClassName": "avapigw",
            "rules": [{"http": {"paths": [{"path": "/in", "pathType": "Prefix", "backend": backend}]}}],
        },
    })
}

/// Waits until a replica says this of an object that is to be created: of warnings and refusals together those that
/// contain `words`, as many as there are.
async fn says(fleet: &Fleet, replica: usize, object: &Value, allowed: bool, told: usize, words: &str) {
    let what = format!("replica {replica} tells {told} of {object}");
    within(SOON, &what, async || {
        let said = webhooks::review(fleet, replica, object).await?;
        let response = &said["response"];
        let causes = response["status"]["details"]["causes"].as_array().into_iter().flatten();
        let causes = causes.filter_map(|cause| cause["message"].as_str());
        let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let found = causes.chain(warnings).filter(|one| one.contains(words)).count();
        let fits = response["allowed"] == allowed && found == told;
        fits.then_some(()).ok_or_else(|| said.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destinations_and_backends_of_ingresses_are_looked_up_among_services() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    let services = |number: usize, verbs: &[Verb]| Matcher {
        verbs: verbs.to_vec(),
        user: Some(replica_user(number)),
        resource: Some("services".to_owned()),
        ..Matcher::default()
    };
    // Rights that are missing keep nobody from anything.
    let denied: Vec<_> = [0, 1]
        .map(|number| {
            let effect = Effect::Status { code: 403, retry_after: None };
            fleet.server.faults().add(Rule::new(services(number, &[Verb::List, Verb::Watch]), effect))
        })
        .into();
    fleet.add_replicas_with(1, &["--enable-ingress-controller=true"]).await;
    fleet.add_replicas_with(1, &["--webhook-references=deny"]).await;
    let (warns, denies) = (0, 1);
    let own = ["hello-service", "hello-service.default.svc", "hello-service.default.svc.cluster.local"];
    for replica in [warns, denies] {
        within(SOON, "a replica that may not list Services", async || {
            let hits = fleet.server.faults().hits(denied[replica]);
            (hits > 0).then_some(()).ok_or_else(|| "it has not asked".to_owned())
        })
        .await;
        for host in own {
            says(&fleet, replica, &route(host), true, 0, "").await;
        }
        says(&fleet, replica, &route("not/there"), replica == warns, 1, "is no Backend").await;
    }
    says(&fleet, warns, &ingress("hello-service"), true, 0, "Service").await;

    // Once they are listed, it is told what is not there.
    fleet.server.faults().clear();
    for host in own {
        says(&fleet, warns, &route(host), true, 1, "no Service").await;
        says(&fleet, denies, &route(host), false, 1, "no Service").await;
    }
    let lacks = "there is no Service hello-service in default";
    says(&fleet, warns, &ingress("hello-service"), true, 1, lacks).await;
    // That replica serves no Ingresses, so they are none of its business.
    says(&fleet, denies, &ingress("hello-service"), true, 0, "").await;

    let api = Api::<Service>::namespaced(fleet.client(), "default");
    let hello: Service = serde_json::from_value(json!({
        "metadata": {"name": "hello-service"}, "spec": {"ports": [{"name": "http", "port": 8080}]},
    }))
    .unwrap();
    api.create(&PostParams::default(), &hello).await.unwrap();
    for host in own {
        says(&fleet, warns, &route(host), true, 0, "").await;
        says(&fleet, denies, &route(host), true, 0, "").await;
    }
    says(&fleet, warns, &ingress("hello-service"), true, 0, "Service").await;
    says(&fleet, denies, &route("other-service"), false, 1, "no Service").await;
    says(&fleet, denies, &route("hello-service.elsewhere.svc"), false, 1, "no Service").await;
    says(&fleet, denies, &route("hello.example.com"), true, 0, "").await;
    // One watch for all who look names up.
    for number in [warns, denies] {
        assert_eq!(fleet.server.faults().open_watches(&services(number, &[])), 1, "replica {number}");
    }

    // A Service that goes is missed, unless a Backend leads there: the quick start's.
    api.delete("hello-service", &DeleteParams::default()).await.unwrap();
    says(&fleet, warns, &route("hello-service"), true, 1, "no Service").await;
    says(&fleet, warns, &ingress("hello-service"), true, 1, lacks).await;
    says(&fleet, denies, &route("hello-service"), false, 1, "no Service").await;
    let hosts = json!({"hosts": [{"address": "hello-service.default.svc.cluster.local", "port": 8080}]});
    fleet.tenants.create(Kind::Backend, "default", "hello-backend", hosts).await;
    for host in own {
        says(&fleet, denies, &route(host), true, 0, "").await;
    }
    fleet.check().unwrap();
}
