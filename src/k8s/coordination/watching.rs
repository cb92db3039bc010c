//! Watches of the Leases and of the map: what makes a release or a new map
//! known within milliseconds. A watch that ends, breaks or says nothing for
//! too long is started over from a consistent list.

use std::fmt::Debug;
use std::time::Duration;

use flotilla_core::coordination::{Event, LeaseName, RequestError};
use flotilla_core::ids::Revision;
use flotilla_core::time::Mono;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{WatchEvent, WatchParams};
use kube::{Api, Resource};
use rand::Rng as _;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::lease::{Leases, named, revision_of};
use super::map::{Maps, record};
use flotilla_api::fleet::{SHARD_MAP_NAME, ShardMap};

/// How long the server keeps a watch; a silent one is given up soon after.
const WATCH: Duration = Duration::from_secs(20);
const REQUEST: Duration = Duration::from_secs(5);
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// What is watched.
trait Watched: Sync {
    type Object: Resource + Clone + DeserializeOwned + Debug + Send + 'static;

    fn api(&self) -> &Api<Self::Object>;
    fn params(&self) -> WatchParams;
    /// Reads everything consistently: an event for the coordinator, and where
    /// to watch from.
    async fn list(&self, now: Mono) -> Result<(Event, Revision), crate::Error>;
    fn event(&self, event: &WatchEvent<Self::Object>) -> Option<Event>;
}

impl Watched for Leases {
    type Object = Lease;

    fn api(&self) -> &Api<Lease> {
        Leases::api(self)
    }

    fn params(&self) -> WatchParams {
        WatchParams::default().labels(&Leases::selector())
    }

    async fn list(&self, now: Mono) -> Result<(Event, Revision), crate::Error> {
        let list = Leases::list(self, now).await?;
        let revision = list.revision;
        Ok((Event::LeasesListed(Ok(list)), revision))
    }

    fn event(&self, event: &WatchEvent<Lease>) -> Option<Event> {
        match event {
            WatchEvent::Added(lease) | WatchEvent::Modified(lease) => {
                named(lease).map(|(name, record)| Event::LeaseChanged(name, record))
            }
            WatchEvent::Deleted(lease) => {
                let name = LeaseName::parse(lease.metadata.name.as_deref()?)?;
                let revision = revision_of(lease.metadata.resource_version.as_deref()?)?;
                Some(Event::LeaseDeleted(name, revision))
            }
            _ => None,
        }
    }
}

impl Watched for Maps {
    type Object = ShardMap;

    fn api(&self) -> &Api<ShardMap> {
        Maps::api(self)
    }

    fn params(&self) -> WatchParams {
        WatchParams::default().fields(&format!("metadata.name={SHARD_MAP_NAME}"))
    }

    async fn list(&self, now: Mono) -> Result<(Event, Revision), crate::Error> {
        let params = kube::api::ListParams::default().fields(&format!("metadata.name={SHARD_MAP_NAME}"));
        let what = "list shardmaps";
        let list = self.api().list(&params).await.map_err(|e| crate::Error::from_kube(what, e))?;
        let revision = list.metadata.resource_version.as_deref().and_then(revision_of);
        let revision = revision.ok_or_else(|| crate::Error::Permanent {
            what: what.to_owned(),
            message: "the list has no usable resourceVersion".to_owned(),
        })?;
        let answer = Ok(list.items.first().and_then(record));
        Ok((Event::MapRead { sent_at: now, answer }, revision))
    }

    fn event(&self, event: &WatchEvent<ShardMap>) -> Option<Event> {
        match event {
            WatchEvent::Added(map) | WatchEvent::Modified(map) => record(map).map(Event::MapChanged),
            WatchEvent::Deleted(map) => {
                Some(Event::MapDeleted(revision_of(map.metadata.resource_version.as_deref()?)?))
            }
            _ => None,
        }
    }
}

/// Watches the Leases until nobody listens.
pub async fn leases(leases: Leases, clock: impl Fn() -> Mono + Sync, events: mpsc::Sender<Event>) {
    watch(leases, clock, events).await;
}

/// Watches the map until nobody listens.
pub async fn map(maps: Maps, clock: impl Fn() -> Mono + Sync, events: mpsc::Sender<Event>) {
    watch(maps, clock, events).await;
}

async fn watch<W: Watched>(watched: W, clock: impl Fn() -> Mono + Sync, events: mpsc::Sender<Event>) {
    let mut pause = PAUSE.0;
    loop {
        let started = Instant::now();
        let listed = timeout(REQUEST, watched.list(clock())).await;
        match listed {
            Ok(Ok((event, revision))) => {
                if events.send(event).await.is_err() {
                    return;
                }
                match follow(&watched, revision, &events).await {
                    Followed::NobodyListens => return,
                    Followed::Ended => pause = PAUSE.0,
                    // One that held for a while starts over with the short pause.
                    Followed::Broken(error) => {
                        tracing::debug!(error, "watch broke, starting over");
                        if started.elapsed() > WATCH / 2 {
                            pause = PAUSE.0;
                        }
                    }
                }
            }
            Ok(Err(error)) => tracing::debug!(error = %error, "cannot list, trying again"),
            Err(_) => tracing::debug!("list takes too long, trying again"),
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::select! {
            () = events.closed() => return,
            () = sleep(pause.mul_f64(jitter)) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

enum Followed {
    Ended,
    Broken(String),
    NobodyListens,
}

/// Passes events on until the watch ends.
async fn follow<W: Watched>(watched: &W, mut at: Revision, events: &mpsc::Sender<Event>) -> Followed {
    loop {
        let opened_at = Instant::now();
        let seconds = u32::try_from(WATCH.as_secs()).unwrap_or(20);
        let params = watched.params().timeout(seconds);
        let opened = timeout(REQUEST, watched.api().watch(&params, &at.to_string())).await;
        let stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Followed::Broken(error.to_string()),
            Err(_) => return Followed::Broken("no answer".to_owned()),
        };
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = tokio::select! {
                () = events.closed() => return Followed::NobodyListens,
                next = timeout(WATCH + REQUEST, stream.next()) => match next {
                    Err(_) => return Followed::Broken("silent for too long".to_owned()),
                    // A server that ends watches at once is not asked in a hot loop.
                    Ok(None) if opened_at.elapsed() < PAUSE.1 => return Followed::Broken("ended at once".to_owned()),
                    Ok(None) => break,
                    Ok(Some(Err(error))) => return Followed::Broken(error.to_string()),
                    Ok(Some(Ok(event))) => event,
                },
            };
            match &event {
                WatchEvent::Error(status) if status.code == 410 => return Followed::Ended,
                WatchEvent::Error(status) => return Followed::Broken(status.message.clone()),
                WatchEvent::Bookmark(bookmark) => {
                    at = at.max(revision_of(&bookmark.metadata.resource_version).unwrap_or(at));
                }
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    let revision = object.meta().resource_version.as_deref().and_then(revision_of);
                    at = at.max(revision.unwrap_or(at));
                }
            }
            if let Some(event) = watched.event(&event)
                && events.send(event).await.is_err()
            {
                return Followed::NobodyListens;
            }
        }
    }
}

/// What the core makes of an answer.
pub fn request_error(error: &crate::Error) -> RequestError {
    match error {
        crate::Error::Conflict { .. } | crate::Error::NotFound { .. } => RequestError::Conflict,
        _ => RequestError::Unavailable,
    }
}
