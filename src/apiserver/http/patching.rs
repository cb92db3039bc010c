//! Which patch a request carries, and applying it.

use http::HeaderMap;
use serde_json::Value;

use super::negotiate::{content_type, parse_yaml};
use crate::patch::{self, PatchError};
use crate::registry::Resource;
use crate::status::ApiError;

/// A patch, read and not yet applied.
#[derive(Debug)]
pub(super) enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply, which is no function of the object alone: see [`crate::apply`].
    Apply(Value),
}

impl Patch {
    /// Reads the patch of a request.
    pub fn read(headers: &HeaderMap, resource: &Resource, body: &[u8]) -> Result<Self, ApiError> {
        let parse = || -> Result<Value, ApiError> {
            serde_json::from_slice(body)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))
        };
        let accepted = if resource.builtin.is_some() {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        };
        match content_type(headers) {
            "application/json-patch+json" => Ok(Self::Json(parse()?)),
            "application/merge-patch+json" => Ok(Self::Merge(parse()?)),
            "application/strategic-merge-patch+json" if resource.builtin.is_some() => {
                Ok(Self::Strategic(parse()?))
            }
            // JSON is YAML, too.
            "application/apply-patch+yaml" => parse_yaml(body).map(Self::Apply),
            _ => Err(ApiError::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: {accepted}"
            ))),
        }
    }

    /// The object after the patch.
    pub fn apply(&self, resource: &Resource, current: &Value) -> Result<Value, ApiError> {
        let patched = match self {
            Self::Json(patch) => patch::json_patch(current, patch),
            Self::Merge(patch) if !patch.is_object() => {
                return Err(ApiError::bad_request("error decoding patch: a merge patch must be an object"));
            }
            Self::Merge(patch) => Ok(patch::merge_patch(current, patch)),
            Self::Strategic(patch) => patch::strategic_merge(&resource.kind, current, patch),
            Self::Apply(config) => Ok(config.clone()),
        };
        patched.map_err(refused)
    }
}

fn refused(error: PatchError) -> ApiError {
    let reason = match error {
        PatchError::Malformed(_) => "BadRequest",
        PatchError::Rejected(_) => "Invalid",
        PatchError::TooLarge(_) => "RequestEntityTooLarge",
    };
    let text = match &error {
        // What failed is in nobody's text: clients know these words.
        PatchError::Rejected(_) => {
            "the server rejected our request due to an error in our request".to_owned()
        }
        other => other.to_string(),
    };
    let mut answer = ApiError::new(error.code(), reason, text);
    answer.details = (reason == "Invalid").then(serde_json::Map::new);
    answer
}
