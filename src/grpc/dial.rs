//! Connections that a replica dials: TLS, and who answers.

use std::io;
use std::time::{Duration, SystemTime};

use flotilla_certs::{ClientTls, Connection, Dial, Identity, IdentityError, Validity, peer_identity};
use http::Uri;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Who answers, by a certificate.
#[derive(Debug)]
pub(crate) struct Answering {
    /// Who it is.
    pub identity: Identity,
    /// How long the certificate still lasts.
    pub life: Duration,
}

/// A connection with TLS to what the address names, and who that is.
pub(crate) async fn secured(
    uri: &Uri,
    dial: &Dial,
    tls: &ClientTls,
) -> io::Result<(TlsStream<Connection>, Answering)> {
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| io::Error::other(error.to_string()))?;
    let stream = dial.connect(authority).await?;
    let stream = TlsConnector::from(tls.config()).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = peer_identity(chain).map_err(io::Error::other)?;
    let leaf = chain.first().ok_or_else(|| io::Error::other(IdentityError::NoCertificate))?;
    let validity = Validity::of("the certificate of who answers", leaf).map_err(io::Error::other)?;
    let life = validity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
    Ok((stream, Answering { identity, life }))
}

/// The cause that says something: transports wrap it in "transport error".
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
