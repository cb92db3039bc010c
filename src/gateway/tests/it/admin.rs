//! What gateways show of themselves.

use std::net::SocketAddr;

use flotilla_core::digest::digest_of;
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_gateway::{EventKind, Fleet, FleetOptions};
use flotilla_proto::operator::UpdateType;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tonic::Status;

use crate::operator::{Behaviour, DEADLINE, Operator, eventually};
use crate::updates::{backend, increment, route, snapshot};
use crate::upstream::Http;

async fn start(operator: &Operator, names: &[&str], event_capacity: usize) -> Fleet {
    let admin: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let options = FleetOptions { admin: Some(admin), event_capacity, ..FleetOptions::default() };
    let gateways = names.iter().map(|name| operator.gateway(name)).collect();
    let fleet = Fleet::start(gateways, options).await.unwrap();
    eventually("all streams", || (operator.streams().len() == names.len()).then_some(())).await;
    fleet
}

#[tokio::test]
async fn config_digest_and_stats_show_what_is_held() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["gw"], 16).await;
    let http = Http::to(fleet.admin_address().unwrap());
    let nothing = http.get("/config").await.json();
    assert_eq!((&nothing["version"], &nothing["resources"]), (&json!(""), &json!([])));

    let (a, b) = (route("a/r", 3), backend("a/b", 1));
    operator.send_acked(snapshot(4, "v4", &[a.clone(), b.clone()])).await;
    let config = http.get("/config").await.json();
    assert_eq!(
        (&config["gateway"], &config["version"], &config["sequence"]),
        (&json!("edge/gw"), &json!("v4"), &json!(4))
    );
    assert_eq!(
        (&config["phase"], &config["zombie"], &config["session"]),
        (&json!("streaming"), &json!(false), &json!("session-1"))
    );
    let entry = &config["resources"][0];
    assert_eq!(
        (&entry["kind"], &entry["key"], &entry["generation"]),
        (&json!("APIRoute"), &json!("a/r"), &json!(3))
    );
    assert_eq!((&entry["resource_version"], &entry["uid"]), (&json!("3"), &json!("APIRoute-a/r")));
    assert_eq!(entry["spec"], serde_json::from_slice::<Value>(&a.spec_json).unwrap());

    let (key_a, key_b) = (ObjectKey::new("a", "r"), ObjectKey::new("a", "b"));
    let expected = digest_of([
        (Kind::ApiRoute, &key_a, a.spec_json.as_ref()),
        (Kind::Backend, &key_b, b.spec_json.as_ref()),
    ]);
    assert_eq!(http.get("/digest").await.body.unwrap(), format!("{expected}\n"));

    let stats = http.get("/stats").await.json();
    assert_eq!((&stats["updates"], &stats["acks"], &stats["full_syncs"]), (&json!(1), &json!(1), &json!(1)));
    assert_eq!((&stats["held"], &stats["zombie"]), (&json!(2), &json!(false)));
    assert!(stats["last_change_unix_ms"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(http.get("/healthz").await.body.unwrap(), "ok\n");
    fleet.stop().await;
}

#[tokio::test]
async fn the_digest_follows_changes() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["gw"], 16).await;
    let gateway = fleet.gateways()[0].clone();
    let empty = gateway.digest();
    operator.send_acked(increment(UpdateType::Added, 1, "v1", &route("a/r", 1))).await;
    let one = gateway.digest();
    operator.send_acked(increment(UpdateType::Modified, 2, "v2", &route("a/r", 2))).await;
    let two = gateway.digest();
    operator.send_acked(increment(UpdateType::Deleted, 3, "v3", &route("a/r", 2))).await;
    assert_eq!(gateway.digest(), empty);
    assert!(one != empty && two != empty && one != two);
    fleet.stop().await;
}

#[tokio::test]
async fn a_zombie_is_shown_as_one() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["gw"], 16).await;
    operator.end_stream(Some(Status::cancelled("gone"))).await;
    let gateway = fleet.gateways()[0].clone();
    eventually("the zombie", || (gateway.link().phase == flotilla_gateway::Phase::Zombie).then_some(()))
        .await;
    let http = Http::to(fleet.admin_address().unwrap());
    for page in ["/config", "/stats"] {
        let page = http.get(page).await.json();
        assert_eq!((&page["phase"], &page["zombie"]), (&json!("zombie"), &json!(true)));
    }
    fleet.stop().await;
}

#[tokio::test]
async fn every_gateway_of_a_process_has_its_pages() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["one", "two"], 16).await;
    let http = Http::to(fleet.admin_address().unwrap());
    operator.send_to_all(snapshot(1, "v1", &[route("a/r", 1)])).await;
    eventually("both acknowledgements", || (operator.acks().len() == 2).then_some(())).await;
    let list = http.get("/gateways").await.json();
    let names: Vec<_> =
        list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(list[0]["digest"], list[1]["digest"]);
    assert_eq!(
        (&list[1]["version"], &list[1]["held"], &list[1]["stats"]["acks"]),
        (&json!("v1"), &json!(1), &json!(1))
    );
    let config = http.get("/gateways/edge/two/config").await.json();
    assert_eq!(config["gateway"], "edge/two");
    assert_eq!(http.get("/gateways/edge/two/stats").await.json()["gateway"], "edge/two");
    assert_eq!(http.get("/gateways/edge/two/digest").await.status, 200);
    assert_eq!(http.get("/gateways/edge/three/config").await.status, 404);
    assert_eq!(http.get("/gateways/edge/two/secrets").await.status, 404);
    fleet.stop().await;
}

#[tokio::test]
async fn observers_are_told_of_every_change_and_of_nothing_else() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["gw"], 16).await;
    let mut events = fleet.events();
    operator.send_acked(snapshot(1, "v1", &[route("a/r", 1), route("a/s", 1)])).await;
    operator.send_acked(increment(UpdateType::Modified, 2, "v2", &route("a/r", 2))).await;
    operator.send_acked(increment(UpdateType::Modified, 3, "v3", &route("a/r", 2))).await;
    operator.send_acked(increment(UpdateType::Deleted, 4, "v4", &route("a/s", 1))).await;
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert_eq!(&*event.gateway.name, "gw");
        seen.push((
            event.change,
            event.resource.key.to_string(),
            event.resource.generation,
            event.version.to_string(),
        ));
    }
    let expected = [
        (EventKind::Added, "a/r", 1, "v1"),
        (EventKind::Added, "a/s", 1, "v1"),
        (EventKind::Modified, "a/r", 2, "v2"),
        (EventKind::Removed, "a/s", 1, "v4"),
    ]
    .map(|(change, key, generation, version)| (change, key.to_owned(), generation, version.to_owned()));
    assert_eq!(seen, expected);
    fleet.stop().await;
}

#[tokio::test]
async fn an_observer_that_falls_behind_is_told_what_it_lost() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["gw"], 4).await;
    let mut events = fleet.events();
    let routes: Vec<_> = (0..10).map(|number| route(&format!("a/r{number}"), 1)).collect();
    operator.send_acked(snapshot(1, "v1", &routes)).await;
    let lost = events.try_recv().unwrap_err();
    assert_eq!(lost, tokio::sync::broadcast::error::TryRecvError::Lagged(6));
    fleet.stop().await;
}

#[tokio::test]
async fn events_are_streamed_as_lines_until_the_end() {
    let operator = Operator::start(Behaviour::default()).await;
    let fleet = start(&operator, &["gw"], 16).await;
    let uri = format!("http://{}/events", fleet.admin_address().unwrap()).parse().unwrap();
    let client: Client<_, http_body_util::Empty<bytes::Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut body = client.get(uri).await.unwrap().into_body();
    let mut text = String::new();
    let mut read_until = async |body: &mut hyper::body::Incoming, lines: usize| -> Vec<Value> {
        while text.lines().count() < lines {
            let frame = tokio::time::timeout(DEADLINE, body.frame()).await.unwrap().unwrap().unwrap();
            text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!(read_until(&mut body, 1).await[0]["subscribed"], true);
    operator.send_acked(snapshot(1, "v1", &[route("a/r", 7)])).await;
    operator.send_acked(increment(UpdateType::Deleted, 2, "v2", &route("a/r", 7))).await;
    let lines = read_until(&mut body, 3).await;
    assert_eq!(
        (&lines[1]["change"], &lines[1]["kind"], &lines[1]["key"]),
        (&json!("added"), &json!("APIRoute"), &json!("a/r"))
    );
    assert_eq!(
        (&lines[1]["gateway"], &lines[1]["generation"], &lines[1]["uid"]),
        (&json!("edge/gw"), &json!(7), &json!("APIRoute-a/r"))
    );
    assert_eq!((&lines[2]["change"], &lines[2]["version"]), (&json!("removed"), &json!("v2")));
    assert!(lines[1]["at_ms"].as_f64().unwrap() >= lines[0]["at_ms"].as_f64().unwrap());
    // Stopping ends the stream instead of waiting for its reader.
    let started = std::time::Instant::now();
    fleet.stop().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(4));
    assert!(body.frame().await.is_none());
}
