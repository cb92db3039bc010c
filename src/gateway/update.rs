//! Messages of the stream protocol → the updates that the state understands.

use flotilla_core::ids::Kind;
use flotilla_proto::operator as proto;

use crate::resource::Incoming;
use crate::state::{Change, Snapshot, Update};

impl From<proto::ConfigurationUpdate> for Update {
    fn from(message: proto::ConfigurationUpdate) -> Self {
        let change = match (message.r#type(), message.resource, message.snapshot) {
            (proto::UpdateType::Added | proto::UpdateType::Modified, Some(resource), _) => {
                Change::Upsert(resource.into())
            }
            (proto::UpdateType::Deleted, Some(resource), _) => Change::Delete(resource.into()),
            (proto::UpdateType::FullSync, _, snapshot) => Change::FullSync(snapshot.map(Snapshot::from)),
            _ => Change::Nothing,
        };
        Update { version: message.version, sequence: message.sequence, change }
    }
}

impl From<proto::ConfigurationSnapshot> for Snapshot {
    fn from(message: proto::ConfigurationSnapshot) -> Self {
        let mut resources = Vec::new();
        // The list decides the kind, whatever the entry's own type says.
        let lists = [
            (Some(Kind::ApiRoute), message.api_routes),
            (Some(Kind::Backend), message.backends),
            (Some(Kind::GrpcRoute), message.grpc_routes),
            (Some(Kind::GrpcBackend), message.grpc_backends),
            (None, message.graphql_routes),
            (None, message.graphql_backends),
        ];
        for (kind, list) in lists {
            resources.extend(list.into_iter().map(|resource| Incoming { kind, ..resource.into() }));
        }
        Snapshot { resources }
    }
}

impl From<proto::ConfigurationResource> for Incoming {
    fn from(message: proto::ConfigurationResource) -> Self {
        let kind = match message.r#type() {
            proto::ResourceType::ApiRoute => Some(Kind::ApiRoute),
            proto::ResourceType::GrpcRoute => Some(Kind::GrpcRoute),
            proto::ResourceType::Backend => Some(Kind::Backend),
            proto::ResourceType::GrpcBackend => Some(Kind::GrpcBackend),
            proto::ResourceType::Unspecified
            | proto::ResourceType::GraphqlRoute
            | proto::ResourceType::GraphqlBackend => None,
        };
        Incoming {
            kind,
            namespace: message.namespace,
            name: message.name,
            uid: message.uid,
            generation: message.generation,
            resource_version: message.resource_version,
            spec_json: message.spec_json,
        }
    }
}
