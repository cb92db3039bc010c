//! Clients: one for reading and writing objects, one for Leases.
//!
//! Leases get their own client with short time-outs and no retries of its own:
//! a renewal that hangs behind a slow list would cost this replica its
//! namespaces, and the election retries by its own rules.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::legacy::Builder;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _, retry::RetryPolicy};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// An API server that has gone without a word (a node that lost its power, a service
/// address that leads nowhere any more) answers nothing, and a watch that waits for the
/// next change sends nothing that could be found lost. So TCP asks on quiet connections
/// this often, and gives up what is not acknowledged for [`UNACKNOWLEDGED`].
const ASK_QUIET: Duration = Duration::from_secs(5);
/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(5);
/// See [`ASK_QUIET`]. Without it Linux sends again for a quarter of an hour.
const UNACKNOWLEDGED: Duration = Duration::from_secs(15);

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
    config.connect_timeout = Some(CONNECT);
    let mut leases = config.clone();
    leases.default_retry = false;
    leases.connect_timeout = Some(Duration::from_secs(2));
    Ok(Clients { objects: client(config).map_err(build)?, leases: client(leases).map_err(build)? })
}

/// A client as kube makes them, over connections that notice when the other side is gone.
fn client(config: Config) -> Result<Client, kube::Error> {
    if config.proxy_url.is_some() {
        // Says that proxies are not supported: to go past one would be wrong.
        return Client::try_from(config);
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    // Shared by all addresses of a name, so that one that is dead leaves time for the next.
    tcp.set_connect_timeout(Some(config.connect_timeout.unwrap_or(CONNECT)));
    tcp.set_keepalive(Some(ASK_QUIET));
    tcp.set_keepalive_interval(Some(ASK_QUIET));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    // From the name to the end of the handshake: somebody may accept, and say nothing.
    let connector = ServiceBuilder::new()
        .map_future(Box::pin)
        .timeout(config.connect_timeout.unwrap_or(CONNECT))
        .service(config.rustls_https_connector_with_connector(tcp)?);
    let retries = config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retries)
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(Builder::new(TokioExecutor::new()).build::<_, Body>(connector));
    Ok(Client::new(service, config.default_namespace))
}
