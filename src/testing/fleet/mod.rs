//! A fleet of real processes for scenarios: an API server, replicas, gateways.
//! What a scenario knows of it, it knows from outside, as users do.
//!
//! Whatever keeps a scenario from going on panics here, with words, as in any
//! test. Who runs several of them gives each a task of its own and reads the
//! words there.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod events;
pub mod gateways;
pub mod http;
pub mod objects;
pub mod process;
pub mod proxy;
pub mod replica;
pub mod server;
pub mod shards;
pub mod waiting;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flotilla_avapigw::{AvapigwCompiler, compile_all};
use flotilla_certs::{Authority, CertificatePem};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;
use flotilla_core::shardmap::PublishedMap;
use flotilla_core::version::Version;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use gateways::{Gateways, Shown};
use objects::{Ready, Tenants};
use replica::Replica;
pub use server::{Against, Server};
use waiting::{SOON, within};

/// Namespace of the replicas' Leases and of the CA's Secret.
pub const SYSTEM_NAMESPACE: &str = "avapigw-system";

/// Everything that a scenario runs. Dropped in this order: gateways and
/// replicas before the API server, and all before the folder of their files.
pub struct Fleet {
    /// Processes of gateways.
    pub gateways: Vec<Gateways>,
    /// Replicas.
    pub replicas: Vec<Replica>,
    /// The API server.
    pub server: Server,
    /// An administrator's hands.
    pub tenants: Tenants,
    /// Logs, kubeconfigs, certificates.
    pub folder: tempfile::TempDir,
    program: PathBuf,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_logs();
            if std::env::var_os("FLOTILLA_KEEP_LOGS").is_some_and(|value| value == "1") {
                self.folder.disable_cleanup(true);
                eprintln!("all of them are in {}", self.folder.path().display());
            }
        }
    }
}

impl Fleet {
    /// Starts an API server and installs the definitions; `None` when there is
    /// no server of that sort on this machine. `program` is the built binary
    /// that all processes run.
    pub async fn start(program: &Path, against: Against) -> Option<Fleet> {
        let folder = tempfile::Builder::new().prefix("flotilla-it-").tempdir().unwrap();
        let server = Server::start(program, against, folder.path()).await?;
        let client = server.client(folder.path()).await;
        flotilla_k8s::crd::install(&client, &flotilla_api::crd::crds(), SOON).await.unwrap();
        let tenants = Tenants { client };
        tenants.namespaces([SYSTEM_NAMESPACE.to_owned()]).await;
        Some(Fleet {
            gateways: Vec::new(),
            replicas: Vec::new(),
            server,
            tenants,
            folder,
            program: program.to_owned(),
        })
    }

    /// A client of an administrator.
    pub fn client(&self) -> Client {
        self.tenants.client.clone()
    }

    /// Where everything's files are.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds replicas, starts them at the same moment, and waits until all are
    /// ready and in the map.
    pub async fn add_replicas(&mut self, count: usize) {
        self.add_replicas_with(count, &[]).await;
    }

    /// The same with more flags.
    pub async fn add_replicas_with(&mut self, count: usize, flags: &[&str]) {
        for _ in 0..count {
            self.add_replica(flags).start();
        }
        for replica in &mut self.replicas {
            if replica.runs() {
                replica.ready().await;
            }
        }
        self.map_of_running().await;
    }

    /// Kills all replicas, then starts all of them, and waits until all are ready.
    pub async fn restart_all(&mut self) {
        for replica in &mut self.replicas {
            replica.kill().await;
        }
        self.restart_all_stopped().await;
    }

    /// Starts all replicas, none of which runs, and waits until all are ready.
    pub async fn restart_all_stopped(&mut self) {
        for replica in &mut self.replicas {
            replica.start();
        }
        for replica in &mut self.replicas {
            replica.ready().await;
        }
    }

    /// Adds one replica without starting it.
    pub fn add_replica(&mut self, flags: &[&str]) -> &mut Replica {
        let number = self.replicas.len();
        let kubeconfig = self.server.kubeconfig(self.folder.path(), number);
        self.replicas.push(Replica::new(&self.program, number, kubeconfig, self.folder.path(), flags));
        &mut self.replicas[number]
    }

    /// The replica of this name.
    pub fn replica(&mut self, name: &str) -> &mut Replica {
        self.replicas
            .iter_mut()
            .find(|replica| replica.name == name)
            .unwrap_or_else(|| panic!("no replica {name}"))
    }

    /// Waits until the published map has exactly the replicas that run.
    pub async fn map_of_running(&self) -> PublishedMap {
        let running: BTreeSet<&str> = self
            .replicas
            .iter()
            .filter(|replica| replica.runs())
            .map(|replica| replica.name.as_str())
            .collect();
        within(SOON, &format!("a shard map of {running:?}"), async || {
            let map = shards::published(&self.tenants.client).await?;
            let members = shards::members(&map);
            let same = members.iter().map(String::as_str).collect::<BTreeSet<_>>() == running;
            same.then_some(map).ok_or_else(|| format!("it has {members:?}"))
        })
        .await
    }

    /// The fleet's CA, from its Secret.
    pub async fn authority(&self) -> Authority {
        let secrets = Api::<Secret>::namespaced(self.client(), SYSTEM_NAMESPACE);
        let secret = within(SOON, "the CA's Secret", async || {
            secrets.get("flotilla-ca").await.map_err(|error| error.to_string())
        })
        .await;
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        let pem = CertificatePem { certificate: text("ca.crt"), private_key: text("ca.key") };
        Authority::from_pem("the CA's Secret", pem, SystemTime::now()).unwrap()
    }

    /// Where gateways connect to: every replica.
    pub fn operators(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| format!("127.0.0.1:{}", replica.grpc)).collect()
    }

    /// Starts a process of gateways that connect to all replicas in turn.
    pub async fn add_gateways(&mut self, name: &str, count: usize) -> &Gateways {
        let operators = self.operators();
        self.add_gateways_to(name, count, &operators).await
    }

    /// Starts a process of gateways that connect to these addresses in turn.
    pub async fn add_gateways_to(&mut self, name: &str, count: usize, operators: &[String]) -> &Gateways {
        let authority = self.authority().await;
        self.add_gateways_of(&authority, name, count, operators).await
    }

    /// The same with certificates of this authority.
    pub async fn add_gateways_of(
        &mut self,
        authority: &Authority,
        name: &str,
        count: usize,
        operators: &[String],
    ) -> &Gateways {
        let started =
            Gateways::start(&self.program, authority, self.folder.path(), name, count, operators).await;
        self.gateways.push(started);
        &self.gateways[self.gateways.len() - 1]
    }

    /// Starts a gateway that shows no certificate and connects to these addresses in turn.
    pub async fn add_unconfirmed(&mut self, name: &str, operators: &[String]) -> &Gateways {
        let authority = self.authority().await;
        let folder = self.folder.path();
        let started = Gateways::unconfirmed(&self.program, &authority, folder, name, operators).await;
        self.gateways.push(started);
        &self.gateways[self.gateways.len() - 1]
    }

    /// Starts a gateway with these flags, which say where it dials or listens.
    pub async fn add_gateway_with(&mut self, name: &str, flags: &[String]) -> &Gateways {
        let authority = self.authority().await;
        let started = Gateways::with_flags(&self.program, &authority, self.folder.path(), name, flags).await;
        self.gateways.push(started);
        &self.gateways[self.gateways.len() - 1]
    }

    /// Starts a process of gateways that wait at these addresses to be dialled.
    pub async fn add_listening(&mut self, name: &str, addresses: &[SocketAddr], batches: bool) -> &Gateways {
        let authority = self.authority().await;
        let folder = self.folder.path();
        let started = Gateways::listening(&self.program, &authority, folder, name, addresses, batches).await;
        self.gateways.push(started);
        &self.gateways[self.gateways.len() - 1]
    }

    /// How many gateways there are.
    pub fn gateway_count(&self) -> usize {
        self.gateways.iter().map(|process| process.count).sum()
    }

    /// What all gateways say about themselves.
    pub async fn show(&self) -> Result<Vec<Shown>, String> {
        let mut all = Vec::new();
        for process in &self.gateways {
            all.extend(process.show().await?);
        }
        Ok(all)
    }

    /// Waits until every gateway holds exactly what the API server holds and
    /// every status says so; returns how long it took.
    pub async fn settled(&mut self) -> Duration {
        self.settled_within(SOON).await
    }

    /// The same with a deadline of its own.
    pub async fn settled_within(&mut self, time: Duration) -> Duration {
        let started = std::time::Instant::now();
        within(time, "everything is equal", async || {
            self.check()?;
            self.is_settled().await.map(drop)
        })
        .await;
        started.elapsed()
    }

    /// All objects, when every gateway holds exactly what is valid of them, every
    /// status says so, and everything that was removed has been heard of. An error
    /// says what differs.
    pub async fn is_settled(&self) -> Result<Vec<RawObject>, String> {
        let objects = self.tenants.all().await?;
        self.digests_equal(&objects).await?;
        for process in &self.gateways {
            process.removals_heard().await?;
        }
        let count = self.gateway_count();
        let invalid: BTreeSet<(Kind, &ObjectKey)> =
            invalid(&objects).into_iter().map(|object| (object.kind, &object.key)).collect();
        let says_so = |object: &RawObject| {
            let ready = ready(object);
            match invalid.contains(&(object.kind, &object.key)) {
                true => ready.is_current() && matches!(&*ready.reason, "ValidationFailed" | "Conflict"),
                false => ready.applied_to(count),
            }
        };
        match objects.iter().find(|object| !says_so(object)) {
            Some(object) => Err(format!("{} {}: {:?}", object.kind, object.key, ready(object))),
            None => Ok(objects),
        }
    }

    /// An error while the version of some gateway lies before the last write of one of these,
    /// its status included: those that get nothing are told after some seconds.
    pub async fn versions_include(&self, objects: &[RawObject]) -> Result<(), String> {
        for gateway in self.show().await? {
            let version: Version = gateway.version.parse().map_err(|error| format!("{error}"))?;
            if let Some(RawObject { kind, key, revision, .. }) =
                objects.iter().find(|object| object.revision > version.low.get(object.kind))
            {
                return Err(format!(
                    "{}: {} and not {kind} {key} at {revision}",
                    gateway.name, gateway.version
                ));
            }
        }
        Ok(())
    }

    /// An error when a gateway does not hold exactly these objects.
    pub async fn digests_equal(&self, objects: &[RawObject]) -> Result<(), String> {
        let expected = expected_digest(objects);
        match self.show().await?.into_iter().find(|gateway| gateway.digest != expected) {
            None => Ok(()),
            Some(gateway) => Err(format!(
                "{} ({}) holds {} resources and not what the API server holds",
                gateway.name, gateway.phase, gateway.held
            )),
        }
    }

    /// An error when something died that nobody ended.
    pub fn check(&mut self) -> Result<(), String> {
        self.replicas.iter_mut().try_for_each(Replica::check)?;
        self.gateways.iter_mut().try_for_each(|gateways| gateways.process.check())
    }

    /// What must hold at the end of every scenario, whatever happened in it:
    /// no gateway ever went back, or got something again that it had removed.
    pub async fn nothing_went_back(&self) {
        for gateway in self.show().await.unwrap() {
            let stats = gateway.stats;
            assert_eq!((stats.regressions, stats.reappeared), (0, 0), "{}: {stats:?}", gateway.name);
        }
    }

    /// The keys of everything that was removed from any gateway so far.
    pub fn removed(&self) -> Vec<String> {
        self.gateways.iter().flat_map(|gateways| gateways.events.removed()).collect()
    }

    fn show_logs(&self) {
        let show = |name: &str, tail: &str| eprintln!("--- the last lines of {name}\n{tail}\n");
        show("the API server", &self.server.tail());
        for replica in &self.replicas {
            show(&replica.name, &replica.tail());
        }
        for gateways in &self.gateways {
            show(&gateways.name, &gateways.process.tail());
        }
    }
}

/// What the status of an object says.
pub fn ready(object: &RawObject) -> Ready {
    let status = serde_json::from_slice(&object.status).unwrap_or_default();
    Ready::of(object.generation, &status)
}

/// The digest of a gateway that holds exactly these objects.
pub fn expected_digest(objects: &[RawObject]) -> String {
    let compiled = compile_all(&AvapigwCompiler::default(), objects);
    let delivered = compiled.iter().filter_map(|(object, spec)| Some((object, spec.as_ref()?)));
    flotilla_core::digest::digest_of(
        delivered.map(|(object, spec)| (object.kind, &object.key, spec.as_ref())),
    )
}

/// Those of these objects that no gateway gets, because they are invalid or others
/// come before them.
pub fn invalid(objects: &[RawObject]) -> Vec<&RawObject> {
    let compiled = compile_all(&AvapigwCompiler::default(), objects);
    compiled.into_iter().filter_map(|(object, spec)| spec.is_none().then_some(object)).collect()
}
