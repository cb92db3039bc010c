//! The rules that a single node of a schema must keep, whatever stands around it: which keywords are supported, and
//! what their values may be.

use super::cause::Cause;
use super::check::{child, entries, flag, keys, members, schema_of, text};
use super::node::{Node, ValueType};
use super::{cel, pattern};
use serde_json::Value;

/// Reasons that a rule may give.
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What the surroundings of a node forbid in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    /// Set inside the metadata of a resource, where `apiVersion`, `kind` and `metadata` live by their own rules.
    inside_metadata: bool,
    /// Set inside the root's own metadata, where Kubernetes sets the defaults.
    no_defaults: bool,
    /// Set below a list whose items have no identity, so that `oldSelf` would mean nothing.
    uncorrelated: bool,
    /// Set below the root.
    below_root: bool,
}

/// Checks a node and everything below it.
pub(super) fn check(schema: &Value, path: &str, place: Place, causes: &mut Vec<Cause>) {
    keywords(schema, path, place, causes);
    list_and_map_types(schema, path, causes);
    rules(schema, path, place, causes);

    let below = Place { below_root: true, ..place };
    for (name, property) in members(schema, "properties") {
        let meta = matches!(name.as_str(), "apiVersion" | "kind" | "metadata");
        let resource = !place.below_root || flag(schema, "x-kubernetes-embedded-resource");
        let place = Place {
            inside_metadata: below.inside_metadata || (meta && resource),
            no_defaults: below.no_defaults || (meta && !place.below_root),
            ..below
        };
        check(property, &child(path, &format!("properties[{name}]")), place, causes);
    }
    if let Some(values) = schema_of(schema, "additionalProperties") {
        let place = Place { no_defaults: below.no_defaults || place.inside_metadata, ..below };
        check(values, &child(path, "additionalProperties"), place, causes);
    }
    if let Some(items) = schema_of(schema, "items") {
        let has_identity = text(schema, "x-kubernetes-list-type") == "map";
        let place = Place { uncorrelated: below.uncorrelated || !has_identity, ..below };
        check(items, &child(path, "items"), place, causes);
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        for (index, branch) in entries(schema, keyword).iter().enumerate() {
            check(branch, &child(path, &format!("{keyword}[{index}]")), below, causes);
        }
    }
    if let Some(not) = schema_of(schema, "not") {
        check(not, &child(path, "not"), below, causes);
    }
}

fn keywords(schema: &Value, path: &str, place: Place, causes: &mut Vec<Cause>) {
    const UNSUPPORTED: [&str; 6] =
        ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
    for keyword in keys(schema) {
        if UNSUPPORTED.contains(&keyword.as_str()) {
            causes.push(Cause::forbidden(child(path, keyword), &format!("{keyword} is not supported")));
        }
    }
    let kind = text(schema, "type");
    match kind {
        "" => {}
        "null" => {
            let why = "type cannot be set to null, use nullable as an alternative";
            causes.push(Cause::forbidden(child(path, "type"), why));
        }
        kind if ValueType::parse(kind).is_none() => {
            causes.push(Cause::not_supported(child(path, "type"), &kind.into(), &ValueType::NAMES));
        }
        _ => {}
    }
    if place.no_defaults && schema.get("default").is_some_and(|default| !default.is_null()) {
        causes.push(Cause::forbidden(child(path, "default"), "must not be set in top-level metadata"));
    }
    if schema.get("items").is_some_and(Value::is_array) {
        causes.push(Cause::forbidden(child(path, "items"), "items must be a schema object and not an array"));
    }
    if place.inside_metadata && flag(schema, "x-kubernetes-embedded-resource") {
        let why = "must not be used inside of resource meta";
        causes.push(Cause::forbidden(child(path, "x-kubernetes-embedded-resource"), why));
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        causes.push(Cause::forbidden(child(path, "uniqueItems"), why));
    }
    let additional =
        schema.get("additionalProperties").filter(|value| !value.is_null() && **value != Value::Bool(true));
    if additional.is_some() && members(schema, "properties").next().is_some() {
        let why = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(child(path, "additionalProperties"), why));
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let place = child(path, "x-kubernetes-preserve-unknown-fields");
        causes.push(Cause::invalid(place, &Value::Bool(false), "must be true or undefined"));
    }
    let written = text(schema, "pattern");
    if let Err(error) = pattern::compile(written) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(child(path, "pattern"), &written.into(), &why));
    }
}

fn list_and_map_types(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let kind = text(schema, "type");
    for (keyword, expected, known) in [
        ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
        ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
    ] {
        let Some(value) = schema.get(keyword).filter(|value| !value.is_null()) else { continue };
        if kind != expected {
            let why = format!("must be {expected} if {keyword} is specified");
            causes.push(match kind {
                "" => Cause::required(child(path, "type"), &why),
                kind => Cause::invalid(child(path, "type"), &kind.into(), &why),
            });
        }
        if !value.as_str().is_some_and(|value| known.contains(&value)) {
            causes.push(Cause::not_supported(child(path, keyword), value, known));
        }
    }

    let list_type = text(schema, "x-kubernetes-list-type");
    let map_keys = entries(schema, "x-kubernetes-list-map-keys");
    let items = schema_of(schema, "items");
    let items_kind = items.map_or("", |items| text(items, "type"));
    if !map_keys.is_empty() && list_type != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        let place = child(path, "x-kubernetes-list-type");
        causes.push(match list_type {
            "" => Cause::required(place, why),
            other => Cause::invalid(place, &other.into(), why),
        });
    }
    match list_type {
        "set" => set_items(items, items_kind, path, causes),
        "map" => {
            let place = child(path, "x-kubernetes-list-map-keys");
            if map_keys.is_empty() {
                causes.push(Cause::required(&place, "must not be empty if x-kubernetes-list-type is map"));
            }
            let Some(items) = items else {
                let why = "must have a schema if x-kubernetes-list-type is map";
                causes.push(Cause::required(child(path, "items"), why));
                return;
            };
            if items_kind != "object" {
                let why = "must be object if parent array's x-kubernetes-list-type is map";
                causes.push(Cause::invalid(child(path, "items.type"), &items_kind.into(), why));
                return;
            }
            let keys = Value::from(map_keys);
            for (index, key) in map_keys.iter().enumerate() {
                map_key(key, items, path, &place, &keys, causes);
                if map_keys[..index].contains(key) {
                    causes.push(Cause::invalid(&place, &keys, "must not contain duplicate entries"));
                }
            }
        }
        _ => {}
    }
}

fn set_items(items: Option<&Value>, items_kind: &str, path: &str, causes: &mut Vec<Cause>) {
    let Some(items) = items else { return };
    let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
    let list_type = items.get("x-kubernetes-list-type").unwrap_or(&Value::Null);
    if items_kind == "array" && !matches!(list_type.as_str(), None | Some("atomic")) {
        causes.push(Cause::invalid(child(path, "items.x-kubernetes-list-type"), list_type, why));
    }
    if items_kind == "object" && text(items, "x-kubernetes-map-type") != "atomic" {
        causes.push(Cause::invalid(child(path, "items.x-kubernetes-map-type"), list_type, why));
    }
}

/// A key of a list-type map must be a scalar field that every item has, given or by default.
fn map_key(key: &Value, items: &Value, path: &str, place: &str, keys: &Value, causes: &mut Vec<Cause>) {
    let name = key.as_str().unwrap_or("");
    let Some(property) = items.get("properties").and_then(|properties| properties.get(name)) else {
        causes.push(Cause::invalid(place, keys, "entries must all be names of item properties"));
        return;
    };
    let place = child(path, &format!("items.properties[{name}]"));
    if matches!(text(property, "type"), "array" | "object") {
        let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
        causes.push(Cause::invalid(child(&place, "type"), &text(items, "type").into(), why));
    }
    let has_default = property.get("default").is_some_and(|default| !default.is_null());
    if !has_default && !entries(items, "required").contains(key) {
        let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                   property";
        causes.push(Cause::required(child(&place, "default"), why));
    }
    if flag(property, "nullable") {
        let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
        causes.push(Cause::forbidden(child(&place, "nullable"), why));
    }
}

fn rules(schema: &Value, path: &str, place: Place, causes: &mut Vec<Cause>) {
    for (index, rule) in entries(schema, "x-kubernetes-validations").iter().enumerate() {
        let path = child(path, &format!("x-kubernetes-validations[{index}]"));
        let expression = text(rule, "rule").trim();
        let message = text(rule, "message");
        if expression.is_empty() {
            causes.push(Cause::required(child(&path, "rule"), "rule is not specified"));
            continue;
        }
        if !message.is_empty() && message.trim().is_empty() {
            let place = child(&path, "message");
            causes.push(Cause::invalid(place, &message.into(), "must be non-empty if specified"));
        } else if message.trim().contains('\n') {
            causes.push(Cause::invalid(
                child(&path, "message"),
                &message.into(),
                "must not contain line breaks",
            ));
        } else if expression.contains('\n') && message.is_empty() {
            let why = "message must be specified if rule contains line breaks";
            causes.push(Cause::required(child(&path, "message"), why));
        }
        let reason = rule.get("reason").filter(|reason| !reason.is_null());
        if let Some(reason) = reason.filter(|reason| !reason.as_str().is_some_and(|r| REASONS.contains(&r))) {
            causes.push(Cause::not_supported(child(&path, "reason"), reason, &REASONS));
        }
        let field_path = text(rule, "fieldPath");
        if field_path.contains('\n') {
            let place = child(&path, "fieldPath");
            causes.push(Cause::invalid(place, &field_path.into(), "must not contain line breaks"));
        } else if !field_path.is_empty() && cel::field_path(&Node::parse(schema), field_path).is_none() {
            causes.push(Cause::invalid(
                child(&path, "fieldPath"),
                &field_path.into(),
                "must be a valid path",
            ));
        }
        if place.uncorrelated && mentions_old_self(expression) {
            let why = "oldSelf cannot be used on the uncorrelatable portion of the schema";
            causes.push(Cause::invalid(child(&path, "rule"), &expression.into(), why));
        }
        causes.extend(cel::mistakes(rule, &path));
    }
}

fn mentions_old_self(expression: &str) -> bool {
    expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == "oldSelf")
}
