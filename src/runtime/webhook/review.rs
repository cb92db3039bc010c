//! One AdmissionReview: bytes in, bytes out. Pure.
//!
//! `kube` has types for it, which read an object into a tree; validators here
//! want the spec as the bytes that arrived, as everywhere else, so that admission
//! and delivery judge exactly the same. Source of the format:
//! `admission.k8s.io/v1`.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_avapigw::{Conflicts, References, Refusal, Verdict, contested, judge, refuse};
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_grpc::peers::{AdmissionAnswer, AdmissionQuestion};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// What became of a review.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The object may be written.
    Admitted,
    /// It may not.
    Refused,
    /// It was no review that could be understood.
    Malformed,
    /// Nothing can be said yet.
    NotReady,
}

impl Outcome {
    pub const ALL: [Outcome; 4] =
        [Outcome::Admitted, Outcome::Refused, Outcome::Malformed, Outcome::NotReady];

    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Admitted => "admitted",
            Outcome::Refused => "refused",
            Outcome::Malformed => "malformed",
            Outcome::NotReady => "not_ready",
        }
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub outcome: Outcome,
    pub status: StatusCode,
    pub body: Value,
}

impl Answer {
    /// An error of the request itself, as a Kubernetes `Status`.
    pub fn error(status: StatusCode, message: impl Into<String>) -> Answer {
        let (outcome, reason) = match status {
            StatusCode::SERVICE_UNAVAILABLE => (Outcome::NotReady, "ServiceUnavailable"),
            StatusCode::INTERNAL_SERVER_ERROR => (Outcome::NotReady, "InternalError"),
            StatusCode::NOT_FOUND => (Outcome::Malformed, "NotFound"),
            StatusCode::METHOD_NOT_ALLOWED => (Outcome::Malformed, "MethodNotAllowed"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => (Outcome::Malformed, "UnsupportedMediaType"),
            StatusCode::PAYLOAD_TOO_LARGE => (Outcome::Malformed, "RequestEntityTooLarge"),
            StatusCode::REQUEST_TIMEOUT => (Outcome::Malformed, "Timeout"),
            _ => (Outcome::Malformed, "BadRequest"),
        };
        let body = json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "message": message.into(),
            "reason": reason,
            "code": status.as_u16(),
        });
        Answer { outcome, status, body }
    }
}

/// What one replica can say about a review.
#[derive(Debug)]
pub(super) enum Examined {
    /// Everything.
    Answered(Answer),
    /// Nothing speaks against the object; whether others want the same at this
    /// moment, another replica knows.
    Contested(Box<Contested>),
}

/// A review that waits for a decision.
#[derive(Debug)]
pub(super) struct Contested {
    uid: String,
    verdict: Verdict,
    pub question: AdmissionQuestion,
}

impl Contested {
    /// The answer to the review once it is decided.
    pub fn decided(self, answer: &AdmissionAnswer) -> Answer {
        let AdmissionQuestion { kind, key, claims, .. } = &self.question;
        let verdict = match answer {
            AdmissionAnswer::Free => self.verdict,
            AdmissionAnswer::Taken(taken) => refuse(*kind, claims, taken),
            AdmissionAnswer::AskAnother(_) | AdmissionAnswer::NotReady => return not_ready(),
        };
        told(&self.uid, *kind, &key.name, &verdict)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: String,
    kind: GroupVersionKind,
    operation: String,
    dry_run: Option<bool>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    old_object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GroupVersionKind {
    group: String,
    version: String,
    kind: String,
}

#[derive(Deserialize)]
struct Object<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    namespace: String,
    uid: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
}

/// Examines a review about an object of `kind`.
pub(super) fn examine(kind: Kind, body: &[u8], known: &Conflicts, references: References) -> Examined {
    match read(kind, body) {
        Err(answer) => Examined::Answered(answer),
        Ok(_) if !known.is_complete() => Examined::Answered(not_ready()),
        Ok(write) => judged(kind, write, known, references),
    }
}

/// A write that is to be judged.
struct Write {
    uid: String,
    object: RawObject,
    before: Option<RawObject>,
    dry_run: bool,
}

fn judged(kind: Kind, write: Write, known: &Conflicts, references: References) -> Examined {
    let Write { uid, object, before, dry_run } = write;
    let verdict = judge(known, &object, before.as_ref(), references);
    let claims = match verdict.refusals.is_empty() {
        true => contested(known, &object, before.as_ref()),
        false => Vec::new(),
    };
    if claims.is_empty() {
        return Examined::Answered(told(&uid, kind, &object.key.name, &verdict));
    }
    let mut key = object.key;
    if key.name.is_empty() {
        // It has no name yet, and is another object than the next one without.
        key = ObjectKey::new(key.namespace, format!("({uid})"));
    }
    let question = AdmissionQuestion { kind, key, claims, reserve: !dry_run, stand_in: false };
    Examined::Contested(Box::new(Contested { uid, verdict, question }))
}

fn not_ready() -> Answer {
    let message = "not all kinds are listed yet; ask again, or another replica";
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Reads a review; what needs no judgement is answered.
fn read(kind: Kind, body: &[u8]) -> Result<Write, Answer> {
    let review: Review<'_> = match serde_json::from_slice(body) {
        Ok(review) => review,
        Err(error) => return Err(malformed(format!("the body is no AdmissionReview: {error}"))),
    };
    if (&*review.api_version, &*review.kind) != ("admission.k8s.io/v1", "AdmissionReview") {
        return Err(malformed(format!(
            "the body is {:?} of {:?}, not an AdmissionReview of admission.k8s.io/v1",
            review.kind, review.api_version
        )));
    }
    let Some(request) = review.request else { return Err(malformed("the review has no request")) };
    let GroupVersionKind { group, version, kind: named } = &request.kind;
    if (group.as_str(), version.as_str(), named.as_str()) != ("avapigw.io", "v1alpha1", kind.name()) {
        return Err(malformed(format!(
            "this path is for {kind} of avapigw.io/v1alpha1, not for {named} of {group}/{version}"
        )));
    }
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        // Nobody is kept from deleting.
        return Err(told(&request.uid, kind, "", &Verdict::default()));
    }
    let read = |raw: Option<&RawValue>| raw.map(|raw| object(kind, raw)).transpose();
    let (object, before) = match (read(request.object), read(request.old_object)) {
        (Ok(Some(object)), Ok(before)) => (object, before),
        (Ok(None), _) => return Err(malformed("the review has no object")),
        (Err(error), _) | (_, Err(error)) => {
            return Err(malformed(format!("the object cannot be read: {error}")));
        }
    };
    Ok(Write { uid: request.uid, object, before, dry_run: request.dry_run == Some(true) })
}

fn malformed(message: impl Into<String>) -> Answer {
    Answer::error(StatusCode::BAD_REQUEST, message)
}

fn object(kind: Kind, raw: &RawValue) -> Result<RawObject, serde_json::Error> {
    let Object { metadata, spec } = serde_json::from_str(raw.get())?;
    Ok(RawObject {
        kind,
        key: ObjectKey::new(metadata.namespace, metadata.name),
        uid: metadata.uid.map_or_else(|| Arc::from(""), Arc::from),
        revision: Revision(0),
        generation: metadata.generation.unwrap_or_default(),
        created: metadata.creation_timestamp.map_or_else(|| Arc::from(""), Arc::from),
        deleting: metadata.deletion_timestamp.is_some(),
        spec: spec.map_or(Bytes::from_static(b"{}"), |spec| Bytes::copy_from_slice(spec.get().as_bytes())),
        status: Bytes::new(),
    })
}

/// The verdict in the words of the API. The code is that of the published
/// operator's refusals: with 422, kubectl leaves out who refused.
fn told(uid: &str, kind: Kind, name: &str, verdict: &Verdict) -> Answer {
    let allowed = verdict.refusals.is_empty();
    let mut response = json!({"uid": uid, "allowed": allowed});
    if !verdict.warnings.is_empty() {
        response["warnings"] = json!(verdict.warnings);
    }
    if !allowed {
        let words: Vec<String> = verdict
            .refusals
            .iter()
            .map(|refusal| format!("{}: {}", refusal.field, refusal.problem))
            .collect();
        let cause = |refusal: &Refusal| {
            let reason = if refusal.duplicate { "FieldValueDuplicate" } else { "FieldValueInvalid" };
            json!({"reason": reason, "message": refusal.problem, "field": refusal.field})
        };
        response["status"] = json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("validation failed: {}", words.join("; ")),
            "reason": "Forbidden",
            "code": 403,
            "details": {
                "name": name,
                "group": "avapigw.io",
                "kind": kind.name(),
                "causes": verdict.refusals.iter().map(cause).collect::<Vec<_>>(),
            },
        });
    }
    Answer {
        outcome: if allowed { Outcome::Admitted } else { Outcome::Refused },
        status: StatusCode::OK,
        body: json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    }
}
