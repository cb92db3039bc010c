//! A replica's certificate from a Vault.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_certs::vault::{Vault, VaultAuth, VaultError, VaultSettings};
use flotilla_certs::{Dial, LeafRequest, Usage, check_leaf};
use rand::Rng as _;

use super::{Looked, Material};
use crate::cli::VaultArgs;

/// How often the issuers are looked at, to trust a new one long before it signs.
const LOOK: Duration = Duration::from_secs(60);

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// First and longest pause between tries at the start.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Where a replica's certificate comes from.
pub(super) struct FromVault {
    vault: Vault,
    request: LeafRequest,
    /// How long the first certificate may take.
    pub init_timeout: Duration,
}

impl FromVault {
    /// By the flags. `request` says what the certificate is to name.
    ///
    /// # Errors
    /// A flag that is missing or cannot be used, by name.
    pub async fn new(args: &VaultArgs, request: LeafRequest) -> anyhow::Result<Self> {
        let settings = settings(args)?;
        if settings.address.starts_with("http://") {
            tracing::warn!("--vault-addr is without TLS: who listens has the token; use https");
        }
        // Reads files.
        let vault = tokio::task::spawn_blocking(move || Vault::new(settings, Dial::tcp())).await??;
        let common_name = match &args.vault_common_name {
            Some(name) if !name.is_empty() => name.clone(),
            _ => request.common_name.clone(),
        };
        let request = LeafRequest { common_name, lifetime: args.vault_ttl, ..request };
        Ok(FromVault { vault, request, init_timeout: args.vault_init_timeout })
    }

    /// How often Vault is asked: a short certificate has to be renewed in time.
    pub fn interval(&self) -> Duration {
        (self.request.lifetime / 12).clamp(Duration::from_secs(1), LOOK)
    }

    /// The first certificate, tried for as long as the start may take.
    pub async fn first(&mut self) -> anyhow::Result<Looked> {
        let begun = tokio::time::Instant::now();
        let mut pause = PAUSE.0;
        let mut before = None;
        loop {
            let left = self.init_timeout.saturating_sub(begun.elapsed());
            let (error, over) = match tokio::time::timeout(left, self.look(None, SystemTime::now())).await {
                Ok(Ok(looked)) => return Ok(looked),
                Ok(Err(error)) => (error, begun.elapsed() + pause >= self.init_timeout),
                Err(_) => {
                    let silent = || anyhow::anyhow!("it has not answered; check --vault-addr");
                    (before.unwrap_or_else(silent), true)
                }
            };
            if over {
                return Err(error.context(format!(
                    "no certificate from Vault within {} s (--vault-init-timeout)",
                    self.init_timeout.as_secs_f32()
                )));
            }
            tracing::warn!(error = format!("{error:#}"), "no certificate from Vault yet, trying again");
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::time::sleep(pause.mul_f64(jitter)).await;
            pause = (pause * 2).min(PAUSE.1);
            before = Some(error);
        }
    }

    /// Asks who is trusted, and for a certificate when it is time or ours is signed by
    /// somebody who is no more.
    pub async fn look(&mut self, held: Option<&Material>, now: SystemTime) -> anyhow::Result<Looked> {
        let Some(held) = held else {
            let (leaf, roots) = self.vault.issue(&self.request, now).await?;
            let material = Material::new(leaf, roots, String::new(), now)?;
            return Ok(Looked { material: Some(material), trouble: None });
        };
        let issuers = self.vault.issuers(now).await?;
        let still_signed = check_leaf("own certificate", &held.leaf, &issuers, Usage::Client, now).is_ok();
        let material = if held.is_due(now) || !still_signed {
            let (leaf, roots) = self.vault.issue(&self.request, now).await?;
            Some(Material::new(leaf, roots, String::new(), now)?)
        } else if issuers.same(&held.roots) {
            None
        } else {
            Some(Material {
                leaf: held.leaf.clone(),
                roots: issuers,
                issuer: String::new(),
                validity: held.validity,
                renew_at: held.renew_at,
            })
        };
        Ok(Looked { material, trouble: None })
    }
}

/// What the flags say.
fn settings(args: &VaultArgs) -> anyhow::Result<VaultSettings> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let address = text(&args.vault_addr).context("--cert-provider vault needs --vault-addr URL")?;
    let auth = match (&args.vault_token, &args.vault_token_file, text(&args.vault_k8s_role)) {
        (Some(token), None, None) => VaultAuth::Token(token.reveal().to_owned()),
        (None, Some(file), None) => VaultAuth::TokenFile(file.clone()),
        (None, None, Some(role)) => VaultAuth::Kubernetes {
            mount: args.vault_k8s_mount.clone(),
            role,
            token_file: args.vault_k8s_token_file.clone(),
        },
        (None, None, None) => anyhow::bail!(
            "--cert-provider vault needs a way to log in: --vault-k8s-role NAME, --vault-token-file FILE or VAULT_TOKEN"
        ),
        _ => anyhow::bail!("--vault-k8s-role, --vault-token-file and VAULT_TOKEN: use one of them"),
    };
    if args.vault_ttl < Duration::from_secs(5) {
        return Err(VaultError::Setting {
            setting: "--vault-ttl",
            problem: "use at least 5s, better hours".to_owned(),
        }
        .into());
    }
    Ok(VaultSettings {
        address,
        namespace: text(&args.vault_namespace),
        ca_file: args.vault_cacert.clone().filter(|path| !path.as_os_str().is_empty()),
        auth,
        mount: args.vault_pki_mount.clone(),
        role: args.vault_pki_role.clone(),
        timeout: REQUEST,
    })
}
