//! Finding one's way in the schemas of our definitions.

use flotilla_api::crd::{crd_json, crds};
use serde_json::Value;

/// The definition of a kind, as JSON.
pub fn definition(kind: &str) -> Value {
    let crd = crds().into_iter().find(|crd| crd.spec.names.kind == kind).expect(kind);
    crd_json(&crd)
}

/// The schema of whole objects of a kind.
pub fn object_schema(kind: &str) -> Value {
    definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"].take()
}

/// The schema of the field at a path such as `spec.route[0].weight`, if there is one.
pub fn field<'s>(schema: &'s Value, path: &str) -> Option<&'s Value> {
    steps(path).into_iter().try_fold(schema, |schema, step| match step {
        Step::Item(_) => schema.get("items"),
        Step::Key(key) => schema
            .get("properties")
            .and_then(|properties| properties.get(&key))
            .or_else(|| schema.get("additionalProperties").filter(|nested| nested.is_object())),
    })
}

/// The JSON pointer of such a path, within the object that it starts in.
pub fn pointer(path: &str) -> String {
    steps(path)
        .iter()
        .map(|step| match step {
            Step::Key(key) => format!("/{key}"),
            Step::Item(index) => format!("/{index}"),
        })
        .collect()
}

enum Step {
    Key(String),
    Item(usize),
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for part in path.split('.') {
        let mut pieces = part.split('[');
        steps.push(Step::Key(pieces.next().unwrap_or_default().to_owned()));
        for index in pieces {
            steps.push(Step::Item(index.trim_end_matches(']').parse().expect(path)));
        }
    }
    steps
}
