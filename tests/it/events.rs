//! What people are told by Events: once, when something turned, and nothing of changes that go well, of restarts, or of
//! gateways that come and go.

use std::time::Duration;

use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use flotilla_core::ids::Kind;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::objects::{answering, leading};
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet};

const NAMESPACE: &str = "team";

/// Reason, type and message of all events about an object, in the order in which they were written.
async fn told(fleet: &Fleet, kind: &str, name: &str) -> Vec<[String; 3]> {
    let listed =
        Api::<Event>::namespaced(fleet.client(), NAMESPACE).list(&ListParams::default()).await.unwrap();
    let about = |event: &Event| {
        let object = &event.involved_object;
        assert!(object.uid.is_some() && object.namespace.as_deref() == Some(NAMESPACE), "{event:?}");
        (object.kind.as_deref(), object.name.as_deref()) == (Some(kind), Some(name))
    };
    let mut events: Vec<Event> = listed.items.into_iter().filter(about).collect();
    events.sort_by_key(|event| event.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap());
    let words = |event: Event| [event.reason, event.type_, event.message].map(Option::unwrap);
    events.into_iter().map(words).collect()
}

fn reasons(told: &[[String; 3]]) -> Vec<&str> {
    told.iter().map(|[reason, ..]| reason.as_str()).collect()
}

/// Waits until these are all the events about an object.
async fn are_told(fleet: &Fleet, kind: &str, name: &str, wanted: &[&str]) -> Vec<[String; 3]> {
    within(SOON, &format!("{kind} {name}: {wanted:?}"), async || {
        let told = told(fleet, kind, name).await;
        (reasons(&told) == wanted).then(|| told.clone()).ok_or_else(|| format!("{told:?}"))
    })
    .await
}

/// Waits until whatever was to be told is told: a replica writes events one after the other, and all that are about this
/// namespace are of one replica.
async fn all_is_told(fleet: &mut Fleet, mark: &str) {
    fleet.tenants.create(Kind::ApiRoute, NAMESPACE, mark, answering(NAMESPACE, mark, "x")).await;
    fleet.settled().await;
    are_told(fleet, "APIRoute", mark, &["Reconciled"]).await;
}

/// All replicas and all gateways start anew, and know each other again: while nobody knows a
/// gateway, what is created has no gateway to be applied to, which is no news later.
async fn restarted(fleet: &mut Fleet) {
    fleet.restart_all().await;
    // Whoever begins to act on a namespace does not tell again what was told there in these words.
    fleet.map_of_running().await;
    fleet.tenants.create(Kind::ApiRoute, NAMESPACE, "again", answering(NAMESPACE, "again", "x")).await;
    fleet.settled().await;
}

async fn fleet() -> Fleet {
    let mut fleet = Fleet::start(Against::Inside).await.unwrap();
    fleet.tenants.namespaces([NAMESPACE.to_owned()]).await;
    fleet.add_replicas_with(2, &["--enable-ingress-controller=true"]).await;
    fleet.add_gateways("gateway", 3).await;
    // Replicas know the gateways before anything is told: of what is created before that nothing would be.
    fleet.tenants.create(Kind::ApiRoute, NAMESPACE, "first", answering(NAMESPACE, "first", "x")).await;
    fleet.settled().await;
    fleet
}

async fn nothing_was_dropped(fleet: &Fleet) {
    for replica in &fleet.replicas {
        for result in ["dropped", "failed"] {
            assert_eq!(replica.metric("flotilla_events_total", result).await.unwrap(), 0.0, "{result}");
        }
    }
}

fn wrong() -> Value {
    let mut spec = leading(NAMESPACE, "route", "api");
    spec["route"] = json!([
        {"destination": {"host": "api", "port": 8080}, "weight": 30},
        {"destination": {"host": "other", "port": 8080}, "weight": 30},
    ]);
    spec["directResponse"] = Value::Null;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_turns_is_told_once_and_valid_changes_are_not() {
    let mut fleet = fleet().await;
    fleet.tenants.create(Kind::ApiRoute, NAMESPACE, "route", answering(NAMESPACE, "route", "0")).await;
    let born = are_told(&fleet, "APIRoute", "route", &["Reconciled"]).await;
    assert_eq!(born[0][1..], ["Normal".to_owned(), "Route successfully applied to 3 gateways".to_owned()]);

    for number in 1..=20 {
        let body = number.to_string();
        fleet.tenants.change(Kind::ApiRoute, NAMESPACE, "route", answering(NAMESPACE, "route", &body)).await;
        if number % 2 == 0 {
            fleet.settled().await;
        }
    }
    all_is_told(&mut fleet, "mark-1").await;
    assert_eq!(told(&fleet, "APIRoute", "route").await, born);

    fleet.tenants.change(Kind::ApiRoute, NAMESPACE, "route", wrong()).await;
    let told_wrong = are_told(&fleet, "APIRoute", "route", &["Reconciled", "ReconcileFailed"]).await;
    let [_, type_, message] = &told_wrong[1];
    assert!(type_ == "Warning" && message.contains("spec.route") && message.contains("60"), "{message}");
    // The same mistake, all replicas anew, and all gateways anew.
    fleet.tenants.change(Kind::ApiRoute, NAMESPACE, "route", json!({"timeout": "20s"})).await;
    restarted(&mut fleet).await;
    all_is_told(&mut fleet, "mark-2").await;
    for (name, wanted) in [("route", &["Reconciled", "ReconcileFailed"][..]), ("mark-1", &["Reconciled"])] {
        assert_eq!(reasons(&told(&fleet, "APIRoute", name).await), wanted, "{name}");
    }

    let mut mended = answering(NAMESPACE, "route", "mended");
    mended["route"] = Value::Null;
    fleet.tenants.change(Kind::ApiRoute, NAMESPACE, "route", mended).await;
    let so_far = ["Reconciled", "ReconcileFailed", "Reconciled"];
    are_told(&fleet, "APIRoute", "route", &so_far).await;

    // What the published operator held is let go at once, or when that works again.
    for name in ["route", "mark-1"] {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": ["apiroute.avapigw.io/finalizer"]}}));
        let routes = fleet.tenants.api(Kind::ApiRoute, NAMESPACE);
        routes.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }
    let held = Matcher {
        verbs: vec![Verb::Patch],
        resource: Some("apiroutes".to_owned()),
        subresource: Some(String::new()),
        name: Some("mark-1".to_owned()),
        ..Matcher::default()
    };
    fleet.server.faults().add(Rule::new(held, Effect::Status { code: 500, retry_after: None }));
    for name in ["mark-1", "route", "mark-2"] {
        fleet.tenants.delete(Kind::ApiRoute, NAMESPACE, name).await;
    }
    let gone = [&so_far[..], &["Deleted"]].concat();
    are_told(&fleet, "APIRoute", "route", &gone).await;
    are_told(&fleet, "APIRoute", "mark-1", &["Reconciled", "CleanupFailed"]).await;
    fleet.server.faults().clear();
    let told_held = are_told(&fleet, "APIRoute", "mark-1", &["Reconciled", "CleanupFailed", "Deleted"]).await;
    assert!(told_held[1][2].contains("apiroute.avapigw.io/finalizer"), "{told_held:?}");
    fleet.settled().await;
    all_is_told(&mut fleet, "mark-3").await;
    assert_eq!(reasons(&told(&fleet, "APIRoute", "route").await), gone);
    assert_eq!(reasons(&told(&fleet, "APIRoute", "mark-2").await), ["Reconciled"], "nobody held it");
    nothing_was_dropped(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_ingress_it_is_told_when_it_turns() {
    let mut fleet = fleet().await;
    let ingresses: Api<Ingress> = Api::namespaced(fleet.client(), NAMESPACE);
    let change = async |patch: Value| {
        ingresses.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    let timeout = |text: &str| json!({"metadata": {"annotations": {"avapigw.io/timeout": text}}});
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "web", "finalizers": ["ingress.avapigw.io/finalizer"]},
        "spec": {"ingressClassName": "avapigw", "rules": [
            {"http": {"paths": [{"path": "/web", "pathType": "Prefix", "backend": backend}]}},
        ]},
    });
    ingresses.create(&PostParams::default(), &serde_json::from_value(ingress).unwrap()).await.unwrap();
    let mut so_far = vec!["IngressReconciled"];
    are_told(&fleet, "Ingress", "web", &so_far).await;
    for number in 1..=5 {
        change(timeout(&format!("{number}s"))).await;
        fleet.settled().await;
    }
    change(timeout("soon")).await;
    so_far.push("IngressConversionFailed");
    are_told(&fleet, "Ingress", "web", &so_far).await;
    // Who comes next finds it as wrong as it was, and knows that it was told.
    restarted(&mut fleet).await;
    let known = async |fleet: &Fleet| {
        let mut known = 0.0;
        for replica in &fleet.replicas {
            known += replica.metric("flotilla_events_total", "known").await?;
        }
        Ok::<f64, String>(known)
    };
    within(SOON, "it is known", async || {
        let known = known(&fleet).await?;
        (known > 0.0).then_some(()).ok_or_else(|| format!("{known}"))
    })
    .await;
    all_is_told(&mut fleet, "mark-1").await;
    assert_eq!(reasons(&told(&fleet, "Ingress", "web").await), so_far);
    for (text, reason) in
        [("9s", "IngressReconciled"), ("soon", "IngressConversionFailed"), ("5s", "IngressReconciled")]
    {
        change(timeout(text)).await;
        so_far.push(reason);
        are_told(&fleet, "Ingress", "web", &so_far).await;
    }
    change(json!({"spec": {"ingressClassName": "another"}})).await;
    so_far.push("IngressClassMismatch");
    are_told(&fleet, "Ingress", "web", &so_far).await;
    change(json!({"spec": {"ingressClassName": "avapigw"}})).await;
    so_far.push("IngressReconciled");
    are_told(&fleet, "Ingress", "web", &so_far).await;

    let held =
        Matcher { verbs: vec![Verb::Patch], resource: Some("ingresses".to_owned()), ..Matcher::default() };
    fleet.server.faults().add(Rule::new(held, Effect::Status { code: 500, retry_after: None }));
    ingresses.delete("web", &DeleteParams::default()).await.unwrap();
    so_far.push("IngressCleanupFailed");
    are_told(&fleet, "Ingress", "web", &so_far).await;
    fleet.server.faults().clear();
    so_far.push("IngressDeleted");
    let all = are_told(&fleet, "Ingress", "web", &so_far).await;
    let warnings: Vec<&str> =
        all.iter().filter(|[_, type_, _]| type_ == "Warning").map(|[reason, ..]| reason.as_str()).collect();
    assert_eq!(warnings, ["IngressConversionFailed", "IngressConversionFailed", "IngressCleanupFailed"]);
    within(Duration::from_secs(20), "it goes", async || {
        let there = ingresses.get_opt("web").await.map_err(|error| error.to_string())?;
        there.map_or(Ok(()), |ingress| Err(format!("{:?}", ingress.metadata)))
    })
    .await;
    all_is_told(&mut fleet, "mark-2").await;
    assert_eq!(reasons(&told(&fleet, "Ingress", "web").await), so_far);
    nothing_was_dropped(&fleet).await;
}
