//! OpenAPI documents that tell kubectl what is served and which fields there are.
//!
//! kubectl reads one document of version 3 per group and version: `apply` and `create` look there whether the server
//! validates fields (the `fieldValidation` parameter of the patch operation), `apply` and `edit` by which keys lists
//! are merged, `explain` what a field means. Older clients read one document of version 2 for everything, as
//! protobuf ([`v2_protobuf`]); it cannot say all that version 3 can, and what it cannot say is left out.

mod paths;
mod protobuf;
mod tables;
mod v2;

pub use protobuf::v2_protobuf;
pub(crate) use tables::{builtin_kind, resolve};
pub use v2::v2_document;

use serde_json::{Map, Value, json};
use tables::{REFERENCE, collect, definitions};

/// Definitions that every document needs.
const ALWAYS: [&str; 5] = ["DeleteOptions", "ListMeta", "ObjectMeta", "Patch", "Status"];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents.";

/// A served resource in one version, as far as the documents are concerned.
#[derive(Clone, Debug)]
pub struct ResourceDef {
    /// API group, empty for core.
    pub group: String,
    /// Version, such as `v1alpha1`.
    pub version: String,
    /// Kind of an object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Plural name, as in paths.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a `status` subresource.
    pub status: bool,
    /// The `openAPIV3Schema` of a custom resource; `None` for built-in kinds.
    pub schema: Option<Value>,
}

impl ResourceDef {
    /// `apiVersion` of its objects.
    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The name of its definition, such as `io.avapigw.v1alpha1.APIRoute`.
    fn definition(&self) -> String {
        let key = (self.group.clone(), self.version.clone(), self.kind.clone());
        if self.schema.is_none()
            && let Some(name) = definitions().kinds.get(&key)
        {
            return name.clone();
        }
        let reversed: Vec<&str> = self.group.rsplit('.').filter(|part| !part.is_empty()).collect();
        let prefix = if reversed.is_empty() { "io.k8s.api.core".to_owned() } else { reversed.join(".") };
        format!("{prefix}.{}.{}", self.version, self.kind)
    }

    fn gvk(&self, kind: &str) -> Value {
        json!({"group": self.group, "version": self.version, "kind": kind})
    }

    /// The schema of its objects.
    fn object_schema(&self) -> Value {
        let metadata = json!({
            "allOf": [reference(&format!("{META}.ObjectMeta"))],
            "description": "Standard object's metadata.",
        });
        let Some(schema) = &self.schema else {
            let known = definitions().schemas.get(&self.definition()).cloned();
            return known.unwrap_or_else(|| json!({"type": "object", "properties": {"metadata": metadata}}));
        };
        let mut schema = if schema.is_object() { schema.clone() } else { json!({"type": "object"}) };
        schema["x-kubernetes-group-version-kind"] = json!([self.gvk(&self.kind)]);
        schema["properties"]["apiVersion"] = json!({"type": "string", "description": API_VERSION});
        schema["properties"]["kind"] = json!({"type": "string", "description": KIND});
        schema["properties"]["metadata"] = metadata;
        schema
    }

    /// The schema of its lists.
    fn list_schema(&self) -> Value {
        json!({
            "type": "object",
            "description": format!("{} is a list of {}", self.list_kind, self.kind),
            "required": ["items"],
            "x-kubernetes-group-version-kind": [self.gvk(&self.list_kind)],
            "properties": {
                "apiVersion": {"type": "string", "description": API_VERSION},
                "kind": {"type": "string", "description": KIND},
                "metadata": {
                    "allOf": [reference(&format!("{META}.ListMeta"))],
                    "description": "Standard list metadata.",
                },
                "items": {
                    "type": "array",
                    "description": format!("List of {}.", self.plural),
                    "items": {"allOf": [reference(&self.definition())]},
                },
            },
        })
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{name}")})
}

/// The version 3 document of a group and version, written `v1` or `avapigw.io/v1alpha1`. Resources of other groups
/// and versions are left out.
#[must_use]
pub fn v3_document(group_version: &str, resources: &[ResourceDef]) -> Value {
    let mut paths = Map::new();
    for resource in resources.iter().filter(|resource| resource.api_version() == group_version) {
        paths::v3(resource, &mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas(resources.iter().filter(|r| r.api_version() == group_version))},
    })
}

/// The schemas of resources and of everything that they refer to, keyed by name.
fn schemas<'a>(resources: impl Iterator<Item = &'a ResourceDef>) -> Map<String, Value> {
    let mut schemas = Map::new();
    for name in ALWAYS {
        collect(&reference(&format!("{META}.{name}")), &mut schemas);
    }
    for resource in resources {
        let name = resource.definition();
        for (name, schema) in
            [(format!("{name}List"), resource.list_schema()), (name, resource.object_schema())]
        {
            collect(&schema, &mut schemas);
            schemas.insert(name, schema);
        }
    }
    schemas
}

#[cfg(test)]
mod tests;
