//! The version 2 document as protobuf, the only form in which clients written in Go read it.
//!
//! The messages are those of gnostic's `openapi.v2`. They are written by hand, field by field, because a document is
//! only ever written here and never read, and of the sixty messages a dozen are used. Values of free form
//! (extensions, defaults, enumerations) are carried as YAML text; JSON is YAML.

use serde_json::{Map, Value};

/// Encodes a document of [`super::v2_document`].
#[must_use]
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    out.message(2, |info| {
        info.text(1, &document["info"]["title"]);
        info.text(2, &document["info"]["version"]);
    });
    out.message(8, |paths| {
        for (path, item) in fields(&document["paths"]) {
            paths.named(2, path, |out| path_item(out, item));
        }
    });
    out.message(9, |definitions| {
        for (name, definition) in fields(&document["definitions"]) {
            definitions.named(1, name, |out| schema(out, definition));
        }
    });
    out.bytes
}

/// The bytes of one message.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn tag(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn delimited(&mut self, field: u64, content: &[u8]) {
        self.tag(field, 2);
        self.varint(content.len() as u64);
        self.bytes.extend_from_slice(content);
    }

    fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.delimited(field, &inner.bytes);
    }

    /// An entry of a map, which gnostic writes as a message of name and value.
    fn named(&mut self, field: u64, name: &str, write: impl FnOnce(&mut Self)) {
        self.message(field, |entry| {
            entry.delimited(1, name.as_bytes());
            entry.message(2, write);
        });
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.delimited(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, values: &Value) {
        for text in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.delimited(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value == &Value::Bool(true) {
            self.tag(field, 0);
            self.varint(1);
        }
    }

    fn integer(&mut self, field: u64, value: &Value) {
        if let Some(integer) = value.as_i64().filter(|integer| *integer != 0) {
            self.tag(field, 0);
            self.varint(integer.cast_unsigned());
        }
    }

    fn double(&mut self, field: u64, value: &Value) {
        if let Some(float) = value.as_f64().filter(|float| *float != 0.0) {
            self.tag(field, 1);
            self.bytes.extend_from_slice(&float.to_le_bytes());
        }
    }

    fn any(&mut self, field: u64, value: &Value) {
        if !value.is_null() {
            self.message(field, |any| any.delimited(2, value.to_string().as_bytes()));
        }
    }

    fn extensions(&mut self, field: u64, value: &Value) {
        for (name, extension) in fields(value).filter(|(name, _)| name.starts_with("x-")) {
            self.named(field, name, |any| any.delimited(2, extension.to_string().as_bytes()));
        }
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn path_item(out: &mut Message, item: &Value) {
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item[method].is_object() {
            out.message(field, |out| operation(out, &item[method]));
        }
    }
    for value in item["parameters"].as_array().into_iter().flatten() {
        out.message(9, |out| parameter(out, value));
    }
}

fn operation(out: &mut Message, operation: &Value) {
    out.texts(1, &operation["tags"]);
    out.text(3, &operation["description"]);
    out.text(5, &operation["operationId"]);
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    for value in operation["parameters"].as_array().into_iter().flatten() {
        out.message(8, |out| parameter(out, value));
    }
    out.message(9, |out| {
        for (code, response) in fields(&operation["responses"]) {
            out.named(1, code, |value| {
                value.message(1, |out| {
                    out.text(1, &response["description"]);
                    out.message(2, |item| item.message(1, |out| schema(out, &response["schema"])));
                });
            });
        }
    });
    out.texts(10, &operation["schemes"]);
    out.extensions(13, operation);
}

/// A parameter is wrapped three times: inline or reference, body or not, and where it stands.
fn parameter(out: &mut Message, parameter: &Value) {
    out.message(1, |out| match parameter["in"].as_str() {
        Some("body") => out.message(1, |out| {
            out.text(1, &parameter["description"]);
            out.text(2, &parameter["name"]);
            out.text(3, &parameter["in"]);
            out.flag(4, &parameter["required"]);
            out.message(5, |out| schema(out, &parameter["schema"]));
        }),
        place => out.message(2, |out| {
            let (field, kind) = if place == Some("query") { (3, 6) } else { (4, 5) };
            out.message(field, |out| {
                out.flag(1, &parameter["required"]);
                out.text(2, &parameter["in"]);
                out.text(3, &parameter["description"]);
                out.text(4, &parameter["name"]);
                out.text(kind, &parameter["type"]);
            });
        }),
    });
}

fn schema(out: &mut Message, value: &Value) {
    out.text(1, &value["$ref"]);
    out.text(2, &value["format"]);
    out.text(3, &value["title"]);
    out.text(4, &value["description"]);
    out.any(5, &value["default"]);
    out.double(6, &value["multipleOf"]);
    out.double(7, &value["maximum"]);
    out.flag(8, &value["exclusiveMaximum"]);
    out.double(9, &value["minimum"]);
    out.flag(10, &value["exclusiveMinimum"]);
    out.integer(11, &value["maxLength"]);
    out.integer(12, &value["minLength"]);
    out.text(13, &value["pattern"]);
    out.integer(14, &value["maxItems"]);
    out.integer(15, &value["minItems"]);
    out.integer(17, &value["maxProperties"]);
    out.integer(18, &value["minProperties"]);
    out.texts(19, &value["required"]);
    for allowed in value["enum"].as_array().into_iter().flatten() {
        out.any(20, allowed);
    }
    if value["additionalProperties"].is_object() {
        out.message(21, |item| item.message(1, |out| schema(out, &value["additionalProperties"])));
    }
    if value["type"].is_string() {
        out.message(22, |out| out.text(1, &value["type"]));
    }
    if value["items"].is_object() {
        out.message(23, |item| item.message(1, |out| schema(out, &value["items"])));
    }
    if value["properties"].is_object() {
        out.message(25, |out| {
            for (name, property) in fields(&value["properties"]) {
                out.named(1, name, |out| schema(out, property));
            }
        });
    }
    out.extensions(31, value);
}
