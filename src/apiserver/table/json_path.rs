//! The part of kubectl's JSONPath that columns of custom resources use: fields, indices, slices, wildcards, unions
//! of them, recursive descent, and filters that compare with a constant.

use serde_json::Value;
use std::cmp::Ordering;

/// A path, read once per table.
#[derive(Debug, PartialEq)]
pub(super) struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Descend,
    Slice { from: Option<i64>, to: Option<i64>, step: Option<usize> },
    Union(Vec<Vec<Step>>),
    Filter { left: JsonPath, operator: Operator, right: Option<Value> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`; `None` if it is not one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
        steps(text.strip_prefix(['$', '@']).unwrap_or(text)).map(|steps| Self { steps })
    }

    /// Everything that the path leads to, in order.
    pub(super) fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        walk(&self.steps, vec![value])
    }
}

fn steps(mut rest: &str) -> Option<Vec<Step>> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            found.push(Step::Descend);
            rest = after;
            if !rest.starts_with(['[', '.']) {
                let (step, after) = field(rest)?;
                found.push(step);
                rest = after;
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.starts_with('[') {
                rest = after;
                continue;
            }
            let (step, after) = field(after)?;
            found.push(step);
            rest = after;
        } else if let Some(after) = rest.strip_prefix("[?(") {
            let (inside, after) = closed(after, ")]")?;
            found.push(filter(inside)?);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (inside, after) = closed(after, "]")?;
            found.push(brackets(inside)?);
            rest = after;
        } else {
            return None;
        }
    }
    Some(found)
}

/// Splits at the first `end` that is not inside quotes.
fn closed<'a>(text: &'a str, end: &str) -> Option<(&'a str, &'a str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, _) if text[at..].starts_with(end) => return Some((&text[..at], &text[at + end.len()..])),
            _ => {}
        }
    }
    None
}

/// A field's name, in which a backslash takes the next character literally.
fn field(text: &str) -> Option<(Step, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' | ']' | ',' | '$' | '@' | '{' | '}' | ' ' | '\t' => {
                end = at;
                break;
            }
            c => name.push(c),
        }
    }
    let step = match name.as_str() {
        "" => return None,
        "*" => Step::Wildcard,
        _ => Step::Field(name),
    };
    Some((step, &text[end..]))
}

fn brackets(inside: &str) -> Option<Step> {
    let quoted = |text: &str| {
        let text = text.trim();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
        Some(text.strip_prefix(quote)?.strip_suffix(quote)?.replace('\\', ""))
    };
    if inside == "*" {
        return Some(Step::Slice { from: None, to: None, step: None });
    }
    if let Some(name) = quoted(inside).filter(|_| !inside.contains("','")) {
        return Some(Step::Field(name));
    }
    if inside.contains(',') {
        let parts: Option<Vec<_>> =
            inside.split(',').map(|part| Some(vec![brackets(part.trim())?])).collect();
        return parts.map(Step::Union);
    }
    let number = |text: &str| if text.is_empty() { Some(None) } else { text.trim().parse().ok().map(Some) };
    let mut parts = inside.split(':');
    let from = number(parts.next()?)?;
    let Some(to) = parts.next() else {
        let from = from?;
        // The last item has no index after it.
        return Some(Step::Slice { from: Some(from), to: (from != -1).then_some(from + 1), step: None });
    };
    let step = match parts.next() {
        None | Some("") => None,
        Some(step) => Some(step.parse().ok().filter(|step| *step > 0)?),
    };
    Some(Step::Slice { from, to: number(to)?, step })
}

fn filter(inside: &str) -> Option<Step> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let Some(at) = inside.find(['=', '!', '<', '>']) else {
        return Some(Step::Filter {
            left: JsonPath::parse(inside.trim())?,
            operator: Operator::Exists,
            right: None,
        });
    };
    let (left, rest) = inside.split_at(at);
    let (right, operator) =
        OPERATORS.iter().find_map(|(sign, operator)| Some((rest.strip_prefix(sign)?.trim(), *operator)))?;
    let single = right.strip_prefix('\'').and_then(|right| right.strip_suffix('\''));
    let right = match single {
        Some(text) => Value::from(text.replace('\\', "")),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Filter { left: JsonPath::parse(left.trim())?, operator, right: Some(right) })
}

fn walk<'a>(steps: &[Step], mut values: Vec<&'a Value>) -> Vec<&'a Value> {
    for step in steps {
        values = values.into_iter().flat_map(|value| apply(step, value)).collect();
    }
    values
}

fn apply<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let children = || match value {
        Value::Array(items) => items.iter().collect::<Vec<_>>(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Wildcard => children(),
        Step::Descend => {
            let mut found = vec![value];
            let mut at = 0;
            while let Some(value) = found.get(at) {
                match value {
                    Value::Array(items) => found.extend(items),
                    Value::Object(map) => found.extend(map.values()),
                    _ => {}
                }
                at += 1;
            }
            found
        }
        Step::Slice { from, to, step } => slice(value, *from, *to, step.unwrap_or(1)),
        Step::Union(parts) => parts.iter().flat_map(|steps| walk(steps, vec![value])).collect(),
        Step::Filter { left, operator, right } => {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            items
                .iter()
                .filter(|item| holds(left.find(item).first().copied(), *operator, right.as_ref()))
                .collect()
        }
    }
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, step: usize) -> Vec<&Value> {
    let Some(items) = value.as_array() else { return Vec::new() };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { at + length } else { at };
    let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length)));
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let slice = range.and_then(|(from, to)| items.get(from..to)).unwrap_or(&[]);
    slice.iter().step_by(step).collect()
}

fn holds(left: Option<&Value>, operator: Operator, right: Option<&Value>) -> bool {
    let Some(left) = left else { return false };
    let Some(right) = right else { return operator == Operator::Exists };
    let order = match (left, right) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) => (a == b).then_some(Ordering::Equal),
    };
    match operator {
        Operator::Exists => true,
        Operator::Equal => order == Some(Ordering::Equal),
        Operator::NotEqual => order != Some(Ordering::Equal),
        Operator::Less => order == Some(Ordering::Less),
        Operator::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Operator::Greater => order == Some(Ordering::Greater),
        Operator::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_what_they_name() {
        let object = json!({
            "metadata": {"labels": {"a.b/c": "l"}},
            "spec": {"n": 1, "hosts": ["a", "b", "c"], "list": [{"k": "x", "n": 1}, {"k": "y", "n": 2}, {"n": 3}]},
            "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.n", json!([1])),
            ("{.spec.n}", json!([1])),
            ("$.spec.n", json!([1])),
            (".spec.none", json!([])),
            (".spec.n.deeper", json!([])),
            (".spec.hosts", json!([["a", "b", "c"]])),
            (".spec.hosts[*]", json!(["a", "b", "c"])),
            (".spec.hosts[0]", json!(["a"])),
            (".spec.hosts[-1]", json!(["c"])),
            (".spec.hosts[-2]", json!(["b"])),
            (".spec.hosts[9]", json!([])),
            (".spec.hosts[1:]", json!(["b", "c"])),
            (".spec.hosts[0:3:2]", json!(["a", "c"])),
            (".spec.hosts[0,2]", json!(["a", "c"])),
            (".spec.list[*].k", json!(["x", "y"])),
            (".spec['n']", json!([1])),
            (".metadata.labels.a\\.b/c", json!(["l"])),
            (".metadata.labels['a\\.b/c']", json!(["l"])),
            (r#".status.conditions[?(@.type=="Ready")].status"#, json!(["True"])),
            (".status.conditions[?(@.type == 'Ready')].status", json!(["True"])),
            (".status.conditions[?(@.type!='Ready')].status", json!(["False"])),
            (".status.conditions[?(@.type=='None')].status", json!([])),
            (".spec.list[?(@.n>1)].n", json!([2, 3])),
            (".spec.list[?(@.n<=2)].n", json!([1, 2])),
            (".spec.list[?(@.k)].n", json!([1, 2])),
            (".spec.list.*.n", json!([1, 2, 3])),
            ("..k", json!(["x", "y"])),
        ] {
            let found: Vec<&Value> = JsonPath::parse(path).unwrap().find(&object);
            assert_eq!(json!(found), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for path in ["spec", ".spec[", ".spec[?(@.a==]", ".a[x]", ".", ".a[0:1:0]", ".a[?(@.a==b)]"] {
            assert_eq!(JsonPath::parse(path), None, "{path}");
        }
    }
}
