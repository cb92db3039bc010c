//! Lists in strategic merge patches: merging by key, deleting items, and putting items in order.

use super::PatchError;
use super::strategic::{PATCH, Strategy, clean, merge_object};
use serde_json::Value;

/// A list after the items of a patch: items with the same key are merged, others added, `$patch: delete` removes.
pub(super) fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    strategy: Strategy,
) -> Result<Vec<Value>, PatchError> {
    let Some(key) = strategy.key else { return Ok(union(original, patch)) };
    let server_order = original.clone();
    let mut merged = original;
    let mut additions = Vec::new();
    let mut replaces = false;
    for item in patch {
        let Value::Object(object) = item else {
            return Err(PatchError::Malformed(format!(
                "expected an object in a list that is merged by {key}: {item}"
            )));
        };
        match object.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None => additions.push(object),
            Some("delete") => {
                let wanted = object.get(key).ok_or_else(|| lacks(key, &Value::Object(object.clone())))?;
                merged.retain(|item| item.get(key) != Some(wanted));
            }
            Some("replace") => replaces = true,
            Some(other) => {
                return Err(PatchError::Malformed(format!("unknown patch type in a list: {other:?}")));
            }
        }
    }
    if replaces {
        return Ok(additions.into_iter().filter_map(|item| clean(Value::Object(item))).collect());
    }
    let mut order = Vec::with_capacity(additions.len());
    for item in additions {
        let identity = item.get(key).cloned().ok_or_else(|| lacks(key, &Value::Object(item.clone())))?;
        order.push(Value::Object([(key.to_owned(), identity.clone())].into_iter().collect()));
        match merged.iter_mut().find(|old| old.get(key) == Some(&identity)) {
            Some(Value::Object(old)) => {
                let combined = merge_object(std::mem::take(old), item, strategy.items)?;
                *old = combined;
            }
            _ => merged.extend(clean(Value::Object(item))),
        }
    }
    Ok(interleave(merged, &order, &server_order, Some(key)))
}

fn lacks(key: &str, item: &Value) -> PatchError {
    PatchError::Rejected(format!("map: {item} does not contain declared merge key: {key}"))
}

/// A list of plain values with those of a patch, each once.
fn union(original: Vec<Value>, patch: Vec<Value>) -> Vec<Value> {
    let server_order = original.clone();
    let mut merged: Vec<Value> = Vec::new();
    for value in original.into_iter().chain(patch.iter().cloned()) {
        if !merged.contains(&value) {
            merged.push(value);
        }
    }
    interleave(merged, &patch, &server_order, None)
}

/// Removes plain values from a list.
pub(super) fn delete_values(list: &mut Vec<Value>, values: &[Value]) {
    list.retain(|item| !values.contains(item));
}

/// A list in the order that a client wants for the items it knows; others stay where they are relative to those.
pub(super) fn reorder(list: Vec<Value>, order: &[Value], key: Option<&str>) -> Vec<Value> {
    let server_order = list.clone();
    interleave(list, order, &server_order, key)
}

/// The position in `order` of the entry that stands for `item`.
fn position(order: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    order.iter().position(|entry| match key {
        Some(key) => item.get(key).is_some() && entry.get(key) == item.get(key),
        None => entry == item,
    })
}

/// Sorts the items of the patch by its order and the others by the server's, then merges the two rows: an item of
/// the server goes first where the server had it before the next item of the patch.
fn interleave(merged: Vec<Value>, order: &[Value], server_order: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut patched, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    patched.sort_by_key(|item| position(order, item, key));
    others.sort_by_key(|item| position(server_order, item, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(patched.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in patched {
        let here = position(server_order, &item, key);
        while let (Some(here), Some(there)) =
            (here, others.peek().and_then(|other| position(server_order, other, key)))
        {
            if there >= here {
                break;
            }
            out.extend(others.next());
        }
        out.push(item);
    }
    out.extend(others);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn list(value: Value) -> Vec<Value> {
        value.as_array().unwrap().clone()
    }

    #[test]
    fn items_are_merged_by_key_and_keep_their_places() {
        for (original, patch, expected) in [
            (
                json!([{"k": 1, "a": 1}, {"k": 2}]),
                json!([{"k": 1, "b": 2}]),
                json!([{"k": 1, "a": 1, "b": 2}, {"k": 2}]),
            ),
            (json!([{"k": 1}]), json!([{"k": 2}]), json!([{"k": 2}, {"k": 1}])),
            (json!([{"k": 1}, {"k": 2}]), json!([{"k": 1, "$patch": "delete"}]), json!([{"k": 2}])),
            (json!([{"k": 1}]), json!([{"k": 3}, {"$patch": "replace"}]), json!([{"k": 3}])),
            (json!([]), json!([{"k": 1, "n": null}]), json!([{"k": 1}])),
        ] {
            let found = merge_list(list(original), list(patch.clone()), Strategy::by_key(Some("k"))).unwrap();
            assert_eq!(Value::from(found), expected, "{patch}");
        }
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        for patch in [json!([{"n": 1}]), json!([{"$patch": "delete"}])] {
            let error = merge_list(vec![], list(patch), Strategy::by_key(Some("k"))).unwrap_err();
            assert_eq!(error.code(), 422, "{error}");
        }
        for patch in [json!(["x"]), json!([{"k": 1, "$patch": "shuffle"}])] {
            let error = merge_list(vec![], list(patch), Strategy::by_key(Some("k"))).unwrap_err();
            assert_eq!(error.code(), 400, "{error}");
        }
    }

    #[test]
    fn plain_values_are_joined_once() {
        let found =
            merge_list(list(json!(["a", "b"])), list(json!(["b", "c"])), Strategy::by_key(None)).unwrap();
        assert_eq!(found, ["a", "b", "c"]);
    }

    #[test]
    fn the_order_of_a_client_wins_for_what_it_knows() {
        let found = reorder(list(json!(["s1", "a", "b", "s2"])), &list(json!(["b", "a"])), None);
        assert_eq!(found, ["s1", "b", "a", "s2"]);
    }
}
