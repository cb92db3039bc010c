//! A replica with the environment that the chart gives it and the rights of the
//! chart's service account.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};

use flotilla_testing::fleet::http;
use flotilla_testing::fleet::process::free_port;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use super::kubectl::Kubectl;
use super::{NAMESPACE, PATIENCE, eventually};
use crate::program::flotilla;

/// A running replica. It is killed, and its log is shown, when the test fails.
pub struct Replica {
    child: Child,
    log: NamedTempFile,
    /// Where it answers API servers.
    pub webhooks: u16,
    metrics: SocketAddr,
    _kubeconfig: TempDir,
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

impl Replica {
    /// Starts the first pod of the StatefulSet, as far as that goes without a node:
    /// on this machine's own address, and on ports that are free.
    pub fn start(kubectl: &Kubectl) -> Replica {
        let (folder, kubeconfig) = kubectl.service_account(NAMESPACE, "flotilla");
        let log = NamedTempFile::new().unwrap();
        let webhooks = free_port();
        let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        // Variables beat flags; of two of one name the later one counts.
        let here = [
            ("BIND_ADDRESS", "127.0.0.1".to_owned()),
            ("GRPC_PORT", "0".to_owned()),
            ("PEER_PORT", "0".to_owned()),
            ("WEBHOOK_PORT", webhooks.to_string()),
            ("METRICS_BIND_ADDRESS", metrics.to_string()),
            ("HEALTH_PROBE_BIND_ADDRESS", "127.0.0.1:0".to_owned()),
        ];
        let child = flotilla(&["controller", "--kubeconfig", kubeconfig.to_str().unwrap()])
            .envs(environment(kubectl))
            .envs(here)
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        Replica { child, log, webhooks, metrics, _kubeconfig: folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// Waits until one of its metrics, without labels, has this value.
    pub fn counts(&self, name: &str, value: u32) {
        eventually(&format!("{name} is {value}"), async || {
            let text = http::text(self.metrics, "/metrics").await?;
            let line = text.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_default();
            (line == format!("{name} {value}")).then_some(()).ok_or_else(|| format!("it says {line:?}"))
        });
    }

    /// Tells it to end, and waits until it has; nothing was ever forbidden, and no
    /// Lease is left.
    pub fn end(mut self, kubectl: &Kubectl) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        let code = ended(&mut self.child);
        assert!(code.success(), "told to end, the replica ended with {code}");
        // The one that names the log's incarnation is nobody's to give up.
        let holders = r#"jsonpath={range .items[*]}{.metadata.name}={.spec.holderIdentity}{"\n"}{end}"#;
        let holders = kubectl.get(&["get", "leases", "-n", NAMESPACE, "-o", holders]);
        let held: Vec<&str> = holders
            .lines()
            .filter(|line| !line.ends_with('=') && !line.starts_with("flotilla-incarnation="))
            .collect();
        assert!(held.is_empty(), "Leases are still held: {held:?}");
        assert!(!self.log().contains("forbidden"), "a right is missing");
    }
}

/// The variables of the StatefulSet's container, as its first pod has them.
fn environment(kubectl: &Kubectl) -> Vec<(String, String)> {
    let set = kubectl.json(&["get", "statefulset", "flotilla", "-n", NAMESPACE]);
    let variables = set["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let value = |variable: &Value| match text(&variable["valueFrom"]["fieldRef"]["fieldPath"]).as_str() {
        "" => text(&variable["value"]),
        "metadata.name" => "flotilla-0".to_owned(),
        "metadata.namespace" => NAMESPACE.to_owned(),
        field => {
            assert_eq!(field, "status.podIP", "what would a pod have there?");
            Ipv4Addr::LOCALHOST.to_string()
        }
    };
    variables.iter().map(|variable| (text(&variable["name"]), value(variable))).collect()
}

/// Waits for a child's end, which a signal of the kernel tells, and not for ever.
fn ended(child: &mut Child) -> ExitStatus {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, waiting) = channel::<()>();
    // Whoever does not end is made to, so that the wait below ends and the test fails.
    let guard = std::thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            kill(pid, Signal::SIGKILL).unwrap();
        }
    });
    let status = child.wait().unwrap();
    drop(done);
    guard.join().unwrap();
    status
}

/// Waits until the leader has put the CA into every webhook of the configuration, of
/// which there are so many.
pub fn believed(kubectl: &Kubectl, webhooks: usize) {
    let bundles = r"jsonpath={range .webhooks[*]}{.clientConfig.caBundle} {end}";
    eventually("the CA bundle is in every webhook", async || {
        let ca = ["get", "secret", "flotilla-ca", "-n", NAMESPACE, "-o", r"jsonpath={.data.ca\.crt}"];
        let ca = kubectl.get(&[&ca[..], &["--ignore-not-found"]].concat());
        let found = kubectl.get(&["get", "validatingwebhookconfiguration", "flotilla", "-o", bundles]);
        let found: Vec<&str> = found.split_whitespace().collect();
        let all = !ca.is_empty() && found.len() == webhooks && found.iter().all(|bundle| *bundle == ca);
        all.then_some(()).ok_or_else(|| format!("{found:?}"))
    });
}

/// With the values that are the default.
pub fn rights_are_enough_for_a_replica(kubectl: &Kubectl) {
    let replica = Replica::start(kubectl);
    kubectl.wait("shardmap/fleet", "{.status.leader}", "flotilla-0");
    believed(kubectl, 4);
    let route = "apiVersion: avapigw.io/v1alpha1\nkind: APIRoute\nmetadata: {name: hello, namespace: default}\n\
                 spec: {match: [{uri: {prefix: /}}], directResponse: {status: 200, body: hello}}\n";
    kubectl.give(&["apply", "-f", "-"], route);
    kubectl.wait("apiroute/hello", r#"{.status.conditions[?(@.type=="Ready")].reason}"#, "NoGateways");
    replica.end(kubectl);
}
