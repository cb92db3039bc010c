//! The public face of a schema: one value per version of a definition, read once and used for every object.

use super::cause::{Cause, Reason};
use super::correlate::Old;
use super::node::{ListType, Node, ValueType};
use super::{cel, check, default, embedded, list_type, prune, validate};
use serde_json::Value;

/// A structural schema, ready to prune, default and validate objects.
#[derive(Debug)]
pub struct StructuralSchema {
    root: Node,
}

/// How the values at a place merge when several clients write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging<'a> {
    /// As one value.
    Whole,
    /// Field by field.
    ByField,
    /// A list of values, each for itself.
    Set,
    /// A list whose items are told apart by these fields.
    Map(&'a [String]),
}

/// A place in a schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SchemaNode<'a>(&'a Node);

impl<'a> SchemaNode<'a> {
    /// The place of a field, and whether it is declared by name; `None` where the schema knows nothing.
    pub fn field(self, name: &str) -> Option<(SchemaNode<'a>, bool)> {
        let node = self.0.field(name)?;
        Some((SchemaNode(node), self.0.properties.contains_key(name)))
    }

    /// The place of a list's items.
    pub fn items(self) -> Option<SchemaNode<'a>> {
        self.0.items.as_deref().map(SchemaNode)
    }

    /// How values here merge.
    pub fn merging(self) -> Merging<'a> {
        if self.0.items.is_some() || self.0.types.contains(&ValueType::Array) {
            return match &self.0.list_type {
                ListType::Atomic => Merging::Whole,
                ListType::Set => Merging::Set,
                ListType::Map(keys) => Merging::Map(keys),
            };
        }
        if self.0.atomic { Merging::Whole } else { Merging::ByField }
    }

    /// The value of a field that is not written.
    pub fn default_value(self) -> Option<&'a Value> {
        self.0.default.as_ref()
    }
}

impl StructuralSchema {
    /// Reads the `openAPIV3Schema` of one version of a definition.
    ///
    /// # Errors
    /// Every reason why it is not structural or cannot be enforced. The fields are relative to the schema, such as
    /// `properties[spec].type`; the root itself is `<nil>`.
    pub fn from_crd_version(schema: &Value) -> Result<Self, Vec<Cause>> {
        let causes = check::check(schema);
        if causes.is_empty() { Ok(Self { root: Node::parse(schema) }) } else { Err(causes) }
    }

    /// The schema's root, for merging field by field.
    pub(crate) fn node(&self) -> SchemaNode<'_> {
        SchemaNode(&self.root)
    }

    /// Drops the fields that the schema does not know and returns their sorted paths, such as `spec.foo`.
    /// `apiVersion`, `kind` and the fields of `metadata` are known without being declared.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(object, &self.root)
    }

    /// Fills in defaults, and removes nulls where null is neither allowed nor replaced by a default.
    pub fn default(&self, object: &mut Value) {
        default::fill(object, &self.root);
        default::drop_nulls(object, Some(&self.root));
    }

    /// Everything that is wrong with `new`; empty when it is valid. With `old`, transition rules run, and what is
    /// wrong with a value that is the same in `old` is forgiven.
    #[must_use]
    pub fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let old_root = old.map(|value| Old { value, node: &self.root });
        let mut causes = validate::check(new, &self.root, old_root, "").causes;
        causes.extend(embedded::check(new, &self.root));
        if old.is_none_or(|old| list_type::duplicates(old, &self.root).is_empty()) {
            causes.extend(list_type::duplicates(new, &self.root));
        }
        self.rules(new, old_root, &mut causes);
        causes
    }

    /// As [`validate`](Self::validate) for an update of the status subresource, where only `status` may be at fault.
    /// Rules see the whole object.
    #[must_use]
    pub fn validate_status(&self, new: &Value, old: &Value) -> Vec<Cause> {
        let old_root = Old { value: old, node: &self.root };
        let mut causes = match (new.get("status"), self.root.field("status")) {
            (Some(status), Some(node)) => {
                // As kube-apiserver does it: the words are about the status alone, the fields about the object.
                let mut causes = validate::check(status, node, old_root.field("status"), "").causes;
                for cause in &mut causes {
                    let dot = if cause.field.is_empty() || cause.field.starts_with('[') { "" } else { "." };
                    cause.field = format!("status{dot}{}", cause.field);
                }
                causes
            }
            _ => Vec::new(),
        };
        let of_status = |object: &Value| {
            let mut causes = list_type::duplicates(object, &self.root);
            causes.retain(|cause| cause.field.starts_with("status"));
            causes
        };
        if of_status(old).is_empty() {
            causes.extend(of_status(new));
        }
        self.rules(new, Some(old_root), &mut causes);
        causes
    }

    fn rules(&self, new: &Value, old: Option<Old<'_>>, causes: &mut Vec<Cause>) {
        if !cel::has_rules(&self.root) {
            return;
        }
        let blocks = |reason: Reason| match reason {
            Reason::NotSupported
            | Reason::Required
            | Reason::TooLong
            | Reason::TooMany
            | Reason::TypeInvalid => true,
            Reason::Duplicate | Reason::Invalid | Reason::Forbidden => false,
        };
        if causes.iter().any(|cause| blocks(cause.reason)) {
            let detail = "some validation rules were not checked because the object was invalid; correct the \
                          existing errors to complete validation";
            causes.push(Cause::invalid("", &Value::Null, detail));
        } else {
            causes.extend(cel::check(new, &self.root, old));
        }
    }
}

#[cfg(test)]
mod tests;
