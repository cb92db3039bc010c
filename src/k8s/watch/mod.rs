//! Follows one kind: list, then watch, for ever, as raw bytes.
//!
//! Written by hand rather than with a reflector because delivery needs what a
//! typed reflector drops: the bytes of the spec, bookmarks, and the revision of
//! a deletion. Lists are consistent reads (never `resourceVersion=0`). Nothing
//! that goes wrong here ever removes an object: an error keeps what is known
//! and tries again.

mod history;
mod source;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::ids::{Frontier, Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use kube::Client;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Error;
use source::Source;
use wire::Line;

pub use history::replay_deletions;

/// Reads everything of one kind once, as raw bytes, at one revision.
///
/// # Errors
/// Whatever the API server answers.
pub async fn list_once(client: Client, kind: Kind) -> Result<(Revision, Vec<RawObject>), Error> {
    Source::new(client, kind, WatchConfig::default()).list().await
}

/// The newest revision of a kind, by a quorum read.
///
/// # Errors
/// Whatever the API server answers.
pub async fn newest(client: Client, kind: Kind) -> Result<Revision, Error> {
    Source::new(client, kind, WatchConfig::default()).newest().await
}

/// What a followed kind tells, in the order of its revisions.
#[derive(Debug)]
pub enum ObjectEvent {
    /// Everything that exists, at one revision; replaces what was known.
    Listed {
        /// The kind.
        kind: Kind,
        /// The list's revision.
        revision: Revision,
        /// All objects.
        objects: Vec<RawObject>,
    },
    /// An object was added or changed.
    Changed(RawObject),
    /// An object is gone.
    Deleted(Kind, ObjectKey, Revision),
    /// Everything up to this revision was told.
    Bookmark(Kind, Revision),
}

/// Timing of list and watch.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// Objects per page of a list.
    pub page: u32,
    /// After how long the server ends a watch; up to a fifth is added at random.
    pub watch_timeout: Duration,
    /// A watch on which nothing came for this long is taken for dead. Must be
    /// longer than the server's interval of bookmarks (a minute).
    pub idle_timeout: Duration,
    /// How long one page of a list may take.
    pub list_timeout: Duration,
    /// First and longest pause after an error.
    pub backoff: (Duration, Duration),
}

impl Default for WatchConfig {
    fn default() -> Self {
        WatchConfig {
            page: 500,
            watch_timeout: Duration::from_secs(240),
            idle_timeout: Duration::from_secs(80),
            list_timeout: Duration::from_secs(60),
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
        }
    }
}

/// Counters of all followed kinds.
#[derive(Clone)]
pub struct WatchMetrics {
    lists: IntCounterVec,
    errors: IntCounterVec,
    up: IntGaugeVec,
    /// What keeps kinds from being read, in words; empty while all are.
    problems: Arc<Mutex<BTreeMap<Kind, String>>>,
}

impl WatchMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["kind"]);
        let metrics = WatchMetrics {
            lists: counter("flotilla_lists_total", "Complete lists read, by kind.")?,
            errors: counter("flotilla_watch_errors_total", "Failed lists and watches, by kind.")?,
            up: IntGaugeVec::new(
                Opts::new("flotilla_watch_up", "1 while the kind's watch is established."),
                &["kind"],
            )?,
            problems: Arc::new(Mutex::new(
                Kind::ALL.into_iter().map(|kind| (kind, "not listed yet".to_owned())).collect(),
            )),
        };
        registry.register(Box::new(metrics.lists.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.up.clone()))?;
        for kind in Kind::ALL {
            metrics.up.with_label_values(&[kind.name()]).set(0);
        }
        Ok(metrics)
    }

    /// Why which kinds are not being read at this moment.
    pub fn problems(&self) -> BTreeMap<Kind, String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, kind: Kind, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(kind, problem),
            None => problems.remove(&kind),
        };
    }
}

/// What connects one followed kind with the rest of the replica.
#[derive(Debug)]
pub struct Wiring {
    /// What is seen.
    pub events: mpsc::Sender<ObjectEvent>,
    /// That an API server is behind what was seen.
    pub doubts: mpsc::Sender<(Kind, Revision)>,
    /// How far the kind should be known: somebody has seen it. For a kind that
    /// changes, its next events tell. Of one that does not, only bookmarks do,
    /// once a minute, at other moments for every replica.
    pub wanted: watch::Receiver<Revision>,
}

/// How far each kind should be known, for [`Wiring::wanted`].
#[derive(Debug)]
pub struct Wants([watch::Sender<Revision>; Kind::COUNT]);

impl Default for Wants {
    fn default() -> Self {
        Wants(Kind::ALL.map(|_| watch::Sender::new(Revision::default())))
    }
}

impl Wants {
    /// What is wanted of a kind, from now on.
    pub fn of(&self, kind: Kind) -> watch::Receiver<Revision> {
        self.0[kind.index()].subscribe()
    }

    /// Somebody has seen this much.
    pub fn raise(&self, seen: &Frontier) {
        for (kind, wanted) in Kind::ALL.into_iter().zip(&self.0) {
            wanted.send_if_modified(|known| {
                let more = *known < seen.get(kind);
                *known = seen.get(kind).max(*known);
                more
            });
        }
    }
}

/// Follows one kind until cancelled, or until nobody listens any more. An API
/// server that is behind what was seen is not followed, and told to `doubts`.
pub async fn follow(
    client: Client,
    kind: Kind,
    config: WatchConfig,
    metrics: WatchMetrics,
    wiring: Wiring,
    cancel: CancellationToken,
) {
    let mut follower = Follower {
        source: Source::new(client, kind, config),
        metrics,
        wiring,
        highest: Revision::default(),
        tried: Revision::default(),
        catch_up_at: Instant::now(),
        hurry: false,
    };
    tokio::select! {
        biased; // cancellation ends it at once
        () = cancel.cancelled() => {}
        () = follower.run() => {}
    }
}

/// A watch that ends sooner than this, without an error, is not as it should be.
const SHORT: Duration = Duration::from_secs(1);

/// Nobody takes events any more: the process is going away.
struct Closed;

/// How long a watch may take to show what is wanted before it is asked for: most
/// often it is on its way.
const CATCH_UP_AFTER: Duration = Duration::from_millis(50);

/// Least time from one time of catching up to the next.
const CATCH_UP_EVERY: Duration = Duration::from_secs(2);

/// How long a watch lasts that is only to bring a bookmark soon: a server sends
/// one two seconds before the end.
const HURRY_SECONDS: u64 = 3;

/// How one round of listing and watching came to its end.
enum Ended {
    /// As the server meant it to.
    InOrder,
    /// So that more of what is wanted can be had, in `resume` or by the next watch.
    CaughtUp,
}

struct Follower {
    source: Source,
    metrics: WatchMetrics,
    wiring: Wiring,
    /// The highest revision that was told.
    highest: Revision,
    /// What was wanted when it last caught up: not tried twice, as a gateway may
    /// claim what never was.
    tried: Revision,
    /// No catching up before this.
    catch_up_at: Instant,
    /// The next watch is to end soon, for its bookmark.
    hurry: bool,
}

impl Follower {
    async fn run(&mut self) {
        let kind = self.source.kind();
        // Where the next watch starts; `None` asks for a list first.
        let mut resume: Option<Revision> = None;
        let mut failures: u32 = 0;
        loop {
            let started = Instant::now();
            let mut told = 0;
            let Ok(outcome) = self.round(&mut resume, &mut told).await else { return };
            self.metrics.up.with_label_values(&[kind.name()]).set(0);
            let error = match outcome {
                Ok(Ended::CaughtUp) => continue,
                Ok(Ended::InOrder) => {
                    // A server that ends every watch at once is not asked in a loop.
                    failures = if started.elapsed() > SHORT { 0 } else { failures + 1 };
                    if failures > 0 {
                        sleep(self.pause(None, failures)).await;
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.metrics.errors.with_label_values(&[kind.name()]).inc();
            self.metrics.note(kind, Some(chain(&error)));
            if let Error::Behind { seen, .. } = error {
                // One that finds no room is told again at the next attempt.
                let _ = self.wiring.doubts.try_send((kind, seen));
            }
            if matches!(error, Error::Gone { .. }) {
                tracing::info!(kind = kind.name(), "history is gone, listing again");
                resume = None;
            } else {
                // Nothing is forgotten meanwhile: gateways keep what they have.
                tracing::warn!(kind = kind.name(), error = %chain(&error), "list or watch failed, trying again");
            }
            // A watch that told something, or held for a while, was no failure:
            // after it the pauses start over.
            let worked = told > 0 || started.elapsed() > self.source.config().backoff.1;
            failures = if worked { 0 } else { failures + 1 };
            sleep(self.pause(Some(&error), failures)).await;
        }
    }

    /// One list, if needed, and one watch until it ends. Counts what the watch told.
    async fn round(
        &mut self,
        resume: &mut Option<Revision>,
        told: &mut u64,
    ) -> Result<Result<Ended, Error>, Closed> {
        let kind = self.source.kind();
        // After a restore from a backup, a watch from a revision that is not
        // there yet would wait in silence, and then leave out all before it.
        if self.highest > Revision::default()
            && let Err(error) = self.source.reaches(self.highest).await
        {
            return Ok(Err(error));
        }
        let mut at = match *resume {
            Some(at) => at,
            None => match self.source.list().await {
                Ok((revision, objects)) => {
                    self.metrics.lists.with_label_values(&[kind.name()]).inc();
                    tracing::info!(kind = kind.name(), objects = objects.len(), %revision, "listed");
                    self.highest = self.highest.max(revision);
                    self.tell(ObjectEvent::Listed { kind, revision, objects }).await?;
                    *resume = Some(revision);
                    revision
                }
                Err(error) => return Ok(Err(error)),
            },
        };
        let seconds = std::mem::take(&mut self.hurry).then_some(HURRY_SECONDS);
        let mut lines = match self.source.watch(at, seconds).await {
            Ok(lines) => lines,
            Err(error) => return Ok(Err(error)),
        };
        self.metrics.up.with_label_values(&[kind.name()]).set(1);
        self.metrics.note(kind, None);
        loop {
            let line = tokio::select! {
                biased; // what was seen comes first, and may be what is wanted
                line = lines.next() => line,
                () = overtaken(&mut self.wiring.wanted, at.max(self.tried), self.catch_up_at) => {
                    *resume = Some(self.catch_up(at).await?);
                    return Ok(Ok(Ended::CaughtUp));
                }
            };
            let event = match line {
                Ok(None) => return Ok(Ok(Ended::InOrder)),
                Err(error) => return Ok(Err(error)),
                Ok(Some(Line::Error(code, message))) => {
                    return Ok(Err(self.source.line_error(code, message)));
                }
                Ok(Some(Line::Changed(object))) => {
                    at = at.max(object.revision);
                    ObjectEvent::Changed(object)
                }
                Ok(Some(Line::Deleted(key, revision))) => {
                    at = at.max(revision);
                    ObjectEvent::Deleted(kind, key, revision)
                }
                Ok(Some(Line::Bookmark(revision))) => {
                    at = at.max(revision);
                    ObjectEvent::Bookmark(kind, revision)
                }
            };
            *resume = Some(at);
            self.highest = self.highest.max(at);
            *told += 1;
            self.tell(event).await?;
        }
    }

    /// The watch is at `at`, and somebody has seen more. Asks for everything as it
    /// was at the wanted revision, if that is one page, so that nobody waits; else
    /// for a bookmark. Returns where the next watch starts.
    async fn catch_up(&mut self, at: Revision) -> Result<Revision, Closed> {
        let (kind, wanted) = (self.source.kind(), *self.wiring.wanted.borrow());
        self.tried = wanted;
        self.catch_up_at = Instant::now() + CATCH_UP_EVERY;
        match self.source.list_at(wanted).await {
            Ok(Some(objects)) => {
                self.metrics.lists.with_label_values(&[kind.name()]).inc();
                tracing::info!(kind = kind.name(), objects = objects.len(), revision = %wanted, "caught up");
                self.highest = self.highest.max(wanted);
                self.tell(ObjectEvent::Listed { kind, revision: wanted, objects }).await?;
                Ok(wanted)
            }
            Ok(None) => {
                self.hurry = true;
                Ok(at)
            }
            Err(error) => {
                tracing::info!(kind = kind.name(), %wanted, error = %chain(&error), "cannot be read as it was");
                self.hurry = true;
                Ok(at)
            }
        }
    }

    /// Waits while the receiver is busy: a full channel slows this watch down
    /// and nothing else, and the API server keeps the rest.
    async fn tell(&self, event: ObjectEvent) -> Result<(), Closed> {
        self.wiring.events.send(event).await.map_err(|_| Closed)
    }

    fn pause(&self, error: Option<&Error>, failures: u32) -> Duration {
        let (first, longest) = self.source.config().backoff;
        let doubled = first.saturating_mul(1 << failures.min(10)).min(longest);
        let jittered = doubled.mul_f64(rand::rng().random_range(0.5..1.0));
        match error {
            Some(Error::Transient { retry_after: Some(asked), .. }) => jittered.max(*asked),
            _ => jittered,
        }
    }
}

/// Waits until more is wanted than `known`, and has been for a while.
async fn overtaken(wanted: &mut watch::Receiver<Revision>, known: Revision, not_before: Instant) {
    while *wanted.borrow_and_update() <= known {
        if wanted.changed().await.is_err() {
            // Nobody will want anything any more.
            std::future::pending::<()>().await;
        }
    }
    sleep_until(not_before.max(Instant::now() + CATCH_UP_AFTER)).await;
}

/// An error with its causes in one line, for logs.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
