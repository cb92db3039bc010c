//! Uniqueness of the items of lists with `x-kubernetes-list-type` set or map.

use super::cause::Cause;
use super::node::{Additional, ListType, Node};
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Reports the second occurrence of every item that must be unique.
pub(super) fn duplicates(object: &Value, root: &Node) -> Vec<Cause> {
    let mut causes = Vec::new();
    if object.is_object() {
        walk(object, root, "", &mut causes);
    }
    causes
}

fn walk(value: &Value, node: &Node, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            if let Additional::Schema(values) = &node.additional {
                for (name, value) in map {
                    walk(value, values, &format!("{path}[{name}]"), causes);
                }
            }
            for (name, value) in map {
                if let Some(property) = node.properties.get(name) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(value, property, &path, causes);
                }
            }
        }
        Value::Array(items) => {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => {
                    for index in second_occurrences(items.iter()) {
                        causes.push(Cause::duplicate(format!("{path}[{index}]"), &items[index]));
                    }
                }
                ListType::Map(keys) => map_duplicates(items, keys, path, causes),
            }
            if let Some(node) = node.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    walk(item, node, &format!("{path}[{index}]"), causes);
                }
            }
        }
        _ => {}
    }
}

fn map_duplicates(items: &[Value], keys: &[String], path: &str, causes: &mut Vec<Cause>) {
    let not_an_object = |item: &Value| !item.is_object() && !item.is_null();
    if let Some(index) = items.iter().position(not_an_object) {
        let message = "must be an object for an array of list-type map";
        causes.push(Cause::invalid(format!("{path}[{index}]"), &items[index], message));
        return;
    }
    let identities: Vec<Value> = items
        .iter()
        .map(|item| {
            let fields = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
            Value::Object(fields.collect::<Map<_, _>>())
        })
        .collect();
    for index in second_occurrences(identities.iter()) {
        causes.push(Cause::duplicate(format!("{path}[{index}]"), &identities[index]));
    }
}

/// The index at which each repeated value occurs for the second time.
fn second_occurrences<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<usize> {
    // Keyed by the value's JSON, which is canonical because objects are sorted.
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found.push(index);
        }
    }
    found
}
