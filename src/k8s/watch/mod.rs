//! Follows one kind: list, then watch, for ever, as raw bytes.
//!
//! Written by hand rather than with a reflector because delivery needs what a
//! typed reflector drops: the bytes of the spec, bookmarks, and the revision of
//! a deletion. Lists are consistent reads (never `resourceVersion=0`). Nothing
//! that goes wrong here ever removes an object: an error keeps what is known
//! and tries again.

mod history;
mod source;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_core::ids::{Frontier, Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use kube::Client;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use rand::Rng;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::Error;
use flotilla_core::wire::Line;
use source::{Lines, Source};

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
    /// How long a watch may take to begin: servers say at once that it does, and some
    /// first wait up to 3 s for a cache that lags, or for a turn among many requests.
    pub open_timeout: Duration,
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
            open_timeout: Duration::from_secs(15),
            backoff: (Duration::from_millis(200), Duration::from_secs(5)),
        }
    }
}

/// Counters of all followed kinds.
#[derive(Clone)]
pub struct WatchMetrics {
    lists: IntCounterVec,
    caught_up: IntCounterVec,
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
            caught_up: counter(
                "flotilla_watch_caught_up_total",
                "Lists read to know as much of a kind as a gateway, by kind.",
            )?,
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
        registry.register(Box::new(metrics.caught_up.clone()))?;
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
    /// How far others have seen the kinds.
    pub wants: Wants,
}

/// How far gateways say that they have seen each kind. Of a kind that changes,
/// the next events tell a follower as much. Of one that does not, only bookmarks
/// do, once a minute, at other moments for every replica.
#[derive(Debug, Clone, Default)]
pub struct Wants(Arc<[Want; Kind::COUNT]>);

#[derive(Debug, Default)]
struct Want {
    /// The most that was said since it was last looked at.
    seen: AtomicU64,
    news: Notify,
}

impl Wants {
    /// Somebody says that it has seen this much.
    pub fn raise(&self, seen: &Frontier) {
        Kind::ALL.into_iter().for_each(|kind| self.say(kind, seen.get(kind)));
    }

    fn say(&self, kind: Kind, seen: Revision) {
        let want = &self.0[kind.index()];
        want.seen.fetch_max(seen.0, Ordering::Relaxed);
        want.news.notify_one();
    }

    /// Waits until more is said than what a watch at `at` has shown, and for a
    /// while longer: most often it is on its way. Returns what was said, which is
    /// then forgotten, as nobody has proven it.
    async fn overtake(&self, kind: Kind, at: Revision, not_before: Instant) -> Revision {
        let want = &self.0[kind.index()];
        while want.seen.load(Ordering::Relaxed) <= at.0 {
            want.news.notified().await;
        }
        sleep_until(not_before.max(Instant::now() + CATCH_UP_AFTER)).await;
        Revision(want.seen.swap(0, Ordering::Relaxed))
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
        catch_up_at: Instant::now(),
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

/// How long catching up may take: meanwhile the watch that is open is not read.
const CATCH_UP_PATIENCE: Duration = Duration::from_secs(2);

/// How long a watch lasts that is only to bring a bookmark soon: a server sends
/// one two seconds before the end.
const HURRY_SECONDS: u64 = 3;

/// How one round of listing and watching came to its end.
enum Ended {
    /// As the server meant it to.
    InOrder,
    /// A list has overtaken it.
    CaughtUp,
}

/// What brings a follower further than its watch.
enum CaughtUp {
    /// All objects as they were at a revision.
    Listed(Revision, Vec<RawObject>),
    /// A watch from the same revision that ends soon, with a bookmark before.
    Hurried(Lines),
}

struct Follower {
    source: Source,
    metrics: WatchMetrics,
    wiring: Wiring,
    /// The highest revision that was told.
    highest: Revision,
    /// No catching up before this.
    catch_up_at: Instant,
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
                    self.tell_all(resume, revision, objects).await?;
                    revision
                }
                Err(error) => return Ok(Err(error)),
            },
        };
        let mut lines = match self.source.watch(at, None).await {
            Ok(lines) => lines,
            Err(error) => return Ok(Err(error)),
        };
        self.metrics.up.with_label_values(&[kind.name()]).set(1);
        self.metrics.note(kind, None);
        loop {
            let line = tokio::select! {
                biased; // what was seen comes first, and may be what is wanted
                line = lines.next() => line,
                seen = self.wiring.wants.overtake(kind, at, self.catch_up_at) => {
                    match self.catch_up(at, seen).await {
                        Some(CaughtUp::Listed(upto, objects)) => {
                            self.metrics.caught_up.with_label_values(&[kind.name()]).inc();
                            tracing::info!(kind = kind.name(), objects = objects.len(), revision = %upto, "caught up");
                            self.tell_all(resume, upto, objects).await?;
                            return Ok(Ok(Ended::CaughtUp));
                        }
                        Some(CaughtUp::Hurried(sooner)) => lines = sooner,
                        None => {}
                    }
                    continue;
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

    /// Asks for everything as it was at the revision that somebody has seen, or at
    /// the end of the log, if that is one page; else for a watch that has its
    /// bookmark soon. `None`: the watch that is open is as good as anything.
    async fn catch_up(&mut self, at: Revision, seen: Revision) -> Option<CaughtUp> {
        self.catch_up_at = Instant::now() + CATCH_UP_EVERY;
        let source = &self.source;
        let found = async {
            let upto = seen.min(source.newest().await?);
            if upto <= at {
                return Ok(None);
            }
            if let Some(objects) = source.list_at(upto).await? {
                return Ok(Some(CaughtUp::Listed(upto, objects)));
            }
            source.watch(at, Some(HURRY_SECONDS)).await.map(|lines| Some(CaughtUp::Hurried(lines)))
        };
        match timeout(CATCH_UP_PATIENCE, found).await {
            Ok(Ok(found)) => return found,
            // It is tried again, not before CATCH_UP_EVERY.
            Ok(Err(error)) => {
                tracing::info!(kind = source.kind().name(), %seen, error = %chain(&error), "cannot catch up");
            }
            Err(_) => tracing::info!(kind = source.kind().name(), %seen, "cannot catch up in time"),
        }
        self.wiring.wants.say(source.kind(), seen);
        None
    }

    /// Everything that exists is known as of a revision: the next watch starts there.
    async fn tell_all(
        &mut self,
        resume: &mut Option<Revision>,
        revision: Revision,
        objects: Vec<RawObject>,
    ) -> Result<(), Closed> {
        self.highest = self.highest.max(revision);
        self.tell(ObjectEvent::Listed { kind: self.source.kind(), revision, objects }).await?;
        *resume = Some(revision);
        Ok(())
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
