//! Requests through a gateway that was configured over the stream.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_core::ids::Kind;
use flotilla_gateway::resource::Incoming;
use flotilla_gateway::{Fleet, FleetOptions, HttpListeners};
use flotilla_proto::operator::UpdateType;
use http::Method;
use serde_json::{Value, json};

use crate::operator::{Behaviour, Operator, eventually};
use crate::updates::{increment, resource, snapshot};
use crate::upstream::{First, Http, Upstream};

/// A gateway that serves what it is sent.
struct Served {
    operator: Operator,
    fleet: Fleet,
    http: Http,
    sequence: i64,
}

impl Served {
    async fn with(resources: Vec<Incoming>) -> Served {
        let operator = Operator::start(Behaviour::default()).await;
        let http = HttpListeners::First("127.0.0.1:0".parse().unwrap());
        let options = FleetOptions { http, ..FleetOptions::default() };
        let fleet = Fleet::start(vec![operator.gateway("gw")], options).await.unwrap();
        eventually("a stream", || operator.streams().first().cloned()).await;
        let http = Http::to(fleet.http_addresses()[0]);
        let served = Served { operator, fleet, http, sequence: 1 };
        let ack = served.operator.send_acked(snapshot(1, "v1", &resources)).await;
        assert!(ack.success, "{}", ack.error_message);
        served
    }

    async fn send(&mut self, kind: UpdateType, resource: &Incoming) {
        self.sequence += 1;
        let update = increment(kind, self.sequence, &format!("v{}", self.sequence), resource);
        assert!(self.operator.send_acked(update).await.success);
    }

    /// The upstream that answered.
    async fn upstream_of(&self, target: &str) -> Option<String> {
        self.http.get(target).await.header("x-upstream").map(str::to_owned)
    }
}

/// An APIRoute with these fields besides its name.
fn route(name: &str, spec: Value) -> Incoming {
    named(Kind::ApiRoute, name, spec)
}

fn named(kind: Kind, name: &str, mut spec: Value) -> Incoming {
    spec["name"] = json!(format!("t/{name}"));
    resource(kind, &format!("t/{name}"), 1, &spec.to_string())
}

/// A Backend of these upstreams.
fn backend(name: &str, upstreams: &[&Upstream]) -> Incoming {
    let hosts: Vec<Value> =
        upstreams.iter().map(|upstream| json!({"address": "127.0.0.1", "port": upstream.port()})).collect();
    named(Kind::Backend, name, json!({ "hosts": hosts }))
}

/// `route` entries that lead to one upstream as it is.
fn to(upstream: &Upstream) -> Value {
    json!([{"destination": {"host": "127.0.0.1", "port": upstream.port()}}])
}

#[tokio::test]
async fn a_destination_is_a_backend_by_name_first_and_a_host_otherwise() {
    let (named, literal) = (Upstream::start("named").await, Upstream::start("literal").await);
    let gateway = Served::with(vec![
        route(
            "a",
            json!({"match": [{"uri": {"prefix": "/a"}}],
            "route": [{"destination": {"host": "t/b", "port": 1}}]}),
        ),
        route("l", json!({"match": [{"uri": {"prefix": "/l"}}], "route": to(&literal)})),
        backend("b", &[&named]),
    ])
    .await;
    assert_eq!(gateway.upstream_of("/a").await.as_deref(), Some("named"));
    assert_eq!(gateway.upstream_of("/l").await.as_deref(), Some("literal"));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn what_no_route_is_for_gets_404() {
    let gateway = Served::with(vec![route(
        "a",
        json!({"match": [{"uri": {"exact": "/a"}}],
        "directResponse": {"status": 200}}),
    )])
    .await;
    assert_eq!(gateway.http.get("/a").await.status, 200);
    let answer = gateway.http.get("/b").await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (404, Some("not found")));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn the_most_specific_route_wins() {
    let respond = |body: &str, uri: Value| json!({"match": [{"uri": uri}], "directResponse": {"status": 200, "body": body}});
    let gateway = Served::with(vec![
        route("z-exact", respond("exact", json!({"exact": "/api/v1"}))),
        route("y-long", respond("long", json!({"prefix": "/api/v1"}))),
        route("x-short", respond("short", json!({"prefix": "/api"}))),
        route("w-regex", respond("regex", json!({"regex": "^/re[0-9]+$"}))),
        route("a-all", json!({"directResponse": {"status": 200, "body": "all"}})),
    ])
    .await;
    for (target, expected) in [
        ("/api/v1", "exact"),
        ("/api/v1/x", "long"),
        ("/api/v2", "short"),
        ("/re42", "regex"),
        ("/other", "all"),
    ] {
        assert_eq!(gateway.http.get(target).await.body.unwrap(), expected, "{target}");
    }
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn methods_headers_and_query_parameters_decide() {
    let respond = |matching: Value| json!({"match": [matching], "directResponse": {"status": 204}});
    let gateway = Served::with(vec![
        route("m", respond(json!({"uri": {"exact": "/m"}, "methods": ["POST"]}))),
        route(
            "h",
            respond(json!({"uri": {"exact": "/h"}, "headers": [{"name": "X-V", "regex": "^v[12]$"},
            {"name": "X-Debug", "absent": true}]})),
        ),
        route("q", respond(json!({"uri": {"exact": "/q"}, "queryParams": [{"name": "v", "exact": "1"}]}))),
        route("o", respond(json!({"uri": {"exact": "/o"}, "headers": [{"name": "Host", "exact": "shop"}]}))),
    ])
    .await;
    let check = async |method: Method, target: &str, headers: &[(&str, &str)], expected: u16| {
        let status = gateway.http.send(method, target, headers, "").await.status;
        assert_eq!(status, expected, "{target} {headers:?}");
    };
    check(Method::POST, "/m", &[], 204).await;
    check(Method::GET, "/m", &[], 404).await;
    check(Method::GET, "/h", &[("x-v", "v2")], 204).await;
    check(Method::GET, "/h", &[("x-v", "v3")], 404).await;
    check(Method::GET, "/h", &[("x-v", "v2"), ("x-debug", "1")], 404).await;
    check(Method::GET, "/q?v=1", &[], 204).await;
    check(Method::GET, "/q?v=2", &[], 404).await;
    check(Method::GET, "/o", &[("host", "shop")], 204).await;
    check(Method::GET, "/o", &[("host", "mall")], 404).await;
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn weights_divide_the_requests() {
    let (big, small, none) =
        (Upstream::start("big").await, Upstream::start("small").await, Upstream::start("none").await);
    let entry = |upstream: &Upstream, weight: u32| {
        json!({"destination":
        {"host": "127.0.0.1", "port": upstream.port()}, "weight": weight})
    };
    let gateway = Served::with(vec![route(
        "w",
        json!({"route": [entry(&big, 80), entry(&small, 20), entry(&none, 0)]}),
    )])
    .await;
    for _ in 0..400 {
        assert_eq!(gateway.http.get("/").await.status, 200);
    }
    // 320 expected, standard deviation 8: 7 of them either way.
    assert!((264..=376).contains(&big.requests()), "{}", big.requests());
    assert_eq!((big.requests() + small.requests(), none.requests()), (400, 0));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn a_backends_hosts_take_turns() {
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let gateway = Served::with(vec![
        route("r", json!({"route": [{"destination": {"host": "t/b", "port": 80}}]})),
        backend("b", &[&one, &two]),
    ])
    .await;
    for _ in 0..10 {
        gateway.http.get("/").await;
    }
    assert_eq!((one.requests(), two.requests()), (5, 5));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn request_and_answer_arrive_as_sent_with_headers_changed_as_the_route_says() {
    let upstream = Upstream::start("up").await;
    let gateway = Served::with(vec![route(
        "r",
        json!({
            "route": to(&upstream),
            "headers": {
                "request": {"set": {"X-Gateway": "g"}, "add": {"X-Many": "two"}, "remove": ["X-Internal"]},
                "response": {"set": {"X-Answer": "yes"}, "remove": ["X-Upstream"]},
            },
        }),
    )])
    .await;
    let headers = [
        ("x-many", "one"),
        ("x-internal", "secret"),
        ("x-gateway", "forged"),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("host", "shop.example"),
    ];
    let answer = gateway.http.send(Method::POST, "/a/b?c=d%20e", &headers, "payload").await;
    assert_eq!(
        (answer.status, answer.header("x-answer"), answer.header("x-upstream")),
        (200, Some("yes"), None)
    );
    let echo = answer.json();
    assert_eq!(
        (&echo["method"], &echo["target"], &echo["body"]),
        (&json!("POST"), &json!("/a/b?c=d%20e"), &json!("payload"))
    );
    let seen = &echo["headers"];
    assert_eq!(seen["x-gateway"], "g");
    assert_eq!(seen["x-many"], "two", "the echo shows the last value");
    assert_eq!((&seen["x-internal"], &seen["x-hop"]), (&Value::Null, &Value::Null));
    assert_eq!(seen["x-forwarded-host"], "shop.example");
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["host"], format!("127.0.0.1:{}", upstream.port()));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn rewrites_replace_the_prefix_and_the_authority() {
    let upstream = Upstream::start("up").await;
    let gateway = Served::with(vec![
        route(
            "p",
            json!({"match": [{"uri": {"prefix": "/api"}}], "route": to(&upstream),
            "rewrite": {"uri": "/v2", "authority": "inner.example"}}),
        ),
        route(
            "t",
            json!({"match": [{"uri": {"exact": "/users/{id}"}}], "route": to(&upstream),
            "rewrite": {"uri": "/people/{id}"}}),
        ),
    ])
    .await;
    let echo = gateway.http.get("/api/users?x=1").await.json();
    assert_eq!(
        (&echo["target"], &echo["headers"]["host"]),
        (&json!("/v2/users?x=1"), &json!("inner.example"))
    );
    assert_eq!(gateway.http.get("/users/7").await.json()["target"], "/people/7");
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn redirects_and_direct_responses_need_no_upstream() {
    let gateway = Served::with(vec![
        route(
            "r",
            json!({"match": [{"uri": {"exact": "/old"}}],
            "redirect": {"uri": "/new", "code": 308, "scheme": "https", "host": "h", "port": 8443,
                "stripQuery": true}}),
        ),
        route(
            "d",
            json!({"match": [{"uri": {"exact": "/d"}}], "directResponse":
            {"status": 418, "body": "{\"tea\":true}", "headers": {"content-type": "application/json"}}}),
        ),
    ])
    .await;
    let redirect = gateway.http.get("/old?a=1").await;
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("https://h:8443/new")));
    let direct = gateway.http.get("/d").await;
    assert_eq!((direct.status, direct.header("content-type")), (418, Some("application/json")));
    assert_eq!(direct.json(), json!({"tea": true}));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn the_timeout_ends_an_exchange_with_504_and_a_stalled_body_breaks_off() {
    let hanging = Upstream::failing("hanging", usize::MAX, First::Hang).await;
    let stalling = Upstream::failing("stalling", usize::MAX, First::Stall).await;
    let gateway = Served::with(vec![
        route("h", json!({"match": [{"uri": {"exact": "/h"}}], "route": to(&hanging), "timeout": "100ms"})),
        route("s", json!({"match": [{"uri": {"exact": "/s"}}], "route": to(&stalling), "timeout": "100ms"})),
    ])
    .await;
    let started = Instant::now();
    assert_eq!(gateway.http.get("/h").await.status, 504);
    assert!(started.elapsed() >= Duration::from_millis(100));
    let answer = gateway.http.get("/s").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.is_err(), "{:?}", answer.body);
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn failed_tries_are_repeated_as_the_route_says() {
    let retried = Upstream::failing("retried", 2, First::Status(503)).await;
    let exhausted = Upstream::failing("exhausted", usize::MAX, First::Status(500)).await;
    let unlisted = Upstream::failing("unlisted", usize::MAX, First::Status(500)).await;
    let conflict = Upstream::failing("conflict", 1, First::Status(409)).await;
    let slow = Upstream::failing("slow", 1, First::Hang).await;
    let retry = |path: &str, upstream: &Upstream, retries: Value| {
        json!({"match": [{"uri": {"exact": path}}],
        "route": to(upstream), "retries": retries})
    };
    let gateway = Served::with(vec![
        route("a", retry("/retried", &retried, json!({"attempts": 3, "retryOn": "5xx"}))),
        route("b", retry("/exhausted", &exhausted, json!({"attempts": 2, "retryOn": "5xx"}))),
        route("c", retry("/unlisted", &unlisted, json!({"attempts": 2, "retryOn": "connect-failure,reset"}))),
        route("d", retry("/conflict", &conflict, json!({"retryOn": "retriable-4xx"}))),
        route("e", retry("/slow", &slow, json!({"perTryTimeout": "100ms", "retryOn": "5xx"}))),
    ])
    .await;
    // The body goes with every try.
    let answer = gateway.http.send(Method::POST, "/retried", &[], "payload").await;
    assert_eq!((answer.status, retried.requests()), (200, 3));
    assert_eq!(answer.json()["body"], "payload");
    assert_eq!((gateway.http.get("/exhausted").await.status, exhausted.requests()), (500, 3));
    assert_eq!((gateway.http.get("/unlisted").await.status, unlisted.requests()), (500, 1));
    assert_eq!((gateway.http.get("/conflict").await.status, conflict.requests()), (200, 2));
    assert_eq!((gateway.http.get("/slow").await.status, slow.requests()), (200, 2));
    let stats = gateway.fleet.gateways()[0].proxy_stats().unwrap();
    assert_eq!((stats.requests, stats.retries, stats.failed), (5, 6, 0));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn an_unreachable_host_is_tried_around() {
    let upstream = Upstream::start("up").await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hosts = json!([{"address": "127.0.0.1", "port": gone.port()},
        {"address": "127.0.0.1", "port": upstream.port()}]);
    let forward = |path: &str| {
        json!({"match": [{"uri": {"exact": path}}],
        "route": [{"destination": {"host": "t/b", "port": 80}}]})
    };
    let mut retrying = forward("/retrying");
    retrying["retries"] = json!({"attempts": 1, "retryOn": "connect-failure"});
    let gateway = Served::with(vec![
        route("plain", forward("/plain")),
        route("retrying", retrying),
        named(Kind::Backend, "b", json!({"hosts": hosts})),
    ])
    .await;
    let mut statuses = BTreeMap::new();
    for _ in 0..10 {
        *statuses.entry(gateway.http.get("/plain").await.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(200, 5), (502, 5)]));
    for _ in 0..10 {
        assert_eq!(gateway.http.get("/retrying").await.status, 200);
    }
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn a_long_body_goes_through_a_route_with_retries() {
    let upstream = Upstream::start("up").await;
    let gateway =
        Served::with(vec![route("r", json!({"route": to(&upstream), "retries": {"attempts": 2}}))]).await;
    // Longer than what is kept for another try.
    let body = "x".repeat(1_500_000);
    let answer = gateway.http.send(Method::POST, "/", &[], &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["body"].as_str().unwrap().len(), body.len());
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn destinations_that_cannot_be_served_get_503_with_the_reason() {
    let gateway = Served::with(vec![
        route("n", json!({"match": [{"uri": {"exact": "/n"}}]})),
        route(
            "t",
            json!({"match": [{"uri": {"exact": "/t"}}],
            "route": [{"destination": {"host": "t/tls", "port": 443}}]}),
        ),
        named(
            Kind::Backend,
            "tls",
            json!({"hosts": [{"address": "h", "port": 1}], "tls": {"enabled": true}}),
        ),
    ])
    .await;
    for (target, reason) in [("/n", "no destination"), ("/t", "TLS")] {
        let answer = gateway.http.get(target).await;
        assert_eq!(answer.status, 503, "{target}");
        assert!(answer.json()["message"].as_str().unwrap().contains(reason), "{target}");
    }
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn changes_are_in_force_when_they_are_acknowledged_and_drop_no_request() {
    let (old, new) = (Upstream::start("old").await, Upstream::start("new").await);
    let mut gateway = Served::with(vec![
        route("r", json!({"route": [{"destination": {"host": "t/b", "port": 80}}]})),
        backend("b", &[&old]),
    ])
    .await;
    let http = gateway.http.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(async move {
        let mut statuses = BTreeMap::new();
        while stopped.try_recv().is_err() {
            *statuses.entry(http.get("/").await.status).or_insert(0) += 1;
        }
        statuses
    });
    for round in 0..30 {
        let (upstream, name) = if round % 2 == 0 { (&new, "new") } else { (&old, "old") };
        gateway.send(UpdateType::Modified, &backend("b", &[upstream])).await;
        assert_eq!(gateway.upstream_of("/").await.as_deref(), Some(name));
        let added = route(
            &format!("extra{round}"),
            json!({"match": [{"uri": {"exact": "/e"}}], "directResponse": {"status": 200}}),
        );
        gateway.send(UpdateType::Added, &added).await;
    }
    stop.send(()).unwrap();
    let statuses = load.await.unwrap();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    gateway.send(UpdateType::Deleted, &route("r", json!({}))).await;
    assert_eq!(gateway.http.get("/").await.status, 404);
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn stopping_lets_requests_in_flight_finish() {
    let upstream = Upstream::failing("slow", 1, First::Hang).await;
    let gateway = Served::with(vec![route("r", json!({"route": to(&upstream), "timeout": "300ms"}))]).await;
    let http = gateway.http.clone();
    let request = tokio::spawn(async move { http.get("/").await.status });
    eventually("the request at the upstream", || (upstream.requests() == 1).then_some(())).await;
    gateway.fleet.stop().await;
    assert_eq!(request.await.unwrap(), 504);
}

#[tokio::test]
async fn grpc_calls_go_through_with_trailers_and_unknown_ones_are_unimplemented() {
    // The operator of another test serves as gRPC upstream.
    let upstream = Operator::start(Behaviour::default()).await;
    let port = upstream.address.port();
    let service = "avapigw.operator.v1alpha1.ConfigurationService";
    let gateway = Served::with(vec![
        named(
            Kind::GrpcRoute,
            "g",
            json!({
            "match": [{"service": {"exact": service}, "method": {"exact": "Heartbeat"}},
                {"service": {"exact": service}, "method": {"exact": "GetConfiguration"}}],
            "route": [{"destination": {"host": "t/gb", "port": 1}}]}),
        ),
        named(Kind::GrpcBackend, "gb", json!({"hosts": [{"address": "127.0.0.1", "port": port}]})),
    ])
    .await;
    let address = format!("http://{}", gateway.fleet.http_addresses()[0]);
    let channel = tonic::transport::Endpoint::from_shared(address).unwrap().connect_lazy();
    let mut client =
        flotilla_proto::operator::configuration_service_client::ConfigurationServiceClient::new(channel);
    let request =
        flotilla_proto::operator::HeartbeatRequest { session_id: "s".to_owned(), ..Default::default() };
    assert!(client.heartbeat(request).await.unwrap().into_inner().acknowledged);
    assert_eq!(upstream.heartbeats()[0].message.session_id, "s");
    // A status from the upstream, and one from the gateway.
    let status = client
        .get_configuration(flotilla_proto::operator::GetConfigurationRequest::default())
        .await
        .unwrap_err();
    assert!(status.message().contains("never call it"), "{status:?}");
    let status = client
        .register_gateway(flotilla_proto::operator::RegisterGatewayRequest::default())
        .await
        .unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unimplemented, "no route matches this call"));
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn routes_after_a_bad_one_are_out_of_service_until_it_is_repaired() {
    let respond =
        |path: &str| json!({"match": [{"uri": {"exact": path}}], "directResponse": {"status": 200}});
    let mut gateway = Served::with(vec![route("a", respond("/a")), route("z", respond("/z"))]).await;
    let bad = route("m", json!({"match": [{"uri": {"regex": "("}}]}));
    let ack = gateway.operator.send_acked(increment(UpdateType::Added, 2, "v2", &bad)).await;
    assert!(!ack.success);
    assert_eq!((gateway.http.get("/a").await.status, gateway.http.get("/z").await.status), (200, 404));
    gateway.send(UpdateType::Deleted, &bad).await;
    assert_eq!(gateway.http.get("/z").await.status, 200);
    gateway.fleet.stop().await;
}

#[tokio::test]
async fn each_gateway_of_a_process_can_have_its_own_listener() {
    let operator = Operator::start(Behaviour::default()).await;
    let http = HttpListeners::All("127.0.0.1:0".parse().unwrap());
    let options = FleetOptions { http, ..FleetOptions::default() };
    let fleet = Fleet::start(vec![operator.gateway("one"), operator.gateway("two")], options).await.unwrap();
    eventually("both streams", || (operator.streams().len() == 2).then_some(())).await;
    operator.send_to_all(snapshot(1, "v1", &[route("r", json!({"directResponse": {"status": 204}}))])).await;
    eventually("both acknowledgements", || (operator.acks().len() == 2).then_some(())).await;
    assert_eq!(fleet.http_addresses().len(), 2);
    for address in fleet.http_addresses() {
        assert_eq!(Http::to(*address).get("/").await.status, 204);
    }
    fleet.stop().await;
}
