//! Short ways to write resources and updates, for values and for the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::ids::Kind;
use flotilla_core::time::Mono;
use flotilla_gateway::resource::{Incoming, ResourcePool};
use flotilla_gateway::state::{Applied, Change, Outcome, Snapshot, State, Update};
use flotilla_proto::operator as proto;

/// A resource with this spec; its uid is made from kind and key.
pub fn resource(kind: Kind, key: &str, generation: i64, spec: &str) -> Incoming {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    Incoming {
        kind: Some(kind),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("{kind}-{key}"),
        generation,
        resource_version: generation.to_string(),
        spec_json: Bytes::copy_from_slice(spec.as_bytes()),
    }
}

/// A good APIRoute whose name is its key.
pub fn route(key: &str, generation: i64) -> Incoming {
    let spec = format!(r#"{{"name":"{key}","match":[{{"uri":{{"exact":"/{key}"}}}}],"g":{generation}}}"#);
    resource(Kind::ApiRoute, key, generation, &spec)
}

/// A good Backend whose name is its key.
pub fn backend(key: &str, generation: i64) -> Incoming {
    let spec =
        format!(r#"{{"name":"{key}","hosts":[{{"address":"127.0.0.1","port":{}}}]}}"#, 8000 + generation);
    resource(Kind::Backend, key, generation, &spec)
}

/// An entry that only counts.
pub fn padding(key: &str) -> Incoming {
    resource(Kind::ApiRoute, key, 0, "")
}

/// A state with a clock in seconds, and sequences that count up by themselves.
pub struct Tester {
    pub state: State,
    pub now: u64,
    pub sequence: i64,
}

impl Tester {
    /// A gateway that has just started and not registered.
    pub fn new() -> Self {
        Tester { state: State::new(Arc::new(ResourcePool::default())), now: 0, sequence: 0 }
    }

    /// A gateway that holds this, registered long ago.
    pub fn holding(resources: Vec<Incoming>) -> Self {
        let mut tester = Tester::new();
        tester.register();
        assert_eq!(tester.full_sync(resources).outcome, Outcome::Ack);
        tester.now += 1000;
        tester
    }

    pub fn mono(&self) -> Mono {
        Mono::from_origin(Duration::from_secs(self.now))
    }

    pub fn register(&mut self) {
        let now = self.mono();
        self.state.registered(now);
    }

    /// Applies a change with the next sequence; the version is `v<sequence>`.
    pub fn apply(&mut self, change: Change) -> Applied {
        self.sequence += 1;
        self.apply_as(self.sequence, &format!("v{}", self.sequence), change)
    }

    pub fn apply_as(&mut self, sequence: i64, version: &str, change: Change) -> Applied {
        let now = self.mono();
        self.state.apply(Update { version: version.to_owned(), sequence, change }, now)
    }

    pub fn upsert(&mut self, resource: Incoming) -> Outcome {
        self.apply(Change::Upsert(resource)).outcome
    }

    pub fn delete(&mut self, resource: Incoming) -> Outcome {
        self.apply(Change::Delete(resource)).outcome
    }

    pub fn full_sync(&mut self, resources: Vec<Incoming>) -> Applied {
        self.apply(Change::FullSync(Some(Snapshot { resources })))
    }

    pub fn held(&self) -> Vec<String> {
        self.state.held().map(|resource| resource.key.to_string()).collect()
    }

    pub fn loaded(&self, kind: Kind) -> Vec<String> {
        let mut keys: Vec<String> =
            self.state.loaded(kind).map(|resource| resource.key.to_string()).collect();
        keys.sort();
        keys
    }

    pub fn position(&self) -> (String, i64) {
        (self.state.version().to_string(), self.state.sequence())
    }
}

/// A resource as a message.
pub fn message(resource: &Incoming) -> proto::ConfigurationResource {
    let kind = match resource.kind {
        Some(Kind::ApiRoute) => proto::ResourceType::ApiRoute,
        Some(Kind::GrpcRoute) => proto::ResourceType::GrpcRoute,
        Some(Kind::Backend) => proto::ResourceType::Backend,
        Some(Kind::GrpcBackend) => proto::ResourceType::GrpcBackend,
        None => proto::ResourceType::GraphqlRoute,
    };
    proto::ConfigurationResource {
        r#type: kind.into(),
        name: resource.name.clone(),
        namespace: resource.namespace.clone(),
        resource_version: resource.resource_version.clone(),
        generation: resource.generation,
        uid: resource.uid.clone(),
        spec_json: resource.spec_json.clone(),
        ..proto::ConfigurationResource::default()
    }
}

/// An increment as a message.
pub fn increment(
    kind: proto::UpdateType,
    sequence: i64,
    version: &str,
    resource: &Incoming,
) -> proto::ConfigurationUpdate {
    proto::ConfigurationUpdate {
        r#type: kind.into(),
        version: version.to_owned(),
        sequence,
        resource: Some(message(resource)),
        is_last_in_batch: true,
        ..proto::ConfigurationUpdate::default()
    }
}

/// A full synchronisation as a message.
pub fn snapshot(sequence: i64, version: &str, resources: &[Incoming]) -> proto::ConfigurationUpdate {
    let of = |kind: Kind| resources.iter().filter(|r| r.kind == Some(kind)).map(message).collect();
    proto::ConfigurationUpdate {
        r#type: proto::UpdateType::FullSync.into(),
        version: version.to_owned(),
        sequence,
        snapshot: Some(proto::ConfigurationSnapshot {
            version: version.to_owned(),
            api_routes: of(Kind::ApiRoute),
            grpc_routes: of(Kind::GrpcRoute),
            backends: of(Kind::Backend),
            grpc_backends: of(Kind::GrpcBackend),
            total_resources: resources.len() as i32,
            ..proto::ConfigurationSnapshot::default()
        }),
        is_last_in_batch: true,
        ..proto::ConfigurationUpdate::default()
    }
}
