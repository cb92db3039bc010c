//! What a call knows about the connection that it came on.

use std::net::SocketAddr;
use std::sync::Arc;

use flotilla_certs::{Identity, IdentityError, Role};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Who is at the other end; every request carries it in its extensions.
#[derive(Debug)]
pub struct Peer {
    /// What its certificate confirms.
    pub identity: Result<Identity, IdentityError>,
    /// Where it is.
    pub address: SocketAddr,
    /// The connection.
    pub connection: ConnectionHandle,
}

impl Peer {
    /// The peer of a request.
    ///
    /// # Errors
    /// INTERNAL when the request did not come through an acceptor.
    pub fn of(extensions: &http::Extensions) -> Result<&Self, Status> {
        extensions
            .get::<Arc<Peer>>()
            .map(AsRef::as_ref)
            .ok_or_else(|| Status::internal("the connection has no peer"))
    }

    /// Its identity, if it has that role.
    ///
    /// # Errors
    /// UNAUTHENTICATED without an identity, PERMISSION_DENIED with another one.
    pub fn with_role(&self, role: Role) -> Result<&Identity, Status> {
        match &self.identity {
            Ok(identity) if identity.role == role => Ok(identity),
            Ok(identity) => Err(Status::permission_denied(format!(
                "this call is for the role {role}; your certificate is {identity}"
            ))),
            Err(error) => Err(Status::unauthenticated(error.to_string())),
        }
    }
}

/// A handle to one connection; clones are the same one.
#[derive(Debug, Clone)]
pub struct ConnectionHandle {
    closing: CancellationToken,
}

impl ConnectionHandle {
    pub(crate) fn new(closing: CancellationToken) -> Self {
        ConnectionHandle { closing }
    }

    /// Ends the connection: its streams end with trailers, it says GOAWAY, and
    /// after the grace it is cut. The way to be rid of a client that does not
    /// read, whose trailers would wait behind what it has not read.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Cancelled when the connection is to end. Streams watch it.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}
