//! Watches: lines of JSON, one per event, for as long as the client listens.
//!
//! A watch keeps no queue. It remembers the revision up to which it has told everything and reads the store's
//! history from there when it is woken and the client can take more. So a slow client costs no memory; when it falls
//! behind the history it is told 410, and lists again. Events are copied from the bytes in the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::body::{Cut, streaming};
use super::filter::Filter;
use super::read::parse_revision;
use super::render::Form;
use super::{Body, Call};
use crate::faults::{Effect, Subject, WatchGuard};
use crate::state::State;
use crate::status::ApiError;
use crate::store::{Change, Event, Object, PageStart};

/// How many events or objects are written at once.
const PORTION: usize = 128;
/// How long a watch lasts that names no time.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long before its end a watch gets a last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_millis(500);

struct Watch {
    state: Arc<State>,
    call: Call,
    form: Form,
    filter: Filter,
    subject: Subject,
    guard: WatchGuard,
    store_changed: watch::Receiver<u64>,
    faults_changed: watch::Receiver<u64>,
    /// Everything up to here was told.
    position: u64,
    /// Objects that were there at the beginning and are still to be told, last one first.
    initial: Vec<Arc<Object>>,
    /// Whether the end of `initial` is still to be announced.
    announce_initial_end: bool,
    /// Events that were read and not told yet, because a fault holds one back.
    held: std::collections::VecDeque<Held>,
    bookmarks: bool,
    next_bookmark: Instant,
    last_bookmark: Instant,
    end: Instant,
    ended: bool,
}

/// An event and when it may be told, once that was decided.
struct Held {
    event: Event,
    due: Option<Instant>,
}

/// What a watch can do at the moment.
enum Step {
    /// Send this.
    Send(Bytes),
    /// Wait until something changes, or this moment.
    Wait(Option<Instant>),
    /// Send this, then end.
    Finish(Bytes),
    /// End at once.
    End,
}

/// Begins a watch.
pub(super) fn watch(state: &Arc<State>, call: Call, subject: Subject) -> Result<Response<Body>, ApiError> {
    let form = Form::of(&call)?;
    let filter = Filter::of(&call)?;
    let id = call.resource.id.clone();
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let send_initial = call.query.flag("sendInitialEvents");
    let asked = match call.query.get("resourceVersion") {
        "" | "0" => None,
        text => Some(parse_revision(text)?),
    };
    let matching = call.query.get("resourceVersionMatch");
    if send_initial && (matching != "NotOlderThan" || !bookmarks) {
        return Err(ApiError::bad_request(
            "sendInitialEvents: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan \
             and allowWatchBookmarks",
        ));
    }
    if !send_initial && !matching.is_empty() {
        let why = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
                   sendInitialEvents is provided";
        return Err(ApiError::bad_request(why));
    }
    let timeout = match call.query.get("timeoutSeconds") {
        "" | "0" => DEFAULT_TIMEOUT,
        text => {
            let seconds =
                text.parse().map_err(|_| ApiError::bad_request(format!("invalid timeoutSeconds: {text}")))?;
            Duration::from_secs(seconds)
        }
    };
    let store_changed = state.read(|store| store.subscribe(&id)).ok_or_else(ApiError::no_path)?;
    let (position, initial) = match asked {
        Some(revision) if !send_initial => {
            // A revision that was never given out is from another life of this server, which forgets everything
            // when it ends. Clients list again when they are told that it is gone.
            let current = state.read(|store| store.revision());
            if revision > current {
                return Ok(streaming(stream::iter([Ok(gone(revision, current))])));
            }
            (revision, Vec::new())
        }
        asked => {
            let accept = |object: &_| filter.fields_match(&call.resource, object);
            let page = state.read(|store| store.list(&id, &filter.scope, &PageStart::default(), accept));
            let page = page.map_err(|error| ApiError::from_list(error, false, 0))?;
            if let Some(asked) = asked.filter(|asked| *asked > page.revision) {
                return Err(ApiError::too_large(asked, page.revision));
            }
            let mut objects = page.objects;
            objects.reverse();
            (page.revision, objects)
        }
    };
    let now = Instant::now();
    let end = now + timeout;
    let watch = Watch {
        guard: state.faults.register_watch(subject.clone()),
        faults_changed: state.faults.subscribe(),
        next_bookmark: now + state.bookmark_interval,
        last_bookmark: if timeout > LAST_BOOKMARK * 2 { end - LAST_BOOKMARK } else { end },
        state: state.clone(),
        call,
        form,
        filter,
        subject,
        store_changed,
        position,
        initial,
        announce_initial_end: send_initial,
        held: std::collections::VecDeque::new(),
        bookmarks,
        end,
        ended: false,
    };
    Ok(streaming(stream::unfold(watch, |mut watch| async move {
        let item = watch.next().await?;
        Some((item, watch))
    })))
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        loop {
            if self.guard.cut.is_cancelled() {
                return Some(Err(Cut));
            }
            if self.ended || self.state.stop.is_cancelled() {
                return None;
            }
            // Both are marked as seen before the store and the faults are looked at, so that no change is missed.
            let closed = self.store_changed.has_changed().is_err();
            self.store_changed.mark_unchanged();
            self.faults_changed.mark_unchanged();
            let wake = match self.step(Instant::now()) {
                Step::Send(bytes) => return Some(Ok(bytes)),
                Step::Finish(bytes) => {
                    self.ended = true;
                    return Some(Ok(bytes));
                }
                Step::End => return None,
                Step::Wait(_) if closed => return None,
                Step::Wait(wake) => wake,
            };
            let deadline = self.deadline(wake);
            tokio::select! {
                biased; // ends go before changes; the order does not matter otherwise
                () = self.state.stop.cancelled() => {}
                () = self.guard.cut.cancelled() => {}
                _ = self.store_changed.changed() => {}
                _ = self.faults_changed.changed() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// When to look again even if nothing changes.
    fn deadline(&self, wake: Option<Instant>) -> Instant {
        let mut deadline = self.end;
        if self.bookmarks {
            deadline = deadline.min(self.next_bookmark);
            if Instant::now() < self.last_bookmark {
                deadline = deadline.min(self.last_bookmark);
            }
        }
        wake.map_or(deadline, |wake| deadline.min(wake))
    }

    fn step(&mut self, now: Instant) -> Step {
        if !self.initial.is_empty() {
            let rest = self.initial.len().saturating_sub(PORTION);
            let mut out = BytesMut::new();
            for object in self.initial.split_off(rest).into_iter().rev() {
                self.write(&mut out, "ADDED", &object);
            }
            return Step::Send(out.freeze());
        }
        if self.announce_initial_end && !self.state.faults.frozen(&self.subject) {
            self.announce_initial_end = false;
            return Step::Send(self.bookmark(Some(json!({"k8s.io/initial-events-end": "true"}))));
        }
        let mut drained = false;
        if self.held.is_empty() {
            let read = self.state.read(|store| store.events(&self.call.resource.id, self.position, PORTION));
            match read {
                Err(lost) => return Step::Finish(gone(lost.asked, lost.floor)),
                Ok(None) => return Step::End,
                Ok(Some((events, _))) if !events.is_empty() => {
                    self.held = events.into_iter().map(|event| Held { event, due: None }).collect();
                }
                Ok(Some((_, position))) => {
                    drained = true;
                    if !self.state.faults.frozen(&self.subject) {
                        self.position = position;
                    }
                }
            }
        }
        let mut out = BytesMut::new();
        let wait = self.tell_held(&mut out, now);
        if !out.is_empty() {
            return Step::Send(out.freeze());
        }
        match wait {
            Tell::Cut => return Step::End,
            Tell::All if !drained => return self.step(now),
            Tell::All | Tell::Until(_) => {}
        }
        if now >= self.end {
            return Step::End;
        }
        let due = now >= self.next_bookmark || now >= self.last_bookmark;
        if drained && self.bookmarks && due && !self.state.faults.frozen(&self.subject) {
            self.next_bookmark = now + self.state.bookmark_interval;
            if now >= self.last_bookmark {
                self.last_bookmark = self.end + DEFAULT_TIMEOUT;
            }
            return Step::Send(self.bookmark(None));
        }
        if due {
            // Not now: something holds the watch. Try again after another interval.
            self.next_bookmark = now + self.state.bookmark_interval;
        }
        match wait {
            Tell::Until(moment) => Step::Wait(moment),
            Tell::All | Tell::Cut => Step::Wait(None),
        }
    }

    /// Tells the events that were read, as far as no fault holds them back.
    fn tell_held(&mut self, out: &mut BytesMut, now: Instant) -> Tell {
        while let Some(mut held) = self.held.pop_front() {
            let revision = held.event.revision;
            let Some((kind, object)) = self.visible(&held.event) else {
                self.position = revision;
                continue;
            };
            if held.due.is_none() {
                let subject = Subject {
                    namespace: object.key.namespace.clone(),
                    name: object.key.name.clone(),
                    ..self.subject.clone()
                };
                match self.state.faults.strike_event(&subject) {
                    Some((_, Effect::DropEvent)) => {
                        self.position = revision;
                        continue;
                    }
                    Some((_, Effect::FreezeEvents)) => {
                        self.held.push_front(held);
                        return Tell::Until(None);
                    }
                    Some((_, Effect::CutWatch)) => return Tell::Cut,
                    Some((_, Effect::DelayEvents(delay))) => {
                        held.due = Some(Instant::from_std(held.event.at) + delay);
                    }
                    _ => held.due = Some(now),
                }
            }
            if let Some(due) = held.due.filter(|due| *due > now) {
                self.held.push_front(held);
                return Tell::Until(Some(due));
            }
            self.write(out, kind, &object);
            self.position = revision;
        }
        Tell::All
    }

    /// What an event is to this watch: selectors turn changes into comings and goings.
    fn visible(&self, event: &Event) -> Option<(&'static str, Arc<Object>)> {
        let is = event.change != Change::Deleted && self.filter.matches(&self.call.resource, &event.object);
        let was = event
            .previous
            .as_ref()
            .is_some_and(|previous| self.filter.matches(&self.call.resource, previous));
        match (was, is) {
            (false, true) => Some(("ADDED", event.object.clone())),
            (true, true) => Some(("MODIFIED", event.object.clone())),
            // What leaves a selection is shown as it was in it, at the revision at which it left.
            (true, false) if event.change != Change::Deleted => {
                let previous = event.previous.as_ref()?.value();
                Some(("DELETED", Arc::new(Object::stamp(previous, event.revision))))
            }
            (true, false) => Some(("DELETED", event.object.clone())),
            (false, false) => None,
        }
    }

    fn write(&self, out: &mut BytesMut, kind: &str, object: &Object) {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(&self.form.one(&self.call.resource, self.call.version, object));
        out.put_slice(b"}\n");
    }

    fn bookmark(&self, annotations: Option<Value>) -> Bytes {
        let object = self.form.bookmark(&self.call.resource, self.call.version, self.position, annotations);
        let mut out = BytesMut::with_capacity(object.len() + 40);
        out.put_slice(b"{\"type\":\"BOOKMARK\",\"object\":");
        out.put_slice(&object);
        out.put_slice(b"}\n");
        out.freeze()
    }
}

/// The event that ends a watch whose revision cannot be served. Real API servers send it as an event, too.
fn gone(asked: u64, floor: u64) -> Bytes {
    let status = ApiError::expired(format!("too old resource version: {asked} ({floor})")).to_value();
    Bytes::from(format!("{{\"type\":\"ERROR\",\"object\":{status}}}\n"))
}

/// How far the telling of events has come.
enum Tell {
    /// Everything was told.
    All,
    /// One is held back, until a moment or a change of the faults.
    Until(Option<Instant>),
    /// The watch is to end.
    Cut,
}
