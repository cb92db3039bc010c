//! `flotilla standalone`: a control plane in one process, for gateways inside
//! and outside it, and for kubectl.

use std::net::SocketAddr;
use std::path::Path;

use flotilla_core::ids::Kind;
use flotilla_k8s::client::connect;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fleet::gateways::addresses;
use crate::fleet::http;
use crate::fleet::kubectl::Kubectl;
use crate::fleet::objects::{Tenants, answering, backend, leading};
use crate::fleet::process::Process;
use crate::fleet::waiting::{SOON, within};
use crate::fleet::{program, ready, turn};
use crate::program::{outcome, run};

/// Waits until a line that it prints begins with this; returns the rest.
async fn printed(folder: &Path, process: &mut Process, beginning: &str) -> Vec<String> {
    within(SOON, &format!("standalone prints {beginning:?}"), async || {
        process.check()?;
        let text = std::fs::read_to_string(folder.join("standalone.out")).unwrap_or_default();
        let rest: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix(beginning)).map(str::to_owned).collect();
        if rest.is_empty() || !text.ends_with('\n') { Err(format!("it printed {text:?}")) } else { Ok(rest) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_serves_gateways_and_kubectl() {
    let _turn = turn().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let arguments = [
        "standalone".to_owned(),
        "--replicas=2".to_owned(),
        "--gateways=3".to_owned(),
        format!("--kubeconfig-out={}", kubeconfig.display()),
    ];
    let mut process = Process::start(program(), folder.path(), "standalone", &arguments);
    let exported = printed(folder.path(), &mut process, "export KUBECONFIG=").await;
    assert_eq!(exported, [kubeconfig.display().to_string()]);
    let operators = printed(folder.path(), &mut process, "gateways connect to ").await;
    assert_eq!(operators.len(), 2, "{operators:?}");

    let tenants = Tenants { client: connect(Some(&kubeconfig)).await.unwrap().objects };
    tenants.namespaces(["shop".to_owned(), "team".to_owned()]).await;
    for namespace in ["shop", "team"] {
        tenants.create(Kind::Backend, namespace, "api", backend(8080)).await;
        tenants.create(Kind::ApiRoute, namespace, "hello", answering(namespace, "hello", "hi")).await;
        tenants.create(Kind::ApiRoute, namespace, "items", leading(namespace, "items", "api")).await;
    }
    applied_to(&mut process, &tenants, 3).await;

    // A gateway outside, with a certificate issued by the command that it names.
    let out = folder.path().join("outside");
    let text = |path: &Path| path.display().to_string();
    let (code, _, stderr) = outcome(&run(&[
        "certs",
        "gateway",
        "--kubeconfig",
        &text(&kubeconfig),
        "--namespace",
        "edge",
        "--name",
        "outside",
        "--out",
        &text(&out),
    ]));
    assert_eq!(code, Some(0), "{stderr}");
    let arguments = [
        "gateway".to_owned(),
        format!("--operator-address={}", operators.join(",")),
        "--gateway-namespace=edge".to_owned(),
        "--gateway-name=outside".to_owned(),
        format!("--operator-ca-file={}", text(&out.join("ca.crt"))),
        format!("--operator-cert-file={}", text(&out.join("tls.crt"))),
        format!("--operator-key-file={}", text(&out.join("tls.key"))),
        format!("--address-file={}", text(&out.join("addresses.json"))),
    ];
    let mut outside = Process::start(program(), folder.path(), "outside", &arguments);
    let (admin, http) = addresses(&out.join("addresses.json"), &mut outside).await;
    applied_to(&mut process, &tenants, 4).await;
    holds_what_was_written(&tenants, admin).await;
    let (status, body) = http::get(http, "/team/hello").await.unwrap();
    assert_eq!((status.as_u16(), body.as_str()), (200, "hi"));

    if let Some(kubectl) = Kubectl::find(&kubeconfig, folder.path()).await {
        let patch = r#"{"spec":{"directResponse":{"body":"patched"}}}"#;
        kubectl.ok(&["patch", "apiroute", "hello", "-n", "team", "--type=merge", "-p", patch]).await;
        kubectl.ok(&["wait", "--for=condition=Ready", "apiroute", "--all", "-A", "--timeout=60s"]).await;
        within(SOON, "the gateway answers with what kubectl wrote", async || {
            let (_, body) = http::get(http, "/team/hello").await?;
            (body == "patched").then_some(()).ok_or(body)
        })
        .await;
        let text = kubectl.ok(&["get", "shardmap"]).await;
        assert!(text.contains('2'), "two members: {text}");
    }

    process.signal(Signal::SIGTERM);
    let status = process.ended(SOON).await;
    assert!(status.success(), "{status}: {}", process.tail());
    let text = outside.log();
    assert!(text.contains("stream lost"), "the gateway outside noticed nothing: {text}");
    outside.check().unwrap();
}

async fn applied_to(process: &mut Process, tenants: &Tenants, gateways: usize) {
    within(SOON, &format!("everything is applied to {gateways} gateways"), async || {
        process.check()?;
        match tenants.all().await?.iter().find(|object| !ready(object).applied_to(gateways)) {
            None => Ok(()),
            Some(object) => Err(format!("{} {}: {:?}", object.kind, object.key, ready(object))),
        }
    })
    .await;
}

/// What a gateway holds is what tenants wrote, with unique names: worked out
/// here once more, without the project's own compiler.
async fn holds_what_was_written(tenants: &Tenants, admin: SocketAddr) {
    let config: Value = serde_json::from_str(&http::text(admin, "/config").await.unwrap()).unwrap();
    let held = config["resources"].as_array().unwrap();
    let objects = tenants.all().await.unwrap();
    assert_eq!(held.len(), objects.len());
    for object in objects {
        let key = object.key.to_string();
        let mut expected: Value = serde_json::from_slice(&object.spec).unwrap();
        expected["name"] = json!(key);
        if let Some(host) = expected.pointer_mut("/route/0/destination/host") {
            // Every namespace here has a Backend of this name.
            *host = json!(format!("{}/{}", object.key.namespace, host.as_str().unwrap()));
        }
        let found = held.iter().find(|one| one["kind"] == object.kind.name() && one["key"] == key.as_str());
        let found = found.expect("every object is listed");
        assert_eq!(found["spec"], expected, "{key}");
        assert_eq!(found["generation"], object.generation, "{key}");
    }
}
