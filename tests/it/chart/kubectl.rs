//! kubectl, as one user of one cluster.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

/// kubectl as one user of one cluster.
pub struct Kubectl {
    pub kubeconfig: PathBuf,
}

impl Kubectl {
    pub fn run(&self, arguments: &[&str], input: &str) -> Output {
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

    pub fn give(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn get(&self, arguments: &[&str]) -> String {
        self.give(arguments, "")
    }

    /// What there is, as JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.get(&[arguments, &["-o", "json"]].concat())).unwrap()
    }

    /// Whether a user may do something.
    pub fn may(&self, user: &str, words: &[&str]) -> bool {
        let mut arguments = vec!["auth", "can-i", "--as", user];
        arguments.extend(words);
        let output = self.run(&arguments, "");
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    }

    /// The kubeconfig of a service account, in a folder of its own.
    pub fn service_account(&self, namespace: &str, name: &str) -> (TempDir, PathBuf) {
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
    pub fn wait(&self, object: &str, field: &str, value: &str) {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.get(&["wait", object, "--for=create", &timeout]);
        self.get(&["wait", object, &format!("--for=jsonpath={field}={value}"), &timeout]);
    }
}
