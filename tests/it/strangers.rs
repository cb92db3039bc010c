//! Gateways that are none, or no good: they are refused or ended, the log says
//! why, and the others do not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use flotilla_certs::{Alpn, Authority, CertificatePem, ClientTls, Identity, LeafRequest, ServerCheck};
use flotilla_core::ids::Kind;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::fleet::events::now_ms;
use crate::fleet::gateways::{GATEWAYS, TRUST_DOMAIN, issue, write_material};
use crate::fleet::mute::Mute;
use crate::fleet::objects::answering;
use crate::fleet::process::Process;
use crate::fleet::waiting::{SOON, figure, within};
use crate::fleet::{Against, Fleet, program};

fn namespace(number: usize) -> String {
    format!("team-{number}")
}

fn request(name: &str) -> LeafRequest {
    LeafRequest::gateway(Identity::gateway(TRUST_DOMAIN, GATEWAYS, name).unwrap())
}

/// A fleet with one replica that loses patience after three seconds, and two
/// gateways.
async fn fleet() -> Option<Fleet> {
    let mut fleet = Fleet::start(Against::Inside).await?;
    fleet.tenants.namespaces((0..5).map(namespace)).await;
    let route = |number| (namespace(number), "route".to_owned(), answering(&namespace(number), "route", "x"));
    fleet.tenants.create_all(Kind::ApiRoute, (0..5).map(route)).await;
    fleet.add_replicas_with(1, &["--ack-timeout=3s"]).await;
    fleet.add_gateways("gateway", 2).await;
    fleet.settled().await;
    Some(fleet)
}

/// Whether a replica takes a connection with this certificate: it is told only
/// after the handshake, by the first thing that it reads.
async fn is_let_in(port: u16, authority: &Authority, certificate: Option<&CertificatePem>) -> bool {
    let tls = ClientTls::new(certificate, authority.roots(), ServerCheck::Name, Alpn::H2).unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let Ok(mut stream) = TlsConnector::from(tls.config()).connect(name, stream).await else { return false };
    let mut first = [0; 1];
    // A server that lets us in sends its settings first.
    matches!(timeout(SOON, stream.read(&mut first)).await.unwrap(), Ok(1))
}

/// Changes one route and waits until both gateways have it.
async fn one_change(fleet: &Fleet, number: usize, second: usize) -> Duration {
    let namespace = namespace(number % 5);
    let start = (Instant::now(), now_ms());
    let spec = json!({"timeout": format!("{second}s")});
    let generation = fleet.tenants.change(Kind::ApiRoute, &namespace, "route", spec).await;
    let key = format!("{namespace}/route");
    within(SOON, "the others get a change", async || {
        let events = fleet.gateways[0].events.all();
        let got = events.iter().filter(|event| event.key == key && event.generation == generation);
        let last = got.clone().map(|event| event.at_ms).fold(start.1, f64::max);
        (got.count() == 2).then(|| Duration::from_secs_f64((last - start.1) / 1000.0)).ok_or_else(String::new)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_certificates_are_refused_and_named() {
    let Some(mut fleet) = fleet().await else { return };
    let port = fleet.replicas[0].grpc;
    let ours = fleet.authority().await;
    let now = SystemTime::now();
    let foreign = Authority::generate("somebody else", now).unwrap();
    let good = ours.issue_leaf(&request("stranger"), now).unwrap();
    let expired = LeafRequest { lifetime: Duration::from_secs(60), ..request("stranger") };
    let expired = ours.issue_leaf(&expired, now - Duration::from_secs(120)).unwrap();
    let strange = foreign.issue_leaf(&request("stranger"), now).unwrap();

    assert!(is_let_in(port, &ours, Some(&good)).await, "the probe itself is wrong");
    for (certificate, words) in [
        (None, ["TLS handshake failed", "certificate"]),
        (Some(&strange), ["TLS handshake failed", "UnknownIssuer"]),
        (Some(&expired), ["TLS handshake failed", "xpired"]),
    ] {
        assert!(!is_let_in(port, &ours, certificate).await, "{words:?}");
        within(SOON, "the replica's log says why", async || {
            let lines = fleet.replicas[0].log_lines(&words);
            if lines.is_empty() { Err(format!("nothing about {words:?}")) } else { Ok(()) }
        })
        .await;
    }
    let refused = fleet.replicas[0].metric("flotilla_connections_refused_total", "handshake").await.unwrap();
    assert!(refused >= 3.0, "{refused} connections were refused");

    // A certificate of one name, and the claim to be another.
    let folder = fleet.path().join("mallory");
    issue(&ours, "mallory", &folder);
    let mut mallory = gateway_process(&fleet, &folder, "gateway-0");
    within(SOON, "the replica's log names both", async || {
        mallory.check()?;
        let lines = fleet.replicas[0].log_lines(&["claims another's name", "mallory", "gateway-0"]);
        if lines.is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    within(SOON, "the gateway's log says what it was told", async || {
        let log = mallory.log();
        if log.contains("mallory") || log.contains("PermissionDenied") { Ok(()) } else { Err(log) }
    })
    .await;
    one_change(&fleet, 0, 40).await;
    fleet.settled().await;
    let reconnects = fleet.show().await.unwrap().iter().map(|gateway| gateway.stats.reconnects).sum::<u64>();
    assert_eq!(reconnects, 0, "the true gateways were disturbed");
}

/// Starts a gateway that claims a name.
fn gateway_process(fleet: &Fleet, folder: &std::path::Path, name: &str) -> Process {
    let file = |name: &str| folder.join(name).display().to_string();
    let arguments = [
        "gateway".to_owned(),
        format!("--operator-address=127.0.0.1:{}", fleet.replicas[0].grpc),
        format!("--gateway-name={name}"),
        format!("--gateway-namespace={GATEWAYS}"),
        format!("--operator-ca-file={}", file("ca.crt")),
        format!("--operator-cert-file={}", file("tls.crt")),
        format!("--operator-key-file={}", file("tls.key")),
    ];
    Process::start(program(), fleet.path(), "stranger", &arguments)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_unusable_files_says_so_and_ends() {
    let Some(fleet) = fleet().await else { return };
    let ours = fleet.authority().await;
    let now = SystemTime::now();
    let expired = LeafRequest { lifetime: Duration::from_secs(60), ..request("gateway") };
    let expired = ours.issue_leaf(&expired, now - Duration::from_secs(120)).unwrap();
    let foreign = Authority::generate("somebody else", now).unwrap();
    let strange = foreign.issue_leaf(&request("gateway"), now).unwrap();
    for (number, (leaf, words)) in [(expired, "expired"), (strange, "authority")].into_iter().enumerate() {
        let folder = fleet.path().join(format!("bad-{number}"));
        write_material(&folder, &ours, &leaf);
        let mut process = gateway_process(&fleet, &folder, "gateway");
        let status = process.ended(SOON).await;
        assert_eq!(status.code(), Some(1));
        let log = process.log();
        assert!(log.contains(words) && log.contains("tls.crt"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_is_ended_and_delays_nobody() {
    let Some(mut fleet) = fleet().await else { return };
    let ours = fleet.authority().await;
    let deaf = Arc::new(AtomicBool::new(false));
    let mute = Mute::connect(fleet.replicas[0].grpc, &ours, "mute", deaf.clone()).await;
    // From here on it reads not a byte, and acknowledges nothing.
    deaf.store(true, Ordering::Relaxed);
    let start = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut number = 0;
    let ended = loop {
        slowest = slowest.max(one_change(&fleet, number, number + 1).await);
        number += 1;
        let ended = fleet.replicas[0].metric("flotilla_streams_ended_total", "ack").await.unwrap();
        if ended > 0.0 {
            break start.elapsed();
        }
        assert!(start.elapsed() < SOON, "a client that never reads is served for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    figure(&format!(
        "a client that never reads: ended after {} ms; meanwhile {number} changes reached the others within {} ms",
        ended.as_millis(),
        slowest.as_millis()
    ));
    // All but the last arrived while it still had its stream: they did not wait for its end.
    assert!(number > 1, "others waited until it was ended");
    let lines = fleet.replicas[0].log_lines(&["ending a gateway's stream", "gateways/mute"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    // Statuses count the two that are left.
    fleet.settled().await;
    drop(mute);
    let reconnects = fleet.show().await.unwrap().iter().map(|gateway| gateway.stats.reconnects).sum::<u64>();
    assert_eq!(reconnects, 0, "the true gateways were disturbed");
}
