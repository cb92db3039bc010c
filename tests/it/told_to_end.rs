//! A replica that is told to end while it starts: it has nothing to give up yet, and
//! ends at once and in order. Pods are told so in the middle of every roll-out that
//! is taken back. One that runs goes on answering API servers until they know.

use std::time::Duration;

use flotilla_apiserver::{Effect, Matcher, Rule};
use serde_json::json;

use crate::fleet::server::replica_user;
use crate::fleet::waiting::{SOON, throughout, within};
use crate::fleet::{Against, Fleet, webhooks};

fn of_replica(resource: Option<&str>) -> Matcher {
    Matcher { user: Some(replica_user(0)), resource: resource.map(str::to_owned), ..Matcher::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_told_to_end_while_it_starts_ends_in_order() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.add_replica(&[]);
    let unavailable = Effect::Status { code: 503, retry_after: None };
    for (round, (resource, effect, words)) in [
        // Nothing answers, or only errors: it stands by.
        (None, unavailable, "standing by until the API server is there"),
        (Some("namespaces"), Effect::Hang, ""),
        // It serves nobody yet, because one kind is not listed.
        (Some("backends"), Effect::Hang, "replica starts"),
        // It is no member yet.
        (Some("leases"), Effect::Hang, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let rule = fleet.server.faults().add(Rule::new(of_replica(resource), effect.clone()));
        let before = fleet.replicas[0].log().len();
        fleet.replicas[0].start();
        within(SOON, "it has come so far", async || {
            let log = fleet.replicas[0].log();
            let far = fleet.server.faults().hits(rule) > 0 && log[before..].contains(words);
            far.then_some(()).ok_or_else(|| format!("it said {}", &log[before..]))
        })
        .await;
        fleet.replicas[0].terminate();
        // Fails unless it ends with success.
        fleet.replicas[0].ended(SOON).await;
        let said = fleet.replicas[0].log_lines(&["told to end, draining"]);
        assert_eq!(said.len(), round + 1, "{resource:?} {effect:?}: {}", fleet.replicas[0].tail());
        fleet.server.faults().clear();
    }
}

/// API servers go on sending to an endpoint until they have seen that it is not ready;
/// with a failure policy of Fail nothing could be written meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_api_servers_ask_answers_them_for_a_while_however_fast_it_ends() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.add_replicas_with(1, &["--drain-spread=0s", "--webhook-configuration=flotilla"]).await;
    let route = json!({
        "apiVersion": "avapigw.io/v1alpha1", "kind": "APIRoute",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"match": [{"uri": {"prefix": "/"}}], "directResponse": {"status": 200, "body": "hi"}},
    });
    fleet.replicas[0].terminate();
    within(SOON, "it says that it is not ready", async || {
        let (status, said) = fleet.replicas[0].probe("/readyz").await?;
        (status == 503).then_some(()).ok_or(said)
    })
    .await;
    throughout(Duration::from_secs(2), "it answers", async || {
        let answer = webhooks::review(&fleet, 0, &route).await?;
        (answer["response"]["allowed"] == true).then_some(()).ok_or_else(|| answer.to_string())
    })
    .await;
    fleet.replicas[0].ended(SOON).await;
}
