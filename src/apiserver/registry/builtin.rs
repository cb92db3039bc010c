//! The built-in resources, as one table.

use serde_json::{Value, json};

use super::{Resource, Version};
use crate::store::{DEFINITIONS, NAMESPACES};

/// The built-in resources that have rules of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// v1 Namespace.
    Namespace,
    /// v1 ConfigMap.
    ConfigMap,
    /// v1 Secret.
    Secret,
    /// v1 Service.
    Service,
    /// v1 and events.k8s.io/v1 Event, which are kept in the form of v1.
    Event,
    /// coordination.k8s.io/v1 Lease.
    Lease,
    /// networking.k8s.io/v1 Ingress.
    Ingress,
    /// networking.k8s.io/v1 IngressClass.
    IngressClass,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// apiextensions.k8s.io/v1 CustomResourceDefinition.
    Definition,
}

struct Row {
    builtin: Builtin,
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    status: bool,
    generation: bool,
    needs_revision: bool,
    id: &'static str,
    selectable: &'static [&'static str],
    categories: &'static [&'static str],
}

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];
const REGARDING_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

const PLAIN: Row = Row {
    builtin: Builtin::ConfigMap,
    group: "",
    plural: "configmaps",
    singular: "configmap",
    kind: "ConfigMap",
    short: &["cm"],
    namespaced: true,
    status: false,
    generation: false,
    needs_revision: false,
    id: "configmaps",
    selectable: &[],
    categories: &[],
};

const ROWS: &[Row] = &[
    Row {
        builtin: Builtin::Namespace,
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        short: &["ns"],
        namespaced: false,
        status: true,
        id: NAMESPACES,
        selectable: &["status.phase"],
        ..PLAIN
    },
    PLAIN,
    Row {
        builtin: Builtin::Secret,
        plural: "secrets",
        singular: "secret",
        kind: "Secret",
        short: &[],
        id: "secrets",
        selectable: &["type"],
        ..PLAIN
    },
    Row {
        builtin: Builtin::Service,
        plural: "services",
        singular: "service",
        kind: "Service",
        short: &["svc"],
        status: true,
        id: "services",
        selectable: &["spec.clusterIP", "spec.type"],
        categories: &["all"],
        ..PLAIN
    },
    Row {
        builtin: Builtin::Event,
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        id: "events",
        selectable: EVENT_FIELDS,
        ..PLAIN
    },
    Row {
        builtin: Builtin::Event,
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short: &["ev"],
        id: "events",
        selectable: REGARDING_FIELDS,
        ..PLAIN
    },
    Row {
        builtin: Builtin::Lease,
        group: "coordination.k8s.io",
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        short: &[],
        needs_revision: true,
        id: "leases.coordination.k8s.io",
        ..PLAIN
    },
    Row {
        builtin: Builtin::Ingress,
        group: "networking.k8s.io",
        plural: "ingresses",
        singular: "ingress",
        kind: "Ingress",
        short: &["ing"],
        status: true,
        generation: true,
        id: "ingresses.networking.k8s.io",
        ..PLAIN
    },
    Row {
        builtin: Builtin::IngressClass,
        group: "networking.k8s.io",
        plural: "ingressclasses",
        singular: "ingressclass",
        kind: "IngressClass",
        short: &[],
        namespaced: false,
        generation: true,
        id: "ingressclasses.networking.k8s.io",
        ..PLAIN
    },
    Row {
        builtin: Builtin::EndpointSlice,
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        short: &[],
        generation: true,
        id: "endpointslices.discovery.k8s.io",
        ..PLAIN
    },
    Row {
        builtin: Builtin::Definition,
        group: "apiextensions.k8s.io",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        kind: "CustomResourceDefinition",
        short: &["crd", "crds"],
        namespaced: false,
        status: true,
        generation: true,
        needs_revision: true,
        id: DEFINITIONS,
        categories: &["api-extensions"],
        ..PLAIN
    },
];

/// The built-in resources.
pub(super) fn resources() -> Vec<Resource> {
    let strings = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    ROWS.iter()
        .map(|row| Resource {
            id: row.id.into(),
            group: row.group.to_owned(),
            plural: row.plural.to_owned(),
            singular: row.singular.to_owned(),
            kind: row.kind.to_owned(),
            list_kind: format!("{}List", row.kind),
            short_names: strings(row.short),
            categories: strings(row.categories),
            namespaced: row.namespaced,
            generation: row.generation,
            needs_revision: row.needs_revision,
            create_on_update: matches!(row.builtin, Builtin::Lease | Builtin::Event | Builtin::Service),
            versions: vec![Version {
                name: "v1".to_owned(),
                served: true,
                status: row.status,
                schema: None,
                openapi: Value::Null,
                columns: Vec::new(),
                selectable: strings(row.selectable),
                deprecation: None,
            }],
            storage: 0,
            builtin: Some(row.builtin),
        })
        .collect()
}

/// The namespaces that are there from the start.
pub const INITIAL_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// A new namespace as a client would send it.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}
