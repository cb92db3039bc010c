//! Over real TLS connections, because what matters here is what clients send that are not API servers: wrong, slow, too
//! much.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use flotilla_certs::{Alpn, Authority, ClientAuth, ClientTls, ServerCheck, ServerTls};
use flotilla_core::ids::{Kind, Revision};
use prometheus::Registry;
use proptest::prelude::*;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::review::{self, About, Answer, Examined, Outcome};
use super::*;
use crate::damage::damage;

mod ingress;

const ROUTE: &str = "/validate-avapigw-io-v1alpha1-apiroute";
/// For what must end; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn object(kind: Kind, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "avapigw.io/v1alpha1",
        "kind": kind.name(),
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "generation": 1,
            "creationTimestamp": "2026-11-21T10:00:00Z", "labels": {"a": "b"},
        },
        "spec": spec,
    })
}

fn route(name: &str, prefix: &str) -> Value {
    let route = json!([{"destination": {"host": "a.example", "port": 80}}]);
    object(Kind::ApiRoute, name, json!({"match": [{"uri": {"prefix": prefix}}], "route": route}))
}

fn review(operation: &str, kind: Kind, object: Value, before: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "avapigw.io", "version": "v1alpha1", "kind": kind.name()},
            "resource": {"group": "avapigw.io", "version": "v1alpha1", "resource": kind.plural()},
            "operation": operation,
            "userInfo": {"username": "someone"},
            "object": object,
            "oldObject": before,
            "dryRun": false,
        },
    })
}

fn created(kind: Kind, object: Value) -> Value {
    review("CREATE", kind, object, Value::Null)
}

fn listed(kind: Kind, objects: Vec<flotilla_core::object::RawObject>) -> ObjectEvent {
    ObjectEvent::Listed { kind, revision: Revision(1), objects }
}

/// Knows one route, `shop/first` at `/a`, and that there is nothing else.
fn known() -> Known {
    let known = Known::new(Scope::Namespace);
    for kind in Kind::ALL {
        known.tell(&listed(kind, Vec::new()));
    }
    known.tell(&ObjectEvent::Changed(raw("first", "/a")));
    known
}

fn raw(name: &str, prefix: &str) -> flotilla_core::object::RawObject {
    let value = route(name, prefix);
    flotilla_core::object::RawObject {
        kind: Kind::ApiRoute,
        key: flotilla_core::ids::ObjectKey::new("shop", name),
        uid: name.into(),
        revision: Revision(2),
        generation: 1,
        created: "2026-11-21T10:00:00Z".into(),
        deleting: false,
        held: false,
        spec: value["spec"].to_string().into(),
        status: bytes::Bytes::new(),
    }
}

/// A Service of the namespace `shop`.
fn service(name: &str) -> KnownService {
    KnownService {
        key: flotilla_core::ids::ObjectKey::new("shop", name),
        ports: std::collections::BTreeMap::new(),
    }
}

/// The class of Ingresses that are ours.
fn class() -> Class {
    Class { name: "avapigw".into(), is_default: false }
}

/// The whole answer to a review, decided alone.
fn answered(about: About, bytes: &[u8]) -> Answer {
    answered_by(&known(), about, bytes)
}

fn answered_by(known: &Known, about: About, bytes: &[u8]) -> Answer {
    let rules = Rules { references: References::Deny, class: Some(class()) };
    match known.ask(|shown| review::examine(about, bytes, shown, &rules)) {
        Examined::Answered(answer) => answer,
        Examined::Contested(contested) => {
            let decide = |question| known.decide(flotilla_core::time::Mono(1), question);
            let answers: Vec<_> = contested.questions.iter().map(decide).collect();
            contested.decided(&answers)
        }
    }
}

/// A running server with its authority.
struct Server {
    address: SocketAddr,
    authority: Authority,
    tls: ServerTls,
    registry: Registry,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(known: Known, limits: Limits) -> Server {
        let now = SystemTime::now();
        let authority = Authority::generate("test", now).unwrap();
        let leaf = issue(&authority);
        let tls = ServerTls::new(&leaf, authority.roots(), ClientAuth::Nobody, Alpn::Http1).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (registry, cancel) = (Registry::new(), CancellationToken::new());
        let metrics = Metrics::new(&registry).unwrap();
        let decider = metrics.decider(&known);
        let webhooks = Webhooks::new(known, decider, References::Warn, Some(class()), metrics);
        let task = tokio::spawn(serve(listener, tls.clone(), webhooks, limits, cancel.clone()));
        Server { address, authority, tls, registry, cancel, task }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let client = ClientTls::new(None, self.authority.roots(), ServerCheck::Name, Alpn::Http1).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(client.config()).connect(name, stream).await.unwrap()
    }

    /// Sends bytes and reads to the end of the connection.
    async fn exchange(&self, bytes: &[u8]) -> (u16, Value) {
        let mut stream = self.connect().await;
        // The server may have answered and gone before it has read everything.
        let _ = stream.write_all(bytes).await;
        read(&mut stream).await
    }

    async fn post(&self, path: &str, media_type: &str, body: &[u8]) -> (u16, Value) {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {media_type}\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.exchange(&[head.as_bytes(), body].concat()).await
    }

    async fn ask(&self, kind: Kind, review: &Value) -> (u16, Value) {
        let path = format!("/validate-avapigw-io-v1alpha1-{}", kind.name().to_ascii_lowercase());
        self.post(&path, "application/json; charset=utf-8", review.to_string().as_bytes()).await
    }

    fn counted(&self, outcome: &str) -> f64 {
        self.sample("flotilla_admission_reviews_total", &[outcome])
    }

    /// The value of the metric of this name with these values of labels, whatever their names.
    fn sample(&self, name: &str, labels: &[&str]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|one| one.name() == name).unwrap();
        let of = |one: &&prometheus::proto::Metric| {
            labels.iter().all(|label| one.get_label().iter().any(|known| known.value() == *label))
        };
        let metric = family.get_metric().iter().find(of).unwrap();
        metric.get_counter().get_value() + metric.get_histogram().get_sample_count() as f64
    }

    async fn end(self) {
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server ends").unwrap();
    }
}

fn issue(authority: &Authority) -> flotilla_certs::CertificatePem {
    authority.issue_server("flotilla", &["localhost"], &[], SystemTime::now()).unwrap()
}

async fn read(stream: &mut TlsStream<TcpStream>) -> (u16, Value) {
    let mut bytes = Vec::new();
    let reading = stream.read_to_end(&mut bytes);
    // A server that did not wait for the rest may reset the connection.
    let _ = tokio::time::timeout(PATIENCE, reading).await.expect("an answer, and its end");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).unwrap_or_else(|| panic!("an answer: {text:?}")).parse().unwrap();
    let body = text.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("JSON: {text:?}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_admitted_and_refused_in_the_words_of_the_api() {
    let server = Server::start(known(), Limits::default()).await;
    let (status, body) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, route("other", "/b"))).await;
    assert_eq!(status, 200);
    assert_eq!((&body["response"]["uid"], &body["response"]["allowed"]), (&json!("u-1"), &json!(true)));

    let (_, body) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, route("other", "/a"))).await;
    let told = &body["response"]["status"];
    assert_eq!(body["response"]["allowed"], false);
    let message = told["message"].as_str().unwrap();
    assert!(
        message.starts_with("validation failed: spec.match[0]: duplicate route match found: ")
            && message.contains("shop/first"),
        "{message}"
    );
    let cause = &told["details"]["causes"][0];
    assert_eq!((&cause["field"], &cause["reason"]), (&json!("spec.match[0]"), &json!("FieldValueDuplicate")));

    // Several things at once, each with its field.
    let mut wrong = route("other", "/a");
    wrong["spec"]["timeout"] = json!("100h");
    let (_, body) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, wrong.clone())).await;
    let causes = body["response"]["status"]["details"]["causes"].as_array().unwrap();
    let fields: Vec<&str> = causes.iter().map(|cause| cause["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["spec.timeout", "spec.match[0]"]);

    // What does not change the spec, and what goes, is nobody's business.
    let unchanged = review("UPDATE", Kind::ApiRoute, wrong.clone(), wrong.clone());
    let mut going = wrong.clone();
    going["metadata"]["deletionTimestamp"] = json!("2026-11-21T11:00:00Z");
    let deleted = review("DELETE", Kind::ApiRoute, Value::Null, wrong);
    for review in [unchanged, created(Kind::ApiRoute, going), deleted] {
        let (_, body) = server.ask(Kind::ApiRoute, &review).await;
        assert_eq!(body["response"]["allowed"], true, "{body}");
    }
    let cached = object(
        Kind::Backend,
        "b",
        json!({"hosts": [{"address": "x", "port": 1}], "cache": {"enabled": true}}),
    );
    let (_, body) = server.ask(Kind::Backend, &created(Kind::Backend, cached)).await;
    assert!(body["response"]["warnings"][0].as_str().unwrap().contains("ignored"), "{body}");
    assert_eq!((server.counted("admitted"), server.counted("refused")), (5.0, 2.0));
    // The same under the published operator's names, by kind and operation.
    for (name, labels, expected) in [
        ("validations_total", &["APIRoute", "CREATE", "allowed"][..], 2.0),
        ("validations_total", &["APIRoute", "CREATE", "denied"], 2.0),
        ("validations_total", &["APIRoute", "UPDATE", "allowed"], 1.0),
        ("validations_total", &["APIRoute", "DELETE", "allowed"], 1.0),
        ("validations_total", &["Backend", "CREATE", "allowed"], 1.0),
        ("validations_total", &["GRPCBackend", "UPDATE", "denied"], 0.0),
        ("validation_duration_seconds", &["APIRoute", "CREATE"], 4.0),
        ("validation_warnings_total", &["Backend"], 1.0),
        ("validation_warnings_total", &["Ingress"], 0.0),
        ("duplicate_check_total", &["apiroute", "namespace", "conflict"], 2.0),
        ("duplicate_check_total", &["apiroute", "namespace", "ok"], 1.0),
        ("duplicate_check_total", &["backend", "namespace", "ok"], 1.0),
        ("duplicate_check_total", &["ingress", "namespace", "error"], 0.0),
    ] {
        let found = server.sample(&format!("avapigw_operator_webhook_{name}"), labels);
        assert!((found - expected).abs() < 0.5, "{name} {labels:?}: {found}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_admitted_is_reserved_until_it_shows_up_and_by_a_dry_run_never() {
    let (known, path) = (known(), "/same");
    let server = Server::start(known.clone(), Limits::default()).await;
    let ask = async |name: &str, dry_run: bool| {
        let mut review = created(Kind::ApiRoute, route(name, path));
        review["request"]["dryRun"] = json!(dry_run);
        let (_, body) = server.ask(Kind::ApiRoute, &review).await;
        let said = &body["response"];
        (said["allowed"] == true, said["status"]["message"].as_str().unwrap_or_default().to_owned())
    };
    assert!(ask("tried", true).await.0);
    assert!(ask("one", false).await.0);
    for dry_run in [false, true] {
        let (allowed, message) = ask("other", dry_run).await;
        let words =
            ["duplicate route match found", "shop/one, which was admitted a moment ago", "spec.match[0]"];
        assert!(!allowed && words.iter().all(|word| message.contains(word)), "{message}");
    }
    assert!(ask("one", false).await.0, "it may be tried again");
    // It shows up, and goes: soon nothing is reserved any more.
    known.tell(&ObjectEvent::Changed(raw("one", path)));
    let (allowed, message) = ask("other", false).await;
    assert!(!allowed && message.contains("shop/one; "), "{message}");
    let key = flotilla_core::ids::ObjectKey::new("shop", "one");
    known.tell(&ObjectEvent::Deleted(Kind::ApiRoute, key, Revision(9)));
    let admitted = async {
        while !ask("other", false).await.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), admitted).await.unwrap();
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_is_a_service_is_known_from_when_it_is_seen() {
    let known = known();
    let server = Server::start(known.clone(), Limits::default()).await;
    let mut leading = route("other", "/b");
    leading["spec"]["route"][0]["destination"]["host"] = json!("web");
    let warnings = async || {
        let (_, body) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, leading.clone())).await;
        assert_eq!(body["response"]["allowed"], true, "{body}");
        body["response"]["warnings"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(warnings().await, 0, "nothing is listed, so nothing is missed");
    known.tell_services(&Seen::All(Vec::new()));
    assert_eq!(warnings().await, 1);
    known.tell_services(&Seen::Is(Box::new(service("web"))));
    assert_eq!(warnings().await, 0);
    known.tell_services(&Seen::Gone(Box::new(service("web"))));
    assert_eq!(warnings().await, 1);
    known.tell_services(&Seen::Lost);
    assert_eq!(warnings().await, 0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_said_before_everything_is_listed() {
    let known = Known::new(Scope::Namespace);
    let server = Server::start(known.clone(), Limits::default()).await;
    let asked = created(Kind::ApiRoute, route("other", "/b"));
    let (status, body) = server.ask(Kind::ApiRoute, &asked).await;
    assert_eq!((status, &body["reason"]), (503, &json!("ServiceUnavailable")));
    for kind in Kind::ALL {
        known.tell(&listed(kind, Vec::new()));
    }
    assert_eq!(server.ask(Kind::ApiRoute, &asked).await.0, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_review_gets_a_status_that_says_why() {
    let limits = Limits { body: 64 << 10, ..Limits::default() };
    let server = Server::start(known(), limits).await;
    let good = created(Kind::ApiRoute, route("other", "/b"));
    let mut other_version = good.clone();
    other_version["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let without = |field: &str| {
        let mut review = good.clone();
        review["request"].as_object_mut().unwrap().remove(field);
        review.to_string().into_bytes()
    };
    let deep = |opened: &str| {
        let deep = opened.repeat(10_000);
        format!(r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{deep}"#)
            .into_bytes()
    };
    let broken = |text: &[u8]| {
        let mut bytes = good.to_string().into_bytes();
        let at = bytes.windows(7).position(|window| window == b"/b\"}}],").unwrap();
        bytes.splice(at..at + 2, text.iter().copied());
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no JSON", b"review".to_vec()),
        ("cut off", good.to_string().as_bytes()[..100].to_vec()),
        ("broken UTF-8", broken(b"\xff\xfe")),
        ("another version", other_version.to_string().into_bytes()),
        ("no request", br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#.to_vec()),
        ("no uid", without("uid")),
        ("no object", without("object")),
        (
            "another kind",
            created(Kind::Backend, object(Kind::Backend, "b", json!({}))).to_string().into_bytes(),
        ),
        ("an object without metadata", created(Kind::ApiRoute, json!({"spec": {}})).to_string().into_bytes()),
        ("an object that is a list", created(Kind::ApiRoute, json!([1])).to_string().into_bytes()),
        ("deep lists", deep("[")),
        ("deep objects", deep(r#"{"a":"#)),
    ];
    for (name, body) in &cases {
        let (status, said) = server.post(ROUTE, "application/json", body).await;
        assert_eq!(
            (status, &said["kind"], &said["code"]),
            (400, &json!("Status"), &json!(400)),
            "{name}: {said}"
        );
        assert!(!said["message"].as_str().unwrap().is_empty(), "{name}");
    }
    // A well-formed spec that is deeper than any is refused as such, not as a bad request.
    let nested = serde_json::from_str::<Value>(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).unwrap();
    let mut deep_spec = route("other", "/b");
    deep_spec["spec"]["unknown"] = nested;
    let (status, _) = server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, deep_spec)).await;
    assert_eq!(status, 200);

    let body = good.to_string();
    for (media_type, expected) in
        [("text/plain", 415), ("", 415), ("application/yaml", 415), ("Application/JSON", 200)]
    {
        assert_eq!(server.post(ROUTE, media_type, body.as_bytes()).await.0, expected, "{media_type:?}");
    }
    for path in
        ["/", "/validate", "/validate-avapigw-io-v1alpha1-", "/validate-avapigw-io-v1alpha1-apiroutes"]
    {
        assert_eq!(server.post(path, "application/json", body.as_bytes()).await.0, 404, "{path}");
    }
    let get = format!("GET {ROUTE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!(server.exchange(get.as_bytes()).await.0, 405);
    // Too large, by what is announced and by what comes.
    let large = vec![b' '; limits.body + 1];
    assert_eq!(server.post(ROUTE, "application/json", &large).await.0, 413);
    let mut chunked = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n",
        large.len()
    )
    .into_bytes();
    chunked.extend(&large);
    assert_eq!(server.exchange(&chunked).await.0, 413);
    assert_eq!(server.counted("refused"), 0.0);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_hold_nothing_up() {
    let soon = Duration::from_millis(300);
    let limits = Limits { request: soon, handshake: soon, head: soon, bodies: 1024, ..Limits::default() };
    let server = Server::start(known(), limits).await;
    // Neither TLS, nor a head, nor a body: each ends by itself.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut headless = server.connect().await;
    headless.write_all(b"POST / HTT").await.unwrap();
    let head = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1048576\r\n\r\n{{"
    );
    let mut bodiless = server.connect().await;
    bodiless.write_all(head.as_bytes()).await.unwrap();
    // The third one's body has taken all room, and others have their turn after it.
    let mut waiting = server.connect().await;
    waiting.write_all(head.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let ended = async {
        let _ = silent.read_to_end(&mut rest).await;
        let _ = headless.read_to_end(&mut rest).await;
        (read(&mut bodiless).await, read(&mut waiting).await)
    };
    let (first, second) = tokio::time::timeout(PATIENCE, ended).await.expect("all of them end");
    assert_eq!((first.0, &first.1["reason"]), (408, &json!("Timeout")));
    assert_eq!(second.0, 408);
    let good = created(Kind::ApiRoute, route("other", "/b"));
    assert_eq!(server.ask(Kind::ApiRoute, &good).await.0, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_serves_new_connections_and_drops_none() {
    let server = Server::start(known(), Limits::default()).await;
    let certificate =
        |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let mut open = server.connect().await;
    let before = certificate(&open);
    server.tls.swap(&issue(&server.authority), server.authority.roots()).unwrap();
    assert_ne!(certificate(&server.connect().await), before);
    let body = created(Kind::ApiRoute, route("other", "/b")).to_string();
    let request = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    open.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read(&mut open).await.0, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_it_ends_with_quiet_connections_open() {
    let server = Server::start(known(), Limits::default()).await;
    let mut quiet = server.connect().await;
    server.end().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, quiet.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(rest.is_empty());
}

proptest! {
    /// Bytes of a good review, some of them changed: an answer in the words of the API.
    #[test]
    fn any_bytes_get_an_answer(
        damage in damage(6),
        which in 0..5usize,
    ) {
        let (about, review) = match Kind::ALL.get(which) {
            Some(kind) => {
                (About::Object(*kind), review("UPDATE", *kind, route("other", "/a"), route("other", "/c")))
            }
            None => (About::Ingress, ingress::review("UPDATE", ingress::at("/a"), ingress::at("/c"))),
        };
        let answer = answered(about, &damage.of(review.to_string().as_bytes()));
        match answer.outcome {
            Outcome::Admitted | Outcome::Refused => {
                prop_assert_eq!(answer.status.as_u16(), 200);
                prop_assert_eq!(&answer.body["kind"], "AdmissionReview");
                let allowed = answer.outcome == Outcome::Admitted;
                prop_assert_eq!(&answer.body["response"]["allowed"], &json!(allowed));
            }
            Outcome::Malformed => {
                prop_assert_eq!(answer.status.as_u16(), 400);
                prop_assert_eq!(&answer.body["kind"], "Status");
            }
            Outcome::NotReady => prop_assert!(false, "everything is listed"),
        }
    }
}

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["CREATE", "UPDATE", "10s", "-1s", "/a", "(", "GET", "shop"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let names = prop::sample::select(vec![
            "match",
            "uri",
            "prefix",
            "regex",
            "route",
            "destination",
            "host",
            "port",
            "weight",
            "methods",
            "name",
            "namespace",
            "timeout",
            "hosts",
            "address",
            "headers",
            "enabled",
            "authentication",
            "jwt",
            "retries",
            "paths",
            "pathType",
            "backend",
            "service",
            "number",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a review that may be something else than it is.
const PLACES: [&str; 29] = [
    "/apiVersion",
    "/kind",
    "/request",
    "/request/uid",
    "/request/kind",
    "/request/kind/group",
    "/request/operation",
    "/request/dryRun",
    "/request/userInfo",
    "/request/object",
    "/request/object/kind",
    "/request/object/metadata",
    "/request/object/metadata/name",
    "/request/object/metadata/namespace",
    "/request/object/metadata/creationTimestamp",
    "/request/object/metadata/deletionTimestamp",
    "/request/object/metadata/annotations",
    "/request/object/metadata/annotations/avapigw.io~1timeout",
    "/request/object/spec",
    "/request/object/spec/rules",
    "/request/object/spec/rules/0/host",
    "/request/object/spec/rules/0/http/paths/0",
    "/request/object/spec/rules/0/http/paths/0/path",
    "/request/object/spec/tls",
    "/request/object/spec/match",
    "/request/object/spec/match/0",
    "/request/object/spec/route/0/destination",
    "/request/oldObject",
    "/request/oldObject/spec",
];

proptest! {
    /// Reviews that are JSON, with anything in some of their places.
    #[test]
    fn any_review_gets_an_answer(
        changes in prop::collection::vec((prop::sample::select(PLACES.to_vec()), any_json()), 0..4),
        which in 0..5usize,
        created_before in any::<bool>(),
    ) {
        let operation = if created_before { "UPDATE" } else { "CREATE" };
        let before = |object: &Value| if created_before { object.clone() } else { Value::Null };
        let (about, mut asked) = match Kind::ALL.get(which) {
            Some(kind) => {
                let mut object = route("other", "/a");
                object["kind"] = json!(kind.name());
                let before = before(&object);
                (About::Object(*kind), review(operation, *kind, object, before))
            }
            None => {
                let object = ingress::at("/a");
                let before = before(&object);
                (About::Ingress, ingress::review(operation, object, before))
            }
        };
        for (place, value) in changes {
            if let Some(found) = asked.pointer_mut(place) {
                *found = value;
            }
        }
        let answer = answered(about, asked.to_string().as_bytes());
        if answer.status == 200 {
            let response = &answer.body["response"];
            prop_assert_eq!(&response["uid"], &asked["request"]["uid"]);
            if response["allowed"] != json!(true) {
                let told = &response["status"];
                prop_assert!(told["message"].as_str().unwrap().starts_with("validation failed: "), "{}", told);
                let causes = told["details"]["causes"].as_array().unwrap();
                prop_assert!(causes.iter().all(|cause| ["spec", "metadata.annotations"].iter().any(|start| cause["field"].as_str().unwrap().starts_with(start))), "{}", told);
                prop_assert!(!causes.is_empty());
            }
        } else {
            prop_assert_eq!(answer.status.as_u16(), 400);
            prop_assert!(!answer.body["message"].as_str().unwrap().is_empty());
        }
    }
}

/// What no API server sends, drawn from a seed: heads and bodies that are broken somewhere. Each gets an answer that is an
/// error, or the end of its connection, and the next one is served as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_over_the_wire_the_next_review_is_answered() {
    use rand::{Rng as _, SeedableRng as _};
    let seed = std::env::var("FLOTILLA_WEBHOOK_SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
    let soon = Duration::from_millis(400);
    let limits = Limits { body: 64 << 10, request: soon, handshake: soon, head: soon, ..Limits::default() };
    let server = Server::start(known(), limits).await;
    let good = created(Kind::ApiRoute, route("other", "/b"));
    let body = good.to_string().into_bytes();
    for case in 0..150 {
        let mut one_of = |choices: &[&str]| choices[dice.random_range(0..choices.len())].to_owned();
        let method = one_of(&["POST", "POST", "POST", "GET", "PUT", "post", "", "P\u{7f}ST"]);
        let path = one_of(&[
            ROUTE,
            ROUTE,
            ROUTE,
            "/",
            "*",
            "//",
            "/validate-avapigw-io-v1alpha1-%61piroute",
            "/\u{0}",
        ]);
        let version = one_of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9"]);
        let media =
            one_of(&["application/json", "application/json", "text/plain", "application/json;;", "\u{1}"]);
        let length =
            one_of(&["right", "right", "right", "more", "less", "none", "wrong", "twice", "chunked"]);
        let mut sent = body.clone();
        for _ in 0..dice.random_range(0..3) {
            let at = dice.random_range(0..sent.len());
            sent[at] = dice.random();
        }
        let announced = match length.as_str() {
            "right" => format!("content-length: {}\r\n", sent.len()),
            "more" => format!("content-length: {}\r\n", sent.len() + 10),
            "less" => format!("content-length: {}\r\n", sent.len() / 2),
            "wrong" => "content-length: -1\r\n".to_owned(),
            "twice" => format!("content-length: 5\r\ncontent-length: {}\r\n", sent.len()),
            "chunked" => "transfer-encoding: chunked\r\n".to_owned(),
            _ => String::new(),
        };
        let head = format!(
            "{method} {path} {version}\r\nhost: x\r\nconnection: close\r\ncontent-type: {media}\r\n{announced}\r\n"
        );
        let mut stream = server.connect().await;
        let cut = if dice.random_bool(0.2) { dice.random_range(0..head.len()) } else { head.len() };
        let _ = stream.write_all(&head.as_bytes()[..cut]).await;
        if cut == head.len() {
            let _ = stream.write_all(&sent).await;
        }
        let mut bytes = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_ok(), "seed {seed} case {case}: the connection does not end: {head:?}");
        let text = String::from_utf8_lossy(&bytes);
        let status: Option<u16> = text.split(' ').nth(1).and_then(|word| word.parse().ok());
        assert!(
            status.is_none_or(|status| status == 200 || (400..=505).contains(&status)),
            "seed {seed} case {case}: {text}"
        );
    }
    assert_eq!(server.ask(Kind::ApiRoute, &good).await.0, 200);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_objects_are_answered_and_reserve_nothing_beyond_the_bound() {
    // How long a busy machine takes for it is not what this is about.
    let limits = Limits { request: PATIENCE, ..Limits::default() };
    let server = Server::start(known(), limits).await;
    let matches: Vec<Value> =
        (0..60_000).map(|number| json!({"uri": {"exact": format!("/{number}")}})).collect();
    let mut many = route("many", "/x");
    many["spec"]["match"] = Value::from(matches);
    let mut long = route("long", "/y");
    long["spec"]["match"][0]["uri"] = json!({"regex": "a".repeat(1 << 20)});
    let mut wide = route("wide", "/z");
    wide["spec"]["unknown"] = Value::from(vec![json!({"a": [1, 2, 3]}); 100_000]);
    let host = |number: usize| json!({"address": format!("h{number}"), "port": 1 + number % 60_000});
    let hosts = object(Kind::Backend, "hosts", json!({"hosts": (0..50_000).map(host).collect::<Vec<_>>()}));
    let destinations: Vec<Value> = (0..30_000)
        .map(|number| json!({"destination": {"host": format!("h{number}"), "port": 80}}))
        .collect();
    let mut leads = route("leads", "/l");
    leads["spec"]["route"] = Value::from(destinations);
    // What was there before is as huge, and has none of it.
    let mut before = many.clone();
    for (number, entry) in before["spec"]["match"].as_array_mut().unwrap().iter_mut().enumerate() {
        entry["uri"] = json!({"exact": format!("/before/{number}")});
    }
    let changed = review("UPDATE", Kind::ApiRoute, before, many.clone());
    let (status, body) = server.ask(Kind::ApiRoute, &changed).await;
    assert_eq!((status, &body["response"]["allowed"]), (200, &json!(true)), "{body:.300}");
    for (kind, object) in [
        (Kind::ApiRoute, many),
        (Kind::ApiRoute, leads),
        (Kind::ApiRoute, long),
        (Kind::ApiRoute, wide),
        (Kind::Backend, hosts),
    ] {
        let (status, body) = server.ask(kind, &created(kind, object.clone())).await;
        assert_eq!(status, 200, "{}: {body:.300}", object["metadata"]["name"]);
        assert!(body["response"]["allowed"].is_boolean());
    }
    assert_eq!(server.ask(Kind::ApiRoute, &created(Kind::ApiRoute, route("other", "/b"))).await.0, 200);
    server.end().await;
}
