//! Admission by a real API server: what it is told by a replica reaches those
//! who write.

mod services;

use flotilla_core::ids::Kind;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::examples::HELLO;
use crate::fleet::kubectl::Kubectl;
use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, webhooks};

/// Would create an object; what the API server says against it.
async fn refusal(fleet: &Fleet, kind: Kind, name: &str, spec: Value) -> Option<kube::core::Status> {
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": kind.name(),
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }))
    .unwrap();
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match fleet.tenants.api(kind, "default").create(&parameters, &object).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) => Some(*status),
        other => {
            other.unwrap();
            None
        }
    }
}

/// Waits until a duplicate is refused: configurations and new objects are known a
/// moment later.
async fn refused_as_duplicate(fleet: &Fleet, spec: &Value, other: &str) {
    within(SOON, &format!("a duplicate of {other} is refused"), async || {
        let said = refusal(fleet, Kind::ApiRoute, "invalid-route", spec.clone()).await;
        let status = said.ok_or("it is admitted")?;
        let words = "admission webhook \"vapiroute.avapigw.io\" denied the request: validation failed: ";
        let told = status.message.starts_with(words)
            && status.message.contains("duplicate route match found")
            && status.message.contains(other);
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let cause = causes.iter().any(|cause| cause.field == "spec.match[0]");
        (told && cause).then_some(()).ok_or(status.message)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_are_refused_by_name_among_a_hundred_and_a_thousand_routes() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    fleet.add_replicas(1).await;
    webhooks::ask_the_first(&fleet).await;
    fleet
        .tenants
        .create(
            Kind::ApiRoute,
            "default",
            "api-v1",
            json!({
                "match": [{"uri": {"prefix": "/api/v1"}, "methods": ["GET", "POST"]}],
                "route": [{"destination": {"host": "api-backend", "port": 8080}}],
                "timeout": "30s",
                "retries": {"attempts": 3, "perTryTimeout": "10s"},
            }),
        )
        .await;
    // The example of what is refused has nothing but a match.
    let duplicate = json!({"match": [{"uri": {"prefix": "/api/v1"}}]});
    refused_as_duplicate(&fleet, &duplicate, "default/api-v1").await;

    let mut there = 0;
    for routes in [100, 1_000] {
        let name = |number: usize| format!("r{number}");
        let more = (there..routes)
            .map(|number| ("default".to_owned(), name(number), answering("default", &name(number), "hi")));
        fleet.tenants.create_all(Kind::ApiRoute, more).await;
        there = routes;
        let (last, fresh) = (name(routes - 1), answering("default", "fresh", "hi"));
        refused_as_duplicate(&fleet, &answering("default", &last, "x"), &format!("default/{last}")).await;
        refused_as_duplicate(&fleet, &duplicate, "default/api-v1").await;
        let sample = async |name: &str| fleet.replicas[0].metric(name, "").await.unwrap();
        let (count, seconds) = (
            sample("flotilla_admission_seconds_count").await,
            sample("flotilla_admission_seconds_sum").await,
        );
        for _ in 0..50 {
            assert_eq!(
                refusal(&fleet, Kind::ApiRoute, "fresh", fresh.clone()).await.map(|s| s.message),
                None
            );
        }
        let asked = sample("flotilla_admission_seconds_count").await - count;
        let taken = sample("flotilla_admission_seconds_sum").await - seconds;
        assert!(asked >= 50.0, "the API server asked {asked} times");
        eprintln!("{routes} routes: {:.3} ms per review", taken / asked * 1e3);
    }

    // What is refused for itself, and another kind's endpoint.
    let late = refusal(
        &fleet,
        Kind::ApiRoute,
        "x",
        json!({
            "match": [{"uri": {"prefix": "/x"}}], "timeout": "100h",
            "route": [{"destination": {"host": "a.example", "port": 80}}],
        }),
    )
    .await
    .expect("refused");
    assert!(late.message.contains("validation failed: spec.timeout"), "{}", late.message);

    let Some(kubectl) = Kubectl::find(&fleet.server.kubeconfig(fleet.path(), 0), fleet.path()).await else {
        return;
    };
    let said = kubectl.give(&["apply", "-n", "default", "-f", "-"], HELLO).await;
    assert!(said.contains("hello-backend created") && said.contains("hello-route created"), "{said}");
    let hosts = json!({"hosts": [{"address": "hello-service.default.svc.cluster.local", "port": 8080}]});
    within(SOON, "an endpoint of another kind is refused", async || {
        let said =
            refusal(&fleet, Kind::GrpcBackend, "hello", hosts.clone()).await.ok_or("it is admitted")?;
        said.message.contains("Backend default/hello-backend").then_some(()).ok_or(said.message)
    })
    .await;
    // Changes of what is there are no duplicates of themselves; labels are nobody's business.
    kubectl
        .ok(&[
            "patch",
            "apiroute",
            "api-v1",
            "-n",
            "default",
            "--type=merge",
            "-p",
            r#"{"spec":{"timeout":"60s"}}"#,
        ])
        .await;
    kubectl.ok(&["label", "apiroute", "api-v1", "-n", "default", "a=b"]).await;
    kubectl.ok(&["delete", "apiroute", "api-v1", "-n", "default"]).await;
    within(SOON, "what is gone is in nobody's way", async || {
        let said = refusal(&fleet, Kind::ApiRoute, "next", with_route(&duplicate)).await;
        said.map_or(Ok(()), |status| Err(status.message))
    })
    .await;
    fleet.check().unwrap();
}

fn with_route(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["route"] = json!([{"destination": {"host": "a.example", "port": 80}}]);
    spec
}

/// The bundles of all webhooks.
async fn bundles(fleet: &Fleet) -> Vec<Option<String>> {
    let api = Api::<ValidatingWebhookConfiguration>::all(fleet.client());
    let webhooks = api.get(webhooks::CONFIGURATION).await.unwrap().webhooks.unwrap_or_default();
    let text = |bundle: ByteString| String::from_utf8_lossy(&bundle.0).into_owned();
    webhooks.into_iter().map(|webhook| webhook.client_config.ca_bundle.map(text)).collect()
}

async fn all_are(fleet: &Fleet, wanted: &str) {
    within(SOON, "every webhook has the CA bundle", async || {
        let bundles = bundles(fleet).await;
        let right = bundles.len() == 4 && bundles.iter().all(|bundle| bundle.as_deref() == Some(wanted));
        right.then_some(()).ok_or_else(|| format!("{bundles:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_keeps_the_ca_bundle_true_whoever_leads_and_whoever_changes_it() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    fleet.add_replicas_with(2, &["--webhook-configuration=flotilla"]).await;
    let ca = fleet.authority().await.roots().pem().to_owned();
    let api = Api::<ValidatingWebhookConfiguration>::all(fleet.client());
    let spoil = async |value: Value| {
        let path = "/webhooks/2/clientConfig/caBundle";
        let patch = json!([{"op": "add", "path": path, "value": value}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
        api.patch(webhooks::CONFIGURATION, &PatchParams::default(), &patch).await.unwrap();
    };
    // It comes after the replicas, as it may, and API servers believe them soon.
    let leader = fleet.map_of_running().await.leader.to_string();
    let leads = fleet.replicas.iter().position(|replica| replica.name == leader).unwrap();
    webhooks::ask_without_bundle(&fleet, 1 - leads).await;
    all_are(&fleet, &ca).await;
    let there = json!({"match": [{"uri": {"prefix": "/x"}}], "directResponse": {"status": 200}});
    fleet.tenants.create(Kind::ApiRoute, "default", "there", there.clone()).await;
    refused_as_duplicate(&fleet, &there, "default/there").await;

    spoil(json!("")).await;
    all_are(&fleet, &ca).await;
    let other = flotilla_certs::Authority::generate("other", std::time::SystemTime::now()).unwrap();
    spoil(json!(ByteString(other.roots().pem().as_bytes().to_vec()))).await;
    all_are(&fleet, &ca).await;

    // Whoever leads next goes on, and has an eye on what was done in between.
    fleet.replicas[leads].kill().await;
    spoil(json!("")).await;
    all_are(&fleet, &ca).await;
    refused_as_duplicate(&fleet, &there, "default/there").await;
    // It is there again after somebody made it anew.
    api.delete(webhooks::CONFIGURATION, &DeleteParams::default()).await.unwrap();
    webhooks::ask_without_bundle(&fleet, 1 - leads).await;
    all_are(&fleet, &ca).await;
    let written =
        fleet.replicas[1 - leads].metric("flotilla_ca_bundle_writes_total", "written").await.unwrap();
    assert!(written >= 2.0, "{written}");
}
