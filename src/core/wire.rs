//! What is read of the API server's answers: metadata, and spec and status as
//! the bytes that arrived.

use std::borrow::Cow;
use std::sync::Arc;

use crate::ids::{Kind, ObjectKey, Revision};
use crate::object::RawObject;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why an answer could not be read. Nothing is skipped: a list with one
/// unreadable object must not look like a list without it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No JSON, or not of the expected shape.
    #[error("not a Kubernetes {expected}: {source}")]
    Shape {
        /// What was expected.
        expected: &'static str,
        /// Where and how it differs.
        source: serde_json::Error,
    },
    /// A resourceVersion that is no number (contract since Kubernetes 1.35).
    #[error("{object}: metadata.resourceVersion {value:?} is no number; this API server cannot be used")]
    Revision {
        /// The object or list.
        object: String,
        /// What it had.
        value: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(default)]
    generation: i64,
    #[serde(borrow, default)]
    creation_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    deletion_timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    finalizers: Option<Vec<Cow<'a, str>>>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta<'a> {
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
    #[serde(borrow, default, rename = "continue")]
    next: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    metadata: ListMeta<'a>,
    #[serde(borrow, default)]
    items: Vec<Object<'a>>,
}

#[derive(Deserialize)]
struct Event<'a, O> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    object: O,
}

#[derive(Deserialize)]
struct ErrorStatus<'a> {
    #[serde(default)]
    code: u16,
    #[serde(borrow, default)]
    message: Cow<'a, str>,
}

/// One page of a list.
pub struct Page {
    /// The list's resourceVersion.
    pub revision: Revision,
    /// Token for the next page, if there is one.
    pub next: Option<String>,
    /// The objects on this page.
    pub objects: Vec<RawObject>,
}

/// One line of a watch.
#[derive(Debug)]
pub enum Line {
    /// ADDED or MODIFIED.
    Changed(RawObject),
    /// DELETED; the object's revision is that of the deletion.
    Deleted(ObjectKey, Revision),
    /// BOOKMARK.
    Bookmark(Revision),
    /// ERROR with the HTTP code and the server's words.
    Error(u16, String),
}

/// Reads one page of a list.
///
/// # Errors
/// See [`WireError`].
pub fn parse_page(kind: Kind, body: &[u8]) -> Result<Page, WireError> {
    let list: List<'_> = decode(body).map_err(|source| WireError::Shape { expected: "list", source })?;
    let revision = revision(&list.metadata.resource_version, || format!("list of {}", kind.plural()))?;
    let objects = list.items.into_iter().map(|item| object(kind, item)).collect::<Result<_, _>>()?;
    let next = list.metadata.next.filter(|token| !token.is_empty()).map(Cow::into_owned);
    Ok(Page { revision, next, objects })
}

/// Reads one line of a watch.
///
/// # Errors
/// See [`WireError`].
pub fn parse_line(kind: Kind, line: &[u8]) -> Result<Line, WireError> {
    // Nearly every line is of an object, which is read with it; any other one anew.
    match decode::<Event<'_, Object<'_>>>(line) {
        Ok(event) if event.event_type != ERROR => line_of(kind, &event.event_type, event.object),
        _ => parse_any_line(kind, line),
    }
}

/// The type of an event that has no object but a Status.
const ERROR: &str = "ERROR";

fn parse_any_line(kind: Kind, line: &[u8]) -> Result<Line, WireError> {
    let shape = |expected| move |source| WireError::Shape { expected, source };
    let event: Event<'_, &RawValue> = serde_json::from_slice(line).map_err(shape("watch event"))?;
    let body = event.object.get();
    if event.event_type == ERROR {
        let status: ErrorStatus<'_> = serde_json::from_str(body).map_err(shape("Status"))?;
        return Ok(Line::Error(status.code, status.message.into_owned()));
    }
    line_of(kind, &event.event_type, serde_json::from_str(body).map_err(shape("object"))?)
}

fn line_of(kind: Kind, event_type: &str, item: Object<'_>) -> Result<Line, WireError> {
    if event_type == "BOOKMARK" {
        let at = revision(&item.metadata.resource_version, || format!("bookmark of {}", kind.plural()))?;
        return Ok(Line::Bookmark(at));
    }
    let object = object(kind, item)?;
    Ok(match event_type {
        "DELETED" => Line::Deleted(object.key, object.revision),
        _ => Line::Changed(object),
    })
}

/// Decodes an answer. It is one text, and looked at once whether it is; where it is
/// not, that matters only if what is wrong is read.
fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    }
}

fn object(kind: Kind, item: Object<'_>) -> Result<RawObject, WireError> {
    let meta = item.metadata;
    let key = ObjectKey::new(meta.namespace.as_ref(), meta.name.as_ref());
    Ok(RawObject {
        kind,
        revision: revision(&meta.resource_version, || format!("{kind} {key}"))?,
        uid: Arc::from(meta.uid.as_ref()),
        generation: meta.generation,
        created: Arc::from(meta.creation_timestamp.as_deref().unwrap_or_default()),
        deleting: meta.deletion_timestamp.is_some(),
        held: meta.finalizers.unwrap_or_default().iter().any(|one| one == kind.finalizer()),
        // Copied, so that one object does not keep a whole page in memory.
        spec: raw_bytes(item.spec).map_or(Bytes::from_static(b"{}"), Bytes::copy_from_slice),
        status: raw_bytes(item.status).map_or_else(Bytes::new, Bytes::copy_from_slice),
        key,
    })
}

fn raw_bytes(raw: Option<&RawValue>) -> Option<&[u8]> {
    raw.map(RawValue::get).filter(|text| *text != "null").map(str::as_bytes)
}

fn revision(text: &str, object: impl FnOnce() -> String) -> Result<Revision, WireError> {
    text.parse().map(Revision).map_err(|_| WireError::Revision { object: object(), value: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: &str = r#"{"apiVersion":"avapigw.io/v1alpha1","kind":"Backend","metadata":{"name":"a\"b","namespace":"n",
        "uid":"u","resourceVersion":"17","generation":3,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"x":"y"}},
        "spec":{"hosts" : [ {"port":1.0} ],"unknown":{}},"status":{"conditions":[]}}"#;

    #[test]
    fn spec_and_status_are_the_bytes_that_arrived() {
        let line = format!(r#"{{"type":"ADDED","object":{OBJECT}}}"#);
        let Line::Changed(object) = parse_line(Kind::Backend, line.as_bytes()).unwrap() else { panic!() };
        assert_eq!(object.spec, r#"{"hosts" : [ {"port":1.0} ],"unknown":{}}"#.as_bytes());
        assert_eq!(object.status, r#"{"conditions":[]}"#.as_bytes());
        assert_eq!((object.key.name.as_ref(), object.revision, object.generation), ("a\"b", Revision(17), 3));
        assert!(!object.deleting);
    }

    #[test]
    fn only_the_finalizer_of_its_kind_holds_an_object() {
        let held = |finalizers: &str| {
            let with = format!(r#""finalizers":{finalizers},"labels""#);
            let line = format!(r#"{{"type":"ADDED","object":{}}}"#, OBJECT.replace(r#""labels""#, &with));
            let Line::Changed(object) = parse_line(Kind::Backend, line.as_bytes()).unwrap() else { panic!() };
            object.held
        };
        assert!(held(r#"["a.b/c","backend.avapigw.io/finalizer"]"#));
        for others in ["null", "[]", r#"["apiroute.avapigw.io/finalizer","a.b/c"]"#] {
            assert!(!held(others), "{others}");
        }
    }

    #[test]
    fn deletions_and_bookmarks_carry_their_revision() {
        let deleted = format!(r#"{{"type":"DELETED","object":{OBJECT}}}"#);
        assert!(
            matches!(parse_line(Kind::Backend, deleted.as_bytes()), Ok(Line::Deleted(key, Revision(17))) if &*key.namespace == "n")
        );
        let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"Backend","metadata":{"resourceVersion":"99","creationTimestamp":null},"spec":null}}"#;
        assert!(matches!(parse_line(Kind::Backend, bookmark.as_bytes()), Ok(Line::Bookmark(Revision(99)))));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(
            matches!(parse_line(Kind::Backend, gone.as_bytes()), Ok(Line::Error(410, text)) if text == "too old")
        );
    }

    #[test]
    fn a_list_with_an_unreadable_object_is_refused_as_a_whole() {
        let good = format!(r#"{{"metadata":{{"resourceVersion":"20","continue":"t"}},"items":[{OBJECT}]}}"#);
        let page = parse_page(Kind::Backend, good.as_bytes()).unwrap();
        assert_eq!((page.revision, page.next.as_deref(), page.objects.len()), (Revision(20), Some("t"), 1));
        let bad = good.replace("\"17\"", "\"abc\"");
        let error = parse_page(Kind::Backend, bad.as_bytes()).err().unwrap().to_string();
        assert!(error.contains("Backend n/a\"b") && error.contains("abc"), "{error}");
    }
}
