//! Pruning: dropping the fields that a schema does not know.
//!
//! `apiVersion`, `kind` and `metadata` are always kept at the root and in embedded resources, where unknown fields
//! inside `metadata` are dropped instead: Kubernetes decodes metadata into its own type whatever the schema says.

use super::node::{Additional, Node};
use serde_json::{Map, Value};

/// The fields that every resource has.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The fields of `ObjectMeta`.
const OBJECT_META_FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// Drops what `root` does not know from a resource and returns the sorted paths of what was dropped.
pub(super) fn prune(object: &mut Value, root: &Node) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    if let Value::Object(map) = object {
        if root.preserve_unknown {
            pruner.keep_map(map, root, true);
        } else {
            pruner.prune_map(map, root, true);
        }
    }
    pruner.dropped.sort();
    pruner.dropped
}

/// Drops what `node` does not know from a value that is no resource; whether there was anything to drop.
pub(super) fn prune_value(value: &mut Value, node: &Node) -> bool {
    let mut pruner = Pruner { path: String::new(), dropped: Vec::new() };
    let before = value.clone();
    pruner.value(value, Some(node));
    *value != before
}

/// Keeps the path of where it is, so that dropped fields can be named.
struct Pruner {
    path: String,
    dropped: Vec<String>,
}

impl Pruner {
    fn value(&mut self, value: &mut Value, node: Option<&Node>) {
        match (value, node) {
            (Value::Object(map), Some(node)) if node.preserve_unknown => {
                self.keep_map(map, node, node.embedded)
            }
            (Value::Object(map), Some(node)) => self.prune_map(map, node, node.embedded),
            (Value::Object(map), None) => {
                for name in map.keys() {
                    self.dropped.push(self.child(name));
                }
                map.clear();
            }
            (Value::Array(items), Some(node)) if node.preserve_unknown => self.keep_items(items, node),
            (Value::Array(items), node) => {
                let node = node.and_then(|node| node.items.as_deref());
                for (index, item) in items.iter_mut().enumerate() {
                    self.at(&format!("[{index}]"), |pruner| pruner.value(item, node));
                }
            }
            _ => {}
        }
    }

    fn prune_map(&mut self, map: &mut Map<String, Value>, node: &Node, is_resource: bool) {
        let at_root = self.path.is_empty();
        map.retain(|name, value| {
            if is_resource && META_FIELDS.contains(&name.as_str()) {
                self.metadata(name, value);
                return true;
            }
            match (node.field(name), &node.additional) {
                (Some(field), _) => self.field(name, value, Some(field)),
                (None, Additional::Any | Additional::Denied) => self.field(name, value, None),
                (None, _) => {
                    if !at_root || !META_FIELDS.contains(&name.as_str()) {
                        self.dropped.push(self.child(name));
                    }
                    return false;
                }
            }
            true
        });
    }

    /// Keeps unknown fields, and goes back to pruning inside the known ones.
    fn keep_map(&mut self, map: &mut Map<String, Value>, node: &Node, is_resource: bool) {
        for (name, value) in map.iter_mut() {
            if is_resource && META_FIELDS.contains(&name.as_str()) {
                self.metadata(name, value);
                continue;
            }
            match (node.field(name), &node.additional) {
                (Some(field), _) => self.field(name, value, Some(field)),
                (None, Additional::Any | Additional::Denied) => self.field(name, value, None),
                (None, _) => {}
            }
        }
    }

    fn keep_items(&mut self, items: &mut [Value], node: &Node) {
        let Some(item_node) = node.items.as_deref() else { return };
        for (index, item) in items.iter_mut().enumerate() {
            self.at(&format!("[{index}]"), |pruner| match item {
                Value::Object(map) => pruner.keep_map(map, item_node, item_node.embedded),
                Value::Array(items) => pruner.keep_items(items, item_node),
                _ => {}
            });
        }
    }

    fn metadata(&mut self, name: &str, value: &mut Value) {
        if let ("metadata", Value::Object(metadata)) = (name, value) {
            let path = self.child(name);
            metadata.retain(|field, _| {
                let known = OBJECT_META_FIELDS.contains(&field.as_str());
                if !known {
                    self.dropped.push(format!("{path}.{field}"));
                }
                known
            });
        }
    }

    fn field(&mut self, name: &str, value: &mut Value, node: Option<&Node>) {
        let segment = if self.path.is_empty() { name.to_owned() } else { format!(".{name}") };
        self.at(&segment, |pruner| pruner.value(value, node));
    }

    fn at(&mut self, segment: &str, work: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(segment);
        work(self);
        self.path.truncate(length);
    }

    fn child(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}
