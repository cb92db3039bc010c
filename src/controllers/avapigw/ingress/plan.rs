//! From what an Ingress becomes and what was made of it: what there is to do. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_core::ids::{Kind, ObjectKey};
use serde_json::Value;

use super::Produced;
use super::convert::hash;

/// An object that was made of an Ingress.
#[derive(Debug, Clone, PartialEq)]
pub struct Child {
    /// Its kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`
    pub uid: Arc<str>,
    /// `metadata.resourceVersion`
    pub revision: Arc<str>,
    /// The uid of the Ingress that it was made of.
    pub owner: Arc<str>,
    /// Of which spec it was made, see [`Step`].
    pub mark: Option<Arc<str>>,
    /// `spec`, with the schema's defaults.
    pub spec: Value,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// One write. What is there is changed or removed only as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An object that is not there yet.
    Make {
        /// Its kind.
        kind: Kind,
        /// Namespace and name.
        key: ObjectKey,
        /// Its spec.
        spec: Value,
        /// Names the spec: the schema's defaults make it another one.
        mark: String,
    },
    /// Another spec for one that is there.
    Change {
        /// Its kind.
        kind: Kind,
        /// Namespace and name.
        key: ObjectKey,
        /// `metadata.resourceVersion` that it must have.
        revision: Arc<str>,
        /// As in `Make`.
        spec: Value,
        /// As in `Make`.
        mark: String,
    },
    /// One that the Ingress does not become any more.
    Remove {
        /// Its kind.
        kind: Kind,
        /// Namespace and name.
        key: ObjectKey,
        /// `metadata.uid` that it must have.
        uid: Arc<str>,
        /// `metadata.resourceVersion` that it must have.
        revision: Arc<str>,
    },
}

/// What makes `there` what is `wanted`: backends before the routes that lead to them, and
/// removals last and the other way round, so that no request finds a gap.
pub fn plan<'a>(wanted: &[Produced], there: impl IntoIterator<Item = &'a Child>) -> Vec<Step> {
    let mut there: BTreeMap<(Kind, &ObjectKey), &Child> =
        there.into_iter().map(|child| ((child.kind, &child.key), child)).collect();
    let mut writes = Vec::new();
    for Produced { kind, key, spec, .. } in wanted {
        let known = there.remove(&(*kind, key));
        let mark = std::str::from_utf8(spec).map(|text| format!("{:016x}", hash(text))).unwrap_or_default();
        let spec: Value = serde_json::from_slice(spec).unwrap_or_default();
        match known {
            None => writes.push(Step::Make { kind: *kind, key: key.clone(), spec, mark }),
            // Its end is seen, and then it is made anew.
            Some(child) if child.deleting => {}
            Some(child) if child.mark.as_deref() == Some(&*mark) && covers(&child.spec, &spec) => {}
            Some(child) => {
                let revision = child.revision.clone();
                writes.push(Step::Change { kind: *kind, key: key.clone(), revision, spec, mark });
            }
        }
    }
    writes.sort_by_key(|write| match write {
        Step::Make { kind, .. } | Step::Change { kind, .. } | Step::Remove { kind, .. } => kind.is_route(),
    });
    let mut gone: Vec<&Child> = there.into_values().filter(|child| !child.deleting).collect();
    gone.sort_by_key(|child| !child.kind.is_route());
    writes.extend(gone.into_iter().map(|child| Step::Remove {
        kind: child.kind,
        key: child.key.clone(),
        uid: child.uid.clone(),
        revision: child.revision.clone(),
    }));
    writes
}

/// Whether a spec has everything that another one has: more are defaults.
pub fn covers(spec: &Value, wanted: &Value) -> bool {
    match (spec, wanted) {
        (Value::Object(spec), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| spec.get(name).is_some_and(|value| covers(value, wanted)))
        }
        (Value::Array(spec), Value::Array(wanted)) => {
            spec.len() == wanted.len() && spec.iter().zip(wanted).all(|(value, wanted)| covers(value, wanted))
        }
        (value, wanted) => value == wanted,
    }
}
