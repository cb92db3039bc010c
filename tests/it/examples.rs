//! The examples that users of the published operator know, word for word, as one story: a real API server that asks
//! about admission, kubectl, and two gateways.

use serde_json::Value;

use crate::fleet::kubectl::{Kubectl, holds};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, webhooks};

/// The quick start's objects, word for word.
pub const HELLO: &str = r#"
apiVersion: avapigw.io/v1alpha1
kind: Backend
metadata:
  name: hello-backend
spec:
  hosts:
    - address: hello-service.default.svc.cluster.local
      port: 8080
      weight: 1
  healthCheck:
    path: /health
    interval: 10s
    timeout: 5s
---
apiVersion: avapigw.io/v1alpha1
kind: APIRoute
metadata:
  name: hello-route
spec:
  match:
    - uri:
        prefix: /hello
      methods: [GET]
  route:
    - destination:
        host: hello-service
        port: 8080
"#;

const API_V1: &str = r#"
apiVersion: avapigw.io/v1alpha1
kind: APIRoute
metadata:
  name: api-v1
  namespace: production
spec:
  match:
    - uri:
        prefix: /api/v1
      methods: [GET, POST]
  route:
    - destination:
        host: api-backend
        port: 8080
  timeout: 30s
  retries:
    attempts: 3
    perTryTimeout: 10s
"#;

const INGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: api-ingress
  annotations:
    avapigw.io/timeout: "30s"
    avapigw.io/retries: "3"
spec:
  ingressClassName: avapigw
  rules:
  - host: api.example.com
    http:
      paths:
      - path: /api/v1
        pathType: Prefix
        backend:
          service:
            name: api-service
            port:
              number: 8080
"#;

const INVALID: &str = r#"
apiVersion: avapigw.io/v1alpha1
kind: APIRoute
metadata:
  name: invalid-route
spec:
  match:
    - uri:
        prefix: /api/v1  # Duplicate route!
"#;

/// Waits until every gateway has something of which this holds.
async fn every_gateway_has(fleet: &Fleet, what: &str, is_it: impl Fn(&str, &Value) -> bool) {
    for gateways in &fleet.gateways {
        within(SOON, &format!("{what} at {}", gateways.first().await.name), async || {
            let config = gateways.config().await;
            let held = config["resources"].as_array().cloned().unwrap_or_default();
            let found =
                held.iter().any(|held| is_it(held["key"].as_str().unwrap_or_default(), &held["spec"]));
            found.then_some(()).ok_or_else(|| config.to_string())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_published_operators_pages_show_works_as_they_say() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    let Some(kubectl) = Kubectl::find(&fleet.server.kubeconfig(fleet.path(), 0), fleet.path()).await else {
        return;
    };
    fleet.add_replicas_with(1, &["--enable-ingress-controller=true"]).await;
    for name in ["one", "two"] {
        fleet.add_gateways(name, 1).await;
    }
    webhooks::ask_the_first(&fleet).await;

    // What they declare, and a change that reaches the gateways.
    kubectl.ok(&["create", "namespace", "production"]).await;
    let text = kubectl.give(&["apply", "-f", "-"], API_V1).await;
    holds(&text, &["apiroute.avapigw.io/api-v1 created"]);
    kubectl.ok(&["config", "set-context", "--current", "--namespace=production"]).await;
    fleet.settled().await;
    kubectl.ok(&["patch", "apiroute", "api-v1", "--type=merge", "-p={\"spec\":{\"timeout\":\"60s\"}}"]).await;
    every_gateway_has(&fleet, "the new timeout", |key, spec| {
        key == "production/api-v1" && spec["timeout"] == "60s"
    })
    .await;
    fleet.settled().await;
    holds(&kubectl.ok(&["get", "apiroutes"]).await, &["NAME", "READY", "AGE", "api-v1", "True"]);
    let text = kubectl.ok(&["describe", "apiroute", "api-v1"]).await;
    holds(
        &text,
        &[
            "Conditions:",
            "Ready",
            "Reconciled",
            "Route successfully applied to 2 gateways",
            "Last Transition Time",
        ],
    );

    // What is refused; the API server has heard of the webhooks by then.
    let text = within(SOON, "the duplicate is refused", async || {
        let dry = ["apply", "--dry-run=server", "-f", "-"];
        let (admitted, text) = kubectl.run_given(&dry, INVALID).await;
        if admitted { Err(text) } else { Ok(text) }
    })
    .await;
    holds(
        &text,
        &["admission webhook", "denied the request", "duplicate route match found", "production/api-v1"],
    );
    let (admitted, text) = kubectl.run_given(&["apply", "-f", "-"], INVALID).await;
    assert!(!admitted, "{text}");
    holds(&text, &["duplicate route match found"]);

    // The quick start.
    let text = kubectl.give(&["apply", "-n", "default", "-f", "-"], HELLO).await;
    holds(&text, &["backend.avapigw.io/hello-backend created", "apiroute.avapigw.io/hello-route created"]);
    every_gateway_has(&fleet, "hello-route", |key, _| key == "default/hello-route").await;
    fleet.settled().await;
    let text = kubectl.ok(&["get", "apiroutes,backends", "-n", "default"]).await;
    holds(&text, &["apiroute.avapigw.io/hello-route", "backend.avapigw.io/hello-backend", "True"]);
    holds(
        &kubectl.ok(&["describe", "backend", "hello-backend", "-n", "default"]).await,
        &["applied to 2 gateways"],
    );

    // An Ingress, in a namespace where nothing has its path.
    let text = kubectl.give(&["apply", "-n", "default", "-f", "-"], INGRESS).await;
    holds(&text, &["ingress.networking.k8s.io/api-ingress created"]);
    every_gateway_has(&fleet, "the Ingress", |_, spec| {
        let text = spec.to_string();
        text.contains("api.example.com") && spec["timeout"] == "30s" && spec["retries"]["attempts"] == 3
    })
    .await;
    fleet.settled().await;
    fleet.check().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_charts_examples_declare_is_admitted_and_applied() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let kubeconfig = fleet.server.kubeconfig(fleet.path(), 0);
    let Some(kubectl) = Kubectl::find(&kubeconfig, fleet.path()).await else { return };
    fleet.add_replicas(1).await;
    fleet.add_gateways("gateway", 1).await;
    kubectl.ok(&["create", "namespace", "shop"]).await;
    for (example, created) in [("basic", 2), ("advanced", 6)] {
        let file = format!("{}/charts/flotilla/examples/{example}.yaml", env!("CARGO_MANIFEST_DIR"));
        // Each field is one that the kind has, too.
        let text = kubectl.ok(&["apply", "--validate=strict", "-n", "shop", "-f", &file]).await;
        assert_eq!(text.matches(" created").count(), created, "{text}");
    }
    let objects = fleet.tenants.all().await.unwrap();
    for object in &objects {
        let object =
            kubectl.ok(&["get", object.kind.plural(), &object.key.name, "-n", "shop", "-o", "json"]).await;
        let answer = within(SOON, "an answer", async || {
            webhooks::review(&fleet, 0, &serde_json::from_str(&object).unwrap()).await
        })
        .await;
        assert_eq!(answer["response"]["allowed"], Value::Bool(true), "{answer}");
        assert!(answer["response"]["warnings"].is_null(), "{answer}");
    }
    fleet.settled().await;
    assert_eq!(fleet.gateways[0].first().await.held, objects.len());
}
