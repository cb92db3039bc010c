//! How a gateway proves to a backend who it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authentication::SecretKeyRef;
use super::go_duration::GoDuration;
use super::tls::VaultCertificate;

/// Authentication of the gateway to a backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendAuthentication {
    /// The method.
    #[serde(rename = "type")]
    pub type_: BackendAuthenticationType,
    /// By a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<BackendJwt>,
    /// By user name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BackendBasic>,
    /// By a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<BackendMtls>,
}

/// Method of authentication to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BackendAuthenticationType {
    /// A token.
    Jwt,
    /// User name and password.
    Basic,
    /// A client certificate.
    Mtls,
}

/// Authentication by a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendJwt {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// Where the token comes from.
    pub token_source: TokenSource,
    /// The token itself; for development.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_token: Option<String>,
    /// Vault path of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_path: Option<String>,
    /// Provider of tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<BackendOidc>,
    /// Header with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Authorization"))]
    pub header_name: Option<String>,
    /// What stands before the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Bearer"))]
    pub header_prefix: Option<String>,
}

/// Where a token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TokenSource {
    /// From the resource.
    Static,
    /// From Vault.
    Vault,
    /// From an OpenID Connect provider.
    Oidc,
}

/// Provider of tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendOidc {
    /// URL of the issuer.
    #[schemars(length(min = 1))]
    pub issuer_url: String,
    /// Client id at the provider.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// Client secret; better kept in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// Secret with the client secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<SecretKeyRef>,
    /// Scopes to ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How long a token is used.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "tokenCacheTTL")]
    pub token_cache_ttl: Option<GoDuration>,
}

/// Authentication by user name and password.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendBasic {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// User name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password; better kept in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Vault path of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_path: Option<String>,
    /// Key of the user name in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "username"))]
    pub username_key: Option<String>,
    /// Key of the password in Vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "password"))]
    pub password_key: Option<String>,
}

/// Authentication by a client certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackendMtls {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// File with the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<String>,
    /// File with the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
    /// File with the CA certificate that the server's is verified against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Certificate from Vault, in place of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<VaultCertificate>,
}
