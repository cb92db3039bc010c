//! Connections that a replica dials: TLS, and who answers.

use std::io;

use flotilla_certs::{ClientTls, Connection, Dial, Identity, peer_identity};
use http::Uri;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A connection with TLS to what the address names, and who that is by its
/// certificate.
pub(crate) async fn secured(
    uri: &Uri,
    dial: &Dial,
    tls: &ClientTls,
) -> io::Result<(TlsStream<Connection>, Identity)> {
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| io::Error::other(error.to_string()))?;
    let stream = dial.connect(authority).await?;
    let stream = TlsConnector::from(tls.config()).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let identity = peer_identity(chain).map_err(io::Error::other)?;
    Ok((stream, identity))
}

/// The cause that says something: transports wrap it in "transport error".
pub(crate) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
