//! One request: understood, put before the stage, passed on or not, recorded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_apiserver::{Place, Query, Verb, asked};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::sleep;

use super::Line;
use super::answer::{Body, Broken, failure, gone_line, whole};
use super::watch;
use crate::plan::{Object, resource_of};
use crate::stage::{SHORT_PAGE, Verdict};
use crate::tape::Request;

/// Largest body that is taken in one piece, in either direction.
const LARGEST: usize = 64 * 1024 * 1024;

/// A request about objects.
struct Asked {
    verb: Verb,
    place: Place,
    query: Query,
}

impl Asked {
    fn continued(&self) -> bool {
        !self.query.get("continue").is_empty()
    }
}

/// Answers one request of a replica.
pub(super) async fn handle(
    line: Arc<Line>,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Broken> {
    let bearer = format!("Bearer {}", line.token);
    if request.headers().get(AUTHORIZATION).is_none_or(|given| given.as_bytes() != bearer.as_bytes()) {
        return Ok(failure(401));
    }
    let (mut parts, body) = request.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map_err(|_| Broken)?.to_bytes();
    let about = asked(&parts.method, &parts.uri).map(|(verb, place, query)| Asked { verb, place, query });
    let Some(mut asked) = about else {
        // Versions and discovery are nobody's fault.
        return Ok(pass_whole(&line, parts, body).await?.0);
    };
    if asked.verb == Verb::Create {
        asked.place.name = name_of(&body);
    }
    let verdict = line.theatre.decide(|stage, now| {
        if stage.has_short_pages() && asked.verb == Verb::List {
            set(&mut parts.uri, "limit", &SHORT_PAGE.to_string());
        }
        stage.request(now, line.replica, asked.verb, &asked.place, asked.continued())
    });
    let entry = Entry::new(&line, &asked, &body);
    play(&line, parts, body, &asked, verdict, entry).await
}

async fn play(
    line: &Arc<Line>,
    mut parts: Parts,
    body: Bytes,
    asked: &Asked,
    verdict: Verdict,
    entry: Entry,
) -> Result<Response<Body>, Broken> {
    let break_off = async |entry: Entry| {
        entry.keep(line, None);
        Err(Broken)
    };
    match verdict {
        Verdict::Cut => return break_off(entry).await,
        Verdict::KillBefore => {
            line.theatre.kill(line.replica);
            return break_off(entry).await;
        }
        Verdict::Hang(time) => {
            sleep(time).await;
            return break_off(entry).await;
        }
        Verdict::Answer { code } => {
            entry.keep(line, None);
            return Ok(failure(code));
        }
        Verdict::Gone => {
            entry.keep(line, None);
            return Ok(Response::new(whole(gone_line())));
        }
        Verdict::AsOf(revision) if !asked.continued() => {
            set(&mut parts.uri, "resourceVersion", &revision.to_string());
            set(&mut parts.uri, "resourceVersionMatch", "Exact");
        }
        Verdict::Hold(time) => sleep(time).await,
        Verdict::Pass
        | Verdict::AsOf(_)
        | Verdict::KillAfter
        | Verdict::LoseAnswer
        | Verdict::Delay(_)
        | Verdict::Truncate => {}
    }
    if asked.verb == Verb::Watch {
        let answer = send(line, parts, body).await?;
        entry.keep(line, Some(answer.status()));
        return Ok(watch::stream(line.clone(), &asked.place.resource, answer));
    }
    let answer = pass_whole(line, parts, body).await;
    entry.answered(answer.as_ref().ok(), line);
    let (answer, _) = answer?;
    match verdict {
        Verdict::KillAfter => {
            line.theatre.kill(line.replica);
            Err(Broken)
        }
        Verdict::LoseAnswer => Err(Broken),
        Verdict::Delay(time) => {
            sleep(time).await;
            Ok(answer)
        }
        Verdict::Truncate => halved(answer).await,
        _ => Ok(answer),
    }
}

/// What becomes an entry of the tape once the outcome is known.
struct Entry(Request);

impl Entry {
    fn new(line: &Line, asked: &Asked, body: &Bytes) -> Entry {
        let about_status = asked.place.subresource == "status" && !asked.place.namespace.is_empty();
        Entry(Request {
            at: line.theatre.elapsed(),
            phase: line.theatre.stage().phase,
            by: line.theatre.incarnation(line.replica),
            verb: asked.verb,
            resource: resource_of(&asked.place),
            object: Object::new(&*asked.place.namespace, &*asked.place.name),
            code: None,
            said: about_status.then(|| said_of(body)).flatten().unwrap_or_default(),
            epoch: about_status.then(|| epoch_of(body)).flatten(),
            revision: None,
        })
    }

    /// Keeps it with the API server's answer, if there was one.
    fn answered(mut self, answer: Option<&(Response<Body>, Bytes)>, line: &Line) {
        if let Some((_, bytes)) = answer.filter(|_| self.0.epoch.is_some()) {
            self.0.revision = revision_of(bytes);
        }
        self.keep(line, answer.map(|(head, _)| head.status()));
    }

    fn keep(mut self, line: &Line, code: Option<StatusCode>) {
        self.0.code = code.map(|code| code.as_u16());
        line.theatre.stage().tape.request(self.0);
    }
}

/// The name of an object that is to be created.
fn name_of(body: &[u8]) -> String {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct New {
        metadata: Metadata,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Metadata {
        name: String,
    }
    serde_json::from_slice::<New>(body).unwrap_or_default().metadata.name
}

/// The revision of the object in an answer.
fn revision_of(answer: &[u8]) -> Option<u64> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    answer["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// The epoch that a status names in which its writer acts.
fn epoch_of(body: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Written {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        epoch: Option<u64>,
    }
    serde_json::from_slice::<Written>(body).ok()?.status.epoch
}

/// Status and message of the condition `Ready` in a status that is written.
fn said_of(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let conditions = body["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|one| one["type"] == "Ready")?;
    Some(format!("{} {}", ready["status"].as_str()?, ready["message"].as_str().unwrap_or_default()))
}

/// Sets a parameter of a query, whose other parameters stay as they are.
fn set(uri: &mut Uri, key: &str, value: &str) {
    let kept = uri.query().unwrap_or_default().split('&');
    let kept = kept.filter(|pair| !pair.is_empty() && pair.split('=').next() != Some(key));
    let query: Vec<String> = kept.map(str::to_owned).chain([format!("{key}={value}")]).collect();
    let text = format!("{}?{}", uri.path(), query.join("&"));
    if let Ok(path) = PathAndQuery::try_from(text) {
        *uri = Uri::from(path);
    }
}

/// Sends a request upstream, under the proxy's own name.
async fn send(line: &Line, mut parts: Parts, body: Bytes) -> Result<Response<kube::client::Body>, Broken> {
    for name in [HOST, AUTHORIZATION, CONNECTION, ACCEPT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    line.upstream.send(request).await.map_err(|error| {
        tracing::debug!(%error, "the API server behind the fault proxy does not answer");
        Broken
    })
}

/// Passes a request on, and the answer back in one piece, which is returned
/// beside it.
async fn pass_whole(line: &Line, parts: Parts, body: Bytes) -> Result<(Response<Body>, Bytes), Broken> {
    let (mut head, body) = send(line, parts, body).await?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map_err(|_| Broken)?.to_bytes();
    without_framing(&mut head.headers);
    Ok((Response::from_parts(head, whole(body.clone())), body))
}

/// Headers that belong to one connection, or to a body that is not passed on as it is.
pub(super) fn without_framing(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
}

async fn halved(answer: Response<Body>) -> Result<Response<Body>, Broken> {
    let (head, body) = answer.into_parts();
    let bytes = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, whole(bytes.slice(..bytes.len() / 2))))
}

/// How often a stream that is held back looks whether it still is.
pub(super) const LOOK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_replaced_and_added() {
        let check = |before: &str, key: &str, value: &str, expected: &str| {
            let mut uri: Uri = before.parse().unwrap();
            set(&mut uri, key, value);
            assert_eq!(uri.to_string(), expected);
        };
        check("/apis/x?limit=500", "limit", "2", "/apis/x?limit=2");
        check("/apis/x", "limit", "2", "/apis/x?limit=2");
        check("/apis/x?limit=500&continue=a%3D", "limit", "2", "/apis/x?continue=a%3D&limit=2");
    }

    #[test]
    fn what_a_body_says_is_read() {
        assert_eq!(name_of(br#"{"metadata":{"name":"a"},"spec":{}}"#), "a");
        assert_eq!(name_of(b"no json"), "");
        assert_eq!(epoch_of(br#"{"status":{"epoch":7}}"#), Some(7));
        assert_eq!(epoch_of(br#"{"spec":{}}"#), None);
        assert_eq!(revision_of(br#"{"metadata":{"resourceVersion":"31"}}"#), Some(31));
        assert_eq!(revision_of(b"half an ans"), None);
        let status = br#"{"status":{"conditions":[{"type":"Ready","status":"True","message":"to 2"}]}}"#;
        assert_eq!(said_of(status).as_deref(), Some("True to 2"));
    }
}
