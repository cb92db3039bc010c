//! A real OpenBao server, which speaks Vault's protocol: what is tested against it
//! works against a Vault.
//!
//! It keeps what it has in a folder, so it can be ended and started again, sealed as any
//! other. It listens twice: with TLS for those who are tested, without for the test.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use bytes::Bytes;
use flotilla_certs::{Authority, CertificatePem};
use http::{Method, Request};
use http_body_util::Full;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::fleet::http::{send, whole};
use crate::fleet::process::{Process, free_port};
use crate::fleet::waiting::{SOON, within};

/// Installs it, or says where it is.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/bao/install.sh");

/// A running server; dropping it ends its process.
pub struct Bao {
    program: PathBuf,
    folder: PathBuf,
    open: SocketAddr,
    secured: SocketAddr,
    process: Option<Process>,
    unseal_key: String,
    /// Who may do everything.
    pub root_token: String,
}

impl Bao {
    /// Starts one in a folder of its own below `folder`. `None`, with a line on
    /// standard error, where it is not installed and nothing says that it must be.
    pub async fn start(folder: &Path) -> Option<Bao> {
        let program = find().await?;
        let folder = folder.join("bao");
        std::fs::create_dir_all(folder.join("data")).unwrap();
        let authority = Authority::generate("bao", SystemTime::now()).unwrap();
        let own =
            authority.issue_server("bao", &["localhost"], &["127.0.0.1".parse().unwrap()], SystemTime::now());
        let own = own.unwrap();
        std::fs::write(folder.join("ca.crt"), authority.roots().pem()).unwrap();
        std::fs::write(folder.join("tls.crt"), &own.certificate).unwrap();
        std::fs::write(folder.join("tls.key"), &own.private_key).unwrap();
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (open, secured, cluster, unused) = (port(), port(), port(), port());
        let file = |name: &str| folder.join(name).display().to_string();
        let configuration = json!({
            "storage": {"raft": {"path": file("data"), "node_id": "one"}},
            "listener": [
                {"tcp": {"address": open, "cluster_address": cluster, "tls_disable": true}},
                {"tcp": {
                    "address": secured, "cluster_address": unused,
                    "tls_cert_file": file("tls.crt"), "tls_key_file": file("tls.key"),
                }},
            ],
            "api_addr": format!("http://{open}"),
            "cluster_addr": format!("http://{cluster}"),
        });
        std::fs::write(folder.join("bao.json"), configuration.to_string()).unwrap();
        let mut bao = Bao {
            program,
            folder,
            open,
            secured,
            process: None,
            unseal_key: String::new(),
            root_token: String::new(),
        };
        bao.launch();
        within(SOON, "bao listens", async || bao.request(Method::GET, "sys/init", Value::Null).await).await;
        let made = bao.initialise().await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (bao.unseal_key, bao.root_token) = (text(&made["unseal_keys_b64"][0]), text(&made["root_token"]));
        bao.unseal().await;
        Some(bao)
    }

    fn launch(&mut self) {
        let arguments = ["server".to_owned(), format!("-config={}", self.folder.join("bao.json").display())];
        self.process = Some(Process::start_foreign(&self.program, &self.folder, "bao", &arguments));
    }

    /// By its own command, which waits a minute: the keys are told once and never again.
    async fn initialise(&self) -> Value {
        let output = Command::new(&self.program)
            .args(["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"])
            .arg(format!("-address={}", self.open_url()))
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "bao operator init: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn unseal(&self) {
        within(SOON, "bao is unsealed", async || {
            self.request(Method::PUT, "sys/unseal", json!({"key": self.unseal_key})).await?;
            self.request(Method::GET, "sys/health", Value::Null).await
        })
        .await;
    }

    /// Where it listens with TLS.
    pub fn url(&self) -> String {
        format!("https://{}", self.secured)
    }

    /// Where it listens without.
    pub fn open_url(&self) -> String {
        format!("http://{}", self.open)
    }

    /// The authority of its own certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// Ends it: connections break, and new ones are refused.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it again with all that it stored, and unseals it.
    pub async fn start_again(&mut self) {
        self.launch();
        self.unseal().await;
    }

    /// Freezes it: connections stay and nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = &self.process {
            process.signal(signal);
        }
    }

    /// What it says to a request of somebody who may do everything.
    ///
    /// # Errors
    /// Any answer that is no success, in words.
    pub async fn request(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/{path}"))
            .header("X-Vault-Token", &self.root_token)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let (status, body) = send(self.open, request).await?;
        let text = whole(path, body).await?;
        match status.is_success() {
            true => Ok(serde_json::from_str(&text).unwrap_or_default()),
            false => Err(format!("{path}: {status}: {text}")),
        }
    }

    /// Writes something.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn write(&self, path: &str, body: Value) -> Value {
        self.request(Method::POST, path, body).await.unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Mounts a PKI engine with an authority, whose key is given out so that a test can
    /// sign with it, too, and a role that lets replicas have their names.
    pub async fn pki(&self, mount: &str, role: &str) -> Authority {
        let longest = json!({"type": "pki", "config": {"max_lease_ttl": "8760h"}});
        self.write(&format!("sys/mounts/{mount}"), longest).await;
        let first = self.issuer(&format!("{mount}/root/generate/exported"), "first").await;
        let rights = json!({
            "allow_any_name": true, "enforce_hostnames": false, "require_cn": false, "key_type": "any",
            "max_ttl": "72h", "not_before_duration": "5m",
            "allowed_uri_sans": "spiffe://cluster.local/ns/avapigw-system/controller/*",
        });
        self.write(&format!("{mount}/roles/{role}"), rights).await;
        first
    }

    /// Has another authority made by this path.
    pub async fn issuer(&self, path: &str, name: &str) -> Authority {
        let wanted = json!({
            "common_name": name, "ttl": "4380h", "key_type": "ec", "key_bits": 256,
            "private_key_format": "pkcs8", "issuer_name": name,
        });
        let made = self.write(path, wanted).await;
        let text = |key: &str| made["data"][key].as_str().unwrap().to_owned();
        let pem = CertificatePem { certificate: text("certificate"), private_key: text("private_key") };
        Authority::from_pem(path, pem, SystemTime::now()).unwrap()
    }
}

async fn find() -> Option<PathBuf> {
    let output = Command::new("bash").args([SCRIPT, "--where"]).stdin(Stdio::null()).output().await.unwrap();
    if output.status.success() {
        let printed = String::from_utf8(output.stdout).unwrap();
        return printed.lines().last().map(PathBuf::from);
    }
    let required = std::env::var_os("FLOTILLA_REQUIRE_REAL_KUBE").is_some_and(|value| value == "1");
    assert!(!required, "bao is missing: run tests/bao/install.sh, or let .ci/run do it");
    use std::io::Write as _;
    // Not by eprintln, which the test harness captures.
    writeln!(std::io::stderr(), "SKIPPED: no bao: run tests/bao/install.sh")
        .expect("standard error takes a line");
    None
}
