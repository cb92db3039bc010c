//! A furnished fleet: routes in the API server, gateways that have them all, and
//! a board on which everybody writes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{SETTLE, all_hold, traffic};
use crate::cli;
use crate::client::{Board, Crew, Reading};
use crate::fleet::Fleet;
use crate::process::wait;
use crate::report::{Outcome, Spread, say};
use crate::requests;
use crate::workload::{Pace, Routes};

/// Writes of statuses by a replica.
pub const PATCHES: &str = "flotilla_status_patches_total";

/// How many of the changes that are not everywhere are told.
const SHOWN: usize = 10;

/// Longer than replicas wait for gateways to stop coming before they write counts.
const REST: Duration = Duration::from_secs(5);

/// What one status takes at the rate that a replica keeps to by default.
const STATUS: Duration = Duration::from_millis(10);

/// The same of one that only counts anew.
const REFRESH: Duration = Duration::from_millis(100);

/// What a scenario measures on.
pub struct Bench {
    /// The controller.
    pub fleet: Fleet,
    /// What tenants have.
    pub routes: Routes,
    /// What is measured.
    pub board: Arc<Board>,
    /// The gateways that are measured.
    pub crew: Crew,
    size: cli::Size,
}

impl Bench {
    /// Starts everything and waits until every gateway has everything.
    /// `statuses`: whether a change ends with its status.
    pub async fn open(args: &cli::Fleet, size: cli::Size, statuses: bool) -> anyhow::Result<Bench> {
        let mut bench = Bench::without_gateways(args, size, statuses).await?;
        bench.fill_gateways().await?;
        Ok(bench)
    }

    /// Lets all gateways come, and waits until every one has everything.
    pub async fn fill_gateways(&mut self) -> anyhow::Result<()> {
        self.start_gateways()?;
        all_hold(&self.crew, self.size.routes as usize).await?;
        statuses_rest(&self.fleet, self.size.routes).await
    }

    /// The same before the gateways come.
    pub async fn without_gateways(
        args: &cli::Fleet,
        size: cli::Size,
        statuses: bool,
    ) -> anyhow::Result<Bench> {
        let fleet = Fleet::open(args).await?;
        let routes = Routes::new(fleet.client(), size);
        say(&format!("{} routes in {} namespaces", size.routes, size.namespaces));
        routes.namespaces().await;
        routes.create(0..size.routes, None).await?;
        let board = Arc::new(Board::new(size.gateways as usize, statuses));
        let crew = Crew::new(board.clone(), args.gateway_model);
        Ok(Bench { fleet, routes, board, crew, size })
    }

    /// Lets all gateways come.
    pub fn start_gateways(&mut self) -> anyhow::Result<()> {
        say(&format!("{} gateways", self.size.gateways));
        self.fleet.start_readers(&mut self.crew, "gateway", self.size.gateways, Reading::Freely)
    }

    /// Makes changes at a steady pace while `meanwhile` is done with the fleet,
    /// waits until all are everywhere, and says how they spread.
    pub async fn changes<T>(
        &mut self,
        pace: Pace,
        meanwhile: impl AsyncFnOnce(&mut Fleet) -> anyhow::Result<T>,
    ) -> anyhow::Result<(Spread, T)> {
        let Bench { fleet, routes, board, crew, size } = self;
        board.begin_anew();
        let (before, (messages, bytes)) = (fleet.usage()?, traffic(crew));
        let patches = fleet.counter(PATCHES, "").await;
        let requests = requests::so_far(&fleet.client()).await;
        let made = tokio::select! {
            ended = routes.follow_statuses(board) => return Err(match ended {
                Ok(never) => match never {},
                Err(error) => error,
            }),
            made = async {
                let (made, ()) =
                    futures::try_join!(meanwhile(fleet), routes.keep_changing(board, pace))?;
                // What is missing then is said with the figures.
                if wait("every change is everywhere", SETTLE, || board.open() == 0).await.is_err() {
                    board.lacking().iter().take(SHOWN).for_each(|line| say(line));
                }
                anyhow::Ok(made)
            } => made?,
        };
        let used = fleet.usage()?.since(&before);
        let (messages_now, bytes_now) = traffic(crew);
        let mut spread =
            Spread::new(board.tally(), size.gateways, messages_now - messages, bytes_now - bytes, used);
        if let (Some(before), Some(now)) = (patches, fleet.counter(PATCHES, "").await) {
            spread.status_patches(now - before);
        }
        let requests_now = requests::so_far(&fleet.client()).await;
        spread.api_requests = requests.zip(requests_now).map(|(before, now)| requests::since(&now, &before));
        Ok((spread, made))
    }

    /// Deletes one of a hundred routes, which must go everywhere, and looks at
    /// how everything ended.
    pub async fn close(self) -> anyhow::Result<Outcome> {
        let there = self.routes.all().await?.len();
        let deleted = there / 100;
        self.routes.delete(0..deleted as u32, &self.board).await?;
        all_hold(&self.crew, there - deleted).await?;
        super::outcome(&self.crew, &self.routes, self.board.open()).await
    }
}

/// Waits until the statuses of as many routes as were furnished are all written: they
/// would stand before those of the changes that are measured, and what they cost is not
/// the cost of what is.
///
/// # Errors
/// When there is no end to them.
pub async fn statuses_rest(fleet: &Fleet, routes: u32) -> anyhow::Result<()> {
    // Each has one, and may have another when not all gateways had it at first.
    let until = Instant::now() + SETTLE + routes * (STATUS + REFRESH);
    let (mut last, mut since) = (None, Instant::now());
    while since.elapsed() < REST {
        let now = fleet.counter(PATCHES, "result=\"written\"").await;
        let begun = now.is_none_or(|now| now >= f64::from(routes));
        if std::mem::replace(&mut last, now) != now || !begun {
            since = Instant::now();
        }
        anyhow::ensure!(
            Instant::now() < until,
            "statuses do not come to rest, {} of {routes} and more were written: not measured",
            now.unwrap_or_default()
        );
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
