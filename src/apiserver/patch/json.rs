//! JSON patches and JSON merge patches.

use super::{MAX_OPERATIONS, PatchError};
use json_patch::{Patch, PatchErrorKind, PatchOperation};
use serde_json::Value;

/// The object after a JSON patch (RFC 6902); either all operations apply or none.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is not a list of operations, [`PatchError::Rejected`] when an operation
/// does not apply, [`PatchError::TooLarge`] when there are too many.
pub fn json_patch(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let count = patch.as_array().map_or(0, Vec::len);
    if count > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(count));
    }
    let patch: Patch =
        serde_json::from_value(patch.clone()).map_err(|error| PatchError::Malformed(error.to_string()))?;
    let mut patched = original.clone();
    for operation in patch.0 {
        // Clients test for null to say "must not be there"; the RFC would have the path exist.
        if let PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && patched.pointer(test.path.as_str()).is_none()
        {
            continue;
        }
        json_patch::patch(&mut patched, std::slice::from_ref(&operation))
            .map_err(|error| PatchError::Rejected(words(&operation, &error.kind)))?;
    }
    Ok(patched)
}

fn words(operation: &PatchOperation, kind: &PatchErrorKind) -> String {
    let path = operation.path();
    let name = match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => return format!("testing value {path} failed: test failed"),
    };
    match kind {
        PatchErrorKind::InvalidPointer => {
            format!("{name} operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        other => format!("{name} operation does not apply: {path}: {other}"),
    }
}

/// The object after a JSON merge patch (RFC 7386): null removes, objects merge, everything else replaces.
#[must_use]
pub fn merge_patch(original: &Value, patch: &Value) -> Value {
    let mut patched = original.clone();
    json_patch::merge(&mut patched, patch);
    patched
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn json_patches_apply_as_a_whole_or_not_at_all() {
        let original = json!({"a": {"b": [1, 2]}, "l": "x"});
        for (patch, expected) in [
            (json!([]), Ok(original.clone())),
            (
                json!([{"op": "add", "path": "/a/b/-", "value": 3}]),
                Ok(json!({"a": {"b": [1, 2, 3]}, "l": "x"})),
            ),
            (
                json!([{"op": "add", "path": "/a/b/0", "value": 0}]),
                Ok(json!({"a": {"b": [0, 1, 2]}, "l": "x"})),
            ),
            (
                json!([{"op": "replace", "path": "/l", "value": null}]),
                Ok(json!({"a": {"b": [1, 2]}, "l": null})),
            ),
            (
                json!([{"op": "move", "from": "/l", "path": "/a/l"}]),
                Ok(json!({"a": {"b": [1, 2], "l": "x"}})),
            ),
            (json!([{"op": "test", "path": "/none", "value": null}]), Ok(original.clone())),
            (
                json!([{"op": "test", "path": "/l", "value": "y"}]),
                Err((422, "testing value /l failed: test failed")),
            ),
            (
                json!([{"op": "remove", "path": "/l"}, {"op": "remove", "path": "/none"}]),
                Err((422, "remove operation does not apply: doc is missing path: \"/none\": missing value")),
            ),
            (
                json!([{"op": "replace", "path": "/x/y", "value": 1}]),
                Err((422, "replace operation does not apply: doc is missing path: \"/x/y\": missing value")),
            ),
            (json!({"op": "add"}), Err((400, "error decoding patch: "))),
            (json!([{"op": "shuffle", "path": "/l"}]), Err((400, "error decoding patch: "))),
        ] {
            match (json_patch(&original, &patch), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{patch}"),
                (Err(error), Err((code, words))) => {
                    assert_eq!(error.code(), code, "{patch}: {error}");
                    assert!(error.to_string().starts_with(words), "{patch}: {error}");
                }
                (found, expected) => panic!("{patch}: {found:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn too_many_operations_are_refused() {
        let operation = json!({"op": "test", "path": "", "value": {}});
        let patch = Value::from(vec![operation; MAX_OPERATIONS + 1]);
        assert_eq!(json_patch(&json!({}), &patch).unwrap_err().code(), 413);
    }

    #[test]
    fn merge_patches_merge_objects_and_replace_lists() {
        let original = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
        let patch = json!({"a": {"b": null, "d": 3}, "l": [3], "n": {"x": null}});
        assert_eq!(merge_patch(&original, &patch), json!({"a": {"c": 2, "d": 3}, "l": [3], "n": {}}));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i8>().prop_map(Value::from), "[a-c]".prop_map(Value::from)];
        leaf.prop_recursive(3, 16, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_merge_patch_applied_twice_is_applied_once(original in value(), patch in value()) {
            let once = merge_patch(&original, &patch);
            prop_assert_eq!(merge_patch(&once, &patch), once);
        }

        #[test]
        fn an_empty_merge_patch_changes_no_object(original in prop::collection::btree_map("[a-c]", value(), 0..3)) {
            let original = json!(original);
            prop_assert_eq!(merge_patch(&original, &json!({})), original);
        }
    }
}
