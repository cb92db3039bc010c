//! A fleet that is to be hit, and everything that watches it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};
use flotilla_core::object::RawObject;
use flotilla_core::shardmap::{Ownership, PublishedMap};
use flotilla_testing::fleet::objects::Tenants;
use flotilla_testing::fleet::replica::Replica;
use flotilla_testing::fleet::{Against, Fleet, expected_digest, invalid, ready, shards};
use futures::StreamExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::acts::Acts;
use crate::book::Book;
use crate::edge::{Edge, SharedBook, with_book};
use crate::options::{Api as ApiSort, Options};
use crate::tenants::Workload;

/// How long everything may take to become whole or equal before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A change that has not arrived after this long keeps the fleet from being whole.
const STALE: Duration = Duration::from_secs(3);

/// What is known of who acted, as all parts of a run share it.
pub type SharedActs = Arc<Mutex<Acts>>;

/// Works on it.
pub fn with_acts<R>(acts: &SharedActs, work: impl FnOnce(&mut Acts) -> R) -> R {
    work(&mut acts.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Milliseconds since 1970, as replicas write them into their logs.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The fleet.
pub struct Target {
    /// API server and replicas.
    pub fleet: Fleet,
    /// Gateways.
    pub edge: Edge,
    /// Tenants.
    pub tenants: Workload,
    /// What reached whom.
    pub book: SharedBook,
    /// Who acted.
    pub acts: SharedActs,
    watchers: Vec<JoinHandle<anyhow::Error>>,
    working: CancellationToken,
    worker: Option<JoinHandle<()>>,
}

impl Target {
    /// Starts everything and waits until it is whole; `None` when there is no
    /// API server of the sort asked for. `phases` is how many phases the run
    /// has.
    ///
    /// # Errors
    /// When something cannot be started.
    pub async fn start(options: &Options, phases: usize) -> anyhow::Result<Option<Target>> {
        let against = match options.api {
            ApiSort::Real => Against::Real,
            ApiSort::Embedded => Against::Embedded,
        };
        let Some(mut fleet) = Fleet::start(&options.program, against).await else { return Ok(None) };
        let namespaces: Vec<String> =
            (0..options.namespaces).map(|number| format!("team-{number:03}")).collect();
        let book: SharedBook = Arc::new(Mutex::new(Book::new(options.gateways, phases)));
        let hands = Tenants { client: fleet.client() };
        let tenants = Workload { hands, namespaces: namespaces.clone(), book: book.clone() };
        tenants.furnish().await;
        let names: Vec<String> = (0..options.replicas).map(|_| fleet.add_replica(&[]).name.clone()).collect();
        let logs = names.iter().map(|name| fleet.path().join(format!("{name}.log"))).collect();
        let acts: SharedActs = Arc::new(Mutex::new(Acts::new(&namespaces, logs)));
        // Before the first replica, so that no map is missed.
        let watchers = vec![
            tokio::spawn(read_logs(acts.clone())),
            tokio::spawn(watch_maps(Api::all(fleet.client()), names, namespaces, acts.clone())),
        ];
        fleet.replicas.iter_mut().for_each(Replica::start);
        for replica in &mut fleet.replicas {
            replica.ready().await;
        }
        fleet.map_of_running().await;
        let authority = fleet.authority().await;
        let edge = Edge::start(&authority, &fleet.operators(), options.gateways, book.clone()).await?;
        let working = CancellationToken::new();
        let target = Target { fleet, edge, tenants, book, acts, watchers, working, worker: None };
        let mut target = target;
        target.whole(Duration::ZERO).await?;
        target.equal().await.map_err(|lacking| anyhow::anyhow!("the start did not settle: {lacking:?}"))?;
        Ok(Some(target))
    }

    /// The tenants begin to change things.
    pub fn work(&mut self, per_second: u32) {
        let work = self.tenants.clone().work(per_second, self.working.clone());
        self.worker = Some(tokio::spawn(work));
    }

    /// The tenants stop.
    ///
    /// # Errors
    /// When they could not go on before that.
    pub async fn rest(&mut self) -> anyhow::Result<()> {
        self.working.cancel();
        match self.worker.take() {
            Some(worker) => worker.await.context("a change was refused"),
            None => Ok(()),
        }
    }

    /// Waits until all replicas are members, all gateways have a stream, and no
    /// change is stale; it must be so for some time.
    ///
    /// # Errors
    /// What is lacking when it takes too long, or when something died.
    pub async fn whole(&mut self, steady: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        let mut since: Option<Instant> = None;
        loop {
            match self.lacking().await? {
                None if since.get_or_insert_with(Instant::now).elapsed() >= steady => return Ok(()),
                None => {}
                Some(lacking) => {
                    since = None;
                    anyhow::ensure!(Instant::now() < until, "not whole after {PATIENCE:?}: {lacking}");
                }
            }
            sleep(LOOK).await;
        }
    }

    async fn lacking(&mut self) -> anyhow::Result<Option<String>> {
        self.check()?;
        let streaming = self.edge.streaming();
        if streaming < self.edge.gateways().len() {
            return Ok(Some(format!("{streaming} gateways have a stream")));
        }
        let stale = Instant::now().checked_sub(STALE);
        if let Some(change) = stale.and_then(|at| with_book(&self.book, |book| book.lacking(at)).pop()) {
            return Ok(Some(change));
        }
        let map = shards::published(&self.tenants.hands.client).await;
        let members = map.map(|map| map.members.len()).unwrap_or_default();
        Ok((members < self.fleet.replicas.len()).then(|| format!("{members} members")))
    }

    /// An error when something died that nobody killed, or nothing is seen any
    /// more.
    ///
    /// # Errors
    /// What it is.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.fleet.check().map_err(anyhow::Error::msg)?;
        self.edge.check()?;
        anyhow::ensure!(
            self.watchers.iter().all(|watcher| !watcher.is_finished()),
            "logs or maps are not read any more"
        );
        anyhow::ensure!(
            self.worker.as_ref().is_none_or(|worker| !worker.is_finished()),
            "the tenants cannot go on: a change was refused"
        );
        Ok(())
    }

    /// Owners by namespace, by the published map.
    ///
    /// # Errors
    /// When there is no map.
    pub async fn owners(&self) -> anyhow::Result<Vec<String>> {
        let map = shards::published(&self.tenants.hands.client).await.map_err(anyhow::Error::msg)?;
        let owners = shards::owners(&map, &self.tenants.namespaces);
        Ok(self.tenants.namespaces.iter().map(|name| owners[name].clone()).collect())
    }

    /// Waits until every gateway holds exactly what the API server holds and
    /// every status says so.
    ///
    /// # Errors
    /// What does not hold in the end.
    pub async fn equal(&mut self) -> Result<(), Vec<String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let unequal = self.unequal().await;
            if unequal.is_empty() {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(unequal);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn unequal(&self) -> Vec<String> {
        let mut unequal = with_book(&self.book, |book| book.lacking(Instant::now()));
        let objects = match self.tenants.hands.all().await {
            Ok(objects) => objects,
            Err(error) => return vec![error],
        };
        let expected = expected_digest(&objects);
        for gateway in self.edge.gateways() {
            if *gateway.digest() != *expected {
                unequal.push(format!("{} does not hold what the API server holds", gateway.id()));
            }
        }
        let count = self.edge.gateways().len();
        let invalid: BTreeSet<_> = invalid(&objects).into_iter().map(|one| (one.kind, &one.key)).collect();
        let told = |object: &&RawObject| {
            let ready = ready(object);
            match invalid.contains(&(object.kind, &object.key)) {
                true => ready.is_current() && ready.reason == "ValidationFailed",
                false => ready.applied_to(count),
            }
        };
        for object in objects.iter().filter(|object| !told(object)) {
            unequal.push(format!("{} {}: {:?}", object.kind, object.key, ready(object)));
        }
        unequal
    }

    /// Ends everything.
    pub async fn stop(self) {
        self.watchers.iter().for_each(JoinHandle::abort);
        self.working.cancel();
        self.edge.stop().await;
    }
}

/// Reads the replicas' logs as they grow.
async fn read_logs(acts: SharedActs) -> anyhow::Error {
    loop {
        if let Err(error) = with_acts(&acts, Acts::read) {
            return error.into();
        }
        sleep(LOOK).await;
    }
}

/// Follows the published maps, every one of them.
async fn watch_maps(
    maps: Api<ShardMap>,
    replicas: Vec<String>,
    namespaces: Vec<String>,
    acts: SharedActs,
) -> anyhow::Error {
    let take = |map: &ShardMap| {
        if let Some(published) = flotilla_k8s::coordination::published(map) {
            let (epoch, owners) = epoch_owners(published, &replicas, &namespaces);
            with_acts(&acts, |acts| acts.published(epoch, owners));
        }
    };
    loop {
        let listed = match maps.list(&ListParams::default()).await {
            Ok(listed) => listed,
            Err(error) => return error.into(),
        };
        listed.items.iter().filter(|map| map.metadata.name.as_deref() == Some(SHARD_MAP_NAME)).for_each(take);
        let mut revision = listed.metadata.resource_version.unwrap_or_default();
        // A watch that ends goes on where it ended; only when that is not
        // possible any more, maps that came and went in between are not seen.
        'listed: loop {
            let mut changes = match maps.watch(&WatchParams::default(), &revision).await {
                Ok(changes) => changes.boxed(),
                Err(error) => return error.into(),
            };
            while let Some(change) = changes.next().await {
                match change {
                    Ok(WatchEvent::Added(map) | WatchEvent::Modified(map)) => {
                        take(&map);
                        revision = map.metadata.resource_version.unwrap_or(revision);
                    }
                    Ok(WatchEvent::Error(_)) => break 'listed,
                    Ok(WatchEvent::Deleted(_) | WatchEvent::Bookmark(_)) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

/// An epoch and, by namespace, the numbers of the replicas that own by its map.
fn epoch_owners(map: PublishedMap, replicas: &[String], namespaces: &[String]) -> (u64, Vec<Option<usize>>) {
    let epoch = map.epoch.0;
    let ownership = Ownership::new(map);
    let number = |namespace: &String| {
        let owner = ownership.owner(namespace)?;
        replicas.iter().position(|replica| replica.as_str() == owner.as_str())
    };
    (epoch, namespaces.iter().map(number).collect())
}
