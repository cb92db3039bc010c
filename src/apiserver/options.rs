//! What an API server is started with.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::auth::{Identity, Permission};

/// How to start an [`ApiServer`](crate::ApiServer). `Options::default()` listens on a free loopback port without TLS
/// and with no way to authenticate: add [`Options::tls`] and client certificates or [`Options::tokens`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. Port 0 takes a free one. Default: `127.0.0.1:0`.
    pub address: SocketAddr,
    /// Certificates for HTTPS. Without them plain HTTP is served, which is refused on other than loopback addresses.
    pub tls: Option<TlsOptions>,
    /// Bearer tokens and whom they stand for.
    pub tokens: Vec<(String, Identity)>,
    /// What users outside `system:masters` may do.
    pub permissions: Vec<Permission>,
    /// How many changes per resource are kept for watches and older lists. Beyond that they are 410 Gone.
    /// Default: 10,000.
    pub history: usize,
    /// How often a watch that asked for bookmarks gets one. Default: 2 s.
    pub bookmark_interval: Duration,
    /// How long [`ApiServer::shutdown`](crate::ApiServer::shutdown) waits for requests in flight. Default: 2 s.
    pub shutdown_grace: Duration,
}

/// Certificates and keys as PEM.
#[derive(Clone)]
pub struct TlsOptions {
    /// The server's certificate chain, leaf first.
    pub certificate_pem: String,
    /// The leaf's private key.
    pub private_key_pem: String,
    /// The CA certificates that client certificates are verified with. The common name is the user, each
    /// organisation a group. Without any, clients are known by tokens only.
    pub client_ca_pem: Option<String>,
}

impl std::fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsOptions").field("client_ca", &self.client_ca_pem.is_some()).finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            tokens: Vec::new(),
            permissions: Vec::new(),
            history: 10_000,
            bookmark_interval: Duration::from_secs(2),
            shutdown_grace: Duration::from_secs(2),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}; choose a free port or another address")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates or the key cannot be used.
    #[error("TLS options are unusable: {0}; pass PEM with a certificate chain, its key, and the client CA")]
    Tls(String),
    /// Plain HTTP outside the loopback interface.
    #[error("plain HTTP is not served on {0}; set `tls` or use a loopback address")]
    Plain(SocketAddr),
}
