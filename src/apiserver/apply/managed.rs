//! `metadata.managedFields`: who last set which fields, and with what kind of request.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fields::FieldSet;
use crate::store::{metadata_mut, text};

/// The kind of request by which a manager owns its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// Server-side apply: what is applied no more is removed.
    Apply,
    /// Everything else.
    Update,
}

/// Whose fields these are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Manager {
    pub operation: Operation,
    pub name: String,
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
}

/// What one manager owns, and since when it is just this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub fields: FieldSet,
    pub time: Option<String>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Managers(pub BTreeMap<Manager, Owned>);

impl Managers {
    /// Reads those of a stored object.
    pub fn read(object: &Value) -> Self {
        let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
        Self::from_entries(entries.map(Vec::as_slice).unwrap_or_default())
    }

    /// Reads the entries of `managedFields`.
    pub fn from_entries(entries: &[Value]) -> Self {
        let read = |entry: &Value| {
            let operation = match text(entry, "/operation") {
                "Apply" => Operation::Apply,
                _ => Operation::Update,
            };
            let manager = Manager {
                operation,
                name: text(entry, "/manager").to_owned(),
                api_version: text(entry, "/apiVersion").to_owned(),
                subresource: text(entry, "/subresource").to_owned(),
            };
            let time = entry.get("time").and_then(Value::as_str).map(str::to_owned);
            (manager, Owned { fields: FieldSet::parse(&entry["fieldsV1"]), time })
        };
        Self(entries.iter().map(read).filter(|(_, owned)| !owned.fields.is_empty()).collect())
    }

    /// Writes them into an object, those who own nothing left out.
    pub fn write(&self, object: &mut Value) {
        let mut entries: Vec<(&Manager, &Owned)> =
            self.0.iter().filter(|(_, owned)| !owned.fields.is_empty()).collect();
        entries.sort_by(|(a, x), (b, y)| (a.operation, &x.time, a).cmp(&(b.operation, &y.time, b)));
        let written = entries.into_iter().map(|(manager, owned)| {
            let mut entry = json!({
                "manager": manager.name,
                "operation": match manager.operation { Operation::Apply => "Apply", Operation::Update => "Update" },
                "apiVersion": manager.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": owned.fields.written(),
            });
            if let Some(time) = &owned.time {
                entry["time"] = time.as_str().into();
            }
            if !manager.subresource.is_empty() {
                entry["subresource"] = manager.subresource.as_str().into();
            }
            entry
        });
        let written: Vec<Value> = written.collect();
        let metadata = metadata_mut(object);
        if written.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".into(), written.into());
        }
    }

    /// The fields of all.
    pub fn union(&self) -> FieldSet {
        self.0.values().fold(FieldSet::default(), |all, owned| all.union(&owned.fields))
    }

    /// Takes fields that are gone from everybody, and fields that somebody else has set from everybody but him.
    pub fn take(&mut self, removed: &FieldSet, set: &FieldSet, writer: &Manager) {
        for (manager, owned) in &mut self.0 {
            owned.fields = owned.fields.beyond(removed);
            if manager != writer {
                owned.fields = owned.fields.difference(set);
            }
        }
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }
}
