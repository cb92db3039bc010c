//! The project's own table of what the schemas accept, deny, fill in and drop, as
//! data. Two tests read it: one holds it against the types, one puts it to API
//! servers.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

/// The cases of one kind.
#[derive(Deserialize)]
pub struct Table {
    /// The kind's name in Kubernetes.
    pub kind: String,
    /// Its cases.
    pub cases: Vec<Case>,
}

/// One spec, and what becomes of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Unique within its kind.
    pub name: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The field that this is about, as `spec.a.b[0]`.
    pub path: String,
    /// The field's value afterwards, for defaults.
    pub expected: Option<Value>,
    /// The spec.
    pub spec: Value,
}

/// What becomes of a spec.
#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It is stored as it is.
    Accept,
    /// It is refused because of the field.
    Deny,
    /// The field is filled in.
    Default,
    /// The field is dropped.
    Prune,
}

/// All tables of a folder, in the order of their names.
pub fn read(folder: &Path) -> Vec<Table> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the table is part of the project")
        .map(|entry| entry.expect("a readable entry").path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file).expect("readable");
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        })
        .collect()
}
