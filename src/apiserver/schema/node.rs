//! One node of a schema, read once from JSON so that checking an object looks nothing up by name.
//!
//! The same node serves the structural part (properties, items, defaults, list types) and the value validations
//! nested in `allOf`, `anyOf`, `oneOf` and `not`, where only some of its fields are ever set: that is what
//! [`super::check`] makes sure of before a node is built.

use super::cel::Rule;
use super::format::Format;
use super::pattern;
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeMap;

/// The JSON types of OpenAPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    /// `array`.
    Array,
    /// `boolean`.
    Boolean,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `object`.
    Object,
    /// `string`.
    String,
}

impl ValueType {
    pub(super) const NAMES: [&'static str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

/// What `x-kubernetes-list-type` says of a list; unset means atomic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListType {
    /// Replaced as a whole; its items have no identity.
    Atomic,
    /// No item may occur twice.
    Set,
    /// No two items may have the same values in these fields.
    Map(Vec<String>),
}

/// What `additionalProperties` says of fields that are not listed.
#[derive(Debug)]
pub(super) enum Additional {
    /// Nothing is said: unknown fields are pruned.
    Unset,
    /// `true`: any value, pruned inside.
    Any,
    /// `false`: kept by pruning, so that validation can refuse it.
    Denied,
    /// A schema for the values of a map.
    Schema(Box<Node>),
}

/// A bound on numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) value: f64,
    pub(super) exclusive: bool,
}

/// One node of a schema.
#[derive(Debug)]
pub(super) struct Node {
    /// Empty when any type is allowed; two entries for int-or-string.
    pub(super) types: Vec<ValueType>,
    pub(super) nullable: bool,
    pub(super) default: Option<Value>,
    pub(super) properties: BTreeMap<String, Node>,
    pub(super) additional: Additional,
    pub(super) items: Option<Box<Node>>,
    pub(super) preserve_unknown: bool,
    pub(super) embedded: bool,
    pub(super) int_or_string: bool,
    pub(super) list_type: ListType,
    /// Whether `x-kubernetes-map-type` says that an object is one value.
    pub(super) atomic: bool,
    /// The format's name as written, and how it is checked.
    pub(super) format: Option<(String, Format)>,
    pub(super) required: Vec<String>,
    pub(super) allowed: Vec<Value>,
    pub(super) pattern: Option<(String, Regex)>,
    pub(super) min_length: Option<i64>,
    pub(super) max_length: Option<i64>,
    pub(super) min_items: Option<i64>,
    pub(super) max_items: Option<i64>,
    pub(super) min_properties: Option<i64>,
    pub(super) max_properties: Option<i64>,
    pub(super) minimum: Option<Bound>,
    pub(super) maximum: Option<Bound>,
    pub(super) multiple_of: Option<f64>,
    pub(super) all_of: Vec<Node>,
    pub(super) any_of: Vec<Node>,
    pub(super) one_of: Vec<Node>,
    pub(super) not: Option<Box<Node>>,
    pub(super) rules: Vec<Rule>,
}

impl Node {
    /// Reads a node from a schema that [`super::check`] has found to be structural. What cannot be read there has
    /// been refused by it, so it counts as unset here.
    pub(super) fn parse(schema: &Value) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str);
        let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let number = |key: &str| schema.get(key).and_then(Value::as_f64);
        let integer = |key: &str| {
            schema.get(key).and_then(|v| v.as_i64().or_else(|| v.as_f64().map(|float| float as i64)))
        };
        let list = |key: &str| schema.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let nodes = |key: &str| list(key).iter().map(Self::parse).collect::<Vec<_>>();
        let bound =
            |key: &str, exclusive: &str| number(key).map(|value| Bound { value, exclusive: flag(exclusive) });

        let int_or_string = flag("x-kubernetes-int-or-string");
        let types = if int_or_string {
            vec![ValueType::Integer, ValueType::String]
        } else {
            text("type").and_then(ValueType::parse).into_iter().collect()
        };
        let list_type = match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map(strings(list("x-kubernetes-list-map-keys"))),
            _ => ListType::Atomic,
        };
        Self {
            types,
            nullable: flag("nullable"),
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            properties: schema
                .get("properties")
                .and_then(Value::as_object)
                .map_or_else(BTreeMap::new, |map| {
                    map.iter().map(|(name, property)| (name.clone(), Self::parse(property))).collect()
                }),
            additional: match schema.get("additionalProperties") {
                None | Some(Value::Null) => Additional::Unset,
                Some(Value::Bool(false)) => Additional::Denied,
                Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(Self::parse(schema))),
                Some(_) => Additional::Any,
            },
            items: schema
                .get("items")
                .filter(|items| items.is_object())
                .map(|items| Box::new(Self::parse(items))),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string,
            list_type,
            atomic: text("x-kubernetes-map-type") == Some("atomic"),
            format: text("format")
                .and_then(|name| Format::parse(name).map(|format| (name.to_owned(), format))),
            required: strings(list("required")),
            allowed: list("enum").to_vec(),
            pattern: text("pattern")
                .filter(|text| !text.is_empty())
                .and_then(|text| pattern::compile(text).ok().map(|regex| (text.to_owned(), regex))),
            min_length: integer("minLength"),
            max_length: integer("maxLength"),
            min_items: integer("minItems"),
            max_items: integer("maxItems"),
            min_properties: integer("minProperties"),
            max_properties: integer("maxProperties"),
            minimum: bound("minimum", "exclusiveMinimum"),
            maximum: bound("maximum", "exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: schema.get("not").filter(|not| not.is_object()).map(|not| Box::new(Self::parse(not))),
            rules: list("x-kubernetes-validations").iter().filter_map(Rule::compile).collect(),
        }
    }

    /// The schema of a field: its own, or that of the values of a map.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        match (self.properties.get(name), &self.additional) {
            (Some(property), _) => Some(property),
            (None, Additional::Schema(values)) => Some(values),
            (None, Additional::Unset | Additional::Any | Additional::Denied) => None,
        }
    }

    /// The types as they stand in messages: `string`, or `integer,string`.
    pub(super) fn type_names(&self) -> String {
        self.types.iter().map(|t| t.name()).collect::<Vec<_>>().join(",")
    }
}

fn strings(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
}
