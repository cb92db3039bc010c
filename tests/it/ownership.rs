//! Replicas come and go: who owns what before and after, and how long it takes
//! until the new owner acts.
//!
//! "Acts" is seen from outside: a route in a namespace that moved is changed,
//! and its status then says so. There is no gateway here, since a gateway that
//! looks for another replica at the same moment would be part of the time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use flotilla_core::ids::Kind;
use futures::future::join_all;
use serde_json::json;

use crate::fleet::objects::answering;
use crate::fleet::replica::Replica;
use crate::fleet::waiting::{SOON, figure, within};
use crate::fleet::{Against, Fleet, shards};

const NAMESPACES: usize = 200;
/// Enough of a namespace's tenants to see that all of them are looked after.
const TRIED: usize = 5;
/// The default of `--member-lease-duration`.
const LEASE: Duration = Duration::from_secs(5);

type Owners = BTreeMap<String, String>;

struct Scenario {
    fleet: Fleet,
    against: Against,
    namespaces: Vec<String>,
    epoch: u64,
    changes: u32,
}

/// How a replica leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Terminated,
    Killed,
}

impl Scenario {
    /// The owners by the map of exactly the replicas that run.
    async fn owners(&mut self) -> Owners {
        let map = self.fleet.map_of_running().await;
        assert!(map.epoch.0 >= self.epoch, "epoch {} after {}", map.epoch.0, self.epoch);
        self.epoch = map.epoch.0;
        shards::owners(&map, &self.namespaces)
    }

    /// Changes the routes of these namespaces and waits until each status says
    /// so. Returns the times since `start` of the first and of the last.
    async fn act_in(&mut self, namespaces: &[String], start: Instant) -> (Duration, Duration) {
        self.changes += 1;
        let timeout = format!("{}s", self.changes);
        let tenants = &self.fleet.tenants;
        let spec = json!({ "timeout": timeout });
        let changed =
            namespaces.iter().map(|name| tenants.change(Kind::ApiRoute, name, "route", spec.clone()));
        join_all(changed).await;
        let seen = join_all(namespaces.iter().map(|namespace| {
            within(SOON, "the owner of a namespace acts", async move || {
                let status = tenants.status(Kind::ApiRoute, namespace, "route").await?;
                status.is_current().then(|| start.elapsed()).ok_or_else(|| format!("{namespace}: {status:?}"))
            })
        }))
        .await;
        (*seen.iter().min().unwrap(), *seen.iter().max().unwrap())
    }

    /// Compares owners before and after, by what is allowed to move.
    fn check(&self, step: &str, before: &Owners, after: &Owners, ideal: usize) {
        let members = |owners: &Owners| owners.values().cloned().collect::<BTreeSet<_>>();
        let (old, new) = (members(before), members(after));
        let moved: Vec<_> = self.namespaces.iter().filter(|name| before[*name] != after[*name]).collect();
        let between =
            moved.iter().filter(|name| new.contains(&before[**name]) && old.contains(&after[**name]));
        assert_eq!(between.count(), 0, "{step}: moved between members that stayed, of {}", moved.len());
        let mut load: BTreeMap<&str, usize> = BTreeMap::new();
        after.values().for_each(|owner| *load.entry(owner).or_default() += 1);
        figure(&format!(
            "ownership, {:?} API server, {step} replicas: {} of {NAMESPACES} namespaces moved, ideal {ideal}, now {:?}",
            self.against,
            moved.len(),
            load.values().collect::<Vec<_>>(),
        ));
        assert!(moved.len() * 2 <= ideal * 3, "{step}: {} moved, ideal is {ideal}", moved.len());
    }

    /// Each change is answered by one status, which the owner writes.
    async fn only_owners_act(&mut self, owners: &Owners) {
        let chosen: Vec<String> = self.namespaces.iter().step_by(7).cloned().collect();
        self.act_in(&chosen, Instant::now()).await;
        for namespace in &chosen {
            assert_eq!(
                self.writers(namespace).await,
                [owners[namespace].as_str()],
                "who acted in {namespace}"
            );
        }
    }

    /// Who wrote the current status of a namespace's route, each as often as it
    /// did, by the replicas' logs.
    async fn writers(&self, namespace: &str) -> Vec<String> {
        let status = self.fleet.tenants.status(Kind::ApiRoute, namespace, "route").await.unwrap();
        let of = format!(r#""namespace":"{namespace}""#);
        let generation = format!(r#""generation":{},"#, status.generation);
        within(SOON, "the writer of a status says so", async || {
            let wrote = |replica: &Replica| {
                let lines = replica.log_lines(&["status written", &of, &generation]);
                lines.iter().map(|_| replica.name.clone()).collect::<Vec<_>>()
            };
            let writers: Vec<String> = self.fleet.replicas.iter().flat_map(wrote).collect();
            if writers.is_empty() { Err(format!("nobody wrote it in {namespace}")) } else { Ok(writers) }
        })
        .await
    }

    /// The replica that owns the most leaves; its namespaces are acted on by
    /// others within the time.
    async fn leave(&mut self, leaving: Leaving, at_most: Duration) {
        let owners = self.owners().await;
        let mut load: BTreeMap<&String, Vec<String>> = BTreeMap::new();
        for (namespace, owner) in &owners {
            load.entry(owner).or_default().push(namespace.clone());
        }
        let (victim, owned) = load.into_iter().max_by_key(|(_, owned)| owned.len()).unwrap();
        let tried: Vec<String> = owned.iter().take(TRIED).cloned().collect();
        let gaps_before = self.gaps(victim).await;
        let victim = self.fleet.replica(victim);
        let start = Instant::now();
        match leaving {
            Leaving::Terminated => victim.terminate(),
            Leaving::Killed => victim.kill().await,
        }
        let name = victim.name.clone();
        let (first, last) = self.act_in(&tried, start).await;
        figure(&format!(
            "ownership, {:?} API server, {name} {leaving:?}: first action of a new owner after {} ms, \
             of {TRIED} namespaces after {} ms",
            self.against,
            first.as_millis(),
            last.as_millis()
        ));
        assert!(first <= at_most, "first action after {first:?}, at most {at_most:?} is allowed");
        if matches!(leaving, Leaving::Terminated) {
            self.fleet.replica(&name).ended(SOON).await;
        }
        let owners = self.owners().await;
        for namespace in &tried {
            let writers = self.writers(namespace).await;
            assert_eq!(
                writers,
                [owners[namespace].as_str()],
                "who acted in {namespace}, which {name} had owned"
            );
        }
        let (gaps, long) = self.gaps(&name).await;
        assert!(gaps > gaps_before.0, "the gaps in which nobody acted are not exported");
        assert_eq!(long, gaps_before.1, "nobody acted for more than 7.5 s");
    }

    /// How many gaps in which nobody acted all replicas but one export, and how many long ones.
    async fn gaps(&self, but: &str) -> (f64, f64) {
        let (mut all, mut short) = (0.0, 0.0);
        for replica in self.fleet.replicas.iter().filter(|replica| replica.name != but) {
            // Who was ended before has gained nothing since.
            let metric = async |name, label| replica.metric(name, label).await.unwrap_or_default();
            all += metric("flotilla_ownership_gap_seconds_count", "").await;
            short += metric("flotilla_ownership_gap_seconds_bucket", "le=\"7.5\"").await;
        }
        (all, all - short)
    }
}

async fn ownership_moves(against: Against) {
    let Some(mut fleet) = Fleet::start(against).await else { return };
    let namespaces: Vec<String> = (0..NAMESPACES).map(|number| format!("team-{number:03}")).collect();
    fleet.tenants.namespaces(namespaces.clone()).await;
    let route = |name: &String| (name.clone(), "route".to_owned(), answering(name, "route", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, namespaces.iter().map(route)).await;
    fleet.add_replicas(1).await;
    let mut scenario = Scenario { fleet, against, namespaces, epoch: 0, changes: 0 };

    let one = scenario.owners().await;
    scenario.fleet.add_replicas(2).await;
    let three = scenario.owners().await;
    scenario.check("1 to 3", &one, &three, NAMESPACES * 2 / 3);
    scenario.fleet.add_replicas(2).await;
    let five = scenario.owners().await;
    scenario.check("3 to 5", &three, &five, NAMESPACES * 2 / 5);
    scenario.nothing_is_left_undone().await;
    scenario.only_owners_act(&five).await;

    scenario.leave(Leaving::Terminated, Duration::from_millis(1500)).await;
    scenario.leave(Leaving::Killed, LEASE + Duration::from_secs(2)).await;
    scenario.leave(Leaving::Terminated, Duration::from_millis(1500)).await;
    let two = scenario.owners().await;
    scenario.check("5 to 2", &five, &two, NAMESPACES * 3 / 5);
    scenario.nothing_is_left_undone().await;
    scenario.only_owners_act(&two).await;
}

/// What the most loaded owner has, as a multiple of the mean, in percent: all
/// namespaces of these scenarios weigh the same.
fn imbalance(owners: &Owners, members: usize) -> usize {
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    owners.values().for_each(|owner| *load.entry(owner).or_default() += 1);
    load.values().max().copied().unwrap_or(0) * 100 * members / owners.len()
}

/// Replicas are restarted one after the other: what each has goes to others
/// and comes back, and nobody else's namespaces move.
async fn rolling_restart(against: Against) {
    const REPLICAS: usize = 5;
    let Some(mut fleet) = Fleet::start(against).await else { return };
    let namespaces: Vec<String> = (0..NAMESPACES).map(|number| format!("team-{number:03}")).collect();
    fleet.tenants.namespaces(namespaces.clone()).await;
    let route = |name: &String| (name.clone(), "route".to_owned(), answering(name, "route", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, namespaces.iter().map(route)).await;
    fleet.add_replicas(REPLICAS).await;
    let mut scenario = Scenario { fleet, against, namespaces, epoch: 0, changes: 0 };
    let ring = imbalance(&scenario.owners().await, REPLICAS);
    let client = scenario.fleet.client();
    let namespaces = scenario.namespaces.clone();
    within(2 * SOON, "the leader evens out what the ring alone does not", async || {
        let even = imbalance(&shards::owners(&shards::published(&client).await?, &namespaces), REPLICAS);
        if even <= 115 { Ok(()) } else { Err(format!("the largest share is {even}% of the mean")) }
    })
    .await;
    let home = scenario.owners().await;
    figure(&format!(
        "ownership, {against:?} API server, {REPLICAS} replicas of {NAMESPACES} equal namespaces: largest share {ring}% \
         of the mean by the ring alone, {}% in the end",
        imbalance(&home, REPLICAS)
    ));

    let mut moved = 0;
    let mut slowest = Duration::ZERO;
    for number in 0..REPLICAS {
        let name = format!("flotilla-{number}");
        let owned: Vec<String> =
            home.iter().filter(|(_, owner)| **owner == name).map(|(ns, _)| ns.clone()).collect();
        let tried: Vec<String> = owned.iter().take(TRIED).cloned().collect();
        let start = Instant::now();
        scenario.fleet.replica(&name).terminate();
        let (_, last) = scenario.act_in(&tried, start).await;
        slowest = slowest.max(last);
        scenario.fleet.replica(&name).ended(SOON).await;
        let meanwhile = scenario.owners().await;
        for (namespace, owner) in &home {
            let there = meanwhile[namespace] == *owner;
            assert_eq!(there, *owner != name, "{namespace} of {owner} while {name} restarts");
        }
        scenario.fleet.replica(&name).start();
        scenario.fleet.replica(&name).ready().await;
        assert_eq!(scenario.owners().await, home, "everything is back where it was after {name}");
        moved += owned.len();
    }
    figure(&format!(
        "ownership, {against:?} API server, rolling restart of {REPLICAS}: {moved} of {NAMESPACES} namespaces moved to \
         stand-ins and back, 0 others; {TRIED} namespaces of each acted on by stand-ins after {} ms at most",
        slowest.as_millis()
    ));
    scenario.nothing_is_left_undone().await;
}

impl Scenario {
    /// Every status is about its object as it is.
    async fn nothing_is_left_undone(&self) {
        within(SOON, "every status is current", async || {
            let objects = self.fleet.tenants.all().await?;
            match objects.iter().find(|object| !crate::fleet::ready(object).is_current()) {
                None => Ok(()),
                Some(object) => Err(format!("{}: {:?}", object.key, crate::fleet::ready(object))),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ownership_moves_only_what_it_must() {
    ownership_moves(Against::Inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ownership_moves_only_what_it_must_on_a_real_api_server() {
    ownership_moves(Against::Real).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_moves_there_and_back_and_nothing_else() {
    rolling_restart(Against::Inside).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_moves_there_and_back_and_nothing_else_on_a_real_api_server() {
    rolling_restart(Against::Real).await;
}
