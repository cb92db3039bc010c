//! The webhooks that the chart registers are those that a replica serves: an API
//! server asks by the chart's own configuration, of which only the host is replaced.
//! No Service leads anywhere without nodes.

use serde_json::{Value, json};

use super::kubectl::Kubectl;
use super::replica::{Replica, believed};
use super::{eventually, render};

/// Of every kind that is asked about: a spec that can be served, what makes one of it
/// that schemas let through and replicas do not, and what they say then.
fn kinds() -> [(&'static str, Value, Value, &'static str); 4] {
    let hosts = json!([{"address": "a.example", "port": 80}]);
    let late = json!({"timeout": "100h"});
    let hasty = json!({"healthCheck": {"path": "/health", "interval": "500ms", "timeout": "100ms"}});
    let hasty_grpc = json!({"healthCheck": {"enabled": true, "interval": "500ms", "timeout": "100ms"}});
    [
        (
            "APIRoute",
            json!({"match": [{"uri": {"prefix": "/asked"}}], "directResponse": {"status": 200, "body": "hi"}}),
            late.clone(),
            "spec.timeout",
        ),
        (
            "GRPCRoute",
            json!({"match": [{"service": {"exact": "asked.Greeter"}}], "route": [{"destination": {"host": "a.example", "port": 80}}]}),
            late,
            "spec.timeout",
        ),
        ("Backend", json!({"hosts": hosts}), hasty, "spec.healthCheck.interval"),
        (
            "GRPCBackend",
            json!({"hosts": [{"address": "b.example", "port": 80}]}),
            hasty_grpc,
            "spec.healthCheck.interval",
        ),
    ]
}

pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}

/// One of the chart's class, with a timeout.
pub fn ingress(name: &str, timeout: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default", "annotations": {"avapigw.io/timeout": timeout}},
        "spec": {
            "ingressClassName": "avapigw",
            "rules": [{"host": format!("{name}.example"), "http": {"paths": [{
                "path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}},
            }]}}],
        },
    })
}

/// Has the API server ask this replica where it would ask the Service.
fn redirect(kubectl: &Kubectl, replica: &Replica) {
    let configuration = kubectl.json(&["get", "validatingwebhookconfiguration", "flotilla"]);
    let mut changes = Vec::new();
    for (place, webhook) in configuration["webhooks"].as_array().unwrap().iter().enumerate() {
        let path = webhook["clientConfig"]["service"]["path"].as_str().unwrap();
        let url = format!("https://127.0.0.1:{}{path}", replica.webhooks);
        let at = |field: &str| format!("/webhooks/{place}/clientConfig/{field}");
        changes.push(json!({"op": "remove", "path": at("service")}));
        changes.push(json!({"op": "add", "path": at("url"), "value": url}));
    }
    let changes = Value::from(changes).to_string();
    kubectl.get(&["patch", "validatingwebhookconfiguration", "flotilla", "--type=json", "-p", &changes]);
}

/// Waits until the API server refuses an object, at `action`, in the words of a webhook of ours.
fn refused(kubectl: &Kubectl, action: &str, object: &Value, words: &str) {
    let kind = object["kind"].as_str().unwrap();
    let start = format!(
        "admission webhook \"v{}.avapigw.io\" denied the request: validation failed: {words}",
        kind.to_lowercase()
    );
    // API servers know a new configuration a moment later.
    eventually(&format!("{action} of {kind} is refused: {words}"), async || {
        let output = kubectl.run(&[action, "--dry-run=server", "-f", "-"], &object.to_string());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        said.contains(&start).then_some(()).ok_or(said)
    });
}

/// Waits until the API server takes an object: not before it can ask the replica.
fn admitted(kubectl: &Kubectl, object: &Value) {
    eventually(&format!("{} is admitted", object["kind"]), async || {
        let output = kubectl.run(&["apply", "-f", "-"], &object.to_string());
        output.status.success().then_some(()).ok_or(String::from_utf8_lossy(&output.stderr).into_owned())
    });
}

/// Nothing is written unless a replica has admitted it: every kind, new and changed.
pub fn what_is_written_is_asked_about(helm: &str, kubectl: &Kubectl) {
    let values = "image.repository=registry.example.com/flotilla,webhook.failurePolicy=Fail,\
                  ingressController.enabled=true";
    kubectl.give(&["apply", "--server-side", "-f", "-"], &render(helm, &["--set", values]));
    let replica = Replica::start(kubectl);
    believed(kubectl, 5);
    redirect(kubectl, &replica);
    for (kind, right, mistake, words) in kinds() {
        let mut wrong = right.clone();
        wrong.as_object_mut().unwrap().extend(mistake.as_object().unwrap().clone());
        admitted(kubectl, &object(kind, "asked", &right));
        refused(kubectl, "create", &object(kind, "another", &wrong), words);
        refused(kubectl, "apply", &object(kind, "asked", &wrong), words);
    }
    let words = "metadata.annotations[avapigw.io/timeout]";
    admitted(kubectl, &ingress("asked", "5s"));
    refused(kubectl, "create", &ingress("another", "soon"), words);
    refused(kubectl, "apply", &ingress("asked", "soon"), words);
    replica.end(kubectl);
    // What is applied later names the Service again.
    kubectl.get(&["delete", "validatingwebhookconfiguration", "flotilla"]);
}
