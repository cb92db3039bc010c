//! One number for a whole configuration: equal on the store of any replica and
//! on any gateway exactly when they hold the same resources, byte for byte.
//!
//! SHA-256 over the resources sorted by (kind, namespace, name); for each: the
//! kind's letter, 0x00, `namespace/name`, 0x00, the spec's length as 8 bytes
//! big-endian, the spec's bytes. Generation, uid and revision are left out:
//! two replicas may know an object by different revisions and still hold the
//! same configuration.
//!
//! [`Sums`] say the same for those who compare often: 64 bits for each of
//! sixteen parts of the resources, without an order, so that one change costs
//! two hashes, and that a single resource that is missing can be told by the
//! difference of two sums.

use std::fmt::{self, Write};
use std::str::FromStr;

use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

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

/// How many parts [`Sums`] have.
const PARTS: usize = 16;

/// The annotation of a heartbeat's `GatewayInfo` in which a gateway may offer the
/// [`Sums`] of what it held when `last_applied_version` was its version.
pub const HOLDS: &str = "flotilla.dev/holds";

/// What one resource adds to a sum: equal in every process and release.
pub fn summand(kind: Kind, key: &ObjectKey, spec: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&[kind.letter() as u8]);
    hasher.update(key.namespace.as_bytes());
    hasher.update(b"/");
    hasher.update(key.name.as_bytes());
    hasher.update(&[0]);
    hasher.update(spec);
    hasher.digest()
}

/// Wrapping sums of [`summand`]s, by parts: the hash of a resource's name says
/// which part it belongs to. As text 16 hex digits for each part, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums([u64; PARTS]);

impl Sums {
    /// The sums of these resources.
    pub fn of<'a>(resources: impl IntoIterator<Item = (Kind, &'a ObjectKey, &'a [u8])>) -> Self {
        let mut sums = Sums::default();
        for (kind, key, spec) in resources {
            let sum = &mut sums.0[part(key)];
            *sum = sum.wrapping_add(summand(kind, key, spec));
        }
        sums
    }

    /// The sum over all parts.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, part| sum.wrapping_add(*part))
    }

    /// In how many parts these differ from others.
    pub fn differences(&self, other: &Sums) -> usize {
        self.0.iter().zip(&other.0).filter(|(one, other)| one != other).count()
    }

    /// Whether this resource alone is what `other` lacks of its part.
    pub fn is_lacking(&self, other: &Sums, kind: Kind, key: &ObjectKey, spec: &[u8]) -> bool {
        let lacking = self.0[part(key)].wrapping_sub(other.0[part(key)]);
        lacking != 0 && lacking == summand(kind, key, spec)
    }
}

fn part(key: &ObjectKey) -> usize {
    let hash = xxh3_64(format!("{}/{}", key.namespace, key.name).as_bytes());
    (hash % PARTS as u64) as usize
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|sum| write!(f, "{sum:016x}"))
    }
}

/// A text that is none of [`Sums`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sums of resources are {} hex digits", PARTS * 16)]
pub struct NoSums;

impl FromStr for Sums {
    type Err = NoSums;

    fn from_str(text: &str) -> Result<Self, NoSums> {
        if text.len() != PARTS * 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoSums);
        }
        let mut sums = Sums::default();
        for (sum, digits) in sums.0.iter_mut().zip(text.as_bytes().chunks(16)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NoSums)?;
            *sum = u64::from_str_radix(digits, 16).map_err(|_| NoSums)?;
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_tell_a_missing_resource_and_survive_the_wire() {
        let keys: Vec<ObjectKey> = (0..100).map(|n| key("team", &n.to_string())).collect();
        let resources = || keys.iter().map(|key| (Kind::ApiRoute, key, b"{}".as_slice()));
        let all = Sums::of(resources());
        assert_eq!(all, Sums::of(resources().rev()));
        let two = [&keys[3], &keys[70]];
        let some = Sums::of(resources().filter(|(_, key, _)| !two.contains(key)));
        assert_eq!(some.to_string().parse(), Ok(some));
        assert_ne!(all.total(), some.total());
        assert_eq!(all.differences(&some), 2);
        let lacking: Vec<_> = resources()
            .filter(|(kind, key, spec)| all.is_lacking(&some, *kind, key, spec))
            .map(|(_, key, _)| key)
            .collect();
        assert_eq!(lacking, two);
        // Another content is not lacking.
        let changed = resources().map(|(kind, key, spec)| match key == &keys[3] {
            true => (kind, key, b"{ }".as_slice()),
            false => (kind, key, spec),
        });
        let changed = Sums::of(changed);
        assert_eq!(all.differences(&changed), 1);
        assert!(!resources().any(|(kind, key, spec)| all.is_lacking(&changed, kind, key, spec)));
        for wrong in ["", "0", &"g".repeat(256), &"+".repeat(256), &"ä".repeat(128)] {
            assert_eq!(wrong.parse::<Sums>(), Err(NoSums));
        }
    }

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
