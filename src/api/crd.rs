//! The CustomResourceDefinitions of all kinds, as objects and as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;
use serde_json::Value;

use crate::avapigw::{APIRoute, Backend, GRPCBackend, GRPCRoute};
use crate::fleet::ShardMap;

/// The definitions of all kinds, always in the same order.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [APIRoute::crd(), GRPCRoute::crd(), Backend::crd(), GRPCBackend::crd(), ShardMap::crd()]
        .map(complete)
        .into()
}

/// Names the kind of lists, which API servers would otherwise fill in, and
/// drops the title, in which `schemars` repeats the kind.
fn complete(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    let schemas = crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut());
    for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
        schema.title = None;
    }
    crd
}

/// A definition as JSON in the form in which it is written down: whole
/// numbers without a fraction, and no keys without a value.
pub fn crd_json(crd: &CustomResourceDefinition) -> Value {
    let mut value = serde_json::to_value(crd).expect("a definition has string keys only");
    whole_numbers(&mut value);
    value
}

/// All definitions as one YAML stream, for `kubectl apply -f -`.
pub fn crd_yaml() -> String {
    crds().iter().map(yaml_document).collect()
}

/// The file name and content of every definition, as the chart keeps them.
pub fn crd_files() -> Vec<(String, String)> {
    crds()
        .iter()
        .map(|crd| (format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural), yaml_document(crd)))
        .collect()
}

fn yaml_document(crd: &CustomResourceDefinition) -> String {
    let text = serde_saphyr::to_string(&crd_json(crd)).expect("JSON values are always representable in YAML");
    format!("---\n{text}")
}

/// Bounds are floating-point numbers in the Kubernetes types; `1.0` in place
/// of `1` is correct and irritates whoever reads it.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() < 1e15
            {
                *value = Value::from(float as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
