//! What is off by default, under the rights that the chart gives for it.

use serde_json::{Value, json};

use super::admission::{ingress, object};
use super::kubectl::Kubectl;
use super::replica::Replica;
use super::{eventually, render};

/// A gateway that listens, behind the Service that the values below name.
fn endpoints() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "gateways-0", "namespace": "edge",
            "labels": {"kubernetes.io/service-name": "gateways"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"name": "push", "port": 9446}],
    })
}

/// Waits until this many objects of a kind have come of an Ingress.
fn made(kubectl: &Kubectl, kind: &str, ingress: &str, count: usize) {
    eventually(&format!("{count} of {kind} come of {ingress}"), async || {
        let names = kubectl.get(&["get", kind, "-n", "default", "-o", "name"]);
        let made = names.lines().filter(|name| name.contains(&format!("/ingress-default-{ingress}"))).count();
        (made == count).then_some(()).ok_or(names)
    });
}

/// Each part does what it is for, so it asks for what it needs; nothing is forbidden.
pub fn every_optional_part_runs(helm: &str, kubectl: &Kubectl) {
    // Nothing answers at the Service of the webhooks.
    let values = "image.repository=registry.example.com/flotilla,webhook.failurePolicy=Ignore,\
                  ingressController.enabled=true,ingressController.lbAddress=gateways.example.com,\
                  deletion.finalizers=true,push.services={edge/gateways:push}";
    kubectl.give(&["apply", "--server-side", "-f", "-"], &render(helm, &["--set", values]));
    kubectl.give(&["create", "-f", "-"], &endpoints().to_string());
    let replica = Replica::start(kubectl);

    replica.counts("flotilla_push_targets", 1);

    kubectl.give(&["create", "-f", "-"], &ingress("served", "5s").to_string());
    made(kubectl, "apiroutes", "served", 1);
    made(kubectl, "backends", "served", 1);
    kubectl.wait("ingress/served", "{.status.loadBalancer.ingress[0].hostname}", "gateways.example.com");
    // Of one that is deleted the garbage collector takes what came of it, which is not
    // running here; of one that is another's now the replica does.
    let others = r#"{"spec":{"ingressClassName":"nginx"}}"#;
    kubectl.get(&["patch", "ingress", "served", "-n", "default", "--type=merge", "-p", others]);
    made(kubectl, "apiroutes", "served", 0);
    made(kubectl, "backends", "served", 0);

    let route =
        json!({"match": [{"uri": {"prefix": "/held"}}], "directResponse": {"status": 200, "body": "hi"}});
    kubectl.give(&["create", "-f", "-"], &object("APIRoute", "held", &route).to_string());
    kubectl.wait("apiroute/held", "{.metadata.finalizers[0]}", "apiroute.avapigw.io/finalizer");
    // Does not come back before whoever holds it has let it go.
    kubectl.get(&["delete", "apiroute", "held", "-n", "default", "--timeout=60s"]);

    replica.end(kubectl);
}
