//! Changes at a steady rate.

use std::sync::Arc;

use flotilla_certs::Authority;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde_json::Value;

use super::{SETTLE, all_hold, outcome, traffic};
use crate::cli::{Propagation, Size};
use crate::client::{Board, Crew, Model, Reading, Resource, Target, encode_update};
use crate::fleet::Fleet;
use crate::limit::Limit;
use crate::process::{Usage, load, wait};
use crate::report::{Outcome, Spread, say, write_json};
use crate::tls;
use crate::workload::{ROUTE, Routes};

/// What the scenario found.
#[derive(Debug, Serialize)]
struct Result {
    scenario: &'static str,
    size: Size,
    rate: u32,
    seconds: u32,
    slow_gateways: u32,
    replicas: usize,
    api: String,
    load_average: f64,
    controller: Spread,
    limit: Option<Spread>,
    /// To the last gateway, controller by limit.
    p50_ratio: Option<f64>,
    p99_ratio: Option<f64>,
    /// CPU time for a change on a gateway, controller by limit.
    cpu_ratio: Option<f64>,
    outcome: Outcome,
}

/// Runs it; `false` when something went wrong that must not.
pub async fn run(args: &Propagation) -> anyhow::Result<bool> {
    let mut fleet = Fleet::open(&args.fleet).await?;
    let routes = Routes::new(fleet.client(), args.size);
    say(&format!("{} routes in {} namespaces", args.size.routes, args.size.namespaces));
    routes.namespaces().await;
    routes.create(0..args.size.routes, None).await?;
    say(&format!("{} gateways", args.size.gateways));
    // While gateways lag behind, no status says Ready, as it should be.
    let board = Arc::new(Board::new(args.size.gateways as usize, args.slow == 0));
    let mut crew = Crew::new(board.clone(), args.fleet.gateway_model);
    fleet.start_gateways(&mut crew, args.size.gateways)?;
    all_hold(&crew, args.size.routes as usize).await?;
    let mut slow = Crew::new(Arc::new(Board::new(args.slow as usize, false)), Model::Instant);
    let reading = match args.slow_rate {
        0 => Reading::Never,
        rate => Reading::Slowly(rate),
    };
    fleet.start_readers(&mut slow, "slow", args.slow, reading)?;
    let (controller, outcome) = measure(args, &mut fleet, &routes, &board, &crew).await?;
    let load_average = load();
    drop((crew, slow, fleet));
    for line in controller.lines("controller") {
        say(&line);
    }
    let limit = match args.vs_limit {
        true => Some(yardstick(args, &routes).await?),
        false => None,
    };
    for line in limit.iter().flat_map(|limit| limit.lines("limit")) {
        say(&line);
    }
    let by = |of: fn(&Spread) -> f64| limit.as_ref().map(|limit| of(&controller) / of(limit));
    let result = Result {
        scenario: "propagation",
        size: args.size,
        rate: args.rate,
        seconds: args.seconds,
        slow_gateways: args.slow,
        replicas: args.fleet.start.replicas,
        api: format!("{:?}", args.fleet.start.api).to_lowercase(),
        load_average,
        p50_ratio: by(|spread| spread.last_ms.p50),
        p99_ratio: by(|spread| spread.last_ms.p99),
        cpu_ratio: by(|spread| spread.cpu_micros_per_delivery),
        controller,
        limit,
        outcome,
    };
    if let (Some(p50), Some(p99), Some(cpu)) = (result.p50_ratio, result.p99_ratio, result.cpu_ratio) {
        say(&format!("controller by limit: p50 {p50:.2}, p99 {p99:.2}, CPU {cpu:.2}"));
    }
    say(&format!("{:?}", result.outcome));
    if let Some(file) = &args.fleet.json {
        write_json(&result, file)?;
    }
    Ok(result.outcome.held())
}

async fn measure(
    args: &Propagation,
    fleet: &mut Fleet,
    routes: &Routes,
    board: &Arc<Board>,
    crew: &Crew,
) -> anyhow::Result<(Spread, Outcome)> {
    let before = fleet.usage()?;
    let (messages, bytes) = traffic(crew);
    tokio::select! {
        ended = routes.follow_statuses(board) => ended?,
        written = async {
            routes.keep_changing(board, args.rate, args.seconds).await?;
            // What is missing then is said with the figures.
            let _ = wait("every change is everywhere", SETTLE, || board.open() == 0).await;
            anyhow::Ok(())
        } => written?,
    }
    let used = Usage::since(&fleet.usage()?, &before);
    let (messages_now, bytes_now) = traffic(crew);
    let tally = board.tally();
    // What tenants delete goes, and nothing else does.
    let deleted = args.size.routes / 100;
    routes.delete(0..deleted, board).await?;
    all_hold(crew, (args.size.routes - deleted) as usize).await?;
    let spread = Spread::new(&tally, args.size.gateways, messages_now - messages, bytes_now - bytes, used);
    Ok((spread, outcome(crew, routes, tally.open).await?))
}

/// The same changes, sent by a bare server to the same clients.
async fn yardstick(args: &Propagation, routes: &Routes) -> anyhow::Result<Spread> {
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
        let target = Target { operators: operators.clone(), server: server.clone(), tls };
        crew.start("loadtest", &name, target, Reading::Freely);
    }
    // A stream that is asked for is not yet one that is served: a first message
    // shows that all are.
    let mut turn = 0;
    wait_for_streams(&mut limit, &crew, routes, &mut turn).await?;
    let process = limit.id().into_iter().collect::<Vec<u32>>();
    let usage = || process.iter().map(|id| Usage::of(*id)).collect::<anyhow::Result<Vec<_>>>();
    let (before, (messages, bytes)) = (usage()?, traffic(&crew));
    let begun = tokio::time::Instant::now();
    for change in 0..args.rate * args.seconds {
        let due = std::time::Duration::from_secs(1).mul_f64(f64::from(change) / f64::from(args.rate));
        tokio::time::sleep_until(begun + due).await;
        turn += 1;
        let number = change % args.size.routes;
        board.written(routes.key(number), turn, board.now(), true);
        send(&mut limit, routes, number, turn).await?;
    }
    let _ = wait("the yardstick's changes are everywhere", SETTLE, || board.open() == 0).await;
    let used = Usage::since(&usage()?, &before);
    let (messages_now, bytes_now) = traffic(&crew);
    Ok(Spread::new(&board.tally(), args.size.gateways, messages_now - messages, bytes_now - bytes, used))
}

async fn wait_for_streams(
    limit: &mut Limit,
    crew: &Crew,
    routes: &Routes,
    turn: &mut u64,
) -> anyhow::Result<()> {
    let until = tokio::time::Instant::now() + SETTLE;
    while crew.each(|holdings| holdings.len() > 0).into_iter().any(|any| !any) {
        anyhow::ensure!(tokio::time::Instant::now() < until, "the yardstick's streams are not there in time");
        *turn += 1;
        send(limit, routes, 0, *turn).await?;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
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
