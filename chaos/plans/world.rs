//! Everything that one run needs: an API server, replicas behind proxies, and
//! gateways. Replicas that a plan kills are started again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use flotilla_k8s::client::connect;
use flotilla_testing::fleet::replica::{Replica, total};
use flotilla_testing::fleet::waiting::attempt;
use flotilla_testing::fleet::{Against, Fleet, shards};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::history::History;
use crate::ingresses;
use crate::proxy::{Proxy, Theatre};
use crate::scenario;
use crate::stage::Stage;

/// Replicas of every run.
const REPLICAS: usize = 2;
/// Gateways of every run.
pub(crate) const GATEWAYS: usize = 2;
/// How long a killed replica stays away.
const AWAY: Duration = Duration::from_millis(300);
/// How often it is looked whether something died that nobody ended.
const LOOK: Duration = Duration::from_millis(250);
/// How long replicas may take for a start or an end.
const START: Duration = Duration::from_secs(300);
/// What replicas are told besides where everything is.
const FLAGS: [&str; 3] = ["--drain-spread=200ms", ingresses::FLAGS[0], ingresses::FLAGS[1]];

/// A running world.
pub struct World {
    // Dropped in this order: who asks before who answers.
    replicas: Vec<Replica>,
    proxies: Vec<Proxy>,
    deaths: mpsc::Receiver<usize>,
    /// What the proxies share.
    pub theatre: Arc<Theatre>,
    /// What the API server holds, whatever the proxies do.
    pub history: History,
    /// The API server, the gateways, and an administrator's hands.
    pub fleet: Fleet,
}

impl World {
    /// Starts everything; the replicas are not waited for.
    ///
    /// # Errors
    /// When there is no API server of that sort on this machine, or something
    /// cannot be started.
    pub async fn start(program: &Path, against: Against, stage: Stage) -> anyhow::Result<World> {
        let fleet = Fleet::start(program, against)
            .await
            .ok_or_else(|| anyhow!("there is no real kube-apiserver: run tests/kube/build.sh"))?;
        let history = History::listen(&fleet.tenants.client).await?;
        scenario::furnish(&fleet.tenants).await?;
        let (theatre, deaths) = Theatre::new(stage, REPLICAS);
        let mut world = World { replicas: Vec::new(), proxies: Vec::new(), deaths, theatre, history, fleet };
        for number in 0..REPLICAS {
            let folder = world.fleet.path();
            let kubeconfig = world.fleet.server.kubeconfig(folder, number);
            // The one without retries of its own: what fails upstream is to be seen.
            let upstream = connect(Some(&kubeconfig)).await?.leases;
            let proxy = Proxy::start(number, world.theatre.clone(), upstream, folder).await?;
            let kubeconfig = proxy.kubeconfig().to_owned();
            world.replicas.push(Replica::new(program, number, kubeconfig, folder, &FLAGS));
            world.proxies.push(proxy);
            launch(&mut world.replicas[number], number, &world.theatre)?;
        }
        Ok(world)
    }

    /// Runs `play` with gateways, while replicas that are killed come back.
    ///
    /// # Errors
    /// What `play` says, or that something died that nobody ended.
    pub async fn perform<T>(
        &mut self,
        patience: Duration,
        play: impl AsyncFnOnce(&mut Fleet, &Theatre, &History) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let World { replicas, deaths, theatre, history, fleet, .. } = self;
        let operators: Vec<String> =
            replicas.iter().map(|replica| format!("127.0.0.1:{}", replica.grpc)).collect();
        let scene = async {
            if fleet.gateways.is_empty() {
                // The authority is there as soon as a replica has made it.
                map_of_all(fleet, 0, patience).await?;
                fleet.add_gateways_to("gateway", GATEWAYS, &operators).await;
            }
            play(fleet, theatre, history).await
        };
        // Either may win: what was seen of the one does not change the other.
        tokio::select! {
            done = scene => done,
            died = supervise(replicas, deaths, theatre) => Err(died),
        }
    }

    /// Ends all replicas in order and starts new ones over the same objects.
    ///
    /// # Errors
    /// When they do not come back to one map.
    pub async fn start_afresh(&mut self) -> anyhow::Result<()> {
        let before = shards::published(&self.fleet.tenants.client).await.map_err(anyhow::Error::msg)?;
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            spare(replica, number, &self.theatre).await?;
        }
        for replica in &mut self.replicas {
            replica.terminate();
        }
        for replica in &mut self.replicas {
            replica.ended(START).await;
        }
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            launch(replica, number, &self.theatre)?;
        }
        for replica in &mut self.replicas {
            replica.ready().await;
        }
        map_of_all(&self.fleet, before.epoch.0, START).await
    }

    /// Where the logs of all processes are.
    pub fn logs(&self) -> Vec<PathBuf> {
        let replicas = self.replicas.iter().map(|replica| replica.name.clone());
        let gateways = self.fleet.gateways.iter().map(|gateways| gateways.name.clone());
        replicas.chain(gateways).map(|name| self.fleet.path().join(format!("{name}.log"))).collect()
    }

    /// What replicas say they keep: objects, sessions, and statuses that are not final.
    ///
    /// # Errors
    /// Why one does not say.
    pub async fn kept(&self) -> Result<Vec<[u64; 3]>, String> {
        const TOLD: [(&str, &str); 3] = [
            ("avapigw_operator_resources_total", "kind"),
            ("avapigw_operator_gateways_connected", ""),
            ("flotilla_status_pending", ""),
        ];
        let mut all = Vec::new();
        for replica in &self.replicas {
            let text = replica.metrics().await?;
            let mut kept = [0; 3];
            for (kept, (name, label)) in kept.iter_mut().zip(TOLD) {
                // Else it would count as none.
                if !text.contains(&format!("# TYPE {name} ")) {
                    return Err(format!("{} does not tell {name}", replica.name));
                }
                *kept = total(&text, name, label) as u64;
            }
            all.push(kept);
        }
        Ok(all)
    }

    /// What each replica logged last.
    pub fn last_words(&self) -> String {
        let words = |replica: &Replica| format!("--- {} logged last:\n{}", replica.name, replica.tail());
        self.replicas.iter().map(words).collect::<Vec<_>>().join("\n")
    }

    /// Ends everything.
    pub async fn stop(mut self) {
        self.replicas.clear();
        for proxy in self.proxies.drain(..) {
            proxy.stop().await;
        }
    }
}

fn launch(replica: &mut Replica, number: usize, theatre: &Theatre) -> anyhow::Result<()> {
    replica.start();
    let process = replica.process().id().with_context(|| format!("{} has no process", replica.name))?;
    theatre.started(number, process);
    Ok(())
}

/// Starts a replica again that the theatre has killed.
async fn revive(replica: &mut Replica, number: usize, theatre: &Theatre) -> anyhow::Result<()> {
    if theatre.runs(number) {
        return Ok(());
    }
    if replica.runs() {
        replica.kill().await;
    }
    sleep(AWAY).await;
    launch(replica, number, theatre)
}

/// Sees to it that a replica runs, is ready, and is not killed any more. A plan's kill
/// that is under way when everything is as it should be comes after all, until then.
async fn spare(replica: &mut Replica, number: usize, theatre: &Theatre) -> anyhow::Result<()> {
    loop {
        revive(replica, number, theatre).await?;
        // One that has been revived a moment ago may not yet listen to signals.
        let what = format!("{} is ready", replica.name);
        let ready = attempt(START, &what, async || {
            if !theatre.runs(number) {
                return Ok(());
            }
            let (status, text) = replica.probe("/readyz").await?;
            (status == 200).then_some(()).ok_or(text)
        });
        ready.await.map_err(anyhow::Error::msg)?;
        if theatre.ended(number) {
            return Ok(());
        }
    }
}

/// Starts killed replicas again, for ever; returns when something else died.
async fn supervise(
    replicas: &mut [Replica],
    deaths: &mut mpsc::Receiver<usize>,
    theatre: &Theatre,
) -> anyhow::Error {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outcome = tokio::select! {
            biased; // a death that was planned is no surprise
            Some(number) = deaths.recv() => revive(&mut replicas[number], number, theatre).await,
            _ = look.tick() => look_after(replicas, theatre).await,
        };
        if let Err(error) = outcome {
            return error;
        }
    }
}

async fn look_after(replicas: &mut [Replica], theatre: &Theatre) -> anyhow::Result<()> {
    for (number, replica) in replicas.iter_mut().enumerate() {
        revive(replica, number, theatre).await?;
        // Asked in this order: one that is killed now is no surprise.
        if let Err(words) = replica.check()
            && theatre.runs(number)
        {
            bail!("{words}");
        }
    }
    Ok(())
}

/// Waits for a map of all replicas that is newer than `after`.
async fn map_of_all(fleet: &Fleet, after: u64, patience: Duration) -> anyhow::Result<()> {
    attempt(patience, "a shard map of all replicas", async || {
        let map = shards::published(&fleet.tenants.client).await?;
        let members = shards::members(&map);
        let found = format!("epoch {} has {members:?}", map.epoch);
        (map.epoch.0 > after && members.len() == REPLICAS).then_some(()).ok_or(found)
    })
    .await
    .map_err(anyhow::Error::msg)
}
