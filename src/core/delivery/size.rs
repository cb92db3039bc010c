//! How large a message will be, from above.
//!
//! The limit is on the encoded protobuf message, which only the adapter makes.
//! These bounds are never below the encoded size: every field counts with its
//! largest tag and length prefix (2 + 5 bytes for one with a length, 12 for a
//! number, 26 for a timestamp), so a batch planned here always fits.

use crate::ids::{Kind, ObjectKey};
use crate::object::Resource;

/// Tag and length of a field with a length.
const PREFIX: u64 = 7;
/// Tag and value of a number.
const NUMBER: u64 = 12;
/// A timestamp field with two numbers inside.
const TIMESTAMP: u64 = PREFIX + 2 * NUMBER;
/// Room for a version string: at most 32 exclusions of 10 characters, two
/// frontiers of 4 numbers with 13 digits, and the rest.
pub(crate) const VERSION: u64 = 520;

/// An update without its resource or snapshot: type, version, timestamp,
/// sequence and the mark of the last.
pub(crate) const UPDATE: u64 = 3 * NUMBER + TIMESTAMP + PREFIX + VERSION;

/// A snapshot without its resources: version, timestamp, total, checksum.
pub(crate) const SNAPSHOT: u64 = 2 * PREFIX + VERSION + TIMESTAMP + NUMBER + PREFIX + 64;

/// One resource as a field of an update or a snapshot: its type, name,
/// namespace, revision, generation, uid, spec and creation time.
pub(crate) fn resource(resource: &Resource) -> u64 {
    entry(&resource.key)
        + PREFIX
        + 20
        + NUMBER
        + PREFIX
        + resource.uid.len() as u64
        + PREFIX
        + resource.spec_json.len() as u64
        + TIMESTAMP
}

/// A resource of which only kind and key are sent.
pub(crate) fn entry(key: &ObjectKey) -> u64 {
    3 * PREFIX + NUMBER + key.namespace.len() as u64 + key.name.len() as u64
}

/// An entry of padding in a snapshot.
pub(crate) fn padding((_, key): &(Kind, ObjectKey)) -> u64 {
    entry(key)
}
