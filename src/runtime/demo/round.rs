//! One round: changes at a steady rate, a kill in between, and at the end the
//! question whether everything is equal.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::fleet::Fleet;
use super::report::{Kill, Report};
use super::view;
use super::workload::Tenants;
use super::{Book, Says, with_book};
use crate::cli::DemoArgs;

/// How long the tenants work before the kill, and after it.
const BEFORE: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(10);
/// How long everything may take to become equal once changes stop.
const SETTLE: Duration = Duration::from_secs(60);

/// A round and what it works on.
pub struct Round<'a> {
    /// Flags.
    pub args: &'a DemoArgs,
    /// The processes.
    pub fleet: &'a mut Fleet,
    /// What people are told.
    pub says: &'a Says,
    /// The tenants' hands.
    pub tenants: Tenants,
    /// Their namespaces.
    pub namespaces: Vec<String>,
    /// Who has what.
    pub book: Book,
    /// Number of the next change.
    pub next_change: u64,
}

/// Milliseconds since 1970: the gateways are processes of this machine, so
/// their clock is ours.
fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1000.0
}

impl Round<'_> {
    /// Creates what the tenants have at the start, and waits until it is
    /// everywhere.
    pub async fn furnish(&mut self) -> anyhow::Result<()> {
        let made: Vec<usize> = stream::iter(0..self.namespaces.len())
            .map(|index| self.tenants.furnish(index))
            .buffer_unordered(8)
            .try_collect()
            .await?;
        self.says.line(&format!(
            "{} namespaces with {} routes and backends",
            self.namespaces.len(),
            made.iter().sum::<usize>()
        ));
        let problems = self.settle().await?;
        anyhow::ensure!(problems.is_empty(), "the start did not settle: {}", problems.join("; "));
        Ok(())
    }

    /// Tells people how to look at it.
    pub fn hints(&self) {
        let Some(namespace) = self.namespaces.first() else { return };
        self.says.line("");
        self.says.line(&format!("export KUBECONFIG={}", self.fleet.kubeconfig.display()));
        self.says.line("kubectl get apiroutes -A; kubectl get shardmap");
        self.says.line(&format!(
            "kubectl patch apiroute route-0 -n {namespace} --type=merge \
             -p '{{\"spec\":{{\"directResponse\":{{\"status\":200,\"body\":\"changed\\n\"}}}}}}'"
        ));
        if let Some(http) = self.fleet.gateways.first().and_then(|gateway| gateway.addresses.http) {
            self.says.line(&format!("curl http://{http}/{namespace}/0"));
        }
        self.says.line(&format!("logs are in {}", self.fleet.path().display()));
        self.says.line("");
    }

    /// Changes, a kill, changes, and the check.
    pub async fn play(&mut self) -> anyhow::Result<Report> {
        let patches_at_start = self.status_patches().await?;
        self.work(BEFORE).await?;
        let mut problems = self.settle().await?;
        let before = with_book(&self.book, |book| (book.propagation(), book.changes()));
        let patches = self.status_patches().await? - patches_at_start;
        let kill = self.kill().await?;
        problems.extend(self.settle().await?);
        let objects = view::objects(&self.fleet.clients.objects).await?;
        let mut report = Report {
            replicas: self.args.replicas,
            gateways: self.args.gateways,
            namespaces: self.namespaces.len(),
            resources: objects.len(),
            propagation_before_kill_ms: before.0,
            #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
            status_patches_per_change: patches / before.1.max(1) as f64,
            kill,
            statuses_true: view::ready(&objects, self.args.gateways).1.is_none(),
            digests_equal: self.digests_differ(&view::expected_digest(&objects)).await?.is_none(),
            ..Report::default()
        };
        for gateway in &self.fleet.gateways {
            let stats = view::gateway_stats(gateway.addresses.admin).await?;
            report.regressions += stats.regressions + stats.reappeared;
        }
        with_book(&self.book, |book| {
            report.changes = book.changes();
            report.applied_everywhere = book.open() == 0;
            report.propagation_ms = book.propagation();
            report.spurious_deletions = book.spurious_deletions();
        });
        if report.regressions > 0 || report.spurious_deletions > 0 {
            problems.push("a gateway went back, or lost what nobody deleted".to_owned());
        }
        report.problems = problems;
        Ok(report)
    }

    /// Kills the replica that owns the most namespaces, while changes go on.
    async fn kill(&mut self) -> anyhow::Result<Kill> {
        let map = view::shard_map(&self.fleet.clients.objects).await?;
        let owners = view::owners(&map, &self.namespaces);
        let mut count: BTreeMap<&String, usize> = BTreeMap::new();
        for owner in owners.values() {
            *count.entry(owner).or_default() += 1;
        }
        let most = count.iter().max_by_key(|(_, owned)| **owned).map(|(name, _)| (*name).clone());
        let Some(index) = self.fleet.replicas.iter().position(|replica| Some(&replica.name) == most.as_ref())
        else {
            anyhow::bail!("the shard map names no replica of this demo: {map:?}");
        };
        let victim = self.fleet.replicas[index].name.clone();
        let of_victim = count.get(&victim).copied().unwrap_or_default();
        if let Some(mut process) = self.fleet.replicas[index].process.take() {
            process.kill().await?;
        }
        let (killed, killed_ms) = (Instant::now(), now_ms());
        self.says.line(&format!("killed {victim}, the owner of {of_victim} namespaces"));
        // The next change in one of its namespaces.
        let first = with_book(&self.book, |book| book.changes());
        for _ in 0..1000 {
            let number = self.next_change;
            let namespace = usize::try_from(number * 7 % self.namespaces.len() as u64).unwrap_or_default();
            if owners.get(&self.namespaces[namespace]) == Some(&victim) && number % 10 < 3 {
                break;
            }
            self.next_change += 1;
        }
        let answered_ms = self.change().await?;
        self.work(AFTER.saturating_sub(killed.elapsed())).await?;
        let moved = self.namespaces_moved(&owners, &victim).await?;
        let everywhere = self.wait_for_change(first).await;
        // What Kubernetes would have done long ago.
        self.fleet.start_replica(index)?;
        Ok(Kill {
            victim,
            next_change_ms: everywhere.map_or(f64::MAX, |slowest| answered_ms - killed_ms + slowest),
            namespaces_moved: moved,
            namespaces_of_victim: of_victim,
        })
    }

    async fn wait_for_change(&self, index: usize) -> Option<f64> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            if let Some(slowest) = with_book(&self.book, |book| book.everywhere(index)) {
                return Some(slowest);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// How many namespaces have another owner once the victim is out of the map.
    async fn namespaces_moved(
        &self,
        before: &BTreeMap<String, String>,
        victim: &str,
    ) -> anyhow::Result<usize> {
        let until = Instant::now() + SETTLE;
        loop {
            let map = view::shard_map(&self.fleet.clients.objects).await?;
            if !map.members.iter().any(|member| member.name.as_str() == victim) {
                let after = view::owners(&map, &self.namespaces);
                return Ok(after
                    .iter()
                    .filter(|(namespace, owner)| before.get(*namespace) != Some(owner))
                    .count());
            }
            anyhow::ensure!(Instant::now() < until, "{victim} is still in the shard map after {SETTLE:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes changes at the rate asked for.
    async fn work(&mut self, duration: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + duration;
        let mut ticks = interval(Duration::from_secs(1) / self.args.rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while Instant::now() < until {
            ticks.tick().await;
            self.change().await?;
            self.fleet.check()?;
        }
        Ok(())
    }

    /// Makes one change.
    pub async fn one_change(&mut self) -> anyhow::Result<()> {
        self.change().await.map(drop)
    }

    /// Makes one change and says when it was answered.
    async fn change(&mut self) -> anyhow::Result<f64> {
        let number = self.next_change;
        self.next_change += 1;
        let change = self.tenants.change(number).await?;
        let answered = now_ms();
        with_book(&self.book, |book| book.changed(&change, answered));
        Ok(answered)
    }

    /// Waits until every gateway has everything and every status says so;
    /// returns what still does not hold in the end.
    pub async fn settle(&mut self) -> anyhow::Result<Vec<String>> {
        let until = Instant::now() + SETTLE;
        loop {
            let problems = self.unsettled().await?;
            if problems.is_empty() || Instant::now() > until {
                return Ok(problems);
            }
            self.fleet.check()?;
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn unsettled(&self) -> anyhow::Result<Vec<String>> {
        let mut problems = Vec::new();
        with_book(&self.book, |book| {
            problems.extend(book.missing().map(|what| format!("not everywhere: {what}")))
        });
        let objects = view::objects(&self.fleet.clients.objects).await?;
        if let Some(gateway) = self.digests_differ(&view::expected_digest(&objects)).await? {
            problems.push(format!("{gateway} does not hold what the API server holds"));
        }
        let (_, missing) = view::ready(&objects, self.args.gateways);
        problems.extend(missing.map(|what| format!("status: {what}")));
        Ok(problems)
    }

    async fn digests_differ(&self, expected: &str) -> anyhow::Result<Option<String>> {
        for gateway in &self.fleet.gateways {
            if view::digest(gateway.addresses.admin).await? != expected {
                return Ok(Some(gateway.name.clone()));
            }
        }
        Ok(None)
    }

    async fn status_patches(&self) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for replica in self.fleet.replicas.iter().filter(|replica| replica.process.is_some()) {
            sum +=
                view::metric(replica.metrics, "flotilla_status_patches_total", "result=\"written\"").await?;
        }
        Ok(sum)
    }
}
