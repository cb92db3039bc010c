//! The hosts that a route names, with their place in the spec's bytes, so that
//! one can be replaced without writing the rest anew.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use super::field::{FieldError, Path};
use super::shape::{Destination, Route, Text};

/// One `destination.host` of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationHost<'a> {
    /// The bytes of the JSON string, its quotes included: replacing them by
    /// another JSON string changes this value and nothing else.
    pub range: Range<usize>,
    /// The decoded host.
    pub host: Cow<'a, str>,
    /// The port, if the spec names one.
    pub port: Option<u16>,
}

/// The destinations of a decoded route, in the order in which they stand in `spec`.
pub(super) fn of<'a, M>(
    route: &Route<'a, M>,
    spec: &'a [u8],
) -> Result<Vec<DestinationHost<'a>>, FieldError> {
    let mut found = Vec::new();
    let (routes, mirror) = (Path::Spec.field("route"), Path::Spec.field("mirror"));
    for (index, entry) in route.route.iter().flatten().enumerate() {
        let at = routes.item(index);
        found.extend(one(entry.destination.as_ref(), spec, &at.field("destination"))?);
    }
    let mirrored = route.mirror.as_ref().and_then(|mirror| mirror.destination.as_ref());
    found.extend(one(mirrored, spec, &mirror.field("destination"))?);
    found.sort_by_key(|destination| destination.range.start);
    Ok(found)
}

fn one<'a>(
    destination: Option<&Destination<'a>>,
    spec: &'a [u8],
    at: &Path<'_>,
) -> Result<Option<DestinationHost<'a>>, FieldError> {
    let Some((destination, raw)) = destination.and_then(|d| Some((d, d.host?))) else { return Ok(None) };
    let host = decoded(raw, at)?;
    // The raw value borrows from `spec`, so the distance between the two
    // addresses is its offset.
    let start = raw.get().as_ptr() as usize - spec.as_ptr() as usize;
    let range = start..start + raw.get().len();
    debug_assert_eq!(spec.get(range.clone()), Some(raw.get().as_bytes()));
    Ok(Some(DestinationHost {
        range,
        host,
        port: destination.port.and_then(|port| u16::try_from(port).ok()),
    }))
}

/// The host as a string.
pub(super) fn decoded<'a>(raw: &'a RawValue, destination: &Path<'_>) -> Result<Cow<'a, str>, FieldError> {
    // Hardly any has escapes, and what is read as a value already is well-formed.
    let inner = raw.get().strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    if let Some(plain) = inner.filter(|text| !text.contains('\\')) {
        return Ok(Cow::Borrowed(plain));
    }
    serde_json::from_str::<Text<'a>>(raw.get()).map(|text| text.0).map_err(|_| {
        destination
            .field("host")
            .error("is not a string", "name a Backend of this namespace or a network host")
    })
}
