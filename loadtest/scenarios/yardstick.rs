//! The yardstick: the same, sent by a bare server to the same clients.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_certs::Authority;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::{SETTLE, all_hold, traffic};
use crate::cli::{Size, Steady};
use crate::client::{Board, Crew, Model, Reading, Resource, Target, encode_snapshot, encode_update};
use crate::limit::Limit;
use crate::process::{Usage, wait};
use crate::report::Spread;
use crate::tls;
use crate::workload::{ROUTE, Routes};

/// What fits into one message beside its envelope: gateways take 4 MiB at most.
const SNAPSHOT: usize = (4 << 20) - (64 << 10);

/// A bare server, and gateways for it.
struct Yard {
    limit: Limit,
    board: Arc<Board>,
    crew: Crew,
    authority: Authority,
    gateways: u32,
    _folder: tempfile::TempDir,
}

impl Yard {
    async fn open(gateways: u32, greetings: &[Vec<u8>]) -> anyhow::Result<Yard> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::generate("loadtest", std::time::SystemTime::now())?;
        tls::write_server(&authority, folder.path())?;
        let limit = Limit::start(folder.path(), greetings).await?;
        let board = Arc::new(Board::new(gateways as usize, false));
        let crew = Crew::new(board.clone(), Model::Instant);
        Ok(Yard { limit, board, crew, authority, gateways, _folder: folder })
    }

    fn start_gateways(&mut self) -> anyhow::Result<()> {
        let operators = Arc::new(vec![std::net::SocketAddr::from(([127, 0, 0, 1], self.limit.port))]);
        let server = ServerName::try_from("localhost")?;
        for number in 0..self.gateways {
            let name = format!("gateway-{number:04}");
            let tls = tls::gateway(&self.authority, "loadtest", &name)?;
            let target = Target { operators: operators.clone(), first: 0, server: server.clone(), tls };
            self.crew.start("loadtest", &name, target, Reading::Freely);
        }
        Ok(())
    }

    /// What its server used so far.
    fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.limit.id().context("the yardstick's server is gone")?)
    }

    /// A stream that is asked for is not yet one that is served: a first message
    /// shows that all are.
    async fn wait_for_streams(&mut self, routes: &Routes, turn: &mut u64) -> anyhow::Result<()> {
        let until = Instant::now() + SETTLE;
        while self.crew.each(|holdings| holdings.len() > 0).into_iter().any(|any| !any) {
            anyhow::ensure!(Instant::now() < until, "the yardstick's streams are not there in time");
            *turn += 1;
            self.limit.send(&Route::new(routes, 0, *turn)?.update(*turn)).await?;
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}

/// A route as a replica writes it.
struct Route {
    namespace: String,
    name: String,
    /// As long as what a replica writes there.
    uid: String,
    generation: u64,
    spec: Vec<u8>,
}

impl Route {
    fn new(routes: &Routes, number: u32, turn: u64) -> anyhow::Result<Route> {
        let (namespace, name) = routes.name(number);
        let mut spec = routes.spec(number, turn);
        if let Value::Object(spec) = &mut spec {
            spec.insert("name".to_owned(), format!("{namespace}/{name}").into());
        }
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        Ok(Route { namespace, name, uid, generation: turn, spec: serde_json::to_vec(&spec)? })
    }

    fn resource(&self) -> Resource<'_> {
        Resource {
            kind: ROUTE,
            name: &self.name,
            namespace: &self.namespace,
            generation: self.generation,
            uid: &self.uid,
            spec: &self.spec,
        }
    }

    fn update(&self, sequence: u64) -> Vec<u8> {
        encode_update(&self.resource(), &version(sequence), sequence)
    }
}

/// A version, as long as those of a replica.
fn version(turn: u64) -> String {
    format!("f1.00000000.00000000.{turn:06}_{turn:06}_{turn:06}_{turn:06}")
}

/// The same changes, sent by a bare server to the same clients.
///
/// # Errors
/// When it does not start, or a client cannot be served.
pub async fn yardstick(args: &Steady, routes: &Routes) -> anyhow::Result<Spread> {
    let mut yard = Yard::open(args.size.gateways, &[]).await?;
    yard.start_gateways()?;
    let mut turn = 0;
    yard.wait_for_streams(routes, &mut turn).await?;
    let (before, (messages, bytes)) = (yard.usage()?, traffic(&yard.crew));
    let begun = Instant::now();
    for change in 0..args.rate * args.seconds {
        let due = Duration::from_secs(1).mul_f64(f64::from(change) / f64::from(args.rate));
        sleep_until(begun + due).await;
        turn += 1;
        let number = change % args.size.routes;
        yard.board.written(routes.key(number), turn, yard.board.now(), true);
        yard.limit.send(&Route::new(routes, number, turn)?.update(turn)).await?;
    }
    let board = yard.board.clone();
    let _ = wait("the yardstick's changes are everywhere", SETTLE, || board.open() == 0).await;
    let used = yard.usage()?.since(&before);
    let (messages_now, bytes_now) = traffic(&yard.crew);
    Ok(Spread::new(yard.board.tally(), args.size.gateways, messages_now - messages, bytes_now - bytes, used))
}

/// What a bare server needs to bring everything to gateways that come all at once.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cold {
    /// From the first connection until every gateway had everything.
    pub all_in_sync_after_ms: f64,
    /// Bytes of messages to each gateway.
    pub bytes_per_gateway: f64,
    /// What the server used meanwhile.
    pub servers: Usage,
}

/// The same routes, sent by a bare server to as many clients at once: a snapshot of
/// what fits into one message, and an update for each of the others.
///
/// # Errors
/// When it does not start, or a client cannot be served.
pub async fn cold(size: Size, routes: &Routes) -> anyhow::Result<Cold> {
    let all: Vec<Route> =
        (0..size.routes).map(|number| Route::new(routes, number, 1)).collect::<Result<_, _>>()?;
    let (mut room, mut first) = (SNAPSHOT, Vec::new());
    for route in &all {
        let update = route.update(1).len();
        if update > room {
            break;
        }
        room -= update;
        first.push(route.resource());
    }
    let mut greetings = vec![encode_snapshot(&first, &version(1), 1)];
    greetings.extend((2..).zip(&all[first.len()..]).map(|(sequence, route)| route.update(sequence)));
    let mut yard = Yard::open(size.gateways, &greetings).await?;
    let (before, begun) = (yard.usage()?, yard.board.now());
    yard.start_gateways()?;
    all_hold(&yard.crew, size.routes as usize).await?;
    let took = yard.board.now() - begun;
    let (_, bytes) = traffic(&yard.crew);
    Ok(Cold {
        all_in_sync_after_ms: took.as_secs_f64() * 1000.0,
        bytes_per_gateway: bytes as f64 / f64::from(size.gateways),
        servers: yard.usage()?.since(&before),
    })
}
