//! Reviews: questions about access that are asked by creating an object, and answered without keeping it.

use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{Body, json_value};
use super::negotiate::parse_body;
use super::route::Place;
use crate::auth::{Attributes, Identity};
use crate::state::State;
use crate::status::ApiError;
use crate::store::{text, texts};
use crate::verb::Verb;

/// What discovery shows of a review.
pub(super) struct Review {
    pub group: &'static str,
    pub resource: &'static str,
    pub kind: &'static str,
}

/// All reviews, in version v1 of their groups.
pub(super) const REVIEWS: [Review; 3] = [
    Review { group: "authentication.k8s.io", resource: "selfsubjectreviews", kind: "SelfSubjectReview" },
    Review {
        group: "authorization.k8s.io",
        resource: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
    },
    Review { group: "authorization.k8s.io", resource: "subjectaccessreviews", kind: "SubjectAccessReview" },
];

/// Whether a place is a review.
pub(super) fn is_review(place: &Place) -> bool {
    REVIEWS.iter().any(|review| {
        review.group == place.group && review.resource == place.resource && place.version == "v1"
    })
}

/// Answers a review.
pub(super) fn answer(
    state: &State,
    verb: Verb,
    place: &Place,
    who: &Identity,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Body>, ApiError> {
    if verb != Verb::Create {
        return Err(ApiError::no_method());
    }
    let mut review = parse_body(headers, body)?;
    if !review.is_object() {
        return Err(ApiError::bad_request("the object provided is unrecognized (must be of type Object)"));
    }
    let status = match place.resource.as_str() {
        "selfsubjectreviews" => json!({"userInfo": {"username": who.user, "groups": who.groups}}),
        "selfsubjectaccessreviews" => access(state, who, &review["spec"]),
        _ => {
            let spec = &review["spec"];
            let asked = Identity::new(text(spec, "/user"), texts(spec, "/groups"));
            access(state, &asked, spec)
        }
    };
    if let Some(known) = REVIEWS.iter().find(|known| known.resource == place.resource) {
        review["apiVersion"] = format!("{}/v1", known.group).into();
        review["kind"] = known.kind.into();
    }
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    review["status"] = status;
    Ok(json_value(StatusCode::CREATED, &review))
}

fn access(state: &State, who: &Identity, spec: &Value) -> Value {
    let asked = &spec["resourceAttributes"];
    let allowed = if asked.is_object() {
        let what = Attributes {
            verb: text(asked, "/verb"),
            group: text(asked, "/group"),
            resource: text(asked, "/resource"),
            subresource: text(asked, "/subresource"),
            namespace: text(asked, "/namespace"),
        };
        state.access.allows(who, &what)
    } else {
        // Paths outside resources are discovery, which everybody who is known may read.
        text(spec, "/nonResourceAttributes/verb") == "get"
    };
    json!({"allowed": allowed})
}
