//! Two replicas are restarted at the same moment while the API server answers
//! from an old cache: the worst moment to believe what it says.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_apiserver::{Effect, Matcher, Rule, Verb};
use flotilla_core::ids::Kind;
use serde_json::json;

use crate::fleet::objects::answering;
use crate::fleet::server::replica_user;
use crate::fleet::waiting::throughout;
use crate::fleet::{Against, Fleet, Server};

const NAMESPACES: usize = 20;

fn namespaces() -> impl Iterator<Item = String> + Clone {
    (0..NAMESPACES).map(|number| format!("team-{number:02}"))
}

/// From now on the replicas see the API server as it was at this revision.
fn lag(fleet: &Fleet, revision: u64) {
    for number in 0..2 {
        let matcher = |verbs: &[Verb]| Matcher {
            verbs: verbs.to_vec(),
            user: Some(replica_user(number)),
            ..Matcher::default()
        };
        let faults = fleet.server.faults();
        faults.add(Rule::new(matcher(&[Verb::Get, Verb::List]), Effect::StaleRead { revision }));
        faults.add(Rule::new(matcher(&[Verb::Watch]), Effect::FreezeEvents));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_replicas_with_a_lagging_api_server_delete_nothing() {
    let Some(mut fleet) = Fleet::start(Against::Inside).await else { return };
    fleet.tenants.furnish(namespaces()).await;
    fleet.add_replicas(2).await;
    fleet.add_gateways("gateway", 3).await;
    fleet.settled().await;
    let Server::Inside(server) = &fleet.server else { return };
    let past = server.revision();

    // What a lagging API server will not know: new, changed and deleted objects.
    let new = |namespace: String| (namespace.clone(), "new".to_owned(), answering(&namespace, "new", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, namespaces().map(new)).await;
    let mut asked = BTreeSet::new();
    for (number, namespace) in namespaces().enumerate() {
        fleet.tenants.change(Kind::ApiRoute, &namespace, "one", json!({"timeout": "7s"})).await;
        if number % 2 == 0 {
            fleet.tenants.delete(Kind::ApiRoute, &namespace, "two").await;
            for gateway in 0..3 {
                asked.insert(format!("APIRoute {namespace}/two from gateways/gateway-{gateway}"));
            }
        }
    }
    fleet.settled().await;
    let removed = |fleet: &Fleet| fleet.gateways[0].events.removed().into_iter().collect::<BTreeSet<_>>();
    assert_eq!(removed(&fleet), asked);
    let before = fleet.show().await.unwrap();

    lag(&fleet, past);
    fleet.restart_all().await;
    // A gateway that has nothing yet may be given the past: it is the best there is.
    fleet.add_gateways("late", 1).await;
    fleet.tenants.change(Kind::ApiRoute, "team-00", "new", json!({"timeout": "9s"})).await;
    let all_stay = async || {
        let now = fleet.gateways[0].show().await?;
        for (before, now) in before.iter().zip(&now) {
            if (now.held, &now.digest) != (before.held, &before.digest) {
                return Err(format!("{now:?} after {before:?}"));
            }
        }
        Ok(())
    };
    throughout(Duration::from_secs(8), "gateways keep what they have", all_stay).await;
    let streaming = fleet.gateways[0].show().await.unwrap();
    assert!(
        streaming.iter().all(|gateway| gateway.phase == "streaming"),
        "they never came back: {streaming:?}"
    );
    assert_eq!(removed(&fleet), asked, "something was removed that nobody deleted");

    fleet.server.faults().clear();
    fleet.settled().await;
    assert_eq!(removed(&fleet), asked, "something was removed that nobody deleted");
    // The late gateway got what had been deleted since, and lost just that.
    let late: BTreeSet<String> = fleet.gateways[1].events.removed().into_iter().collect();
    let deleted: BTreeSet<String> = namespaces()
        .step_by(2)
        .map(|namespace| format!("APIRoute {namespace}/two from gateways/late"))
        .collect();
    assert!(late.is_subset(&deleted), "{late:?}");
    fleet.nothing_went_back().await;
}
