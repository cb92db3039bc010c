//! One row of every kind, as kubectl prints it.

use super::*;
use serde_json::json;

fn check(kind: &str, mut object: Value, expected_columns: &str, expected: Value) {
    object["metadata"] = json!({"name": "n", "creationTimestamp": "2024-01-01T00:55:00Z"});
    let now = "2024-01-01T01:00:00Z".parse().unwrap();
    let table = for_builtin(kind, &[object.clone()], IncludeObject::None, now);
    assert_eq!(table["rows"][0]["cells"], expected, "{kind} {object}");
    let headings = table["columnDefinitions"].as_array().unwrap();
    assert_eq!(headings.len(), expected.as_array().unwrap().len());
    let narrow: Vec<String> =
        headings.iter().filter(|h| h["priority"] == 0).map(|h| text(&h["name"]).to_uppercase()).collect();
    assert_eq!(narrow.join(" "), expected_columns);
}

#[test]
fn rows_are_those_that_kubectl_users_know() {
    check(
        "Namespace",
        json!({"status": {"phase": "Active"}}),
        "NAME STATUS AGE",
        json!(["n", "Active", "5m"]),
    );
    check(
        "ConfigMap",
        json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}),
        "NAME DATA AGE",
        json!(["n", 3, "5m"]),
    );
    check(
        "Secret",
        json!({"type": "Opaque", "data": {"a": ""}}),
        "NAME TYPE DATA AGE",
        json!(["n", "Opaque", 1, "5m"]),
    );
    check("Lease", json!({"spec": {"holderIdentity": "me"}}), "NAME HOLDER AGE", json!(["n", "me", "5m"]));
    check("CustomResourceDefinition", json!({}), "NAME CREATED AT", json!(["n", "2024-01-01T00:55:00Z"]));
    let columns = "NAME CONTROLLER PARAMETERS AGE";
    check("IngressClass", json!({"spec": {"controller": "c"}}), columns, json!(["n", "c", "<none>", "5m"]));
    let parameters =
        json!({"spec": {"controller": "c", "parameters": {"apiGroup": "g.io", "kind": "K", "name": "p"}}});
    check("IngressClass", parameters, columns, json!(["n", "c", "K.g.io/p", "5m"]));
}

#[test]
fn services_show_addresses_and_ports_by_type() {
    let columns = "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE";
    for (object, expected) in [
        (
            json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
            json!(["n", "ClusterIP", "10.0.0.1", "<none>", "80/TCP,53/UDP", "5m", "a=1,b=2"]),
        ),
        (
            json!({"spec": {"type": "NodePort", "clusterIP": "None", "externalIPs": ["1.2.3.4"], "ports": [{"port": 80, "nodePort": 30080}]}}),
            json!(["n", "NodePort", "None", "1.2.3.4", "80:30080/TCP", "5m", "<none>"]),
        ),
        (
            json!({"spec": {"type": "LoadBalancer", "externalIPs": ["3.3.3.3"]},
                "status": {"loadBalancer": {"ingress": [{"hostname": "b.example"}, {"ip": "1.1.1.1"}]}}}),
            json!(["n", "LoadBalancer", "<none>", "1.1.1.1,b.example,3.3.3.3", "<none>", "5m", "<none>"]),
        ),
        (
            json!({"spec": {"type": "LoadBalancer"}}),
            json!(["n", "LoadBalancer", "<none>", "<pending>", "<none>", "5m", "<none>"]),
        ),
        (
            json!({"spec": {"type": "ExternalName", "externalName": "x.example"}}),
            json!(["n", "ExternalName", "<none>", "x.example", "<none>", "5m", "<none>"]),
        ),
    ] {
        check("Service", object, columns, expected);
    }
}

#[test]
fn ingresses_show_three_hosts_and_how_many_more() {
    let columns = "NAME CLASS HOSTS ADDRESS PORTS AGE";
    let rules = |hosts: &[&str]| hosts.iter().map(|host| json!({"host": host})).collect::<Vec<_>>();
    check("Ingress", json!({}), columns, json!(["n", "<none>", "*", "", "80", "5m"]));
    check(
        "Ingress",
        json!({"spec": {"ingressClassName": "c", "rules": rules(&["a", "b", "c", "d", "e"]), "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}}),
        columns,
        json!(["n", "c", "a,b,c + 2 more...", "1.1.1.1", "80, 443", "5m"]),
    );
    check(
        "Ingress",
        json!({"spec": {"rules": rules(&["a", "b", "c"])}}),
        columns,
        json!(["n", "<none>", "a,b,c", "", "80", "5m"]),
    );
}

#[test]
fn endpoint_slices_show_three_ports_and_addresses() {
    let columns = "NAME ADDRESSTYPE PORTS ENDPOINTS AGE";
    check(
        "EndpointSlice",
        json!({"addressType": "IPv4"}),
        columns,
        json!(["n", "IPv4", "<unset>", "<unset>", "5m"]),
    );
    check(
        "EndpointSlice",
        json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "x"}, {}],
            "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4"]}]}),
        columns,
        json!(["n", "IPv4", "80,x,*", "1,2,3 + 1 more...", "5m"]),
    );
}

#[test]
fn events_of_both_groups_read_the_same() {
    let columns = "LAST SEEN TYPE REASON OBJECT MESSAGE";
    check(
        "Event",
        json!({"type": "Normal", "reason": "R", "message": " m\n", "count": 3, "source": {"component": "c", "host": "h"},
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec"},
            "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:59:00Z"}),
        columns,
        json!(["60s", "Normal", "R", "pod/p", "spec", "c, h", "m", "60m", 3, "n"]),
    );
    check(
        "Event",
        json!({"type": "Warning", "reason": "R", "note": "m", "reportingController": "c", "eventTime": "2024-01-01T00:59:50.000000Z",
            "regarding": {"kind": "Route"}}),
        columns,
        json!(["10s", "Warning", "R", "route", "", "c", "m", "10s", 1, "n"]),
    );
    check(
        "Event",
        json!({"eventTime": "2024-01-01T00:00:00Z", "series": {"count": 5, "lastObservedTime": "2024-01-01T00:59:00Z"}}),
        columns,
        json!(["60s", "", "", "", "", "", "", "60m", 5, "n"]),
    );
}
