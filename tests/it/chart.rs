//! The chart against a real API server: every object is accepted, and the
//! rights that it gives are enough for a replica, and no more.
//!
//! Only a real API server checks a StatefulSet or authorises by RBAC. Needs
//! Helm and kubectl besides; says so where they are missing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod admission;
mod kubectl;
mod optional;
mod policy;
mod replica;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flotilla_testing::fleet::waiting::within;
use flotilla_testing::real_kube::{Options, RealKube};
use serde_json::Value;
use tokio::runtime::Handle;

use kubectl::Kubectl;

/// Where the documentation assumes the release to be.
const NAMESPACE: &str = "avapigw-system";
/// How long the API server may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, from a thread that may block, until `probe` says nothing against it.
fn eventually(what: &str, probe: impl AsyncFnMut() -> Result<(), String>) {
    Handle::current().block_on(within(PATIENCE, what, probe));
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/flotilla")
}

/// The Helm to use: `FLOTILLA_HELM`, or the one that is installed. Where there
/// is none, says so; where nothing may be skipped, fails.
fn helm() -> Option<String> {
    let helm = std::env::var("FLOTILLA_HELM").unwrap_or_else(|_| "helm".to_owned());
    for (program, argument) in [(helm.as_str(), "version"), ("kubectl", "--help")] {
        if Command::new(program).arg(argument).output().is_err() {
            let required = std::env::var("FLOTILLA_REQUIRE_REAL_KUBE").is_ok_and(|value| value == "1");
            assert!(!required, "{program} is missing: install it, or let .ci/run do it");
            eprintln!("skipped: {program} is missing");
            return None;
        }
    }
    Some(helm)
}

/// What the chart makes of some values.
fn render(helm: &str, arguments: &[&str]) -> String {
    render_for("1.34.4", helm, arguments)
}

/// The same for a cluster of some version.
fn render_for(version: &str, helm: &str, arguments: &[&str]) -> String {
    let output = Command::new(helm)
        .args(["template", "flotilla", "--namespace", NAMESPACE, "--kube-version", version])
        .arg(chart())
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Names of our metrics in a text, of histograms without the end that expressions give them.
fn metrics(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("flotilla_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

/// Without Helm: what each alert names is written in the template itself. Whoever is woken
/// by one looks for what it is about on its page.
#[test]
fn every_alert_names_a_runbook_that_speaks_of_its_metrics() {
    let template = std::fs::read_to_string(chart().join("templates/prometheusrule.yaml")).unwrap();
    let alerts: Vec<&str> = template.split("(dict \"alert\" \"").skip(1).collect();
    assert_eq!(alerts.len(), template.matches("\"alert\"").count(), "an alert that is not looked at");
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let name = alert.split('"').next().unwrap_or_default();
        let page = alert.split("\"page\" \"").nth(1).and_then(|rest| rest.split('"').next());
        let page = page.unwrap_or_default();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("runbooks/{page}.md"));
        assert!(path.is_file(), "{name}: {} is not there", path.display());
        let text = std::fs::read_to_string(&path).unwrap();
        let expression = alert.split("\"expr\"").nth(1).and_then(|rest| rest.split("\"summary\"").next());
        let wanted = metrics(expression.unwrap_or_default());
        assert!(!wanted.is_empty(), "{name} has no expression of our metrics");
        let known = metrics(&text);
        for metric in wanted {
            assert!(known.contains(metric), "{name}: {} says nothing of {metric}", path.display());
        }
    }
}

/// Without Helm: whichever template comes first, the values of the published chart are in it.
#[test]
fn every_template_takes_the_values_of_the_published_chart() {
    let mut seen = 0;
    for entry in std::fs::read_dir(chart().join("templates")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "tpl") {
            continue;
        }
        let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap_or_default().to_owned();
        assert!(
            first.starts_with(r#"{{- $_ := include "flotilla.values" . "#),
            "{}: {first}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen > 10, "only {seen} templates");
}

/// The value of a variable in a StatefulSet.
fn variable<'a>(objects: &'a str, name: &str) -> &'a str {
    let rest = objects.split(&format!("- name: {name}\n")).nth(1).unwrap_or_default();
    let value = rest.trim_start().strip_prefix("value: ").unwrap_or_default();
    value.lines().next().unwrap_or_default().trim_matches('"')
}

#[test]
fn values_of_the_published_chart_mean_here_what_they_meant_there() {
    let Some(helm) = helm() else { return };
    let file = |name: &str| chart().join("ci").join(name).display().to_string();
    let objects = render(&helm, &["--values", &file("published-values.yaml")]);
    for (name, value) in [
        ("GRPC_PORT", "9444"),
        ("CERT_PROVIDER", "vault"),
        ("CERT_SERVICE_NAME", "avapigw-operator"),
        ("REQUIRE_CLIENT_CERTIFICATE", "false"),
        ("VAULT_ADDR", "https://vault.vault.svc:8200"),
        ("VAULT_K8S_ROLE", "avapigw-operator"),
        ("VAULT_K8S_MOUNT", "kubernetes-edge"),
        ("VAULT_PKI_MOUNT", "pki/edge"),
        ("VAULT_PKI_ROLE", "operator-grpc"),
        ("VAULT_COMMON_NAME", "avapigw-operator"),
        ("ENABLE_CLUSTER_WIDE_DUPLICATE_CHECK", "true"),
        ("ENABLE_INGRESS_CONTROLLER", "true"),
        ("INGRESS_LB_ADDRESS", "gateways.example.com"),
        ("LEADER_ELECT", "true"),
    ] {
        assert_eq!(variable(&objects, name), value, "{name}");
    }
    for words in [
        "replicas: 2",
        "image: registry.example.com/flotilla:0.1.0-test",
        "- name: operators-registry",
        "minAvailable: 1",
        "name: operator-settings",
        "mountPath: /etc/vault-ca",
        "example.com/team: edge",
        "policyTypes: [Ingress, Egress]",
    ] {
        assert!(objects.contains(words), "no {words:?} in {objects}");
    }
    for words in ["registry.example.com/avapigw", "maxUnavailable", "path: /health\n", "- name: registry\n"] {
        assert!(!objects.contains(words), "{words:?} in {objects}");
    }
    let documented = render(&helm, &["--values", &file("documented-values.yaml")]);
    assert_eq!(documented.matches("name: avapigw-gateways").count(), 1, "{documented}");
}

#[test]
fn old_clusters_are_not_given_what_they_do_not_know() {
    let Some(helm) = helm() else { return };
    let values = chart().join("ci/everything-values.yaml").display().to_string();
    let newer = ["unhealthyPodEvictionPolicy", "matchConditions"];
    for (version, known) in [("1.23.0", [false, false]), ("1.27.3", [true, false]), ("1.34.4", [true, true])]
    {
        let objects = render_for(version, &helm, &["--values", &values]);
        assert_eq!(newer.map(|field| objects.contains(field)), known, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_is_accepted_and_its_rights_are_enough_and_no_more() {
    let Some(helm) = helm() else { return };
    let options = Options { controller_manager: false, ..Options::default() };
    let Some(kube) = RealKube::start(options).await.unwrap() else { return };
    let kubectl = Kubectl { kubeconfig: kube.kubeconfig() };
    tokio::task::spawn_blocking(move || {
        // Those of gateways and of the Prometheus operator, which the values name, are
        // somebody else's.
        for namespace in [NAMESPACE, "edge", "monitoring"] {
            kubectl.get(&["create", "namespace", namespace]);
        }
        kubectl.get(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted"]);
        kinds_of_the_prometheus_operator_are_known(&kubectl);
        every_set_of_values_is_accepted(&helm, &kubectl);
        gateways_are_not_upgraded_away(&helm, &kubectl);
        values_without_effect_are_told(&helm, &kubectl);
        kubectl.get(&["apply", "--server-side", "-f", chart().join("crds").to_str().unwrap()]);
        // Nothing answers at the Service of the webhooks: there is no pod.
        let objects = render(
            &helm,
            &["--set", "image.repository=registry.example.com/flotilla,webhook.failurePolicy=Ignore"],
        );
        kubectl.give(&["apply", "--server-side", "-f", "-"], &objects);
        pods_may_run_where_only_restricted_ones_may(&helm, &kubectl);
        rights_are_no_more_than_needed(&kubectl);
        requests_for_leases_have_their_own_priority(&kubectl);
        replica::rights_are_enough_for_a_replica(&kubectl);
        services_are_read_where_somebody_looks_them_up(&helm);
        ingresses_take_more_rights(&helm, &kubectl);
        services_of_gateways_are_seen_where_they_are(&helm, &kubectl);
        admission::what_is_written_is_asked_about(&helm, &kubectl);
        optional::every_optional_part_runs(&helm, &kubectl);
    })
    .await
    .unwrap();
    drop(kube);
}

/// Their definitions, so that what the chart makes of these kinds is looked at, too.
fn kinds_of_the_prometheus_operator_are_known(kubectl: &Kubectl) {
    kubectl.give(&["create", "-f", "-"], include_str!("chart/monitoring.yaml"));
    for kind in ["servicemonitors", "prometheusrules"] {
        let name = format!("{kind}.monitoring.coreos.com");
        kubectl.get(&["wait", "crd", &name, "--for=condition=Established", "--timeout=60s"]);
        eventually(&format!("{kind} are served"), async || {
            let output = kubectl.run(&["get", &name, "--namespace", NAMESPACE], "");
            output.status.success().then_some(()).ok_or(String::from_utf8_lossy(&output.stderr).into_owned())
        });
    }
}

/// The pods of every set of values, in a namespace of the strictest of the standards
/// for pods. No node is needed to be refused.
fn pods_may_run_where_only_restricted_ones_may(helm: &str, kubectl: &Kubectl) {
    let create = |pod: &Value| kubectl.run(&["create", "--dry-run=server", "-f", "-"], &pod.to_string());
    for entry in std::fs::read_dir(chart().join("ci")).unwrap() {
        let values = entry.unwrap().path();
        let objects = render(helm, &["--values", values.to_str().unwrap()]);
        let set = objects.split("\n---").find(|object| object.contains("\nkind: StatefulSet\n")).unwrap();
        let set = kubectl.give(&["create", "--dry-run=client", "-o", "json", "-f", "-"], set);
        let set: Value = serde_json::from_str(&set).unwrap();
        let mut pod = set["spec"]["template"].clone();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod["metadata"]["name"] = "flotilla-0".into();
        pod["metadata"]["namespace"] = NAMESPACE.into();
        // Others are not installed.
        pod["spec"]["serviceAccountName"] = "flotilla".into();
        let said = create(&pod);
        assert!(said.status.success(), "{}: {}", values.display(), String::from_utf8_lossy(&said.stderr));
        // The question is asked rightly: no such pod may run there.
        pod["spec"]["containers"][0]["securityContext"] = serde_json::json!({"runAsNonRoot": true});
        let said = create(&pod);
        let words = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && words.contains("violates PodSecurity \"restricted"), "{words}");
    }
}

fn every_set_of_values_is_accepted(helm: &str, kubectl: &Kubectl) {
    let mut seen = 0;
    for entry in std::fs::read_dir(chart().join("ci")).unwrap() {
        let values = entry.unwrap().path();
        let objects = render(helm, &["--values", values.to_str().unwrap()]);
        kubectl
            .give(&["apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"], &objects);
        seen += 1;
    }
    assert!(seen >= 3, "only {seen} files of values");
    // One Secret that is late stops none but its own replica.
    let values = chart().join("ci/files-per-replica-values.yaml");
    let objects = render(helm, &["--values", values.to_str().unwrap()]);
    let (named, optional) = (objects.matches("name: fleet-tls-").count(), objects.matches("optional: true"));
    assert_eq!((named, optional.count()), (3, 3), "{objects}");
}

/// Each that is given, with the reason, and none that is not.
fn values_without_effect_are_told(helm: &str, kubectl: &Kubectl) {
    let told = |values: &str| {
        let output = Command::new(helm)
            .args(["install", "another", "--dry-run=server", "--namespace", NAMESPACE, "--kubeconfig"])
            .arg(&kubectl.kubeconfig)
            .arg(chart())
            .arg("--set")
            .arg("operator.serviceMonitor.enabled=false,serviceMonitor.enabled=false")
            .arg("--values")
            .arg(chart().join("ci").join(values))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said.split_once("NOTES:").unwrap().1.to_owned()
    };
    let said = told("published-values.yaml");
    for line in [
        "  operator.image: it names the published operator; what is installed is said by `image`",
        "  leaderElection: replicas always elect a leader; `leases.leader` says how fast",
        "  metrics.enabled: metrics are always served",
    ] {
        assert!(said.lines().any(|told| told == line), "no {line:?} in {said}");
    }
    // What has to be changed is the value that decides, which is not ours here.
    assert!(said.contains("Set operator.grpc.requireClientCert=true when"), "{said}");
    assert!(said.contains(":9444, with or without a client certificate"), "{said}");
    assert!(!said.contains("serviceAccount") && !said.contains("requireClientCert:"), "{said}");
    let said = told("default-values.yaml");
    assert!(!said.contains("no effect") && said.contains(":9444 and need a client certificate"), "{said}");
}

/// A release of the published chart, whose gateways this chart does not have.
fn gateways_are_not_upgraded_away(helm: &str, kubectl: &Kubectl) {
    let deployment = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "avapigw", "namespace": NAMESPACE,
            "labels": {"helm.sh/chart": "avapigw-0.9.1"},
            "annotations": {"meta.helm.sh/release-name": "avapigw"}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "gateway", "image": "registry.example.com/avapigw"}]}}},
    });
    kubectl.give(&["create", "-f", "-"], &deployment.to_string());
    let upgrade = |release: &str| {
        Command::new(helm)
            .args([
                "template",
                release,
                "--is-upgrade",
                "--kube-version",
                "1.34.4",
                "--dry-run=server",
                "--namespace",
                NAMESPACE,
                "--kubeconfig",
            ])
            .arg(&kubectl.kubeconfig)
            .arg(chart())
            .arg("--values")
            .arg(chart().join("ci/documented-values.yaml"))
            .output()
            .unwrap()
    };
    let refused = upgrade("avapigw");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("Deployment avapigw of the chart avapigw-0.9.1"),
        "{said}"
    );
    let other = upgrade("flotilla");
    assert!(other.status.success(), "{}", String::from_utf8_lossy(&other.stderr));
    kubectl.get(&["delete", "deployment", "avapigw", "--namespace", NAMESPACE]);
}

fn rights_are_no_more_than_needed(kubectl: &Kubectl) {
    let replica = format!("system:serviceaccount:{NAMESPACE}:flotilla");
    for refused in [
        &["list", "secrets", "-n", NAMESPACE][..],
        &["get", "secrets", "-n", "default"],
        &["get", "secrets/another", "-n", NAMESPACE],
        &["update", "secrets/another", "-n", NAMESPACE],
        &["delete", "secrets/flotilla-ca", "-n", NAMESPACE],
        &["update", "apiroutes.avapigw.io", "-n", "default"],
        &["delete", "backends.avapigw.io", "-n", "default"],
        &["delete", "shardmaps.fleet.flotilla.dev"],
        &["get", "leases.coordination.k8s.io", "-n", "kube-system"],
        &["get", "namespaces/default"],
        &["create", "pods", "-n", NAMESPACE],
        &["list", "events", "-n", "default"],
        &["patch", "events", "-n", "default"],
        &["patch", "validatingwebhookconfigurations/another"],
        &["create", "validatingwebhookconfigurations"],
        &["patch", "clusterroles.rbac.authorization.k8s.io"],
        &["get", "services", "-n", "default"],
        &["patch", "services", "-n", "default"],
    ] {
        assert!(!kubectl.may(&replica, refused), "a replica may {refused:?}");
    }
    // The question is asked rightly: this one it may.
    for allowed in [
        &["get", "secrets/flotilla-ca", "-n", NAMESPACE][..],
        &["update", "secrets/flotilla-ca", "-n", NAMESPACE],
        &["create", "events", "-n", NAMESPACE],
        // What people are told of their objects.
        &["create", "events", "-n", "default"],
        // What the webhooks look names up among.
        &["list", "services", "-n", "default"],
        &["watch", "services", "-n", "default"],
    ] {
        assert!(kubectl.may(&replica, allowed), "a replica may not {allowed:?}");
    }
}

/// For the webhooks and for Ingresses, and for nobody else.
fn services_are_read_where_somebody_looks_them_up(helm: &str) {
    for (webhooks, ingresses) in [(true, true), (true, false), (false, true), (false, false)] {
        let values = format!(
            "image.repository=registry.example.com/flotilla,webhook.enabled={webhooks},\
             ingressController.enabled={ingresses}"
        );
        let objects = render(helm, &["--set", &values]);
        let rules = objects.matches("resources: [services]").count();
        assert_eq!(rules, usize::from(webhooks || ingresses), "{values}");
    }
}

/// Only where Ingresses are served may a replica write what they become.
fn ingresses_take_more_rights(helm: &str, kubectl: &Kubectl) {
    let replica = format!("system:serviceaccount:{NAMESPACE}:flotilla");
    let wanted = [
        &["watch", "ingresses.networking.k8s.io", "-n", "default"][..],
        &["patch", "ingresses.networking.k8s.io", "--subresource=status", "-n", "default"],
        &["create", "apiroutes.avapigw.io", "-n", "default"],
        &["delete", "grpcbackends.avapigw.io", "-n", "default"],
    ];
    for right in wanted {
        assert!(!kubectl.may(&replica, right), "a replica may {right:?} without need");
    }
    let values = "image.repository=registry.example.com/flotilla,webhook.failurePolicy=Ignore,ingressController.enabled=true";
    let objects = render(helm, &["--set", values]);
    kubectl.give(&["apply", "--server-side", "-f", "-"], &objects);
    for right in wanted {
        eventually("a right that Ingresses take", async || {
            kubectl.may(&replica, right).then_some(()).ok_or_else(|| format!("it may not {right:?}"))
        });
    }
    for refused in [
        &["update", "ingresses.networking.k8s.io", "-n", "default"][..],
        &["delete", "ingresses.networking.k8s.io", "-n", "default"],
        &["patch", "services", "-n", "default"],
        &["list", "secrets", "-n", "default"],
    ] {
        assert!(!kubectl.may(&replica, refused), "a replica may {refused:?}");
    }
    // No pod answers: of Ingresses that are not ours nobody is asked.
    let ingress = |class: &str| {
        let backend = "{service: {name: web, port: {number: 80}}}";
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {class}, namespace: default}}\n\
             spec: {{ingressClassName: {class}, defaultBackend: {backend}}}\n"
        )
    };
    let strict = render(helm, &["--set", &values.replace("Ignore", "Fail")]);
    kubectl.give(&["apply", "--server-side", "-f", "-"], &strict);
    eventually("an Ingress of our class waits for a replica", async || {
        let output = kubectl.run(&["create", "--dry-run=server", "-f", "-"], &ingress("avapigw"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let asked = said.contains("failed calling webhook \"vingress.avapigw.io\"");
        asked.then_some(()).ok_or(said)
    });
    kubectl.give(&["create", "--dry-run=server", "-f", "-"], &ingress("nginx"));
    let class = kubectl.get(&["get", "ingressclass", "avapigw", "-o", "jsonpath={.spec.controller}"]);
    assert_eq!(class, "avapigw.io/ingress-controller");
}

/// Of the namespaces of Services that are listed, and of no others.
fn services_of_gateways_are_seen_where_they_are(helm: &str, kubectl: &Kubectl) {
    let replica = format!("system:serviceaccount:{NAMESPACE}:flotilla");
    let there = |namespace, verb| [verb, "endpointslices.discovery.k8s.io", "-n", namespace];
    assert!(!kubectl.may(&replica, &there("edge", "list")), "a right without need");
    let values = format!(
        "image.repository=registry.example.com/flotilla,webhook.failurePolicy=Ignore,\
         push.services={{edge/gateways,edge/others:push,{NAMESPACE}/own}}"
    );
    let objects = render(helm, &["--set", &values]);
    kubectl.give(&["apply", "--server-side", "-f", "-"], &objects);
    for right in ["edge", NAMESPACE].map(|namespace| ["list", "watch"].map(|verb| there(namespace, verb))) {
        for right in right {
            eventually("endpoints of gateways may be seen", async || {
                kubectl.may(&replica, &right).then_some(()).ok_or_else(|| format!("it may not {right:?}"))
            });
        }
    }
    for refused in [there("default", "list"), there("edge", "update")] {
        assert!(!kubectl.may(&replica, &refused), "a replica may {refused:?}");
    }
    assert!(!kubectl.may(&replica, &["list", "endpointslices.discovery.k8s.io", "--all-namespaces"]));
}

/// The API server tells with each answer which FlowSchema a request fell under.
fn requests_for_leases_have_their_own_priority(kubectl: &Kubectl) {
    let schema = kubectl.get(&["get", "flowschema", "flotilla-leases", "-o", "jsonpath={.metadata.uid}"]);
    let (_folder, kubeconfig) = kubectl.service_account(NAMESPACE, "flotilla");
    let replica = Kubectl { kubeconfig };
    let falls_under_it = |arguments: &[&str]| {
        let output = replica.run(&[arguments, &["-v=8"]].concat(), "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("Flowschema-Uid"), "{said}");
        said.contains(schema.trim())
    };
    // New FlowSchemas take effect when the API server has seen them.
    eventually("requests for Leases do not wait with everybody else's", async || {
        let theirs = falls_under_it(&["get", "leases", "--namespace", NAMESPACE]);
        theirs.then_some(()).ok_or_else(|| "they fall under another FlowSchema".to_owned())
    });
    assert!(falls_under_it(&[
        "get",
        "lease",
        "flotilla-leader",
        "--ignore-not-found",
        "--namespace",
        NAMESPACE
    ]));
    // Whether it is there does not matter: which requests wait is decided before.
    let patch = ["patch", "lease", "not-there", "--type=merge", "--patch={}", "--namespace", NAMESPACE];
    assert!(falls_under_it(&patch));
    assert!(falls_under_it(&["get", "shardmap", "fleet", "--ignore-not-found"]));
    assert!(!falls_under_it(&["get", "apiroutes", "--all-namespaces"]), "only what must not wait");
}
