//! The fields of the built-in kinds, read from compact text tables.
//!
//! kubectl needs them three times: to check whether the server validates fields, to merge lists by key when it
//! applies a change, and to explain fields to people. They are kept as text because half a thousand fields are easier
//! to read and to compare with Kubernetes as lines than as code. Strategic merge patches on the server are driven by
//! the same tables, so that client and server agree on the keys.
//!
//! A definition is a line `name [(group/version/Kind)] [= type] [map=…] : description`, followed by its fields,
//! indented: `name[!] type [strategy=…] [key=…] [list=…] [keys=…] [map=…] [: description]`, where `!` means required.
//! A type is a JSON type with an optional `/format`, `any`, `int-or-string`, `[]type`, `{}type`, or the name of a
//! definition.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// How version 3 of OpenAPI refers to a definition.
pub(super) const REFERENCE: &str = "#/components/schemas/";

const TABLES: [&str; 7] = [
    include_str!("builtin/apiextensions.txt"),
    include_str!("builtin/coordination.txt"),
    include_str!("builtin/core.txt"),
    include_str!("builtin/discovery.txt"),
    include_str!("builtin/events.txt"),
    include_str!("builtin/meta.txt"),
    include_str!("builtin/networking.txt"),
];

/// Group, version and kind.
pub(super) type GroupVersionKind = (String, String, String);

/// The definitions of the built-in kinds and of what they are made of.
pub(super) struct Definitions {
    /// OpenAPI v3 schemas, keyed by the definition's name, such as `io.k8s.api.core.v1.Service`.
    pub(super) schemas: BTreeMap<String, Value>,
    /// Names of definitions, keyed by the kind they describe.
    pub(super) kinds: BTreeMap<GroupVersionKind, String>,
}

/// The definitions of this server.
pub(super) fn definitions() -> &'static Definitions {
    static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
        let mut definitions = Definitions { schemas: BTreeMap::new(), kinds: BTreeMap::new() };
        for table in TABLES {
            definitions.read(table);
        }
        definitions
    });
    &DEFINITIONS
}

/// The schema of a built-in kind of any group and version, by the kind's name alone. Kinds that several groups serve
/// (Event) have the same patch keys in all of them.
pub(crate) fn builtin_kind(kind: &str) -> Option<&'static Value> {
    let definitions = definitions();
    let (_, name) = definitions.kinds.iter().find(|((_, _, known), _)| known == kind)?;
    definitions.schemas.get(name)
}

/// Follows a reference, also one that is wrapped in `allOf` to carry a description.
pub(crate) fn resolve(schema: &'static Value) -> &'static Value {
    let wrapped = schema.get("allOf").and_then(|all| all.get(0)).unwrap_or(schema);
    let name = wrapped.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(REFERENCE));
    name.and_then(|name| definitions().schemas.get(name)).unwrap_or(schema)
}

impl Definitions {
    fn read(&mut self, table: &str) {
        let mut open: Option<(String, Value)> = None;
        for line in table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (left, description) = line.split_once(" : ").unwrap_or((line, ""));
            let mut words = left.split_whitespace();
            let Some(first) = words.next() else { continue };
            if line.starts_with(' ') {
                if let Some((_, schema)) = &mut open {
                    field(schema, first, words, description);
                }
            } else {
                self.close(open.take());
                let mut schema = json!({"type": "object", "description": description});
                while let Some(word) = words.next() {
                    if word == "=" {
                        schema = typed(words.next().unwrap_or("any"), description);
                    } else if let Some(kind) = word.strip_prefix('(').and_then(|word| word.strip_suffix(')'))
                    {
                        let mut parts = kind.rsplit('/').map(str::to_owned);
                        let kind = parts.next().unwrap_or_default();
                        let version = parts.next().unwrap_or_default();
                        let group = parts.next().unwrap_or_default();
                        schema["x-kubernetes-group-version-kind"] =
                            json!([{"group": group, "version": version, "kind": kind}]);
                        self.kinds.insert((group, version, kind), first.to_owned());
                    } else {
                        extension(&mut schema, word);
                    }
                }
                open = Some((first.to_owned(), schema));
            }
        }
        self.close(open);
    }

    fn close(&mut self, definition: Option<(String, Value)>) {
        self.schemas.extend(definition);
    }
}

fn field<'a>(schema: &mut Value, name: &str, mut words: impl Iterator<Item = &'a str>, description: &str) {
    let (name, required) = name.strip_suffix('!').map_or((name, false), |name| (name, true));
    let mut property = typed(words.next().unwrap_or("any"), description);
    for word in words {
        extension(&mut property, word);
    }
    schema["properties"][name] = property;
    if required {
        match &mut schema["required"] {
            Value::Array(names) => names.push(name.into()),
            absent => *absent = json!([name]),
        }
    }
}

fn extension(schema: &mut Value, word: &str) {
    let Some((name, value)) = word.split_once('=') else { return };
    let (name, value) = match name {
        "strategy" => ("x-kubernetes-patch-strategy", Value::from(value)),
        "key" => ("x-kubernetes-patch-merge-key", Value::from(value)),
        "list" => ("x-kubernetes-list-type", Value::from(value)),
        "keys" => ("x-kubernetes-list-map-keys", value.split(',').collect()),
        "map" => ("x-kubernetes-map-type", Value::from(value)),
        _ => return,
    };
    schema[name] = value;
}

fn typed(name: &str, description: &str) -> Value {
    let mut schema = if let Some(items) = name.strip_prefix("[]") {
        json!({"type": "array", "items": typed(items, "")})
    } else if let Some(values) = name.strip_prefix("{}") {
        json!({"type": "object", "additionalProperties": typed(values, "")})
    } else if name == "any" {
        json!({})
    } else if name == "int-or-string" {
        json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
    } else if name.contains('.') {
        json!({"allOf": [{"$ref": format!("{REFERENCE}{name}")}]})
    } else if let Some((name, format)) = name.split_once('/') {
        json!({"type": name, "format": format})
    } else {
        json!({"type": name})
    };
    if !description.is_empty() {
        schema["description"] = description.into();
    }
    schema
}

/// Adds every definition that `schema` refers to, and what those refer to.
pub(super) fn collect(schema: &Value, into: &mut Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            let name = map.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(REFERENCE));
            if let Some(name) = name.filter(|name| !into.contains_key(*name))
                && let Some(definition) = definitions().schemas.get(name)
            {
                into.insert(name.to_owned(), definition.clone());
                collect(definition, into);
            }
            map.values().for_each(|value| collect(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_definition() {
        let definitions = definitions();
        assert!(definitions.schemas.len() > 80, "{}", definitions.schemas.len());
        for (name, schema) in &definitions.schemas {
            let mut found = Vec::new();
            references(schema, &mut found);
            for reference in found {
                let target = reference.strip_prefix(REFERENCE).unwrap();
                assert!(definitions.schemas.contains_key(target), "{name} refers to {target}");
            }
        }
    }

    #[test]
    fn lines_become_schemas() {
        let mut definitions = Definitions { schemas: BTreeMap::new(), kinds: BTreeMap::new() };
        definitions.read("# note\n\na.B (g/v1/B) map=atomic : Text: with colon.\n  n! integer/int32 : N.\n  l []a.C strategy=merge key=k list=map keys=k,j\n\na.C = any : C.\n");
        assert_eq!(
            definitions.schemas["a.B"],
            json!({
                "type": "object", "description": "Text: with colon.", "required": ["n"], "x-kubernetes-map-type": "atomic",
                "x-kubernetes-group-version-kind": [{"group": "g", "version": "v1", "kind": "B"}],
                "properties": {
                    "n": {"type": "integer", "format": "int32", "description": "N."},
                    "l": {
                        "type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/a.C"}]},
                        "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "k",
                        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "j"],
                    },
                },
            })
        );
        assert_eq!(definitions.schemas["a.C"], json!({"description": "C."}));
        assert_eq!(definitions.kinds[&("g".into(), "v1".into(), "B".into())], "a.B");
    }

    #[test]
    fn the_served_built_in_kinds_are_described() {
        for kind in [
            "Namespace",
            "ConfigMap",
            "Secret",
            "Service",
            "Event",
            "Lease",
            "Ingress",
            "IngressClass",
            "EndpointSlice",
            "CustomResourceDefinition",
        ] {
            assert!(
                builtin_kind(kind).is_some_and(|schema| schema["properties"]["metadata"].is_object()),
                "{kind}"
            );
        }
    }
}
