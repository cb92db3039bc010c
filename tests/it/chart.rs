//! The chart against a real API server: every object is accepted, and the
//! rights that it gives are enough for a replica, and no more.
//!
//! Only a real API server checks a StatefulSet or authorises by RBAC. Needs
//! Helm and kubectl besides; says so where they are missing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use flotilla_testing::fleet::waiting::within;
use flotilla_testing::real_kube::{Options, RealKube};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::program::flotilla;

/// Where the documentation assumes the release to be.
const NAMESPACE: &str = "avapigw-system";
/// How long the API server may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// What the chart makes of some values, without kinds that need an operator.
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
    let text = String::from_utf8(output.stdout).unwrap();
    let needs_operator = |object: &&str| {
        ["ServiceMonitor", "PrometheusRule"].iter().any(|kind| object.contains(&format!("\nkind: {kind}\n")))
    };
    text.split("\n---").filter(|object| !needs_operator(object)).collect::<Vec<_>>().join("\n---")
}

/// Without Helm: what each alert names is written in the template itself.
#[test]
fn every_alert_names_a_runbook_that_is_there() {
    let template = std::fs::read_to_string(chart().join("templates/prometheusrule.yaml")).unwrap();
    let pages: Vec<&str> =
        template.split("\"page\" \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(pages.len(), template.matches("\"alert\" \"").count(), "an alert without a runbook");
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("runbooks/{page}.md"));
        assert!(path.is_file(), "{} is not there", path.display());
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

/// kubectl as one user of one cluster.
struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    }

    fn give(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn get(&self, arguments: &[&str]) -> String {
        self.give(arguments, "")
    }

    /// Whether a user may do something.
    fn may(&self, user: &str, words: &[&str]) -> bool {
        let mut arguments = vec!["auth", "can-i", "--as", user];
        arguments.extend(words);
        let output = self.run(&arguments, "");
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    }

    /// The kubeconfig of a service account, in a folder of its own.
    fn service_account(&self, namespace: &str, name: &str) -> (TempDir, PathBuf) {
        let token = self.get(&["create", "token", name, "--namespace", namespace]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::copy(&self.kubeconfig, &path).unwrap();
        let theirs = Kubectl { kubeconfig: path.clone() };
        theirs.get(&["config", "set-credentials", name, "--token", token.trim()]);
        theirs.get(&["config", "set-context", "--current", "--user", name]);
        (folder, path)
    }

    /// Waits until an object is there and one of its fields, given as a JSON
    /// path, has this value: kubectl watches it, with a deadline.
    fn wait(&self, object: &str, field: &str, value: &str) {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.get(&["wait", object, "--for=create", &timeout]);
        self.get(&["wait", object, &format!("--for=jsonpath={field}={value}"), &timeout]);
    }
}

/// A process that is killed, and whose log is shown, when the test fails.
struct Running {
    child: Child,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Waits for a child's end, which a signal of the kernel tells, and not for ever.
fn ended(child: &mut Child) -> std::process::ExitStatus {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    // Whoever does not end is made to, so that the wait below ends and the test fails.
    let guard = std::thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    });
    let status = child.wait().unwrap();
    drop(done);
    guard.join().unwrap();
    status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_is_accepted_and_its_rights_are_enough_and_no_more() {
    let Some(helm) = helm() else { return };
    let options = Options { controller_manager: false, ..Options::default() };
    let Some(kube) = RealKube::start(options).await.unwrap() else { return };
    let kubectl = Kubectl { kubeconfig: kube.kubeconfig() };
    tokio::task::spawn_blocking(move || {
        // The one of gateways that the values name is somebody else's.
        for namespace in [NAMESPACE, "edge"] {
            kubectl.get(&["create", "namespace", namespace]);
        }
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
        rights_are_no_more_than_needed(&kubectl);
        requests_for_leases_have_their_own_priority(&kubectl);
        rights_are_enough_for_a_replica(&kubectl);
        services_are_read_where_somebody_looks_them_up(&helm);
        ingresses_take_more_rights(&helm, &kubectl);
        services_of_gateways_are_seen_where_they_are(&helm, &kubectl);
    })
    .await
    .unwrap();
    drop(kube);
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
        let granted = within(PATIENCE, "a right that Ingresses take", async || {
            kubectl.may(&replica, right).then_some(()).ok_or_else(|| format!("it may not {right:?}"))
        });
        Handle::current().block_on(granted);
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
    let asked = within(PATIENCE, "an Ingress of our class waits for a replica", async || {
        let output = kubectl.run(&["create", "--dry-run=server", "-f", "-"], &ingress("avapigw"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let asked = said.contains("failed calling webhook \"vingress.avapigw.io\"");
        asked.then_some(()).ok_or(said)
    });
    Handle::current().block_on(asked);
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
            let granted = within(PATIENCE, "endpoints of gateways may be seen", async || {
                kubectl.may(&replica, &right).then_some(()).ok_or_else(|| format!("it may not {right:?}"))
            });
            Handle::current().block_on(granted);
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
        assert!(output.status.success() && said.contains("Flowschema-Uid"), "{said}");
        said.contains(schema.trim())
    };
    // New FlowSchemas take effect when the API server has seen them.
    let effective = within(PATIENCE, "requests for Leases do not wait with everybody else's", async || {
        let theirs = falls_under_it(&["get", "leases", "--namespace", NAMESPACE]);
        theirs.then_some(()).ok_or_else(|| "they fall under another FlowSchema".to_owned())
    });
    Handle::current().block_on(effective);
    assert!(falls_under_it(&[
        "get",
        "lease",
        "flotilla-leader",
        "--ignore-not-found",
        "--namespace",
        NAMESPACE
    ]));
    assert!(falls_under_it(&["get", "shardmap", "fleet", "--ignore-not-found"]));
    assert!(!falls_under_it(&["get", "apiroutes", "--all-namespaces"]), "only what must not wait");
}

fn rights_are_enough_for_a_replica(kubectl: &Kubectl) {
    let (_folder, kubeconfig) = kubectl.service_account(NAMESPACE, "flotilla");
    let log = tempfile::NamedTempFile::new().unwrap();
    let child = flotilla(&[
        "controller",
        "--kubeconfig",
        kubeconfig.to_str().unwrap(),
        "--member-name",
        "flotilla-0",
        "--cert-namespace",
        NAMESPACE,
        "--bind-address",
        "127.0.0.1",
        "--grpc-port",
        "0",
        "--peer-port",
        "0",
        "--webhook-port",
        "0",
        "--metrics-bind-address",
        "127.0.0.1:0",
        "--health-probe-bind-address",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--webhook-configuration",
        "flotilla",
    ])
    .stdout(Stdio::null())
    .stderr(log.reopen().unwrap())
    .spawn()
    .unwrap();
    let mut running = Running { child, log: log.path().to_owned() };
    kubectl.wait("shardmap/fleet", "{.status.leader}", "flotilla-0");
    let ca =
        kubectl.get(&["get", "secret", "flotilla-ca", "-n", NAMESPACE, "-o", r"jsonpath={.data.ca\.crt}"]);
    let bundles = r"jsonpath={range .webhooks[*]}{.clientConfig.caBundle} {end}";
    let believed = within(PATIENCE, "the CA bundle is in every webhook", async || {
        let found = kubectl.get(&["get", "validatingwebhookconfiguration", "flotilla", "-o", bundles]);
        let found: Vec<&str> = found.split_whitespace().collect();
        (found == [ca.as_str(); 4]).then_some(()).ok_or_else(|| format!("{found:?}"))
    });
    Handle::current().block_on(believed);
    let route = "apiVersion: avapigw.io/v1alpha1\nkind: APIRoute\nmetadata: {name: hello, namespace: default}\n\
                 spec: {match: [{uri: {prefix: /}}], directResponse: {status: 200, body: hello}}\n";
    kubectl.give(&["apply", "-f", "-"], route);
    kubectl.wait("apiroute/hello", r#"{.status.conditions[?(@.type=="Ready")].reason}"#, "NoGateways");
    assert!(kubectl.get(&["get", "secret", "flotilla-ca", "-n", NAMESPACE]).contains("flotilla-ca"));
    // Told to end, it gives up its Leases itself.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(running.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let code = ended(&mut running.child);
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert!(code.success(), "told to end, the replica ended with {code}");
    // The one that names the log's incarnation is nobody's to give up.
    let holders = r#"jsonpath={range .items[*]}{.metadata.name}={.spec.holderIdentity}{"\n"}{end}"#;
    let holders = kubectl.get(&["get", "leases", "-n", NAMESPACE, "-o", holders]);
    let held: Vec<&str> = holders
        .lines()
        .filter(|line| !line.ends_with('=') && !line.starts_with("flotilla-incarnation="))
        .collect();
    assert!(held.is_empty(), "Leases are still held: {held:?}: {log}");
    assert!(!log.contains("forbidden"), "a right is missing: {log}");
}
