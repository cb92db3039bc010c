//! Field ownership and server-side apply, as pure functions on objects.
//!
//! Every write says under which name it was made, and the object remembers in `metadata.managedFields` whose fields
//! are whose. An apply request sets exactly the fields that it names: what its manager applied before and names no
//! more is removed, and what somebody else has set to another value is a conflict, unless it is forced.

mod fields;
mod managed;
mod shape;
mod walk;

use serde_json::{Value, json};

use crate::status::ApiError;
use crate::store::metadata_mut;
use fields::{Element, FieldSet};
pub(crate) use managed::{Manager, Operation};
use managed::{Managers, Owned};
pub(crate) use shape::Shape;
use walk::{Changes, compare, field_set, merge, prune};

/// The manager of what was there before ownership was recorded.
const BEFORE: &str = "before-first-apply";

/// Fields of the metadata that belong to the server.
const OF_THE_SERVER: [&str; 8] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Leaves out what nobody owns.
fn ownable(mut fields: FieldSet) -> FieldSet {
    let field = |name: &str| Element::Field(name.to_owned());
    for name in ["apiVersion", "kind"] {
        fields.children.remove(&field(name));
    }
    if let Some(metadata) = fields.children.get_mut(&field("metadata")) {
        metadata.member = false;
        for name in OF_THE_SERVER {
            metadata.children.remove(&field(name));
        }
        if metadata.is_empty() {
            fields.children.remove(&field("metadata"));
        }
    }
    fields.member = false;
    fields
}

/// What of an applied object the endpoint takes: a subresource only its own part, the object itself not the status
/// where that has an endpoint of its own.
fn taken(mut fields: FieldSet, subresource: &str, has_status: bool) -> FieldSet {
    let part = match subresource {
        "status" => Some("status"),
        "finalize" => Some("spec"),
        _ => None,
    };
    fields.children.retain(|element, _| match (element, part) {
        (Element::Field(name), Some(part)) => name == part,
        (Element::Field(name), None) => !(has_status && name == "status"),
        _ => true,
    });
    fields
}

/// Records a write that is no apply: `new` is about to replace `old`. `sent` is what the client says of the managers,
/// which it may take over or, with an empty list, forget.
pub(crate) fn record(
    shape: &Shape<'_>,
    old: Option<&Value>,
    new: &mut Value,
    sent: Option<&Value>,
    writer: &Manager,
    time: &str,
) {
    let mut managers = match sent.and_then(Value::as_array) {
        Some(entries) => Managers::from_entries(entries),
        None => old.map(Managers::read).unwrap_or_default(),
    };
    let mut changes = Changes::default();
    compare(old, Some(new), shape, &mut changes);
    let (set, removed) = (ownable(changes.set), ownable(changes.removed));
    if !set.is_empty() || !removed.is_empty() {
        managers.take(&removed, &set, writer);
    }
    if !set.is_empty() {
        let own =
            managers.0.entry(writer.clone()).or_insert(Owned { fields: FieldSet::default(), time: None });
        let fields = own.fields.union(&set);
        if fields != own.fields || own.time.is_none() {
            *own = Owned { fields, time: Some(time.to_owned()) };
        }
    }
    managers.write(new);
}

/// An apply request, compared with what is there.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The object with the applied fields, before defaults.
    pub value: Value,
    managers: Managers,
}

impl Applied {
    /// Records in `new`, which became of [`Applied::value`] and is about to replace `old`, whose fields are whose.
    pub fn record(&self, shape: &Shape<'_>, old: Option<&Value>, new: &mut Value) {
        let mut changes = Changes::default();
        compare(old, Some(new), shape, &mut changes);
        let mut managers = self.managers.clone();
        for owned in managers.0.values_mut() {
            owned.fields = owned.fields.beyond(&ownable(changes.removed.clone()));
        }
        managers.write(new);
    }
}

/// Puts an applied object over what is there.
///
/// # Errors
/// A conflict that names the managers and their fields, unless it is forced.
pub(crate) fn apply(
    shape: &Shape<'_>,
    live: Option<&Value>,
    config: &Value,
    writer: &Manager,
    has_status: bool,
    force: bool,
    time: &str,
) -> Result<Applied, ApiError> {
    let nothing = json!({"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}});
    let mut managers = live.map(Managers::read).unwrap_or_default();
    if let Some(live) = live.filter(|_| managers.0.is_empty()) {
        let name = BEFORE.to_owned();
        let before =
            Manager { operation: Operation::Update, name, subresource: String::new(), ..writer.clone() };
        let mut changes = Changes::default();
        compare(Some(&nothing), Some(live), shape, &mut changes);
        let fields = ownable(changes.set);
        managers.0.insert(before, Owned { fields, time: Some(time.to_owned()) });
    }
    let mut merged = merge(live.unwrap_or(&nothing), config, shape);
    let fields = taken(ownable(field_set(config, shape)), &writer.subresource, has_status);
    let last = managers.0.get(writer).cloned();
    let time = match &last {
        Some(last) if last.fields == fields => last.time.clone(),
        _ => Some(time.to_owned()),
    };
    managers.0.insert(writer.clone(), Owned { fields, time });
    if let Some(last) = &last {
        prune(&mut merged, &last.fields, Some(&managers.union()), shape);
    }
    let mut changes = Changes::default();
    compare(live, Some(&merged), shape, &mut changes);
    let set = taken(ownable(changes.set), &writer.subresource, has_status);
    let removed = taken(ownable(changes.removed), &writer.subresource, has_status);
    if !force {
        refuse_conflicts(&managers, &set, writer)?;
    }
    managers.take(&removed, &set, writer);
    metadata_mut(&mut merged).remove("managedFields");
    Ok(Applied { value: merged, managers })
}

fn refuse_conflicts(managers: &Managers, set: &FieldSet, writer: &Manager) -> Result<(), ApiError> {
    let mut conflicts = Vec::new();
    for (manager, owned) in managers.0.iter().filter(|(manager, _)| *manager != writer) {
        conflicts.extend(owned.fields.intersection(set).paths().into_iter().map(|path| (manager, path)));
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    let who = |manager: &Manager| {
        let mut text = format!("\"{}\"", manager.name);
        if !manager.subresource.is_empty() {
            text.push_str(&format!(" with subresource \"{}\"", manager.subresource));
        }
        if manager.operation == Operation::Update {
            text.push_str(&format!(" using {}", manager.api_version));
        }
        text
    };
    let mut by_manager: Vec<(String, Vec<&str>)> = Vec::new();
    for (manager, path) in &conflicts {
        let text = who(manager);
        match by_manager.iter_mut().find(|(known, _)| *known == text) {
            Some((_, paths)) => paths.push(path),
            None => by_manager.push((text, vec![path])),
        }
    }
    by_manager.sort();
    let message = if let [(manager, path)] = conflicts.as_slice() {
        format!("Apply failed with 1 conflict: conflict with {}: {path}", who(manager))
    } else {
        let lines = by_manager.iter().map(|(who, paths)| {
            let paths: String = paths.iter().map(|path| format!("\n- {path}")).collect();
            format!("conflicts with {who}:{paths}")
        });
        let lines: Vec<String> = lines.collect();
        format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
    };
    let causes: Vec<Value> = conflicts
        .iter()
        .map(|(manager, path)| {
            json!({"reason": "FieldManagerConflict", "message": format!("conflict with {}", who(manager)),
                "field": path})
        })
        .collect();
    let mut error = ApiError::new(409, "Conflict", message);
    error.details = Some(serde_json::Map::from_iter([("causes".to_owned(), causes.into())]));
    Err(error)
}

#[cfg(test)]
mod tests;
