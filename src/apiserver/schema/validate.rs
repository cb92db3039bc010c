//! Checking a value against a schema, worded as kube-openapi words it.
//!
//! The order of the checks and the number of positive ones matter: when no branch of an `anyOf` or `oneOf` holds,
//! the errors of the branch with the most positive checks are the ones shown. [`Outcome`] therefore counts as
//! kube-openapi counts.
//!
//! On an update, errors inside a value that is the same as before are dropped (ratcheting): whoever tightens a
//! schema must not make unrelated changes to old objects impossible.

use super::cause::{Cause, go_float, quoted};
use super::correlate::Old;
use super::node::{Additional, Bound, Node, ValueType};
use serde_json::{Map, Number, Value};

/// What came of checking one value.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) causes: Vec<Cause>,
    matches: usize,
}

impl Outcome {
    fn of(cause: Cause) -> Self {
        Self { causes: vec![cause], matches: 0 }
    }

    fn add(&mut self, cause: Cause) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    fn merge(&mut self, other: Self) {
        for cause in other.causes {
            self.add(cause);
        }
        self.matches += other.matches;
    }

    fn is_valid(&self) -> bool {
        self.causes.is_empty()
    }
}

/// Checks `value` at `path` (empty at the root). `old` is the value it replaces, if there is one.
pub(super) fn check(value: &Value, node: &Node, old: Option<Old<'_>>, path: &str) -> Outcome {
    let mut outcome = check_any(value, node, old, path);
    if !outcome.is_valid() && old.is_some_and(|old| old.equals(value)) {
        outcome.causes.clear();
    }
    outcome
}

/// [`check`] without ratcheting at this level.
fn check_any(value: &Value, node: &Node, old: Option<Old<'_>>, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    if value.is_null() {
        outcome.merge(check_type(value, node, path));
        outcome.merge(check_enum(value, node, path));
        return outcome;
    }
    if !node.types.is_empty() || node.format.is_some() {
        outcome.merge(check_type(value, node, path));
        outcome.matches += 1;
    }
    outcome.merge(check_junctors(value, node, path));
    outcome.matches += 1;
    match value {
        Value::String(text) => {
            outcome.merge(check_string(text, node, path));
            outcome.matches += 1;
            if let Some((name, format)) = &node.format {
                if !format.accepts(text) {
                    outcome.add(wrong_type(path, name, text));
                }
                outcome.matches += 1;
            }
        }
        Value::Number(number) => {
            outcome.merge(check_number(number, node, path));
            outcome.matches += 1;
        }
        Value::Array(items) => {
            outcome.merge(check_items(items, node, old, path));
            outcome.matches += 1;
        }
        _ => {}
    }
    outcome.merge(check_enum(value, node, path));
    outcome.matches += 1;
    if let Value::Object(map) = value {
        outcome.merge(check_object(map, node, old, path));
        outcome.matches += 1;
    }
    outcome.matches += 1;
    outcome
}

/// The field that a path of kube-openapi stands for; those below the root may start with a dot.
fn field(path: &str) -> &str {
    path.strip_prefix('.').unwrap_or(path)
}

fn wrong_type(path: &str, expected: &str, actual: &str) -> Cause {
    let detail = format!("{path} in body must be of type {expected}: {}", quoted(actual));
    Cause::type_invalid(field(path), &Value::from(actual), &detail)
}

fn check_type(value: &Value, node: &Node, path: &str) -> Outcome {
    let expects = |t: ValueType| node.types.contains(&t);
    let (actual, actual_format) = match value {
        Value::Null => {
            if node.types.is_empty() || node.nullable {
                return Outcome { matches: 1, ..Outcome::default() };
            }
            return Outcome::of(wrong_type(path, &node.type_names(), "null"));
        }
        Value::Bool(_) => (ValueType::Boolean, ""),
        Value::String(_) => (ValueType::String, ""),
        Value::Number(number) if is_integer(number) => (ValueType::Integer, "int64"),
        Value::Number(_) => (ValueType::Number, "float64"),
        Value::Array(_) => (ValueType::Array, ""),
        Value::Object(_) => (ValueType::Object, ""),
    };
    let converts = match (actual, value) {
        (ValueType::Integer, _) => expects(ValueType::Number),
        (ValueType::Number, Value::Number(number)) => {
            expects(ValueType::Integer) && number.as_f64().is_some_and(is_whole)
        }
        _ => false,
    };
    let fits = expects(actual) || converts;
    let textual = matches!(actual, ValueType::String | ValueType::Array);
    if let Some((format, _)) = &node.format {
        if !textual && !fits {
            return Outcome::of(wrong_type(path, format, actual_format));
        }
        // kube-openapi leaves the type of text and lists to the format's own check.
        if textual && !expects(ValueType::Number) && !expects(ValueType::Integer) {
            return Outcome { matches: 1, ..Outcome::default() };
        }
    }
    if fits {
        return Outcome { matches: 1, ..Outcome::default() };
    }
    Outcome::of(wrong_type(path, &node.type_names(), actual.name()))
}

/// Go decodes a JSON number into an integer when it has neither fraction nor exponent and fits 64 bits.
fn is_integer(number: &Number) -> bool {
    number.is_i64()
}

fn is_whole(float: f64) -> bool {
    const LARGEST: f64 = 9_007_199_254_740_991.0;
    float.is_finite() && float.abs() <= LARGEST && float.fract().abs() < 1e-9
}

/// Branches are checked as if the value were new: kube-apiserver does not ratchet inside of them.
fn check_junctors(value: &Value, node: &Node, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let name = quoted(path);
    let unplaced = |message: String| Cause::invalid("", &Value::from(""), &message);

    if !node.any_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut holds = false;
        for branch in &node.any_of {
            let result = check_any(value, branch, None, path);
            holds = result.is_valid();
            if holds || best.as_ref().is_none_or(|best| result.matches > best.matches) {
                best = Some(result);
            }
            if holds {
                break;
            }
        }
        if !holds {
            outcome.add(unplaced(format!("{name} must validate at least one schema (anyOf)")));
        }
        outcome.merge(best.unwrap_or_default());
    }

    if !node.one_of.is_empty() {
        let mut best: Option<Outcome> = None;
        let mut first: Option<Outcome> = None;
        let mut count = 0;
        for branch in &node.one_of {
            let result = check_any(value, branch, None, path);
            if result.is_valid() {
                count += 1;
                best = None;
                first.get_or_insert(result);
            } else if count == 0 && best.as_ref().is_none_or(|best| result.matches > best.matches) {
                best = Some(result);
            }
        }
        if count == 1 {
            outcome.merge(first.unwrap_or_default());
        } else {
            let found = if count == 0 {
                "Found none valid".to_owned()
            } else {
                format!("Found {count} valid alternatives")
            };
            outcome.add(unplaced(format!("{name} must validate one and only one schema (oneOf). {found}")));
            outcome.merge(best.unwrap_or_default());
        }
    }

    if !node.all_of.is_empty() {
        let mut valid = 0;
        for branch in &node.all_of {
            let result = check_any(value, branch, None, path);
            valid += usize::from(result.is_valid());
            outcome.merge(result);
        }
        if valid != node.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            outcome.add(unplaced(format!("{name} must validate all the schemas (allOf){none}")));
        }
    }

    if let Some(not) = &node.not
        && check_any(value, not, None, path).is_valid()
    {
        outcome.add(unplaced(format!("{name} must not validate the schema (not)")));
    }
    outcome.matches += 1;
    outcome
}

fn check_string(text: &str, node: &Node, path: &str) -> Outcome {
    let value = || Value::from(text);
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = node.max_length
        && length > max
    {
        return Outcome::of(Cause::too_long(field(path), max));
    }
    if let Some(min) = node.min_length
        && length < min
    {
        let detail = format!("{path} in body should be at least {min} chars long");
        return Outcome::of(Cause::invalid(field(path), &value(), &detail));
    }
    if let Some((pattern, regex)) = &node.pattern
        && !regex.is_match(text)
    {
        let detail = format!("{path} in body should match '{pattern}'");
        return Outcome::of(Cause::invalid(field(path), &value(), &detail));
    }
    Outcome::default()
}

fn check_number(number: &Number, node: &Node, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let mut refuse = |words: &str, bound: &str| {
        let detail = format!("{path} in body should be {words} {bound}");
        outcome.add(Cause::invalid(field(path), &Value::Number(number.clone()), &detail));
    };
    // Integers are compared with the bound cut to an integer, as kube-openapi does it.
    let integer = number.as_i64();
    let float = number.as_f64().unwrap_or(f64::NAN);
    let shown = |bound: f64| if integer.is_some() { (bound as i64).to_string() } else { go_float(bound) };

    if let Some(factor) = node.multiple_of {
        let holds = match integer {
            Some(_) if factor as i64 <= 0 => true,
            Some(integer) => integer % (factor as i64) == 0,
            None if factor <= 0.0 => true,
            None => is_whole(if factor < 1.0 { 1.0 / factor * float } else { float / factor }),
        };
        if !holds {
            refuse("a multiple of", &shown(factor));
        }
    }
    if let Some(Bound { value, exclusive }) = node.minimum {
        let below = match integer {
            Some(integer) => integer < value as i64 || (exclusive && integer == value as i64),
            None => float < value || (exclusive && float == value),
        };
        if below {
            refuse(if exclusive { "greater than" } else { "greater than or equal to" }, &shown(value));
        }
    }
    if let Some(Bound { value, exclusive }) = node.maximum {
        let above = match integer {
            Some(integer) => integer > value as i64 || (exclusive && integer == value as i64),
            None => float > value || (exclusive && float == value),
        };
        if above {
            refuse(if exclusive { "less than" } else { "less than or equal to" }, &shown(value));
        }
    }
    outcome.matches += 1;
    outcome
}

fn check_items(items: &[Value], node: &Node, old: Option<Old<'_>>, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    if let Some(item_node) = node.items.as_deref() {
        for (index, item) in items.iter().enumerate() {
            let old = old.and_then(|old| old.item(item));
            outcome.merge(check(item, item_node, old, &format!("{path}[{index}]")));
        }
    }
    let size = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(min) = node.min_items
        && size < min
    {
        let detail = format!("{path} in body should have at least {min} items");
        outcome.add(Cause::invalid(field(path), &Value::from(size), &detail));
    }
    if let Some(max) = node.max_items
        && size > max
    {
        outcome.add(Cause::too_many(field(path), items.len(), max));
    }
    outcome.matches += 1;
    outcome
}

fn check_enum(value: &Value, node: &Node, path: &str) -> Outcome {
    let same = |allowed: &Value| match (value, allowed) {
        (Value::Null, _) => false,
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            // kube-openapi converts the value to the type of the enumerated one, which cuts off a fraction.
            (None, Some(b)) => a.as_f64().is_some_and(|a| a as i64 == b),
            _ => a == b || a.as_f64() == b.as_f64(),
        },
        (a, b) => a == b,
    };
    if node.allowed.is_empty() || node.allowed.iter().any(same) {
        return Outcome::default();
    }
    let names: Vec<String> =
        node.allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
    Outcome::of(Cause::not_supported(field(path), value, &names))
}

fn check_object(map: &Map<String, Value>, node: &Node, old: Option<Old<'_>>, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let size = i64::try_from(map.len()).unwrap_or(i64::MAX);
    if let Some(min) = node.min_properties
        && size < min
    {
        let detail = format!("{path} in body should have at least {min} properties");
        outcome.add(Cause::invalid(field(path), &Value::from(size), &detail));
    }
    if let Some(max) = node.max_properties
        && size > max
    {
        outcome.add(Cause::too_many(field(path), map.len(), max));
    }
    // At the root the API version and kind are not ratcheted: both objects have been converted to the same ones.
    let old_field = |name: &str| {
        old.filter(|_| !path.is_empty() || !matches!(name, "apiVersion" | "kind"))
            .and_then(|old| old.field(name))
    };
    for (name, value) in map.iter().filter(|(name, _)| !node.properties.contains_key(*name)) {
        match &node.additional {
            Additional::Schema(values) => {
                outcome.merge(check(value, values, old_field(name), &format!("{path}.{name}")));
            }
            Additional::Denied => {
                let detail = format!("{path}.{name} in body is a forbidden property");
                outcome.add(Cause::invalid(field(path), &Value::from(name.as_str()), &detail));
            }
            Additional::Unset | Additional::Any => {}
        }
    }
    for (name, property) in &node.properties {
        if let Some(value) = map.get(name) {
            let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            outcome.merge(check(value, property, old_field(name), &below));
        }
    }
    for name in node.required.iter().filter(|name| !map.contains_key(*name)) {
        outcome.add(Cause::required(field(&format!("{path}.{name}")), ""));
    }
    outcome
}
