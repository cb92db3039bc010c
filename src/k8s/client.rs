//! Clients: one for reading and writing objects, one for Leases.
//!
//! Leases get their own client with short time-outs and no retries of its own:
//! a renewal that hangs behind a slow list would cost this replica its
//! namespaces, and the election retries by its own rules.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The replica's connections to one API server.
#[derive(Clone)]
pub struct Clients {
    /// For objects, statuses and watches.
    pub objects: Client,
    /// For Leases and nothing else.
    pub leases: Client,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file named by the flag or by `KUBECONFIG` does not do.
    #[error("kubeconfig {path}: cannot be used; check the file and its current context")]
    Kubeconfig {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig was given and none could be inferred.
    #[error("no kubeconfig was given and this is not a pod; use --kubeconfig FILE")]
    NotInferred(#[source] Box<kube::config::InferConfigError>),
    /// The configuration names something that does not work.
    #[error("the API client cannot be built; check certificates and proxy in the kubeconfig")]
    Build(#[source] Box<kube::Error>),
}

/// Connects by a kubeconfig file, or by the environment when `None`
/// (`KUBECONFIG`, `~/.kube/config`, then the pod's service account).
///
/// # Errors
/// See [`ClientError`]. Nothing is sent yet: an API server that is away is
/// found out by the first request.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Clients, ClientError> {
    let config = match kubeconfig {
        Some(path) => {
            let named = |source| ClientError::Kubeconfig { path: path.display().to_string(), source };
            let file = Kubeconfig::read_from(path).map_err(named)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(named)?
        }
        None => Config::infer().await.map_err(|error| ClientError::NotInferred(Box::new(error)))?,
    };
    from_config(config)
}

fn from_config(mut config: Config) -> Result<Clients, ClientError> {
    let build = |error| ClientError::Build(Box::new(error));
    // Watches are quiet for as long as nothing changes; their own idle limit
    // is in `watch`.
    config.read_timeout = None;
    config.connect_timeout = Some(Duration::from_secs(5));
    let mut leases = config.clone();
    leases.default_retry = false;
    leases.connect_timeout = Some(Duration::from_secs(2));
    Ok(Clients {
        objects: Client::try_from(config).map_err(build)?,
        leases: Client::try_from(leases).map_err(build)?,
    })
}
