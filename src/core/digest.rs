//! One number for a whole configuration: equal on the store of any replica and
//! on any gateway exactly when they hold the same resources, byte for byte.
//!
//! SHA-256 over the resources sorted by (kind, namespace, name); for each: the
//! kind's letter, 0x00, `namespace/name`, 0x00, the spec's length as 8 bytes
//! big-endian, the spec's bytes. Generation, uid and revision are left out:
//! two replicas may know an object by different revisions and still hold the
//! same configuration.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use crate::ids::{Kind, ObjectKey};
use crate::object::Resource;

/// The digest of resources in any order, as 64 lower-case hex digits.
pub fn digest<'a>(resources: impl IntoIterator<Item = &'a Resource>) -> String {
    digest_of(
        resources.into_iter().map(|resource| (resource.kind, &resource.key, resource.spec_json.as_ref())),
    )
}

/// The same for those who keep only key and spec, as gateways do.
pub fn digest_of<'a>(entries: impl IntoIterator<Item = (Kind, &'a ObjectKey, &'a [u8])>) -> String {
    let mut sorted: Vec<_> = entries.into_iter().collect();
    // Snapshots are in order but for a few runs, which this sort makes use of.
    sorted.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut hasher = Sha256::new();
    for (kind, key, spec) in sorted {
        hasher.update([kind.letter() as u8, 0]);
        hasher.update(key.namespace.as_bytes());
        hasher.update(b"/");
        hasher.update(key.name.as_bytes());
        hasher.update([0]);
        hasher.update((spec.len() as u64).to_be_bytes());
        hasher.update(spec);
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey::new(namespace, name)
    }

    #[test]
    fn order_of_arrival_does_not_matter_and_content_does() {
        let (a, b) = (key("a", "x"), key("a-b", "x"));
        let one = digest_of([(Kind::Backend, &a, b"{}".as_slice()), (Kind::ApiRoute, &b, b"{}")]);
        let two = digest_of([(Kind::ApiRoute, &b, b"{}".as_slice()), (Kind::Backend, &a, b"{}")]);
        assert_eq!(one, two);
        let other = digest_of([(Kind::ApiRoute, &b, b"{ }".as_slice()), (Kind::Backend, &a, b"{}")]);
        assert_ne!(one, other);
    }

    #[test]
    fn the_form_is_fixed() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest_of([]), nothing);
        // printf 'b\0n/x\0\0\0\0\0\0\0\0\2{}' | sha256sum
        let expected = "d162d0511c4cc01c989a14e000bbaf442dd5d09c6570da0e595134c35dcac5be";
        assert_eq!(digest_of([(Kind::Backend, &key("n", "x"), b"{}".as_slice())]), expected);
    }
}
