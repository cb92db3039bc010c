//! `flotilla certs`: certificates for gateways and tools, and another CA.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_certs::{
    Authorities, Authority, CertificatePem, Identity, IdentityError, LeafRequest, Rotation, Step,
};
use flotilla_k8s::ca::{self, StoredCa};
use kube::Client;

use super::CaSecret;
use super::selfsigned::{self, AUTHORITY};
use crate::cli::{CaArgs, CertsArgs, CertsCommand, LeafCertArgs, RotateArgs};

/// The certificate of a gateway or a tool, and what it needs to believe the replicas.
pub struct LeafMaterial {
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
) -> anyhow::Result<LeafMaterial> {
    material(authority, Identity::gateway(trust_domain, namespace, name), LeafRequest::gateway)
}

fn material(
    authority: &Authority,
    identity: Result<Identity, IdentityError>,
    request: fn(Identity) -> LeafRequest,
) -> anyhow::Result<LeafMaterial> {
    let identity = identity.context("--namespace, --name or --trust-domain cannot stand in a certificate")?;
    let leaf = authority.issue_leaf(&request(identity), SystemTime::now())?;
    Ok(LeafMaterial { ca: authority.roots().pem().to_owned(), leaf })
}

/// Writes such material into a folder; the key is readable by its owner
/// only. Blocks.
///
/// # Errors
/// When the folder or a file cannot be written.
pub fn write_material(folder: &Path, material: &LeafMaterial) -> anyhow::Result<()> {
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
    match args.command {
        CertsCommand::Gateway(args) => issue(args, Identity::gateway, LeafRequest::gateway).await?,
        CertsCommand::Tool(args) => issue(args, Identity::tool, LeafRequest::tool).await?,
        CertsCommand::Rotate(args) => rotate(args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is stored. Never made here: a mistyped name would issue what no replica
/// believes.
async fn stored(args: CaArgs) -> anyhow::Result<(Client, CaSecret, StoredCa)> {
    let client = flotilla_k8s::client::connect(args.kubeconfig.as_deref()).await?.objects;
    let secret = CaSecret { namespace: args.cert_namespace, name: args.ca_secret };
    let found = ca::get(&client, &secret.namespace, &secret.name).await.with_context(|| {
        format!("no CA in {secret}: the first replica makes it; check --cert-namespace and --ca-secret")
    })?;
    Ok((client, secret, found))
}

async fn issue(
    args: LeafCertArgs,
    identity: fn(&str, &str, &str) -> Result<Identity, IdentityError>,
    request: fn(Identity) -> LeafRequest,
) -> anyhow::Result<()> {
    let (_, secret, found) = stored(args.ca).await?;
    let authority = selfsigned::signer(&secret, found.pem)?;
    let identity = identity(&args.trust_domain, &args.namespace, &args.name);
    let material = material(&authority, identity, request)?;
    tokio::task::spawn_blocking(move || write_material(&args.out, &material)).await?
}

/// Announces the next CA now. The replicas make it the signer after the overlap.
async fn rotate(args: RotateArgs) -> anyhow::Result<()> {
    let (client, secret, found) = stored(args.ca).await?;
    let said = announce(&client, &secret, &found, args.ca_lifetime, SystemTime::now()).await?;
    writeln!(std::io::stdout().lock(), "{secret}: {said}")?;
    Ok(())
}

/// Has the next CA trusted, unless one is already, and says so.
async fn announce(
    client: &Client,
    secret: &CaSecret,
    found: &StoredCa,
    lifetime: Duration,
    now: SystemTime,
) -> anyhow::Result<&'static str> {
    let authorities = Authorities::read(&secret.to_string(), selfsigned::stored(found.pem.clone()), now)?;
    if authorities.stored().next.is_some() {
        return Ok(
            "the next CA is announced already; replicas trust it, and let it sign after their --ca-overlap",
        );
    }
    selfsigned::shared_time(client, now).await?;
    let rotation = Rotation { lifetime, ..Rotation::default() };
    let next = authorities.after(Step::Announce, AUTHORITY, rotation, now)?;
    ca::replace(client, found, selfsigned::pem(next)).await?;
    Ok(
        "the next CA is announced: replicas trust it within a minute, and let it sign after their --ca-overlap",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_next_ca_is_not_announced_by_a_clock_that_the_api_server_does_not_share() {
        let (server, client, secret, found) = selfsigned::tests::server(1).await;
        let year = Duration::from_secs(365 * 24 * 3600);
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        for wrong in [now + hour, now - hour] {
            let refused = announce(&client, &secret, &found, year, wrong).await.unwrap_err();
            assert!(format!("{refused:#}").contains("set the clock"), "{refused:#}");
            let stored = ca::get(&client, &secret.namespace, &secret.name).await.unwrap();
            assert!(stored.pem.next.is_none());
        }
        assert!(announce(&client, &secret, &found, year, now).await.unwrap().contains("is announced:"));
        let stored = ca::get(&client, &secret.namespace, &secret.name).await.unwrap();
        let again = announce(&client, &secret, &stored, year, now).await.unwrap();
        assert!(again.contains("announced already"), "{again}");
        server.server.shutdown().await;
    }

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
