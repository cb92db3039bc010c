//! Certificates from a real OpenBao, to which replicas log in by their service account,
//! which it has the real API server review.

use std::path::PathBuf;

use flotilla_testing::bao::Bao;
use http::Method;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Event, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::watched::{Changes, all_say, all_serve, gateway_tls, nobody_noticed, settle};
use crate::fleet::waiting::{SOON, figure, within};
use crate::fleet::{Against, Fleet};

const SYSTEM: &str = "avapigw-system";

/// A token of the service account `flotilla`, which may have tokens reviewed, in a file.
async fn service_account(fleet: &Fleet) -> PathBuf {
    let accounts = Api::<ServiceAccount>::namespaced(fleet.client(), SYSTEM);
    let account = serde_json::from_value(json!({"metadata": {"name": "flotilla"}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let binding = json!({
        "metadata": {"name": "flotilla-reviews"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"kind": "ServiceAccount", "name": "flotilla", "namespace": SYSTEM}],
    });
    let bindings = Api::<ClusterRoleBinding>::all(fleet.client());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
    let wanted: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 3600}})).unwrap();
    let made = accounts.create_token_request("flotilla", &PostParams::default(), &wanted).await.unwrap();
    let file = fleet.path().join("token");
    std::fs::write(&file, made.status.unwrap().token).unwrap();
    file
}

/// The kubeconfig's address and authority of the API server.
fn api_server(fleet: &Fleet) -> (String, String) {
    let path = fleet.server.kubeconfig(fleet.path(), 0);
    let config = kube::config::Kubeconfig::read_from(&path).unwrap();
    let cluster = config.clusters[0].cluster.clone().unwrap();
    let authority = match (cluster.certificate_authority_data, cluster.certificate_authority) {
        (Some(data), _) => {
            let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(data)).unwrap();
            String::from_utf8(bytes.0).unwrap()
        }
        (None, file) => std::fs::read_to_string(path.parent().unwrap().join(file.unwrap())).unwrap(),
    };
    (cluster.server.unwrap(), authority)
}

/// A role that gives those with the service account a token for signing, and no more.
async fn kubernetes_auth(fleet: &Fleet, bao: &Bao) {
    let (address, authority) = api_server(fleet);
    bao.write("sys/auth/kubernetes", json!({"type": "kubernetes"})).await;
    let config = json!({
        "kubernetes_host": address, "kubernetes_ca_cert": authority, "disable_local_ca_jwt": true,
    });
    bao.write("auth/kubernetes/config", config).await;
    let policy = json!({"policy": "path \"pki/sign/operator\" { capabilities = [\"update\"] }"});
    bao.write("sys/policies/acl/flotilla", policy).await;
    let role = json!({
        "bound_service_account_names": "flotilla", "bound_service_account_namespaces": SYSTEM,
        "token_policies": "flotilla", "token_ttl": "10m",
    });
    bao.write("auth/kubernetes/role/flotilla", role).await;
}

/// How many looks of each replica had this result.
async fn counted(fleet: &Fleet, result: &str) -> Vec<f64> {
    let label = format!("result=\"{result}\"");
    let mut all = Vec::new();
    for replica in &fleet.replicas {
        all.push(replica.metric("flotilla_certificate_updates_total", &label).await.unwrap());
    }
    all
}

async fn all_renew_once_more(fleet: &Fleet, what: &str) {
    let before = counted(fleet, "used").await;
    within(SOON, what, async || {
        let now = counted(fleet, "used").await;
        let all = now.iter().zip(&before).all(|(now, before)| now > before);
        all.then_some(()).ok_or_else(|| format!("{before:?}, then {now:?}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_renews_rotates_and_is_away_without_anybody_noticing() {
    let Some(mut fleet) = Fleet::start(Against::Real).await else { return };
    let Some(mut bao) = Bao::start(fleet.path()).await else { return };
    let first = bao.pki("pki", "operator").await;
    let token = service_account(&fleet).await;
    kubernetes_auth(&fleet, &bao).await;
    let (address, ca, token) = (bao.url(), bao.ca_file(), token.display().to_string());
    let ca = ca.display().to_string();
    fleet
        .add_replicas_with(
            3,
            &[
                "--cert-provider=vault",
                "--vault-addr",
                &address,
                "--vault-cacert",
                &ca,
                "--vault-k8s-role=flotilla",
                "--vault-k8s-token-file",
                &token,
                "--vault-ttl=90s",
            ],
        )
        .await;
    settle(&mut fleet, &first, 17).await;
    let secrets = Api::<Secret>::namespaced(fleet.client(), SYSTEM);
    assert!(secrets.get_opt("flotilla-ca").await.unwrap().is_none(), "no CA of our own is made");
    let changes = Changes::start(&fleet);
    all_serve(&fleet, "gateways", &gateway_tls(&first, first.roots())).await;

    // Tokens that are taken away are replaced by a login, and nobody hears of it.
    let failed = counted(&fleet, "failed").await;
    bao.request(Method::PUT, "sys/leases/revoke-prefix/auth/kubernetes/login", json!({})).await.unwrap();
    all_renew_once_more(&fleet, "renewed after a new login").await;
    assert_eq!(counted(&fleet, "failed").await, failed);

    // Away: ended and sealed, and answering nothing.
    let begun = tokio::time::Instant::now();
    bao.stop().await;
    all_say(&fleet, "flotilla_certificate_source_failing", "", 1.0).await;
    all_serve(&fleet, "gateways as before", &gateway_tls(&first, first.roots())).await;
    bao.start_again().await;
    all_say(&fleet, "flotilla_certificate_source_failing", "", 0.0).await;
    figure(&format!("Vault away for {:.0} s until all replicas use it again", begun.elapsed().as_secs_f64()));
    all_renew_once_more(&fleet, "renewed after the outage").await;
    bao.freeze();
    all_say(&fleet, "flotilla_certificate_source_failing", "", 1.0).await;
    bao.thaw();
    all_say(&fleet, "flotilla_certificate_source_failing", "", 0.0).await;
    within(SOON, "people are told", async || {
        let events = Api::<Event>::namespaced(fleet.client(), SYSTEM).list(&Default::default()).await;
        let events = events.map_err(|error| error.to_string())?;
        let told = |event: &&Event| {
            event.reason.as_deref() == Some("CertificateSourceFailing")
                && event
                    .message
                    .as_ref()
                    .is_some_and(|message| message.contains("--vault-addr") || message.contains("no answer"))
        };
        let count = events.iter().filter(told).count();
        (count >= 6).then_some(()).ok_or_else(|| format!("{count} events"))
    })
    .await;

    // Another issuer: trusted, then signing, then alone.
    let next = bao.issuer("pki/root/rotate/exported", "next").await;
    all_say(&fleet, "flotilla_trusted_authorities", "", 2.0).await;
    all_serve(&fleet, "who has a certificate of the next issuer", &gateway_tls(&next, first.roots())).await;
    bao.write("pki/root/replace", json!({"default": "next"})).await;
    all_serve(&fleet, "who believes only the next issuer", &gateway_tls(&first, next.roots())).await;
    bao.request(Method::DELETE, "pki/issuer/first", Value::Null).await.unwrap();
    all_say(&fleet, "flotilla_trusted_authorities", "", 1.0).await;
    all_serve(&fleet, "who knows only the next issuer", &gateway_tls(&next, next.roots())).await;
    for replica in &fleet.replicas {
        let refused = super::watched::is_served(replica.grpc, &gateway_tls(&first, next.roots())).await;
        assert!(refused.is_err(), "{} believes an issuer that is gone", replica.name);
    }
    nobody_noticed(&mut fleet, changes, "renewal, outage and rotation of a Vault").await;
}

/// A start without Vault ends with the reason, after the time that was given for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_vault_for_so_long_and_then_says_why_it_ends() {
    let Some(mut fleet) = Fleet::start(Against::Embedded).await else { return };
    let Some(mut bao) = Bao::start(fleet.path()).await else { return };
    bao.pki("pki", "operator").await;
    let token = fleet.path().join("token");
    std::fs::write(&token, &bao.root_token).unwrap();
    let flags = |timeout: &str, role: &str| {
        vec![
            "--cert-provider=vault".to_owned(),
            format!("--vault-addr={}", bao.open_url()),
            format!("--vault-token-file={}", token.display()),
            format!("--vault-init-timeout={timeout}"),
            format!("--vault-pki-role={role}"),
        ]
    };
    let (patient, mistaken, hasty) =
        (flags("110s", "operator"), flags("10s", "nobody"), flags("5s", "operator"));
    let ends = async |fleet: &mut Fleet, flags: &[String], words: &[&str]| {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let replica = fleet.add_replica(&flags);
        replica.start();
        let last = within(SOON, "it ends", async || match replica.check() {
            Ok(()) => Err("it runs".to_owned()),
            Err(last) => Ok(last),
        });
        let last = last.await;
        assert!(last.contains("exit status: 1"), "{last}");
        let log = replica.log();
        for word in words {
            assert!(log.contains(word), "{word}: {log}");
        }
        fleet.replicas.pop();
    };
    ends(&mut fleet, &mistaken, &["unknown role", "--vault-pki-role", "--vault-init-timeout"]).await;
    bao.freeze();
    ends(&mut fleet, &hasty, &["has not answered", "--vault-addr", "--vault-init-timeout"]).await;
    bao.thaw();
    bao.stop().await;
    ends(&mut fleet, &hasty, &["is not available", "--vault-addr", "--vault-init-timeout"]).await;
    let flags: Vec<&str> = patient.iter().map(String::as_str).collect();
    fleet.add_replica(&flags).start();
    within(SOON, "it tries again and again", async || {
        let tries = fleet.replicas[0].log_lines(&["no certificate from Vault yet"]).len();
        (tries >= 2).then_some(()).ok_or_else(|| format!("{tries} tries"))
    })
    .await;
    bao.start_again().await;
    fleet.replicas[0].ready().await;
}
