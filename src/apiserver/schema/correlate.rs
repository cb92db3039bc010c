//! Which old value a new value comes from.
//!
//! Two things need this: rules that compare `self` with `oldSelf`, and ratcheting, by which a value that is invalid
//! today but was already there is not held against an unrelated change. Fields correlate by name and items of a
//! list-type map by their keys; items of any other list have no identity and correlate with nothing.

use super::node::{ListType, Node};
use serde_json::Value;

/// An old value together with the structural schema both values are read by.
#[derive(Clone, Copy)]
pub(super) struct Old<'a> {
    pub(super) value: &'a Value,
    pub(super) node: &'a Node,
}

impl<'a> Old<'a> {
    /// The old value of a field.
    pub(super) fn field(self, name: &str) -> Option<Self> {
        let node = self.node.field(name)?;
        Some(Self { value: self.value.get(name)?, node })
    }

    /// The old item that has the same keys as `item`.
    pub(super) fn item(self, item: &Value) -> Option<Self> {
        let (ListType::Map(keys), Some(node)) = (&self.node.list_type, self.node.items.as_deref()) else {
            return None;
        };
        let value = find_item(self.value.as_array()?, keys, item)?;
        Some(Self { value, node })
    }

    /// Whether `new` is the same as the old value; the order of a list-type map does not count.
    pub(super) fn equals(self, new: &Value) -> bool {
        match (self.value, new) {
            (Value::Object(old), Value::Object(map)) => {
                old.len() == map.len()
                    && map.iter().all(|(name, value)| match self.field(name) {
                        Some(old) => old.equals(value),
                        None => old.get(name) == Some(value),
                    })
            }
            (Value::Array(old), Value::Array(items)) => match self.node.list_type {
                ListType::Map(_) => {
                    old.len() == items.len()
                        && items.iter().all(|item| self.item(item).is_some_and(|old| old.equals(item)))
                }
                ListType::Atomic | ListType::Set => old == items,
            },
            (old, new) => old == new,
        }
    }
}

fn find_item<'a>(items: &'a [Value], keys: &[String], like: &Value) -> Option<&'a Value> {
    if !like.is_object() {
        return None;
    }
    items.iter().find(|item| item.is_object() && keys.iter().all(|key| item.get(key) == like.get(key)))
}
