//! Whether a schema is structural: its shape is told by `type`, `properties`, `items` and `additionalProperties`
//! alone, so that pruning and defaulting need not know which branch of an `anyOf` an object takes.
//!
//! This file holds the rules that relate a node to its surroundings; the rules that look at one node are in
//! [`super::check_node`].

use super::cause::Cause;
use super::node::Node;
use super::{cel, check_node, embedded, prune, validate};
use serde_json::{Map, Value, json};

/// Schemas nested deeper than this are refused: a definition is written by a user and read by recursion.
const MAX_DEPTH: usize = 64;

/// Where a node stands, which decides the words and a few rules.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// All reasons why `schema` cannot be used, sorted; empty when it can.
pub(super) fn check(schema: &Value) -> Vec<Cause> {
    if !schema.is_object() {
        return vec![Cause::required("", "schemas are required")];
    }
    if depth(schema, 0) > MAX_DEPTH {
        return vec![Cause::forbidden("", &format!("must not be nested deeper than {MAX_DEPTH} levels"))];
    }
    let mut causes = Vec::new();
    check_node::check(schema, "", check_node::Place::default(), &mut causes);
    invariants(schema, Level::Root, "", &mut causes);
    completeness(schema, Some(schema), "", "", &mut causes);
    if causes.is_empty() {
        defaults(schema, "", &mut causes);
    }
    causes.sort();
    causes.dedup();
    causes
}

/// The path of a member of a node.
pub(super) fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The members of an object-valued keyword such as `properties`.
pub(super) fn members<'a>(schema: &'a Value, keyword: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

/// The entries of a list-valued keyword such as `allOf`.
pub(super) fn entries<'a>(schema: &'a Value, keyword: &str) -> &'a [Value] {
    schema.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn text<'a>(schema: &'a Value, keyword: &str) -> &'a str {
    schema.get(keyword).and_then(Value::as_str).unwrap_or("")
}

pub(super) fn flag(schema: &Value, keyword: &str) -> bool {
    schema.get(keyword).and_then(Value::as_bool).unwrap_or(false)
}

/// The schema of a schema-valued keyword such as `items`.
pub(super) fn schema_of<'a>(schema: &'a Value, keyword: &str) -> Option<&'a Value> {
    schema.get(keyword).filter(|value| value.is_object())
}

fn depth(schema: &Value, above: usize) -> usize {
    if above > MAX_DEPTH {
        return above;
    }
    let below = members(schema, "properties").map(|(_, node)| node);
    let below =
        below.chain(["items", "additionalProperties", "not"].iter().filter_map(|key| schema_of(schema, key)));
    let below = below.chain(["allOf", "anyOf", "oneOf"].iter().flat_map(|key| entries(schema, key)));
    below.map(|node| depth(node, above + 1)).max().unwrap_or(above)
}

fn invariants(schema: &Value, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let kind = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let has_additional = schema.get("additionalProperties").is_some_and(|value| !value.is_null());

    match schema_of(schema, "items") {
        Some(items) => invariants(items, Level::Item, &child(path, "items"), causes),
        None if kind == "array" => causes.push(Cause::required(child(path, "items"), "must be specified")),
        None => {}
    }
    for (name, property) in members(schema, "properties") {
        invariants(property, Level::Field, &child(path, &format!("properties[{name}]")), causes);
    }
    if has_additional {
        let place = child(path, "additionalProperties");
        if level == Level::Root {
            causes.push(Cause::forbidden(&place, "must not be used at the root"));
        }
        if embedded {
            causes
                .push(Cause::forbidden(&place, "must not be used if x-kubernetes-embedded-resource is set"));
        }
        if let Some(values) = schema_of(schema, "additionalProperties") {
            invariants(values, Level::Field, &place, causes);
        }
    }
    for (set, keyword) in
        [(preserve, "x-kubernetes-preserve-unknown-fields"), (embedded, "x-kubernetes-embedded-resource")]
    {
        if int_or_string && set {
            let why = "must be false if x-kubernetes-int-or-string is true";
            causes.push(Cause::invalid(child(path, keyword), &Value::Bool(true), why));
        }
    }
    let pattern = IntOrString::of(schema);
    value_validation(schema, pattern == IntOrString::AnyOf, pattern == IntOrString::AllOf, path, causes);

    let place = child(path, "type");
    if embedded && kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        causes.push(match kind {
            "" => Cause::required(&place, why),
            kind => Cause::invalid(&place, &kind.into(), why),
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(&place, why));
    }
    if level == Level::Root && !matches!(kind, "" | "object") {
        causes.push(Cause::invalid(&place, &kind.into(), "must be object at the root"));
    }
    if level == Level::Root || embedded {
        meta_fields(schema, path, causes);
    }
    if let (Level::Root, Some(metadata)) = (level, schema.get("properties").and_then(|p| p.get("metadata"))) {
        root_metadata(metadata, &child(path, "properties[metadata]"), causes);
    }
    if embedded && !preserve && members(schema, "properties").next().is_none() {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without \
                   x-kubernetes-preserve-unknown-fields";
        causes.push(Cause::required(child(path, "properties"), why));
    }
}

fn meta_fields(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    for (name, expected) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        let Some(property) = schema.get("properties").and_then(|properties| properties.get(name)) else {
            continue;
        };
        let kind = text(property, "type");
        if kind != expected {
            let place = child(path, &format!("properties[{name}].type"));
            causes.push(Cause::invalid(place, &kind.into(), &format!("must be {expected}")));
        }
    }
}

/// Of a resource's metadata a schema may restrict the names and nothing else.
fn root_metadata(metadata: &Value, path: &str, causes: &mut Vec<Cause>) {
    const SILENT: [&str; 4] = ["type", "description", "default", "properties"];
    let names_only =
        members(metadata, "properties").all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let nothing_else =
        metadata.as_object().is_none_or(|keys| keys.keys().all(|key| SILENT.contains(&key.as_str())));
    if !names_only || !nothing_else {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        causes.push(Cause::forbidden(path, why));
    }
}

/// The two ways in which int-or-string may be spelled out by types inside a junctor.
#[derive(PartialEq, Eq)]
enum IntOrString {
    No,
    AnyOf,
    AllOf,
}

impl IntOrString {
    fn of(schema: &Value) -> Self {
        let spelled = json!([{ "type": "integer" }, { "type": "string" }]);
        let any_of = |schema: &Value| schema.get("anyOf") == Some(&spelled);
        if !flag(schema, "x-kubernetes-int-or-string") {
            Self::No
        } else if any_of(schema) {
            Self::AnyOf
        } else if entries(schema, "allOf").first().is_some_and(any_of) {
            Self::AllOf
        } else {
            Self::No
        }
    }
}

fn value_validation(
    schema: &Value,
    skip_any_of: bool,
    skip_first: bool,
    path: &str,
    causes: &mut Vec<Cause>,
) {
    for keyword in ["anyOf", "allOf", "oneOf"] {
        if keyword == "anyOf" && skip_any_of {
            continue;
        }
        for (index, branch) in entries(schema, keyword).iter().enumerate() {
            let skip = keyword == "allOf" && skip_first && index == 0;
            nested(branch, skip, &child(path, &format!("{keyword}[{index}]")), causes);
        }
    }
    if let Some(not) = schema_of(schema, "not") {
        nested(not, false, &child(path, "not"), causes);
    }
}

/// Inside a junctor only values may be restricted; anything that shapes the object is forbidden.
fn nested(schema: &Value, skip_any_of: bool, path: &str, causes: &mut Vec<Cause>) {
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    value_validation(schema, skip_any_of, false, path, causes);
    if let Some(items) = schema_of(schema, "items") {
        nested(items, false, &child(path, "items"), causes);
    }
    for (name, property) in members(schema, "properties") {
        nested(property, false, &child(path, &format!("properties[{name}]")), causes);
    }
    for (keyword, why) in FORBIDDEN {
        if schema.get(keyword).is_some_and(is_set) {
            causes.push(Cause::forbidden(child(path, keyword), why));
        }
    }
    if !entries(schema, "x-kubernetes-validations").is_empty() {
        causes.push(Cause::forbidden(
            child(path, "x-kubernetes-validations"),
            "must be empty to be structural",
        ));
    }
    if members(schema, "properties").any(|(name, _)| name == "metadata") {
        let why = "must not be specified in a nested context";
        causes.push(Cause::forbidden(child(path, "properties[metadata]"), why));
    }
}

/// Every field and list restricted inside a junctor must be declared outside of it.
fn completeness(value: &Value, shape: Option<&Value>, s_path: &str, v_path: &str, causes: &mut Vec<Cause>) {
    let branches = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|keyword| {
        entries(value, keyword).iter().enumerate().map(move |(i, branch)| (format!("{keyword}[{i}]"), branch))
    });
    let not = schema_of(value, "not").map(|not| ("not".to_owned(), not));
    for (place, branch) in branches.chain(not) {
        nested_completeness(branch, shape, s_path, &child(v_path, &place), causes);
    }
    // The same holds for every node of the shape itself.
    if s_path == v_path
        && let Some(shape) = shape
    {
        for (name, property) in members(shape, "properties") {
            let path = child(s_path, &format!("properties[{name}]"));
            completeness(property, Some(property), &path, &path, causes);
        }
        for keyword in ["items", "additionalProperties"] {
            if let Some(below) = schema_of(shape, keyword) {
                let path = child(s_path, keyword);
                completeness(below, Some(below), &path, &path, causes);
            }
        }
    }
}

fn nested_completeness(
    value: &Value,
    shape: Option<&Value>,
    s_path: &str,
    v_path: &str,
    causes: &mut Vec<Cause>,
) {
    let Some(shape) = shape else {
        causes.push(Cause::required(s_path, &format!("because it is defined in {v_path}")));
        return;
    };
    completeness(value, Some(shape), s_path, v_path, causes);
    if let Some(items) = schema_of(value, "items") {
        let (s_path, v_path) = (child(s_path, "items"), child(v_path, "items"));
        nested_completeness(items, schema_of(shape, "items"), &s_path, &v_path, causes);
    }
    for (name, property) in members(value, "properties") {
        let place = format!("properties[{name}]");
        let declared = shape.get("properties").and_then(|properties| properties.get(name));
        nested_completeness(property, declared, &child(s_path, &place), &child(v_path, &place), causes);
    }
}

/// A default must itself be valid, or every object that relies on it would be refused.
fn defaults(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let place = child(path, "default");
        let node = Node::parse(schema);
        if prune::prune_value(&mut default.clone(), &node) {
            causes.push(Cause::invalid(&place, default, "must not have unknown fields"));
        }
        let mut found = embedded::check(default, &node);
        if found.is_empty() {
            found = validate::check(default, &node, None, "").causes;
        }
        if found.is_empty() {
            found = cel::check(default, &node, None);
        }
        for mut cause in found {
            cause.field = if cause.field == super::cause::NO_FIELD {
                place.clone()
            } else {
                child(&place, &cause.field)
            };
            causes.push(cause);
        }
    }
    for (name, property) in members(schema, "properties") {
        defaults(property, &child(path, &format!("properties[{name}]")), causes);
    }
    // kube-apiserver does not look at the defaults inside `additionalProperties`.
    if let Some(items) = schema_of(schema, "items") {
        defaults(items, &child(path, "items"), causes);
    }
}

/// The keys of a node, for [`super::check_node`].
pub(super) fn keys(schema: &Value) -> impl Iterator<Item = &String> {
    schema.as_object().into_iter().flat_map(Map::keys)
}

#[cfg(test)]
mod tests;
