//! Which objects a list, a watch or a deletion of many is about.

use serde_json::Value;

use super::Call;
use crate::registry::{Resource, convert, read_fields};
use crate::status::ApiError;
use crate::store::{FieldSelector, LabelSelector, Object, Scope};

/// Namespace, name, labels and fields together.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub scope: Scope,
    /// What has to be read inside an object; empty for most.
    fields: FieldSelector,
    version: usize,
}

impl Filter {
    /// Reads the selectors of a call.
    pub fn of(call: &Call) -> Result<Self, ApiError> {
        let labels = LabelSelector::parse(call.query.get("labelSelector"))
            .map_err(|error| ApiError::bad_request(format!("unable to parse requirement: {}", error.0)))?;
        let mut fields = FieldSelector::parse(call.query.get("fieldSelector"))
            .map_err(|error| ApiError::bad_request(error.0))?;
        let selectable = &call.resource.versions[call.version].selectable;
        for field in fields.fields() {
            let general = field == "metadata.name" || field == "metadata.namespace";
            if !general && !selectable.iter().any(|known| known == field) {
                let plain = call.resource.builtin.is_some() && selectable.is_empty();
                return Err(ApiError::bad_request(if plain {
                    format!(
                        "\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                }));
            }
        }
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let name = named(&call.place.name).or_else(|| fields.required("metadata.name").map(str::to_owned));
        let namespace =
            named(&call.place.namespace).or_else(|| fields.required("metadata.namespace").map(str::to_owned));
        // What the key answers needs no look into the object.
        if fields.fields().all(|field| fields.required(field).is_some() && field.starts_with("metadata.")) {
            let consistent =
                fields.required("metadata.name").is_none_or(|wanted| name.as_deref() == Some(wanted))
                    && fields
                        .required("metadata.namespace")
                        .is_none_or(|wanted| namespace.as_deref() == Some(wanted));
            if consistent {
                fields = FieldSelector::default();
            }
        }
        Ok(Self { scope: Scope { namespace, name, labels }, fields, version: call.version })
    }

    /// Whether something other than the namespace narrows it.
    pub fn selects(&self) -> bool {
        self.scope.name.is_some() || !self.scope.labels.is_empty() || !self.fields.is_empty()
    }

    /// Whether the fields of an object fit; its scope is not looked at.
    pub fn fields_match(&self, resource: &Resource, object: &Object) -> bool {
        if self.fields.is_empty() {
            return true;
        }
        let value: Value = convert(resource, self.version, object.value());
        self.fields.matches(|field| read_fields(&value, field))
    }

    /// Whether an object fits.
    pub fn matches(&self, resource: &Resource, object: &Object) -> bool {
        self.scope.contains(object) && self.fields_match(resource, object)
    }
}
