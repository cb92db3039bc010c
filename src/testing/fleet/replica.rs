//! Replicas: `flotilla controller` processes that keep their name and ports
//! over restarts, as pods of a StatefulSet do.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::SYSTEM_NAMESPACE;
use super::http;
use super::process::{Process, free_port};
use super::waiting::{SOON, within};

/// One replica.
pub struct Replica {
    /// Its member name.
    pub name: String,
    /// Port for gateways.
    pub grpc: u16,
    /// Port for webhooks.
    pub webhooks: u16,
    peer: u16,
    metrics: SocketAddr,
    probes: SocketAddr,
    program: PathBuf,
    kubeconfig: PathBuf,
    folder: PathBuf,
    flags: Vec<String>,
    /// Variables of its environment besides the usual ones.
    pub environment: Vec<(String, String)>,
    /// `None` while it is not running.
    process: Option<Process>,
}

impl Replica {
    /// A replica that is not started yet. `flags` come after the usual ones.
    pub fn new(program: &Path, number: usize, kubeconfig: PathBuf, folder: &Path, flags: &[&str]) -> Replica {
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        Replica {
            name: format!("flotilla-{number}"),
            grpc: free_port(),
            webhooks: free_port(),
            peer: free_port(),
            metrics: port(),
            probes: port(),
            program: program.to_owned(),
            kubeconfig,
            folder: folder.to_owned(),
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            environment: Vec::new(),
            process: None,
        }
    }

    /// Starts it, for the first time or again.
    pub fn start(&mut self) {
        let mut arguments = vec![
            "controller".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--member-name={}", self.name),
            format!("--cert-namespace={SYSTEM_NAMESPACE}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--grpc-port={}", self.grpc),
            format!("--peer-port={}", self.peer),
            format!("--webhook-port={}", self.webhooks),
            format!("--metrics-bind-address={}", self.metrics),
            format!("--health-probe-bind-address={}", self.probes),
        ];
        arguments.extend(self.flags.iter().cloned());
        self.process =
            Some(Process::start_in(&self.program, &self.folder, &self.name, &arguments, &self.environment));
    }

    /// Whether it was started and not ended by the test.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Its process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self) -> &mut Process {
        let name = &self.name;
        self.process.as_mut().unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Waits until it says that it can serve gateways.
    pub async fn ready(&mut self) {
        let (name, probes) = (self.name.clone(), self.probes);
        within(SOON, &format!("{name} is ready"), async || {
            self.process().check()?;
            http::text(probes, "/readyz").await.map(drop)
        })
        .await;
    }

    /// What `/readyz` and `/healthz` answer.
    pub async fn probe(&self, path: &str) -> Result<(u16, String), String> {
        http::get(self.probes, path).await.map(|(status, text)| (status.as_u16(), text))
    }

    /// SIGKILL: it has no chance to say goodbye.
    pub async fn kill(&mut self) {
        self.process().kill().await;
        self.process = None;
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&mut self) {
        self.process().signal(Signal::SIGTERM);
    }

    /// Waits for its end after [`Replica::terminate`].
    ///
    /// # Panics
    /// When it does not end in time, or not with success.
    pub async fn ended(&mut self, within: Duration) {
        let status = self.process().ended(within).await;
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.tail());
        self.process = None;
    }

    /// All its metrics, as text.
    ///
    /// # Errors
    /// Why it does not answer.
    pub async fn metrics(&self) -> Result<String, String> {
        http::text(self.metrics, "/metrics").await
    }

    /// One of its metrics: the sum of all samples whose labels contain `label`;
    /// zero when there is none.
    pub async fn metric(&self, name: &str, label: &str) -> Result<f64, String> {
        Ok(total(&self.metrics().await?, name, label))
    }

    /// What it logged, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// The log lines that contain all of these words.
    pub fn log_lines(&self, words: &[&str]) -> Vec<String> {
        let log = self.log();
        let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    /// What it logged last; an error when it ended by itself.
    pub fn check(&mut self) -> Result<(), String> {
        self.process.as_mut().map_or(Ok(()), Process::check)
    }

    /// What it logged last.
    pub fn tail(&self) -> String {
        super::process::tail(&self.folder.join(format!("{}.log", self.name)))
    }
}

/// The sum of all samples of a metric, in what `/metrics` answers, whose labels contain
/// `label`; zero when there is none.
pub fn total(text: &str, name: &str, label: &str) -> f64 {
    let sample = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let ours =
            (rest.starts_with(' ') && label.is_empty()) || (rest.starts_with('{') && rest.contains(label));
        ours.then(|| rest.rsplit(' ').next()?.parse().ok()).flatten()
    };
    text.lines().filter_map(sample).sum()
}
