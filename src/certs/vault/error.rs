//! What can go wrong with Vault, sorted by who has to act.

use std::time::Duration;

use crate::CertError;

/// Why Vault gave no certificate. The old one stays in use whichever it is; all are
/// tried again.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A flag cannot be used.
    #[error("{setting}: {problem}")]
    Setting {
        /// The flag.
        setting: &'static str,
        /// What is wrong with it, and what to use.
        problem: String,
    },
    /// No connection, no answer, sealed, overloaded.
    #[error("Vault at {address} is not available: {problem}; check --vault-addr, and `vault status` there")]
    Away {
        /// Its address.
        address: String,
        /// What happened.
        problem: String,
    },
    /// No answer in time.
    #[error("Vault at {address} gave no answer to {request} within {} s", after.as_secs())]
    Timeout {
        /// Its address.
        address: String,
        /// The request.
        request: String,
        /// How long was waited.
        after: Duration,
    },
    /// The token or the service account is not believed, or may not do this.
    #[error(
        "Vault refuses {request}: {message}; check the token or --vault-k8s-role, and that its policy allows this path"
    )]
    Denied {
        /// The request.
        request: String,
        /// Vault's words.
        message: String,
    },
    /// Vault understood, and says no.
    #[error(
        "Vault answers {request} with {status}: {message}; check --vault-pki-mount, --vault-pki-role and what that role \
         allows"
    )]
    Refused {
        /// The request.
        request: String,
        /// The HTTP status.
        status: u16,
        /// Vault's words.
        message: String,
    },
    /// Something that is no answer of a Vault.
    #[error("the answer to {request} makes no sense: {problem}; is --vault-addr that of a Vault?")]
    Nonsense {
        /// The request.
        request: String,
        /// What is wrong with it.
        problem: String,
    },
    /// What it gave cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertError),
}

impl VaultError {
    pub(super) fn setting(setting: &'static str, problem: &str) -> Self {
        VaultError::Setting { setting, problem: problem.to_owned() }
    }

    pub(super) fn nonsense(request: &str, problem: &str) -> Self {
        VaultError::Nonsense { request: request.to_owned(), problem: problem.to_owned() }
    }
}
