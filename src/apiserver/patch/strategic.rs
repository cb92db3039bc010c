//! Strategic merge patches: merge patches that merge lists by key.
//!
//! Which lists are merged, and by which key, stands in the tables of the built-in kinds that OpenAPI documents are
//! made from, so that kubectl computes patches by the same keys. A field that the tables do not know is merged like
//! any object, or replaced like any list.
//!
//! Besides values a patch may hold directives: `$patch: replace|delete|merge` in an object, `$retainKeys` (drop every
//! other field), `$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>`.

use super::PatchError;
use super::strategic_list::{delete_values, merge_list, reorder};
use crate::schema::openapi::{builtin_kind, resolve};
use serde_json::{Map, Value};

pub(super) const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// What the tables know of a value; `None` when they know nothing.
pub(super) type Schema = Option<&'static Value>;

/// How a list or object field is patched.
#[derive(Clone, Copy)]
pub(super) struct Strategy {
    /// Lists: merged instead of replaced.
    merges: bool,
    /// Objects: replaced instead of merged.
    replaces: bool,
    /// The field by which items that are objects correspond.
    pub(super) key: Option<&'static str>,
    /// What is known of the items of a list.
    pub(super) items: Schema,
}

/// The object after a strategic merge patch for a built-in kind.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is not an object or a directive cannot be read, [`PatchError::Rejected`]
/// when an item lacks the key by which its list is merged.
pub fn strategic_merge(kind: &str, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch must be an object".to_owned()));
    };
    let original = original.as_object().cloned().unwrap_or_default();
    merge_object(original, patch.clone(), builtin_kind(kind)).map(Value::Object)
}

fn property(schema: Schema, name: &str) -> Schema {
    schema?.get("properties")?.get(name)
}

fn strategy(schema: Schema, name: &str) -> Strategy {
    let field = property(schema, name);
    let word = |key: &str| field.and_then(|field| field.get(key)).and_then(Value::as_str);
    let words = word("x-kubernetes-patch-strategy").unwrap_or("");
    let items = field.and_then(|field| field.get("items")).map(resolve);
    Strategy {
        merges: words.split(',').any(|word| word == "merge"),
        replaces: words.split(',').any(|word| word == "replace"),
        key: word("x-kubernetes-patch-merge-key"),
        items,
    }
}

pub(super) fn merge_object(
    mut original: Map<String, Value>,
    mut patch: Map<String, Value>,
    schema: Schema,
) -> Result<Map<String, Value>, PatchError> {
    match patch.remove(PATCH) {
        None => {}
        Some(directive) => match directive.as_str() {
            Some("replace") => return Ok(without_directives(patch)),
            Some("delete") => return Ok(Map::new()),
            Some("merge") => {}
            _ => return Err(PatchError::Malformed(format!("unknown patch type: {directive}"))),
        },
    }
    retain_keys(&mut original, &mut patch)?;
    let mut orders = Vec::new();
    for (name, value) in patch {
        if let Some(field) = name.strip_prefix(SET_ORDER) {
            let Value::Array(order) = value else {
                return Err(PatchError::Malformed(format!("{name} must be a list")));
            };
            orders.push((field.to_owned(), order));
        } else if let Some(field) = name.strip_prefix(DELETE_FROM) {
            let Value::Array(values) = &value else {
                return Err(PatchError::Malformed(format!("{name} must be a list")));
            };
            if let Some(Value::Array(list)) = original.get_mut(field) {
                delete_values(list, values);
            }
        } else {
            merge_field(&mut original, name, value, schema)?;
        }
    }
    // Lists are put in order once they hold everything that the patch brings.
    for (field, order) in orders {
        if let Some(Value::Array(list)) = original.get_mut(&field) {
            let before = std::mem::take(list);
            *list = reorder(before, &order, strategy(schema, &field).key);
        }
    }
    Ok(original)
}

fn merge_field(
    original: &mut Map<String, Value>,
    name: String,
    value: Value,
    schema: Schema,
) -> Result<(), PatchError> {
    if value.is_null() {
        original.remove(&name);
        return Ok(());
    }
    let merged = match (original.get_mut(&name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let field = property(schema, &name).map(resolve);
            if strategy(schema, &name).replaces {
                Value::Object(without_directives(new))
            } else {
                Value::Object(merge_object(std::mem::take(old), new, field)?)
            }
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let strategy = strategy(schema, &name);
            if strategy.merges {
                Value::Array(merge_list(std::mem::take(old), new, strategy)?)
            } else {
                Value::Array(items_without_directives(new))
            }
        }
        (_, new) => match clean(new) {
            Some(new) => new,
            None => return Ok(()),
        },
    };
    original.insert(name, merged);
    Ok(())
}

/// Drops the fields of the original that a patch does not list.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = keys else {
        return Err(PatchError::Malformed(format!("{RETAIN_KEYS} must be a list")));
    };
    let kept = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    let sets = |name: &str, value: &Value| !value.is_null() && !name.starts_with('$');
    if let Some((name, _)) = patch.iter().find(|(name, value)| sets(name, value) && !kept(name)) {
        return Err(PatchError::Malformed(format!(
            "{RETAIN_KEYS} does not list the field {name:?} of the same patch"
        )));
    }
    original.retain(|name, _| kept(name));
    Ok(())
}

/// A new value without its directives and nulls. An object with a `$patch` is for something that is already there:
/// kube-apiserver creates nothing from it.
pub(super) fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(without_directives(map))),
        Value::Array(items) => Some(Value::Array(items_without_directives(items))),
        other => Some(other),
    }
}

fn without_directives(map: Map<String, Value>) -> Map<String, Value> {
    let directive = |name: &str| {
        name == PATCH || name == RETAIN_KEYS || name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER)
    };
    map.into_iter()
        .filter(|(name, value)| !directive(name) && !value.is_null())
        .filter_map(|(name, value)| Some((name, clean(value)?)))
        .collect()
}

fn items_without_directives(items: Vec<Value>) -> Vec<Value> {
    items.into_iter().filter_map(clean).collect()
}

impl Strategy {
    /// A strategy for tests of lists alone.
    #[cfg(test)]
    pub(super) fn by_key(key: Option<&'static str>) -> Self {
        Self { merges: true, replaces: false, key, items: None }
    }
}

#[cfg(test)]
mod tests;
