//! Sets of fields, as `metadata.managedFields` writes them (`FieldsV1`).
//!
//! A set is a tree of path elements in which each node says whether the path to it is a member. The written form is
//! that of structured-merge-diff: `f:` a field, `k:` an item of a list by its keys, `v:` an item of a set, `i:` an
//! item by its place, and `.` for a member that has members beneath it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Element {
    /// A field of an object.
    Field(String),
    /// An item of an associative list: its keys as JSON with sorted names.
    Key(String),
    /// An item of a set, as JSON.
    Value(String),
    /// An item by its place.
    Index(u64),
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            // Read and written again, so that equal keys are equal texts.
            "k" => Self::Key(serde_json::from_str::<Value>(rest).ok()?.to_string()),
            "v" => Self::Value(serde_json::from_str::<Value>(rest).ok()?.to_string()),
            "i" => Self::Index(rest.parse().ok()?),
            _ => return None,
        })
    }

    fn written(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// As it stands in error texts.
    fn shown(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Key(keys) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", pairs.join(","))
            }
            Self::Value(value) => format!("[={value}]"),
            Self::Index(index) => format!("[{index}]"),
        }
    }
}

/// A set of fields; see the module's description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Whether the path to this node is a member.
    pub member: bool,
    /// What lies beneath.
    pub children: BTreeMap<Element, FieldSet>,
}

impl FieldSet {
    /// A set of the path to the node alone.
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Reads `fieldsV1`; what cannot be read is left out.
    pub fn parse(fields: &Value) -> Self {
        let mut set = Self::default();
        for (text, inner) in fields.as_object().into_iter().flatten() {
            if text == "." {
                set.member = true;
            } else if let Some(element) = Element::parse(text) {
                let inner = Self::parse(inner);
                set.children.insert(element, if inner.is_empty() { Self::leaf() } else { inner });
            }
        }
        set
    }

    /// As `fieldsV1`.
    pub fn written(&self) -> Value {
        let mut fields = Map::new();
        let inner = self.children.iter().filter(|(_, inner)| !inner.is_empty());
        for (element, inner) in inner {
            let mut value = inner.written();
            if let (true, Some(map)) = (inner.member && !inner.children.is_empty(), value.as_object_mut()) {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.written(), value);
        }
        Value::Object(fields)
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.member |= other.member;
        for (element, theirs) in &other.children {
            let ours = union.children.entry(element.clone()).or_default();
            *ours = ours.union(theirs);
        }
        union
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, ours)| {
            let both = ours.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Self { member: self.member && other.member, children: children.collect() }
    }

    /// What is here and not there.
    pub fn difference(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, ours)| {
            let rest =
                other.children.get(element).map_or_else(|| ours.clone(), |theirs| ours.difference(theirs));
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Self { member: self.member && !other.member, children: children.collect() }
    }

    /// What is here and neither there nor beneath a member of it.
    pub fn beyond(&self, removed: &Self) -> Self {
        if removed.member {
            return Self::default();
        }
        let children = self.children.iter().filter_map(|(element, ours)| {
            let rest = removed.children.get(element).map_or_else(|| ours.clone(), |gone| ours.beyond(gone));
            (!rest.is_empty()).then(|| (element.clone(), rest))
        });
        Self { member: self.member, children: children.collect() }
    }

    /// The subtree at an element, empty when there is none.
    pub fn at(&self, element: &Element) -> Option<&Self> {
        self.children.get(element)
    }

    /// The paths of all members as they stand in error texts, in order.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, path: &str, paths: &mut Vec<String>) {
        if self.member {
            paths.push(path.to_owned());
        }
        for (element, inner) in &self.children {
            inner.collect(&format!("{path}{}", element.shown()), paths);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let written = json!({"f:status": {"f:conditions": {
            "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}},
            "f:finalizers": {"v:\"a.b/c\"": {}}, "f:list": {"i:0": {}}}});
        let set = FieldSet::parse(&written);
        assert_eq!(set.written(), written);
        assert_eq!(
            set.paths(),
            [
                ".status.conditions[type=\"Ready\"]",
                ".status.conditions[type=\"Ready\"].status",
                ".status.conditions[type=\"Ready\"].type",
                ".status.finalizers[=\"a.b/c\"]",
                ".status.list[0]"
            ]
        );
    }

    #[test]
    fn sets_are_combined_by_their_members() {
        let set = |value: Value| FieldSet::parse(&value);
        let one = set(json!({"f:a": {"f:x": {}, "f:y": {}}, "f:b": {}}));
        let two = set(json!({"f:a": {"f:y": {}, "f:z": {}}}));
        assert_eq!(one.intersection(&two).written(), json!({"f:a": {"f:y": {}}}));
        assert_eq!(one.difference(&two).written(), json!({"f:a": {"f:x": {}}, "f:b": {}}));
        assert_eq!(one.union(&two).paths(), [".a.x", ".a.y", ".a.z", ".b"]);
        assert_eq!(one.beyond(&set(json!({"f:a": {}}))).written(), json!({"f:b": {}}));
    }
}
