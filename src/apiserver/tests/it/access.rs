//! Who is let in, and what they may do.

use flotilla_apiserver::{Identity, Options, Permission};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, PostParams};
use serde_json::json;

use crate::world::{Ca, Login, World, code, connect, message};

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

#[tokio::test]
async fn clients_without_proof_are_turned_away() {
    let world = World::start().await;
    let nobody = connect(world.kubeconfig(Login::Nobody)).await;
    let list = Api::<Namespace>::all(nobody.clone()).list(&ListParams::default()).await;
    assert_eq!(message(list), "Unauthorized");
    // Health and version need no proof.
    assert!(nobody.apiserver_version().await.is_ok());
    let wrong = world.client_with_token("wrong").await;
    assert_eq!(code(Api::<Namespace>::all(wrong).list(&ListParams::default()).await), 401);
    let right = world.client_with_token("root-token").await;
    assert_eq!(Api::<Namespace>::all(right).list(&ListParams::default()).await.unwrap().items.len(), 4);
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_trusted() {
    let world = World::start().await;
    let foreign = Ca::new().client("root", "system:masters");
    let client = connect(world.kubeconfig(Login::Certificate(foreign))).await;
    assert_eq!(code(Api::<Namespace>::all(client).list(&ListParams::default()).await), 401);
}

#[tokio::test]
async fn rights_can_be_given_and_taken() {
    let permission = Permission {
        subject: "bob".into(),
        namespace: Some("default".into()),
        api_groups: strings(&[""]),
        resources: strings(&["configmaps"]),
        verbs: strings(&["list", "create"]),
    };
    let world = World::start_with(Options { permissions: vec![permission], ..Options::default() }).await;
    let bob = world.client("bob", "dev").await;
    let maps: Api<ConfigMap> = Api::default_namespaced(bob.clone());
    assert!(maps.list(&ListParams::default()).await.is_ok());
    assert_eq!(
        message(maps.get("a").await),
        "configmaps \"a\" is forbidden: User \"bob\" cannot get resource \"configmaps\" in API group \"\" in the \
         namespace \"default\""
    );
    assert_eq!(
        message(Api::<ConfigMap>::all(bob.clone()).list(&ListParams::default()).await),
        "configmaps is forbidden: User \"bob\" cannot list resource \"configmaps\" in API group \"\" at the cluster \
         scope"
    );
    let ask = || async {
        let review: SelfSubjectAccessReview = serde_json::from_value(json!({"spec": {"resourceAttributes":
            {"verb": "list", "resource": "configmaps", "namespace": "default"}}}))
        .unwrap();
        let answer = Api::all(bob.clone()).create(&PostParams::default(), &review).await.unwrap();
        answer.status.unwrap().allowed
    };
    assert!(ask().await);
    world.server.set_permissions(Vec::new());
    assert!(!ask().await);
    assert_eq!(code(maps.list(&ListParams::default()).await), 403);
}

#[tokio::test]
async fn clients_can_ask_who_they_are() {
    let world = World::start().await;
    let bob = world.client("bob", "dev").await;
    let answer = Api::all(bob).create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    let user = answer.status.unwrap().user_info.unwrap();
    assert_eq!(user.username.as_deref(), Some("bob"));
    assert_eq!(user.groups.unwrap(), ["dev", "system:authenticated"]);
}

#[tokio::test]
async fn unusable_options_are_refused_at_the_start() {
    let tls = flotilla_apiserver::TlsOptions {
        certificate_pem: "nonsense".into(),
        private_key_pem: "nonsense".into(),
        client_ca_pem: None,
    };
    let error = flotilla_apiserver::ApiServer::start(Options { tls: Some(tls), ..Options::default() }).await;
    assert!(error.unwrap_err().to_string().contains("server certificate"));
    let open = Options { address: "0.0.0.0:0".parse().unwrap(), ..Options::default() };
    assert!(flotilla_apiserver::ApiServer::start(open).await.is_err());
    let taken = World::start().await;
    let again = Options {
        address: taken.server.address(),
        tokens: vec![("t".into(), Identity::admin("a"))],
        ..Options::default()
    };
    let error = flotilla_apiserver::ApiServer::start(again).await;
    assert!(error.unwrap_err().to_string().contains("choose a free port"));
}
