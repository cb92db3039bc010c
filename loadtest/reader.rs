//! A process that reads all routes and their changes and does nothing else, so that
//! what reading costs is what the process has used: as a replica reads them, or with
//! kube's watcher and reflector and the kind's own type.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_api::avapigw::APIRoute;
use flotilla_core::ids::Kind;
use flotilla_k8s::client::connect;
use flotilla_k8s::watch::{ObjectEvent, Wants, WatchConfig, WatchMetrics, Wiring, follow};
use futures::StreamExt as _;
use kube::{Api, Client};
use kube_runtime::{reflector, watcher};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, Stdout};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::process::Usage;

/// How long it may take until a reader has seen what it is to see.
const PATIENCE: Duration = Duration::from_secs(600);

/// Events that may wait, as in a replica.
const WAITING: usize = 1024;

/// How routes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// As a replica reads them.
    Flotilla,
    /// With kube's typed watcher and a reflector.
    Kube,
}

impl How {
    fn name(self) -> &'static str {
        match self {
            How::Flotilla => "flotilla",
            How::Kube => "kube",
        }
    }
}

/// Flags of `reader`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// How routes are read.
    #[arg(long, value_enum)]
    how: How,
    /// The API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// How many changes are counted before they are reported.
    #[arg(long)]
    changes: u64,
}

/// Reads, and says how many routes it has listed, and when it has seen the changes.
///
/// # Errors
/// When it cannot read any more.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // In a task, as a replica does it: the main thread, which runs no tasks, would have to
    // be woken for each event.
    tokio::spawn(read(args)).await?
}

async fn read(args: Args) -> anyhow::Result<()> {
    let client = connect(Some(&args.kubeconfig)).await?.objects;
    let mut said = Said { out: tokio::io::stdout(), changes: args.changes, seen: 0 };
    match args.how {
        How::Flotilla => as_a_replica(client, &mut said).await,
        How::Kube => with_kube(client, &mut said).await,
    }
}

/// What a reader has said.
struct Said {
    out: Stdout,
    changes: u64,
    seen: u64,
}

impl Said {
    async fn listed(&mut self, routes: usize) -> anyhow::Result<()> {
        self.line(&format!("{routes}\n")).await
    }

    /// One more change was seen.
    async fn changed(&mut self) -> anyhow::Result<()> {
        self.seen += 1;
        match self.seen == self.changes {
            true => self.line(&format!("{}\n", self.seen)).await,
            false => Ok(()),
        }
    }

    async fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.out.write_all(line.as_bytes()).await?;
        Ok(self.out.flush().await?)
    }
}

async fn as_a_replica(client: Client, said: &mut Said) -> anyhow::Result<()> {
    let (events, mut told) = mpsc::channel(WAITING);
    let (doubts, _doubts) = mpsc::channel(1);
    let metrics = WatchMetrics::new(&prometheus::Registry::new())?;
    let wiring = Wiring { events, doubts, wants: Wants::default() };
    let following =
        follow(client, Kind::ApiRoute, WatchConfig::default(), metrics, wiring, CancellationToken::new());
    let mut held = HashMap::new();
    let storing = async {
        while let Some(event) = told.recv().await {
            match event {
                ObjectEvent::Listed { objects, .. } => {
                    held = objects.into_iter().map(|object| (object.key.clone(), object)).collect();
                    said.listed(held.len()).await?;
                }
                ObjectEvent::Changed(object) => {
                    held.insert(object.key.clone(), object);
                    said.changed().await?;
                }
                ObjectEvent::Deleted(_, key, _) => drop(held.remove(&key)),
                ObjectEvent::Bookmark(..) => {}
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        () = following => Ok(()),
        stored = storing => stored,
    }
}

async fn with_kube(client: Client, said: &mut Said) -> anyhow::Result<()> {
    let (store, writer) = reflector::store::<APIRoute>();
    let watched = watcher(Api::all(client), watcher::Config::default());
    let mut events = std::pin::pin!(reflector(writer, watched));
    while let Some(event) = events.next().await {
        match event? {
            watcher::Event::InitDone => said.listed(store.len()).await?,
            watcher::Event::Apply(_) => said.changed().await?,
            watcher::Event::Init | watcher::Event::InitApply(_) | watcher::Event::Delete(_) => {}
        }
    }
    Ok(())
}

/// A reader that runs. It ends when dropped.
pub struct Reader {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    how: How,
}

impl Reader {
    /// Starts this binary as a reader.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(how: How, kubeconfig: &Path, changes: u32) -> anyhow::Result<Reader> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["reader", "--how", how.name(), "--changes", &changes.to_string(), "--kubeconfig"])
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("a reader cannot be started")?;
        let out = child.stdout.take().context("it has no standard output")?;
        Ok(Reader { child, said: BufReader::new(out).lines(), how })
    }

    /// Waits for the next number that it says; returns it and what it has used so far.
    ///
    /// # Errors
    /// When it ends, or says nothing for ten minutes.
    pub async fn next(&mut self) -> anyhow::Result<(u64, Usage)> {
        let name = self.how.name();
        let line = timeout(PATIENCE, self.said.next_line()).await;
        let line = line.with_context(|| format!("the reader {name} says nothing for {PATIENCE:?}"))??;
        let line = line.with_context(|| format!("the reader {name} has ended"))?;
        let id = self.child.id().with_context(|| format!("the reader {name} is gone"))?;
        Ok((line.parse().with_context(|| format!("the reader {name} says {line}"))?, Usage::of(id)?))
    }
}
