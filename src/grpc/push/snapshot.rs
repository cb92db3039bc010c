//! A full synchronisation for a gateway that takes one resource a call.
//!
//! The nine calls know no snapshot. But a gateway lists what it holds, with a hash
//! of each spec, so a snapshot becomes what is to be changed: a gateway of which
//! nothing is known, although it holds nearly everything, gets nearly nothing.
//!
//! Where everything does not fit into one message, a snapshot is only the first part,
//! and increments bring the rest. What the gateway holds beyond the first part is
//! then removed no sooner than its version says that all parts have come: until then
//! nobody knows what of it is to stay.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_core::digest::summand;
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_proto::operator::{ConfigurationResource, ConfigurationSnapshot};
use flotilla_proto::push::HeldResource;

use crate::gateway::kind_of;

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub kind: Kind,
    pub resource: ConfigurationResource,
    /// Whether it removes the resource.
    pub delete: bool,
}

impl Step {
    /// Which resource it is about.
    pub fn key(&self) -> (Kind, ObjectKey) {
        (self.kind, ObjectKey::new(&*self.resource.namespace, &*self.resource.name))
    }
}

/// A resource that a gateway holds and a snapshot does not name.
pub(super) type Left = BTreeSet<(Kind, ObjectKey)>;

/// What of a snapshot a gateway that holds `held` is to be given, and what it holds
/// beyond that. No route comes before its backend.
pub(super) fn lacking(held: &[HeldResource], wanted: ConfigurationSnapshot) -> (Vec<Step>, Left) {
    let mut left: BTreeMap<(Kind, ObjectKey), u64> = BTreeMap::new();
    for one in held {
        if let Some(kind) = kind_of(one.r#type()) {
            left.insert((kind, ObjectKey::new(&*one.namespace, &*one.name)), one.content);
        }
    }
    let mut upserts = Vec::new();
    let lists = [
        (Kind::Backend, wanted.backends),
        (Kind::GrpcBackend, wanted.grpc_backends),
        (Kind::ApiRoute, wanted.api_routes),
        (Kind::GrpcRoute, wanted.grpc_routes),
    ];
    for (kind, list) in lists {
        for resource in list {
            // What has no spec only counts, for gateways that take snapshots.
            if resource.spec_json.is_empty() {
                continue;
            }
            let key = ObjectKey::new(&*resource.namespace, &*resource.name);
            let content = summand(kind, &key, &resource.spec_json);
            if left.remove(&(kind, key)) != Some(content) {
                upserts.push(Step { kind, resource, delete: false });
            }
        }
    }
    (upserts, left.into_keys().collect())
}

/// What removes these: routes first, and apart the backends, which are to stay until
/// no route uses them.
pub(super) fn removals(left: &Left) -> (Vec<Step>, Vec<Step>) {
    let deletes = left.iter().map(|(kind, key)| {
        let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
        let resource = ConfigurationResource { namespace, name, ..ConfigurationResource::default() };
        Step { kind: *kind, resource, delete: true }
    });
    deletes.partition(|step| step.kind.is_route())
}

#[cfg(test)]
mod tests {
    use flotilla_proto::operator::ResourceType;

    use super::*;

    fn resource(name: &str, spec: &str) -> ConfigurationResource {
        ConfigurationResource {
            namespace: "team".to_owned(),
            name: name.to_owned(),
            spec_json: spec.to_owned().into(),
            ..ConfigurationResource::default()
        }
    }

    fn held(kind: Kind, wire: ResourceType, name: &str, spec: &str) -> HeldResource {
        HeldResource {
            r#type: wire.into(),
            namespace: "team".to_owned(),
            name: name.to_owned(),
            content: summand(kind, &ObjectKey::new("team", name), spec.as_bytes()),
            ..HeldResource::default()
        }
    }

    fn named(steps: Vec<Step>) -> Vec<String> {
        let name = |step: Step| {
            format!("{} {} {}", if step.delete { "delete" } else { "apply" }, step.kind, step.resource.name)
        };
        steps.into_iter().map(name).collect()
    }

    #[test]
    fn a_snapshot_becomes_what_differs_with_no_route_without_its_backend() {
        let held = [
            held(Kind::ApiRoute, ResourceType::ApiRoute, "same", "{1}"),
            held(Kind::ApiRoute, ResourceType::ApiRoute, "changed", "{1}"),
            held(Kind::ApiRoute, ResourceType::ApiRoute, "gone", "{1}"),
            held(Kind::Backend, ResourceType::Backend, "old", "{1}"),
            // The same name in another kind is another resource.
            held(Kind::GrpcRoute, ResourceType::GrpcRoute, "new", "{1}"),
        ];
        let wanted = ConfigurationSnapshot {
            api_routes: vec![resource("same", "{1}"), resource("changed", "{2}"), resource("new", "{1}")],
            backends: vec![resource("fresh", "{1}"), resource("-", "")],
            ..ConfigurationSnapshot::default()
        };
        let (upserts, left) = lacking(&held, wanted);
        assert_eq!(named(upserts), ["apply Backend fresh", "apply APIRoute changed", "apply APIRoute new"]);
        let (routes, backends) = removals(&left);
        assert_eq!(named(routes), ["delete APIRoute gone", "delete GRPCRoute new"]);
        assert_eq!(named(backends), ["delete Backend old"]);
    }

    #[test]
    fn a_gateway_that_holds_the_snapshot_gets_nothing() {
        let held = [held(Kind::Backend, ResourceType::Backend, "b", "{}")];
        let wanted =
            ConfigurationSnapshot { backends: vec![resource("b", "{}")], ..ConfigurationSnapshot::default() };
        assert_eq!(lacking(&held, wanted), (Vec::new(), Left::new()));
    }
}
