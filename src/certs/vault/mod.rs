//! Certificates from the PKI engine of a Vault (or OpenBao, which speaks the same).
//!
//! A replica makes its own key and has a request signed (`POST
//! /v1/<mount>/sign/<role>`): the key never travels. Who is trusted are the issuers of
//! the mount (`LIST /v1/<mount>/issuers`, `GET …/issuer/<id>/json`), so an authority is
//! rotated there as Vault means it: a second issuer is added (`root/rotate`), all
//! replicas trust both, it is made the default, and the old one is removed when what it
//! signed has ended. That takes Vault 1.11 or later.
//!
//! Nothing that Vault says is taken for good: what it signed must be for our key, be
//! valid now, have all our names, and be signed by somebody of that mount. What is not
//! valid yet, because this machine's clock is behind Vault's, is kept until it is:
//! another one would begin later still.

mod answer;
mod error;
mod http;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ::http::Method;
use serde_json::{Value, json};

pub use error::VaultError;
use http::Http;

use crate::{CLOCK_SKEW, CertError, CertificatePem, Dial, LeafRequest, TrustRoots, check_issued};

/// Largest number of issuers that are looked at in one mount.
const ISSUERS: usize = 32;

/// How a replica proves to Vault who it is.
#[derive(Clone)]
pub enum VaultAuth {
    /// By a token.
    Token(String),
    /// By a token in a file, which is read at the first request and whenever the token is
    /// refused: an agent renews it.
    TokenFile(PathBuf),
    /// By the token of its Kubernetes service account.
    Kubernetes {
        /// Where the method is mounted.
        mount: String,
        /// The role of the method.
        role: String,
        /// The file with the service account's token.
        token_file: PathBuf,
    },
}

// A token must not end up in a log.
impl std::fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VaultAuth::Token(_) => f.write_str("Token(…)"),
            VaultAuth::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
            VaultAuth::Kubernetes { mount, role, token_file } => f
                .debug_struct("Kubernetes")
                .field("mount", mount)
                .field("role", role)
                .field("token_file", token_file)
                .finish(),
        }
    }
}

/// Which Vault, and what is asked of it.
#[derive(Debug, Clone)]
pub struct VaultSettings {
    /// `http(s)://HOST:PORT`.
    pub address: String,
    /// The namespace, where the server has such.
    pub namespace: Option<String>,
    /// PEM file with the authority of the server's own certificate. Default: those
    /// that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// How to log in.
    pub auth: VaultAuth,
    /// Where the PKI engine is mounted.
    pub mount: String,
    /// The role of the PKI engine.
    pub role: String,
    /// How long one request may take.
    pub timeout: Duration,
}

/// A client of one mount of one Vault.
pub struct Vault {
    settings: VaultSettings,
    http: Http,
    /// What the last login gave. Locked for a copy only.
    token: Mutex<Option<String>>,
    /// What was issued and is not valid yet. Locked for a copy only.
    early: Mutex<Option<CertificatePem>>,
}

impl Vault {
    /// Checks the settings. Reads files, so it blocks: call it at start. Nothing is
    /// sent yet.
    ///
    /// # Errors
    /// [`VaultError::Setting`] or [`VaultError::Certificate`].
    pub fn new(settings: VaultSettings, dial: Dial) -> Result<Self, VaultError> {
        path_of("--vault-pki-mount", &settings.mount)?;
        path_of("--vault-pki-role", &settings.role)?;
        if let VaultAuth::Kubernetes { mount, role, .. } = &settings.auth {
            path_of("--vault-k8s-mount", mount)?;
            if role.is_empty() {
                return Err(VaultError::setting(
                    "--vault-k8s-role",
                    "name a role of the Kubernetes auth method",
                ));
            }
        }
        let http = Http::new(&settings, dial)?;
        Ok(Vault { settings, http, token: Mutex::new(None), early: Mutex::new(None) })
    }

    /// Has a certificate signed for a fresh key, and says who is trusted.
    ///
    /// # Errors
    /// When Vault is away or refuses, or what it gives cannot be used.
    /// [`CertError::NotYetValid`]: this clock is behind Vault's. When that is by less than
    /// [`CLOCK_SKEW`], no other certificate is asked for until that one's time has come.
    pub async fn issue(
        &self,
        request: &LeafRequest,
        now: SystemTime,
    ) -> Result<(CertificatePem, TrustRoots), VaultError> {
        let kept = self.early.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(leaf) = kept {
            match self.believed(leaf, request, now).await {
                Ok(believed) => {
                    self.keep(None);
                    return Ok(believed);
                }
                Err(error @ VaultError::Certificate(CertError::NotYetValid { .. })) => return Err(error),
                // Its issuer is gone, or it has ended meanwhile.
                Err(VaultError::Certificate(_)) => self.keep(None),
                Err(error) => return Err(error),
            }
        }
        let leaf = self.sign(request).await?;
        let outcome = self.believed(leaf.clone(), request, now).await;
        if let Err(VaultError::Certificate(CertError::NotYetValid { .. })) = outcome
            && leaf.validity("what was issued")?.not_before <= now + CLOCK_SKEW
        {
            self.keep(Some(leaf));
        }
        outcome
    }

    fn keep(&self, early: Option<CertificatePem>) {
        *self.early.lock().unwrap_or_else(PoisonError::into_inner) = early;
    }

    /// A certificate with those who are trusted, if it is what was asked for.
    async fn believed(
        &self,
        leaf: CertificatePem,
        request: &LeafRequest,
        now: SystemTime,
    ) -> Result<(CertificatePem, TrustRoots), VaultError> {
        let what = format!("what {}/sign/{} issued", self.settings.mount, self.settings.role);
        // Before anything is asked: who waits for its time must not ask each time.
        if let Err(early @ CertError::NotYetValid { .. }) = leaf.validity(&what)?.check(&what, now) {
            return Err(early.into());
        }
        let roots = self.issuers(now).await?;
        check_issued(&what, &leaf, &roots, request, now)?;
        Ok((leaf, roots))
    }

    async fn sign(&self, request: &LeafRequest) -> Result<CertificatePem, VaultError> {
        let ours = request.signing_request()?;
        let path = format!("{}/sign/{}", self.settings.mount, self.settings.role);
        let list = |items: Vec<String>| items.join(",");
        let body = json!({
            "csr": ours.request,
            // For roles that do not take these from the request.
            "common_name": request.common_name,
            "alt_names": list(request.dns_names.clone()),
            "ip_sans": list(request.ip_addresses.iter().map(ToString::to_string).collect()),
            "uri_sans": list(request.identity.iter().map(ToString::to_string).collect()),
            "ttl": format!("{}s", request.lifetime.as_secs().max(1)),
        });
        let signed = answer::signed(&path, &self.authorised(Method::POST, &path, Some(body)).await?)?;
        Ok(CertificatePem { certificate: signed, private_key: ours.private_key })
    }

    /// The issuers of the mount that have not ended.
    ///
    /// # Errors
    /// When Vault is away or refuses, or what it says cannot be read.
    pub async fn issuers(&self, now: SystemTime) -> Result<TrustRoots, VaultError> {
        let path = format!("{}/issuers?list=true", self.settings.mount);
        let listed = answer::issuers(&path, &self.http.send(Method::GET, &path, None, None).await?)?;
        if listed.len() > ISSUERS {
            let text = format!(
                "the mount has {} issuers, and at most {ISSUERS} are trusted; remove those that have ended",
                listed.len()
            );
            return Err(VaultError::nonsense(&path, &text));
        }
        let mut roots: Option<TrustRoots> = None;
        for issuer in &listed {
            let path = format!("{}/issuer/{issuer}/json", self.settings.mount);
            let body = self.http.send(Method::GET, &path, None, None).await?;
            let certificate = answer::issuer(&path, &body)?;
            let found = TrustRoots::from_pem(&path, &certificate)?;
            roots = Some(match roots {
                Some(roots) => roots.and(&found, SystemTime::UNIX_EPOCH)?,
                None => found,
            });
        }
        match roots {
            Some(roots) => Ok(roots.and(&roots, now)?),
            None => {
                Err(VaultError::nonsense(&path, "the mount has no issuer; generate or import an authority"))
            }
        }
    }

    /// A request with a token. When the one at hand is refused it may have ended:
    /// logs in once more.
    async fn authorised(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Vec<u8>, VaultError> {
        let held = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fresh = held.is_none();
        let token = match held {
            Some(token) => token,
            None => self.log_in().await?,
        };
        match self.http.send(method.clone(), path, Some(&token), body.clone()).await {
            Err(VaultError::Denied { .. }) if !fresh => {
                let token = self.log_in().await?;
                self.http.send(method, path, Some(&token), body).await
            }
            outcome => outcome,
        }
    }

    async fn log_in(&self) -> Result<String, VaultError> {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let token = match &self.settings.auth {
            VaultAuth::Token(token) => token.clone(),
            VaultAuth::TokenFile(path) => secret("--vault-token-file", path).await?,
            VaultAuth::Kubernetes { mount, role, token_file } => {
                let jwt = secret("--vault-k8s-token-file", token_file).await?;
                let path = format!("auth/{mount}/login");
                let body = json!({"role": role, "jwt": jwt});
                answer::token(&path, &self.http.send(Method::POST, &path, None, Some(body)).await?)?
            }
        };
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(token)
    }
}

/// Reads a token from its file.
async fn secret(flag: &'static str, path: &std::path::Path) -> Result<String, VaultError> {
    let problem = |problem: String| VaultError::setting(flag, &format!("{}: {problem}", path.display()));
    let text = tokio::fs::read_to_string(path).await.map_err(|error| problem(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(problem("it holds no token".to_owned()));
    }
    Ok(text.to_owned())
}

/// Whether a setting can be a part of a path.
fn path_of(flag: &'static str, text: &str) -> Result<(), VaultError> {
    let legal = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    match text.split('/').all(legal) {
        true => Ok(()),
        false => Err(VaultError::setting(
            flag,
            &format!("{text:?} is no path; use words of letters, digits, '-', '_', '.' and '/' between them"),
        )),
    }
}
