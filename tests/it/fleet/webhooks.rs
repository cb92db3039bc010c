//! Tells API servers to ask replicas about admissions, by URL; and asks replicas as API servers do.

use std::net::Ipv4Addr;
use std::time::Duration;

use flotilla_certs::{Alpn, ClientTls, ServerCheck};
use flotilla_core::ids::Kind;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    RuleWithOperations, ValidatingWebhook, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ObjectMeta, PostParams};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Fleet;

/// The name of what is registered.
pub const CONFIGURATION: &str = "flotilla";

/// The label by which an object says through which replica it goes.
pub const VIA: &str = "via";

/// Asks the replica at `port` about objects of a kind; `via`: only about those with
/// this label.
fn webhook(kind: Kind, port: u16, authority: Option<&str>, via: Option<usize>) -> ValidatingWebhook {
    let lower = kind.name().to_ascii_lowercase();
    let labels = via.map(|number| [(VIA.to_owned(), number.to_string())].into());
    ValidatingWebhook {
        name: via
            .map_or_else(|| format!("v{lower}.avapigw.io"), |number| format!("v{lower}-{number}.avapigw.io")),
        client_config: WebhookClientConfig {
            url: Some(format!("https://127.0.0.1:{port}/validate-avapigw-io-v1alpha1-{lower}")),
            ca_bundle: authority.map(|authority| ByteString(authority.as_bytes().to_vec())),
            service: None,
        },
        rules: Some(vec![RuleWithOperations {
            api_groups: Some(vec!["avapigw.io".to_owned()]),
            api_versions: Some(vec!["v1alpha1".to_owned()]),
            operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
            resources: Some(vec![kind.plural().to_owned()]),
            scope: None,
        }]),
        object_selector: labels
            .map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None }),
        failure_policy: Some("Fail".to_owned()),
        side_effects: "None".to_owned(),
        timeout_seconds: Some(10),
        admission_review_versions: vec!["v1".to_owned()],
        ..ValidatingWebhook::default()
    }
}

/// The same about Ingresses.
fn ingress_webhook(port: u16, authority: &str, via: Option<usize>) -> ValidatingWebhook {
    let mut webhook = webhook(Kind::ApiRoute, port, Some(authority), via);
    webhook.name = webhook.name.replace("vapiroute", "vingress");
    webhook.client_config.url =
        Some(format!("https://127.0.0.1:{port}/validate-networking-k8s-io-v1-ingress"));
    for rule in webhook.rules.iter_mut().flatten() {
        rule.api_groups = Some(vec!["networking.k8s.io".to_owned()]);
        rule.api_versions = Some(vec!["v1".to_owned()]);
        rule.resources = Some(vec!["ingresses".to_owned()]);
    }
    webhook
}

/// Has the first replica asked about everything.
pub async fn ask_the_first(fleet: &Fleet) {
    let authority = fleet.authority().await.roots().pem().to_owned();
    let port = fleet.replicas[0].webhooks;
    let mut all = Kind::ALL.map(|kind| webhook(kind, port, Some(&authority), None)).to_vec();
    all.push(ingress_webhook(port, &authority, None));
    register(fleet, all).await;
}

/// Has a replica asked about everything, without saying whom to believe.
pub async fn ask_without_bundle(fleet: &Fleet, replica: usize) {
    let port = fleet.replicas[replica].webhooks;
    register(fleet, Kind::ALL.map(|kind| webhook(kind, port, None, None)).to_vec()).await;
}

/// Has each replica asked about those APIRoutes and Ingresses that have its number as
/// label.
pub async fn ask_by_label(fleet: &Fleet) {
    let authority = fleet.authority().await.roots().pem().to_owned();
    let both = |(number, replica): (usize, &flotilla_testing::fleet::replica::Replica)| {
        let port = replica.webhooks;
        let route = webhook(Kind::ApiRoute, port, Some(&authority), Some(number));
        [route, ingress_webhook(port, &authority, Some(number))]
    };
    register(fleet, fleet.replicas.iter().enumerate().flat_map(both).collect()).await;
}

async fn register(fleet: &Fleet, webhooks: Vec<ValidatingWebhook>) {
    let configuration = ValidatingWebhookConfiguration {
        metadata: ObjectMeta { name: Some(CONFIGURATION.to_owned()), ..ObjectMeta::default() },
        webhooks: Some(webhooks),
    };
    let api = Api::<ValidatingWebhookConfiguration>::all(fleet.client());
    api.create(&PostParams::default(), &configuration).await.unwrap();
}

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks a replica whether an object may be created, as a trial, without an API server in between.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn review(fleet: &Fleet, replica: usize, object: &Value) -> Result<Value, String> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (kind, of) = (text("kind"), text("apiVersion"));
    let (group, version) = of.split_once('/').unwrap();
    let path = format!("/validate-{}-{version}-{}", group.replace('.', "-"), kind.to_ascii_lowercase());
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "trial", "operation": "CREATE", "dryRun": true, "object": object,
            "kind": {"group": group, "version": version, "kind": kind},
        },
    });
    let roots = fleet.authority().await;
    let tls = ClientTls::new(None, roots.roots(), ServerCheck::Name, Alpn::Http1).unwrap();
    let port = fleet.replicas[replica].webhooks;
    let ask = async {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(words)?;
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        let stream = TlsConnector::from(tls.config()).connect(name, stream).await.map_err(words)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
        tokio::spawn(async move { connection.await.ok() });
        let request = http::Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(review.to_string())));
        let answer = sender.send_request(request.map_err(words)?).await.map_err(words)?;
        let body = answer.into_body().collect().await.map_err(words)?.to_bytes();
        serde_json::from_slice(&body).map_err(words)
    };
    timeout(PATIENCE, ask).await.map_err(words)?
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}
