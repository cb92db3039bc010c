//! Watches: line by line from the API server to the replica, each line put
//! before the stage. One line is read only when the one before has been taken,
//! so a replica that reads slowly holds up the API server and fills no memory
//! here.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::Line;
use super::answer::{Body, Broken, gone_line};
use super::request::{LOOK, without_framing};
use crate::plan::Object;
use crate::stage::EventVerdict;
use crate::tape::{Change, State, Subject};

/// Longest line: etcd's limit of an object, with room for encoding.
const LONGEST: usize = 8 * 1024 * 1024;

/// How long an event gets to reach the replica that is then killed.
const TO_ARRIVE: Duration = Duration::from_millis(150);

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, rename = "type")]
    name: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    generation: i64,
}

/// The answer to a watch, with a body that goes through the stage.
pub(super) fn stream(
    line: Arc<Line>,
    resource: &str,
    answer: Response<kube::client::Body>,
) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    without_framing(&mut head.headers);
    let ended = !head.status.is_success();
    let watch = Watch {
        line,
        resource: resource.to_owned(),
        body,
        buffer: BytesMut::new(),
        searched: 0,
        next: Next::Line,
        verbatim: ended,
    };
    let lines = stream::unfold(watch, |mut watch| async move {
        let piece = watch.piece().await?;
        Some((piece.map(Frame::data), watch))
    });
    Response::from_parts(head, StreamBody::new(lines).boxed_unsync())
}

/// What comes after the piece that was passed on last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    End,
    KillAll,
}

struct Watch {
    line: Arc<Line>,
    resource: String,
    body: kube::client::Body,
    buffer: BytesMut,
    /// So much of the buffer is known to hold no end of a line.
    searched: usize,
    next: Next,
    /// A refusal is passed on as it is.
    verbatim: bool,
}

impl Watch {
    /// The next piece for the replica; `None` at the end.
    async fn piece(&mut self) -> Option<Result<Bytes, Broken>> {
        match self.next {
            Next::Line => {}
            Next::End => return None,
            Next::KillAll => {
                sleep(TO_ARRIVE).await;
                self.line.theatre.kill_all();
                return Some(Err(Broken));
            }
        }
        loop {
            if let Some(text) = self.take_line() {
                match self.decide(text).await {
                    Some(piece) => return Some(piece),
                    None => continue,
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if self.verbatim {
                        return Some(Ok(data));
                    }
                    self.buffer.extend_from_slice(&data);
                    if self.buffer.len() > LONGEST {
                        return Some(Err(Broken));
                    }
                }
                Some(Err(_)) => return Some(Err(Broken)),
                // What is left is no whole line: the API server broke off.
                None if self.buffer.is_empty() => return None,
                None => return Some(Err(Broken)),
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end + 1).freeze();
        self.searched = 0;
        Some(line)
    }

    /// What becomes of a line; `None` when it is left out.
    async fn decide(&mut self, text: Bytes) -> Option<Result<Bytes, Broken>> {
        let Ok(event) = serde_json::from_slice::<Event<'_>>(&text) else { return Some(Ok(text)) };
        let change = match event.name.as_ref() {
            "ADDED" => Change::Added,
            "MODIFIED" => Change::Modified,
            "DELETED" => Change::Deleted,
            _ => {
                self.wait_while_frozen().await;
                return Some(Ok(text));
            }
        };
        let (subject, state) = self.told(change, event.object)?;
        loop {
            let replica = self.line.replica;
            let verdict = self.line.theatre.decide(|stage, now| stage.event(now, replica, &subject, &state));
            return match verdict {
                EventVerdict::Pass => Some(Ok(text)),
                EventVerdict::PassAs(change) => Some(Ok(renamed(change, event.object))),
                EventVerdict::Drop => None,
                EventVerdict::Cut => Some(Err(Broken)),
                EventVerdict::Gone => {
                    self.next = Next::End;
                    Some(Ok(gone_line()))
                }
                EventVerdict::PassAndKillAll => {
                    self.next = Next::KillAll;
                    Some(Ok(text.clone()))
                }
                EventVerdict::Hold(time) => {
                    sleep(time.min(LOOK)).await;
                    continue;
                }
            };
        }
    }

    async fn wait_while_frozen(&mut self) {
        while let Some(time) = self.line.theatre.decide(|stage, now| stage.frozen(now, &self.resource)) {
            sleep(time.min(LOOK)).await;
        }
    }

    /// What an event tells of which object.
    fn told(&self, change: Change, object: &RawValue) -> Option<(Subject, State)> {
        let Metadata { namespace, name, uid, resource_version, generation } =
            serde_json::from_str::<Told>(object.get()).ok()?.metadata;
        let revision = resource_version.parse().ok()?;
        let subject = (self.resource.clone(), Object::new(namespace, name));
        Some((subject, State { phase: 0, change, revision, generation, uid }))
    }
}

fn renamed(change: Change, object: &RawValue) -> Bytes {
    let name = match change {
        Change::Added => "ADDED",
        Change::Modified => "MODIFIED",
        Change::Deleted => "DELETED",
    };
    Bytes::from(format!("{{\"type\":\"{name}\",\"object\":{}}}\n", object.get()))
}
