//! kubectl, as people run it. Where there is none, a scenario says so and is
//! skipped; where nothing may be skipped, it fails.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::waiting::SOON;

/// kubectl with one kubeconfig and a cache of its own.
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// kubectl, if it is installed.
    pub async fn find(kubeconfig: &Path, home: &Path) -> Option<Kubectl> {
        let probe =
            Command::new("kubectl").args(["version", "--client"]).stdout(Stdio::null()).status().await;
        if probe.is_ok_and(|status| status.success()) {
            return Some(Kubectl { kubeconfig: kubeconfig.to_owned(), home: home.to_owned() });
        }
        let required = std::env::var_os("FLOTILLA_REQUIRE_REAL_KUBE").is_some_and(|value| value == "1");
        assert!(!required, "kubectl is missing: install it, or let .ci/run do it");
        // Not by eprintln, which the test harness captures.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "SKIPPED: kubectl is missing").unwrap();
        None
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            // Its cache of what servers offer is kept by address, and addresses
            // are used again.
            .env("HOME", &self.home)
            .env_remove("KUBECACHEDIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end: whether it succeeded, and what it printed.
    pub async fn run(&self, arguments: &[&str]) -> (bool, String) {
        self.finish(self.command(arguments), arguments).await
    }

    async fn finish(&self, mut command: Command, arguments: &[&str]) -> (bool, String) {
        let output = timeout(SOON, command.output()).await;
        let output = output.unwrap_or_else(|_| panic!("kubectl {arguments:?} does not end")).unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    /// Runs what must succeed; returns what it printed.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments).await;
        assert!(success, "kubectl {arguments:?}: {text}");
        text
    }

    /// Runs what must fail; returns what it printed.
    pub async fn refused(&self, arguments: &[&str]) -> String {
        let (success, text) = self.run(arguments).await;
        assert!(!success, "kubectl {arguments:?} succeeded: {text}");
        text
    }

    /// Runs it with something on its standard input; returns what it printed.
    pub async fn give(&self, arguments: &[&str], input: &str) -> String {
        let (success, text) = self.run_given(arguments, input).await;
        assert!(success, "kubectl {arguments:?}: {text}");
        text
    }

    /// The same, whatever comes of it: whether it succeeded, and what it printed.
    pub async fn run_given(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = timeout(SOON, child.wait_with_output()).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), text)
    }

    /// `kubectl edit` with an editor.
    pub async fn edit(&self, arguments: &[&str], editor: &str) -> String {
        let mut command = self.command(arguments);
        command.env("KUBE_EDITOR", editor);
        let (success, text) = self.finish(command, arguments).await;
        assert!(success, "kubectl {arguments:?}: {text}");
        text
    }

    /// Starts what does not end by itself.
    pub fn follow(&self, arguments: &[&str]) -> Following {
        let mut child = self.command(arguments).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Following { _child: child, lines }
    }
}

/// A kubectl that goes on printing.
pub struct Following {
    _child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Following {
    /// Reads lines until one contains all of these words.
    ///
    /// # Panics
    /// When none does in time.
    pub async fn line(&mut self, words: &[&str]) -> String {
        let search = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if words.iter().all(|word| line.contains(word)) {
                    return line;
                }
            }
            panic!("kubectl ended before it printed {words:?}")
        };
        timeout(SOON, search).await.unwrap_or_else(|_| panic!("kubectl did not print {words:?}"))
    }
}

/// What it printed has all of these words.
///
/// # Panics
/// When one is missing.
pub fn holds(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}
