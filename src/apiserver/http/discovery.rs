//! What is served, in the forms that clients ask it in: plain and aggregated discovery, OpenAPI, the version.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Body, json_bytes, json_value, no_page};
use super::negotiate::{aggregated_discovery, wants_openapi_protobuf};
use super::reviews::REVIEWS;
use super::route::Route;
use crate::registry::{Registry, Resource, api_version};
use crate::schema::openapi;
use crate::state::State;
use crate::status::ApiError;
use crate::store::NAMESPACES;

const OBJECT_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

/// The release of Kubernetes whose behaviour is followed.
pub(super) fn version() -> Response<Body> {
    let version = json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.4+flotilla", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": std::env::consts::OS,
    });
    json_value(StatusCode::OK, &version)
}

/// Answers a request for anything but objects.
pub(super) fn answer(state: &State, route: &Route, headers: &HeaderMap) -> Result<Response<Body>, ApiError> {
    let registry = state.registry();
    let groups = registry.groups();
    let value = match route {
        Route::Core | Route::Groups => {
            let core = *route == Route::Core;
            if let Some(version) = aggregated_discovery(headers) {
                return Ok(aggregated(&registry, core, version));
            }
            if core {
                json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
            } else {
                let groups: Vec<Value> = groups
                    .iter()
                    .filter(|(group, _)| !group.is_empty())
                    .map(|(group, versions)| group_value(group, versions))
                    .collect();
                json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
            }
        }
        Route::Group(group) => {
            let Some(versions) = groups.get(group.as_str()).filter(|_| !group.is_empty()) else {
                return Ok(no_page());
            };
            let mut value = group_value(group, versions);
            value["kind"] = "APIGroup".into();
            value["apiVersion"] = "v1".into();
            value
        }
        Route::GroupVersion(group, version) => {
            let known =
                groups.get(group.as_str()).is_some_and(|versions| versions.contains(&version.as_str()));
            if !known {
                return Ok(no_page());
            }
            resource_list(&registry, group, version)
        }
        Route::Root => {
            let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
            for (group, versions) in groups.iter().filter(|(group, _)| !group.is_empty()) {
                paths.push(format!("/apis/{group}"));
                paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
            }
            let others = ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];
            paths.extend(others.map(str::to_owned));
            json!({"paths": paths})
        }
        Route::OpenApiV2 => return Ok(openapi_v2(state, &registry, headers)),
        Route::OpenApiV3Root => {
            let mut paths = serde_json::Map::new();
            for (group, versions) in &groups {
                for version in versions {
                    let path = path_of(group, version);
                    let hash = document_hash(&registry, group, version);
                    paths.insert(
                        path.clone(),
                        json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
                    );
                }
            }
            json!({"paths": paths})
        }
        Route::OpenApiV3(path) => {
            let found = groups.iter().find_map(|(group, versions)| {
                let version = versions.iter().find(|version| path_of(group, version) == *path)?;
                Some((*group, *version))
            });
            let Some((group, version)) = found else { return Ok(no_page()) };
            let document = state.document(&registry, path, || {
                let definitions = definitions(&registry, Some((group, version)));
                openapi::v3_document(&api_version(group, version), &definitions).to_string().into_bytes()
            });
            return Ok(json_bytes(StatusCode::OK, document));
        }
        Route::Health | Route::Version | Route::Metrics | Route::Objects(_) | Route::Unknown => {
            return Ok(no_page());
        }
    };
    Ok(json_value(StatusCode::OK, &value))
}

/// The old document. kubectl asks for it as protobuf.
fn openapi_v2(state: &State, registry: &Arc<Registry>, headers: &HeaderMap) -> Response<Body> {
    let make = || openapi::v2_document(&definitions(registry, None));
    if !wants_openapi_protobuf(headers) {
        let json = state.document(registry, "v2", || make().to_string().into_bytes());
        return json_bytes(StatusCode::OK, json);
    }
    let protobuf = state.document(registry, "v2 protobuf", || openapi::v2_protobuf(&make()));
    let mut response = json_bytes(StatusCode::OK, protobuf);
    let kind = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What the OpenAPI documents are made of.
fn definitions(registry: &Registry, only: Option<(&str, &str)>) -> Vec<openapi::ResourceDef> {
    let mut definitions = Vec::new();
    for resource in registry.resources() {
        for version in resource.versions.iter().filter(|version| version.served) {
            if only.is_none_or(|(group, name)| group == resource.group && name == version.name) {
                definitions.push(openapi::ResourceDef {
                    group: resource.group.clone(),
                    version: version.name.clone(),
                    kind: resource.kind.clone(),
                    list_kind: resource.list_kind.clone(),
                    plural: resource.plural.clone(),
                    namespaced: resource.namespaced,
                    status: version.status,
                    schema: resource.builtin.is_none().then(|| version.openapi.clone()),
                });
            }
        }
    }
    definitions
}

fn path_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Changes whenever the document of a group version does.
fn document_hash(registry: &Registry, group: &str, version: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for resource in registry.resources().filter(|resource| resource.group == group) {
        for known in resource.versions.iter().filter(|known| known.name == version) {
            hash.update(resource.plural.as_bytes());
            hash.update(known.openapi.to_string().as_bytes());
            hash.update([u8::from(known.status)]);
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02X}")).collect()
}

fn group_value(group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({"groupVersion": api_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn served<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = (&'a Resource, usize)> {
    registry.resources().filter(move |resource| resource.group == group).filter_map(move |resource| {
        let at = resource.versions.iter().position(|known| known.name == version && known.served)?;
        Some((&**resource, at))
    })
}

/// The subresources of a version.
fn subresources(resource: &Resource, version: usize) -> Vec<(&'static str, &'static [&'static str])> {
    let mut found: Vec<(&str, &[&str])> = Vec::new();
    if &*resource.id == NAMESPACES {
        found.push(("finalize", &["update"]));
    }
    if resource.versions[version].status {
        found.push(("status", &STATUS_VERBS));
    }
    found
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Value {
    let mut resources = Vec::new();
    for (resource, at) in served(registry, group, version) {
        let mut value = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": OBJECT_VERBS,
        });
        if !resource.short_names.is_empty() {
            value["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            value["categories"] = json!(resource.categories);
        }
        resources.push(value);
        for (name, verbs) in subresources(resource, at) {
            resources.push(json!({
                "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": verbs,
            }));
        }
    }
    for review in REVIEWS.iter().filter(|review| review.group == group) {
        resources.push(json!({
            "name": review.resource, "singularName": review.kind.to_lowercase(), "namespaced": false,
            "kind": review.kind, "verbs": ["create"],
        }));
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version),
        "resources": resources})
}

fn aggregated(registry: &Registry, core: bool, version: &'static str) -> Response<Body> {
    let groups = registry.groups();
    let items: Vec<Value> = groups
        .iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    json!({"version": version, "freshness": "Current",
                        "resources": aggregated_resources(registry, group, version)})
                })
                .collect();
            let metadata = if core {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items});
    let mut response = json_bytes(StatusCode::OK, Bytes::from(list.to_string()));
    let kind = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn aggregated_resources(registry: &Registry, group: &str, version: &str) -> Vec<Value> {
    let kind = |kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut resources: Vec<Value> = served(registry, group, version)
        .map(|(resource, at)| {
            let subresources: Vec<Value> = subresources(resource, at)
                .into_iter()
                .map(|(name, verbs)| {
                    json!({"subresource": name, "responseKind": kind(&resource.kind), "verbs": verbs})
                })
                .collect();
            let mut value = json!({
                "resource": resource.plural, "responseKind": kind(&resource.kind),
                "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": resource.singular, "verbs": OBJECT_VERBS,
            });
            for (field, list) in [("shortNames", &resource.short_names), ("categories", &resource.categories)]
            {
                if !list.is_empty() {
                    value[field] = json!(list);
                }
            }
            if !subresources.is_empty() {
                value["subresources"] = subresources.into();
            }
            value
        })
        .collect();
    for review in REVIEWS.iter().filter(|review| review.group == group) {
        resources.push(json!({
            "resource": review.resource, "responseKind": kind(review.kind), "scope": "Cluster",
            "singularResource": review.kind.to_lowercase(), "verbs": ["create"],
        }));
    }
    resources
}
