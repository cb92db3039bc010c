//! TLS configurations that change without a restart.
//!
//! A handle is asked once per connection. Connections that are open keep what
//! they were made with; so a swap drops nothing, and takes effect with the next
//! handshake. Resumption is switched off on both sides: a resumed session would
//! skip the check of a certificate that meanwhile expired or whose authority is
//! no longer trusted, and full handshakes on P-256 are cheap.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use crate::check::check_key;
use crate::{CertError, CertificatePem, ServerCheck, TrustRoots, provider};

/// Whether clients have to present a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No handshake without a certificate that the roots vouch for.
    Required,
    /// A certificate is checked when there is one.
    Optional,
    /// Nobody is asked for one, so that clients with certificates of other authorities may come, too.
    Nobody,
}

/// Which protocols are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2 only: gRPC.
    H2,
    /// HTTP/2 or HTTP/1.1.
    H2OrHttp1,
    /// HTTP/1.1 only, where every request has a connection to itself.
    Http1,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Alpn::H2 => vec![b"h2".to_vec()],
            Alpn::H2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Alpn::Http1 => vec![b"http/1.1".to_vec()],
        }
    }
}

/// A server's TLS configuration; clones share it.
#[derive(Debug, Clone)]
pub struct ServerTls {
    current: Arc<ArcSwap<ServerConfig>>,
    client_auth: ClientAuth,
    alpn: Alpn,
}

impl ServerTls {
    /// Serves with `certificate` and believes clients that `roots` vouch for.
    ///
    /// # Errors
    /// When certificate, key or roots cannot be used.
    pub fn new(
        certificate: &CertificatePem,
        roots: &TrustRoots,
        client_auth: ClientAuth,
        alpn: Alpn,
    ) -> Result<Self, CertError> {
        let config = server_config(certificate, roots, client_auth, alpn)?;
        Ok(ServerTls { current: Arc::new(ArcSwap::from_pointee(config)), client_auth, alpn })
    }

    /// Replaces certificate and roots for all connections to come.
    ///
    /// # Errors
    /// As for [`ServerTls::new`]; the old configuration then stays in force.
    pub fn swap(&self, certificate: &CertificatePem, roots: &TrustRoots) -> Result<(), CertError> {
        let config = server_config(certificate, roots, self.client_auth, self.alpn)?;
        self.current.store(Arc::new(config));
        Ok(())
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

/// A client's TLS configuration; clones share it.
#[derive(Debug, Clone)]
pub struct ClientTls {
    current: Arc<ArcSwap<ClientConfig>>,
    check: ServerCheck,
    alpn: Alpn,
}

impl ClientTls {
    /// Connects with `certificate`, if any, to servers that `roots` vouch for
    /// and that pass `check`.
    ///
    /// # Errors
    /// When certificate, key or roots cannot be used.
    pub fn new(
        certificate: Option<&CertificatePem>,
        roots: &TrustRoots,
        check: ServerCheck,
        alpn: Alpn,
    ) -> Result<Self, CertError> {
        let config = client_config(certificate, roots, &check, alpn)?;
        Ok(ClientTls { current: Arc::new(ArcSwap::from_pointee(config)), check, alpn })
    }

    /// Replaces certificate and roots for all connections to come.
    ///
    /// # Errors
    /// As for [`ClientTls::new`]; the old configuration then stays in force.
    pub fn swap(&self, certificate: Option<&CertificatePem>, roots: &TrustRoots) -> Result<(), CertError> {
        let config = client_config(certificate, roots, &self.check, self.alpn)?;
        self.current.store(Arc::new(config));
        Ok(())
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }
}

fn server_config(
    certificate: &CertificatePem,
    roots: &TrustRoots,
    client_auth: ClientAuth,
    alpn: Alpn,
) -> Result<ServerConfig, CertError> {
    const WHAT: &str = "the server's certificate";
    check_key(WHAT, certificate)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.store()?), provider());
    let verifier = match client_auth {
        ClientAuth::Required => Some(verifier),
        ClientAuth::Optional => Some(verifier.allow_unauthenticated()),
        ClientAuth::Nobody => None,
    };
    let verifier = verifier.map(|verifier| verifier.build()).transpose().map_err(|error| CertError::Tls {
        what: "the trusted authority".to_owned(),
        problem: error.to_string(),
    })?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| unusable(WHAT, &error))?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(certificate.chain(WHAT)?, certificate.key(WHAT)?)
        .map_err(|error| unusable(WHAT, &error))?;
    config.alpn_protocols = alpn.protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_config(
    certificate: Option<&CertificatePem>,
    roots: &TrustRoots,
    check: &ServerCheck,
    alpn: Alpn,
) -> Result<ClientConfig, CertError> {
    const WHAT: &str = "the client's certificate";
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| unusable(WHAT, &error))?
        // The verifiers are webpki's; "dangerous" is only that one may bring one's own.
        .dangerous()
        .with_custom_certificate_verifier(check.verifier(roots.store()?)?);
    let mut config = match certificate {
        Some(certificate) => {
            check_key(WHAT, certificate)?;
            builder
                .with_client_auth_cert(certificate.chain(WHAT)?, certificate.key(WHAT)?)
                .map_err(|error| unusable(WHAT, &error))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.protocols();
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn unusable(what: &str, error: &rustls::Error) -> CertError {
    CertError::Tls { what: what.to_owned(), problem: error.to_string() }
}
