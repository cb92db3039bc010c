//! The demo's tenants: what they have at the start, and what they change.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Routes per namespace at the start, besides the one that is created and
/// deleted again.
pub const ROUTES: u32 = 3;

/// What a tenant did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Created or changed an object, which now has this generation.
    Wrote {
        /// `metadata.generation` after the write.
        generation: i64,
    },
    /// Deleted an object.
    Deleted,
}

/// One change as it was made.
#[derive(Debug, Clone)]
pub struct Change {
    /// `APIRoute`, `Backend` …
    pub kind: &'static str,
    /// Namespace and name as `ns/name`.
    pub key: String,
    /// What was done.
    pub deed: Deed,
}

/// The tenants' hands.
#[derive(Clone)]
pub struct Tenants {
    client: Client,
    namespaces: Vec<String>,
}

fn resource(kind: &'static str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("avapigw.io", "v1alpha1", kind), plural)
}

impl Tenants {
    /// Tenants with these namespaces.
    pub fn new(client: Client, namespaces: Vec<String>) -> Self {
        Tenants { client, namespaces }
    }

    fn api(&self, namespace: &str, kind: &'static str) -> Api<DynamicObject> {
        let plural = match kind {
            "APIRoute" => "apiroutes",
            "GRPCRoute" => "grpcroutes",
            "Backend" => "backends",
            _ => "grpcbackends",
        };
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind, plural))
    }

    async fn create(
        &self,
        namespace: &str,
        kind: &'static str,
        name: &str,
        spec: Value,
    ) -> Result<Change, kube::Error> {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "avapigw.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "flotilla-demo"}},
            "spec": spec,
        }))
        .map_err(kube::Error::SerdeError)?;
        let made = self.api(namespace, kind).create(&PostParams::default(), &object).await?;
        Ok(change(kind, namespace, name, &made))
    }

    /// Gives one namespace its first resources; returns how many.
    pub async fn furnish(&self, index: usize) -> Result<usize, kube::Error> {
        let namespace = &self.namespaces[index];
        let made = [
            self.create(namespace, "Backend", "api", backend(8080)).await?,
            self.create(
                namespace,
                "GRPCBackend",
                "orders",
                json!({"hosts": [{"address": "127.0.0.1", "port": 9000}]}),
            )
            .await?,
            self.create(namespace, "GRPCRoute", "orders", grpc_route(namespace)).await?,
        ];
        for number in 0..ROUTES {
            self.create(namespace, "APIRoute", &format!("route-{number}"), route(namespace, number, 30))
                .await?;
        }
        Ok(made.len() + ROUTES as usize)
    }

    /// Makes the `n`-th change: mostly edits of a route, now and then an edit
    /// of a backend, or a route that comes or goes.
    pub async fn change(&self, n: u64) -> Result<Change, kube::Error> {
        let index = usize::try_from(n * 7 % self.namespaces.len() as u64).unwrap_or_default();
        let namespace = &self.namespaces[index];
        match n % 10 {
            3 => {
                let spec = backend(8081 + u16::try_from(n % 1000).unwrap_or_default());
                self.edit(namespace, "Backend", "api", json!({ "spec": spec })).await
            }
            5 => {
                let name = format!("extra-{n}");
                self.create(namespace, "APIRoute", &name, route(namespace, 100, 5)).await
            }
            6 => self.delete_extra(namespace, n).await,
            _ => {
                let timeout = format!("{}s", 1 + n % 300);
                let name = format!("route-{}", n % u64::from(ROUTES));
                self.edit(namespace, "APIRoute", &name, json!({"spec": {"timeout": timeout}})).await
            }
        }
    }

    /// Deletes a route that an earlier change created, or edits one if there
    /// is none.
    async fn delete_extra(&self, namespace: &str, n: u64) -> Result<Change, kube::Error> {
        for earlier in (n.saturating_sub(400)..n).filter(|earlier| earlier % 10 == 5) {
            let name = format!("extra-{earlier}");
            let index = usize::try_from(earlier * 7 % self.namespaces.len() as u64).unwrap_or_default();
            let home = &self.namespaces[index];
            match self.api(home, "APIRoute").delete(&name, &DeleteParams::default()).await {
                Ok(_) => {
                    return Ok(Change {
                        kind: "APIRoute",
                        key: format!("{home}/{name}"),
                        deed: Deed::Deleted,
                    });
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        self.edit(namespace, "APIRoute", "route-0", json!({"spec": {"timeout": format!("{n}ms")}})).await
    }

    async fn edit(
        &self,
        namespace: &str,
        kind: &'static str,
        name: &str,
        patch: Value,
    ) -> Result<Change, kube::Error> {
        let api = self.api(namespace, kind);
        let made = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(change(kind, namespace, name, &made))
    }
}

fn change(kind: &'static str, namespace: &str, name: &str, object: &DynamicObject) -> Change {
    let generation = object.metadata.generation.unwrap_or_default();
    Change { kind, key: format!("{namespace}/{name}"), deed: Deed::Wrote { generation } }
}

fn backend(port: u16) -> Value {
    json!({
        "hosts": [{"address": "127.0.0.1", "port": port, "weight": 1}],
        "loadBalancer": {"algorithm": "roundRobin"},
        "healthCheck": {"path": "/health", "interval": "10s", "timeout": "5s"},
    })
}

fn grpc_route(namespace: &str) -> Value {
    json!({
        "match": [{"service": {"exact": format!("{namespace}.Orders")}}],
        "route": [{"destination": {"host": "orders", "port": 9000}}],
        "timeout": "10s",
    })
}

/// Route 0 answers by itself, so that `curl` works without a server behind
/// the gateway; the others lead to the namespace's own Backend.
fn route(namespace: &str, number: u32, timeout: u32) -> Value {
    let mut spec = json!({
        "match": [{"uri": {"prefix": format!("/{namespace}/{number}")}, "methods": ["GET", "POST"]}],
        "timeout": format!("{timeout}s"),
    });
    if number == 0 {
        spec["directResponse"] = json!({
            "status": 200,
            "body": format!("hello from {namespace}\n"),
            "headers": {"content-type": "text/plain"},
        });
    } else {
        spec["route"] = json!([{"destination": {"host": "api", "port": 8080}}]);
        spec["retries"] =
            json!({"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx,reset,connect-failure"});
    }
    spec
}
