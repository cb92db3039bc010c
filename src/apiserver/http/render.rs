//! Objects in the forms that clients ask for: as they are, as tables, as metadata only.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use super::Call;
use super::negotiate::Format;
use crate::registry::{Resource, convert, metadata_only};
use crate::store::Object;
use crate::table;

/// An object's bytes in a version. Those of the storage version are shared, not copied.
pub(super) fn bytes_in(resource: &Resource, version: usize, object: &Object) -> Bytes {
    if object.meta.api_version == resource.api_version(version) {
        return object.bytes.clone();
    }
    Bytes::from(convert(resource, version, object.value()).to_string())
}

/// How a call wants its objects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub format: Format,
    pub include: table::IncludeObject,
}

impl Form {
    pub fn of(call: &Call) -> Result<Self, crate::status::ApiError> {
        let include = match call.query.get("includeObject") {
            "" | "Metadata" => table::IncludeObject::Metadata,
            "None" => table::IncludeObject::None,
            "Object" => table::IncludeObject::Object,
            other => {
                let why = format!("unrecognized includeObject value: {other}");
                return Err(crate::status::ApiError::bad_request(why));
            }
        };
        Ok(Self { format: super::negotiate::format(&call.headers)?, include })
    }

    /// One object.
    pub fn one(self, resource: &Resource, version: usize, object: &Object) -> Bytes {
        match self.format {
            Format::Object => bytes_in(resource, version, object),
            Format::Metadata => Bytes::from(metadata_only(&object.value()).to_string()),
            Format::Table => {
                let value = table_value(resource, version, object);
                let mut table = self.table(resource, version, std::slice::from_ref(&value));
                table["metadata"] = json!({"resourceVersion": object.meta.revision.to_string()});
                Bytes::from(table.to_string())
            }
        }
    }

    /// A bookmark's object.
    pub fn bookmark(
        self,
        resource: &Resource,
        version: usize,
        revision: u64,
        annotations: Option<Value>,
    ) -> Bytes {
        let mut metadata =
            Map::from_iter([("resourceVersion".to_owned(), Value::String(revision.to_string()))]);
        if let Some(annotations) = annotations {
            metadata.insert("annotations".into(), annotations);
        }
        let value = match self.format {
            Format::Object => {
                metadata.insert("creationTimestamp".into(), Value::Null);
                json!({"apiVersion": resource.api_version(version), "kind": resource.kind, "metadata": metadata})
            }
            Format::Metadata => {
                metadata.insert("creationTimestamp".into(), Value::Null);
                json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata})
            }
            Format::Table => {
                let mut table = self.table(resource, version, &[]);
                table["metadata"] = metadata.into();
                table
            }
        };
        Bytes::from(value.to_string())
    }

    /// A list with the metadata of the list.
    pub fn list(
        self,
        resource: &Resource,
        version: usize,
        objects: &[std::sync::Arc<Object>],
        metadata: Value,
    ) -> Bytes {
        match self.format {
            Format::Object => {
                let (api, kind) = (resource.api_version(version), &resource.list_kind);
                let items = objects.iter().map(|object| bytes_in(resource, version, object));
                join_list(&api, kind, &metadata, items)
            }
            Format::Metadata => {
                let items =
                    objects.iter().map(|object| Bytes::from(metadata_only(&object.value()).to_string()));
                join_list("meta.k8s.io/v1", "PartialObjectMetadataList", &metadata, items)
            }
            Format::Table => {
                let values: Vec<Value> =
                    objects.iter().map(|object| table_value(resource, version, object)).collect();
                let mut table = self.table(resource, version, &values);
                table["metadata"] = metadata;
                Bytes::from(table.to_string())
            }
        }
    }

    fn table(self, resource: &Resource, version: usize, values: &[Value]) -> Value {
        let now = jiff::Timestamp::now();
        match resource.builtin {
            Some(_) => table::for_builtin(&resource.kind, values, self.include, now),
            None => table::for_crd(&resource.versions[version].columns, values, self.include, now),
        }
    }
}

/// What a row of a table is made from. The columns of built-in kinds know the form in which they are kept.
fn table_value(resource: &Resource, version: usize, object: &Object) -> Value {
    match resource.builtin {
        Some(_) => object.value(),
        None => convert(resource, version, object.value()),
    }
}

/// Puts a list together from the bytes of its items, which are not looked at.
pub(super) fn join_list(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: impl Iterator<Item = Bytes>,
) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(format!("{{\"apiVersion\":{},\"items\":[", Value::from(api_version)).as_bytes());
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&item);
    }
    out.put_slice(format!("],\"kind\":{},\"metadata\":{metadata}}}", Value::from(kind)).as_bytes());
    out.freeze()
}
