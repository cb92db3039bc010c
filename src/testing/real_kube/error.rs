//! What can go wrong while an instance starts.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use super::Part;

/// Why there is no running instance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The binaries are missing, and the environment says that they may not be.
    #[error("a real kube-apiserver is required: {reason}")]
    NotBuilt {
        /// What is missing, and what to do.
        reason: String,
    },
    /// A part ended by itself.
    #[error("{} ended with {status}; the end of its log:\n{log}", part.name())]
    Exited {
        /// The part that ended.
        part: Part,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A part runs but was not ready in time.
    #[error("{} was not ready within {within:?} ({last}); the end of its log:\n{log}", part.name())]
    NotReady {
        /// The part that was waited for.
        part: Part,
        /// How long the whole start was given.
        within: Duration,
        /// What the last probe answered.
        last: String,
        /// The last lines of its log.
        log: String,
    },
    /// The operating system refused something.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("could not make a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A kubeconfig that was just written could not be read.
    #[error("could not read the kubeconfig")]
    Kubeconfig {
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// No client could be made from the kubeconfig.
    #[error("could not make a client")]
    Client {
        /// What is wrong with it.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// Whether a start with other ports may succeed.
    pub(super) fn is_port_conflict(&self) -> bool {
        matches!(self, Self::Exited { log, .. } if log.contains("address already in use"))
    }

    pub(super) fn io(action: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }

    pub(super) fn kubeconfig(source: kube::config::KubeconfigError) -> Self {
        Self::Kubeconfig { source: Box::new(source) }
    }
}
