//! The tenants' hands: they create, change and delete objects, and read what
//! the statuses say.

use flotilla_core::ids::Kind;
use flotilla_core::object::RawObject;
use flotilla_k8s::watch::list_once;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::{Value, json};

/// How many requests the tenants send at once.
const AT_ONCE: usize = 8;

/// Their hands.
#[derive(Clone)]
pub struct Tenants {
    /// Of an administrator.
    pub client: Client,
}

impl Tenants {
    /// Objects of a kind in a namespace.
    pub fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// Creates namespaces that are not there yet.
    pub async fn namespaces(&self, names: impl IntoIterator<Item = String>) {
        let api = Api::<Namespace>::all(self.client.clone());
        let create = |name: String| {
            let api = api.clone();
            async move {
                let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
                let namespace = Namespace { metadata, ..Namespace::default() };
                match api.create(&PostParams::default(), &namespace).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                    other => other.map(drop),
                }
            }
        };
        let made: Result<Vec<()>, _> =
            stream::iter(names.into_iter().map(create)).buffer_unordered(AT_ONCE).try_collect().await;
        made.unwrap();
    }

    /// Creates these namespaces, each with a Backend `api` and two routes to it, `one` and
    /// `two`.
    pub async fn furnish(&self, namespaces: impl Iterator<Item = String> + Clone) {
        self.namespaces(namespaces.clone()).await;
        let backends = namespaces.clone().map(|namespace| (namespace, "api".to_owned(), backend(8080)));
        self.create_all(Kind::Backend, backends).await;
        for name in ["one", "two"] {
            let route =
                |namespace: String| (namespace.clone(), name.to_owned(), leading(&namespace, name, "api"));
            self.create_all(Kind::ApiRoute, namespaces.clone().map(route)).await;
        }
    }

    /// Creates one object; returns its generation.
    pub async fn create(&self, kind: Kind, namespace: &str, name: &str, spec: Value) -> i64 {
        self.try_create(kind, namespace, name, spec)
            .await
            .unwrap_or_else(|error| panic!("create {kind} {namespace}/{name}: {error}"))
    }

    async fn try_create(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        spec: Value,
    ) -> Result<i64, kube::Error> {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "avapigw.io/v1alpha1",
            "kind": kind.name(),
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }))
        .unwrap();
        let made = self.api(kind, namespace).create(&PostParams::default(), &object).await?;
        Ok(made.metadata.generation.unwrap_or_default())
    }

    /// Creates many objects: namespace, name, spec.
    pub async fn create_all(&self, kind: Kind, objects: impl IntoIterator<Item = (String, String, Value)>) {
        let create = |(namespace, name, spec): (String, String, Value)| async move {
            self.create(kind, &namespace, &name, spec).await
        };
        stream::iter(objects.into_iter().map(create)).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
    }

    /// Changes an object's spec by a merge patch; returns its generation.
    pub async fn change(&self, kind: Kind, namespace: &str, name: &str, spec: Value) -> i64 {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let made = self.api(kind, namespace).patch(name, &PatchParams::default(), &patch).await;
        let made = made.unwrap_or_else(|error| panic!("change {kind} {namespace}/{name}: {error}"));
        made.metadata.generation.unwrap_or_default()
    }

    /// Deletes an object.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let deleted = self.api(kind, namespace).delete(name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("delete {kind} {namespace}/{name}: {error}"));
    }

    /// An object's status as far as the scenarios look at it.
    pub async fn status(&self, kind: Kind, namespace: &str, name: &str) -> Result<Ready, String> {
        let object = self.api(kind, namespace).get(name).await.map_err(|error| error.to_string())?;
        let generation = object.metadata.generation.unwrap_or_default();
        Ok(Ready::of(generation, &object.data["status"]))
    }

    /// Everything there is, read without any replica.
    pub async fn all(&self) -> Result<Vec<RawObject>, String> {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            let listed = list_once(self.client.clone(), kind).await.map_err(|error| error.to_string())?;
            all.extend(listed.1);
        }
        Ok(all)
    }
}

/// What an object's status says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The object's generation.
    pub generation: i64,
    /// The generation that the status is about; 0 when there is none.
    pub observed: i64,
    /// `status` of the condition `Ready`; empty when there is none.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

impl Ready {
    /// Reads a status.
    pub fn of(generation: i64, status: &Value) -> Ready {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Status {
            observed_generation: i64,
            conditions: Vec<Condition>,
        }
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Condition {
            r#type: String,
            status: String,
            reason: String,
            message: String,
        }
        let status = Status::deserialize(status).unwrap_or_default();
        let ready = status.conditions.into_iter().find(|one| one.r#type == "Ready").unwrap_or_default();
        Ready {
            generation,
            observed: status.observed_generation,
            status: ready.status,
            reason: ready.reason,
            message: ready.message,
        }
    }

    /// Whether it is about the object as it is.
    pub fn is_current(&self) -> bool {
        self.observed == self.generation
    }

    /// Whether it says that exactly so many gateways have the object.
    pub fn applied_to(&self, gateways: usize) -> bool {
        let plural = if gateways == 1 { "" } else { "s" };
        let words = format!("successfully applied to {gateways} gateway{plural}");
        self.is_current() && self.status == "True" && self.message.ends_with(&words)
    }
}

/// The spec of a route that answers by itself at `/namespace/name`.
pub fn answering(namespace: &str, name: &str, body: &str) -> Value {
    json!({
        "match": [{"uri": {"prefix": format!("/{namespace}/{name}")}, "methods": ["GET"]}],
        "directResponse": {"status": 200, "body": body},
        "timeout": "30s",
    })
}

/// The spec of a route that leads to a Backend of its namespace.
pub fn leading(namespace: &str, name: &str, backend: &str) -> Value {
    json!({
        "match": [{"uri": {"prefix": format!("/{namespace}/{name}")}}],
        "route": [{"destination": {"host": backend, "port": 8080}}],
        "timeout": "30s",
    })
}

/// The spec of a Backend.
pub fn backend(port: u16) -> Value {
    json!({"hosts": [{"address": "127.0.0.1", "port": port}]})
}
