//! Server-side apply: the embedded API server answers what a real one does,
//! word for word, so that what is tried against the one holds for the other.

use http::Request;
use kube::Client;
use serde_json::{Value, json};

use crate::server::Server;

/// What stands in for everything that differs from run to run.
const VARYING: [&str; 6] = ["uid", "resourceVersion", "creationTimestamp", "time", "clusterIP", "clusterIPs"];

/// One server and the talk with it so far.
struct Talk {
    server: Server,
    namespace: String,
    said: Vec<String>,
}

/// One request.
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    content: &'a str,
    body: Value,
}

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

fn put<'a>(path: &'a str, query: &'a str, body: Value) -> Ask<'a> {
    Ask { method: "PATCH", path, query, content: APPLY, body }
}

impl Talk {
    async fn new(server: Server) -> Talk {
        let namespace = server.namespace().await;
        Talk { server, namespace, said: Vec::new() }
    }

    /// Sends a request; the answer is kept in a form that is the same for all
    /// servers. Returns the answer as it came.
    async fn ask(&mut self, ask: Ask<'_>) -> Value {
        let path = ask.path.replace("NS", &self.namespace);
        let (code, answer) = send(&self.server.client, &ask, &path).await;
        let mut shown = answer.clone();
        level(&mut shown);
        let text = serde_json::to_string_pretty(&shown).unwrap().replace(&self.namespace, "NS");
        let mut asked = ask.body;
        level(&mut asked);
        self.said.push(format!("{} {}?{} {asked}\n{code} {text}", ask.method, ask.path, ask.query));
        answer
    }
}

async fn send(client: &Client, ask: &Ask<'_>, path: &str) -> (u16, Value) {
    let request = Request::builder()
        .method(ask.method)
        .uri(format!("{path}?{}", ask.query))
        .header("content-type", ask.content)
        .header("user-agent", "tester/1.0")
        .body(ask.body.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Ok(value) => (200, value),
        Err(kube::Error::Api(status)) => (status.code, serde_json::to_value(&*status).unwrap()),
        Err(error) => (0, error.to_string().into()),
    }
}

/// Levels what differs from run to run. Both servers order managers by the second
/// in which they wrote, and whether two requests fall into the same one is chance.
fn level(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if VARYING.contains(&name.as_str()) {
                    *value = format!("<{name}>").into();
                    continue;
                }
                level(value);
                if let (true, Some(managers)) = (name == "managedFields", value.as_array_mut()) {
                    managers
                        .sort_by_key(|entry| entry["manager"].to_string() + &entry["operation"].to_string());
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(level),
        _ => {}
    }
}

const BACKENDS: &str = "/apis/avapigw.io/v1alpha1/namespaces/NS/backends";
const BACKEND: &str = "/apis/avapigw.io/v1alpha1/namespaces/NS/backends/b";
const STATUS: &str = "/apis/avapigw.io/v1alpha1/namespaces/NS/backends/b/status";
const MAP: &str = "/api/v1/namespaces/NS/configmaps/m";
const SERVICE: &str = "/api/v1/namespaces/NS/services/s";

fn backend(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "avapigw.io/v1alpha1", "kind": "Backend", "metadata": {"name": name}, "spec": spec})
}

fn status(status: Value) -> Value {
    json!({"apiVersion": "avapigw.io/v1alpha1", "kind": "Backend", "metadata": {"name": "b"}, "status": status})
}

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "R", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

/// Custom resources: creation by apply, ownership, conflicts, removal.
async fn custom(talk: &mut Talk) {
    let hosts = json!([{"address": "x", "port": 1}]);
    talk.ask(put(BACKEND, "", backend("b", json!({"hosts": hosts})))).await;
    talk.ask(put(
        BACKEND,
        "fieldManager=one",
        backend("b", json!({"hosts": hosts, "encoding": {}, "nonsense": 1})),
    ))
    .await;
    let strict = "fieldManager=one&fieldValidation=Strict";
    talk.ask(put(BACKEND, strict, backend("b", json!({"hosts": hosts, "nonsense": 1})))).await;
    talk.ask(put(BACKEND, "fieldManager=one", backend("other", json!({"hosts": hosts})))).await;
    let made = talk.ask(put(BACKEND, "fieldManager=one", backend("b", json!({"hosts": hosts})))).await;
    talk.ask(put(BACKEND, "fieldManager=one", backend("b", json!({"hosts": hosts})))).await;
    let changed = json!({"hosts": [{"address": "y", "port": 2}]});
    talk.ask(put(BACKEND, "fieldManager=two", backend("b", changed.clone()))).await;
    talk.ask(put(BACKEND, "fieldManager=two&force=true&dryRun=All", backend("b", changed.clone()))).await;
    talk.ask(put(BACKEND, "fieldManager=two&force=true", backend("b", changed))).await;
    let mut labelled = backend("b", json!({}));
    labelled["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    labelled.as_object_mut().unwrap().remove("spec");
    talk.ask(put(BACKEND, "fieldManager=one", labelled.clone())).await;
    labelled["metadata"]["labels"] = json!({"a": "1"});
    labelled["metadata"]["finalizers"] = json!(["a.b/c"]);
    talk.ask(put(BACKEND, "fieldManager=one", labelled.clone())).await;
    labelled["metadata"].as_object_mut().unwrap().remove("finalizers");
    talk.ask(put(BACKEND, "fieldManager=one", labelled.clone())).await;
    // Preconditions.
    let mut late = labelled.clone();
    late["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    talk.ask(put(BACKEND, "fieldManager=one", late)).await;
    let mut foreign = labelled.clone();
    foreign["metadata"]["uid"] = "other".into();
    talk.ask(put(BACKEND, "fieldManager=one", foreign.clone())).await;
    let mut missing = foreign;
    missing["metadata"]["name"] = "none".into();
    talk.ask(put(&format!("{BACKENDS}/none"), "fieldManager=one", missing)).await;
    let mut managed = labelled;
    managed["metadata"]["managedFields"] = json!([]);
    talk.ask(put(BACKEND, "fieldManager=one", managed)).await;
    let merge = Ask {
        method: "PATCH",
        path: BACKEND,
        query: "fieldManager=hand&force=true",
        content: MERGE,
        body: json!({"metadata": {"labels": {"a": "9"}}}),
    };
    talk.ask(merge).await;
}

/// Conditions of several writers.
async fn statuses(talk: &mut Talk) {
    let hosts = json!([{"address": "x", "port": 1}]);
    let create = Ask {
        method: "POST",
        path: BACKENDS,
        query: "",
        content: JSON,
        body: backend("b", json!({"hosts": hosts})),
    };
    talk.ask(create).await;
    let ours =
        |ready: &str| status(json!({"conditions": [condition("Ready", ready)], "observedGeneration": 1}));
    talk.ask(put(STATUS, "fieldManager=flotilla&force=true", ours("False"))).await;
    let theirs = status(json!({"conditions": [condition("Audited", "True")]}));
    talk.ask(put(STATUS, "fieldManager=auditor", theirs)).await;
    talk.ask(put(STATUS, "fieldManager=flotilla&force=true", ours("True"))).await;
    talk.ask(put(
        STATUS,
        "fieldManager=auditor",
        status(json!({"conditions": [condition("Ready", "False")]})),
    ))
    .await;
    // Whoever writes without apply owns what he changes.
    let merge = Ask {
        method: "PATCH",
        path: STATUS,
        query: "",
        content: MERGE,
        body: json!({"status": {"totalHosts": 7, "observedGeneration": 1}}),
    };
    talk.ask(merge).await;
    talk.ask(put(STATUS, "fieldManager=auditor&force=true", status(json!({"totalHosts": 8})))).await;
    talk.ask(put(STATUS, "fieldManager=auditor&force=true", status(json!({})))).await;
    let nowhere = format!("{BACKENDS}/none/status");
    let mut none = status(json!({"totalHosts": 8}));
    none["metadata"]["name"] = "none".into();
    talk.ask(put(&nowhere, "fieldManager=auditor", none)).await;
    // A status is not taken by the object itself.
    let mut both = backend("b", json!({"hosts": hosts}));
    both["status"] = json!({"totalHosts": 9});
    talk.ask(put(BACKEND, "fieldManager=tenant&force=true", both)).await;
}

/// Built-in kinds.
async fn built_in(talk: &mut Talk) {
    talk.ask(put(MAP, "fieldManager=one", map(json!({"a": "1", "b": "2"})))).await;
    talk.ask(put(MAP, "fieldManager=two", map(json!({"b": "2", "c": "3"})))).await;
    talk.ask(put(MAP, "fieldManager=two", map(json!({"a": "9"})))).await;
    talk.ask(put(MAP, "fieldManager=one", map(json!({"a": "1"})))).await;
    let merge = Ask {
        method: "PATCH",
        path: MAP,
        query: "",
        content: MERGE,
        body: json!({"data": {"a": "7", "z": "8"}, "metadata": {"annotations": {"k": "v"}}}),
    };
    talk.ask(merge).await;
    talk.ask(put(MAP, "fieldManager=one", map(json!({"a": "1"})))).await;
    let forget = Ask {
        method: "PATCH",
        path: MAP,
        query: "",
        content: MERGE,
        body: json!({"metadata": {"managedFields": [{}]}}),
    };
    talk.ask(forget).await;
    talk.ask(put(MAP, "fieldManager=one&force=true", map(json!({"a": "5"})))).await;
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"selector": {"a": "b"}, "ports": ports}})
    };
    let path = SERVICE;
    talk.ask(put(
        path,
        "fieldManager=one",
        service(json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}])),
    ))
    .await;
    talk.ask(put(path, "fieldManager=one", service(json!([{"port": 81, "name": "b"}])))).await;
}

/// Both servers are told the same and must say the same.
async fn both(script: impl AsyncFn(&mut Talk)) {
    let Some(real) = Server::real().await else { return };
    let (mut real, mut ours) = (Talk::new(real).await, Talk::new(Server::embedded().await).await);
    script(&mut real).await;
    script(&mut ours).await;
    let mut differ = String::new();
    for (real, ours) in real.said.iter().zip(&ours.said) {
        if real != ours {
            differ.push_str(&format!("=== real\n{real}\n--- embedded\n{ours}\n"));
        }
    }
    assert!(differ.is_empty(), "{differ}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn custom_resources_are_applied_alike() {
    both(custom).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_are_applied_alike() {
    both(statuses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn built_in_kinds_are_applied_alike() {
    both(built_in).await;
}
