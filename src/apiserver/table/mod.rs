//! The server-side tables that `kubectl get` prints.
//!
//! kubectl asks for `application/json;as=Table` and prints the cells as they come, so columns, their order and the
//! way ages are rounded are those of kube-apiserver. Columns of priority above 0 are shown by `-o wide` only.

mod age;
mod builtin;
mod custom;
mod json_path;

pub use builtin::for_builtin;
pub use custom::for_crd;

use serde_json::{Map, Value, json};

/// What of each object a row carries beside its cells, the `includeObject` parameter of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, which kubectl needs for `--show-labels` and to tell namespaces apart. The default.
    Metadata,
    /// All of it.
    Object,
}

/// One column's heading.
struct Column {
    name: String,
    kind: String,
    format: String,
    description: String,
    priority: i64,
}

impl Column {
    fn new(name: &str, kind: &str, description: &str) -> Self {
        let format = if name == "Name" { "name" } else { "" };
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: format.to_owned(),
            description: description.to_owned(),
            priority: 0,
        }
    }

    fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }

    fn to_value(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format, "description": self.description,
            "priority": self.priority,
        })
    }
}

/// The `Table` object. `cells` gives one object's cells, one for each column.
fn table(
    columns: &[Column],
    objects: &[Value],
    include: IncludeObject,
    cells: impl Fn(&Value) -> Vec<Value>,
) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = Map::from_iter([("cells".to_owned(), Value::from(cells(object)))]);
            match include {
                IncludeObject::None => {}
                IncludeObject::Metadata => {
                    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
                    let partial = json!({
                        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                    });
                    row.insert("object".into(), partial);
                }
                IncludeObject::Object => {
                    row.insert("object".into(), object.clone());
                }
            }
            Value::Object(row)
        })
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns.iter().map(Column::to_value).collect::<Vec<_>>(),
        "rows": rows,
    })
}

/// What Kubernetes says of the name of an object.
const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some \
                    resources may allow a client to request the generation of an appropriate name automatically.";
/// What Kubernetes says of the time at which an object was created.
const CREATED: &str =
    "CreationTimestamp is a timestamp representing the server time when this object was created.";
