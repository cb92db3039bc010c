//! Defaulting: filling in what a schema declares and an object leaves out.
//!
//! Defaults are applied at every level that exists in the object or was itself filled in by a default; they never
//! invent items of a list or entries of a map. A `null` where null is not allowed counts as missing: it is replaced
//! by the default when there is one, and [`drop_nulls`] removes it when there is none.

use super::node::{Additional, Node};
use serde_json::Value;

/// Fills in the defaults of `node`'s fields and everything below.
pub(super) fn fill(value: &mut Value, node: &Node) {
    match value {
        Value::Object(map) => {
            for (name, property) in &node.properties {
                let Some(default) = &property.default else { continue };
                match map.get_mut(name) {
                    None => {
                        map.insert(name.clone(), default.clone());
                    }
                    Some(present) => replace_null(present, property),
                }
            }
            for (name, value) in map.iter_mut() {
                match (node.properties.get(name), &node.additional) {
                    (Some(property), _) => fill(value, property),
                    (None, Additional::Schema(values)) => {
                        replace_null(value, values);
                        fill(value, values);
                    }
                    (None, Additional::Unset | Additional::Any | Additional::Denied) => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = node.items.as_deref() {
                for item in items {
                    replace_null(item, node);
                    fill(item, node);
                }
            }
        }
        _ => {}
    }
}

/// Removes the fields and map entries that are null, may not be null and have no default. Nulls in lists stay, to be
/// refused by validation: removing an item would move the others.
pub(super) fn drop_nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let field = node.and_then(|node| node.field(name));
            match field {
                Some(field) if value.is_null() && !field.nullable && field.default.is_none() => false,
                field => {
                    drop_nulls(value, field);
                    true
                }
            }
        }),
        Value::Array(items) => {
            let node = node.and_then(|node| node.items.as_deref());
            for item in items {
                drop_nulls(item, node);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Value, node: &Node) {
    if value.is_null()
        && !node.nullable
        && let Some(default) = &node.default
    {
        *value = default.clone();
    }
}
