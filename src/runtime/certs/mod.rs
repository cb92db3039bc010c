//! Certificates in a running fleet: where they come from, what a replica's own
//! certificate says, and keeping it.
//!
//! There are three sources ([`CertProvider`]). Each is *looked at* again and again; a
//! look that finds something else makes it the TLS of all connections to come. Those
//! that are open stay open. A look that fails changes nothing: it is counted, said once
//! by an event, and repeated after a growing pause.

mod issue;
mod keep;
mod selfsigned;
mod vault;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_certs::{
    Alpn, CertificatePem, ClientAuth, ClientTls, Identity, LeafRequest, Rotation, ServerCheck, ServerTls,
    TrustRoots, Validity, check_folder, read_folder,
};
use kube::Client;
use rand::Rng as _;
use tokio::sync::watch;

pub use issue::{gateway_material, run, write_material};
pub use keep::{Keeping, Metrics};
use selfsigned::SelfSigned;
pub use selfsigned::authority;
use vault::FromVault;

use crate::cli::{CertProvider, ControllerArgs};

/// How often files are read. A kubelet takes about a minute to bring them.
const READ_FILES: Duration = Duration::from_secs(5);

/// Renewals are spread over this share of a certificate's life, so that replicas do
/// not all ask at once.
const SPREAD: f64 = 0.05;

/// Where the CA's Secret is.
#[derive(Debug, Clone)]
pub struct CaSecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for CaSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret {}/{}", self.namespace, self.name)
    }
}

/// A certificate in use, and who is trusted with it.
pub struct Material {
    leaf: CertificatePem,
    roots: TrustRoots,
    /// The signer, where that is known.
    issuer: String,
    validity: Validity,
    renew_at: SystemTime,
}

impl Material {
    fn new(
        leaf: CertificatePem,
        roots: TrustRoots,
        issuer: String,
        now: SystemTime,
    ) -> anyhow::Result<Material> {
        let validity = leaf.validity("own certificate")?;
        let at = validity.renew_at(now);
        let early = at.duration_since(now).unwrap_or_default().mul_f64(rand::rng().random_range(0.0..SPREAD));
        Ok(Material { leaf, roots, issuer, validity, renew_at: at - early })
    }

    fn is_due(&self, now: SystemTime) -> bool {
        now >= self.renew_at
    }
}

/// What a look found.
struct Looked {
    /// What is to be used from now on; `None` when that is what is used already.
    material: Option<Material>,
    /// What went wrong all the same.
    trouble: Option<anyhow::Error>,
}

/// A replica's TLS: what it serves gateways, peers and API servers with, and what
/// it dials peers with.
#[derive(Clone)]
pub struct ReplicaTls {
    /// For serving gateways.
    pub gateways: ServerTls,
    /// For serving peers.
    pub peers: ServerTls,
    /// For webhooks.
    pub webhooks: ServerTls,
    /// For dialling peers.
    pub client: ClientTls,
    /// For dialling gateways that listen.
    pub listeners: ClientTls,
    /// The certificates that show who we are, as PEM: for API servers.
    pub trusted: watch::Sender<Arc<str>>,
}

impl ReplicaTls {
    fn new(material: &Material, trust_domain: &str, of_gateways: ClientAuth) -> anyhow::Result<ReplicaTls> {
        let Material { leaf, roots, .. } = material;
        let gateways = ServerTls::new(leaf, roots, of_gateways, Alpn::H2)?;
        let peers = ServerTls::new(leaf, roots, ClientAuth::Required, Alpn::H2)?;
        // API servers ask over HTTP/1.1, and who asks does not matter.
        let webhooks = ServerTls::new(leaf, roots, ClientAuth::Nobody, Alpn::Http1)?;
        // Peers are known by the identity in their certificate, not by the
        // address of a pod.
        let check = ServerCheck::Controller { trust_domain: trust_domain.into() };
        let client = ClientTls::new(Some(leaf), roots, check, Alpn::H2)?;
        let check = ServerCheck::Gateway { trust_domain: trust_domain.into() };
        let listeners = ClientTls::new(Some(leaf), roots, check, Alpn::H2)?;
        let trusted = watch::Sender::new(roots.pem().into());
        Ok(ReplicaTls { gateways, peers, webhooks, client, listeners, trusted })
    }

    /// Who is trusted is told before anybody meets the new certificate.
    fn swap(&self, material: &Material) -> anyhow::Result<()> {
        let Material { leaf, roots, .. } = material;
        self.trusted.send_if_modified(|trusted| {
            let differs = **trusted != *roots.pem();
            *trusted = roots.pem().into();
            differs
        });
        self.gateways.swap(leaf, roots)?;
        self.peers.swap(leaf, roots)?;
        self.webhooks.swap(leaf, roots)?;
        self.client.swap(Some(leaf), roots)?;
        self.listeners.swap(Some(leaf), roots)?;
        Ok(())
    }
}

/// A replica's certificate: where it comes from, and in which trust domain.
pub struct Source {
    origin: Origin,
    trust_domain: Arc<str>,
    of_gateways: ClientAuth,
    client: Client,
    namespace: String,
    member: String,
}

enum Origin {
    /// Signed by the fleet's CA in a Secret.
    SelfSigned(Box<SelfSigned>),
    /// Signed by a Vault.
    Vault(Box<FromVault>),
    /// Files that somebody else keeps up to date.
    Files {
        folder: PathBuf,
        /// What the certificate must say.
        wanted: Box<LeafRequest>,
    },
}

impl Source {
    /// By the flags of a controller.
    ///
    /// # Errors
    /// When a name does not fit into an identity, or a flag is missing.
    pub async fn new(args: &ControllerArgs, member: &str, client: Client) -> anyhow::Result<Self> {
        let origin = match args.cert_provider {
            CertProvider::Files => {
                let folder = args.cert_dir.clone().context("--cert-provider files needs --cert-dir DIR")?;
                Origin::Files { folder, wanted: Box::new(reached(request(args, member)?)) }
            }
            CertProvider::Vault => {
                Origin::Vault(Box::new(FromVault::new(&args.vault, request(args, member)?).await?))
            }
            CertProvider::Selfsigned => Origin::SelfSigned(Box::new(SelfSigned {
                client: client.clone(),
                secret: CaSecret { namespace: args.cert_namespace.clone(), name: args.ca_secret.clone() },
                rotation: rotation(args.ca_lifetime, args.ca_overlap)?,
                request: LeafRequest { lifetime: args.cert_lifetime, ..request(args, member)? },
                held: None,
            })),
        };
        Ok(Source {
            origin,
            trust_domain: args.trust_domain.as_str().into(),
            of_gateways: match args.require_client_certificate {
                true => ClientAuth::Required,
                false => ClientAuth::Optional,
            },
            client,
            namespace: args.cert_namespace.clone(),
            member: member.to_owned(),
        })
    }

    /// How long [`Source::open`] may take by itself, besides what the API server takes.
    pub fn patience(&self) -> Duration {
        match &self.origin {
            Origin::Vault(vault) => vault.init_timeout,
            Origin::SelfSigned(_) | Origin::Files { .. } => Duration::ZERO,
        }
    }

    /// How often the source is looked at.
    fn interval(&self) -> Duration {
        match &self.origin {
            Origin::SelfSigned(own) => own.interval(),
            Origin::Vault(vault) => vault.interval(),
            Origin::Files { .. } => READ_FILES,
        }
    }

    /// Looks at the source.
    async fn look(&mut self, held: Option<&Material>, now: SystemTime) -> anyhow::Result<Looked> {
        match &mut self.origin {
            Origin::SelfSigned(own) => own.look(held, now).await,
            Origin::Vault(vault) => vault.look(held, now).await,
            Origin::Files { folder, wanted } => {
                let (place, wanted) = (folder.clone(), wanted.clone());
                let read = tokio::task::spawn_blocking(move || {
                    let (leaf, roots) = read_folder(&place)?;
                    check_folder(&place, &leaf, &roots, &wanted, now)?;
                    anyhow::Ok((leaf, roots))
                });
                let (leaf, roots) = read.await?.context("--cert-dir")?;
                let overdue = now >= leaf.validity("tls.crt")?.overdue_at();
                let trouble = overdue.then(|| {
                    anyhow::anyhow!(
                        "--cert-dir: nobody has renewed {}/tls.crt, and its end is near; see to whoever writes it",
                        folder.display()
                    )
                });
                let same = |held: &&Material| {
                    held.leaf.certificate == leaf.certificate
                        && held.leaf.private_key == leaf.private_key
                        && held.roots.pem() == roots.pem()
                };
                let material = match held.filter(same) {
                    Some(_) => None,
                    None => Some(Material::new(leaf, roots, String::new(), now)?),
                };
                Ok(Looked { material, trouble })
            }
        }
    }

    /// Makes a replica's TLS.
    ///
    /// # Errors
    /// When certificates cannot be had or used.
    pub async fn open(&mut self) -> anyhow::Result<(ReplicaTls, Material)> {
        let now = SystemTime::now();
        let looked = match &mut self.origin {
            Origin::Vault(vault) => vault.first().await?,
            Origin::SelfSigned(_) | Origin::Files { .. } => self.look(None, now).await?,
        };
        if let Some(trouble) = looked.trouble {
            tracing::warn!(error = format!("{trouble:#}"), "certificates are not kept as they should be");
        }
        let material = looked.material.context("the source of certificates gave none")?;
        Ok((ReplicaTls::new(&material, &self.trust_domain, self.of_gateways)?, material))
    }
}

/// What a replica's certificate is to say.
fn request(args: &ControllerArgs, member: &str) -> anyhow::Result<LeafRequest> {
    let identity = Identity::controller(&args.trust_domain, &args.cert_namespace, member)
        .context("--member-name, --cert-namespace or --trust-domain cannot stand in a certificate")?;
    let service = &args.cert_service_name;
    let mut names = vec![
        "localhost".to_owned(),
        service.clone(),
        format!("{service}.{}", args.cert_namespace),
        format!("{service}.{}.svc", args.cert_namespace),
        format!("{service}.{}.svc.cluster.local", args.cert_namespace),
    ];
    names.extend(args.cert_dns_names.iter().filter(|name| !name.is_empty()).cloned());
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    addresses.extend(args.pod_ip);
    if !args.bind_address.is_unspecified() && !addresses.contains(&args.bind_address) {
        addresses.push(args.bind_address);
    }
    Ok(LeafRequest::controller(identity, names, addresses))
}

/// Of what a replica would ask for, that by which others reach it: a certificate of
/// somebody else's names neither this machine nor the addresses of a pod.
fn reached(request: LeafRequest) -> LeafRequest {
    let mut request = LeafRequest { ip_addresses: Vec::new(), ..request };
    request.dns_names.retain(|name| name != "localhost");
    request
}

/// How the CA is rotated, if the flags go together.
fn rotation(lifetime: Duration, overlap: Duration) -> anyhow::Result<Rotation> {
    let rotation = Rotation { lifetime, overlap };
    let longest = rotation.longest_overlap();
    anyhow::ensure!(
        overlap <= longest,
        "--ca-overlap {}s is too long for --ca-lifetime {}s: the next CA is announced when a third of that is left, \
         and signs half-way to the end at the latest; use --ca-overlap {}s at most, or --ca-lifetime {}s at least",
        overlap.as_secs_f64(),
        lifetime.as_secs_f64(),
        longest.as_secs(),
        overlap.saturating_mul(6).as_secs_f64().ceil()
    );
    Ok(rotation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_that_would_be_cut_is_refused_by_both_flags_and_remedy() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let standard = Rotation::default();
        assert_eq!(rotation(standard.lifetime, standard.overlap).unwrap(), standard);
        rotation(hours(6), hours(1)).unwrap();
        let text = rotation(hours(6), hours(2)).unwrap_err().to_string();
        for word in ["--ca-overlap 7200s", "--ca-lifetime 21600s", "3600s at most", "43200s at least"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
