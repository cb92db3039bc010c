//! A real Kubernetes API server for tests: etcd, kube-apiserver and a few
//! controllers, as child processes on loopback ports.
//!
//! The embedded API server is fast and needs nothing, but only a real one tells
//! whether it, and everything that talks to it, is right. An instance is cheap
//! to stop and start again, which is what outage tests do with it.
//!
//! One start goes: etcd until its port answers, kube-apiserver until `/readyz`
//! says ok, kube-controller-manager until it has filled the `default` namespace.
//! Every wait ends when a child exits or the deadline passes, and the error then
//! shows the end of that child's log.

mod binaries;
mod command_line;
mod credentials;
mod error;
mod ports;
mod process;
mod workdir;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use nix::sys::signal::Signal;
use tokio::sync::OnceCell;

use binaries::Binaries;
use command_line::Ports;
use credentials::Credentials;
pub use error::Error;
use process::{Keeper, Process};
use workdir::WorkDir;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(50);
/// A probe that takes longer counts as failed, so that the deadline is met.
const PROBE: Duration = Duration::from_secs(5);
/// Ports can be taken between choosing and using them; more conflicts in a row
/// than this have another cause.
const ATTEMPTS: usize = 5;

/// One of the three programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The store.
    Etcd,
    /// The API server.
    Apiserver,
    /// Namespace deletion, garbage collection, default service accounts.
    ControllerManager,
}

impl Part {
    /// The name of its executable, and of its log without the extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

/// What to start, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Without it namespaces are never deleted and owners never collected, but
    /// the instance is ready sooner and takes 100 MB less.
    pub controller_manager: bool,
    /// More flags for kube-apiserver; a repeated flag overrides an earlier one.
    pub apiserver_args: Vec<String>,
    /// More flags for etcd.
    pub etcd_args: Vec<String>,
    /// How long one start may take.
    pub ready_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controller_manager: true,
            apiserver_args: Vec::new(),
            etcd_args: Vec::new(),
            ready_within: Duration::from_secs(60),
        }
    }
}

/// A running instance; dropping it ends its processes and removes its files.
#[derive(Debug)]
pub struct RealKube {
    // Dropped in this order: processes before the thread that keeps them, and
    // both before the folder that they write to.
    controller_manager: Option<Process>,
    apiserver: Option<Process>,
    etcd: Option<Process>,
    keeper: Keeper,
    binaries: Binaries,
    credentials: Credentials,
    options: Options,
    ports: Ports,
    dir: WorkDir,
}

impl RealKube {
    /// Starts an instance and waits until it is ready.
    ///
    /// Answers `None`, after a line with the reason on stderr, when the binaries
    /// are not there; with `FLOTILLA_REQUIRE_REAL_KUBE=1` that is an error.
    pub async fn start(options: Options) -> Result<Option<Self>, Error> {
        Self::start_on(Ports::choose()?, options).await
    }

    async fn start_on(ports: Ports, options: Options) -> Result<Option<Self>, Error> {
        let mut parts = vec![Part::Etcd, Part::Apiserver];
        parts.extend(options.controller_manager.then_some(Part::ControllerManager));
        let Some(binaries) = Binaries::find(&parts)? else { return Ok(None) };
        let dir = WorkDir::create().map_err(Error::io("create a temporary folder"))?;
        let mut kube = Self {
            controller_manager: None,
            apiserver: None,
            etcd: None,
            keeper: Keeper::new().map_err(Error::io("start the thread that keeps processes"))?,
            binaries,
            credentials: Credentials::create(dir.path())?,
            options,
            ports,
            dir,
        };
        let mut attempt = 1;
        while let Err(error) = kube.launch().await {
            if attempt == ATTEMPTS || !error.is_port_conflict() {
                return Err(error);
            }
            attempt += 1;
            kube.abandon_launch()?;
        }
        Ok(Some(kube))
    }

    /// The instance that all tests of this process share, with default options.
    ///
    /// Use a fresh namespace in each test, and never stop it. It is ended by the
    /// kernel together with the process, because statics are not dropped.
    pub async fn shared() -> Result<Option<&'static Self>, Error> {
        static SHARED: OnceCell<Option<RealKube>> = OnceCell::const_new();
        Ok(SHARED.get_or_try_init(|| Self::start(Options::default())).await?.as_ref())
    }

    /// The kubeconfig of a user that may do everything.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("admin.kubeconfig")
    }

    /// The kubeconfig of the user `limited`, which is given no rights here.
    pub fn limited_kubeconfig(&self) -> PathBuf {
        self.dir.path().join("limited.kubeconfig")
    }

    /// Where the API server listens; the same after a restart.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.apiserver)
    }

    /// A client with all rights. It belongs to the runtime that asks for it.
    pub async fn client(&self) -> Result<Client, Error> {
        connect(&self.kubeconfig()).await
    }

    /// A client of the user `limited`.
    pub async fn limited_client(&self) -> Result<Client, Error> {
        connect(&self.limited_kubeconfig()).await
    }

    /// Where the output of a part goes, over all its starts.
    pub fn log_path(&self, part: Part) -> PathBuf {
        process::log_path(self.dir.path(), part)
    }

    /// The process ids of the parts that were started and not stopped.
    pub fn pids(&self) -> Vec<(Part, u32)> {
        let processes = [&self.etcd, &self.apiserver, &self.controller_manager];
        processes.into_iter().flatten().map(|process| (process.part(), process.pid())).collect()
    }

    /// An error when a part has ended by itself.
    pub fn check(&mut self) -> Result<(), Error> {
        for process in [&mut self.etcd, &mut self.apiserver, &mut self.controller_manager] {
            let Some(process) = process else { continue };
            if let Some(status) = process.exited().map_err(Error::io("look after a process"))? {
                let log = process.log_tail();
                return Err(Error::Exited { part: process.part(), status, log });
            }
        }
        Ok(())
    }

    /// Ends the API server at once, as a crash would: connections break, and new
    /// ones are refused. What it stored stays.
    pub fn stop_apiserver(&mut self) {
        self.apiserver = None;
    }

    /// Starts the API server on the same port as before and waits until it is
    /// ready. Does nothing when it runs.
    pub async fn start_apiserver(&mut self) -> Result<(), Error> {
        if self.apiserver.is_none() {
            self.launch_apiserver(Instant::now()).await?;
        }
        Ok(())
    }

    /// Stops the API server and starts it again.
    pub async fn restart_apiserver(&mut self) -> Result<(), Error> {
        self.stop_apiserver();
        self.start_apiserver().await
    }

    /// Keeps a copy of everything that is stored, as a backup of etcd does. The
    /// API server is away meanwhile.
    pub async fn back_up(&mut self) -> Result<(), Error> {
        let (data, backup) = (self.etcd_data(), self.backup());
        self.exchange(&data, &backup).await
    }

    /// Goes back to the state of the last [`RealKube::back_up`]: revisions go
    /// back, too, and are used again.
    pub async fn restore(&mut self) -> Result<(), Error> {
        let (data, backup) = (self.etcd_data(), self.backup());
        self.exchange(&backup, &data).await
    }

    fn backup(&self) -> PathBuf {
        self.dir.path().join("etcd-backup")
    }

    /// Stops everything, replaces one folder by a copy of the other, and starts
    /// everything.
    async fn exchange(&mut self, from: &Path, to: &Path) -> Result<(), Error> {
        (self.controller_manager, self.apiserver, self.etcd) = (None, None, None);
        copy_folder(from, to).map_err(Error::io("copy etcd's data"))?;
        self.launch().await
    }

    /// Freezes the API server: connections stay open and nothing is answered, as
    /// when a network swallows packets.
    pub fn pause_apiserver(&self) -> Result<(), Error> {
        self.signal_apiserver(Signal::SIGSTOP)
    }

    /// Lets a frozen API server go on.
    pub fn resume_apiserver(&self) -> Result<(), Error> {
        self.signal_apiserver(Signal::SIGCONT)
    }

    fn signal_apiserver(&self, signal: Signal) -> Result<(), Error> {
        match &self.apiserver {
            Some(process) => process.signal(signal).map_err(Error::io("signal kube-apiserver")),
            None => Ok(()),
        }
    }

    async fn launch(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let write = Error::io("write a kubeconfig");
        self.credentials.write_admin_kubeconfig(&self.kubeconfig(), &self.url()).map_err(write)?;
        let write = Error::io("write a kubeconfig");
        self.credentials.write_limited_kubeconfig(&self.limited_kubeconfig(), &self.url()).map_err(write)?;

        self.etcd = Some(self.spawn(Part::Etcd, &self.etcd_args())?);
        let etcd = (Ipv4Addr::LOCALHOST, self.ports.etcd);
        self.wait(Part::Etcd, started, async || {
            tokio::net::TcpStream::connect(etcd).await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        self.launch_apiserver(started).await?;
        if self.options.controller_manager {
            self.launch_controller_manager(started).await?;
        }
        Ok(())
    }

    /// Ends what a failed launch left, and chooses other ports for the next.
    fn abandon_launch(&mut self) -> Result<(), Error> {
        self.controller_manager = None;
        self.apiserver = None;
        self.etcd = None;
        // etcd writes its addresses into its data when it starts for the first
        // time, so the data is of no use with other ports.
        match fs::remove_dir_all(self.etcd_data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove etcd's data")(error));
            }
            _ => self.ports = Ports::choose()?,
        }
        Ok(())
    }

    async fn launch_apiserver(&mut self, started: Instant) -> Result<(), Error> {
        self.apiserver = Some(self.spawn(Part::Apiserver, &self.apiserver_args())?);
        let client = self.client().await?;
        self.wait(Part::Apiserver, started, async || {
            let request = http::Request::get("/readyz").body(Vec::new()).map_err(|e| e.to_string())?;
            client.request_text(request).await.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    async fn launch_controller_manager(&mut self, started: Instant) -> Result<(), Error> {
        let args = self.controller_manager_args();
        self.controller_manager = Some(self.spawn(Part::ControllerManager, &args)?);
        let client = self.client().await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        let config_maps: Api<ConfigMap> = Api::namespaced(client, "default");
        self.wait(Part::ControllerManager, started, async || {
            accounts.get("default").await.map_err(|error| error.to_string())?;
            config_maps.get("kube-root-ca.crt").await.map(drop).map_err(|error| error.to_string())
        })
        .await
    }

    fn spawn(&self, part: Part, args: &[String]) -> Result<Process, Error> {
        self.keeper
            .start(part, &self.binaries.path(part), args, self.dir.path())
            .map_err(Error::io("start a process"))
    }

    /// Waits until `probe` succeeds, counting the time from `started`.
    async fn wait(
        &mut self,
        part: Part,
        started: Instant,
        probe: impl AsyncFn() -> Result<(), String>,
    ) -> Result<(), Error> {
        loop {
            self.check()?;
            let last = match tokio::time::timeout(PROBE, probe()).await {
                // Another process may answer on a port that ours could not
                // bind; then ours has ended by now, or will soon.
                Ok(Ok(())) => return self.check(),
                Ok(Err(error)) => error,
                Err(_) => format!("no answer within {PROBE:?}"),
            };
            if started.elapsed() >= self.options.ready_within {
                let within = self.options.ready_within;
                return Err(Error::NotReady { part, within, last, log: self.log_tail(part) });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn log_tail(&self, part: Part) -> String {
        let mut processes = [&self.etcd, &self.apiserver, &self.controller_manager].into_iter().flatten();
        processes.find(|process| process.part() == part).map(Process::log_tail).unwrap_or_default()
    }
}

async fn connect(kubeconfig: &Path) -> Result<Client, Error> {
    let file = Kubeconfig::read_from(kubeconfig).map_err(Error::kubeconfig)?;
    let options = KubeConfigOptions::default();
    let mut config = Config::from_custom_kubeconfig(file, &options).await.map_err(Error::kubeconfig)?;
    // A proxy from the environment cannot reach this machine's loopback.
    config.proxy_url = None;
    Client::try_from(config).map_err(|source| Error::Client { source: Box::new(source) })
}

/// Makes `to` a copy of `from`.
fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_was_taken_meanwhile_is_given_up() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let free = Ports::choose().unwrap();
        for ports in [Ports { etcd: port, ..free }, Ports { apiserver: port, ..free }] {
            let options = Options { controller_manager: false, ..Options::default() };
            let Some(kube) = RealKube::start_on(ports, options).await.unwrap() else { return };
            assert!(![kube.ports.apiserver, kube.ports.etcd, kube.ports.etcd_peer].contains(&port));
        }
    }
}
