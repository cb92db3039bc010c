//! One HTTP request: what must be right before its body is read, and how much of
//! it is read.
//!
//! Whoever reaches the port may send anything, so a body is bounded in bytes and
//! in time, all bodies together are bounded in bytes, and every request that
//! cannot be answered gets a `Status` that says why.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use flotilla_avapigw::kind_of_path;
use flotilla_grpc::peers::AdmissionAnswer;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::sync::Semaphore;

use super::Webhooks;
use super::decide::Decider;
use super::metrics::Checked;
use super::review::{self, About, Answer, Examined};
use super::server::Limits;

/// Where reviews go; the kind in lower case follows.
const PATH: &str = "/validate-avapigw-io-v1alpha1-";

/// Where reviews of Ingresses go. It is there also where Ingresses are not served: an
/// API server that still asks must not be kept from writing others' Ingresses.
const INGRESS_PATH: &str = "/validate-networking-k8s-io-v1-ingress";

impl Webhooks {
    /// Answers a request.
    pub(super) async fn respond<B>(
        &self,
        request: Request<B>,
        limits: Limits,
        room: &Arc<Semaphore>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let begun = Instant::now();
        let answer = match tokio::time::timeout(limits.request, self.answer(request, limits, room)).await {
            Ok(Ok(answer) | Err(answer)) => answer,
            Err(_) => Answer::error(
                StatusCode::REQUEST_TIMEOUT,
                format!("the request did not arrive within {:?}", limits.request),
            ),
        };
        self.metrics.answered(&answer, begun.elapsed());
        let mut response = Response::new(Full::from(answer.body.to_string()));
        *response.status_mut() = answer.status;
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if answer.status != StatusCode::OK {
            // Of what was not read nobody waits for the rest.
            response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        }
        response
    }

    async fn answer<B>(
        &self,
        request: Request<B>,
        limits: Limits,
        room: &Arc<Semaphore>,
    ) -> Result<Answer, Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let about = check_head(&request)?;
        let announced = length(&request);
        let too_large = || {
            let message = format!("the body is larger than {} bytes", limits.body);
            Answer::error(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if announced.is_some_and(|length| length > limits.body) {
            return Err(too_large());
        }
        let kibibytes = announced.unwrap_or(limits.body).div_ceil(1024);
        let cluster_wide = self.known.is_cluster_wide();
        let read = room
            .clone()
            .acquire_many_owned(u32::try_from(kibibytes).unwrap_or(u32::MAX))
            .await
            .map_err(|_| Answer::error(StatusCode::SERVICE_UNAVAILABLE, "this replica is ending"))?;
        let body = Limited::new(request.into_body(), limits.body).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return too_large();
            }
            Answer::error(StatusCode::BAD_REQUEST, format!("the body did not arrive: {error}"))
        })?;
        let body = body.to_bytes();
        let (known, rules) = (self.known.clone(), self.rules.clone());
        // A large object with many expressions takes its time, which others must
        // not wait for.
        let examined = tokio::task::spawn_blocking(move || {
            let examined = known.ask(|shown| review::examine(about, &body, shown, &rules));
            // Also when nobody waits for the answer any more: until now the body was there.
            drop(read);
            examined
        });
        let internal = |error: tokio::task::JoinError| {
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        };
        let examined = examined.await.map_err(internal)?;
        Ok(match examined {
            Examined::Answered(answer) => {
                if let Some(told) = answer.told.filter(|told| told.duplicate) {
                    self.metrics.checked(told.asked.about, cluster_wide, Checked::Conflict);
                }
                answer
            }
            Examined::Contested(contested) => {
                // One after the other, in an order that is the same for all objects: of two
                // that want the same things, both would otherwise get some and neither all.
                let deadline = Decider::deadline();
                let mut answers = Vec::new();
                for question in &contested.questions {
                    let answer = self.decider.ask(question.clone(), deadline).await;
                    let refused = matches!(answer, AdmissionAnswer::Taken(_));
                    answers.push(answer);
                    if refused {
                        break;
                    }
                }
                let about = contested.asked.about;
                let answer = contested.decided(&answers);
                let checked = match answer.told {
                    Some(told) if told.duplicate => Checked::Conflict,
                    Some(_) => Checked::Free,
                    None => Checked::Undecided,
                };
                self.metrics.checked(about, cluster_wide, checked);
                answer
            }
        })
    }
}

fn check_head<B>(request: &Request<B>) -> Result<About, Answer> {
    let path = request.uri().path();
    let object = || path.strip_prefix(PATH).and_then(kind_of_path).map(About::Object);
    let Some(about) = (path == INGRESS_PATH).then_some(About::Ingress).or_else(object) else {
        return Err(Answer::error(
            StatusCode::NOT_FOUND,
            format!(
                "nothing is at {path:.100}; reviews go to {PATH}apiroute, -grpcroute, -backend, -grpcbackend \
                 and to {INGRESS_PATH}"
            ),
        ));
    };
    if request.method() != Method::POST {
        return Err(Answer::error(StatusCode::METHOD_NOT_ALLOWED, "reviews are posted"));
    }
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Answer::error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!("the content type is {essence:.100?}; send application/json"),
        ));
    }
    Ok(about)
}

/// The length that the request announces; `None` when it comes in chunks.
fn length<B>(request: &Request<B>) -> Option<usize> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
