//! The rules of the built-in kinds that their users rely on. Types of fields are the schema's business.

use serde_json::{Value, json};

use super::names::{NameRule, is_label};
use super::{Builtin, event};
use crate::schema::Cause;
use crate::store::text;

/// Largest sum of the sizes of all values of a ConfigMap or Secret, in bytes.
const DATA_LIMIT: i64 = 1024 * 1024;
const IMMUTABLE: &str = "field is immutable";

/// Checks an object, and its change when there is an `old` one.
pub(super) fn validate(builtin: Builtin, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    match builtin {
        Builtin::ConfigMap => data(value, old, &["data", "binaryData"], causes),
        Builtin::Secret => {
            data(value, old, &["data"], causes);
            if old.is_some_and(|old| old["type"] != value["type"]) {
                causes.push(Cause::invalid("type", &value["type"], IMMUTABLE));
            }
        }
        Builtin::Service => service(value, old, causes),
        Builtin::Lease => lease(value, causes),
        Builtin::Event => event::validate(value, old.is_none(), causes),
        Builtin::Ingress => ingress(value, causes),
        Builtin::IngressClass => ingress_class(value, old, causes),
        Builtin::EndpointSlice => endpoint_slice(value, old, causes),
        Builtin::Namespace | Builtin::Definition => {}
    }
}

fn data(value: &Value, old: Option<&Value>, fields: &[&str], causes: &mut Vec<Cause>) {
    let mut size = 0_usize;
    for field in fields {
        for (key, content) in value[*field].as_object().into_iter().flatten() {
            let good = !key.is_empty()
                && key.len() <= 253
                && key != "."
                && !key.starts_with("..")
                && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !good {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. \
                           'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &key.as_str().into(), why));
            }
            size += content.as_str().unwrap_or_default().len();
        }
    }
    if i64::try_from(size).unwrap_or(i64::MAX) > DATA_LIMIT {
        causes.push(Cause::too_long("data", DATA_LIMIT));
    }
    let Some(old) = old.filter(|old| old["immutable"] == true) else { return };
    if value["immutable"] != true {
        causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields.iter().filter(|field| old[**field] != value[**field]) {
        causes.push(Cause::forbidden(*field, "field is immutable when `immutable` is set"));
    }
}

fn port_number(field: String, port: &Value, causes: &mut Vec<Cause>) {
    match port.as_i64() {
        None => causes.push(Cause::required(field, "")),
        Some(1..=65535) => {}
        Some(_) => causes.push(Cause::invalid(field, port, "must be between 1 and 65535, inclusive")),
    }
}

fn service(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let kind = text(spec, "/type");
    let known = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    if !known.contains(&kind) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &known));
    }
    let address = text(spec, "/clusterIP");
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && kind != "ExternalName" && address != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (at, port) in ports.iter().enumerate() {
        let name = text(port, "/name");
        let field = |name: &str| format!("spec.ports[{at}].{name}");
        if name.is_empty() && ports.len() > 1 {
            causes.push(Cause::required(field("name"), ""));
        } else if !name.is_empty() {
            NameRule::Label.check(&field("name"), name, causes);
            if ports[..at].iter().any(|other| text(other, "/name") == name) {
                causes.push(Cause::duplicate(field("name"), &port["name"]));
            }
        }
        port_number(field("port"), &port["port"], causes);
        let protocols = ["SCTP", "TCP", "UDP"];
        if !protocols.contains(&text(port, "/protocol")) {
            causes.push(Cause::not_supported(field("protocol"), &port["protocol"], &protocols));
        }
    }
    if kind == "ExternalName" && text(spec, "/externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    if let Some(old) = old
        && text(old, "/spec/type") != "ExternalName"
        && kind != "ExternalName"
        && !text(old, "/spec/clusterIP").is_empty()
        && text(old, "/spec/clusterIP") != address
    {
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!([address]), "may not change once set"));
    }
}

fn lease(value: &Value, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let why = "must be greater than 0";
        causes.push(Cause::invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], why));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let why = "must be greater than or equal to 0";
        causes.push(Cause::invalid("spec.leaseTransitions", &spec["leaseTransitions"], why));
    }
    for field in ["acquireTime", "renewTime"] {
        if let Some(time) = spec[field].as_str().filter(|time| time.parse::<jiff::Timestamp>().is_err()) {
            causes.push(Cause::invalid(
                format!("spec.{field}"),
                &time.into(),
                "must be a time as in RFC 3339",
            ));
        }
    }
}

fn ingress_backend(field: &str, backend: &Value, causes: &mut Vec<Cause>) {
    match (backend.get("service"), backend.get("resource")) {
        (None, None) => causes.push(Cause::required(field, "port name or number is required")),
        (Some(service), None) => {
            let name = text(service, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{field}.service.name"), ""));
            } else {
                NameRule::Label1035.check(&format!("{field}.service.name"), name, causes);
            }
            let port = &service["port"];
            if text(port, "/name").is_empty() {
                if port.get("number").is_none() {
                    causes.push(Cause::required(field, "port name or number is required"));
                } else {
                    port_number(format!("{field}.service.port.number"), &port["number"], causes);
                }
            }
        }
        (Some(_), Some(_)) => {
            causes.push(Cause::invalid(field, backend, "cannot set both resource and service backends"));
        }
        (None, Some(_)) => {}
    }
}

fn ingress(value: &Value, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let rules = spec["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    match spec.get("defaultBackend") {
        Some(backend) => ingress_backend("spec.defaultBackend", backend, causes),
        None if rules.is_empty() => {
            let why = "either `defaultBackend` or `rules` must be specified";
            causes.push(Cause::invalid("spec", &spec["rules"], why));
        }
        None => {}
    }
    for (at, rule) in rules.iter().enumerate() {
        let host = text(rule, "/host");
        let plain = host.strip_prefix("*.").unwrap_or(host);
        if !host.is_empty() && !plain.split('.').all(is_label) {
            NameRule::Subdomain.check(&format!("spec.rules[{at}].host"), host, causes);
        }
        let paths =
            rule.pointer("/http/paths").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (number, path) in paths.iter().enumerate() {
            let field = format!("spec.rules[{at}].http.paths[{number}]");
            let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
            match text(path, "/pathType") {
                "" => {
                    causes.push(Cause::required(format!("{field}.pathType"), "pathType must be specified"));
                    continue;
                }
                kind if !kinds.contains(&kind) => {
                    causes.push(Cause::not_supported(format!("{field}.pathType"), &path["pathType"], &kinds));
                }
                kind => {
                    let location = text(path, "/path");
                    if !location.starts_with('/')
                        && (kind != "ImplementationSpecific" || !location.is_empty())
                    {
                        let why = "must be an absolute path";
                        causes.push(Cause::invalid(format!("{field}.path"), &location.into(), why));
                    }
                }
            }
            ingress_backend(&format!("{field}.backend"), &path["backend"], causes);
        }
    }
}

fn ingress_class(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let controller = text(value, "/spec/controller");
    if controller.is_empty() {
        causes.push(Cause::required("spec.controller", ""));
    }
    if old.is_some_and(|old| text(old, "/spec/controller") != controller) {
        causes.push(Cause::invalid("spec.controller", &controller.into(), IMMUTABLE));
    }
}

fn endpoint_slice(value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let kinds = ["FQDN", "IPv4", "IPv6"];
    let kind = text(value, "/addressType");
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !kinds.contains(&kind) {
        causes.push(Cause::not_supported("addressType", &value["addressType"], &kinds));
    }
    if old.is_some_and(|old| old["addressType"] != value["addressType"]) {
        causes.push(Cause::invalid("addressType", &value["addressType"], IMMUTABLE));
    }
    for (at, endpoint) in value["endpoints"].as_array().into_iter().flatten().enumerate() {
        let addresses = endpoint["addresses"].as_array().map_or(0, Vec::len);
        if addresses == 0 {
            causes.push(Cause::required(
                format!("endpoints[{at}].addresses"),
                "must contain at least 1 address",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(builtin: Builtin, value: Value, old: Option<Value>, fields: &[&str]) {
        let mut causes = Vec::new();
        validate(builtin, &value, old.as_ref(), &mut causes);
        let found: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(found, fields, "{value}: {causes:?}");
    }

    #[test]
    fn immutable_configuration_stays() {
        let old = json!({"data": {"a": "1"}, "immutable": true});
        check(
            Builtin::ConfigMap,
            json!({"data": {"a": "2"}, "immutable": true}),
            Some(old.clone()),
            &["data"],
        );
        check(Builtin::ConfigMap, json!({"data": {"a": "1"}}), Some(old.clone()), &["immutable"]);
        check(Builtin::ConfigMap, old.clone(), Some(old), &[]);
        check(Builtin::ConfigMap, json!({"data": {"a b": "1"}}), None, &["data[a b]"]);
        check(Builtin::Secret, json!({"type": "b"}), Some(json!({"type": "a"})), &["type"]);
    }

    #[test]
    fn leases_have_positive_durations() {
        check(Builtin::Lease, json!({"spec": {"leaseDurationSeconds": 5, "leaseTransitions": 0}}), None, &[]);
        check(
            Builtin::Lease,
            json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            None,
            &["spec.leaseDurationSeconds", "spec.leaseTransitions"],
        );
    }

    #[test]
    fn services_have_ports_and_keep_their_address() {
        let service = |ports: Value, address: &str| json!({"spec": {"type": "ClusterIP", "ports": ports, "clusterIP": address}});
        check(Builtin::Service, service(json!([{"port": 80, "protocol": "TCP"}]), "10.0.0.1"), None, &[]);
        check(Builtin::Service, service(json!([]), "None"), None, &[]);
        check(Builtin::Service, service(json!([]), ""), None, &["spec.ports"]);
        let two = json!([{"port": 0, "protocol": "TCP", "name": "a"}, {"port": 2, "protocol": "X"}]);
        let expected = ["spec.ports[0].port", "spec.ports[1].name", "spec.ports[1].protocol"];
        check(Builtin::Service, service(two, "10.0.0.1"), None, &expected);
        let good = json!([{"port": 80, "protocol": "TCP"}]);
        let old = service(good.clone(), "10.0.0.1");
        check(Builtin::Service, service(good, "10.0.0.2"), Some(old), &["spec.clusterIPs[0]"]);
    }

    #[test]
    fn ingresses_need_a_backend_and_path_types() {
        check(Builtin::Ingress, json!({"spec": {}}), None, &["spec"]);
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let rule =
            |path: Value| json!({"spec": {"rules": [{"host": "*.a.example", "http": {"paths": [path]}}]}});
        check(
            Builtin::Ingress,
            rule(json!({"path": "/", "pathType": "Prefix", "backend": backend})),
            None,
            &[],
        );
        check(
            Builtin::Ingress,
            rule(json!({"path": "x", "pathType": "Exact", "backend": {}})),
            None,
            &["spec.rules[0].http.paths[0].path", "spec.rules[0].http.paths[0].backend"],
        );
        check(
            Builtin::Ingress,
            rule(json!({"path": "/", "backend": backend})),
            None,
            &["spec.rules[0].http.paths[0].pathType"],
        );
    }
}
