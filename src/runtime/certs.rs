//! Certificates in a running fleet: where the CA is, what a replica's own
//! certificate says, when both are renewed, and `flotilla certs`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_certs::{
    Alpn, Authority, CertificatePem, ClientAuth, ClientTls, Identity, LeafRequest, ServerCheck, ServerTls,
    TrustRoots, Usage, check_leaf,
};
use flotilla_k8s::ca::{self, CaPem};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::cli::{CertProvider, CertsArgs, CertsCommand, ControllerArgs, GatewayCertArgs};

/// Common name of the fleet's CA.
const AUTHORITY: &str = "flotilla";

/// Where the CA's Secret is.
#[derive(Debug, Clone)]
pub struct CaSecret {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Takes up the CA from its Secret, or makes and stores it. However many
/// replicas do this at once, all get the same.
///
/// # Errors
/// When the API server refuses, or what is stored cannot be used.
pub async fn authority(client: &Client, secret: &CaSecret) -> anyhow::Result<Authority> {
    let make = || {
        let made = Authority::generate(AUTHORITY, SystemTime::now());
        let pem = made.map_err(|error| flotilla_k8s::Error::Permanent {
            what: "make a certificate authority".to_owned(),
            message: error.to_string(),
        })?;
        Ok(CaPem { certificate: pem.pem().certificate.clone(), private_key: pem.pem().private_key.clone() })
    };
    take_up(secret, ca::get_or_create(client, &secret.namespace, &secret.name, make).await?)
}

fn take_up(secret: &CaSecret, stored: CaPem) -> anyhow::Result<Authority> {
    let pem = CertificatePem { certificate: stored.certificate, private_key: stored.private_key };
    let what = format!("Secret {}/{}", secret.namespace, secret.name);
    Ok(Authority::from_pem(&what, pem, SystemTime::now())?)
}

/// A replica's TLS: what it serves gateways, peers and API servers with, and what
/// it dials peers with.
#[derive(Clone)]
pub struct ReplicaTls {
    /// For both gRPC servers.
    pub server: ServerTls,
    /// For webhooks.
    pub webhooks: ServerTls,
    /// For dialling peers.
    pub client: ClientTls,
    /// The certificates that show who we are, as PEM: for API servers.
    pub trusted: watch::Sender<Arc<str>>,
}

/// A replica's certificate: where it comes from, and in which trust domain.
pub struct Source {
    origin: Origin,
    trust_domain: std::sync::Arc<str>,
}

enum Origin {
    /// Signed by the fleet's CA in a Secret.
    Authority(Client, CaSecret, Box<LeafRequest>),
    /// Files that somebody else keeps up to date.
    Files(std::path::PathBuf),
}

impl Source {
    /// By the flags of a controller.
    ///
    /// # Errors
    /// When a name does not fit into an identity, or a flag is missing.
    pub fn new(args: &ControllerArgs, member: &str, client: Client) -> anyhow::Result<Self> {
        if args.cert_provider == CertProvider::Files {
            let folder = args.cert_dir.clone().context("--cert-provider files needs --cert-dir DIR")?;
            return Ok(Source {
                origin: Origin::Files(folder),
                trust_domain: args.trust_domain.as_str().into(),
            });
        }
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
        let request = LeafRequest::controller(identity, names, addresses);
        let secret = CaSecret { namespace: args.cert_namespace.clone(), name: args.ca_secret.clone() };
        let origin = Origin::Authority(client, secret, Box::new(request));
        Ok(Source { origin, trust_domain: args.trust_domain.as_str().into() })
    }

    async fn material(&self) -> anyhow::Result<(CertificatePem, TrustRoots)> {
        match &self.origin {
            Origin::Authority(client, secret, request) => {
                let authority = authority(client, secret).await?;
                let leaf = authority.issue_leaf(request, SystemTime::now())?;
                Ok((leaf, authority.roots().clone()))
            }
            Origin::Files(folder) => {
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || files(&folder)).await?
            }
        }
    }

    /// Makes a replica's TLS and says when to renew it.
    ///
    /// # Errors
    /// When certificates cannot be had or used.
    pub async fn open(&self) -> anyhow::Result<(ReplicaTls, SystemTime)> {
        let (leaf, roots) = self.material().await?;
        let server = ServerTls::new(&leaf, &roots, ClientAuth::Required, Alpn::H2)?;
        // API servers ask over HTTP/1.1, and who asks does not matter.
        let webhooks = ServerTls::new(&leaf, &roots, ClientAuth::Nobody, Alpn::Http1)?;
        // Peers are known by the identity in their certificate, not by the
        // address of a pod.
        let check = ServerCheck::Controller { trust_domain: self.trust_domain.clone() };
        let client = ClientTls::new(Some(&leaf), &roots, check, Alpn::H2)?;
        let renew_at = leaf.validity("own certificate")?.renew_at();
        let trusted = watch::Sender::new(roots.pem().into());
        Ok((ReplicaTls { server, webhooks, client, trusted }, renew_at))
    }

    /// Renews until cancelled. Connections that are open stay open; a failure
    /// keeps the certificate in use and is tried again.
    pub async fn renew(self, tls: ReplicaTls, mut at: SystemTime, cancel: CancellationToken) {
        loop {
            let wait = match &self.origin {
                // Whoever writes the files decides when.
                Origin::Files(_) => Duration::from_secs(30),
                Origin::Authority(..) => at.duration_since(SystemTime::now()).unwrap_or_default(),
            };
            tokio::select! {
                biased; // ending needs no certificate
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait.max(Duration::from_secs(10))) => {}
            }
            match self.swap(&tls).await {
                Ok(next) => at = next,
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "certificate cannot be renewed, the old one stays"
                    );
                }
            }
        }
    }

    async fn swap(&self, tls: &ReplicaTls) -> anyhow::Result<SystemTime> {
        let (leaf, roots) = self.material().await?;
        tls.server.swap(&leaf, &roots)?;
        tls.webhooks.swap(&leaf, &roots)?;
        tls.client.swap(Some(&leaf), &roots)?;
        tls.trusted.send_if_modified(|trusted| {
            let differs = **trusted != *roots.pem();
            *trusted = roots.pem().into();
            differs
        });
        Ok(leaf.validity("own certificate")?.renew_at())
    }
}

/// Reads `ca.crt`, `tls.crt` and `tls.key`, and checks that they belong
/// together.
fn files(folder: &Path) -> anyhow::Result<(CertificatePem, TrustRoots)> {
    let roots = TrustRoots::read(&folder.join("ca.crt"))?;
    let pem = CertificatePem::read(&folder.join("tls.crt"), &folder.join("tls.key"))?;
    for usage in [Usage::Server, Usage::Client] {
        check_leaf(&folder.join("tls.crt").display().to_string(), &pem, &roots, usage, SystemTime::now())?;
    }
    Ok((pem, roots))
}

/// A gateway's certificate and what it needs to believe the replicas.
pub struct GatewayMaterial {
    /// The CA's certificate.
    pub ca: String,
    /// Certificate and key.
    pub leaf: CertificatePem,
}

/// Issues a gateway's certificate.
///
/// # Errors
/// When a name does not fit into an identity.
pub fn gateway_material(
    authority: &Authority,
    trust_domain: &str,
    namespace: &str,
    name: &str,
) -> anyhow::Result<GatewayMaterial> {
    let identity = Identity::gateway(trust_domain, namespace, name)
        .context("--namespace, --name or --trust-domain cannot stand in a certificate")?;
    let leaf = authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now())?;
    Ok(GatewayMaterial { ca: authority.roots().pem().to_owned(), leaf })
}

/// Writes a gateway's material into a folder; the key is readable by its owner
/// only. Blocks.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn write_material(folder: &Path, material: &GatewayMaterial) -> anyhow::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
    for (name, text, mode) in [
        ("ca.crt", &material.ca, 0o644),
        ("tls.crt", &material.leaf.certificate, 0o644),
        ("tls.key", &material.leaf.private_key, 0o600),
    ] {
        let path = folder.join(name);
        let write = || -> std::io::Result<()> {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.create(true).write(true).truncate(true).mode(mode).open(&path)?;
            // A file that was there before keeps its mode otherwise.
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.write_all(text.as_bytes())
        };
        write().with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

/// Runs `flotilla certs`.
///
/// # Errors
/// What went wrong, with context.
pub async fn run(args: CertsArgs) -> anyhow::Result<ExitCode> {
    let CertsCommand::Gateway(args) = args.command;
    issue_gateway(args).await?;
    Ok(ExitCode::SUCCESS)
}

async fn issue_gateway(args: GatewayCertArgs) -> anyhow::Result<()> {
    let clients = flotilla_k8s::client::connect(args.kubeconfig.as_deref()).await?;
    let secret = CaSecret { namespace: args.cert_namespace, name: args.ca_secret };
    // Never made here: a mistyped name would issue what no replica believes.
    let stored = ca::get(&clients.objects, &secret.namespace, &secret.name).await.with_context(|| {
        format!(
            "no CA in Secret {}/{}: the first replica makes it; check --cert-namespace and --ca-secret",
            secret.namespace, secret.name
        )
    })?;
    let authority = take_up(&secret, stored)?;
    let material = gateway_material(&authority, &args.trust_domain, &args.namespace, &args.name)?;
    tokio::task::spawn_blocking(move || write_material(&args.out, &material)).await?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_its_owners_even_where_a_readable_file_was() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("tls.key");
        std::fs::write(&key, "old").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
        let authority = Authority::generate("test", SystemTime::now()).unwrap();
        let material = gateway_material(&authority, "cluster.local", "gateways", "g").unwrap();
        write_material(folder.path(), &material).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(&key).unwrap(), material.leaf.private_key);
    }
}
