//! The yardstick: the same changes, sent by a bare server to the same clients.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_certs::Authority;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{SETTLE, traffic};
use crate::cli::Steady;
use crate::client::{Board, Crew, Model, Reading, Resource, Target, encode_update};
use crate::limit::Limit;
use crate::process::{Usage, wait};
use crate::report::Spread;
use crate::tls;
use crate::workload::{ROUTE, Routes};

/// The same changes, sent by a bare server to the same clients.
///
/// # Errors
/// When it does not start, or a client cannot be served.
pub async fn yardstick(args: &Steady, routes: &Routes) -> anyhow::Result<Spread> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::generate("loadtest", std::time::SystemTime::now())?;
    tls::write_server(&authority, folder.path())?;
    let mut limit = Limit::start(folder.path()).await?;
    let board = Arc::new(Board::new(args.size.gateways as usize, false));
    let mut crew = Crew::new(board.clone(), Model::Instant);
    let operators = Arc::new(vec![std::net::SocketAddr::from(([127, 0, 0, 1], limit.port))]);
    let server = ServerName::try_from("localhost")?;
    for number in 0..args.size.gateways {
        let name = format!("gateway-{number:04}");
        let tls = tls::gateway(&authority, "loadtest", &name)?;
        let target = Target { operators: operators.clone(), first: 0, server: server.clone(), tls };
        crew.start("loadtest", &name, target, Reading::Freely);
    }
    // A stream that is asked for is not yet one that is served: a first message
    // shows that all are.
    let mut turn = 0;
    wait_for_streams(&mut limit, &crew, routes, &mut turn).await?;
    let process = limit.id().context("the yardstick's server is gone")?;
    let usage = || Usage::of(process);
    let (before, (messages, bytes)) = (usage()?, traffic(&crew));
    let begun = Instant::now();
    for change in 0..args.rate * args.seconds {
        let due = Duration::from_secs(1).mul_f64(f64::from(change) / f64::from(args.rate));
        sleep_until(begun + due).await;
        turn += 1;
        let number = change % args.size.routes;
        board.written(routes.key(number), turn, board.now(), true);
        send(&mut limit, routes, number, turn).await?;
    }
    let _ = wait("the yardstick's changes are everywhere", SETTLE, || board.open() == 0).await;
    let used = usage()?.since(&before);
    let (messages_now, bytes_now) = traffic(&crew);
    Ok(Spread::new(board.tally(), args.size.gateways, messages_now - messages, bytes_now - bytes, used))
}

async fn wait_for_streams(
    limit: &mut Limit,
    crew: &Crew,
    routes: &Routes,
    turn: &mut u64,
) -> anyhow::Result<()> {
    let until = Instant::now() + SETTLE;
    while crew.each(|holdings| holdings.len() > 0).into_iter().any(|any| !any) {
        anyhow::ensure!(Instant::now() < until, "the yardstick's streams are not there in time");
        *turn += 1;
        send(limit, routes, 0, *turn).await?;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn send(limit: &mut Limit, routes: &Routes, number: u32, turn: u64) -> anyhow::Result<()> {
    let (namespace, name) = routes.name(number);
    let mut spec = routes.spec(number, turn);
    if let Value::Object(spec) = &mut spec {
        spec.insert("name".to_owned(), format!("{namespace}/{name}").into());
    }
    let spec = serde_json::to_vec(&spec)?;
    // As long as what a replica writes there.
    let uid = format!("00000000-0000-4000-8000-{number:012}");
    let version = format!("f1.00000000.00000000.{turn:06}_{turn:06}_{turn:06}_{turn:06}");
    let resource = Resource {
        kind: ROUTE,
        name: &name,
        namespace: &namespace,
        generation: turn,
        uid: &uid,
        spec: &spec,
    };
    limit.send(&encode_update(&resource, &version, turn)).await
}
