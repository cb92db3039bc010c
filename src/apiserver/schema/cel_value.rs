//! JSON values as CEL sees them, read by the schema.
//!
//! The schema decides what a string is (a timestamp, a duration, bytes or text), whether `1` is an integer or a
//! double, and whether an object's keys are field names (which are escaped so that they are CEL identifiers) or the
//! keys of a map (which are data and stay as they are).

use super::format::Format;
use super::node::{Additional, Node, ValueType};
use kube_cel::KubeCelExt;
use kube_cel::cel::objects::{Key, Map, Value, ValueType as CelType};
use kube_cel::cel::{Context, Program, ResolveResult};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// The words that CEL reserves; a field of that name is written `__name__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Converts a value by its schema. `base` provides the functions that read timestamps and durations.
pub(super) fn convert(value: &serde_json::Value, node: Option<&Node>, base: &Context<'_>) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(flag) => Value::Bool(*flag),
        serde_json::Value::Number(number) => convert_number(number, node),
        serde_json::Value::String(text) => convert_string(text, node, base),
        serde_json::Value::Array(items) => {
            let node = node.and_then(|node| node.items.as_deref());
            Value::List(Arc::new(items.iter().map(|item| convert(item, node, base)).collect()))
        }
        serde_json::Value::Object(fields) => {
            let is_map = node.is_some_and(|node| !matches!(node.additional, Additional::Unset));
            let entries = fields.iter().map(|(name, value)| {
                let key = if is_map { name.clone() } else { escape(name) };
                (Key::String(Arc::new(key)), convert(value, node.and_then(|node| node.field(name)), base))
            });
            let mut map: HashMap<Key, Value> = entries.collect();
            if node.is_some_and(|node| node.embedded) {
                let text = || Value::String(Arc::new(String::new()));
                let key = |name: &str| Key::String(Arc::new(name.to_owned()));
                map.entry(key("apiVersion")).or_insert_with(text);
                map.entry(key("kind")).or_insert_with(text);
                map.entry(key("metadata")).or_insert_with(|| Value::Map(Map { map: Arc::default() }));
            }
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// A resource as rules at its root see it: of its metadata only the names.
pub(super) fn convert_root(object: &serde_json::Value, root: &Node, base: &Context<'_>) -> Value {
    let Some(metadata) = object.get("metadata").and_then(serde_json::Value::as_object) else {
        return convert(object, Some(root), base);
    };
    let names = metadata.iter().filter(|(field, _)| matches!(field.as_str(), "name" | "generateName"));
    let mut object = object.clone();
    object["metadata"] = names.map(|(field, name)| (field.clone(), name.clone())).collect();
    convert(&object, Some(root), base)
}

fn convert_number(number: &serde_json::Number, node: Option<&Node>) -> Value {
    let float = number.as_f64().unwrap_or(f64::NAN);
    let types = node.map_or(&[][..], |node| node.types.as_slice());
    match number.as_i64() {
        Some(integer) if types != [ValueType::Number] => Value::Int(integer),
        None if types == [ValueType::Integer] && float.fract() == 0.0 => Value::Int(float as i64),
        _ => Value::Float(float),
    }
}

fn convert_string(text: &str, node: Option<&Node>, base: &Context<'_>) -> Value {
    let plain = || Value::String(Arc::new(text.to_owned()));
    let format = node.filter(|node| !node.int_or_string).and_then(|node| node.format.as_ref());
    match format {
        Some((_, Format::DateTime)) => read(&READ_TIMESTAMP, text, base).unwrap_or_else(plain),
        Some((_, Format::Date)) => {
            read(&READ_TIMESTAMP, &format!("{text}T00:00:00Z"), base).unwrap_or_else(plain)
        }
        Some((_, Format::Duration)) => read(&READ_DURATION, text, base).unwrap_or_else(plain),
        Some((_, Format::Byte)) => {
            use base64::Engine as _;
            match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(bytes) => Value::Bytes(Arc::new(bytes)),
                Err(_) => plain(),
            }
        }
        _ => plain(),
    }
}

/// A scope with everything that Kubernetes' rules may call, `dyn` and `type` among it, which the crate leaves out.
pub(super) fn functions() -> Context<'static> {
    // The names of types are values in CEL; here they are texts, which compare in the same way.
    const TYPES: [(&str, &str); 11] = [
        ("bool", "bool"),
        ("bytes", "bytes"),
        ("double", "double"),
        ("int", "int"),
        ("list", "list"),
        ("map", "map"),
        ("null_type", "null"),
        ("string", "string"),
        ("uint", "uint"),
        ("duration", "duration"),
        ("timestamp", "timestamp"),
    ];
    let mut context = Context::default().with_all();
    for (name, value) in TYPES {
        context.add_variable_from_value(name, value);
    }
    context.add_function("dyn", |value: Value| -> ResolveResult { Ok(value) });
    context.add_function("type", |value: Value| match value.type_of() {
        CelType::Float => "double".to_owned(),
        other => other.to_string(),
    });
    context
}

/// Going through CEL's own conversions keeps its types for time, and the crate behind them, out of this one.
static READ_TIMESTAMP: LazyLock<Option<Program>> = LazyLock::new(|| Program::compile("timestamp(text)").ok());
static READ_DURATION: LazyLock<Option<Program>> = LazyLock::new(|| Program::compile("duration(text)").ok());

fn read(program: &LazyLock<Option<Program>>, text: &str, base: &Context<'_>) -> Option<Value> {
    let mut scope = base.new_inner_scope();
    scope.add_variable_from_value("text", text);
    program.as_ref()?.execute(&scope).ok()
}

/// A field's name as a CEL identifier.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    if !name.contains(['.', '-', '/']) && !name.contains("__") {
        return name.to_owned();
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_become_identifiers() {
        for (name, expected) in [
            ("namespace", "__namespace__"),
            ("a-b", "a__dash__b"),
            ("a.b/c", "a__dot__b__slash__c"),
            ("my_field", "my_field"),
            ("a__b", "a__underscores__b"),
            ("int", "int"),
        ] {
            assert_eq!(escape(name), expected);
        }
    }
}
