//! Which form of an answer a client wants, and in which form it sends.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::Value;

use super::protobuf;
use crate::status::ApiError;

/// How objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// As they are.
    Object,
    /// As a `Table` of group meta.k8s.io/v1.
    Table,
    /// As `PartialObjectMetadata` of group meta.k8s.io/v1.
    Metadata,
}

/// One media range of an Accept header.
struct Range<'a> {
    kind: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Range<'a> {
    fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

fn accepted(headers: &HeaderMap) -> impl Iterator<Item = Range<'_>> {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        Range { kind, parameters: parts.filter_map(|part| part.split_once('=')).collect() }
    })
}

/// The first form that the client asks for and we have.
pub(crate) fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let mut asked = false;
    for range in accepted(headers) {
        asked = true;
        if !matches!(range.kind, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let group = (range.parameter("g"), range.parameter("v"));
        match (range.parameter("as"), group) {
            ("", _) => return Ok(Format::Object),
            ("Table", ("meta.k8s.io", "v1")) => return Ok(Format::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", ("meta.k8s.io", "v1")) => {
                return Ok(Format::Metadata);
            }
            _ => {}
        }
    }
    if asked { Err(not_acceptable()) } else { Ok(Format::Object) }
}

/// Which version of the aggregated discovery the client prefers to the plain one, if any.
pub(crate) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    for range in accepted(headers).filter(|range| range.kind == "application/json") {
        if range.parameter("as") == "APIGroupDiscoveryList" && range.parameter("g") == "apidiscovery.k8s.io" {
            match range.parameter("v") {
                "v2" => return Some("v2"),
                "v2beta1" => return Some("v2beta1"),
                _ => {}
            }
        } else if range.parameters.is_empty() {
            return None;
        }
    }
    None
}

/// Whether the old OpenAPI document is wanted as protobuf. The media type has had two spellings.
pub(crate) fn wants_openapi_protobuf(headers: &HeaderMap) -> bool {
    accepted(headers).next().is_some_and(|range| {
        range.kind.starts_with("application/com.github.proto-openapi.spec.v2")
            && range.kind.ends_with("+protobuf")
    })
}

fn not_acceptable() -> ApiError {
    let only = "only the following media types are accepted: application/json";
    ApiError::new(406, "NotAcceptable", only)
}

/// The media type of the body, without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Reads a body that holds one object, as JSON or YAML.
pub(crate) fn parse_body(headers: &HeaderMap, body: &[u8]) -> Result<Value, ApiError> {
    match content_type(headers) {
        "application/yaml" | "text/yaml" => parse_yaml(body),
        "application/vnd.kubernetes.protobuf" => protobuf::parse(body),
        "" | "application/json" | "*/*" => serde_json::from_slice(body).map_err(|error| {
            ApiError::bad_request(format!("couldn't get version/kind; json parse error: {error}"))
        }),
        _ => Err(ApiError::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

pub(crate) fn parse_yaml(body: &[u8]) -> Result<Value, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("the body is not UTF-8"))?;
    serde_saphyr::from_str(text).map_err(|error| {
        // Only the first line: the rest is a picture of the document.
        let error = error.to_string();
        let first = error.lines().next().unwrap_or_default().to_owned();
        ApiError::bad_request(format!("error converting YAML to JSON: {first}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn the_first_known_form_wins() {
        let check = |accept: &str, expected: Option<Format>| {
            assert_eq!(format(&headers(accept)).ok(), expected, "{accept}");
        };
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(Format::Table));
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some(Format::Object));
        check("application/vnd.kubernetes.protobuf, */*", Some(Format::Object));
        check("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(Format::Metadata));
        check("application/vnd.kubernetes.protobuf", None);
        assert_eq!(format(&HeaderMap::new()), Ok(Format::Object));
    }

    #[test]
    fn discovery_is_aggregated_only_when_preferred() {
        let new = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(aggregated_discovery(&headers(new)), Some("v2"));
        assert_eq!(aggregated_discovery(&headers("application/json, */*")), None);
    }
}
