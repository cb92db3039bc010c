//! One AdmissionReview: bytes in, bytes out. Pure.
//!
//! `kube` has types for it, which read an object into a tree; validators here
//! want the spec as the bytes that arrived, as everywhere else, so that admission
//! and delivery judge exactly the same. Source of the format:
//! `admission.k8s.io/v1`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use flotilla_api::ingress::{GROUP as NETWORKING, IngressSpec};
use flotilla_avapigw::{
    Class, Ingress, References, Refusal, Verdict, contested, judge, judge_ingress, refuse,
};
use flotilla_core::claims::Claim;
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_grpc::peers::{AdmissionAnswer, AdmissionQuestion};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Shown;

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
    /// `None`: nothing was said about an object.
    pub told: Option<Told>,
}

/// What was said about which object, to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub asked: Asked,
    pub warnings: usize,
    /// Whether another object was in the way.
    pub duplicate: bool,
}

/// What a review asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub about: About,
    pub operation: Operation,
}

/// What is to be done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Create,
    Update,
    Delete,
    /// What nobody asks to be told of.
    Other,
}

impl Operation {
    fn of(name: &str) -> Self {
        match name {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            "DELETE" => Operation::Delete,
            _ => Operation::Other,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Other => "OTHER",
        }
    }
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
        Answer { outcome, status, body, told: None }
    }
}

/// What a review is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// An object of a kind of ours.
    Object(Kind),
    /// An Ingress.
    Ingress,
}

impl About {
    /// Every kind that reviews are about.
    pub fn all() -> impl Iterator<Item = About> {
        Kind::ALL.into_iter().map(About::Object).chain([About::Ingress])
    }

    /// The kind.
    pub const fn kind(self) -> &'static str {
        self.of().2
    }

    /// Group, version and kind.
    const fn of(self) -> (&'static str, &'static str, &'static str) {
        match self {
            About::Object(kind) => ("avapigw.io", "v1alpha1", kind.name()),
            About::Ingress => (NETWORKING, "v1", "Ingress"),
        }
    }
}

/// By what objects are judged.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// What becomes of destinations that nobody knows.
    pub references: References,
    /// The class of Ingresses that are ours; `None`: none are.
    pub class: Option<Class>,
}

/// Questions to others about one review; of an Ingress with more routes the rest is judged
/// by what is known, and what comes of that is settled by age.
const QUESTIONS: usize = 64;

/// What one replica can say about a review.
#[derive(Debug)]
pub(super) enum Examined {
    /// Everything.
    Answered(Answer),
    /// Nothing speaks against the object; whether others want the same at this
    /// moment, another replica knows.
    Contested(Box<Contested>),
}

/// A review that waits for decisions.
#[derive(Debug)]
pub(super) struct Contested {
    uid: String,
    pub asked: Asked,
    name: Arc<str>,
    verdict: Verdict,
    /// One for each object that claims something.
    pub questions: Vec<AdmissionQuestion>,
}

impl Contested {
    /// The answer to the review once everything is decided, in the order of the
    /// questions.
    pub fn decided(mut self, answers: &[AdmissionAnswer]) -> Answer {
        for (AdmissionQuestion { kind, claims, .. }, answer) in self.questions.iter().zip(answers) {
            match answer {
                AdmissionAnswer::Free => {}
                AdmissionAnswer::Taken(taken) => {
                    self.verdict.refusals.extend(refuse(*kind, claims, taken).refusals);
                }
                AdmissionAnswer::AskAnother(_) | AdmissionAnswer::NotReady => return not_ready(),
            }
        }
        told(&self.uid, self.asked, &self.name, &self.verdict)
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

/// Examines a review.
pub(super) fn examine(about: About, body: &[u8], shown: &Shown, rules: &Rules) -> Examined {
    let examined = match about {
        About::Object(kind) => examine_object(kind, body, shown, rules),
        About::Ingress => examine_ingress(body, shown, rules),
    };
    examined.unwrap_or_else(Examined::Answered)
}

fn examine_object(kind: Kind, body: &[u8], shown: &Shown, rules: &Rules) -> Result<Examined, Answer> {
    let Shown { conflicts: known, services } = shown;
    let write = read(About::Object(kind), body)?;
    let (object, before) = write.objects(|raw| object(kind, raw))?;
    if !known.is_complete() {
        return Err(not_ready());
    }
    let verdict = judge(known, services, &object, before.as_ref(), rules.references);
    let claims = match verdict.refusals.is_empty() {
        true => contested(known, &object, before.as_ref()),
        false => Vec::new(),
    };
    let name = object.key.name.clone();
    let claims = if claims.is_empty() { Vec::new() } else { vec![(kind, object.key, claims)] };
    Ok(write.contested(name, verdict, claims))
}

fn examine_ingress(body: &[u8], shown: &Shown, rules: &Rules) -> Result<Examined, Answer> {
    let Shown { conflicts: known, services } = shown;
    let write = read(About::Ingress, body)?;
    let (new, before) = write.objects(ingress)?;
    let Some(class) = rules.class.as_ref().filter(|class| class.has(&new.ingress) && !new.deleting) else {
        // Somebody else's, whom nothing here may keep waiting.
        return Err(told(&write.uid, write.asked, &new.ingress.key.name, &Verdict::default()));
    };
    if !known.is_complete() {
        return Err(not_ready());
    }
    let before = before.map(|before| before.ingress).filter(|before| class.has(before));
    let (verdict, claims) =
        judge_ingress(known, services, &new.ingress, before.as_ref(), &new.created, rules.references);
    Ok(write.contested(new.ingress.key.name, verdict, claims))
}

/// A write that is to be judged.
struct Write<'a> {
    uid: String,
    asked: Asked,
    object: &'a RawValue,
    before: Option<&'a RawValue>,
    dry_run: bool,
}

impl Write<'_> {
    /// The object as it would be, and as it was.
    fn objects<T>(
        &self,
        read: impl Fn(&RawValue) -> Result<T, serde_json::Error>,
    ) -> Result<(T, Option<T>), Answer> {
        let both = read(self.object).and_then(|object| Ok((object, self.before.map(&read).transpose()?)));
        both.map_err(|error| malformed(format!("the object cannot be read: {error}")))
    }

    fn contested(
        self,
        name: Arc<str>,
        verdict: Verdict,
        claims: Vec<(Kind, ObjectKey, Vec<Claim>)>,
    ) -> Examined {
        if claims.is_empty() {
            return Examined::Answered(told(&self.uid, self.asked, &name, &verdict));
        }
        let question = |(kind, mut key, claims): (Kind, ObjectKey, Vec<Claim>)| {
            if key.name.is_empty() {
                // It has no name yet, and is another object than the next one without.
                key = ObjectKey::new(key.namespace, format!("({})", self.uid));
            }
            AdmissionQuestion { kind, key, claims, reserve: !self.dry_run, stand_in: false }
        };
        let questions = claims.into_iter().take(QUESTIONS).map(question).collect();
        Examined::Contested(Box::new(Contested {
            uid: self.uid,
            asked: self.asked,
            name,
            verdict,
            questions,
        }))
    }
}

fn not_ready() -> Answer {
    let message = "not all kinds are listed yet; ask again, or another replica";
    Answer::error(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// Reads a review; what needs no judgement is answered.
fn read(about: About, body: &[u8]) -> Result<Write<'_>, Answer> {
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
    let GroupVersionKind { group, version, kind } = &request.kind;
    let (our_group, our_version, our_kind) = about.of();
    if (group.as_str(), version.as_str(), kind.as_str()) != about.of() {
        return Err(malformed(format!(
            "this path is for {our_kind} of {our_group}/{our_version}, not for {kind} of {group}/{version}"
        )));
    }
    let asked = Asked { about, operation: Operation::of(&request.operation) };
    if !matches!(asked.operation, Operation::Create | Operation::Update) {
        // Nobody is kept from deleting.
        return Err(told(&request.uid, asked, "", &Verdict::default()));
    }
    let Some(object) = request.object else { return Err(malformed("the review has no object")) };
    let dry_run = request.dry_run == Some(true);
    Ok(Write { uid: request.uid, asked, object, before: request.old_object, dry_run })
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
        held: false,
        spec: spec.map_or(Bytes::from_static(b"{}"), |spec| Bytes::copy_from_slice(spec.get().as_bytes())),
        status: Bytes::new(),
    })
}

/// An Ingress of a review.
struct Reviewed {
    ingress: Ingress,
    created: Arc<str>,
    deleting: bool,
}

#[derive(Deserialize)]
struct RawIngress {
    metadata: IngressMetadata,
    #[serde(default)]
    spec: IngressSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IngressMetadata {
    #[serde(default)]
    name: String,
    namespace: String,
    annotations: Option<BTreeMap<String, String>>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
}

fn ingress(raw: &RawValue) -> Result<Reviewed, serde_json::Error> {
    let RawIngress { metadata, spec } = serde_json::from_str(raw.get())?;
    Ok(Reviewed {
        ingress: Ingress {
            key: ObjectKey::new(metadata.namespace, metadata.name),
            annotations: metadata.annotations.unwrap_or_default(),
            spec,
        },
        created: metadata.creation_timestamp.map_or_else(Arc::default, Arc::from),
        deleting: metadata.deletion_timestamp.is_some(),
    })
}

/// The verdict in the words of the API. The code is that of the published
/// operator's refusals: with 422, kubectl leaves out who refused.
fn told(uid: &str, asked: Asked, name: &str, verdict: &Verdict) -> Answer {
    let (group, _, kind) = asked.about.of();
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
                "group": group,
                "kind": kind,
                "causes": verdict.refusals.iter().map(cause).collect::<Vec<_>>(),
            },
        });
    }
    Answer {
        outcome: if allowed { Outcome::Admitted } else { Outcome::Refused },
        status: StatusCode::OK,
        body: json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
        told: Some(Told {
            asked,
            warnings: verdict.warnings.len(),
            duplicate: verdict.refusals.iter().any(|refusal| refusal.duplicate),
        }),
    }
}
