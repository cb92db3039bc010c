//! Ingress → the routes and backends that gateways get of it (A-80 … ). Pure.
//!
//! Every rule and path becomes one route, every Service and port one backend. The
//! mapping and the annotations are those of the published operator, with what it falls
//! short of put right: a value that cannot be read is an error and never a zero, a port's
//! name is looked up in the Service, a route leads to the backend that was made for it,
//! and the Service's address carries its namespace.
//!
//! What an Ingress becomes are objects of their kinds, with the Ingress as their owner:
//! they are delivered, judged, and told about in statuses as all others, and go with the
//! Ingress. The owner of the namespace writes them. `plan` says what there is to do,
//! from what `World` has been shown.

mod annotations;
mod class;
mod convert;
mod hosts;
mod plan;
mod values;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::ingress::IngressSpec;
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;

pub use class::Class;
pub use convert::{convert, ingress_of};
pub use plan::{Child, Step, covers};
pub use world::{MayAct, Next, Seen, SeenIngress, Told, Work, World};

/// An Ingress, as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
    /// `spec`
    pub spec: IngressSpec,
}

impl Ingress {
    /// Whether both become the same: everything else about them is somebody else's
    /// business, as what the published operator writes into annotations.
    pub fn is_like(&self, other: &Ingress) -> bool {
        let ours = |ingress: &Ingress| -> BTreeMap<String, String> {
            let says = |(name, _): &(&String, &String)| {
                annotations::is_ours(name) || *name == flotilla_api::ingress::CLASS_ANNOTATION
            };
            ingress
                .annotations
                .iter()
                .filter(says)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        self.key == other.key && self.spec == other.spec && ours(self) == ours(other)
    }
}

/// Why an Ingress becomes nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{field}{}: {problem}; {remedy}", self.quoted())]
pub struct Fault {
    /// Path of the field, for example `metadata.annotations[avapigw.io/timeout]`.
    pub field: String,
    /// What stands there, when it is short and its text matters.
    pub value: Option<String>,
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

/// Characters of a value that an error repeats.
const QUOTED: usize = 80;

impl Fault {
    fn new(field: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Fault { field: field.into(), value: None, problem: problem.into(), remedy: remedy.into() }
    }

    fn of_annotation(name: &str, value: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        let value = Some(value.chars().take(QUOTED).collect());
        Fault { value, ..Fault::new(annotations::field(name), problem, remedy) }
    }

    fn quoted(&self) -> String {
        self.value.as_ref().map(|value| format!(" is {value:?}")).unwrap_or_default()
    }
}

/// Everything that is wrong with an Ingress.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Ingress {ingress}: {}", self.told())]
pub struct Faults {
    /// The Ingress.
    pub ingress: ObjectKey,
    /// At least one, each once.
    pub faults: BTreeSet<Fault>,
}

impl Faults {
    fn told(&self) -> String {
        self.faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("; ")
    }
}

/// The field of the annotation from which a field of what an Ingress becomes comes.
pub(crate) fn origin_of(ingress: &Ingress, kind: Kind, field: &str) -> Option<String> {
    let given = annotations::given(&ingress.annotations);
    let part = if kind.is_route() { annotations::Part::Route } else { annotations::Part::Backend };
    let grpc = matches!(kind, Kind::GrpcRoute | Kind::GrpcBackend);
    annotations::origin(&given, grpc, part, field).map(annotations::field)
}

/// What an Ingress becomes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Converted {
    /// Routes and backends in the order of kind and name, each name of a kind once.
    pub resources: Vec<Produced>,
    /// What its author should know all the same.
    pub warnings: Vec<String>,
    /// Ports that no Service is known to have: the routes to them are left out.
    pub unresolved: Vec<Unresolved>,
}

/// One route or backend of an Ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// Its kind.
    pub kind: Kind,
    /// Namespace of the Ingress, and the name.
    pub key: ObjectKey,
    /// The spec as an object of that kind would have it, as JSON.
    pub spec: Bytes,
    /// What of the Ingress it comes from, for example `spec.rules[0].http.paths[1]`.
    pub field: String,
}

impl Produced {
    /// It as an object that was created at a time.
    pub fn object(&self, created: &Arc<str>) -> RawObject {
        RawObject {
            kind: self.kind,
            key: self.key.clone(),
            uid: Arc::default(),
            revision: Revision(0),
            generation: 0,
            created: created.clone(),
            deleting: false,
            held: false,
            spec: self.spec.clone(),
            status: Bytes::new(),
        }
    }
}

/// A port that no Service is known to have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unresolved {
    /// Where the Ingress names it.
    pub field: String,
    /// The Service in the namespace of the Ingress.
    pub service: String,
    /// The name of the port.
    pub port: String,
}

#[cfg(test)]
mod tests;
