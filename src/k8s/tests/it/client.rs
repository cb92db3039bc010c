//! What the client does about API servers that go without a word.
#![cfg(target_os = "linux")]

use std::time::Duration;

use flotilla_apiserver::{ApiServer, Identity, Options};
use flotilla_k8s::client::connect;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, WatchParams};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// The timers of the connections to a port, as `/proc/net/tcp` has them: 0 none, 1 sends
/// again, 2 asks whether anybody is there; and in how many hundredths of a second.
fn timers(port: u16) -> Vec<(u8, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let connection = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (remote, state, timer) = (fields.get(2)?, fields.get(3)?, fields.get(5)?);
        let ours = remote.rsplit_once(':')?.1 == format!("{port:04X}") && *state == "01";
        let (timer, due) = timer.split_once(':')?;
        ours.then_some((timer.parse().ok()?, u64::from_str_radix(due, 16).ok()?))
    };
    table.lines().skip(1).filter_map(connection).collect()
}

#[tokio::test]
async fn quiet_connections_ask_whether_the_other_side_is_there() {
    let tokens = vec![("admin".to_owned(), Identity::admin("admin"))];
    let api = ApiServer::start(Options { tokens, ..Options::default() }).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "it",
        "clusters": [{ "name": "it", "cluster": { "server": api.url() } }],
        "users": [{ "name": "it", "user": { "token": "admin" } }],
        "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it" } }],
    });
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let clients = connect(Some(&file)).await.unwrap();

    let namespaces: Api<Namespace> = Api::all(clients.objects);
    let watch = namespaces.watch(&WatchParams::default(), "0").await.unwrap();
    let mut watch = std::pin::pin!(watch);
    let port = api.url().rsplit_once(':').and_then(|(_, port)| port.trim_matches('/').parse().ok()).unwrap();
    let asks = async {
        loop {
            let timers = timers(port);
            if !timers.is_empty() && timers.iter().all(|(timer, due)| *timer == 2 && *due <= 500) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        asked = timeout(Duration::from_secs(10), asks) => asked.expect("every connection has a timer that asks"),
        () = async { while watch.next().await.is_some() {} } => panic!("the watch ended"),
    }
}
