//! Headers that make browsers more careful.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Security headers of responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Whether they are set.
    #[serde(default)]
    pub enabled: bool,
    /// Single headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<SecurityHeaders>,
    /// Strict-Transport-Security.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
    /// Content-Security-Policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csp: Option<ContentSecurityPolicy>,
    /// Referrer-Policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referrer_policy: Option<String>,
}

/// Single security headers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityHeaders {
    /// Whether they are set.
    #[serde(default)]
    pub enabled: bool,
    /// X-Frame-Options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_frame_options: Option<String>,
    /// X-Content-Type-Options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_content_type_options: Option<String>,
    /// X-XSS-Protection.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "xXSSProtection")]
    pub x_xss_protection: Option<String>,
    /// Content-Security-Policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_security_policy: Option<String>,
    /// Strict-Transport-Security.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_transport_security: Option<String>,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_headers: BTreeMap<String, String>,
}

/// Tells browsers to come back with TLS only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hsts {
    /// Whether the header is set.
    #[serde(default)]
    pub enabled: bool,
    /// Seconds for which browsers remember it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_age: Option<u64>,
    /// Whether it holds for subdomains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_sub_domains: Option<bool>,
    /// Whether browsers may ship with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preload: Option<bool>,
}

/// Tells browsers what a page may load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContentSecurityPolicy {
    /// Whether the header is set.
    #[serde(default)]
    pub enabled: bool,
    /// The policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether violations are only reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_only: Option<bool>,
    /// Where violations are reported to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_uri: Option<String>,
}
