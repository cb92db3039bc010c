//! Label and field selectors: their text form and what they match.

use std::collections::BTreeMap;

/// A label selector as in `labelSelector=a=b,c in (d,e),!f`. All requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

/// A selector that cannot be read; the text says where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub struct SelectorError(pub String);

impl LabelSelector {
    /// Reads a selector; an empty text matches everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if !part.is_empty() {
                requirements.push(Requirement::parse(part)?);
            }
        }
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `labels` meet all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        if let Some(key) = text.strip_prefix('!') {
            return Self::new(key, Operator::DoesNotExist);
        }
        if let Some((head, values)) = text.split_once('(') {
            let Some(values) = values.trim_end().strip_suffix(')') else {
                return Err(SelectorError(format!("found '{text}', expected: ')'")));
            };
            let values = values.split(',').map(|value| value.trim().to_owned()).collect();
            let mut words = head.split_whitespace();
            return match (words.next(), words.next(), words.next()) {
                (Some(key), Some("in"), None) => Self::new(key, Operator::In(values)),
                (Some(key), Some("notin"), None) => Self::new(key, Operator::NotIn(values)),
                _ => Err(SelectorError(format!("found '{head}', expected: in, notin"))),
            };
        }
        for (symbol, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some((key, value)) = text.split_once(symbol) {
                let values = vec![value.trim().to_owned()];
                return Self::new(key, if negated { Operator::NotIn(values) } else { Operator::In(values) });
            }
        }
        for (symbol, greater) in [('>', true), ('<', false)] {
            if let Some((key, value)) = text.split_once(symbol) {
                let bound = value.trim().parse().map_err(|_| {
                    SelectorError(format!("values[0][{key}]: Invalid value: \"{}\": for 'Gt', 'Lt' operators, the value must be an integer", value.trim()))
                })?;
                let operator = if greater { Operator::GreaterThan(bound) } else { Operator::LessThan(bound) };
                return Self::new(key, operator);
            }
        }
        Self::new(text, Operator::Exists)
    }

    fn new(key: &str, operator: Operator) -> Result<Self, SelectorError> {
        let key = key.trim();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        if key.is_empty() || !key.chars().all(plain) {
            return Err(SelectorError(format!("found '{key}', expected: !, identifier, or 'end of string'")));
        }
        Ok(Self { key: key.to_owned(), operator })
    }

    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        let number = || label.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => label.is_some_and(|label| values.contains(label)),
            Operator::NotIn(values) => label.is_none_or(|label| !values.contains(label)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|value| value > *bound),
            Operator::LessThan(bound) => number().is_some_and(|value| value < *bound),
        }
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth <= 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// A field selector as in `fieldSelector=metadata.name=a,status.phase!=Active`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

/// One requirement of a field selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Path such as `metadata.name`.
    pub field: String,
    /// The value compared with.
    pub value: String,
    /// Whether the field must differ.
    pub negated: bool,
}

impl FieldSelector {
    /// Reads a selector; an empty text matches everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let split = [("!=", true), ("==", false), ("=", false)]
                .into_iter()
                .find_map(|(symbol, negated)| part.split_once(symbol).map(|found| (found, negated)));
            let Some(((field, value), negated)) = split else {
                return Err(SelectorError(format!("invalid selector: '{part}'; can't understand '{part}'")));
            };
            requirements.push(FieldRequirement {
                field: field.trim().into(),
                value: value.trim().into(),
                negated,
            });
        }
        Ok(Self(requirements))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields it looks at.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|requirement| requirement.field.as_str())
    }

    /// The value that `field` must have, if it is required to equal one.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }

    /// Whether all requirements hold, given how to read a field.
    pub fn matches(&self, mut read: impl FnMut(&str) -> String) -> bool {
        self.0
            .iter()
            .all(|requirement| (read(&requirement.field) == requirement.value) != requirement.negated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_match_as_kubernetes_does() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("n".to_owned(), "5".to_owned())]);
        let check = |text: &str, expected: Result<bool, ()>| {
            let found = LabelSelector::parse(text).map(|selector| selector.matches(&labels)).map_err(|_| ());
            assert_eq!(found, expected, "{text}");
        };
        check("", Ok(true));
        check("app=web", Ok(true));
        check("app==web,n=5", Ok(true));
        check("app!=web", Ok(false));
        check("other!=web", Ok(true));
        check("app in (api, web)", Ok(true));
        check("app notin (api,web)", Ok(false));
        check("other notin (a)", Ok(true));
        check("app", Ok(true));
        check("!app", Ok(false));
        check("!other,app in (web),n>4", Ok(true));
        check("n<5", Ok(false));
        check("app in (web", Err(()));
        check("app of (web)", Err(()));
        check("a b", Err(()));
        check("n>x", Err(()));
    }

    #[test]
    fn field_selectors_compare_text() {
        let selector = FieldSelector::parse("metadata.name=a,status.phase!=Active");
        let read = |field: &str| if field == "metadata.name" { "a".to_owned() } else { String::new() };
        assert_eq!(selector.map(|selector| selector.matches(read)), Ok(true));
        assert!(FieldSelector::parse("metadata.name").is_err());
    }
}
