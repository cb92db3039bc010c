//! The chart takes those gateway policies that the binary takes, and no others.

use std::process::Command;

use serde_json::{Value, json};

use super::{chart, helm, render};
use crate::program::{outcome, run};

/// What the binary has against a policy. It reads it before it looks for a cluster.
fn problem(policy: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let (file, nowhere) = (folder.path().join("policy.yaml"), folder.path().join("kubeconfig"));
    std::fs::write(&file, policy).unwrap();
    let arguments = ["--gateway-policy", file.to_str().unwrap(), "--kubeconfig", nowhere.to_str().unwrap()];
    let ports = ["--bind-address=127.0.0.1", "--metrics-bind-address=127.0.0.1:0"];
    let (code, _, said) = outcome(&run(&[&["controller"], &arguments[..], &ports].concat()));
    assert_ne!(code, Some(0), "it ran without a cluster: {said}");
    if said.contains("--gateway-policy") {
        return Some(said);
    }
    assert!(said.contains("kubeconfig"), "it did not come to the cluster: {said}");
    None
}

/// The policy in the ConfigMap that the chart makes, if it makes one.
fn rendered(objects: &str) -> Option<String> {
    let map =
        objects.split("\n---").find(|object| object.contains("name: flotilla-gateway-policy\n  labels"))?;
    let map: Value = serde_saphyr::from_str(map).unwrap();
    Some(map["data"]["policy.yaml"].as_str().unwrap().to_owned())
}

#[test]
fn policies_of_the_chart_are_read_by_the_binary() {
    let Some(helm) = helm() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(chart().join("ci")).unwrap() {
        let values = entry.unwrap().path();
        if let Some(policy) = rendered(&render(&helm, &["--values", values.to_str().unwrap()])) {
            assert_eq!(problem(&policy), None, "{}: {policy}", values.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "no values with a policy");
}

#[test]
fn the_chart_refuses_policies_that_the_binary_refuses() {
    let Some(helm) = helm() else { return };
    let rule = |gateways: Value| json!({"rules": [{"gateways": gateways, "namespaces": ["shop"]}]});
    let named = |name: &str| rule(json!({"names": [name]}));
    for (policy, right) in [
        (json!({"rules": []}), false),
        (json!({"rules": [], "otherwise": "nothing"}), true),
        (json!({"otherwise": "everything"}), true),
        (json!({"otherwise": "something"}), false),
        (rule(json!({})), false),
        (rule(json!({"names": []})), false),
        (rule(json!({"namespaces": []})), false),
        (rule(json!({"namespaces": [], "names": []})), false),
        (rule(json!({"namespaces": ["edge"], "names": []})), true),
        (rule(json!({"namespaces": [], "names": ["public-*"]})), true),
        (rule(json!({"labels": {"tier": "public"}})), false),
        (rule(json!({"namespaces": ["edge"], "labels": {"tier": "public"}})), true),
        (named("*"), true),
        (named(""), false),
        (named("a*b"), false),
        (named("Edge"), false),
        (named(&"a".repeat(253)), true),
        (named(&"a".repeat(254)), false),
        (json!({"rules": [{"gateways": {"names": ["a"]}, "namespaces": [], "kinds": []}]}), true),
        (
            json!({"rules": [{"gateways": {"names": ["a"]}, "namespaces": ["b"], "kinds": ["Ingress"]}]}),
            false,
        ),
        (json!({"rules": [{"gateways": {"names": ["a"]}}]}), false),
        (json!({"rules": [{"gateways": {"names": ["a"]}, "namespaces": ["b"], "kind": []}]}), false),
    ] {
        let found = problem(&policy.to_string());
        assert_eq!(found.is_none(), right, "the binary says {found:?} about {policy}");
        let taken = Command::new(&helm)
            .args(["template", "flotilla", "--kube-version", "1.34.4"])
            .args(["--set", "image.repository=registry.example.com/flotilla"])
            .args(["--set-json", &format!("gatewayPolicy={policy}")])
            .arg(chart())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&taken.stderr);
        assert_eq!(taken.status.success(), right, "the chart says {said:?} about {policy}");
        // Not for another reason.
        assert!(right || said.contains("gatewayPolicy") || said.contains("gateway"), "{said}");
    }
}
