//! Built-in objects through kube-rs.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Secret, Service};
use k8s_openapi::api::events::v1::Event as NewEvent;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde_json::json;

use crate::world::{World, code, eventually, message};

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config_map(name: &str, data: serde_json::Value) -> ConfigMap {
    parse(json!({"metadata": {"name": name}, "data": data}))
}

#[tokio::test]
async fn the_namespaces_of_every_cluster_are_there() {
    let world = World::start().await;
    let namespaces: Api<Namespace> = Api::all(world.client("root", "system:masters").await);
    let list = namespaces.list(&ListParams::default()).await.unwrap();
    let names: Vec<String> = list.items.iter().filter_map(|item| item.metadata.name.clone()).collect();
    assert_eq!(names, ["default", "kube-node-lease", "kube-public", "kube-system"]);
    assert!(list.items.iter().all(|item| item.metadata.uid.is_some()));
    let refused = namespaces.delete("default", &DeleteParams::default()).await;
    assert_eq!(
        message(refused.map(|_| ())),
        r#"namespaces "default" is forbidden: this namespace may not be deleted"#
    );
    world.server.shutdown().await;
}

#[tokio::test]
async fn secrets_are_written_in_plain_and_read_in_base64() {
    let world = World::start().await;
    let secrets: Api<Secret> = Api::default_namespaced(world.local());
    let secret: Secret = parse(json!({"metadata": {"name": "a"}, "stringData": {"k": "v"}}));
    let created = secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(created.type_.as_deref(), Some("Opaque"));
    assert!(created.string_data.is_none());
    assert_eq!(secrets.get("a").await.unwrap().data.unwrap()["k"].0, b"v");
    let opaque = secrets.list(&ListParams::default().fields("type=Opaque")).await.unwrap();
    assert_eq!(opaque.items.len(), 1);
    let other = secrets.list(&ListParams::default().fields("type=kubernetes.io/tls")).await.unwrap();
    assert!(other.items.is_empty());
    let unknown = secrets.list(&ListParams::default().fields("data.k=v")).await;
    assert_eq!(message(unknown), "field label not supported: data.k");
}

#[tokio::test]
async fn a_lease_is_renewed_by_compare_and_swap() {
    let world = World::start().await;
    let leases: Api<Lease> = Api::namespaced(world.local(), "kube-system");
    let lease: Lease = parse(json!({"metadata": {"name": "leader"},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 5}}));
    let created = leases.create(&PostParams::default(), &lease).await.unwrap();
    assert_eq!(code(leases.create(&PostParams::default(), &lease).await), 409);
    let mut first = created.clone();
    first.spec.as_mut().unwrap().holder_identity = Some("b".into());
    let replaced = leases.replace("leader", &PostParams::default(), &first).await.unwrap();
    assert_ne!(replaced.metadata.resource_version, created.metadata.resource_version);
    let late = leases.replace("leader", &PostParams::default(), &created).await;
    assert_eq!(
        message(late),
        "Operation cannot be fulfilled on leases.coordination.k8s.io \"leader\": the object has been modified; \
         please apply your changes to the latest version and try again"
    );
    // A merge patch that names the revision it is based on is a compare-and-swap, too.
    let stale = json!({"metadata": {"resourceVersion": created.metadata.resource_version},
        "spec": {"holderIdentity": "c"}});
    assert_eq!(code(leases.patch("leader", &PatchParams::default(), &Patch::Merge(stale)).await), 409);
    let mut bad = replaced;
    bad.spec.as_mut().unwrap().lease_duration_seconds = Some(0);
    assert_eq!(
        message(leases.replace("leader", &PostParams::default(), &bad).await),
        "Lease.coordination.k8s.io \"leader\" is invalid: spec.leaseDurationSeconds: Invalid value: 0: must be \
         greater than 0"
    );
}

#[tokio::test]
async fn names_are_generated_and_checked() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    let generated: ConfigMap = parse(json!({"metadata": {"generateName": "map-"}}));
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let created = maps.create(&PostParams::default(), &generated).await.unwrap();
        names.insert(created.metadata.name.unwrap());
    }
    assert_eq!(names.len(), 5);
    assert!(names.iter().all(|name| name.starts_with("map-") && name.len() == 9), "{names:?}");
    let refused = maps.create(&PostParams::default(), &config_map("Upper", json!({}))).await;
    let text = message(refused);
    assert!(
        text.starts_with(
            r#"ConfigMap "Upper" is invalid: metadata.name: Invalid value: "Upper": a lowercase RFC 1123"#
        ),
        "{text}"
    );
}

#[tokio::test]
async fn errors_say_which_object_they_are_about() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(world.local(), "nowhere");
    let create = maps.create(&PostParams::default(), &config_map("a", json!({}))).await;
    assert_eq!(message(create), r#"namespaces "nowhere" not found"#);
    let Err(kube::Error::Api(status)) = maps.get("a").await else { panic!("it exists") };
    assert_eq!(status.message, r#"configmaps "a" not found"#);
    assert_eq!(status.reason, "NotFound");
    let details = status.details.clone().unwrap();
    assert_eq!((details.name.as_str(), details.kind.as_str()), ("a", "configmaps"));
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.client("root", "system:masters").await);
    maps.create(&PostParams::default(), &config_map("a", json!({"x": "1", "y": "2"}))).await.unwrap();
    let merge = Patch::Merge(json!({"data": {"x": null, "z": "3"}}));
    let merged = maps.patch("a", &PatchParams::default(), &merge).await.unwrap();
    assert_eq!(json!(merged.data), json!({"y": "2", "z": "3"}));
    let operations =
        serde_json::from_value(json!([{"op": "replace", "path": "/data/y", "value": "9"}])).unwrap();
    let json_patch: Patch<ConfigMap> = Patch::Json(operations);
    let patched = maps.patch("a", &PatchParams::default(), &json_patch).await.unwrap();
    assert_eq!(json!(patched.data), json!({"y": "9", "z": "3"}));
    // Changing nothing is no write.
    let again = maps.patch("a", &PatchParams::default(), &json_patch).await.unwrap();
    assert_eq!(again.metadata.resource_version, patched.metadata.resource_version);
    let failing = serde_json::from_value(json!([{"op": "test", "path": "/data/y", "value": "1"}])).unwrap();
    assert_eq!(code(maps.patch("a", &PatchParams::default(), &Patch::<ConfigMap>::Json(failing)).await), 422);
    let strategic = Patch::Strategic(json!({"metadata": {"labels": {"l": "1"}}}));
    let labelled = maps.patch("a", &PatchParams::default(), &strategic).await.unwrap();
    assert_eq!(labelled.metadata.labels.unwrap()["l"], "1");
    let apply =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"z": "4"}});
    let refused = maps.patch("a", &PatchParams::apply("me"), &Patch::Apply(apply.clone())).await;
    assert_eq!(code(refused), 409);
    let applied = maps.patch("a", &PatchParams::apply("me").force(), &Patch::Apply(apply)).await.unwrap();
    assert_eq!(json!(applied.data), json!({"y": "9", "z": "4"}));
}

#[tokio::test]
async fn lists_are_selected_and_read_in_pages_of_one_revision() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    for number in 0..10 {
        let labels = json!({"parity": if number % 2 == 0 { "even" } else { "odd" }});
        let map = parse(json!({"metadata": {"name": format!("m-{number}"), "labels": labels}}));
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let even = maps.list(&ListParams::default().labels("parity in (even),parity!=odd")).await.unwrap();
    assert_eq!(even.items.len(), 5);
    let one = maps.list(&ListParams::default().fields("metadata.name=m-3")).await.unwrap();
    assert_eq!(one.items.len(), 1);
    let first = maps.list(&ListParams::default().limit(4)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (4, Some(6)));
    maps.delete("m-9", &DeleteParams::default()).await.unwrap();
    maps.create(&PostParams::default(), &config_map("m-99", json!({}))).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let rest = maps.list(&ListParams::default().continue_token(&token)).await.unwrap();
    let names: Vec<String> = rest.items.iter().filter_map(|item| item.metadata.name.clone()).collect();
    assert_eq!(names, ["m-4", "m-5", "m-6", "m-7", "m-8", "m-9"]);
    assert_eq!(rest.metadata.resource_version, first.metadata.resource_version);
    world.server.compact();
    assert_eq!(code(maps.list(&ListParams::default().continue_token(&token)).await), 410);
}

#[tokio::test]
async fn deletions_respect_preconditions_and_selectors() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    for name in ["a", "b"] {
        let map = parse(json!({"metadata": {"name": name, "labels": {"name": name}}}));
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    let wrong = Preconditions { uid: Some("other".into()), resource_version: None };
    let refused = maps.delete("a", &DeleteParams::default().preconditions(wrong)).await;
    assert_eq!(code(refused.map(|_| ())), 409);
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("name=a")).await.unwrap();
    let left = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(left.items.len(), 1);
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    maps.delete("b", &dry).await.unwrap();
    assert!(maps.get_opt("b").await.unwrap().is_some());
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &config_map("c", json!({}))).await.unwrap();
    assert!(maps.get_opt("c").await.unwrap().is_none());
}

#[tokio::test]
async fn deleting_a_namespace_deletes_what_is_in_it() {
    let world = World::start().await;
    let client = world.local();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = parse(json!({"metadata": {"name": "team"}}));
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "team");
    maps.create(&PostParams::default(), &config_map("free", json!({}))).await.unwrap();
    let held = parse(json!({"metadata": {"name": "held", "finalizers": ["test.example/hold"]}}));
    maps.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    eventually("the free object is gone", || async {
        maps.get_opt("free").await.unwrap().is_none().then_some(())
    })
    .await;
    let terminating = namespaces.get("team").await.unwrap();
    assert_eq!(terminating.status.unwrap().phase.as_deref(), Some("Terminating"));
    let refused = maps.create(&PostParams::default(), &config_map("late", json!({}))).await;
    let text = message(refused);
    assert!(
        text.contains("unable to create new content in namespace team because it is being terminated"),
        "{text}"
    );
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("held", &PatchParams::default(), &free).await.unwrap();
    eventually("the namespace is gone", || async {
        namespaces.get_opt("team").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    let owner = maps.create(&PostParams::default(), &config_map("owner", json!({}))).await.unwrap();
    let reference =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid});
    let child = parse(json!({"metadata": {"name": "child", "ownerReferences": [reference]}}));
    maps.create(&PostParams::default(), &child).await.unwrap();
    maps.delete("owner", &DeleteParams::background()).await.unwrap();
    eventually("the dependent is gone", || async {
        maps.get_opt("child").await.unwrap().is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn events_are_seen_in_both_groups() {
    let world = World::start().await;
    let client = world.local();
    let new: Api<NewEvent> = Api::default_namespaced(client.clone());
    let event: NewEvent = parse(json!({
        "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Reconcile",
        "reason": "Applied", "note": "all good", "type": "Normal", "reportingController": "c",
        "reportingInstance": "i", "regarding": {"kind": "ConfigMap", "name": "a", "namespace": "default"}}));
    new.create(&PostParams::default(), &event).await.unwrap();
    let old: Api<Event> = Api::default_namespaced(client);
    let found =
        old.list(&ListParams::default().fields("involvedObject.name=a,reason=Applied")).await.unwrap();
    assert_eq!(found.items.len(), 1);
    assert_eq!(found.items[0].message.as_deref(), Some("all good"));
    let series =
        Patch::Merge(json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}));
    let patched = new.patch("e", &PatchParams::default(), &series).await.unwrap();
    assert_eq!((patched.note.as_deref(), patched.series.unwrap().count), (Some("all good"), 2));
}

#[tokio::test]
async fn services_get_an_address_that_stays() {
    let world = World::start().await;
    let services: Api<Service> = Api::default_namespaced(world.local());
    let service: Service = parse(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}));
    let created = services.create(&PostParams::default(), &service).await.unwrap();
    let spec = created.spec.unwrap();
    assert!(spec.cluster_ip.as_ref().is_some_and(|ip| ip.starts_with("10.")), "{spec:?}");
    let replaced = services.replace("web", &PostParams::default(), &service).await.unwrap();
    assert_eq!(replaced.spec.unwrap().cluster_ip, spec.cluster_ip);
}

#[tokio::test]
async fn metadata_can_be_read_alone() {
    let world = World::start().await;
    let client: Client = world.client("root", "system:masters").await;
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    maps.create(&PostParams::default(), &config_map("a", json!({"x": "1"}))).await.unwrap();
    let one: PartialObjectMeta<ConfigMap> = maps.get_metadata("a").await.unwrap();
    assert_eq!(one.metadata.name.as_deref(), Some("a"));
    let list = maps.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 1);
}

#[tokio::test]
async fn ten_thousand_objects_are_no_trouble() {
    let world = World::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(world.local());
    for number in 0..10_000 {
        maps.create(&PostParams::default(), &config_map(&format!("m-{number}"), json!({"k": "v"})))
            .await
            .unwrap();
    }
    let list = maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 10_000);
    let mut seen = 0;
    let mut params = ListParams::default().limit(500);
    loop {
        let page = maps.list(&params).await.unwrap();
        seen += page.items.len();
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => {
                params = ListParams::default().limit(500).continue_token(&token)
            }
            _ => break,
        }
    }
    assert_eq!(seen, 10_000);
}
