//! How a client makes sure that it reached the right server.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{CertError, Role, peer_identity, provider};

/// How a client makes sure that it reached the right server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCheck {
    /// The certificate names the host that was dialled: what gateways do.
    Name,
    /// The certificate is that of a controller of this trust domain, whatever
    /// the address: what replicas do with each other, whose addresses change.
    /// Which member it is, the caller asks [`peer_identity`].
    Controller {
        /// The fleet.
        trust_domain: Arc<str>,
    },
    /// The same for a gateway that listens: what replicas dial it with.
    Gateway {
        /// The fleet.
        trust_domain: Arc<str>,
    },
}

impl ServerCheck {
    pub(crate) fn verifier(&self, roots: RootCertStore) -> Result<Arc<dyn ServerCertVerifier>, CertError> {
        let roots = Arc::new(roots);
        let by_name = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider())
            .build()
            .map_err(|error| CertError::Tls {
                what: "the trusted authority".to_owned(),
                problem: error.to_string(),
            })?;
        let (role, trust_domain) = match self {
            ServerCheck::Name => return Ok(by_name),
            ServerCheck::Controller { trust_domain } => (Role::Controller, trust_domain.clone()),
            ServerCheck::Gateway { trust_domain } => (Role::Gateway, trust_domain.clone()),
        };
        Ok(Arc::new(RoleVerifier { roots, by_name, role, trust_domain }))
    }
}

/// Checks chain, time and use as always, and the identity in place of the name.
struct RoleVerifier {
    roots: Arc<RootCertStore>,
    by_name: Arc<WebPkiServerVerifier>,
    role: Role,
    trust_domain: Arc<str>,
}

impl fmt::Debug for RoleVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleVerifier")
            .field("role", &self.role)
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// A server of the right authority that has not this role in our fleet.
#[derive(Debug, thiserror::Error)]
#[error("the server is {found}; expected a {role} of trust domain {trust_domain}")]
struct AnotherRole {
    found: String,
    role: Role,
    trust_domain: Arc<str>,
}

impl ServerCertVerifier for RoleVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let leaf = ParsedCertificate::try_from(end_entity)?;
        let algorithms = provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        let found = match peer_identity(std::slice::from_ref(end_entity)) {
            Ok(identity) if identity.role == self.role && identity.trust_domain == self.trust_domain => {
                return Ok(ServerCertVerified::assertion());
            }
            Ok(identity) => identity.to_string(),
            Err(error) => error.to_string(),
        };
        let problem = AnotherRole { found, role: self.role, trust_domain: self.trust_domain.clone() };
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(problem)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_name.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_name.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_name.supported_verify_schemes()
    }
}
