//! How the parts of an object merge: field by field, as a whole, or by key.
//!
//! Custom resources say so in their schemas; the built-in kinds that are served have a small table. What neither
//! knows is deduced as by kube-apiserver: objects merge field by field, lists are one value.

use serde_json::Value;

use crate::registry::Resource;
use crate::schema::{Merging, SchemaNode};

/// How a list merges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// As one value.
    Atomic,
    /// Each item is a value of its own.
    Set,
    /// Items are told apart by these fields.
    Map(Vec<String>),
}

/// The place of a value in its kind.
#[derive(Clone, Debug)]
pub(crate) struct Shape<'a> {
    node: Known<'a>,
    kind: &'a str,
    builtin: bool,
    path: String,
    /// Whether the field was declared: then it is a field of a struct and no entry of a map.
    declared: bool,
}

#[derive(Clone, Copy, Debug)]
enum Known<'a> {
    /// A node of a custom resource's schema.
    Schema(SchemaNode<'a>),
    /// Only the tables below know about it.
    Table,
}

/// Lists of the kinds that are served, by kind and path; an empty kind stands for all.
const LISTS: &[(&str, &str, &[&str])] = &[
    ("", "metadata.ownerReferences", &["uid"]),
    ("Service", "spec.ports", &["port", "protocol"]),
    ("Service", "status.conditions", &["type"]),
    ("Namespace", "status.conditions", &["type"]),
    ("CustomResourceDefinition", "status.conditions", &["type"]),
];
/// Objects that are one value.
const ATOMIC: &[(&str, &str)] = &[
    ("Service", "spec.selector"),
    ("Event", "involvedObject"),
    ("Event", "regarding"),
    ("Event", "related"),
    ("Ingress", "spec.defaultBackend.resource"),
];
/// Objects that are maps: their entries are no declared fields.
const MAPS: &[&str] = &["data", "binaryData", "stringData", "metadata.labels", "metadata.annotations"];

impl<'a> Shape<'a> {
    /// The whole object of a resource in one of its versions.
    pub fn of(resource: &'a Resource, version: usize) -> Self {
        let schema = resource.versions[version].schema.as_ref();
        Shape {
            node: schema.map_or(Known::Table, |schema| Known::Schema(schema.node())),
            kind: &resource.kind,
            builtin: resource.builtin.is_some(),
            path: String::new(),
            declared: true,
        }
    }

    /// The shape of a field.
    pub fn field(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let table = self.path == "metadata" || path == "metadata" || self.path.starts_with("metadata.");
        let (node, declared) = match self.node {
            Known::Schema(node) if !table => match node.field(name) {
                Some((inner, declared)) => (Known::Schema(inner), declared),
                None => (Known::Table, false),
            },
            _ => (Known::Table, table_declares(self.builtin || table, &self.path)),
        };
        Shape { node, path, declared, ..*self }
    }

    /// The shape of a list's items.
    pub fn items(&self) -> Self {
        let node = match self.node {
            Known::Schema(node) => node.items().map_or(Known::Table, Known::Schema),
            Known::Table => Known::Table,
        };
        Shape { node, path: format!("{}[]", self.path), declared: false, ..*self }
    }

    /// How a list here merges.
    pub fn list(&self) -> List {
        if let Known::Schema(node) = self.node {
            return match node.merging() {
                Merging::Set => List::Set,
                Merging::Map(keys) => List::Map(keys.to_vec()),
                Merging::Whole | Merging::ByField => List::Atomic,
            };
        }
        if self.path == "metadata.finalizers" {
            return List::Set;
        }
        let found = LISTS
            .iter()
            .find(|(kind, path, _)| (kind.is_empty() || *kind == self.kind) && *path == self.path);
        found.map_or(List::Atomic, |(_, _, keys)| {
            List::Map(keys.iter().map(|key| (*key).to_owned()).collect())
        })
    }

    /// Whether an object here is one value.
    pub fn is_atomic(&self) -> bool {
        match self.node {
            Known::Schema(node) => node.merging() == Merging::Whole,
            Known::Table => ATOMIC.iter().any(|(kind, path)| *kind == self.kind && *path == self.path),
        }
    }

    /// Whether this is a field that its kind declares.
    pub fn is_declared(&self) -> bool {
        self.declared
    }

    /// Whether the object here is always there in the server's own form of a built-in kind, even if it is not
    /// written.
    pub fn is_struct(&self) -> bool {
        self.builtin
            && !self.path.is_empty()
            && !self.path.contains('.')
            && !MAPS.contains(&self.path.as_str())
            || self.path == "metadata"
            || self.path.is_empty()
    }

    /// The value that a missing key of a list's item has.
    pub fn default_of(&self, name: &str) -> Option<Value> {
        match self.node {
            Known::Schema(node) => node.field(name).and_then(|(node, _)| node.default_value().cloned()),
            Known::Table => (name == "protocol").then(|| Value::from("TCP")),
        }
    }
}

fn table_declares(known: bool, parent: &str) -> bool {
    known && !MAPS.contains(&parent)
}
