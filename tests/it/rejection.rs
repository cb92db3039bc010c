//! A resource that gateways reject, and one that is never sent: one tenant's
//! mistake, and nobody else's.

use flotilla_core::ids::Kind;
use serde_json::{Value, json};

use crate::fleet::objects::{Ready, answering, backend, leading};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, http};

fn namespaces() -> impl Iterator<Item = String> {
    (0..5).map(|number| format!("team-{number}"))
}

/// Correct for a gateway in Go, and so for our validation; the reference
/// gateway's regular expressions know no quoting.
fn rejected() -> Value {
    json!([{"uri": {"regex": r"^/\Qa.b\E$", "prefix": null}, "methods": ["GET"]}])
}

/// Waits until an object's status is about its newest state and says this.
async fn says(fleet: &Fleet, name: (&str, &str), status: &str, words: &[&str]) -> Ready {
    within(SOON, &format!("{name:?} says {status} {words:?}"), async || {
        let ready = fleet.tenants.status(Kind::ApiRoute, name.0, name.1).await?;
        let fits = ready.is_current() && ready.status == status;
        let fits = fits && words.iter().all(|word| ready.message.contains(word));
        fits.then(|| ready.clone()).ok_or_else(|| format!("{ready:?}"))
    })
    .await
}

/// What the first gateway of a process holds of a route.
async fn held(fleet: &Fleet, process: usize, key: &str) -> Option<Value> {
    let config = fleet.gateways[process].config().await;
    assert_eq!(config["fully_loaded"], true, "a gateway is not in order");
    config["resources"].as_array().unwrap().iter().find(|resource| resource["key"] == key).cloned()
}

async fn answers(fleet: &Fleet, process: usize, path: &str, body: &str) {
    let (status, text) = http::get(fleet.gateways[process].http, path).await.unwrap();
    assert_eq!((status.as_u16(), text.as_str()), (200, body), "{path}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_resource_isolates_only_itself() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.namespaces(namespaces()).await;
    let backends = namespaces().map(|namespace| (namespace, "api".to_owned(), backend(8080)));
    fleet.tenants.create_all(Kind::Backend, backends).await;
    for name in ["one", "two", "zebra"] {
        let route =
            |namespace: String| (namespace.clone(), name.to_owned(), answering(&namespace, name, "first"));
        fleet.tenants.create_all(Kind::ApiRoute, namespaces().map(route)).await;
    }
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 3).await;
    fleet.settled().await;

    // A good route goes bad, in the midst of good changes before and after it.
    for namespace in namespaces() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "one", answering(&namespace, "one", "second")).await;
        if namespace == "team-2" {
            fleet.tenants.change(Kind::ApiRoute, "team-2", "two", json!({ "match": rejected() })).await;
        }
        fleet
            .tenants
            .change(Kind::ApiRoute, &namespace, "zebra", answering(&namespace, "zebra", "second"))
            .await;
    }
    let words = ["Applied 0/3", "rejected by gateways/gateway-", "regular expression"];
    let bad = says(&fleet, ("team-2", "two"), "False", &words).await;
    assert_eq!(bad.reason, "ApplyFailed", "{bad:?}");
    all_but(&mut fleet, &["team-2/two"], 3).await;
    let last_good = held(&fleet, 0, "team-2/two").await;
    assert_eq!(
        last_good.map(|resource| resource["generation"].clone()),
        Some(json!(1)),
        "its last good state"
    );
    answers(&fleet, 0, "/team-2/two", "first").await;
    answers(&fleet, 0, "/team-2/one", "second").await;
    answers(&fleet, 0, "/team-4/zebra", "second").await;

    // Bad from the beginning, for gateways and for ourselves.
    let mut spec = answering("team-1", "born", "x");
    spec["match"] = json!([{"uri": {"regex": r"^/\Qa.b\E$"}}]);
    fleet.tenants.create(Kind::ApiRoute, "team-1", "born", spec).await;
    let mut spec = leading("team-1", "senseless", "api");
    spec["route"] = json!([
        {"destination": {"host": "api", "port": 8080}, "weight": 30},
        {"destination": {"host": "other", "port": 8080}, "weight": 30},
    ]);
    fleet.tenants.create(Kind::ApiRoute, "team-1", "senseless", spec).await;
    says(&fleet, ("team-1", "born"), "False", &words).await;
    let senseless = says(&fleet, ("team-1", "senseless"), "False", &["spec.route", "60"]).await;
    assert_eq!(senseless.reason, "ValidationFailed", "{senseless:?}");
    // A gateway that starts now is given everything at once, bad ones included.
    fleet.add_gateways("late", 1).await;
    all_but(&mut fleet, &["team-2/two", "team-1/born", "team-1/senseless"], 4).await;
    for (process, key) in [(0, "team-1/born"), (0, "team-1/senseless"), (1, "team-1/born"), (1, "team-2/two")]
    {
        assert_eq!(held(&fleet, process, key).await, None, "{key}");
    }
    answers(&fleet, 1, "/team-4/zebra", "second").await;
    says(&fleet, ("team-2", "two"), "False", &["Applied 0/4", "and 1 more"]).await;

    // Mended, or removed: everything is in order again.
    fleet.tenants.change(Kind::ApiRoute, "team-2", "two", answering("team-2", "two", "mended")).await;
    fleet.tenants.change(Kind::ApiRoute, "team-1", "born", answering("team-1", "born", "mended")).await;
    fleet.tenants.delete(Kind::ApiRoute, "team-1", "senseless").await;
    fleet.settled().await;
    answers(&fleet, 0, "/team-2/two", "mended").await;
    answers(&fleet, 1, "/team-1/born", "mended").await;
    // A gateway holds what it rejects until that is put back: to the last good
    // state, or away when there never was one. Nothing else went away from a
    // gateway that had a configuration; the late one had none, and was given
    // parts of it until the bad ones were found.
    for gateway in fleet.gateways[0].show().await.unwrap() {
        let stats = gateway.stats;
        let steps_back = (stats.regressions, stats.reappeared, stats.removed_by_full_sync);
        assert_eq!(steps_back, (0, 0, 0), "{}: {stats:?}", gateway.name);
    }
    let removed = fleet.gateways[0].events.removed();
    let good: Vec<_> =
        removed.iter().filter(|removed| !removed.starts_with("APIRoute team-1/born from")).collect();
    assert!(good.is_empty(), "removed although nobody deleted it: {good:?}");
}

/// Waits until everything but these routes is applied to all gateways.
async fn all_but(fleet: &mut Fleet, bad: &[&str], gateways: usize) {
    within(SOON, "all others are applied", async || {
        fleet.check()?;
        let objects = fleet.tenants.all().await?;
        let mut others = objects.iter().filter(|object| !bad.contains(&object.key.to_string().as_str()));
        match others.find(|object| !crate::fleet::ready(object).applied_to(gateways)) {
            None => Ok(()),
            Some(object) => Err(format!("{} {}: {:?}", object.kind, object.key, crate::fleet::ready(object))),
        }
    })
    .await;
}
