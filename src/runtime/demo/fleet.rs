//! The demo's processes as one fleet: API server, replicas, gateways.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};
use flotilla_k8s::client::{Clients, connect};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep};

use super::processes::{Ports, Process, wait_for_file};
use crate::certs::{CaSecret, authority, gateway_material, write_material};
use crate::cli::DemoArgs;
use crate::gateway::Addresses;

/// Where the demo's replicas keep Leases and the CA: a namespace of its own, so
/// that nothing of it is left when the namespace is deleted.
pub const SYSTEM_NAMESPACE: &str = "flotilla-demo";
const CA_SECRET: &str = "flotilla-ca";
const TRUST_DOMAIN: &str = "cluster.local";
const START: Duration = Duration::from_secs(60);

/// One replica's process and ports.
pub struct Replica {
    /// Its member name.
    pub name: String,
    /// Its process; `None` while it is dead.
    pub process: Option<Process>,
    /// For gateways.
    pub grpc: u16,
    /// `/metrics`
    pub metrics: SocketAddr,
    peer: u16,
    probe: u16,
}

/// One gateway's process and ports.
pub struct Gateway {
    /// `namespace/name`
    pub name: String,
    process: Process,
    /// Where it is asked about itself.
    pub addresses: Addresses,
}

/// Everything that runs.
pub struct Fleet {
    /// Logs, certificates, kubeconfig.
    pub folder: tempfile::TempDir,
    /// For `kubectl`.
    pub kubeconfig: PathBuf,
    /// For the demo itself.
    pub clients: Clients,
    /// The replicas.
    pub replicas: Vec<Replica>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// Where the replicas listen.
    ports: Option<Ports>,
    apiserver: Option<Process>,
    /// Namespaces that the demo created, to be deleted from a cluster that is
    /// not the demo's own.
    created: Vec<String>,
}

impl Fleet {
    /// The API server, if none is given, and the definitions.
    pub async fn prepare(args: &DemoArgs) -> anyhow::Result<Fleet> {
        let folder = tempfile::Builder::new().prefix("flotilla-demo-").tempdir()?;
        let (kubeconfig, apiserver) = match &args.kubeconfig {
            Some(file) => (file.clone(), None),
            None => {
                let file = folder.path().join("kubeconfig");
                let path = file.display().to_string();
                let arguments = ["apiserver".to_owned(), "--kubeconfig-out".to_owned(), path];
                let mut process = Process::start(folder.path(), "apiserver", &arguments)?;
                wait_for_file(&file, &mut process, START).await?;
                (file, Some(process))
            }
        };
        let clients = connect(Some(&kubeconfig)).await?;
        flotilla_k8s::crd::install(&clients.objects, &flotilla_api::crd::crds(), START).await?;
        // There is one map per cluster: two fleets would take turns with it.
        let map = Api::<ShardMap>::all(clients.objects.clone()).get_opt(SHARD_MAP_NAME).await?;
        anyhow::ensure!(
            map.is_none(),
            "this cluster has a shard map, so a fleet is or was at work in it; use another cluster, or, if no \
             replica runs any more, `kubectl delete shardmap {SHARD_MAP_NAME}`"
        );
        Ok(Fleet {
            folder,
            kubeconfig,
            clients,
            replicas: Vec::new(),
            gateways: Vec::new(),
            ports: None,
            apiserver,
            created: Vec::new(),
        })
    }

    /// Creates namespaces that are not there yet.
    pub async fn create_namespaces(&mut self, names: &[String]) -> anyhow::Result<()> {
        let api = Api::<Namespace>::all(self.clients.objects.clone());
        for name in names {
            let namespace = Namespace {
                metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                ..Namespace::default()
            };
            match api.create(&PostParams::default(), &namespace).await {
                Ok(_) => self.created.push(name.clone()),
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => return Err(error).with_context(|| format!("namespace {name}")),
            }
        }
        Ok(())
    }

    /// Starts `count` replicas.
    pub async fn start_replicas(&mut self, count: u32) -> anyhow::Result<()> {
        let ports = self.ports.insert(Ports::claim(4 * count as usize)?);
        for number in 0..count {
            self.replicas.push(Replica {
                name: format!("flotilla-{number}"),
                process: None,
                grpc: ports.port()?,
                metrics: SocketAddr::from((Ipv4Addr::LOCALHOST, ports.port()?)),
                peer: ports.port()?,
                probe: ports.port()?,
            });
        }
        for number in 0..count {
            self.start_replica(number as usize)?;
        }
        let until = Instant::now() + START;
        for replica in &mut self.replicas {
            let probe = SocketAddr::from((Ipv4Addr::LOCALHOST, replica.probe));
            while super::http::text(probe, "/readyz").await.is_err() {
                if let Some(process) = &mut replica.process {
                    process.check()?;
                }
                anyhow::ensure!(Instant::now() < until, "{} is not ready after {START:?}", replica.name);
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Starts one replica, again or for the first time, on its ports.
    pub fn start_replica(&mut self, index: usize) -> anyhow::Result<()> {
        let replica = &mut self.replicas[index];
        let flags = [
            ("--kubeconfig", self.kubeconfig.display().to_string()),
            ("--member-name", replica.name.clone()),
            ("--cert-namespace", SYSTEM_NAMESPACE.to_owned()),
            ("--ca-secret", CA_SECRET.to_owned()),
            ("--bind-address", Ipv4Addr::LOCALHOST.to_string()),
            ("--grpc-port", replica.grpc.to_string()),
            ("--peer-port", replica.peer.to_string()),
            ("--webhook-port", "0".to_owned()),
            ("--metrics-bind-address", replica.metrics.to_string()),
            ("--health-probe-bind-address", format!("127.0.0.1:{}", replica.probe)),
        ];
        let mut arguments = vec!["controller".to_owned()];
        arguments.extend(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]));
        replica.process = Some(Process::start(self.folder.path(), &replica.name, &arguments)?);
        Ok(())
    }

    /// Issues certificates and starts `count` gateways.
    pub async fn start_gateways(&mut self, count: u32) -> anyhow::Result<()> {
        let secret = CaSecret { namespace: SYSTEM_NAMESPACE.to_owned(), name: CA_SECRET.to_owned() };
        let authority = authority(&self.clients.objects, &secret).await?;
        let operators: Vec<String> =
            self.replicas.iter().map(|replica| format!("127.0.0.1:{}", replica.grpc)).collect();
        let mut starting = Vec::new();
        for number in 0..count {
            let name = format!("gateway-{number:02}");
            let folder = self.folder.path().join(&name);
            write_material(&folder, &gateway_material(&authority, TRUST_DOMAIN, "gateways", &name)?)?;
            let file = |name: &str| folder.join(name).display().to_string();
            let arguments = [
                "gateway".to_owned(),
                format!("--operator-address={}", operators.join(",")),
                "--gateway-namespace=gateways".to_owned(),
                format!("--gateway-name={name}"),
                format!("--operator-ca-file={}", file("ca.crt")),
                format!("--operator-cert-file={}", file("tls.crt")),
                format!("--operator-key-file={}", file("tls.key")),
                format!("--address-file={}", file("addresses.json")),
            ];
            let process = Process::start(self.folder.path(), &name, &arguments)?;
            starting.push(wait_for_gateway(name, process, folder.join("addresses.json")));
        }
        self.gateways = try_join_all(starting).await?;
        Ok(())
    }

    /// An error when something died that nobody killed.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let replicas = self.replicas.iter_mut().filter_map(|replica| replica.process.as_mut());
        let gateways = self.gateways.iter_mut().map(|gateway| &mut gateway.process);
        for process in replicas.chain(gateways).chain(self.apiserver.as_mut()) {
            process.check()?;
        }
        Ok(())
    }

    /// Ends everything and removes what was created.
    pub async fn stop(mut self) {
        let grace = Duration::from_secs(10);
        for gateway in &self.gateways {
            gateway.process.terminate();
        }
        for process in self.replicas.iter().filter_map(|replica| replica.process.as_ref()) {
            process.terminate();
        }
        for gateway in self.gateways.drain(..) {
            gateway.process.join(grace).await;
        }
        for process in self.replicas.drain(..).filter_map(|replica| replica.process) {
            process.join(grace).await;
        }
        match self.apiserver.take() {
            Some(apiserver) => {
                apiserver.terminate();
                apiserver.join(grace).await;
            }
            None => self.clean_up().await,
        }
    }

    /// In a cluster that is not the demo's own: deletes the namespaces that the
    /// demo created. The definitions stay, since others may use them.
    async fn clean_up(&self) {
        let maps = Api::<ShardMap>::all(self.clients.objects.clone());
        if let Err(error) = maps.delete(SHARD_MAP_NAME, &DeleteParams::default()).await {
            tracing::warn!(error = %error, "the shard map cannot be deleted, delete it by hand");
        }
        let api = Api::<Namespace>::all(self.clients.objects.clone());
        for name in &self.created {
            if let Err(error) = api.delete(name, &DeleteParams::default()).await {
                tracing::warn!(namespace = name, error = %error, "namespace cannot be deleted, delete it by hand");
            }
        }
    }

    /// Where the demo keeps its files.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

async fn wait_for_gateway(name: String, mut process: Process, file: PathBuf) -> anyhow::Result<Gateway> {
    let text = wait_for_file(&file, &mut process, START).await?;
    let addresses = serde_json::from_str(&text).context("a gateway's addresses")?;
    Ok(Gateway { name: format!("gateways/{name}"), process, addresses })
}
