//! The fleet's own CA.

use std::time::SystemTime;

use flotilla_certs::{Authority, TrustRoots};
use flotilla_core::ids::Kind;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::watched::{Changes, all_say, all_serve, gateway_tls, nobody_noticed, settle};
use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{Against, Fleet, webhooks};
use crate::program::flotilla;

const SYSTEM: &str = "avapigw-system";

/// Says by the command that another CA is wanted.
async fn rotate(fleet: &Fleet) -> String {
    let kubeconfig = fleet.server.kubeconfig(fleet.path(), 0);
    let output = tokio::task::spawn_blocking(move || {
        flotilla(&["certs", "rotate", "--kubeconfig", kubeconfig.to_str().unwrap()]).output().unwrap()
    });
    let output = output.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a key of the CA's Secret holds.
async fn key(fleet: &Fleet, name: &str) -> Option<String> {
    let secret = Api::<Secret>::namespaced(fleet.client(), SYSTEM).get("flotilla-ca").await.unwrap();
    secret.data.unwrap().get(name).map(|bytes| String::from_utf8(bytes.0.clone()).unwrap())
}

/// How many certificates the bundle of each webhook holds.
async fn bundles(fleet: &Fleet) -> Vec<usize> {
    let api = Api::<ValidatingWebhookConfiguration>::all(fleet.client());
    let found = api.get(webhooks::CONFIGURATION).await.unwrap();
    let bundles = found.webhooks.into_iter().flatten().map(|webhook| webhook.client_config.ca_bundle);
    let text = |bundle: k8s_openapi::ByteString| String::from_utf8(bundle.0).unwrap();
    bundles.map(|bundle| bundle.map_or(0, |bundle| text(bundle).matches("BEGIN CERT").count())).collect()
}

/// With the API server asking the replicas about every single change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_ca_and_other_leaves_come_without_anybody_noticing() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    let flags =
        ["--ca-overlap=120s", "--cert-lifetime=45s", "--webhook-configuration", webhooks::CONFIGURATION];
    fleet.add_replicas_with(3, &flags).await;
    let first = fleet.authority().await;
    settle(&mut fleet, &first, 17).await;
    webhooks::ask_without_bundle(&fleet, 0).await;
    within(SOON, "the API server believes the webhooks", async || {
        let spec = json!({"spec": answering("shop", "route-00", "asked")});
        let api = fleet.tenants.api(Kind::ApiRoute, "shop");
        let asked = api.patch("route-00", &PatchParams::default(), &Patch::Merge(spec)).await;
        asked.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let changes = Changes::start(&fleet);

    assert!(rotate(&fleet).await.contains("is announced"));
    assert!(rotate(&fleet).await.contains("announced already"));
    let next = flotilla_certs::CertificatePem {
        certificate: key(&fleet, "next.crt").await.unwrap(),
        private_key: key(&fleet, "next.key").await.unwrap(),
    };
    let next = Authority::from_pem("the next CA", next, SystemTime::now()).unwrap();
    all_say(&fleet, "flotilla_trusted_authorities", "", 2.0).await;
    // The overlap: the old one signs, both are believed.
    let (old_roots, new_roots) = (first.roots(), next.roots());
    all_serve(&fleet, "who has a certificate of the next CA", &gateway_tls(&next, old_roots)).await;
    all_serve(&fleet, "who has one of the old CA", &gateway_tls(&first, old_roots)).await;
    within(SOON, "both are in the bundles", async || {
        let found = bundles(&fleet).await;
        (found == [2; 4]).then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;

    // The next one signs.
    within(2 * SOON, "the overlap is over", async || {
        let next = key(&fleet, "next.key").await;
        next.is_none().then_some(()).ok_or_else(|| "the next one waits".to_owned())
    })
    .await;
    all_serve(&fleet, "who believes only the next CA", &gateway_tls(&first, new_roots)).await;
    assert_eq!(key(&fleet, "ca.key").await.unwrap(), next.pem().private_key, "the old key is forgotten");
    let bundle = key(&fleet, "ca.crt").await.unwrap();
    assert_eq!(TrustRoots::from_pem("ca.crt", &bundle).unwrap().count(), 2);
    all_serve(&fleet, "who has a certificate of the new CA", &gateway_tls(&next, new_roots)).await;
    all_serve(&fleet, "who still has one of the old CA", &gateway_tls(&first, new_roots)).await;
    // Leaves are renewed besides, several times over.
    within(SOON + SOON, "every replica has renewed its own certificate", async || {
        for replica in &fleet.replicas {
            let used = replica.metric("flotilla_certificate_updates_total", "result=\"used\"").await?;
            if used < 4.0 {
                return Err(format!("{}: {used}", replica.name));
            }
        }
        Ok(())
    })
    .await;
    all_say(&fleet, "flotilla_certificate_source_failing", "", 0.0).await;
    nobody_noticed(&mut fleet, changes, "rotation of the own CA").await;
}

/// What people do to the Secret by mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_spoilt_or_deleted_changes_nothing_and_is_told() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    fleet.add_replicas_with(2, &["--ca-overlap=8s"]).await;
    let first = fleet.authority().await;
    settle(&mut fleet, &first, 2).await;
    let changes = Changes::start(&fleet);
    let secrets = Api::<Secret>::namespaced(fleet.client(), SYSTEM);
    let stranger = Authority::generate("stranger", SystemTime::now()).unwrap();
    let (good, strange) = (&first.pem().private_key, &stranger.pem().private_key);
    for (spoilt, good) in [
        (json!({"ca.key": strange}), json!({"ca.key": good})),
        (json!({"ca.crt": "-----BEGIN CERTIFICATE-----"}), json!({"ca.crt": first.pem().certificate})),
        (json!({"next.crt": "nothing", "next.key": "nothing"}), json!({"next.crt": null, "next.key": null})),
    ] {
        let encode = |data: &serde_json::Value| {
            let data = data.as_object().unwrap().iter().map(|(key, text)| {
                let bytes = text.as_str().map(|text| k8s_openapi::ByteString(text.as_bytes().to_vec()));
                (key.clone(), json!(bytes))
            });
            Patch::Merge(json!({"data": data.collect::<serde_json::Map<_, _>>()}))
        };
        secrets.patch("flotilla-ca", &PatchParams::default(), &encode(&spoilt)).await.unwrap();
        all_say(&fleet, "flotilla_certificate_source_failing", "", 1.0).await;
        all_serve(&fleet, "gateways as before", &gateway_tls(&first, first.roots())).await;
        secrets.patch("flotilla-ca", &PatchParams::default(), &encode(&good)).await.unwrap();
        all_say(&fleet, "flotilla_certificate_source_failing", "", 0.0).await;
    }
    within(SOON, "people are told, once by each replica and time", async || {
        let events = Api::<Event>::namespaced(fleet.client(), SYSTEM).list(&Default::default()).await;
        let events = events.map_err(|error| error.to_string())?;
        let count =
            |reason: &str| events.iter().filter(|event| event.reason.as_deref() == Some(reason)).count();
        let counts = (count("CertificateSourceFailing"), count("CertificateSourceRecovered"));
        (counts == (6, 6)).then_some(()).ok_or_else(|| format!("{counts:?}"))
    })
    .await;

    secrets.delete("flotilla-ca", &DeleteParams::default()).await.unwrap();
    within(SOON, "the Secret is there again", async || {
        secrets.get("flotilla-ca").await.map(drop).map_err(|error| error.to_string())
    })
    .await;
    assert_eq!(&key(&fleet, "ca.key").await.unwrap(), good, "it is the same CA");
    nobody_noticed(&mut fleet, changes, "mistakes with the Secret").await;
}
