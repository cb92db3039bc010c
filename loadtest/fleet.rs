//! What a scenario runs against: a fleet of its own, or one that is there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use flotilla_certs::{Authority, CertificatePem, TrustRoots};
use flotilla_k8s::client::connect;
use flotilla_testing::fleet as started;
use kube::Client;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::cli;
use crate::client::{Crew, Reading, Target};
use crate::process::Usage;
use crate::tls;

/// Namespace of the gateways.
const GATEWAYS: &str = "loadtest";

/// A fleet to be measured.
pub struct Fleet {
    client: Client,
    operators: Arc<Vec<SocketAddr>>,
    server: ServerName<'static>,
    credentials: Credentials,
    own: Option<started::Fleet>,
}

enum Credentials {
    /// One certificate for each.
    Issued(Box<Authority>),
    /// The same for all.
    Shared(Arc<ClientConfig>),
}

impl Fleet {
    /// Starts what is to be started, or connects to what is there.
    pub async fn open(args: &cli::Fleet) -> anyhow::Result<Fleet> {
        let server = ServerName::try_from(args.server_name.clone()).context("--server-name")?;
        let Some(kubeconfig) = &args.kubeconfig else {
            return Self::start(args.start, server).await;
        };
        let ca = args.ca.as_ref().context("--ca FILE is needed with --kubeconfig")?;
        let roots = TrustRoots::read(ca)?;
        let leaf = match (&args.cert, &args.key, args.no_client_cert) {
            (Some(cert), Some(key), _) => Some(CertificatePem::read(cert, key)?),
            (None, None, true) => None,
            _ => anyhow::bail!("--cert FILE --key FILE, or --no-client-cert, is needed with --kubeconfig"),
        };
        Ok(Fleet {
            client: connect(Some(kubeconfig)).await?.objects,
            operators: Arc::new(args.operators.clone()),
            server,
            credentials: Credentials::Shared(tls::client(&roots, leaf.as_ref())?),
            own: None,
        })
    }

    async fn start(start: cli::Start, server: ServerName<'static>) -> anyhow::Result<Fleet> {
        // This binary also is the one that replicas run: see `main`.
        let program = std::env::current_exe()?;
        let mut own = started::Fleet::start(&program, start.api)
            .await
            .context("there is no real kube-apiserver on this machine: run tests/kube/build.sh")?;
        own.add_replicas(start.replicas).await;
        let operators = own.operators().iter().map(|one| one.parse()).collect::<Result<Vec<_>, _>>()?;
        Ok(Fleet {
            client: own.client(),
            operators: Arc::new(operators),
            server,
            credentials: Credentials::Issued(Box::new(own.authority().await)),
            own: Some(own),
        })
    }

    /// A client of an administrator.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Starts so many gateways that read freely; they begin with the replicas in turn.
    pub fn start_gateways(&self, crew: &mut Crew, count: u32) -> anyhow::Result<()> {
        self.start_readers(crew, "gateway", count, Reading::Freely)
    }

    /// Starts so many gateways that read as they are told to.
    pub fn start_readers(
        &self,
        crew: &mut Crew,
        prefix: &str,
        count: u32,
        reading: Reading,
    ) -> anyhow::Result<()> {
        for number in 0..count {
            let name = format!("{prefix}-{number:04}");
            let tls = match &self.credentials {
                Credentials::Issued(authority) => tls::gateway(authority, GATEWAYS, &name)?,
                Credentials::Shared(config) => config.clone(),
            };
            let target = Target { operators: self.operators.clone(), server: self.server.clone(), tls };
            crew.start(GATEWAYS, &name, target, reading);
        }
        Ok(())
    }

    /// What the replicas have used so far; nothing is known of another's.
    pub fn usage(&mut self) -> anyhow::Result<Vec<Usage>> {
        let replicas = self.own.iter_mut().flat_map(|own| &mut own.replicas);
        replicas
            .filter(|replica| replica.runs())
            .filter_map(|replica| replica.process().id())
            .map(Usage::of)
            .collect()
    }
}
