//! Everything that an API server may answer, do or leave undone: nothing is
//! lost, and afterwards everything is equal.
//!
//! Each trouble hits the replicas only, while tenants go on changing things.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_apiserver::{Effect, Faults, Matcher, Rule, RuleId, Verb};
use flotilla_core::ids::Kind;
use serde_json::json;
use tokio::time::sleep;

use crate::fleet::objects::{answering, backend, leading};
use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, figure, within};
use crate::fleet::{Against, Fleet};

const REPLICAS: usize = 2;

fn namespaces() -> impl Iterator<Item = String> {
    (0..8).map(|number| format!("team-{number}"))
}

struct Scenario {
    fleet: Fleet,
    round: u32,
    /// Up to this round everything has been seen on every gateway.
    settled: u32,
    /// What was deleted, and whether every gateway had it: what comes and goes
    /// while nothing gets through may never reach a gateway.
    deleted: BTreeMap<String, bool>,
}

/// Requests about a resource.
fn about(resource: &str, verbs: &[Verb]) -> Matcher {
    Matcher { verbs: verbs.to_vec(), resource: Some(resource.to_owned()), ..Matcher::default() }
}

fn status(code: u16) -> Effect {
    Effect::Status { code, retry_after: None }
}

const READS: &[Verb] = &[Verb::Get, Verb::List, Verb::Watch];
const WRITES: &[Verb] = &[Verb::Create, Verb::Update, Verb::Patch];

impl Scenario {
    fn faults(&self) -> Faults {
        self.fleet.server.faults().clone()
    }

    /// A rule for each replica.
    fn strike(&self, rule: &Rule) -> Vec<RuleId> {
        let of = |number| {
            let matcher = Matcher { user: Some(replica_user(number)), ..rule.matcher.clone() };
            self.faults().add(Rule { matcher, ..rule.clone() })
        };
        (0..REPLICAS).map(of).collect()
    }

    /// Ends the watches of the replicas, which makes them ask again.
    fn cut(&self, resource: Option<&str>) {
        for number in 0..REPLICAS {
            let matcher = Matcher {
                user: Some(replica_user(number)),
                resource: resource.map(str::to_owned),
                ..Matcher::default()
            };
            self.faults().cut_watches(&matcher);
        }
    }

    /// Something of everything: changes, creations, deletions.
    async fn changes(&mut self) {
        self.round += 1;
        let round = self.round;
        let tenants = &self.fleet.tenants;
        for namespace in namespaces() {
            tenants.change(Kind::ApiRoute, &namespace, "one", json!({"timeout": format!("{round}s")})).await;
        }
        let spec = backend(8080 + u16::try_from(round).unwrap());
        tenants.change(Kind::Backend, "team-1", "api", spec).await;
        let name = format!("extra-{round}");
        tenants.create(Kind::ApiRoute, "team-2", &name, answering("team-2", &name, "x")).await;
        if round > 1 {
            let name = format!("extra-{}", round - 1);
            tenants.delete(Kind::ApiRoute, "team-2", &name).await;
            self.deleted.insert(format!("team-2/{name}"), self.settled >= round - 1);
        }
    }

    /// Lets something go wrong for a while, and sees everything get well.
    async fn trouble(&mut self, name: &str, rules: &[Rule], cut: Option<&str>, lasts: Duration) {
        let struck: Vec<RuleId> = rules.iter().flat_map(|rule| self.strike(rule)).collect();
        if cut.is_some() {
            self.cut(cut.filter(|resource| !resource.is_empty()));
        }
        self.changes().await;
        sleep(lasts).await;
        let hits: u64 = struck.iter().map(|rule| self.faults().hits(*rule)).sum();
        assert!(hits > 0, "{name}: nothing went wrong");
        self.faults().clear();
        self.well_again(name, hits).await;
    }

    async fn well_again(&mut self, name: &str, hits: u64) {
        let took = self.fleet.settled().await;
        figure(&format!("API errors: {name} ({hits} times): equal {} ms after its end", took.as_millis()));
        self.fleet.nothing_went_back().await;
        self.settled = self.round;
        self.only_what_was_deleted_is_removed(name);
        let map = self.fleet.map_of_running().await;
        assert_eq!(map.members.len(), REPLICAS, "{name}");
    }
}

impl Scenario {
    /// Every gateway has removed what was deleted, once, and nothing else.
    fn only_what_was_deleted_is_removed(&self, name: &str) {
        let removed = self.fleet.removed();
        let per_key =
            |key: &str| removed.iter().filter(|line| line.contains(&format!(" {key} from "))).count();
        let gateways = self.fleet.gateway_count();
        for (key, had) in &self.deleted {
            let times = per_key(key);
            assert!(
                times == gateways || !had && times < gateways,
                "{name}: {key} {times} times: {removed:?}"
            );
        }
        assert_eq!(removed.iter().collect::<BTreeSet<_>>().len(), removed.len(), "{name}: {removed:?}");
        let deleted: usize = self.deleted.keys().map(|key| per_key(key)).sum();
        assert_eq!(deleted, removed.len(), "{name}: nobody deleted some of {removed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_the_api_server_lose_nothing() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(namespaces()).await;
    let backends = namespaces().map(|namespace| (namespace, "api".to_owned(), backend(8080)));
    fleet.tenants.create_all(Kind::Backend, backends).await;
    let routes = namespaces()
        .map(|namespace| (namespace.clone(), "one".to_owned(), leading(&namespace, "one", "api")));
    fleet.tenants.create_all(Kind::ApiRoute, routes).await;
    fleet.add_replicas(REPLICAS).await;
    fleet.add_gateways("gateway", 3).await;
    fleet.settled().await;
    let mut scenario = Scenario { fleet, round: 0, settled: 0, deleted: BTreeMap::new() };
    let second = Duration::from_secs(1);

    scenario.a_forbidden_kind_holds_up_no_other().await;
    let denied = [Rule::new(about("apiroutes", READS), status(401))];
    scenario.trouble("401 for one kind", &denied, Some("apiroutes"), 2 * second).await;

    let leases = [Rule::new(about("leases", WRITES), status(409)).times(4)];
    scenario.trouble("409 for Leases", &leases, None, 2 * second).await;
    let statuses = Matcher { subresource: Some("status".to_owned()), ..Matcher::default() };
    let conflicts = [Rule::new(statuses.clone(), status(409)).times(10)];
    scenario.trouble("409 for statuses", &conflicts, None, second).await;

    let gone = [Rule::new(Matcher { verbs: vec![Verb::Watch], ..Matcher::default() }, status(410)).times(12)];
    scenario.trouble("410 for watches", &gone, Some(""), 3 * second).await;
    let busy = |matcher| Rule::new(matcher, Effect::Status { code: 429, retry_after: Some(1) });
    let reads = Matcher { verbs: READS.to_vec(), ..Matcher::default() };
    let throttled = [busy(statuses.clone()).times(10), busy(reads).times(8)];
    scenario.trouble("429 with Retry-After", &throttled, Some(""), 2 * second).await;

    let broken = [Rule::new(Matcher::default(), status(500))];
    scenario.trouble("500 for everything", &broken, Some(""), 3 * second).await;
    let away = [Rule::new(Matcher::default(), status(503))];
    scenario.trouble("503 for longer than a Lease", &away, Some(""), 8 * second).await;
    let slow = [Rule::new(Matcher::default(), Effect::Delay(second / 2))];
    scenario.trouble("slow answers", &slow, Some(""), 3 * second).await;
    let lost = [
        Rule::new(statuses, Effect::LoseAnswer).times(6),
        Rule::new(about("leases", WRITES), Effect::LoseAnswer).times(2),
    ];
    scenario.trouble("answers that are lost", &lost, None, 2 * second).await;
    let late = [Rule::new(Matcher::default(), Effect::DelayEvents(2 * second))];
    scenario.trouble("late events", &late, None, second).await;
    let cut = [Rule::new(about("apiroutes", &[]), Effect::CutWatch).times(6)];
    scenario.trouble("watches cut at an event", &cut, None, 2 * second).await;

    scenario.watches_that_are_cut_again_and_again().await;
    scenario.events_that_are_dropped().await;
}

impl Scenario {
    /// While one kind is denied, changes of another one still get through.
    async fn a_forbidden_kind_holds_up_no_other(&mut self) {
        let denied = self.strike(&Rule::new(about("backends", READS), status(403)));
        self.cut(Some("backends"));
        let hits = within(SOON, "backends are denied", async || {
            let hits: u64 = denied.iter().map(|rule| self.faults().hits(*rule)).sum();
            (hits >= REPLICAS as u64).then_some(hits).ok_or_else(|| format!("{hits} times"))
        })
        .await;
        self.changes().await;
        let generation = self.fleet.tenants.status(Kind::ApiRoute, "team-3", "one").await.unwrap().generation;
        within(SOON, "a route reaches the gateways although backends are denied", async || {
            let events = self.fleet.gateways[0].events.all();
            let got =
                events.iter().filter(|event| event.key == "team-3/one" && event.generation == generation);
            let count = got.count();
            (count == 3).then_some(()).ok_or_else(|| format!("{count} have it"))
        })
        .await;
        // It says what is the matter, and what to do.
        for replica in &self.fleet.replicas {
            let said = replica.log_lines(&["backends", "RBAC"]);
            assert!(!said.is_empty(), "{} says nothing about it", replica.name);
        }
        self.faults().clear();
        self.well_again("403 for one kind", hits).await;
    }

    async fn watches_that_are_cut_again_and_again(&mut self) {
        for _ in 0..4 {
            self.changes().await;
            self.cut(None);
            sleep(Duration::from_millis(300)).await;
        }
        self.well_again("watches cut again and again", 4).await;
    }

    /// An API server that loses an event owes it until the next list. What a
    /// list shows differently is a change, also when its event never came.
    async fn events_that_are_dropped(&mut self) {
        let routes = about("apiroutes", &[]);
        let dropped = self.strike(&Rule::new(routes, Effect::DropEvent));
        self.changes().await;
        let hits: u64 = dropped.iter().map(|rule| self.faults().hits(*rule)).sum();
        assert!(hits > 0, "no event was dropped");
        self.faults().clear();
        // A change afterwards moves the watches beyond the lost events for good.
        self.fleet.tenants.change(Kind::ApiRoute, "team-7", "one", json!({"timeout": "77s"})).await;
        within(SOON, "the gateways get the change after the lost ones", async || {
            let events = self.fleet.gateways[0].events.all();
            let generation = self.fleet.tenants.status(Kind::ApiRoute, "team-7", "one").await?.generation;
            let got =
                events.iter().filter(|event| event.key == "team-7/one" && event.generation == generation);
            let count = got.count();
            (count == 3).then_some(()).ok_or_else(|| format!("{count} have it"))
        })
        .await;
        let gone = self.strike(&Rule::new(about("apiroutes", &[Verb::Watch]), status(410)).times(1));
        self.cut(Some("apiroutes"));
        within(SOON, "every replica lists again", async || {
            let hits: u64 = gone.iter().map(|rule| self.faults().hits(*rule)).sum();
            (hits == REPLICAS as u64).then_some(()).ok_or_else(|| format!("{hits} were told to"))
        })
        .await;
        self.well_again("dropped events, then a list", hits).await;
    }
}
