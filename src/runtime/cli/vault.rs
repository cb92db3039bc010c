//! Flags of `--cert-provider vault`. Their variables are those that Vault's own tools
//! read: VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::environment::period;

/// A text that must not end up in a log.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Which Vault, how to log in, and what to ask for.
#[derive(Debug, Clone, clap::Args)]
pub struct VaultArgs {
    /// With --cert-provider vault: where Vault is, http(s)://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub vault_addr: Option<String>,
    /// Vault's namespace, where it has such
    #[arg(long, value_name = "NAME")]
    pub vault_namespace: Option<String>,
    /// File with the CA of Vault's own certificate. Default: what this machine trusts
    #[arg(long, value_name = "FILE")]
    pub vault_cacert: Option<PathBuf>,
    /// Role of the Kubernetes auth method to log in with
    #[arg(long, value_name = "NAME")]
    pub vault_k8s_role: Option<String>,
    /// Where the Kubernetes auth method is mounted
    #[arg(long, value_name = "PATH", default_value = "kubernetes", alias = "vault-k8s-mount-path")]
    pub vault_k8s_mount: String,
    /// File with the token of this replica's service account
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token")]
    pub vault_k8s_token_file: PathBuf,
    /// File with a token to log in with instead; read again when it is needed
    #[arg(long, value_name = "FILE")]
    pub vault_token_file: Option<PathBuf>,
    /// A token to log in with instead. Flags are seen by everybody on a machine: use VAULT_TOKEN
    #[arg(long, value_name = "TOKEN", hide_default_value = true)]
    pub vault_token: Option<Secret>,
    /// Where the PKI engine is mounted
    #[arg(long, value_name = "PATH", default_value = "pki")]
    pub vault_pki_mount: String,
    /// Role of the PKI engine
    #[arg(long, value_name = "NAME", default_value = "operator")]
    pub vault_pki_role: String,
    /// Common name of the certificate. Default: the member's name
    #[arg(long, value_name = "NAME")]
    pub vault_common_name: Option<String>,
    /// How long a certificate is to last; renewed at two thirds of what Vault gives
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = period)]
    pub vault_ttl: Duration,
    /// How long a start may wait for the first certificate
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = period)]
    pub vault_init_timeout: Duration,
}
