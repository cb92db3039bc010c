//! A fleet in a simulated network, driven step by step from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use flotilla_apiserver::{ApiServer, Effect, Matcher, Rule, RuleId, Verb};
use flotilla_core::ids::GatewayId;
use flotilla_gateway::{Fleet as Gateways, FleetOptions, Gateway, GatewayOptions, OperatorAddress};
use turmoil::{Builder, Sim};

use crate::api::{self, Desk, Edit, REPLICA};
use crate::network::dial;
use crate::pki::Pki;
use crate::replica::{self, GATEWAYS, Report};

/// Names of the replicas' hosts.
pub const MEMBERS: [&str; 3] = ["a", "b", "c"];
/// Name of the gateway's host.
const GATEWAY: &str = "gateway";
/// How much time one step is.
const STEP: Duration = Duration::from_millis(10);

/// How large a fleet is.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Replicas, at most as many as [`MEMBERS`].
    pub replicas: usize,
    /// Namespaces, with one route in each.
    pub namespaces: usize,
}

/// The seeds to try: `FLOTILLA_SIM_SEED` alone if it is set, or the first
/// `FLOTILLA_SIM_SEEDS` (`usual` if unset).
pub fn seeds(usual: u64) -> impl Iterator<Item = u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("FLOTILLA_SIM_SEED") {
        Some(seed) => seed..seed.saturating_add(1),
        None => 0..number("FLOTILLA_SIM_SEEDS").unwrap_or(usual),
    }
}

/// Which namespaces (by index) each running replica acts on, as of this step.
type Acting = Arc<Mutex<BTreeMap<String, Vec<bool>>>>;

/// See the module's description.
pub struct Fleet {
    seed: u64,
    sim: Sim<'static>,
    shape: Shape,
    random: u64,
    desk: Desk,
    acting: Acting,
    gateway: Arc<OnceLock<Arc<Gateway>>>,
    restarted: Arc<AtomicU32>,
    /// Per route the newest content that the gateway held.
    newest: BTreeMap<String, u32>,
}

impl Fleet {
    /// A fleet that starts with the simulation.
    ///
    /// # Errors
    /// When no certificates can be made.
    pub fn new(seed: u64, shape: Shape) -> anyhow::Result<Fleet> {
        let mut sim = Builder::new()
            .rng_seed(seed)
            .tick_duration(STEP)
            .simulation_duration(Duration::from_secs(4 * 3600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(4096)
            // A connection that is refused keeps its port for ever here, and an hour
            // without an API server is full of them.
            .ephemeral_ports(10_000..=65_535)
            // The embedded API server also listens on a real port.
            .enable_tokio_io()
            .build();
        let pki = Arc::new(Pki::new()?);
        let namespaces: Vec<String> = (0..shape.namespaces).map(namespace).collect();
        let desk = Desk::default();
        {
            let (desk, namespaces) = (desk.clone(), namespaces.clone());
            sim.host("api", move || api::run(desk.clone(), namespaces.clone()));
        }
        let (acting, restarted) = (Acting::default(), Arc::<AtomicU32>::default());
        for member in MEMBERS.iter().copied().take(shape.replicas) {
            let (pki, namespaces, told) = (pki.clone(), namespaces.clone(), acting.clone());
            let (processes, restarted) = (Arc::new(AtomicU32::new(0)), restarted.clone());
            let report: Report = Arc::new(move |member, acts| {
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(member.to_owned(), acts);
            });
            sim.host(member, move || {
                let process = processes.fetch_add(1, Ordering::Relaxed) + 1;
                let (pki, namespaces) = (pki.clone(), namespaces.clone());
                replica::run(member, process, pki, namespaces, report.clone(), restarted.clone())
            });
        }
        let gateway = Arc::new(OnceLock::new());
        let (shown, tls) = (gateway.clone(), pki.gateway("edge", "gateway-0")?);
        let operators: Vec<OperatorAddress> = MEMBERS
            .iter()
            .take(shape.replicas)
            .map(|member| OperatorAddress { host: (*member).to_owned(), port: GATEWAYS })
            .collect();
        sim.host(GATEWAY, move || {
            let (shown, tls, operators) = (shown.clone(), tls.clone(), operators.clone());
            async move {
                let id = GatewayId { namespace: "edge".into(), name: "gateway-0".into() };
                let options =
                    GatewayOptions { dial: dial(), ..GatewayOptions::new(id, operators, Some(tls)) };
                let fleet = Gateways::start(vec![options], FleetOptions::default()).await?;
                if let Some(gateway) = fleet.gateways().first() {
                    shown.get_or_init(|| gateway.clone());
                }
                fleet.run_until(tokio_util::sync::CancellationToken::new()).await?;
                Ok(())
            }
        });
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let newest = BTreeMap::new();
        Ok(Fleet { seed, sim, shape, random, desk, acting, gateway, restarted, newest })
    }

    /// A number below `bound`, by the seed.
    pub fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }

    /// The simulated network, for faults.
    pub fn network(&mut self) -> &mut Sim<'static> {
        &mut self.sim
    }

    /// The API server, for its revision.
    ///
    /// # Errors
    /// Before the fleet has settled.
    pub fn api(&self) -> anyhow::Result<Arc<ApiServer>> {
        self.desk.server().context("the API server is not set up yet")
    }

    /// From now on this happens to the replicas' requests of these verbs about a
    /// resource; their watches of it are cut, so that they ask again.
    ///
    /// # Errors
    /// Before the fleet has settled.
    pub fn trouble(&mut self, resource: &str, verbs: &[Verb], effect: Effect) -> anyhow::Result<RuleId> {
        let matcher = |verbs: &[Verb]| Matcher {
            verbs: verbs.to_vec(),
            resource: Some(resource.to_owned()),
            user: Some(REPLICA.to_owned()),
            ..Matcher::default()
        };
        let api = self.api()?;
        let rule = api.faults().add(Rule::new(matcher(verbs), effect));
        api.faults().cut_watches(&matcher(&[]));
        Ok(rule)
    }

    /// Ends a replica from one moment to the next.
    pub fn crash(&mut self, member: &str) {
        self.sim.crash(member);
        self.acting.lock().unwrap_or_else(PoisonError::into_inner).remove(member);
    }

    /// Starts it again.
    pub fn start(&mut self, member: &str) {
        self.sim.bounce(member);
    }

    /// Writes the backend and the route of every namespace anew.
    pub fn write(&mut self, number: u32) {
        for index in 0..self.shape.namespaces {
            let port = 8000 + u16::try_from(number % 1000).unwrap_or_default();
            self.desk.ask(Edit::Backend { namespace: namespace(index), number: port });
            self.desk.ask(Edit::Route { namespace: namespace(index), name: "route".to_owned(), number });
        }
    }

    /// Pins a namespace to a member.
    pub fn pin(&mut self, index: usize, member: &str) {
        self.desk.ask(Edit::Pin { namespace: namespace(index), member: member.to_owned() });
    }

    /// Lets everything start, and a first content reach the gateway.
    ///
    /// # Errors
    /// When that takes too long, or a promise is broken.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        self.until("the API server", 30, |fleet| fleet.desk.server().is_some())?;
        self.write(1);
        self.until("the first content", 60, |fleet| fleet.holds(1))?;
        self.until("owners of all namespaces", 60, Fleet::is_owned)?;
        Ok(())
    }

    /// Whether the gateway holds this content everywhere.
    pub fn holds(&self, number: u32) -> bool {
        let held = self.held();
        held.len() == self.shape.namespaces && held.values().all(|held| *held == number)
    }

    /// Whether every namespace is acted on.
    pub fn is_owned(&self) -> bool {
        (0..self.shape.namespaces).all(|index| !self.actors(index).is_empty())
    }

    /// Who acts on a namespace.
    pub fn actors(&self, index: usize) -> Vec<String> {
        let acting = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        let acts = |acts: &Vec<bool>| acts.get(index).copied().unwrap_or(false);
        acting.iter().filter(|(_, own)| acts(own)).map(|(member, _)| member.clone()).collect()
    }

    /// The replica at which the gateway registered last.
    pub fn server(&self) -> Option<&'static str> {
        let session = self.gateway.get()?.link().session;
        MEMBERS.iter().copied().find(|member| session.starts_with(&format!("{member}/")))
    }

    /// The gateway itself.
    pub fn gateway(&self) -> Option<&Arc<Gateway>> {
        self.gateway.get()
    }

    /// How often a replica could not tell what the gateway lacked, and had to give it
    /// everything anew.
    pub fn restarted(&self) -> u32 {
        self.restarted.load(Ordering::Relaxed)
    }

    /// An error when anything was ever taken from the gateway, or a snapshot sent
    /// that would have: nobody deletes anything here.
    ///
    /// # Errors
    /// What happened.
    pub fn nothing_was_taken(&self) -> anyhow::Result<()> {
        let stats = self.gateway.get().context("there is no gateway yet")?.stats();
        let taken = [stats.deletions, stats.removed_by_full_sync, stats.guard_ignored, stats.regressions];
        anyhow::ensure!(taken == [0; 4], "FLOTILLA_SIM_SEED={}: {stats:?}", self.seed);
        Ok(())
    }

    fn held(&self) -> BTreeMap<String, u32> {
        let Some(gateway) = self.gateway.get() else { return BTreeMap::new() };
        let number = |spec: &[u8]| {
            let (_, rest) = std::str::from_utf8(spec).ok()?.split_once("\"prefix\":\"/")?;
            rest.split('"').next()?.parse().ok()
        };
        let held = gateway.view().held;
        held.iter()
            .filter_map(|resource| Some((resource.key.to_string(), number(&resource.spec_json)?)))
            .collect()
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When a promise is broken.
    pub fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Lets time pass until something holds.
    ///
    /// # Errors
    /// When it does not within so many simulated seconds, or a promise is broken.
    pub fn until(
        &mut self,
        what: &str,
        seconds: u64,
        holds: impl Fn(&Fleet) -> bool,
    ) -> anyhow::Result<Duration> {
        let began = self.sim.elapsed();
        while !holds(self) {
            let waited = self.sim.elapsed() - began;
            anyhow::ensure!(
                waited < Duration::from_secs(seconds),
                "FLOTILLA_SIM_SEED={}: {what} did not come within {seconds} simulated seconds; gateway: {:?} {:?}",
                self.seed,
                self.gateway.get().map(|gateway| gateway.link()),
                self.held(),
            );
            self.step()?;
        }
        Ok(self.sim.elapsed() - began)
    }

    fn step(&mut self) -> anyhow::Result<()> {
        self.sim.step().map_err(|error| anyhow::anyhow!("FLOTILLA_SIM_SEED={}: {error}", self.seed))?;
        let at = self.sim.elapsed();
        for index in 0..self.shape.namespaces {
            let actors = self.actors(index);
            anyhow::ensure!(
                actors.len() <= 1,
                "FLOTILLA_SIM_SEED={}: I1 broken at {at:?}: {actors:?} act on {}",
                self.seed,
                namespace(index)
            );
        }
        let held = self.held();
        for (key, number) in &self.newest {
            let now = held.get(key);
            anyhow::ensure!(
                now.is_some_and(|now| now >= number),
                "FLOTILLA_SIM_SEED={}: I2 or I4 broken at {at:?}: {key} went from {number} to {now:?}",
                self.seed
            );
        }
        self.newest = held;
        Ok(())
    }
}

fn namespace(index: usize) -> String {
    format!("team-{index}")
}
