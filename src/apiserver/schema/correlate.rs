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

    /// The old value with the items of sets and list-type maps in the order of the new ones. Their order means
    /// nothing, so `self == oldSelf` must not depend on it.
    pub(super) fn aligned(self, new: &Value) -> Value {
        match (self.value, new) {
            (Value::Object(old), Value::Object(map)) => old
                .iter()
                .map(|(name, value)| match (self.field(name), map.get(name)) {
                    (Some(old), Some(new)) => (name.clone(), old.aligned(new)),
                    _ => (name.clone(), value.clone()),
                })
                .collect(),
            (Value::Array(old), Value::Array(items)) => match &self.node.list_type {
                ListType::Atomic => self.value.clone(),
                ListType::Set => {
                    let (known, gone): (Vec<&Value>, Vec<&Value>) =
                        old.iter().partition(|item| items.contains(item));
                    let known = items.iter().filter(|item| known.contains(item));
                    known.chain(gone).cloned().collect()
                }
                ListType::Map(keys) => {
                    let gone = old.iter().filter(|item| find_item(items, keys, item).is_none()).cloned();
                    let known = items.iter().filter_map(|item| Some(self.item(item)?.aligned(item)));
                    known.chain(gone).collect()
                }
            },
            (old, _) => old.clone(),
        }
    }

    /// Whether `new` is the same as the old value; the order of a list-type map does not count. Fields that the
    /// schema does not declare cannot be compared, so an object that has any is never the same.
    pub(super) fn equals(self, new: &Value) -> bool {
        match (self.value, new) {
            (Value::Object(old), Value::Object(map)) => {
                old.len() == map.len()
                    && map.iter().all(|(name, value)| self.field(name).is_some_and(|old| old.equals(value)))
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

/// An item has an identity only when all its keys are there and are scalars.
fn find_item<'a>(items: &'a [Value], keys: &[String], like: &Value) -> Option<&'a Value> {
    let scalar = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
    let identity: Option<Vec<&Value>> =
        keys.iter().map(|key| like.get(key).filter(|value| scalar(value))).collect();
    let identity = identity.filter(|identity| !identity.is_empty())?;
    items.iter().find(|item| keys.iter().zip(&identity).all(|(key, value)| item.get(key) == Some(*value)))
}
