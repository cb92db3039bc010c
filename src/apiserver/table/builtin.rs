//! Tables of the built-in kinds, with the columns that kubectl's users know.

use super::age::since;
use super::{CREATED, Column, IncludeObject, NAME, table};
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// The most hosts, ports or addresses that are shown in one cell.
const SHOWN: usize = 3;
/// What is shown where there is nothing.
const NONE: &str = "<none>";

/// The table of built-in objects of a kind. A kind without columns of its own shows when objects were created. `now`
/// is what ages are counted to.
#[must_use]
pub fn for_builtin(kind: &str, objects: &[Value], include: IncludeObject, now: Timestamp) -> Value {
    let column = |name: &str, description: &str| Column::new(name, "string", description);
    let name = || column("Name", NAME);
    let age = || column("Age", CREATED);
    let (columns, cells): (Vec<Column>, Cells) = match kind {
        "Namespace" => (vec![name(), column("Status", "The status of the namespace"), age()], namespace),
        "ConfigMap" => {
            (vec![name(), column("Data", "Data contains the configuration data."), age()], config_map)
        }
        "Secret" => (
            vec![
                name(),
                column("Type", "Used to facilitate programmatic handling of secret data."),
                column("Data", "Data contains the secret data."),
                age(),
            ],
            secret,
        ),
        "Service" => (
            vec![
                name(),
                column("Type", "type determines how the Service is exposed."),
                column("Cluster-IP", "clusterIP is the IP address of the service."),
                column("External-IP", "externalIPs is a list of IP addresses that also accept traffic."),
                column("Port(s)", "The list of ports that are exposed by this service."),
                age(),
                column("Selector", "Route service traffic to pods with matching label keys and values.")
                    .wide(),
            ],
            service,
        ),
        "Lease" => {
            (vec![name(), column("Holder", "The identity of the holder of a current lease."), age()], lease)
        }
        "Ingress" => (
            vec![
                name(),
                column("Class", "The name of the IngressClass resource"),
                column("Hosts", "Hosts that incoming requests are matched against before the ingress rule"),
                column("Address", "Address is a list containing ingress points for the load-balancer"),
                column("Ports", "Ports of TLS configurations that open"),
                age(),
            ],
            ingress,
        ),
        "IngressClass" => (
            vec![
                name(),
                column("Controller", "Controller that is responsible for handling this class"),
                column("Parameters", "A reference to a resource with additional parameters"),
                age(),
            ],
            ingress_class,
        ),
        "EndpointSlice" => (
            vec![
                name(),
                column("AddressType", "The type of address carried by this EndpointSlice."),
                column("Ports", "The list of network ports exposed by each endpoint in this slice."),
                column("Endpoints", "A list of unique endpoints in this slice."),
                age(),
            ],
            endpoint_slice,
        ),
        "Event" => (
            vec![
                column(
                    "Last Seen",
                    "The time at which the most recent occurrence of this event was recorded.",
                ),
                column("Type", "Type of this event (Normal, Warning)."),
                column("Reason", "The reason for the transition into the object's current status."),
                column("Object", "The object that this event is about."),
                column("Subobject", "If referring to a piece of an object, the path to it.").wide(),
                column("Source", "The component reporting this event.").wide(),
                column("Message", "A human-readable description of the status of this operation."),
                column("First Seen", "The time at which the event was first recorded.").wide(),
                column("Count", "The number of times this event has occurred.").wide(),
                column("Name", NAME).wide(),
            ],
            event,
        ),
        _ => (vec![name(), Column::new("Created At", "date", CREATED)], |object, _| {
            vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
        }),
    };
    table(&columns, objects, include, |object| cells(object, now))
}

/// One object's cells.
type Cells = fn(&Value, Timestamp) -> Vec<Value>;

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

fn or<'a>(value: &'a str, otherwise: &'a str) -> &'a str {
    if value.is_empty() { otherwise } else { value }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, Map::len)
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn age(object: &Value, now: Timestamp) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

fn namespace(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["status"]["phase"]).into(), age(object, now)]
}

fn config_map(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), (count(&object["data"]) + count(&object["binaryData"])).into(), age(object, now)]
}

fn secret(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["type"]).into(), count(&object["data"]).into(), age(object, now)]
}

fn lease(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), text(&object["spec"]["holderIdentity"]).into(), age(object, now)]
}

fn service(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let kind = text(&spec["type"]);
    let cluster = list(&spec["clusterIPs"]).first().map_or(text(&spec["clusterIP"]), text);
    let external = list(&spec["externalIPs"]).iter().map(text);
    let balanced = addresses(&object["status"]["loadBalancer"]["ingress"]);
    let external = match kind {
        "ClusterIP" | "NodePort" => or(&external.collect::<Vec<_>>().join(","), NONE).to_owned(),
        "LoadBalancer" => {
            let all: Vec<&str> = balanced.iter().map(String::as_str).chain(external).collect();
            or(&all.join(","), "<pending>").to_owned()
        }
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    };
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|port| match port["nodePort"].as_i64() {
            Some(node) if node > 0 => {
                format!("{}:{node}/{}", port["port"], or(text(&port["protocol"]), "TCP"))
            }
            _ => format!("{}/{}", port["port"], or(text(&port["protocol"]), "TCP")),
        })
        .collect();
    let selector: Vec<String> = spec["selector"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    vec![
        name(object),
        kind.into(),
        or(cluster, NONE).into(),
        external.into(),
        or(&ports.join(","), NONE).into(),
        age(object, now),
        or(&selector.join(","), NONE).into(),
    ]
}

/// The addresses of a load balancer, sorted and each once.
fn addresses(ingress: &Value) -> BTreeSet<String> {
    let address = |point: &Value| or(text(&point["ip"]), text(&point["hostname"])).to_owned();
    list(ingress).iter().map(address).filter(|address| !address.is_empty()).collect()
}

fn ingress(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &object["spec"];
    let rules = list(&spec["rules"]);
    let hosts: Vec<&str> =
        rules.iter().map(|rule| text(&rule["host"])).filter(|host| !host.is_empty()).collect();
    let shown = hosts[..hosts.len().min(SHOWN)].join(",");
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        found if found > SHOWN => format!("{shown} + {} more...", rules.len() - SHOWN),
        _ => shown,
    };
    let address: Vec<String> = addresses(&object["status"]["loadBalancer"]["ingress"]).into_iter().collect();
    let ports = if list(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        or(text(&spec["ingressClassName"]), NONE).into(),
        hosts.into(),
        address.join(",").into(),
        ports.into(),
        age(object, now),
    ]
}

fn ingress_class(object: &Value, now: Timestamp) -> Vec<Value> {
    let parameters = match &object["spec"]["parameters"] {
        Value::Object(reference) => {
            let field = |key: &str| reference.get(key).map_or("", text);
            let group = field("apiGroup");
            let dot = if group.is_empty() { "" } else { "." };
            format!("{}{dot}{group}/{}", field("kind"), field("name"))
        }
        _ => NONE.to_owned(),
    };
    vec![name(object), text(&object["spec"]["controller"]).into(), parameters.into(), age(object, now)]
}

fn endpoint_slice(object: &Value, now: Timestamp) -> Vec<Value> {
    let port = |port: &Value| match (&port["port"], &port["name"]) {
        (Value::Number(number), _) => number.to_string(),
        (_, Value::String(name)) => name.clone(),
        _ => "*".to_owned(),
    };
    let ports = list(&object["ports"]).iter().map(port).collect();
    let addresses = |endpoint: &Value| {
        list(&endpoint["addresses"]).iter().map(|a| text(a).to_owned()).collect::<Vec<_>>()
    };
    let endpoints = list(&object["endpoints"]).iter().flat_map(addresses).collect();
    vec![
        name(object),
        text(&object["addressType"]).into(),
        shortened(ports).into(),
        shortened(endpoints).into(),
        age(object, now),
    ]
}

/// The first few entries, and how many there are beyond them.
fn shortened(entries: Vec<String>) -> String {
    match entries.len() {
        0 => "<unset>".to_owned(),
        found if found > SHOWN => format!("{} + {} more...", entries[..SHOWN].join(","), found - SHOWN),
        _ => entries.join(","),
    }
}

/// Events come in two shapes, of the core group and of events.k8s.io, which names the same things differently.
fn event(object: &Value, now: Timestamp) -> Vec<Value> {
    let either = |core: &str, events: &str| match &object[core] {
        Value::Null => object[events].clone(),
        value => value.clone(),
    };
    let about = either("involvedObject", "regarding");
    let source = either("source", "deprecatedSource");
    let time = |value: Value| value.as_str().is_some().then(|| since(&value, now));
    let first = time(either("firstTimestamp", "deprecatedFirstTimestamp"))
        .unwrap_or_else(|| since(&object["eventTime"], now));
    let mut last = time(either("lastTimestamp", "deprecatedLastTimestamp")).unwrap_or_else(|| first.clone());
    let mut times = either("count", "deprecatedCount").as_i64().unwrap_or(0).max(1);
    if object["series"].is_object() {
        last = since(&object["series"]["lastObservedTime"], now);
        times = object["series"]["count"].as_i64().unwrap_or(0);
    }
    let kind = text(&about["kind"]).to_lowercase();
    let target = match text(&about["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component = or(
        text(&source["component"]),
        or(text(&object["reportingComponent"]), text(&object["reportingController"])),
    );
    let instance = or(text(&source["host"]), text(&object["reportingInstance"]));
    let reporter =
        if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") };
    vec![
        last.into(),
        text(&object["type"]).into(),
        text(&object["reason"]).into(),
        target.into(),
        text(&about["fieldPath"]).into(),
        reporter.into(),
        text(&either("message", "note")).trim().into(),
        first.into(),
        times.into(),
        name(object),
    ]
}

#[cfg(test)]
mod tests;
