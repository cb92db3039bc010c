//! How clients of a route prove who they are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may call is found out by one of several methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    /// Whether clients must authenticate.
    #[serde(default)]
    pub enabled: bool,
    /// By a signed token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuthentication>,
    /// By an API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyAuthentication>,
    /// By a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MtlsAuthentication>,
    /// By an OpenID Connect provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcAuthentication>,
    /// Whether clients without credentials may pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_anonymous: Option<bool>,
    /// Paths that need no authentication.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_paths: Vec<String>,
}

/// Authentication by a signed token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtAuthentication {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// Required issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Accepted audiences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<String>,
    /// URL of the issuer's keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// Shared secret of the HS algorithms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Public key in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Required algorithm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<JwtAlgorithm>,
    /// Which claims say what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_mapping: Option<ClaimMapping>,
}

/// Algorithm of a token's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// HMAC with SHA-384.
    #[serde(rename = "HS384")]
    Hs384,
    /// HMAC with SHA-512.
    #[serde(rename = "HS512")]
    Hs512,
    /// RSA with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSA with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// ECDSA with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA with SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// ECDSA with SHA-512.
    #[serde(rename = "ES512")]
    Es512,
}

/// Names of the claims that say what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimMapping {
    /// Claim with the roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<String>,
    /// Claim with the permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// Claim with the groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// Claim with the scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<String>,
    /// Claim with the e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Claim with the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Authentication by an API key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyAuthentication {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// Header with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "X-API-Key"))]
    pub header: Option<String>,
    /// Query parameter with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// How stored keys are hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_algorithm: Option<HashAlgorithm>,
    /// Vault path of the keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault_path: Option<String>,
}

/// How stored keys are hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HashAlgorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// bcrypt.
    Bcrypt,
}

/// Authentication by a client certificate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MtlsAuthentication {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// File with the CA certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Which part of the certificate is the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract_identity: Option<CertificateIdentity>,
    /// Common names that may enter.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "allowedCNs")]
    pub allowed_cns: Vec<String>,
    /// Organizational units that may enter.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "allowedOUs")]
    pub allowed_ous: Vec<String>,
}

/// Which part of a certificate is the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CertificateIdentity {
    /// Common name.
    Cn,
    /// Subject alternative name.
    San,
    /// Organizational unit.
    Ou,
}

/// Authentication by OpenID Connect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcAuthentication {
    /// Whether it is used.
    #[serde(default)]
    pub enabled: bool,
    /// Accepted providers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<OidcProvider>,
}

/// A provider of identities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcProvider {
    /// Name of the provider, unique in the list.
    #[schemars(length(min = 1))]
    pub name: String,
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
}

/// One key of a Secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Key within it.
    #[schemars(length(min = 1))]
    pub key: String,
}
