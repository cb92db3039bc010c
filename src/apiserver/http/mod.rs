//! The HTTP face: a request is read, the client is known and allowed, a fault may strike, and a handler answers.

mod applying;
mod body;
mod discovery;
mod filter;
mod negotiate;
mod patching;
mod protobuf;
mod read;
mod render;
mod reviews;
mod route;
mod watch;
mod write;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};

pub use body::{Body, Cut};

use crate::auth::{Attributes, Identity};
use crate::faults::{Effect, RuleId, Subject};
use crate::registry::Resource;
use crate::state::State;
use crate::status::{ApiError, Named};
use crate::verb::{RequestKind, Verb};
use body::{failure, no_page, plain};
use route::Route;
pub use route::{Place, Query, asked};

/// Largest body that is read, in bytes. That of kube-apiserver.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// An error of a request's body.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request about objects, after it was understood.
pub(crate) struct Call {
    pub verb: Verb,
    pub place: Place,
    pub query: Query,
    pub headers: HeaderMap,
    pub resource: Arc<Resource>,
    /// Which of the resource's versions is asked for.
    pub version: usize,
    /// The revision a fault wants reads to be answered as of.
    pub stale: Option<u64>,
}

/// Answers one request. `who` is the client, if its connection tells.
pub(crate) async fn handle<B>(
    state: Arc<State>,
    who: Option<Identity>,
    request: Request<B>,
) -> Result<Response<Body>, Cut>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    let route = route::route(parts.uri.path());
    let public = match route {
        Route::Health => Some(plain("ok")),
        Route::Version => Some(discovery::version()),
        _ => None,
    };
    if let Some(response) = public {
        return Ok(response);
    }
    let who = match authenticate(&state, who, &parts.headers) {
        Ok(who) => who,
        Err(error) => return Ok(failure(&error)),
    };
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let place = match route {
        Route::Objects(place) => place,
        Route::Metrics if parts.method == Method::GET => return Ok(metrics(&state)),
        other if parts.method == Method::GET => {
            return Ok(
                discovery::answer(&state, &other, &parts.headers).unwrap_or_else(|error| failure(&error))
            );
        }
        Route::Unknown => return Ok(no_page()),
        _ => return Ok(failure(&ApiError::no_method())),
    };
    let Some(verb) = route::verb(&parts.method, &place, &query) else {
        return Ok(failure(&ApiError::no_method()));
    };
    let subject = Subject {
        verb,
        resource: place.resource.clone(),
        subresource: place.subresource.clone(),
        namespace: place.namespace.clone(),
        name: place.name.clone(),
        user: who.user.clone(),
    };
    if let Err(error) = authorize(&state, &who, verb, &place) {
        return Ok(failure(&error));
    }
    if reviews::is_review(&place) {
        let answer = match read_body(body).await {
            Ok(body) => reviews::answer(&state, verb, &place, &who, &parts.headers, &body),
            Err(error) => Err(error),
        };
        return Ok(answer.unwrap_or_else(|error| failure(&error)));
    }
    let Some((resource, version)) = state.registry().find(&place.group, &place.version, &place.resource)
    else {
        // The groups of definitions come and go; the built-in ones are always there.
        let built_in = state.registry().has_builtin(&place.group, &place.version);
        return Ok(if built_in { failure(&ApiError::no_path()) } else { no_page() });
    };
    let full = if resource.group.is_empty() {
        resource.plural.clone()
    } else {
        format!("{}.{}", resource.plural, resource.group)
    };
    state.requests.count(RequestKind { verb, resource: full, subresource: place.subresource.clone() });

    let mut call = Call { verb, place, query, headers: parts.headers, resource, version, stale: None };
    let mut lose_answer = false;
    if let Some((rule, effect)) = state.faults.strike(&subject) {
        match effect {
            Effect::Status { code, retry_after } => return Ok(failure(&injected(code, retry_after))),
            Effect::Delay(delay) => pause(&state, delay).await,
            Effect::Hang => {
                hang(&state, rule).await;
                return Err(Cut);
            }
            Effect::LoseAnswer => lose_answer = true,
            Effect::StaleRead { revision } => call.stale = Some(revision),
            Effect::DropEvent | Effect::DelayEvents(_) | Effect::FreezeEvents | Effect::CutWatch => {}
        }
    }
    let answer = match read_body(body).await {
        Ok(body) => dispatch(&state, call, subject, &body),
        Err(error) => Err(error),
    };
    if lose_answer { Err(Cut) } else { Ok(answer.unwrap_or_else(|error| failure(&error))) }
}

/// The requests so far, in Prometheus' text format and under the name that kube-apiserver
/// gives them.
fn metrics(state: &State) -> Response<Body> {
    let mut text = "# HELP apiserver_request_total Requests about known resources.\n\
                    # TYPE apiserver_request_total counter\n"
        .to_owned();
    for (RequestKind { verb, resource, subresource }, count) in state.requests.snapshot() {
        let (resource, group) = resource.split_once('.').unwrap_or((&resource, ""));
        // A map's entries are written into a string: that cannot fail.
        let _ = writeln!(
            text,
            "apiserver_request_total{{group=\"{group}\",resource=\"{resource}\",\
             subresource=\"{subresource}\",verb=\"{}\"}} {count}",
            verb.in_metrics()
        );
    }
    plain(text)
}

fn dispatch(
    state: &Arc<State>,
    call: Call,
    subject: Subject,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    call.check()?;
    match call.verb {
        Verb::Get => read::get(state, &call),
        Verb::List => read::list(state, &call),
        Verb::Watch => watch::watch(state, call, subject),
        Verb::Create => write::create(state, &call, body),
        Verb::Update => write::update(state, &call, body),
        Verb::Patch => write::patch(state, &call, body),
        Verb::Delete => write::delete(state, &call, body),
        Verb::DeleteCollection => write::delete_collection(state, &call, body),
    }
}

impl Call {
    /// Whether the place fits the resource.
    fn check(&self) -> Result<(), ApiError> {
        let version = &self.resource.versions[self.version];
        let known_subresource = match self.place.subresource.as_str() {
            "" => true,
            "status" => version.status,
            "finalize" => &*self.resource.id == crate::store::NAMESPACES,
            _ => false,
        };
        let misplaced = !self.resource.namespaced && !self.place.namespace.is_empty();
        let incomplete =
            self.resource.namespaced && self.place.namespace.is_empty() && !self.place.name.is_empty();
        if !known_subresource || misplaced || incomplete {
            return Err(ApiError::no_path());
        }
        let all_namespaces = self.resource.namespaced && self.place.namespace.is_empty();
        let on_subresource = !self.place.subresource.is_empty();
        let possible = match self.verb {
            Verb::Create | Verb::DeleteCollection if all_namespaces => false,
            Verb::Create | Verb::DeleteCollection | Verb::Delete | Verb::List | Verb::Watch => {
                !on_subresource
            }
            Verb::Get | Verb::Update | Verb::Patch => true,
        };
        if possible { Ok(()) } else { Err(ApiError::no_method()) }
    }
}

fn authenticate(state: &State, who: Option<Identity>, headers: &HeaderMap) -> Result<Identity, ApiError> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let known = match token {
        Some(token) if who.is_none() => state.access.identity_of_token(token),
        _ => who,
    };
    known.ok_or_else(|| ApiError::new(401, "Unauthorized", "Unauthorized"))
}

fn authorize(state: &State, who: &Identity, verb: Verb, place: &Place) -> Result<(), ApiError> {
    let attributes = Attributes {
        verb: verb.as_str(),
        group: &place.group,
        resource: &place.resource,
        subresource: &place.subresource,
        namespace: &place.namespace,
    };
    if state.access.allows(who, &attributes) {
        return Ok(());
    }
    let resource = match place.subresource.as_str() {
        "" => place.resource.clone(),
        sub => format!("{}/{sub}", place.resource),
    };
    let scope = match place.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why = format!(
        "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {scope}",
        who.user, place.group
    );
    Err(ApiError::forbidden(Named { group: &place.group, resource: &place.resource }, &place.name, &why))
}

async fn read_body<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::new(413, "RequestEntityTooLarge", format!("limit is {BODY_LIMIT}")))
        }
        Err(error) => Err(ApiError::bad_request(format!("unable to read the body: {error}"))),
    }
}

/// The error that a fault asks for, with the reason that goes with its code.
fn injected(code: u16, retry_after: Option<u64>) -> ApiError {
    let (reason, message) = match code {
        403 => ("Forbidden", "forbidden by fault injection"),
        409 => (
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        410 => ("Expired", "too old resource version"),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "the server was unable to return a response in the time allotted"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    let mut error = ApiError::new(code, reason, message);
    error.retry_after = retry_after;
    error
}

async fn pause(state: &State, delay: Duration) {
    tokio::select! {
        biased; // the end of the server goes before any delay
        () = state.stop.cancelled() => {}
        () = tokio::time::sleep(delay) => {}
    }
}

async fn hang(state: &State, rule: RuleId) {
    let mut changed = state.faults.subscribe();
    while state.faults.is_active(rule) {
        tokio::select! {
            biased; // the end of the server goes before any hanging
            () = state.stop.cancelled() => return,
            changed = changed.changed() => if changed.is_err() { return },
        }
    }
}

/// The status code of a successful creation or change.
fn success(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}
