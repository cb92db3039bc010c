//! The demo's processes. Each is this binary with other arguments, logs to a
//! file of its own, and ends with the demo: by signal when the demo ends in
//! order, by the end of its standard input when the demo itself is killed.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::environment::for_children;

/// One child process.
pub struct Process {
    /// Its name in messages and of its log file.
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts this binary with `arguments`.
    pub fn start(folder: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Process> {
        let binary = std::env::current_exe().context("this binary cannot be found again")?;
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context("log file")?;
        let child = Command::new(binary)
            .args(arguments)
            .arg("--exit-with-stdin")
            .env_clear()
            .envs(for_children(std::env::vars_os()))
            // Ctrl-C is for the demo, which then ends its children in order.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Process { name: name.to_owned(), child, log })
    }

    /// An error that quotes the end of the log when the process is gone.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(5).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            anyhow::bail!("{} ended with {status}; its last words:\n{}", self.name, tail.join("\n"));
        }
        Ok(())
    }

    /// SIGKILL: the process has no chance to say goodbye.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} cannot be killed", self.name))
    }

    /// SIGTERM, without waiting.
    pub fn terminate(&self) {
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may be gone already, which is what is wanted.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
    }

    /// Waits for its end, and makes an end when it takes too long.
    pub async fn join(mut self, grace: Duration) {
        if timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(process = self.name, "did not end in time and is killed");
            let _ = self.child.kill().await;
        }
    }
}

/// Waits for a file that a child writes when it is ready, and reads it.
pub async fn wait_for_file(path: &Path, process: &mut Process, within: Duration) -> anyhow::Result<String> {
    let until = Instant::now() + within;
    loop {
        match tokio::fs::read_to_string(path).await {
            Ok(text) if !text.is_empty() => return Ok(text),
            _ => {}
        }
        process.check()?;
        anyhow::ensure!(Instant::now() < until, "{} is not ready after {within:?}", process.name);
        sleep(Duration::from_millis(20)).await;
    }
}

/// A demo's ports lie here, below the range that the kernel gives to outgoing
/// connections, so that no client that is reconnecting can take one meanwhile.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
/// So many belong to whoever listens on the first of them.
const BLOCK: u16 = 100;

/// Loopback ports that are free now, and that no other demo takes for as long as this
/// one lives: a server that is ended comes back to its own.
pub struct Ports {
    free: std::vec::IntoIter<u16>,
    /// The first port of each block.
    _claims: Vec<TcpListener>,
}

impl Ports {
    /// Claims blocks until there are `count` free ports in them.
    pub fn claim(count: usize) -> anyhow::Result<Ports> {
        let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let blocks = (PORTS.end - PORTS.start) / BLOCK;
        let first = rand::random_range(0..blocks);
        let (mut free, mut claims) = (Vec::with_capacity(count), Vec::new());
        for number in 0..blocks {
            if free.len() >= count {
                break;
            }
            let start = PORTS.start + (first + number) % blocks * BLOCK;
            if let Some(claim) = bind(start) {
                claims.push(claim);
                free.extend((start + 1..start + BLOCK).filter(|port| bind(*port).is_some()));
            }
        }
        let found = free.len();
        anyhow::ensure!(found >= count, "only {found} of {count} free ports in {PORTS:?} on 127.0.0.1");
        Ok(Ports { free: free.into_iter(), _claims: claims })
    }

    /// The next one, each another.
    pub fn port(&mut self) -> anyhow::Result<u16> {
        self.free.next().context("more ports than were claimed")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn demos_at_the_same_time_have_ports_of_their_own() {
        // Each has let go of all but the first of every block.
        let mut demos: Vec<Ports> = (0..8).map(|_| Ports::claim(150).unwrap()).collect();
        let mut given = BTreeSet::new();
        for demo in &mut demos {
            given.extend((0..150).map(|_| demo.port().unwrap()));
        }
        assert_eq!(given.len(), 8 * 150);
        assert!(given.iter().all(|port| PORTS.contains(port)));
    }
}
