//! How long an admission takes, and whether more routes make it longer: reviews as
//! API servers send them, over a connection that stays open, to every replica in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use hdrhistogram::Histogram;
use hyper::body::Body as _;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::SETTLE;
use super::bench::statuses_rest;
use crate::cli::{self, Size};
use crate::fleet::Fleet;
use crate::process::load;
use crate::report::{Quantiles, say, write_json};
use crate::tls;
use crate::workload::{Routes, spec};

/// A replica as an API server sees it.
struct Replica {
    sender: SendRequest<String>,
}

impl Replica {
    async fn connect(port: u16, tls: Arc<ClientConfig>) -> anyhow::Result<Replica> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(tls).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the connection, and what failed shows in the request.
        tokio::spawn(connection);
        Ok(Replica { sender })
    }

    /// Asks about a route that does not exist yet; returns whether it is admitted.
    async fn ask(&mut self, namespace: &str, name: &str, spec: &Value) -> anyhow::Result<Option<bool>> {
        let body = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "00000000-0000-0000-0000-000000000000",
                "kind": {"group": "avapigw.io", "version": "v1alpha1", "kind": "APIRoute"},
                "operation": "CREATE",
                "dryRun": false,
                "object": {
                    "apiVersion": "avapigw.io/v1alpha1",
                    "kind": "APIRoute",
                    "metadata": {"namespace": namespace, "name": name},
                    "spec": spec,
                },
            },
        });
        let request = http::Request::builder()
            .method("POST")
            .uri("/validate-avapigw-io-v1alpha1-apiroute")
            .header("host", "localhost")
            .header("content-type", "application/json");
        let request = request.body(body.to_string())?;
        self.sender.ready().await?;
        let mut answer = self.sender.send_request(request).await?;
        let mut bytes = Vec::new();
        while !answer.body().is_end_stream() {
            let frame =
                std::future::poll_fn(|context| std::pin::Pin::new(answer.body_mut()).poll_frame(context));
            let Some(frame) = frame.await else { break };
            bytes.extend_from_slice(&frame?.into_data().unwrap_or(Bytes::new()));
        }
        let answer: Value = serde_json::from_slice(&bytes)?;
        Ok(answer["response"]["allowed"].as_bool())
    }
}

/// Answers with so many routes.
#[derive(Debug, Serialize)]
struct Row {
    routes: u32,
    /// To a match that somebody has, in milliseconds.
    refused_ms: Quantiles,
    /// To one that nobody has.
    admitted_ms: Quantiles,
}

#[derive(Debug, Serialize)]
struct Found {
    scenario: &'static str,
    replicas: usize,
    /// Reviews of each sort in each row.
    asks: u32,
    rows: Vec<Row>,
    /// The slower sort's p99 with the most routes, by that with the fewest.
    p99_ratio: f64,
    load_average: f64,
}

/// Runs it; `false` when an answer was wrong.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &cli::Admission) -> anyhow::Result<bool> {
    let fleet = Fleet::open(&args.fleet).await?;
    let (ports, roots) = fleet.webhooks()?;
    let most = args.counts.iter().copied().max().context("--counts")?;
    let size = Size { gateways: 1, routes: most, namespaces: args.namespaces };
    let routes = Routes::new(fleet.client(), size);
    routes.namespaces().await;
    let mut config = ClientConfig::clone(&*tls::client(&roots, None)?);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let mut replicas = Vec::new();
    for port in ports {
        replicas.push(Replica::connect(port, config.clone()).await?);
    }
    let (mut there, mut right, mut fresh) = (0, true, 0u64);
    let mut rows = Vec::new();
    for &count in &args.counts {
        routes.create(there..count, None).await?;
        there = count;
        known(&mut replicas, &routes, count - 1).await?;
        statuses_rest(&fleet, count).await?;
        let mut taken = Histogram::<u64>::new(3)?;
        let mut free = Histogram::<u64>::new(3)?;
        for number in 0..args.asks {
            let place = number as usize % replicas.len();
            let replica = &mut replicas[place];
            // What somebody has: this replica can tell by itself.
            let (namespace, name) = routes.name(number * 7 % count);
            let begun = Instant::now();
            let allowed = replica.ask(&namespace, "another", &spec(&namespace, &name, 0)).await?;
            taken.record(micros(begun))?;
            right &= allowed == Some(false);
            // What nobody has: the owner of the namespace decides and reserves it.
            fresh += 1;
            let name = format!("fresh-{fresh}");
            let begun = Instant::now();
            let allowed = replica.ask(&namespace, &name, &spec(&namespace, &name, 0)).await?;
            free.record(micros(begun))?;
            right &= allowed == Some(true);
        }
        for (what, found) in [("taken, refused", &taken), ("free, admitted", &free)] {
            say(&format!(
                "{count:>6} routes, {what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms of {} reviews",
                found.value_at_quantile(0.5) as f64 / 1e3,
                found.value_at_quantile(0.99) as f64 / 1e3,
                found.max() as f64 / 1e3,
                found.len(),
            ));
        }
        rows.push(Row { routes: count, refused_ms: (&taken).into(), admitted_ms: (&free).into() });
    }
    let by =
        |of: fn(&Row) -> f64| rows.last().map(of).zip(rows.first().map(of)).map(|(most, few)| most / few);
    let ratios = [by(|row| row.refused_ms.p99), by(|row| row.admitted_ms.p99)];
    let p99_ratio = ratios.into_iter().flatten().fold(0.0, f64::max);
    let replicas = replicas.len();
    let found =
        Found { scenario: "admission", replicas, asks: args.asks, rows, p99_ratio, load_average: load() };
    say(&format!(
        "{replicas} replicas, load average {:.2}; p99 with the most routes by that with the fewest {p99_ratio:.2}; \
         every answer was {}",
        found.load_average,
        if right { "right" } else { "NOT right" }
    ));
    if let Some(file) = &args.fleet.json {
        write_json(&found, file)?;
    }
    Ok(right)
}

fn micros(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Waits until every replica knows the route of this number.
async fn known(replicas: &mut [Replica], routes: &Routes, number: u32) -> anyhow::Result<()> {
    let (namespace, name) = routes.name(number);
    let until = Instant::now() + SETTLE;
    for replica in replicas {
        while replica.ask(&namespace, "another", &spec(&namespace, &name, 0)).await? != Some(false) {
            anyhow::ensure!(Instant::now() < until, "a replica does not know {namespace}/{name}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
