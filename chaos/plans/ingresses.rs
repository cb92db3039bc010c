//! What the tenants do with Ingresses, and what has come of that once it has settled.
//! Replicas make routes and backends of them and take these away again: the only objects of
//! tenants that they create and delete themselves.

use std::collections::BTreeMap;

use anyhow::Context as _;
use flotilla_core::object::RawObject;
use flotilla_testing::fleet::objects::Tenants;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::scenario::NAMESPACES;

/// What replicas are told: to serve Ingresses, and where gateways are reached.
pub const FLAGS: [&str; 2] = ["--enable-ingress-controller=true", "--ingress-lb-address=10.0.0.7"];
/// Where the statuses of Ingresses are to say that gateways are reached.
const ADDRESS: &str = "10.0.0.7";
/// The class of Ingresses that replicas serve.
const CLASS: &str = "avapigw";

/// What one Ingress has become.
#[derive(Debug, Clone, Copy)]
struct Made {
    namespace: &'static str,
    ingress: &'static str,
    routes: usize,
    backends: usize,
    /// Of every route.
    timeout: &'static str,
}

/// What is there when a phase has settled; in phases before Ingresses there is nothing.
fn made(phase: &str) -> Vec<Made> {
    let [a, b] = NAMESPACES;
    let shop = |namespace, timeout| Made { namespace, ingress: "shop", routes: 3, backends: 2, timeout };
    // It stays, so that the fresh start finds one.
    let front = Made { namespace: b, ingress: "front", routes: 1, backends: 1, timeout: "30s" };
    match phase {
        "ingress" => vec![shop(a, "30s"), shop(b, "30s"), front],
        "reroute" => vec![shop(a, "45s"), shop(b, "45s"), front],
        "withdraw" | "contest" | "yield" => vec![front],
        _ => Vec::new(),
    }
}

/// What is there before the first replica starts: a Service whose port has a name.
///
/// # Errors
/// When the API server does not take it.
pub async fn furnish(tenants: &Tenants) -> anyhow::Result<()> {
    for namespace in NAMESPACES {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {"ports": [{"name": "http", "port": 8080}]},
        }))?;
        let api = Api::<Service>::namespaced(tenants.client.clone(), namespace);
        let made = api.create(&PostParams::default(), &service).await;
        made.with_context(|| format!("create Service {namespace}/web"))?;
    }
    Ok(())
}

/// Plays a phase; the others are not about Ingresses.
///
/// # Errors
/// When the API server does not take it.
pub async fn act(tenants: &Tenants, phase: &str) -> anyhow::Result<()> {
    let [a, b] = NAMESPACES;
    match phase {
        "ingress" => {
            for namespace in NAMESPACES {
                create(tenants, namespace, "shop", shop(("/v1", 8081))).await?;
            }
            let rule = json!({"http": {"paths": [path("/front", json!({"number": 8080}))]}});
            create(tenants, b, "front", json!({"ingressClassName": CLASS, "rules": [rule]})).await
        }
        "reroute" => {
            for namespace in NAMESPACES {
                // In one write, so that nothing depends on whether a state between two was seen.
                let annotations = json!({"avapigw.io/timeout": "45s"});
                let patch = json!({"metadata": {"annotations": annotations}, "spec": shop(("/v3", 8082))});
                change(tenants, namespace, "shop", &patch).await?;
            }
            Ok(())
        }
        "withdraw" => {
            // With the one the API server takes away what was made of it, with the other a replica does.
            let api = Api::<Ingress>::namespaced(tenants.client.clone(), a);
            let gone = api.delete("shop", &DeleteParams::default()).await;
            gone.with_context(|| format!("delete Ingress {a}/shop"))?;
            change(tenants, b, "shop", &json!({"spec": {"ingressClassName": "another"}})).await
        }
        _ => Ok(()),
    }
}

/// An error when replicas have not yet made of all Ingresses what they are to become,
/// `objects` being all routes and backends, or have not said so.
pub async fn settled(tenants: &Tenants, phase: &str, objects: &[RawObject]) -> Result<(), String> {
    as_made(phase, objects)?;
    for (name, ingress) in all(tenants).await.map_err(|error| format!("{error:#}"))? {
        let told = &ingress["status"]["loadBalancer"]["ingress"];
        if ingress["spec"]["ingressClassName"] == CLASS && *told != json!([{"ip": ADDRESS}]) {
            return Err(format!("{name} says that it is reached at {told}"));
        }
    }
    Ok(())
}

/// An error when something else was made of Ingresses than this phase ends with.
fn as_made(phase: &str, objects: &[RawObject]) -> Result<(), String> {
    let wanted = made(phase);
    let mut found = 0;
    for Made { namespace, ingress, routes, backends, timeout } in &wanted {
        let prefix = format!("ingress-{namespace}-{ingress}");
        let of_it = |object: &&RawObject| {
            *object.key.namespace == **namespace && object.key.name.starts_with(&prefix)
        };
        let (ways, ends): (Vec<_>, Vec<_>) =
            objects.iter().filter(of_it).partition(|object| object.kind.is_route());
        let behind = ways.iter().find(|route| {
            let spec: Value = serde_json::from_slice(&route.spec).unwrap_or_default();
            spec["timeout"] != *timeout
        });
        if (ways.len(), ends.len()) != (*routes, *backends) || behind.is_some() {
            let (ways, ends) = (ways.len(), ends.len());
            let words = format!("Ingress {namespace}/{ingress} became {ways} routes and {ends} backends");
            return Err(format!("{words}; to be {routes} and {backends} with the timeout {timeout}"));
        }
        found += routes + backends;
    }
    let all = objects.iter().filter(|object| object.key.name.starts_with("ingress-")).count();
    if all == found { Ok(()) } else { Err(format!("{} objects of Ingresses are too many", all - found)) }
}

/// All Ingresses, by kind and key: what they ask for, and their statuses.
///
/// # Errors
/// When the API server does not tell.
pub async fn all(tenants: &Tenants) -> anyhow::Result<BTreeMap<String, Value>> {
    let api = Api::<Ingress>::all(tenants.client.clone());
    let list = api.list(&ListParams::default()).await.context("list Ingresses")?;
    let told = |ingress: Ingress| {
        let metadata = &ingress.metadata;
        let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
        let key = format!("Ingress {}/{}", namespace.unwrap_or_default(), name.unwrap_or_default());
        (key, json!({"spec": ingress.spec, "status": ingress.status}))
    };
    Ok(list.items.into_iter().map(told).collect())
}

async fn create(tenants: &Tenants, namespace: &str, name: &str, spec: Value) -> anyhow::Result<()> {
    let annotations = json!({"avapigw.io/timeout": "30s"});
    let metadata = json!({"name": name, "annotations": annotations});
    let ingress: Ingress = serde_json::from_value(json!({"metadata": metadata, "spec": spec}))?;
    let api = Api::<Ingress>::namespaced(tenants.client.clone(), namespace);
    let made = api.create(&PostParams::default(), &ingress).await;
    made.map(drop).with_context(|| format!("create Ingress {namespace}/{name}"))
}

async fn change(tenants: &Tenants, namespace: &str, name: &str, patch: &Value) -> anyhow::Result<()> {
    let api = Api::<Ingress>::namespaced(tenants.client.clone(), namespace);
    let made = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
    made.map(drop).with_context(|| format!("change Ingress {namespace}/{name}"))
}

/// The spec of an Ingress with two paths, of which this is one, and a default backend.
fn shop((first, port): (&str, u16)) -> Value {
    let named = json!({"name": "http"});
    let paths = [path(first, json!({ "number": port })), path("/v2", named.clone())];
    json!({
        "ingressClassName": CLASS,
        "rules": [{"host": "shop.example.com", "http": {"paths": paths}}],
        "defaultBackend": {"service": {"name": "web", "port": named}},
    })
}

fn path(text: &str, port: Value) -> Value {
    json!({"path": text, "pathType": "Prefix", "backend": {"service": {"name": "web", "port": port}}})
}
