//! Get and list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::body::json_bytes;
use super::filter::Filter;
use super::render::Form;
use super::{Body, Call};
use crate::schema::Cause;
use crate::state::State;
use crate::status::ApiError;
use crate::store::{Key, ListError, PageStart};

/// One object.
pub(super) fn get(state: &State, call: &Call) -> Result<Response<Body>, ApiError> {
    let form = Form::of(call)?;
    let key = Key::new(&*call.place.namespace, &*call.place.name);
    let object = match call.stale {
        None => state.read(|store| store.get(&call.resource.id, &key)),
        Some(revision) => state
            .read(|store| store.get_at(&call.resource.id, &key, revision))
            .map_err(|error| ApiError::from_list(error, false, revision))?,
    };
    let object = object.ok_or_else(|| ApiError::not_found(call.resource.named(), &key.name))?;
    Ok(json_bytes(StatusCode::OK, form.one(&call.resource, call.version, &object)))
}

/// Many objects.
pub(super) fn list(state: &State, call: &Call) -> Result<Response<Body>, ApiError> {
    let form = Form::of(call)?;
    let filter = Filter::of(call)?;
    let (mut start, asked) = page_start(call)?;
    if let Some(stale) = call.stale {
        start.revision = start.revision.or(Some(stale));
    }
    let continued = start.after.is_some();
    let page = state.read(|store| {
        if let Some(asked) = asked.filter(|asked| *asked > store.revision()) {
            return Err((ListError::TooLarge { current: store.revision() }, asked));
        }
        let accept = |object: &_| filter.fields_match(&call.resource, object);
        let page = store.list(&call.resource.id, &filter.scope, &start, accept);
        page.map_err(|error| (error, start.revision.unwrap_or_default()))
    });
    let page = page.map_err(|(error, asked)| ApiError::from_list(error, continued, asked))?;
    let mut metadata = json!({"resourceVersion": page.revision.to_string()});
    if call.resource.builtin.is_none() {
        // Lists of custom resources carry the field even when it is empty, and clients have to cope with that.
        metadata["continue"] = "".into();
    }
    if let Some(last) = page.objects.last().filter(|_| page.more) {
        metadata["continue"] = continue_token(page.revision, &last.key).into();
        if let Some(remaining) = page.remaining.filter(|_| !filter.selects()) {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    Ok(json_bytes(StatusCode::OK, form.list(&call.resource, call.version, &page.objects, metadata)))
}

/// Where the page begins, and the revision that must have been reached.
fn page_start(call: &Call) -> Result<(PageStart, Option<u64>), ApiError> {
    let limit = match call.query.get("limit") {
        "" | "0" => None,
        text => Some(text.parse().map_err(|_| ApiError::bad_request(format!("invalid limit: {text}")))?),
    };
    let token = call.query.get("continue");
    let asked = match call.query.get("resourceVersion") {
        "" | "0" => None,
        text => Some(parse_revision(text)?),
    };
    if !token.is_empty() {
        if asked.is_some() {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let (revision, after) =
            read_token(token).ok_or_else(|| ApiError::bad_request("continue key is not valid"))?;
        return Ok((PageStart { revision: Some(revision), after: Some(after), limit }, None));
    }
    match (call.query.get("resourceVersionMatch"), asked) {
        ("Exact", Some(revision)) => Ok((PageStart { revision: Some(revision), after: None, limit }, None)),
        ("" | "NotOlderThan", asked) => Ok((PageStart { revision: None, after: None, limit }, asked)),
        ("Exact", None) => {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            Err(ApiError::invalid_option("ListOptions", Cause::forbidden("resourceVersionMatch", why)))
        }
        (other, _) => {
            let known = ["Exact", "NotOlderThan", ""];
            let cause = Cause::not_supported("resourceVersionMatch", &other.into(), &known);
            Err(ApiError::invalid_option("ListOptions", cause))
        }
    }
}

/// Reads a revision from a query.
pub(super) fn parse_revision(text: &str) -> Result<u64, ApiError> {
    text.parse().map_err(|_| {
        ApiError::bad_request(format!(
            "resourceVersion: Invalid value: \"{text}\": must be an unsigned integer"
        ))
    })
}

fn continue_token(revision: u64, last: &Key) -> String {
    URL_SAFE_NO_PAD
        .encode(json!({"v": 1, "rv": revision, "ns": last.namespace, "name": last.name}).to_string())
}

fn read_token(token: &str) -> Option<(u64, Key)> {
    let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    Some((value["rv"].as_u64()?, Key::new(value["ns"].as_str()?, value["name"].as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_carry_revision_and_key() {
        let key = Key::new("n", "a\"b");
        assert_eq!(read_token(&continue_token(7, &key)), Some((7, key)));
        assert_eq!(read_token("bogus"), None);
    }
}
