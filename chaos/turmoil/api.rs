//! The API server's host: the embedded server's requests over turmoil's TCP, and
//! what users do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flotilla_apiserver::{ApiServer, Identity, LocalService, Options};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use turmoil::net::{TcpListener, TcpStream};

use crate::pki::NAMESPACE;

/// Its port; its name is `api`.
const PORT: u16 = 6443;
pub const AUTHORITY: &str = "api:6443";
/// The user as which all replicas come, for faults that are meant for them.
pub const REPLICA: &str = "replica";

/// What a user does.
#[derive(Debug, Clone)]
pub enum Edit {
    /// Writes a route whose content says `number`.
    Route { namespace: String, name: String, number: u32 },
    /// Writes a backend whose port says `number`.
    Backend { namespace: String, number: u16 },
    /// Pins a namespace to a member.
    Pin { namespace: String, member: String },
}

/// Edits that wait to be made, oldest first, and the server once it is set up.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    edits: VecDeque<Edit>,
    server: Option<Arc<ApiServer>>,
}

impl Desk {
    pub fn ask(&self, edit: Edit) {
        self.waiting().edits.push_back(edit);
    }

    pub fn server(&self) -> Option<Arc<ApiServer>> {
        self.waiting().server.clone()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Edit> {
        self.waiting().edits.pop_front()
    }
}

/// Serves until the host ends.
pub async fn run(desk: Desk, namespaces: Vec<String>) -> turmoil::Result {
    let options = Options { bookmark_interval: Duration::from_millis(500), ..Options::default() };
    // It listens on a real port besides, where nobody comes.
    let server = Arc::new(ApiServer::start(options).await?);
    let admin = || server.service(Identity::admin("admin"));
    let client = Client::new(admin(), "default");
    flotilla_k8s::crd::install(&client, &flotilla_api::crd::crds(), Duration::from_secs(60)).await?;
    for name in namespaces.iter().map(String::as_str).chain([NAMESPACE]) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        write(&client, "", "v1", "Namespace", "namespaces", None, namespace).await?;
    }
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    desk.waiting().server = Some(server.clone());
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tokio::spawn(serve(stream, server.service(Identity::admin(REPLICA))));
            }
            _ = ticks.tick() => while let Some(edit) = desk.next() {
                perform(&client, edit).await?;
            },
        }
    }
}

async fn serve(stream: TcpStream, service: LocalService) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    // A connection that the network lost is nobody's mistake here.
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}

async fn perform(client: &Client, edit: Edit) -> anyhow::Result<()> {
    match edit {
        Edit::Route { namespace, name, number } => {
            let object = json!({
                "apiVersion": "avapigw.io/v1alpha1",
                "kind": "APIRoute",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "match": [{"uri": {"prefix": format!("/{number}")}}],
                    "route": [{"destination": {"host": "localhost", "port": 8080}}],
                },
            });
            write(client, "avapigw.io", "v1alpha1", "APIRoute", "apiroutes", Some(&namespace), object).await
        }
        Edit::Backend { namespace, number } => {
            let object = json!({
                "apiVersion": "avapigw.io/v1alpha1",
                "kind": "Backend",
                "metadata": {"name": "api", "namespace": namespace},
                "spec": {"hosts": [{"address": "10.0.0.1", "port": number}]},
            });
            write(client, "avapigw.io", "v1alpha1", "Backend", "backends", Some(&namespace), object).await
        }
        Edit::Pin { namespace, member } => {
            let object = json!({
                "apiVersion": "fleet.flotilla.dev/v1alpha1",
                "kind": "ShardMap",
                "metadata": {"name": flotilla_api::fleet::SHARD_MAP_NAME},
                "spec": {"pins": {namespace: member}},
            });
            write(client, "fleet.flotilla.dev", "v1alpha1", "ShardMap", "shardmaps", None, object).await
        }
    }
}

async fn write(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
    object: Value,
) -> anyhow::Result<()> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if api.get_opt(&name).await?.is_some() {
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&object)).await?;
    } else {
        api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    Ok(())
}
