//! Many writes of the same match at the same moment, through different replicas:
//! one is admitted (I8). `FLOTILLA_ADMISSION_ROUNDS` asks for more rounds.

use flotilla_core::ids::Kind;
use flotilla_core::shardmap::Ownership;
use futures::future::join_all;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, figure, within};
use crate::fleet::{Against, Fleet, webhooks};

const NAMESPACE: &str = "race";
const OTHER: &str = "another";
const REPLICAS: usize = 3;
const AT_ONCE: usize = 50;

fn rounds(usual: usize) -> usize {
    let asked = std::env::var("FLOTILLA_ADMISSION_ROUNDS").ok();
    asked.map_or(usual, |text| text.parse().unwrap())
}

fn matching(path: &str) -> Value {
    let mut spec = answering(NAMESPACE, "x", "hi");
    spec["match"] = json!([{"uri": {"prefix": path}}]);
    spec
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Admitted,
    Duplicate,
    /// The replica that was to be asked was gone.
    Unanswered,
    Other(String),
}

fn fate<T>(result: Result<T, kube::Error>) -> Fate {
    match result {
        Ok(_) => Fate::Admitted,
        Err(kube::Error::Api(status)) if status.message.contains("duplicate route match found") => {
            Fate::Duplicate
        }
        Err(kube::Error::Api(status)) if status.message.contains("failed calling webhook") => {
            Fate::Unanswered
        }
        Err(error) => Fate::Other(error.to_string()),
    }
}

/// Creates a route through one replica.
async fn create(fleet: &Fleet, name: &str, via: usize, path: &str, dry_run: bool) -> Fate {
    create_in(fleet, NAMESPACE, name, via, path, dry_run).await
}

async fn create_in(
    fleet: &Fleet,
    namespace: &str,
    name: &str,
    via: usize,
    path: &str,
    dry_run: bool,
) -> Fate {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": "APIRoute",
        "metadata": {"name": name, "namespace": namespace, "labels": {(webhooks::VIA): via.to_string()}},
        "spec": matching(path),
    }))
    .unwrap();
    let parameters = PostParams { dry_run, ..PostParams::default() };
    fate(fleet.tenants.api(Kind::ApiRoute, namespace).create(&parameters, &object).await)
}

/// Creates an Ingress that becomes a route like that, through one replica.
async fn create_ingress(fleet: &Fleet, name: &str, via: usize, path: &str) -> Fate {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress: Ingress = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {(webhooks::VIA): via.to_string()}},
        "spec": {
            "ingressClassName": "avapigw",
            "rules": [{"http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}],
        },
    }))
    .unwrap();
    let api = Api::<Ingress>::namespaced(fleet.client(), NAMESPACE);
    fate(api.create(&PostParams::default(), &ingress).await)
}

/// Fifty creations of the same match at once, in these namespaces.
async fn race(fleet: &Fleet, round: usize, namespaces: &[&str]) -> Vec<Fate> {
    let path = format!("/round-{round}");
    let one = |number: usize| {
        let (name, path) = (format!("r{round}-{number}"), &path);
        let namespace = namespaces[number % namespaces.len()];
        async move { create_in(fleet, namespace, &name, number % REPLICAS, path, false).await }
    };
    join_all((0..AT_ONCE).map(one)).await
}

fn count(fates: &[Fate], wanted: &Fate) -> usize {
    fates.iter().filter(|fate| *fate == wanted).count()
}

async fn start(flags: &[&str]) -> Option<Fleet> {
    let mut fleet = Fleet::start(Against::Real).await?;
    fleet.tenants.namespaces([NAMESPACE, OTHER].map(str::to_owned)).await;
    fleet.add_replicas_with(REPLICAS, flags).await;
    webhooks::ask_by_label(&fleet).await;
    // Until the API server asks all of them.
    fleet.tenants.create(Kind::ApiRoute, NAMESPACE, "first", matching("/first")).await;
    for via in 0..REPLICAS {
        asked(&fleet, via).await;
    }
    Some(fleet)
}

/// Waits until a replica is asked and answers.
async fn asked(fleet: &Fleet, via: usize) {
    within(SOON, &format!("replica {via} is asked"), async || {
        match create(fleet, "second", via, "/first", true).await {
            Fate::Duplicate => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Nobody's status says that another object comes first.
async fn nobody_lost(fleet: &Fleet) {
    within(SOON, "all routes are valid", async || {
        let mut routes = fleet.tenants.all().await?.into_iter();
        let lost = routes.find(|route| !String::from_utf8_lossy(&route.status).contains("ValidationPassed"));
        lost.map_or(Ok(()), |route| Err(format!("{}: {:?}", route.key, crate::fleet::ready(&route))))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_simultaneous_creations_of_a_match_one_is_admitted() {
    let Some(mut fleet) = start(&[]).await else { return };
    let rounds = rounds(5);
    for round in 0..rounds {
        let fates = race(&fleet, round, &[NAMESPACE]).await;
        let told = (count(&fates, &Fate::Admitted), count(&fates, &Fate::Duplicate));
        assert_eq!(told, (1, AT_ONCE - 1), "round {round}: {fates:?}");
    }
    // Those that are there already, and all want the same now.
    let path = "/wanted-by-all";
    for number in 0..9 {
        let fate =
            create(&fleet, &format!("u{number}"), number % REPLICAS, &format!("/u{number}"), false).await;
        assert_eq!(fate, Fate::Admitted);
    }
    let api = fleet.tenants.api(Kind::ApiRoute, NAMESPACE);
    let change = |number: usize| {
        let (api, patch) = (api.clone(), Patch::Merge(json!({"spec": matching(path)})));
        async move { fate(api.patch(&format!("u{number}"), &PatchParams::default(), &patch).await) }
    };
    let fates = join_all((0..9).map(change)).await;
    assert_eq!((count(&fates, &Fate::Admitted), count(&fates, &Fate::Duplicate)), (1, 8), "{fates:?}");
    nobody_lost(&fleet).await;
    fleet.check().unwrap();
    let mut by = Vec::new();
    for who in ["owner", "stand_in", "alone"] {
        let mut sum = 0.0;
        for replica in &fleet.replicas {
            sum += replica.metric("flotilla_admission_decisions_total", who).await.unwrap();
        }
        by.push(format!("{who} {sum}"));
    }
    figure(&format!(
        "{rounds} rounds of {AT_ONCE} creations, one admitted in each; decided by {}",
        by.join(", ")
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_simultaneous_routes_and_ingresses_with_a_match_one_is_admitted() {
    let Some(mut fleet) = start(&["--enable-ingress-controller=true"]).await else { return };
    let (rounds, mut ingresses) = (rounds(4), 0);
    for round in 0..rounds {
        let path = format!("/both-{round}");
        let one = |number: usize| {
            let (fleet, path, name) = (&fleet, &path, format!("b{round}-{number}"));
            let via = number % REPLICAS;
            async move {
                match number % 2 {
                    0 => create(fleet, &name, via, path, false).await,
                    _ => create_ingress(fleet, &name, via, path).await,
                }
            }
        };
        let fates = join_all((0..AT_ONCE).map(one)).await;
        let told = (count(&fates, &Fate::Admitted), count(&fates, &Fate::Duplicate));
        assert_eq!(told, (1, AT_ONCE - 1), "round {round}: {fates:?}");
        ingresses += fates.iter().position(|fate| *fate == Fate::Admitted).unwrap() % 2;
    }
    nobody_lost(&fleet).await;
    fleet.check().unwrap();
    figure(&format!(
        "{rounds} rounds of {AT_ONCE} creations, one admitted in each, {ingresses} times an Ingress"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_simultaneous_creations_in_two_namespaces_one_is_admitted_when_both_count() {
    let Some(mut fleet) = start(&["--enable-cluster-wide-duplicate-check=true"]).await else { return };
    for round in 0..rounds(2) {
        let fates = race(&fleet, round, &[NAMESPACE, OTHER, NAMESPACE]).await;
        let told = (count(&fates, &Fate::Admitted), count(&fates, &Fate::Duplicate));
        assert_eq!(told, (1, AT_ONCE - 1), "round {round}: {fates:?}");
    }
    nobody_lost(&fleet).await;
    fleet.check().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_simultaneous_creations_one_is_admitted_while_the_owner_is_killed() {
    let Some(mut fleet) = start(&[]).await else { return };
    let rounds = rounds(2);
    let mut unanswered = 0;
    for round in 0..rounds {
        let map = fleet.map_of_running().await;
        let owner = Ownership::new(map).owner(NAMESPACE).unwrap().to_string();
        let place = fleet.replicas.iter().position(|replica| replica.name == owner).unwrap();
        let mut victim = fleet.replicas.swap_remove(place);
        // In the middle: at once, or when some have been answered already.
        let after = std::time::Duration::from_millis(round as u64 % 10 * 5);
        let kill = async {
            tokio::time::sleep(after).await;
            victim.kill().await;
        };
        let (fates, ()) = tokio::join!(race(&fleet, round, &[NAMESPACE]), kill);
        fleet.replicas.push(victim);
        let last = fleet.replicas.len() - 1;
        fleet.replicas.swap(place, last);
        let admitted = count(&fates, &Fate::Admitted);
        let told = admitted + count(&fates, &Fate::Duplicate) + count(&fates, &Fate::Unanswered);
        assert_eq!((admitted, told), (1, AT_ONCE), "round {round}, killed after {after:?}: {fates:?}");
        unanswered += count(&fates, &Fate::Unanswered);
        fleet.replicas[place].start();
        fleet.replicas[place].ready().await;
        asked(&fleet, place).await;
    }
    nobody_lost(&fleet).await;
    fleet.check().unwrap();
    figure(&format!(
        "{rounds} rounds of {AT_ONCE} creations with the owner killed, one admitted in each; {unanswered} in all \
         were not answered by the one that was killed"
    ));
}
