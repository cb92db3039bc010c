//! What a scenario runs against: a fleet of its own, or one that is there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

/// A replica that was told to end is gone by then.
const LEAVING: Duration = Duration::from_secs(60);

/// Namespace of the gateways.
const GATEWAYS: &str = "loadtest";

/// A fleet to be measured.
pub struct Fleet {
    client: Client,
    operators: Arc<Vec<SocketAddr>>,
    server: ServerName<'static>,
    credentials: Credentials,
    own: Option<started::Fleet>,
    /// How many gateways start elsewhere than with the first replica; by default
    /// they start with all in turn.
    pub elsewhere: Option<usize>,
    /// What processes had used that were ended since, if any was.
    ended: Option<Usage>,
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
            elsewhere: None,
            ended: None,
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
            elsewhere: None,
            ended: None,
        })
    }

    /// A client of an administrator.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The file by which others connect to the API server.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let own = self.own.as_ref().context("this scenario starts its own API server: use --start")?;
        Ok(own.server.kubeconfig(own.path(), 0))
    }

    /// Ports of all replicas for webhooks, and whom to believe.
    pub fn webhooks(&self) -> anyhow::Result<(Vec<u16>, TrustRoots)> {
        let (Some(own), Credentials::Issued(authority)) = (&self.own, &self.credentials) else {
            anyhow::bail!(
                "admission is measured with --start only: nobody says where another's webhooks are"
            );
        };
        Ok((own.replicas.iter().map(|replica| replica.webhooks).collect(), authority.roots().clone()))
    }

    /// Starts so many gateways that read as they are told to; they begin with the
    /// replicas in turn.
    pub fn start_readers(
        &self,
        crew: &mut Crew,
        prefix: &str,
        count: u32,
        reading: Reading,
    ) -> anyhow::Result<()> {
        (0..count).try_for_each(|number| self.start_reader(crew, &format!("{prefix}-{number:04}"), reading))
    }

    /// Starts one gateway of this name.
    pub fn start_reader(&self, crew: &mut Crew, name: &str, reading: Reading) -> anyhow::Result<()> {
        let tls = match &self.credentials {
            Credentials::Issued(authority) => tls::gateway(authority, GATEWAYS, name)?,
            Credentials::Shared(config) => config.clone(),
        };
        let number = crew.len();
        let first = match self.elsewhere {
            None => number,
            Some(few) if number < few => 1 + number % (self.operators.len() - 1).max(1),
            Some(_) => 0,
        };
        let target = Target { operators: self.operators.clone(), first, server: self.server.clone(), tls };
        crew.start(GATEWAYS, name, target, reading);
        Ok(())
    }

    /// What all replicas together have used so far, also those that were ended;
    /// nothing is known of another's.
    pub fn usage(&mut self) -> anyhow::Result<Usage> {
        let mut sum = self.ended.unwrap_or_default();
        for usage in self.usage_by_replica()? {
            sum.add(&usage);
        }
        Ok(sum)
    }

    /// What each replica that runs has used since its start.
    pub fn usage_by_replica(&mut self) -> anyhow::Result<Vec<Usage>> {
        let replicas = self.own.iter_mut().flat_map(|own| &mut own.replicas);
        replicas
            .filter(|replica| replica.runs())
            .filter_map(|replica| replica.process().id())
            .map(Usage::of)
            .collect()
    }

    /// How many replicas there are.
    pub fn replicas(&self) -> usize {
        self.own.as_ref().map_or(self.operators.len(), |own| own.replicas.len())
    }

    fn own(&mut self) -> anyhow::Result<&mut started::Fleet> {
        self.own.as_mut().context("this scenario ends replicas: let it start them itself, with --start")
    }

    /// Ends a replica: by SIGKILL, or by SIGTERM and its own will.
    pub async fn end(&mut self, index: usize, how: Ending) -> anyhow::Result<()> {
        let replica = &mut self.own()?.replicas[index];
        // What it uses while it leaves is not seen.
        let used = replica.process().id().map(Usage::of).transpose()?.unwrap_or_default();
        match how {
            Ending::Kill => replica.kill().await,
            Ending::Term => {
                replica.terminate();
                replica.ended(LEAVING).await;
            }
        }
        let ended = Usage { rss: 0, peak_rss: 0, descriptors: 0, ..used };
        self.ended.get_or_insert_default().add(&ended);
        Ok(())
    }

    /// Starts a replica that was ended, and waits until it serves.
    pub async fn start_again(&mut self, index: usize) -> anyhow::Result<()> {
        let replica = &mut self.own()?.replicas[index];
        replica.start();
        replica.ready().await;
        Ok(())
    }

    /// The sum of a counter over all replicas; `None` when it is not known: for
    /// another's, and when replicas were ended, which take their counters along.
    pub async fn counter(&self, name: &str, label: &str) -> Option<f64> {
        match self.ended {
            None => Some(self.metric_by_replica(name, label).await?.into_iter().sum()),
            Some(_) => None,
        }
    }

    /// A metric of each replica that runs; `None` for another's.
    pub async fn metric_by_replica(&self, name: &str, label: &str) -> Option<Vec<f64>> {
        let running = self.own.as_ref()?.replicas.iter().filter(|replica| replica.runs());
        let each = futures::future::join_all(running.map(|replica| replica.metric(name, label))).await;
        Some(each.into_iter().map(Result::unwrap_or_default).collect())
    }
}

/// How a replica ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// SIGKILL
    Kill,
    /// SIGTERM
    Term,
}
