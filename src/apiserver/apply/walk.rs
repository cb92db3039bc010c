//! Going through values by their shape: which fields they set, how two of them differ, putting one over another, and
//! taking fields out again. The rules are those of structured-merge-diff, which kube-apiserver uses.

use serde_json::{Map, Value};

use super::fields::{Element, FieldSet};
use super::shape::{List, Shape};

/// What makes one value of another.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Fields that are there now or have another value.
    pub set: FieldSet,
    /// Fields that are there no more.
    pub removed: FieldSet,
}

/// A value that has no parts of its own.
fn is_leaf(value: &Value, shape: &Shape<'_>) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty() || shape.is_atomic(),
        Value::Array(items) => items.is_empty() || shape.list() == List::Atomic,
        _ => true,
    }
}

/// The element of a list's item.
fn element(item: &Value, list: &List, shape: &Shape<'_>) -> Option<Element> {
    match list {
        List::Atomic => None,
        List::Set => Some(Element::Value(item.to_string())),
        List::Map(keys) => {
            let mut found = Map::new();
            for key in keys {
                if let Some(value) = item.get(key).cloned().or_else(|| shape.items().default_of(key)) {
                    found.insert(key.clone(), value);
                }
            }
            (!found.is_empty()).then(|| Element::Key(Value::Object(found).to_string()))
        }
    }
}

/// The parts of a value that are written one by one.
fn parts<'v, 's>(value: &'v Value, shape: &Shape<'s>) -> Vec<(Element, &'v Value, Shape<'s>)> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (Element::Field(name.clone()), value, shape.field(name)))
            .collect(),
        Value::Array(items) => {
            let list = shape.list();
            let one = |item| element(item, &list, shape).map(|element| (element, item, shape.items()));
            items.iter().filter_map(one).collect()
        }
        _ => Vec::new(),
    }
}

/// The fields that an applied object sets.
pub(super) fn field_set(value: &Value, shape: &Shape<'_>) -> FieldSet {
    let mut set = FieldSet::default();
    for (element, part, inner) in parts(value, shape) {
        let mut fields = if is_leaf(part, &inner) { FieldSet::leaf() } else { field_set(part, &inner) };
        // Items and entries of maps are things of their own, fields of a struct are only a way to what they hold.
        fields.member |= !inner.is_declared() && !matches!(element, Element::Value(_))
            || matches!(element, Element::Key(_));
        set.children.insert(element, fields);
    }
    set
}

/// What makes `new` of `old`.
pub(super) fn compare(old: Option<&Value>, new: Option<&Value>, shape: &Shape<'_>, changes: &mut Changes) {
    if old == new {
        return;
    }
    let whole = |value: Option<&Value>| value.is_none_or(|value| is_leaf(value, shape));
    let same_kind = match (old, new) {
        (Some(old), Some(new)) => old.is_object() == new.is_object() && old.is_array() == new.is_array(),
        _ => true,
    };
    if !same_kind || (whole(old) && whole(new)) {
        match new {
            Some(_) => changes.set.member = true,
            None => changes.removed.member = true,
        }
        return;
    }
    // A way that was not there before is a change of its own, unless the server always has it.
    match (old, new) {
        (None, Some(_)) => changes.set.member |= !shape.is_struct(),
        (Some(_), None) => changes.removed.member |= !shape.is_struct(),
        _ => {}
    }
    let before = old.map(|old| parts(old, shape)).unwrap_or_default();
    let after = new.map(|new| parts(new, shape)).unwrap_or_default();
    let mut descend = |element: &Element, old: Option<&Value>, new: Option<&Value>, inner: &Shape<'_>| {
        let mut part = Changes::default();
        compare(old, new, inner, &mut part);
        if !part.set.is_empty() {
            changes.set.children.insert(element.clone(), part.set);
        }
        if !part.removed.is_empty() {
            changes.removed.children.insert(element.clone(), part.removed);
        }
    };
    for (element, value, inner) in &after {
        let earlier = before.iter().find(|(other, _, _)| other == element).map(|(_, value, _)| *value);
        descend(element, earlier, Some(value), inner);
    }
    for (element, value, inner) in &before {
        if !after.iter().any(|(other, _, _)| other == element) {
            descend(element, Some(value), None, inner);
        }
    }
}

/// `config` put over `live`: what it sets is as it says, the rest stays.
pub(super) fn merge(live: &Value, config: &Value, shape: &Shape<'_>) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(fields)) if !shape.is_atomic() => {
            let mut merged = live.clone();
            for (name, value) in fields {
                let value = match live.get(name) {
                    Some(before) => merge(before, value, &shape.field(name)),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(items)) => {
            let list = shape.list();
            if list == List::Atomic {
                return config.clone();
            }
            let mut merged = live.clone();
            for item in items {
                let wanted = element(item, &list, shape);
                let found = merged.iter_mut().find(|known| element(known, &list, shape) == wanted);
                match found {
                    Some(known) => *known = merge(known, item, &shape.items()),
                    None => merged.push(item.clone()),
                }
            }
            Value::Array(merged)
        }
        _ => config.clone(),
    }
}

/// Takes out what was in `last` and is in `kept` no more. Says whether nothing is left here.
pub(super) fn prune(value: &mut Value, last: &FieldSet, kept: Option<&FieldSet>, shape: &Shape<'_>) -> bool {
    let is_kept = |element: &Element| kept.and_then(|kept| kept.at(element)).filter(|set| !set.is_empty());
    match value {
        Value::Object(fields) if !shape.is_atomic() => {
            for (element, inner) in &last.children {
                let Element::Field(name) = element else { continue };
                let Some(part) = fields.get_mut(name) else { continue };
                let kept = is_kept(element);
                let part_shape = shape.field(name);
                let gone = if is_leaf(part, &part_shape) {
                    kept.is_none()
                } else {
                    prune(part, inner, kept, &part_shape) && kept.is_none()
                };
                if gone {
                    fields.remove(name);
                }
            }
            fields.is_empty()
        }
        Value::Array(items) => {
            let list = shape.list();
            if list == List::Atomic {
                return kept.is_none();
            }
            items.retain_mut(|item| {
                let Some(element) = element(item, &list, shape) else { return true };
                let Some(inner) = last.at(&element) else { return true };
                match is_kept(&element) {
                    None => !inner.member,
                    kept => {
                        prune(item, inner, kept, &shape.items());
                        true
                    }
                }
            });
            items.is_empty()
        }
        _ => kept.is_none(),
    }
}
