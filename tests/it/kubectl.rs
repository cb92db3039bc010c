//! kubectl's everyday verbs against the embedded API server, and what gateways
//! make of each.

use flotilla_core::ids::Kind;

use crate::fleet::kubectl::{Kubectl, holds};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, http};

/// With every value inside of lists, since kubectl compares those as a whole: a
/// default filled in there looks like a change to it.
const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata:
  name: shop
---
apiVersion: avapigw.io/v1alpha1
kind: Backend
metadata:
  name: items
  namespace: shop
spec:
  hosts:
  - address: 127.0.0.1
    port: 8080
    weight: 1
  loadBalancer:
    algorithm: roundRobin
---
apiVersion: avapigw.io/v1alpha1
kind: APIRoute
metadata:
  name: hello
  namespace: shop
spec:
  match:
  - uri:
      prefix: /hello
    methods: [GET]
  directResponse:
    status: 200
    body: first
    headers:
      content-type: text/plain
  timeout: 30s
---
apiVersion: avapigw.io/v1alpha1
kind: APIRoute
metadata:
  name: items
  namespace: shop
spec:
  match:
  - uri:
      prefix: /items
  route:
  - destination:
      host: items
      port: 8080
    weight: 100
"#;

/// Waits until the first gateway answers with this.
async fn answers(fleet: &Fleet, path: &str, status: u16, body: &str) {
    within(SOON, &format!("{path} answers {status} {body}"), async || {
        let (got, text) = http::get(fleet.gateways[0].http, path).await?;
        let same = got.as_u16() == status && text.contains(body);
        same.then_some(()).ok_or_else(|| format!("it answers {got} {text}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_works_against_the_embedded_server() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let kubeconfig = fleet.server.kubeconfig(fleet.path(), 0);
    let Some(kubectl) = Kubectl::find(&kubeconfig, fleet.path()).await else { return };
    fleet.add_replicas(1).await;
    fleet.add_gateways("gateway", 2).await;

    // apply, twice: the second time nothing is to be done.
    let manifests = fleet.path().join("shop.yaml");
    std::fs::write(&manifests, MANIFESTS).unwrap();
    let file = manifests.to_str().unwrap();
    let text = kubectl.ok(&["apply", "-f", file]).await;
    holds(
        &text,
        &["namespace/shop created", "backend.avapigw.io/items created", "apiroute.avapigw.io/hello created"],
    );
    let text = kubectl.ok(&["apply", "-f", file]).await;
    holds(&text, &["backend.avapigw.io/items unchanged", "apiroute.avapigw.io/hello unchanged"]);

    let text = kubectl
        .ok(&[
            "wait",
            "--for=condition=Ready",
            "apiroute/hello",
            "apiroute/items",
            "backend/items",
            "-n",
            "shop",
            "--timeout=60s",
        ])
        .await;
    holds(&text, &["apiroute.avapigw.io/hello condition met", "backend.avapigw.io/items condition met"]);
    answers(&fleet, "/hello", 200, "first").await;
    fleet.settled().await;

    // What people look at.
    let text = kubectl.ok(&["get", "apiroutes", "-n", "shop", "-o", "wide"]).await;
    holds(&text, &["NAME", "READY", "AGE", "hello", "items", "True"]);
    holds(&kubectl.ok(&["get", "ar", "-A"]).await, &["NAMESPACE", "shop", "hello"]);
    holds(&kubectl.ok(&["get", "be", "items", "-n", "shop"]).await, &["READY", "HEALTHY", "HOSTS", "True"]);
    holds(
        &kubectl.ok(&["get", "shardmap"]).await,
        &["EPOCH", "LEADER", "MEMBERS", "IMBALANCE", "fleet", "flotilla-0"],
    );
    holds(&kubectl.ok(&["get", "leases", "-n", "avapigw-system"]).await, &["flotilla-0"]);
    let message = "{.status.conditions[?(@.type=='Ready')].message}";
    let text =
        kubectl.ok(&["get", "apiroute", "hello", "-n", "shop", "-o", &format!("jsonpath={message}")]).await;
    assert_eq!(text, "Route successfully applied to 2 gateways");
    let text = kubectl.ok(&["describe", "apiroute", "hello", "-n", "shop"]).await;
    holds(
        &text,
        &["Name:", "hello", "Kind:", "APIRoute", "Route successfully applied to 2 gateways", "Reconciled"],
    );

    changes(&fleet, &kubectl).await;
    mistakes(&kubectl).await;

    let text = kubectl.ok(&["delete", "apiroute", "hello", "-n", "shop"]).await;
    holds(&text, &["deleted"]);
    answers(&fleet, "/hello", 404, "").await;
    kubectl.ok(&["delete", "namespace", "shop", "--timeout=60s"]).await;
    fleet.settled().await;
    assert_eq!(fleet.gateways[0].first().await.held, 0, "a namespace's resources go with it");
}

/// patch, edit, label, get -w, apply of a changed file.
async fn changes(fleet: &Fleet, kubectl: &Kubectl) {
    let mut following = kubectl.follow(&[
        "get",
        "apiroutes",
        "-n",
        "shop",
        "-w",
        "-o",
        "jsonpath={.metadata.name} {.metadata.generation} {.spec.timeout}{'\\n'}",
    ]);
    following.line(&["hello", "30s"]).await;

    let body = |body: &str| format!(r#"{{"spec":{{"directResponse":{{"body":"{body}"}}}}}}"#);
    kubectl.ok(&["patch", "apiroute", "hello", "-n", "shop", "--type=merge", "-p", &body("merged")]).await;
    answers(fleet, "/hello", 200, "merged").await;
    let patch = r#"[{"op":"replace","path":"/spec/directResponse/body","value":"patched"},{"op":"replace","path":"/spec/timeout","value":"31s"}]"#;
    kubectl.ok(&["patch", "apiroute", "hello", "-n", "shop", "--type=json", "-p", patch]).await;
    answers(fleet, "/hello", 200, "patched").await;
    following.line(&["hello", "31s"]).await;

    let text = kubectl.edit(&["edit", "apiroute", "hello", "-n", "shop"], "sed -i s/patched/edited/").await;
    holds(&text, &["hello edited"]);
    answers(fleet, "/hello", 200, "edited").await;
    let text = kubectl.edit(&["edit", "apiroute", "hello", "-n", "shop"], "true").await;
    holds(&text, &["no changes made"]);

    let changed = MANIFESTS.replace("body: first", "body: applied");
    let text = kubectl.give(&["apply", "-f", "-"], &changed).await;
    holds(&text, &["apiroute.avapigw.io/hello configured", "apiroute.avapigw.io/items unchanged"]);
    answers(fleet, "/hello", 200, "applied").await;

    // A label costs no gateway anything.
    let generation = fleet.tenants.status(Kind::ApiRoute, "shop", "hello").await.unwrap().generation;
    let before = fleet.gateways[0].events.all().len();
    kubectl.ok(&["label", "apiroute", "hello", "-n", "shop", "tier=gold"]).await;
    holds(&kubectl.ok(&["get", "apiroutes", "-A", "-l", "tier=gold"]).await, &["hello"]);
    assert_eq!(kubectl.ok(&["get", "apiroutes", "-A", "-l", "tier=none", "-o", "name"]).await.trim(), "");
    let patch = r#"{"spec":{"timeout":"33s"}}"#;
    kubectl.ok(&["patch", "apiroute", "hello", "-n", "shop", "--type=merge", "-p", patch]).await;
    let observed = format!("--for=jsonpath={{.status.observedGeneration}}={}", generation + 1);
    kubectl.ok(&["wait", &observed, "apiroute/hello", "-n", "shop", "--timeout=60s"]).await;
    let after = fleet.tenants.status(Kind::ApiRoute, "shop", "hello").await.unwrap();
    assert_eq!(after.generation, generation + 1, "a label is no change of the spec");
    assert_eq!(fleet.gateways[0].events.all().len(), before + 2, "one change for each of two gateways");
}

/// What the schema denies is refused, and the field is named.
async fn mistakes(kubectl: &Kubectl) {
    let patch = r#"{"spec":{"timeout":"soon"}}"#;
    let text =
        kubectl.refused(&["patch", "apiroute", "hello", "-n", "shop", "--type=merge", "-p", patch]).await;
    holds(&text, &["spec.timeout", "hello"]);
    let patch = r#"{"spec":{"hosts":[]}}"#;
    let text =
        kubectl.refused(&["patch", "backend", "items", "-n", "shop", "--type=merge", "-p", patch]).await;
    holds(&text, &["spec.hosts"]);
    holds(&kubectl.refused(&["get", "apiroute", "nobody", "-n", "shop"]).await, &["NotFound", "nobody"]);
    holds(&kubectl.refused(&["get", "nonsense"]).await, &["nonsense"]);
}
