//! Children: the built binary with arguments, each with a log of its own. They
//! end with the test: by `Drop` when it ends, by the end of their standard
//! input when the test process is killed.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How many lines of a log say enough about how a process ended.
const TAIL: usize = 15;

/// One child.
pub struct Process {
    /// For messages, and the name of its log.
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts the binary `program`; what it logs is appended to
    /// `folder/name.log`, what it prints goes to `folder/name.out`. Of the
    /// environment it gets what every program needs and nothing else.
    pub fn start(program: &Path, folder: &Path, name: &str, arguments: &[String]) -> Process {
        Self::start_in(program, folder, name, arguments, &[])
    }

    /// The same with variables of the environment besides.
    pub fn start_in(
        program: &Path,
        folder: &Path,
        name: &str,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Process {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().cloned()).arg("--exit-with-stdin");
        Self::spawn(command, folder, name)
    }

    /// Starts a program that is not ours, with nothing of the environment but what
    /// every program needs. It does not end with its standard input, so the kernel
    /// ends it when the thread that started it does.
    pub fn start_foreign(program: &Path, folder: &Path, name: &str, arguments: &[String]) -> Process {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program).args(arguments);
        Self::spawn(command, folder, name)
    }

    fn spawn(mut command: Command, folder: &Path, name: &str) -> Process {
        let log = folder.join(format!("{name}.log"));
        let append = |path: &Path| File::options().create(true).append(true).open(path).unwrap();
        let kept = ["PATH", "HOME", "TMPDIR"].into_iter();
        let given: Vec<_> = command
            .as_std()
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        command
            .env_clear()
            .envs(kept.filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(given)
            .stdin(Stdio::piped())
            .stdout(append(&folder.join(format!("{name}.out"))))
            .stderr(append(&log))
            .kill_on_drop(true);
        let child = command.spawn().unwrap();
        Process { name: name.to_owned(), child, log }
    }

    /// Its process id; `None` once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn signal(&self, signal: Signal) {
        let id = self.child.id().unwrap_or_else(|| panic!("{} has ended", self.name));
        kill(Pid::from_raw(i32::try_from(id).unwrap()), signal).unwrap();
    }

    /// SIGKILL, and the proof that it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within the time.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        // Waiting would close it, and the end of standard input is a reason of its
        // own to end: the one that the caller waits for is to be the only one.
        let _open = self.child.stdin.take();
        match timeout(within, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!("{} did not end within {within:?}", self.name),
        }
    }

    /// An error with its last words when it has ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait().unwrap() {
            None => Ok(()),
            Some(status) => Err(format!("{} ended with {status}:\n{}", self.name, self.tail())),
        }
    }

    /// Everything it logged, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it logged last.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

/// The end of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

/// Ports of servers in tests lie here, below the range of outgoing connections, so that no
/// client that is reconnecting can take one while its server is away.
const PORTS: std::ops::Range<u16> = 10_000..15_000;
/// So many belong to the process that listens on the first of them: several look for free
/// ports at the same time, each for servers that it starts a moment later.
const BLOCK: u16 = 50;

/// What this process has of them.
struct Claimed {
    claims: Vec<TcpListener>,
    rest: std::ops::Range<u16>,
}

fn listener(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// A loopback port that is free now and is given to nobody else for as long as this
/// process lives.
pub fn free_port() -> u16 {
    static CLAIMED: Mutex<Claimed> = Mutex::new(Claimed { claims: Vec::new(), rest: 0..0 });
    let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(port) = claimed.rest.find(|port| listener(*port).is_some()) {
            return port;
        }
        let blocks = (PORTS.end - PORTS.start) / BLOCK;
        let first = rand::random_range(0..blocks);
        let starts = (0..blocks).map(|number| PORTS.start + (first + number) % blocks * BLOCK);
        let Some((start, claim)) = starts.filter_map(|start| Some((start, listener(start)?))).next() else {
            panic!("no block of {BLOCK} ports in {PORTS:?} on 127.0.0.1 is free")
        };
        claimed.claims.push(claim);
        claimed.rest = start + 1..start + BLOCK;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_given_once_and_lie_in_blocks_that_are_held() {
        let ports: BTreeSet<u16> = (0..120).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 120);
        for port in ports {
            assert!(PORTS.contains(&port));
            assert!(listener(port - port % BLOCK).is_none(), "{port}");
        }
    }
}
