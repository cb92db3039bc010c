//! Custom resources through kube-rs.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, ValidationDirective};
use kube::discovery::{Discovery, Scope};
use serde_json::{Value, json};

use crate::world::{World, all_routes, code, define, definition, eventually, message, route, routes};

#[tokio::test]
async fn a_resource_is_served_as_soon_as_it_is_defined() {
    let world = World::start().await;
    let client = world.client("root", "system:masters").await;
    assert_eq!(code(routes(&client, "default").list(&ListParams::default()).await), 404);
    define(&client).await;
    let created = routes(&client, "default").create(&PostParams::default(), &route("a")).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    assert_eq!(created.data["spec"], json!({"host": "a.example", "port": 8080}), "defaults are filled in");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let status = definitions.get("apiroutes.test.example").await.unwrap().status.unwrap();
    let conditions: Vec<(String, String)> =
        status.conditions.unwrap().into_iter().map(|condition| (condition.type_, condition.status)).collect();
    let truth = |name: &str| (name.to_owned(), "True".to_owned());
    assert_eq!(conditions, [truth("NamesAccepted"), truth("Established")]);
    assert_eq!(status.stored_versions, Some(vec!["v1alpha1".to_owned()]));
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects_and_ends_serving() {
    let world = World::start().await;
    let client = world.local();
    define(&client).await;
    routes(&client, "default").create(&PostParams::default(), &route("a")).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.delete("apiroutes.test.example", &DeleteParams::default()).await.unwrap();
    eventually("the resource is not served any more", || async {
        match all_routes(&client).list(&ListParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Some(()),
            _ => None,
        }
    })
    .await;
    define(&client).await;
    let list = all_routes(&client).list(&ListParams::default()).await.unwrap();
    assert!(list.items.is_empty());
}

#[tokio::test]
async fn what_breaks_the_schema_is_refused() {
    let world = World::start().await;
    let client = world.local();
    define(&client).await;
    let routes = routes(&client, "default");
    let mut bad = route("a");
    bad.data["spec"] = json!({"port": 0});
    let Err(kube::Error::Api(status)) = routes.create(&PostParams::default(), &bad).await else {
        panic!("it was accepted")
    };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let causes = status.details.clone().unwrap().causes;
    let fields: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
    assert!(fields.contains(&"spec.host") && fields.contains(&"spec.port"), "{causes:?}");
    bad.data["spec"] = json!({"host": "a.example", "weight": 13});
    let text = message(routes.create(&PostParams::default(), &bad).await);
    assert!(text.contains("weight must not be unlucky"), "{text}");
}

#[tokio::test]
async fn unknown_fields_are_dropped_or_refused_as_asked() {
    let world = World::start().await;
    let client = world.local();
    define(&client).await;
    let routes = routes(&client, "default");
    let mut odd = route("a");
    odd.data["spec"]["bogus"] = json!(1);
    let created = routes.create(&PostParams::default(), &odd).await.unwrap();
    assert!(created.data["spec"].get("bogus").is_none());
    let params =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    let patch: Patch<Value> = Patch::Merge(json!({"spec": {"bogus": 1}}));
    let text = message(routes.patch("a", &params, &patch).await);
    assert!(text.contains("strict decoding error: unknown field \"spec.bogus\""), "{text}");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let world = World::start().await;
    let client = world.client("root", "system:masters").await;
    define(&client).await;
    let routes = routes(&client, "default");
    let mut with_status = route("a");
    with_status.data["status"] = json!({"observedGeneration": 7});
    let created = routes.create(&PostParams::default(), &with_status).await.unwrap();
    assert!(created.data.get("status").is_none(), "a new object has no status");
    let both = json!({"status": {"observedGeneration": 1}, "spec": {"host": "b.example"},
        "metadata": {"labels": {"l": "1"}}});
    let patched = routes.patch_status("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!(patched.data["status"]["observedGeneration"], 1);
    assert_eq!(patched.data["spec"]["host"], "a.example");
    assert_eq!((patched.metadata.generation, patched.metadata.labels.is_none()), (Some(1), true));
    let both = json!({"status": {"observedGeneration": 9}, "spec": {"host": "b.example"}});
    let patched = routes.patch("a", &PatchParams::default(), &Patch::Merge(&both)).await.unwrap();
    assert_eq!(patched.data["status"]["observedGeneration"], 1);
    assert_eq!((patched.metadata.generation, &patched.data["spec"]["host"]), (Some(2), &json!("b.example")));
    let labelled = json!({"metadata": {"labels": {"l": "1"}}});
    let patched = routes.patch("a", &PatchParams::default(), &Patch::Merge(&labelled)).await.unwrap();
    assert_eq!(patched.metadata.generation, Some(2));
}

#[tokio::test]
async fn selectable_fields_select() {
    let world = World::start().await;
    let client = world.local();
    define(&client).await;
    let routes = routes(&client, "default");
    routes.create(&PostParams::default(), &route("a")).await.unwrap();
    let hit = routes.list(&ListParams::default().fields("spec.host=a.example")).await.unwrap();
    let miss = routes.list(&ListParams::default().fields("spec.host=b.example")).await.unwrap();
    assert_eq!((hit.items.len(), miss.items.len()), (1, 0));
    assert_eq!(code(routes.list(&ListParams::default().fields("spec.port=1")).await), 400);
}

#[tokio::test]
async fn all_served_versions_show_the_same_objects() {
    let world = World::start().await;
    let client = world.local();
    let mut two = definition();
    let mut second = two["spec"]["versions"][0].clone();
    second["name"] = json!("v1");
    second["storage"] = json!(false);
    two["spec"]["versions"].as_array_mut().unwrap().push(second);
    let two: CustomResourceDefinition = serde_json::from_value(two).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &two).await.unwrap();
    routes(&client, "default").create(&PostParams::default(), &route("a")).await.unwrap();
    let resource = kube::core::ApiResource::from_gvk_with_plural(
        &kube::core::GroupVersionKind::gvk("test.example", "v1", "APIRoute"),
        "apiroutes",
    );
    let newer: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    assert_eq!(newer.get("a").await.unwrap().types.unwrap().api_version, "test.example/v1");
    let list = newer.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items[0].types.as_ref().unwrap().api_version, "test.example/v1");
    let patch = Patch::Merge(json!({"spec": {"port": 9}}));
    newer.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(routes(&client, "default").get("a").await.unwrap().data["spec"]["port"], 9);
}

#[tokio::test]
async fn bad_definitions_are_refused() {
    let world = World::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.local());
    let mut wrong = definition();
    wrong["metadata"]["name"] = json!("routes.test.example");
    let wrong: CustomResourceDefinition = serde_json::from_value(wrong).unwrap();
    let text = message(definitions.create(&PostParams::default(), &wrong).await);
    assert!(text.contains(r#"must be spec.names.plural+"."+spec.group"#), "{text}");
    let mut unstructured = definition();
    unstructured["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] =
        json!("thing");
    let unstructured: CustomResourceDefinition = serde_json::from_value(unstructured).unwrap();
    assert_eq!(code(definitions.create(&PostParams::default(), &unstructured).await), 422);
}

#[tokio::test]
async fn names_that_are_taken_are_not_accepted() {
    let world = World::start().await;
    let client = world.local();
    define(&client).await;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut rival = definition();
    rival["metadata"]["name"] = json!("otherroutes.test.example");
    rival["spec"]["names"] = json!({"plural": "otherroutes", "kind": "OtherRoute", "shortNames": ["ar"]});
    let rival: CustomResourceDefinition = serde_json::from_value(rival).unwrap();
    definitions.create(&PostParams::default(), &rival).await.unwrap();
    let established = || async {
        let found = definitions.get("otherroutes.test.example").await.unwrap();
        let conditions = found.status.unwrap().conditions.unwrap();
        conditions.into_iter().find(|condition| condition.type_ == "Established").unwrap().status
    };
    assert_eq!(established().await, "False");
    definitions.delete("apiroutes.test.example", &DeleteParams::default()).await.unwrap();
    eventually("the names are free", || async { (established().await == "True").then_some(()) }).await;
}

#[tokio::test]
async fn discovery_shows_what_is_served() {
    let world = World::start().await;
    let client = world.client("root", "system:masters").await;
    define(&client).await;
    for discovery in [
        Discovery::new(client.clone()).run().await.unwrap(),
        Discovery::new(client.clone()).run_aggregated().await.unwrap(),
    ] {
        let gvk = kube::core::GroupVersionKind::gvk("test.example", "v1alpha1", "APIRoute");
        let (resource, capabilities) = discovery.resolve_gvk(&gvk).unwrap();
        assert_eq!((resource.plural.as_str(), capabilities.scope == Scope::Namespaced), ("apiroutes", true));
        assert!(capabilities.subresources.iter().any(|(sub, _)| sub.plural.ends_with("status")));
        let lease = kube::core::GroupVersionKind::gvk("coordination.k8s.io", "v1", "Lease");
        assert!(discovery.resolve_gvk(&lease).is_some());
    }
    assert_eq!(client.apiserver_version().await.unwrap().minor, "34");
}
