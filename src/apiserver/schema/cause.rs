//! Why a field of an object is refused, worded as kube-apiserver words it.
//!
//! The words matter: `kubectl` prints them, operators search for them, and tests compare them between this server and
//! a real one. Values are therefore rendered as Go renders them (`%q` for strings, `%v` for numbers).

use serde_json::Value;
use std::fmt;

/// The machine-readable reason of a [`Cause`], as it stands in `status.details.causes[].reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A required value is missing.
    Required,
    /// A value that must be unique occurs twice.
    Duplicate,
    /// A value is malformed or out of bounds.
    Invalid,
    /// A value is not one of the enumerated ones.
    NotSupported,
    /// A value is well-formed but not permitted here.
    Forbidden,
    /// A string is too long.
    TooLong,
    /// A list or map has too many entries.
    TooMany,
    /// A value has the wrong JSON type or format.
    TypeInvalid,
}

impl Reason {
    /// The reason as Kubernetes spells it, for example `FieldValueRequired`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }
}

/// One reason why an object is refused; `to_string()` gives `field: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// What kind of mistake it is.
    pub reason: Reason,
    /// Where it is, for example `spec.match[0].methods[0]`; `<nil>` where kube-apiserver knows no field.
    pub field: String,
    /// What is wrong, for example `Invalid value: 0: spec.port in body should be greater than or equal to 1`.
    pub message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// What kube-apiserver prints for an error that belongs to no field.
pub(super) const NO_FIELD: &str = "<nil>";

impl Cause {
    fn new(reason: Reason, field: impl Into<String>, value: Option<&Value>, detail: &str) -> Self {
        let mut message = reason.words().to_owned();
        if let Some(value) = value {
            message.push_str(": ");
            message.push_str(&shown(value));
        }
        if !detail.is_empty() {
            message.push_str(": ");
            message.push_str(detail);
        }
        let field = field.into();
        let field = if field.is_empty() { NO_FIELD.to_owned() } else { field };
        Self { reason, field, message }
    }

    /// A required value is missing.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(Reason::Required, field, None, detail)
    }

    /// A value is not permitted.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(Reason::Forbidden, field, None, detail)
    }

    /// A value is malformed or out of bounds.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(Reason::Invalid, field, Some(value), detail)
    }

    /// A value has the wrong type.
    #[must_use]
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(Reason::TypeInvalid, field, Some(value), detail)
    }

    /// A value occurs twice.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(Reason::Duplicate, field, Some(value), "")
    }

    /// A value is not among `supported`.
    #[must_use]
    pub fn not_supported<S: AsRef<str>>(field: impl Into<String>, value: &Value, supported: &[S]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| quoted(s.as_ref())).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(Reason::NotSupported, field, Some(value), &detail)
    }

    /// A string has more than `max` characters (kube-apiserver counts characters and says bytes).
    #[must_use]
    pub fn too_long(field: impl Into<String>, max: i64) -> Self {
        let bytes = if max == 1 { "byte" } else { "bytes" };
        Self::new(Reason::TooLong, field, None, &format!("may not be more than {max} {bytes}"))
    }

    /// A list or map has `actual` entries where at most `max` are allowed.
    #[must_use]
    pub fn too_many(field: impl Into<String>, actual: usize, max: i64) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let actual = Value::from(actual);
        Self::new(Reason::TooMany, field, Some(&actual), &format!("must have at most {max} {items}"))
    }
}

/// A value as it appears in a message: strings quoted, numbers and booleans plain, everything else as JSON.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => quoted(s),
        Value::Number(n) => match n.as_f64() {
            Some(f) if n.is_f64() => go_float(f),
            _ => n.to_string(),
        },
        other => go_json(other),
    }
}

/// JSON as Go's encoder writes it: whole floats without a fraction, and what means something in HTML escaped.
fn go_json(value: &Value) -> String {
    fn whole(value: &Value) -> Value {
        match value {
            Value::Number(n) if n.is_f64() => match n.as_f64() {
                Some(float) if float.fract() == 0.0 && float.abs() < 1e15 => Value::from(float as i64),
                _ => value.clone(),
            },
            Value::Array(items) => items.iter().map(whole).collect(),
            Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), whole(value))).collect(),
            other => other.clone(),
        }
    }
    whole(value).to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A floating-point number as Go's `%v` prints it: the shortest form, with an exponent below 1e-4 and from 1e21 on.
pub(super) fn go_float(f: f64) -> String {
    if f == 0.0 || (1e-4..1e21).contains(&f.abs()) {
        return f.to_string();
    }
    let text = format!("{f:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

/// A string as Go's `%q` prints it.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_shown_as_go_shows_them() {
        for (value, expected) in [
            (json!("a\"b\n\u{1}é"), r#""a\"b\n\x01é""#),
            (json!(0), "0"),
            (json!(-1.5), "-1.5"),
            (json!(1.0), "1"),
            (json!(1e21), "1e+21"),
            (json!(2.5e-7), "2.5e-07"),
            (json!(true), "true"),
            (json!(null), "null"),
            (json!({"b": "<", "a": [1, 2.0, 0.5]}), r#"{"a":[1,2,0.5],"b":"\u003c"}"#),
        ] {
            assert_eq!(shown(&value), expected);
        }
    }

    #[test]
    fn causes_read_like_those_of_kube_apiserver() {
        for (cause, reason, expected) in [
            (Cause::required("spec.a", ""), "FieldValueRequired", "spec.a: Required value"),
            (Cause::too_long("a", 1), "FieldValueTooLong", "a: Too long: may not be more than 1 byte"),
            (Cause::too_long("a", 2), "FieldValueTooLong", "a: Too long: may not be more than 2 bytes"),
            (Cause::too_many("a", 3, 2), "FieldValueTooMany", "a: Too many: 3: must have at most 2 items"),
            (
                Cause::not_supported("m", &json!("FOO"), &["GET", "PUT"]),
                "FieldValueNotSupported",
                r#"m: Unsupported value: "FOO": supported values: "GET", "PUT""#,
            ),
            (
                Cause::duplicate("l[1]", &json!({"k": 1})),
                "FieldValueDuplicate",
                r#"l[1]: Duplicate value: {"k":1}"#,
            ),
            (Cause::invalid("", &json!(""), "x"), "FieldValueInvalid", r#"<nil>: Invalid value: "": x"#),
        ] {
            assert_eq!(cause.to_string(), expected);
            assert_eq!(cause.reason.as_str(), reason);
        }
    }
}
