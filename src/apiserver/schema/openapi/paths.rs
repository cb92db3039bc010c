//! The operations of a resource, in both versions of OpenAPI.
//!
//! Only what clients look for is said: methods, the kind they are about, parameters and bodies.

use super::{META, ResourceDef, reference};
use serde_json::{Map, Value, json};

/// The patches that are accepted; strategic ones for built-in kinds only.
const PATCHES: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// What is done with a resource by one method at one path.
#[derive(Clone, Copy)]
struct Operation {
    method: &'static str,
    /// The verb as Kubernetes calls it.
    action: &'static str,
    body: Body,
    answer: Answer,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Object,
    Patch,
    DeleteOptions,
}

#[derive(Clone, Copy)]
enum Answer {
    Object,
    List,
    Status,
}

const fn operation(method: &'static str, action: &'static str, body: Body, answer: Answer) -> Operation {
    Operation { method, action, body, answer }
}

const COLLECTION: [Operation; 3] = [
    operation("get", "list", Body::None, Answer::List),
    operation("post", "post", Body::Object, Answer::Object),
    operation("delete", "deletecollection", Body::DeleteOptions, Answer::Status),
];
const ITEM: [Operation; 4] = [
    operation("get", "get", Body::None, Answer::Object),
    operation("put", "put", Body::Object, Answer::Object),
    operation("patch", "patch", Body::Patch, Answer::Object),
    operation("delete", "delete", Body::DeleteOptions, Answer::Status),
];
const STATUS: [Operation; 3] = [ITEM[0], ITEM[1], ITEM[2]];
const ALL_NAMESPACES: [Operation; 1] = [COLLECTION[0]];

/// A path, the names in it, and what can be done there.
type Route = (String, &'static [&'static str], &'static [Operation]);

fn routes(resource: &ResourceDef) -> Vec<Route> {
    let prefix = if resource.group.is_empty() { "/api" } else { "/apis" };
    let base = format!("{prefix}/{}", resource.api_version());
    let plural = &resource.plural;
    let mut routes: Vec<Route> = Vec::new();
    let (collection, names, name): (_, &[&str], &[&str]) = if resource.namespaced {
        routes.push((format!("{base}/{plural}"), &[], &ALL_NAMESPACES));
        (format!("{base}/namespaces/{{namespace}}/{plural}"), &["namespace"], &["name", "namespace"])
    } else {
        (format!("{base}/{plural}"), &[], &["name"])
    };
    routes.push((collection.clone(), names, &COLLECTION));
    routes.push((format!("{collection}/{{name}}"), name, &ITEM));
    if resource.status {
        routes.push((format!("{collection}/{{name}}/status"), name, &STATUS));
    }
    routes
}

impl Operation {
    /// Name, type and description of each query parameter.
    fn parameters(self) -> Vec<(&'static str, &'static str, &'static str)> {
        let mut parameters = Vec::new();
        if matches!(self.action, "list" | "deletecollection") {
            parameters.extend([
                (
                    "continue",
                    "string",
                    "The position from which to go on with a list that was cut by a limit.",
                ),
                (
                    "fieldSelector",
                    "string",
                    "A selector to restrict the list of returned objects by their fields.",
                ),
                (
                    "labelSelector",
                    "string",
                    "A selector to restrict the list of returned objects by their labels.",
                ),
                ("limit", "integer", "The largest number of objects to return in one response."),
                ("resourceVersion", "string", "Which versions of the objects may be served."),
            ]);
        }
        if self.action == "list" {
            parameters.push(("watch", "boolean", "Watch for changes and return them as a stream."));
        }
        if self.method != "get" {
            parameters.push((
                "dryRun",
                "string",
                "When present, indicates that modifications should not be persisted.",
            ));
        }
        if matches!(self.method, "post" | "put" | "patch") {
            parameters.extend([
                ("fieldManager", "string", "A name associated with the actor that is making these changes."),
                (
                    "fieldValidation",
                    "string",
                    "What to do with unknown and duplicate fields: Ignore, Warn or Strict.",
                ),
            ]);
        }
        parameters
    }

    fn id(self, resource: &ResourceDef, path: &str) -> String {
        let mut id = self.action.to_owned();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != "apis" && *part != "api") {
            let mut letters = part.chars().filter(|c| c.is_ascii_alphanumeric());
            id.extend(letters.next().map(|c| c.to_ascii_uppercase()));
            id.extend(letters);
        }
        id.push_str(&resource.kind);
        id
    }

    fn answer(self, resource: &ResourceDef) -> String {
        match self.answer {
            Answer::Object => resource.definition(),
            Answer::List => format!("{}List", resource.definition()),
            Answer::Status => format!("{META}.Status"),
        }
    }

    fn body(self, resource: &ResourceDef) -> Option<String> {
        match self.body {
            Body::None => None,
            Body::Object => Some(resource.definition()),
            Body::Patch => Some(format!("{META}.Patch")),
            Body::DeleteOptions => Some(format!("{META}.DeleteOptions")),
        }
    }

    /// What both versions say in the same way.
    fn common(self, resource: &ResourceDef, path: &str) -> Value {
        json!({
            "operationId": self.id(resource, path),
            "description": format!("{} {}", self.action, resource.kind),
            "tags": [format!("{}_{}", resource.group.replace('.', "_"), resource.version)],
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": resource.gvk(&resource.kind),
        })
    }

    fn patches(resource: &ResourceDef) -> &'static [&'static str] {
        if resource.schema.is_some() { &PATCHES[..2] } else { &PATCHES }
    }
}

/// Adds the paths of a resource to a document of version 3.
pub(super) fn v3(resource: &ResourceDef, paths: &mut Map<String, Value>) {
    for (path, names, operations) in routes(resource) {
        let named =
            |name: &&str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
        let mut item = json!({"parameters": names.iter().map(named).collect::<Vec<_>>()});
        for operation in operations {
            let mut value = operation.common(resource, &path);
            let query = |(name, kind, description): (&str, &str, &str)| json!({"name": name, "in": "query", "description": description, "schema": {"type": kind}});
            value["parameters"] = operation.parameters().into_iter().map(query).collect();
            let content = json!({"application/json": {"schema": reference(&operation.answer(resource))}});
            value["responses"] = json!({"200": {"description": "OK", "content": content}});
            if let Some(body) = operation.body(resource) {
                let types: &[&str] = if operation.body == Body::Patch {
                    Operation::patches(resource)
                } else {
                    &["application/json"]
                };
                let content: Map<String, Value> = types
                    .iter()
                    .map(|name| ((*name).to_owned(), json!({"schema": reference(&body)})))
                    .collect();
                value["requestBody"] = json!({"content": content});
            }
            item[operation.method] = value;
        }
        paths.insert(path, item);
    }
}

/// Adds the paths of a resource to a document of version 2.
pub(super) fn v2(resource: &ResourceDef, paths: &mut Map<String, Value>) {
    let reference = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
    for (path, names, operations) in routes(resource) {
        let named = |name: &&str| json!({"name": name, "in": "path", "required": true, "type": "string"});
        let mut item = json!({"parameters": names.iter().map(named).collect::<Vec<_>>()});
        for operation in operations {
            let mut value = operation.common(resource, &path);
            let query = |(name, kind, description): (&str, &str, &str)| json!({"name": name, "in": "query", "description": description, "type": kind});
            let mut parameters: Vec<Value> = operation.parameters().into_iter().map(query).collect();
            if let Some(body) = operation.body(resource) {
                let required = operation.body != Body::DeleteOptions;
                let schema = reference(&body);
                parameters
                    .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
            }
            value["parameters"] = parameters.into();
            value["produces"] = json!(["application/json"]);
            value["consumes"] = if operation.body == Body::Patch {
                json!(Operation::patches(resource))
            } else {
                json!(["*/*"])
            };
            value["schemes"] = json!(["https"]);
            let answer = reference(&operation.answer(resource));
            value["responses"] = json!({"200": {"description": "OK", "schema": answer}});
            item[operation.method] = value;
        }
        paths.insert(path, item);
    }
}
