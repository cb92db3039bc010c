//! The API server of a scenario: embedded in the test's own process, where
//! faults can be injected; embedded as a process, as users run it; or a real
//! kube-apiserver.

use std::path::{Path, PathBuf};

use flotilla_apiserver::{ApiServer, Faults, Identity, Options};
use flotilla_k8s::client::connect;
use kube::Client;
use nix::sys::signal::Signal;
use serde_json::json;

use super::process::{Process, tail};
use super::waiting::{SOON, within};
use crate::real_kube::{self, RealKube};

/// Which API server a scenario runs against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The embedded one, in the test's own process.
    Inside,
    /// The embedded one, as `flotilla apiserver`.
    Embedded,
    /// A real one; where it is not built, the scenario is skipped.
    Real,
}

/// A running API server.
pub enum Server {
    /// In this process, over plain HTTP. A user's token is the user's name.
    Inside(ApiServer),
    /// A process of its own.
    Embedded(Process),
    /// A real one.
    Real(Box<RealKube>),
}

impl Server {
    /// Starts one; `None`, after a line that says why, when there is no real one.
    pub async fn start(program: &Path, against: Against, folder: &Path) -> Option<Server> {
        match against {
            Against::Inside => {
                let users = (0..10).map(replica_user);
                let tokens = users.map(|user| (user.clone(), Identity::admin(user))).collect();
                let server = ApiServer::start(Options { tokens, ..Options::default() }).await.unwrap();
                Some(Server::Inside(server))
            }
            Against::Embedded => {
                let file = folder.join("kubeconfig");
                let arguments = ["apiserver".to_owned(), format!("--kubeconfig-out={}", file.display())];
                let mut process = Process::start(program, folder, "apiserver", &arguments);
                within(SOON, "an API server that writes its kubeconfig", async || {
                    process.check().unwrap();
                    file.exists().then_some(()).ok_or_else(|| "there is no file yet".to_owned())
                })
                .await;
                Some(Server::Embedded(process))
            }
            Against::Real => {
                let started = RealKube::start(real_kube::Options::default()).await.unwrap();
                started.map(|kube| Server::Real(Box::new(kube)))
            }
        }
    }

    /// A client of an administrator, whom no fault is meant for.
    pub async fn client(&self, folder: &Path) -> Client {
        match self {
            Server::Inside(server) => Client::new(server.service(Identity::admin("tester")), "default"),
            Server::Embedded(_) | Server::Real(_) => {
                connect(Some(&self.kubeconfig(folder, 0))).await.unwrap().objects
            }
        }
    }

    /// The kubeconfig for the replica of this number: inside the test every
    /// replica is a user of its own.
    pub fn kubeconfig(&self, folder: &Path, replica: usize) -> PathBuf {
        match self {
            Server::Real(kube) => kube.kubeconfig(),
            Server::Embedded(_) => folder.join("kubeconfig"),
            Server::Inside(server) => {
                let user = replica_user(replica);
                let file = folder.join(format!("{user}.kubeconfig"));
                let text = json!({
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": user}}],
                    "clusters": [{"name": "it", "cluster": {"server": server.url()}}],
                    "users": [{"name": user, "user": {"token": user}}],
                });
                std::fs::write(&file, text.to_string()).unwrap();
                file
            }
        }
    }

    /// The seam for faults.
    ///
    /// # Panics
    /// When the server is not in this process.
    pub fn faults(&self) -> &Faults {
        match self {
            Server::Inside(server) => server.faults(),
            _ => panic!("faults can be injected only into an API server inside the test"),
        }
    }

    /// Takes the server away: a real one is ended and refuses connections, an
    /// embedded one is frozen and answers nothing.
    pub fn go_away(&mut self) {
        match self {
            Server::Real(kube) => kube.stop_apiserver(),
            Server::Embedded(process) => process.signal(Signal::SIGSTOP),
            Server::Inside(_) => panic!("a server inside the test cannot go away alone"),
        }
    }

    /// Brings the server back with everything it stored.
    pub async fn come_back(&mut self) {
        match self {
            Server::Real(kube) => kube.start_apiserver().await.unwrap(),
            Server::Embedded(process) => process.signal(Signal::SIGCONT),
            Server::Inside(_) => {}
        }
    }

    /// What it logged last, for a test that fails.
    pub fn tail(&self) -> String {
        match self {
            Server::Inside(_) => String::new(),
            Server::Embedded(process) => process.tail(),
            Server::Real(kube) => tail(&kube.log_path(real_kube::Part::Apiserver)),
        }
    }
}

/// The user as which the replica of this number comes to a server inside the test.
pub fn replica_user(number: usize) -> String {
    format!("replica-{number}")
}
