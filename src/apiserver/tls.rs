//! The server's side of TLS.
//!
//! Like kube-apiserver, the handshake asks for a client certificate and takes any whose key the client proves to
//! hold; whether it is trusted is decided after it, so that a client with a foreign or expired certificate reads 401
//! instead of a broken connection.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::auth::Identity;
use crate::options::{Error, TlsOptions};

/// A configuration, and the verifier that tells who a client is.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub config: Arc<ServerConfig>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl Tls {
    /// Reads the certificates.
    pub fn new(options: &TlsOptions) -> Result<Self, Error> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| Error::Tls(format!("{what}: {error}"));
        let provider = Arc::new(ring::default_provider());
        let chain =
            certificates(&options.certificate_pem).map_err(|error| wrong("server certificate", &error))?;
        let key = PrivateKeyDer::from_pem_slice(options.private_key_pem.as_bytes())
            .map_err(|error| wrong("server key", &error))?;
        let mut verifier = None;
        if let Some(pem) = &options.client_ca_pem {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(pem).map_err(|error| wrong("client CA", &error))? {
                roots.add(certificate).map_err(|error| wrong("client CA", &error))?;
            }
            let built =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            verifier = Some(built.map_err(|error| wrong("client CA", &error))?);
        }
        let handshake: Arc<dyn ClientCertVerifier> = match &verifier {
            Some(strict) => Arc::new(Lenient { strict: strict.clone(), provider: provider.clone() }),
            None => Arc::new(NoClientAuth),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("protocol versions", &error))?
            .with_client_cert_verifier(handshake)
            .with_single_cert(chain, key)
            .map_err(|error| wrong("server certificate and key", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// Who holds the certificates that a client has shown; `None` when they are not trusted.
    pub fn identify(&self, shown: &[CertificateDer<'_>]) -> Option<Identity> {
        let (leaf, intermediates) = shown.split_first()?;
        let verifier = self.verifier.as_ref()?;
        match verifier.verify_client_cert(leaf, intermediates, UnixTime::now()) {
            Ok(_) => Identity::from_certificate(leaf),
            Err(error) => {
                tracing::warn!(%error, "a client certificate is not trusted");
                None
            }
        }
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no certificate in the PEM".to_owned()) } else { Ok(found) }
}

/// Takes any certificate during the handshake, provided that the client holds its key.
#[derive(Debug)]
struct Lenient {
    strict: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
