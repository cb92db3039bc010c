//! Services of all namespaces, followed for whoever looks names up among them: one watch
//! for all of these. Kept are names and named ports, whatever else stands in a Service.

use std::collections::BTreeMap;

use flotilla_core::ids::ObjectKey;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use kube::{Client, ResourceExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use crate::mirror::Seen;
use crate::mirror::mirror;

/// What is known of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownService {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Those of its ports that have a name.
    pub ports: BTreeMap<String, u16>,
}

impl KnownService {
    fn of(service: Service) -> KnownService {
        let key = ObjectKey::new(service.namespace().unwrap_or_default(), service.name_any());
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let named = ports.into_iter().filter_map(|port| Some((port.name?, u16::try_from(port.port).ok()?)));
        KnownService { key, ports: named.collect() }
    }
}

/// Follows Services until cancelled. A full channel slows the watch down, and the API
/// server keeps the rest.
pub async fn follow(client: Client, out: mpsc::Sender<Seen<KnownService>>, cancel: CancellationToken) {
    let watching = mirror(Api::all(client), "services", None, &KnownService::of, &|seen| seen, &out);
    tokio::select! {
        biased; // cancellation ends it at once
        () = cancel.cancelled() => {}
        // Nobody takes what is seen any more.
        () = watching => cancel.cancelled().await,
    }
}
