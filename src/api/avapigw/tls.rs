//! Certificates and TLS versions, towards clients and towards backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "TLS12")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "TLS13")]
    Tls13,
}

/// The certificate that clients of a route see.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteTls {
    /// File with the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File with the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Host names for which the certificate is used; wildcards allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sni_hosts: Vec<String>,
    /// Lowest TLS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Highest TLS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// Allowed cipher suites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// Verification of client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_validation: Option<ClientValidation>,
    /// Certificate from Vault, in place of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultCertificate>,
}

/// Verification of client certificates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientValidation {
    /// Whether they are verified.
    #[serde(default)]
    pub enabled: bool,
    /// File with the CA certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Whether a client must show one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_client_cert: Option<bool>,
    /// Common names that may enter.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "allowedCNs")]
    pub allowed_cns: Vec<String>,
    /// Subject alternative names that may enter.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "allowedSANs")]
    pub allowed_sans: Vec<String>,
}

/// A certificate from Vault's PKI.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VaultCertificate {
    /// Whether it comes from Vault.
    #[serde(default)]
    pub enabled: bool,
    /// Mount path of the PKI engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pki_mount: Option<String>,
    /// Role of the PKI engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Common name of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Further names of the certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alt_names: Vec<String>,
    /// Lifetime of the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// TLS from the gateway to a backend.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendTls {
    /// Whether TLS is used.
    #[serde(default)]
    pub enabled: bool,
    /// Who shows a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "SIMPLE"))]
    pub mode: Option<BackendTlsMode>,
    /// File with the CA certificate that the server's is verified against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// File with the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File with the client's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// Name that the server's certificate must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether the server's certificate is not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_skip_verify: Option<bool>,
    /// Lowest TLS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_version: Option<TlsVersion>,
    /// Highest TLS version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_version: Option<TlsVersion>,
    /// Allowed cipher suites.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// Protocols to negotiate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
    /// Client certificate from Vault, in place of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultCertificate>,
}

/// Who shows a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BackendTlsMode {
    /// The backend.
    #[serde(rename = "SIMPLE")]
    Simple,
    /// Both sides.
    #[serde(rename = "MUTUAL")]
    Mutual,
    /// The backend, but nobody verifies it.
    #[serde(rename = "INSECURE")]
    Insecure,
}
