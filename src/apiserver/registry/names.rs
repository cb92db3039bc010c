//! What names, labels, annotations and finalizers may look like.

use serde_json::Value;

use crate::schema::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
    alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for \
    validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
    with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
    used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What a name must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Labels joined by dots, 253 characters.
    Subdomain,
    /// One label, 63 characters.
    Label,
    /// One label that begins with a letter.
    Label1035,
}

impl NameRule {
    /// Checks `name`, which is at `field`.
    pub fn check(self, field: &str, name: &str, causes: &mut Vec<Cause>) {
        let (text, limit) = match self {
            Self::Subdomain => (SUBDOMAIN, 253),
            Self::Label => (LABEL, 63),
            Self::Label1035 => (LABEL_1035, 63),
        };
        let good = match self {
            Self::Subdomain => name.split('.').all(is_label),
            Self::Label => is_label(name),
            Self::Label1035 => is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
        };
        if name.len() > limit {
            causes.push(Cause::invalid(
                field,
                &name.into(),
                &format!("must be no more than {limit} characters"),
            ));
        }
        if !good {
            causes.push(Cause::invalid(field, &name.into(), text));
        }
    }
}

/// Whether `text` is a DNS label, apart from its length.
pub fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_plain(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(end)
        && text.ends_with(end)
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Checks a label or annotation key, which is at `field`.
pub fn check_qualified(field: &str, key: &str, causes: &mut Vec<Cause>) {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix
        && (prefix.is_empty() || prefix.len() > 253 || !prefix.split('.').all(is_label))
    {
        let why = if prefix.is_empty() {
            "prefix part must be non-empty".to_owned()
        } else {
            format!("prefix part {SUBDOMAIN}")
        };
        causes.push(Cause::invalid(field, &key.into(), &why));
    }
    if name.is_empty() {
        causes.push(Cause::invalid(field, &key.into(), "name part must be non-empty"));
    } else if name.len() > 63 {
        causes.push(Cause::invalid(field, &key.into(), "name part must be no more than 63 characters"));
    }
    if !is_plain(name) {
        causes.push(Cause::invalid(field, &key.into(), QUALIFIED));
    }
}

/// Checks the labels at `field`.
pub fn check_labels(field: &str, labels: &Value, causes: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        check_qualified(field, key, causes);
        let value = value.as_str().unwrap_or_default();
        if value.len() > 63 {
            causes.push(Cause::invalid(field, &value.into(), "must be no more than 63 characters"));
        }
        if !value.is_empty() && !is_plain(value) {
            causes.push(Cause::invalid(field, &value.into(), LABEL_VALUE));
        }
    }
}

/// Orders versions as Kubernetes prefers them: GA, beta, alpha, then the rest by name; larger is preferred.
pub fn version_rank(name: &str) -> (u8, u32, u32, std::cmp::Reverse<String>) {
    let other = (0, 0, 0, std::cmp::Reverse(name.to_owned()));
    let Some(rest) = name.strip_prefix('v') else { return other };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let Ok(major) = rest[..digits].parse() else { return other };
    let (stage, minor) = match &rest[digits..] {
        "" => (3, Some(0)),
        tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor.parse().ok()),
            (None, Some(minor)) => (1, minor.parse().ok()),
            (None, None) => return other,
        },
    };
    minor.map_or(other, |minor| (stage, major, minor, std::cmp::Reverse(String::new())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_rule() {
        let check = |rule: NameRule, name: &str, good: bool| {
            let mut causes = Vec::new();
            rule.check("metadata.name", name, &mut causes);
            assert_eq!(causes.is_empty(), good, "{rule:?} {name}: {causes:?}");
        };
        check(NameRule::Subdomain, "a.b-c.d1", true);
        check(NameRule::Subdomain, "A", false);
        check(NameRule::Subdomain, "a..b", false);
        check(NameRule::Subdomain, "", false);
        check(NameRule::Subdomain, &"a".repeat(254), false);
        check(NameRule::Label, "a.b", false);
        check(NameRule::Label, &"a".repeat(64), false);
        check(NameRule::Label, "1a", true);
        check(NameRule::Label1035, "1a", false);
    }

    #[test]
    fn labels_are_checked() {
        let check = |key: &str, value: &str, good: bool| {
            let mut causes = Vec::new();
            check_labels("metadata.labels", &serde_json::json!({key: value}), &mut causes);
            assert_eq!(causes.is_empty(), good, "{key}={value}: {causes:?}");
        };
        check("app", "web", true);
        check("example.com/app", "", true);
        check("Example.com/app", "x", false);
        check("app", "a b", false);
        check("-app", "a", false);
        check("app", &"a".repeat(64), false);
    }

    #[test]
    fn versions_are_preferred_by_maturity() {
        let mut names = vec!["foo1", "v1alpha1", "v2", "v1beta2", "v11", "v1beta10", "v10", "bar"];
        names.sort_by_key(|name| std::cmp::Reverse(version_rank(name)));
        assert_eq!(names, ["v11", "v10", "v2", "v1beta10", "v1beta2", "v1alpha1", "bar", "foo1"]);
    }
}
