//! What the server fills in for built-in kinds.

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use serde_json::{Map, Value, json};

use super::{Builtin, crd};
use crate::status::ApiError;
use crate::store::{metadata_mut, text};

/// Part of decoding, before anything is decided: defaults of the version, and write-only fields.
pub(super) fn on_decode(builtin: Builtin, value: &mut Value) -> Result<(), ApiError> {
    match builtin {
        Builtin::Secret => {
            fold_string_data(value)?;
            set_default(value, "type", json!("Opaque"));
        }
        Builtin::Service => default_service(value),
        Builtin::EndpointSlice => {
            for port in items(value, "/ports") {
                set_default(port, "protocol", json!("TCP"));
                set_default(port, "name", json!(""));
            }
            for endpoint in items(value, "/endpoints") {
                set_default(endpoint, "conditions", json!({}));
            }
        }
        Builtin::Event => {
            for field in ["eventTime", "firstTimestamp", "lastTimestamp"] {
                set_default(value, field, Value::Null);
            }
            for field in ["reportingComponent", "reportingInstance"] {
                set_default(value, field, json!(""));
            }
            for field in ["source", "involvedObject"] {
                set_default(value, field, json!({}));
            }
        }
        Builtin::Definition => crd::default(value),
        Builtin::Namespace
        | Builtin::ConfigMap
        | Builtin::Lease
        | Builtin::Ingress
        | Builtin::IngressClass => {}
    }
    Ok(())
}

/// What a new object gets.
pub(super) fn on_create(builtin: Builtin, value: &mut Value) {
    match builtin {
        Builtin::Namespace => {
            let name = text(value, "/metadata/name").to_owned();
            let labels = metadata_mut(value).entry("labels").or_insert_with(|| json!({}));
            if let Some(labels) = labels.as_object_mut() {
                labels.insert("kubernetes.io/metadata.name".into(), name.into());
            }
            put(value, "spec", json!({"finalizers": ["kubernetes"]}));
            put(value, "status", json!({"phase": "Active"}));
        }
        Builtin::Service => {
            allocate_cluster_ip(value);
            put(value, "status", json!({"loadBalancer": {}}));
        }
        Builtin::Ingress => put(value, "status", json!({"loadBalancer": {}})),
        Builtin::Definition => crd::on_create(value),
        Builtin::ConfigMap
        | Builtin::Secret
        | Builtin::Event
        | Builtin::Lease
        | Builtin::IngressClass
        | Builtin::EndpointSlice => {}
    }
}

/// What a changed object keeps or gets.
pub(super) fn on_update(builtin: Builtin, value: &mut Value, old: &Value) {
    match builtin {
        Builtin::Namespace => {
            let name = text(value, "/metadata/name").to_owned();
            let labels = metadata_mut(value).entry("labels").or_insert_with(|| json!({}));
            if let Some(labels) = labels.as_object_mut() {
                labels.entry("kubernetes.io/metadata.name").or_insert_with(|| name.into());
            }
        }
        Builtin::Service => {
            // Clients that leave the allocated address out mean to keep it.
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                let before = old["spec"].get(field).cloned();
                if let (Some(before), Some(spec)) = (before, value["spec"].as_object_mut()) {
                    spec.entry(field).or_insert(before);
                }
            }
            if text(value, "/spec/clusterIP").is_empty() {
                allocate_cluster_ip(value);
            }
        }
        Builtin::Definition => crd::on_update(value),
        Builtin::ConfigMap
        | Builtin::Secret
        | Builtin::Event
        | Builtin::Lease
        | Builtin::Ingress
        | Builtin::IngressClass
        | Builtin::EndpointSlice => {}
    }
}

/// `stringData` is written into `data` and never stored.
fn fold_string_data(value: &mut Value) -> Result<(), ApiError> {
    let Some(object) = value.as_object_mut() else { return Ok(()) };
    if let Some(found) = object.get("data").and_then(Value::as_object) {
        for data in found.values() {
            let Err(error) = STANDARD.decode(data.as_str().unwrap_or_default()) else { continue };
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(length) => length,
                DecodeError::InvalidPadding => data.as_str().map_or(0, str::len),
            };
            return Err(ApiError::bad_request(format!(
                "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte {at}"
            )));
        }
    }
    let Some(plain) = object.remove("stringData") else { return Ok(()) };
    let Value::Object(plain) = plain else { return Ok(()) };
    let data = object.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if data.is_null() {
        *data = json!({});
    }
    if let Some(data) = data.as_object_mut() {
        for (key, text) in plain {
            let Some(text) = text.as_str() else {
                return Err(ApiError::bad_request(format!(
                    "Secret in version \"v1\" cannot be handled as a Secret: stringData[{key}] must be a string"
                )));
            };
            data.insert(key, STANDARD.encode(text).into());
        }
    }
    Ok(())
}

fn default_service(value: &mut Value) {
    let Some(object) = value.as_object_mut() else { return };
    let spec = object.entry("spec").or_insert_with(|| json!({}));
    set_default(spec, "type", json!("ClusterIP"));
    set_default(spec, "sessionAffinity", json!("None"));
    let external = text(spec, "/type") == "ExternalName";
    if !external {
        set_default(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if matches!(text(spec, "/type"), "NodePort" | "LoadBalancer") {
        set_default(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    for port in items(spec, "/ports") {
        set_default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        set_default(port, "targetPort", number);
    }
}

/// Gives a service an address from 10.96.0.0/12. Nothing routes to it; it has to be there and to be stable, so it
/// follows from the uid.
fn allocate_cluster_ip(value: &mut Value) {
    if text(value, "/spec/type") == "ExternalName" {
        return;
    }
    let digest = text(value, "/metadata/uid")
        .bytes()
        .fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let number = digest & 0x000f_ffff;
    let found = text(value, "/spec/clusterIP");
    let address = if found.is_empty() {
        format!("10.{}.{}.{}", 96 + (number >> 16), (number >> 8) & 255, number & 255)
    } else {
        found.to_owned()
    };
    let spec = &mut value["spec"];
    set_default(spec, "ipFamilyPolicy", json!("SingleStack"));
    set_default(spec, "ipFamilies", json!(["IPv4"]));
    put(spec, "clusterIPs", json!([address]));
    put(spec, "clusterIP", address.into());
}

fn items<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

fn put(value: &mut Value, field: &str, content: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(field.to_owned(), content);
    }
}

fn set_default(value: &mut Value, field: &str, content: Value) {
    if let Some(object) = value.as_object_mut() {
        let found = object.entry(field).or_insert(Value::Null);
        if found.is_null() {
            *found = content;
        }
    }
}
