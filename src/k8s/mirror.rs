//! Lists and watches by the client's own types, for what is not delivered: nothing is
//! concluded from revisions, and the bytes do not matter.

use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use rand::Rng as _;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::Error;
use crate::objects::REQUEST;
use crate::watch::chain;

/// Objects per page of a list.
const PAGE: u32 = 500;

/// How long one page of a list may take.
const LIST: Duration = Duration::from_secs(60);

/// Seconds after which an API server ends a watch.
const WATCH: u32 = 240;

/// First and longest pause after an error.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Pause after being told that this is not allowed: somebody has to grant it first.
const DENIED: Duration = Duration::from_secs(30);

/// What a watch shows.
#[derive(Debug)]
pub enum Seen<K> {
    /// Everything there is.
    All(Vec<K>),
    /// An object is there, or has changed.
    Is(Box<K>),
    /// An object is gone; this is how it was.
    Gone(Box<K>),
    /// The list or watch failed: until everything is listed again, what was seen may be old.
    Lost,
}

/// Lists and watches one resource until nobody listens any more. Of each object is kept
/// what `keep` makes of it, before the next page is read.
pub(crate) async fn mirror<K, T, O>(
    api: Api<K>,
    what: &str,
    label: Option<&str>,
    keep: &(dyn Fn(K) -> T + Sync),
    observed: &(dyn Fn(Seen<T>) -> O + Sync),
    out: &mpsc::Sender<O>,
) where
    K: Clone + std::fmt::Debug + DeserializeOwned + kube::Resource + Send + 'static,
{
    let mut pause = PAUSE.0;
    loop {
        let round = async {
            let (all, mut revision) = list(&api, what, label, keep).await?;
            if out.send(observed(Seen::All(all))).await.is_err() {
                return Ok(());
            }
            loop {
                match watch(&api, what, label, &mut revision, keep, observed, out).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        let begun = Instant::now();
        let Err(error) = round.await else { return };
        if out.send(observed(Seen::Lost)).await.is_err() {
            return;
        }
        if begun.elapsed() > PAUSE.1 {
            pause = PAUSE.0; // it worked for a while
        }
        if matches!(error, Error::Gone { .. }) {
            pause = PAUSE.0;
        } else {
            tracing::warn!(what, error = %chain(&error), "list or watch failed, trying again");
        }
        if matches!(error, Error::Denied { .. }) {
            pause = DENIED;
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        sleep(pause.mul_f64(jitter)).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn list<K, T>(
    api: &Api<K>,
    what: &str,
    label: Option<&str>,
    keep: &(dyn Fn(K) -> T + Sync),
) -> Result<(Vec<T>, String), Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let what = format!("list {what}");
    let mut all = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let mut parameters = ListParams::default().limit(PAGE);
        if let Some(label) = label {
            parameters = parameters.labels(label);
        }
        if let Some(token) = &next {
            parameters = parameters.continue_token(token);
        }
        let page = timeout(LIST, api.list(&parameters)).await.map_err(|_| Error::timeout(&what, LIST))?;
        let page = page.map_err(|error| Error::from_kube(&what, error))?;
        all.extend(page.items.into_iter().map(keep));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => next = Some(token),
            None => return Ok((all, page.metadata.resource_version.unwrap_or_default())),
        }
    }
}

/// One watch; whether the next one may follow, or nobody listens any more.
async fn watch<K, T, O>(
    api: &Api<K>,
    what: &str,
    label: Option<&str>,
    revision: &mut String,
    keep: &(dyn Fn(K) -> T + Sync),
    observed: &(dyn Fn(Seen<T>) -> O + Sync),
    out: &mpsc::Sender<O>,
) -> Result<bool, Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned + kube::Resource + Send + 'static,
{
    let what = format!("watch {what}");
    let mut parameters = WatchParams::default().timeout(WATCH);
    if let Some(label) = label {
        parameters = parameters.labels(label);
    }
    let opened = timeout(REQUEST, api.watch(&parameters, revision)).await;
    let opened = opened.map_err(|_| Error::timeout(&what, REQUEST))?;
    let mut events = std::pin::pin!(opened.map_err(|error| Error::from_kube(&what, error))?);
    let idle = Duration::from_secs(WATCH.into()) + REQUEST;
    loop {
        let event = timeout(idle, events.next()).await.map_err(|_| Error::timeout(&what, idle))?;
        let Some(event) = event.transpose().map_err(|error| Error::from_kube(&what, error))? else {
            return Ok(true);
        };
        let at = |object: &K| object.meta().resource_version.clone().unwrap_or_default();
        let seen = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *revision = at(&object);
                Seen::Is(Box::new(keep(object)))
            }
            WatchEvent::Deleted(object) => {
                *revision = at(&object);
                Seen::Gone(Box::new(keep(object)))
            }
            WatchEvent::Bookmark(bookmark) => {
                *revision = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => {
                return Err(Error::from_kube(&what, kube::Error::Api(status)));
            }
        };
        if out.send(observed(seen)).await.is_err() {
            return Ok(false);
        }
    }
}
