//! The servers that every test here runs against.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use flotilla_apiserver::{ApiServer, Identity, Options};
use flotilla_core::ids::Kind;
use flotilla_testing::real_kube::RealKube;
use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// Defines one test per kind of server: `NAME::embedded` and `NAME::real`.
macro_rules! on_every_server {
    ($name:ident) => {
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                super::$name(crate::server::Server::embedded().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn real() {
                let Some(server) = crate::server::Server::real().await else { return };
                super::$name(server).await;
            }
        }
    };
}
pub(crate) use on_every_server;

/// A server with our definitions, seen by an administrator and by a user who
/// may do nothing.
pub struct Server {
    pub client: Client,
    pub limited: Client,
    /// Keeps an embedded server alive; its fault seam is here.
    pub embedded: Option<ApiServer>,
}

impl Server {
    /// An embedded one, for this test alone.
    pub async fn embedded() -> Server {
        let tokens = vec![
            ("admin".to_owned(), Identity::admin("admin")),
            ("limited".to_owned(), Identity::new("limited", ["nobody"])),
        ];
        let api = ApiServer::start(Options { tokens, ..Options::default() }).await.unwrap();
        let client = |token: &str| {
            let mut config = kube::Config::new(api.url().parse().unwrap());
            config.auth_info.token = Some(token.to_owned().into());
            Client::try_from(config).unwrap()
        };
        let server = Server { client: client("admin"), limited: client("limited"), embedded: Some(api) };
        server.install().await;
        server
    }

    /// The real one, shared by all tests of the process; `None` where it has
    /// not been built.
    pub async fn real() -> Option<Server> {
        let kube = RealKube::shared().await.unwrap()?;
        let server = Server {
            client: kube.client().await.unwrap(),
            limited: kube.limited_client().await.unwrap(),
            embedded: None,
        };
        server.install().await;
        Some(server)
    }

    async fn install(&self) {
        let definitions = flotilla_api::crd::crds();
        flotilla_k8s::crd::install(&self.client, &definitions, Duration::from_secs(60)).await.unwrap();
    }

    /// A namespace that no other test uses.
    pub async fn namespace(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let namespace = Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        name
    }

    fn api(&self, namespace: &str, kind: Kind) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    pub async fn create(&self, namespace: &str, kind: Kind, name: &str, spec: Value) {
        let object = json!({
            "apiVersion": "avapigw.io/v1alpha1",
            "kind": kind.name(),
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        });
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.api(namespace, kind).create(&PostParams::default(), &object).await.unwrap();
    }

    pub async fn edit(&self, namespace: &str, kind: Kind, name: &str, patch: Value) {
        self.api(namespace, kind).patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub async fn delete(&self, namespace: &str, kind: Kind, name: &str) {
        let _ = self.api(namespace, kind).delete(name, &DeleteParams::default()).await.unwrap();
    }
}
