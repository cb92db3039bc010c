//! A gateway's version: its position in the log, as a string.
//!
//! The string is the only thing a gateway remembers for us. Any replica must
//! be able to read what any other one wrote, also across releases, so the
//! hashes are fixed (xxh3) and the first two characters name the format.
//!
//! `f1.<cluster>.<incarnation>.<scope>.<low>[-<high>][~<step>][!<exclusions>]`, described in
//! ARCHITECTURE.md, "Version string".

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::compile::FORM;
use crate::delivery::Scope;
use crate::ids::{Frontier, Kind, Revision};

/// More exclusions than this are written as `*`, "unknown", so that a version
/// stays a short string whatever a gateway rejects.
pub const MAX_EXCLUSIONS: usize = 32;

/// Longer strings are not looked at.
const MAX_LENGTH: usize = 1024;

/// What a gateway lacks although its `low` includes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exclusions {
    /// Exactly these contents (see [`content_hash`]); most often none.
    Known(BTreeSet<(Kind, u32)>),
    /// Too many to name: `low` cannot be relied on.
    Unknown,
}

impl Exclusions {
    /// No exclusions.
    pub fn none() -> Self {
        Exclusions::Known(BTreeSet::new())
    }

    /// Whether nothing is excluded.
    pub fn is_none(&self) -> bool {
        matches!(self, Exclusions::Known(known) if known.is_empty())
    }
}

/// A position in the log of one cluster for one scope.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which cluster's log: 8 lower-case hex digits, see [`cluster_id`].
    pub cluster: Arc<str>,
    /// Which history of it: 8 lower-case hex digits. Revisions of another one
    /// mean nothing here.
    pub incarnation: Arc<str>,
    /// What part of it, see [`scope_hash`].
    pub scope: u32,
    /// Everything up to here is included.
    pub low: Frontier,
    /// Nothing beyond here is included; never below `low`.
    pub high: Frontier,
    /// Position inside a difference that is still being sent; 0: none.
    pub step: u32,
    /// What is lacking all the same.
    pub excluded: Exclusions,
}

/// Why a string is not a version of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is longer than any version of ours.
    #[error("version is longer than 1024 bytes, so it was not written by Flotilla")]
    TooLong,
    /// It does not start with the format's mark, or parts are missing.
    #[error(
        "version does not have the form f1.<cluster>.<incarnation>.<scope>.<position>: it was written by another control plane or release"
    )]
    Format,
    /// The cluster is not 8 hex digits.
    #[error("version's cluster is not 8 lower-case hex digits")]
    Cluster,
    /// The incarnation is not 8 hex digits.
    #[error("version's incarnation is not 8 lower-case hex digits")]
    Incarnation,
    /// The scope is not 8 hex digits.
    #[error("version's scope is not 8 lower-case hex digits")]
    Scope,
    /// `low` is not one base-36 number per kind.
    #[error("version's low frontier is not one base-36 number for each of the 4 kinds, joined by '_'")]
    Low,
    /// `high` is not one base-36 number per kind.
    #[error("version's high frontier is not one base-36 number for each of the 4 kinds, joined by '_'")]
    High,
    /// `high` is below `low` in some kind.
    #[error("version's high frontier is below its low frontier")]
    Order,
    /// The step is not a number.
    #[error("version's step after '~' is not a base-36 number below 2^32")]
    Step,
    /// An exclusion is malformed, or there are too many.
    #[error(
        "version's exclusions after '!' are neither '*' nor up to 32 of kind letter and 8 hex digits, joined by ','"
    )]
    Exclusions,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f1.{}.{}.{:08x}.", self.cluster, self.incarnation, self.scope)?;
        write_frontier(f, &self.low)?;
        if self.high != self.low {
            f.write_char('-')?;
            write_frontier(f, &self.high)?;
        }
        if self.step != 0 {
            f.write_char('~')?;
            write_base36(f, u64::from(self.step))?;
        }
        match &self.excluded {
            Exclusions::Known(known) if known.is_empty() => Ok(()),
            Exclusions::Known(known) if known.len() <= MAX_EXCLUSIONS => {
                for (index, (kind, hash)) in known.iter().enumerate() {
                    f.write_char(if index == 0 { '!' } else { ',' })?;
                    write!(f, "{}{hash:08x}", kind.letter())?;
                }
                Ok(())
            }
            Exclusions::Known(_) | Exclusions::Unknown => f.write_str("!*"),
        }
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        if text.len() > MAX_LENGTH {
            return Err(VersionError::TooLong);
        }
        let rest = text.strip_prefix("f1.").ok_or(VersionError::Format)?;
        let (cluster, rest) = rest.split_once('.').ok_or(VersionError::Format)?;
        let (incarnation, rest) = rest.split_once('.').ok_or(VersionError::Format)?;
        let (scope, rest) = rest.split_once('.').ok_or(VersionError::Format)?;
        hex8(cluster).ok_or(VersionError::Cluster)?;
        hex8(incarnation).ok_or(VersionError::Incarnation)?;
        let scope = hex8(scope).ok_or(VersionError::Scope)?;
        let (rest, excluded) = match rest.split_once('!') {
            Some((rest, text)) => (rest, parse_exclusions(text)?),
            None => (rest, Exclusions::none()),
        };
        let (frontiers, step) = match rest.split_once('~') {
            Some((frontiers, step)) => {
                let step = base36(step).and_then(|step| u32::try_from(step).ok());
                (frontiers, step.ok_or(VersionError::Step)?)
            }
            None => (rest, 0),
        };
        let (low, high) = match frontiers.split_once('-') {
            Some((low, high)) => (
                parse_frontier(low).ok_or(VersionError::Low)?,
                parse_frontier(high).ok_or(VersionError::High)?,
            ),
            None => {
                let low = parse_frontier(frontiers).ok_or(VersionError::Low)?;
                (low, low)
            }
        };
        if !high.reached(&low) {
            return Err(VersionError::Order);
        }
        let (cluster, incarnation) = (cluster.into(), incarnation.into());
        Ok(Version { cluster, incarnation, scope, low, high, step, excluded })
    }
}

/// The cluster part of versions, from the uid of the namespace `kube-system`.
pub fn cluster_id(uid: &str) -> Arc<str> {
    format!("{:08x}", fold(xxh3_64(uid.as_bytes()))).into()
}

/// Names a scope and the [`FORM`] of what is in it: the same in every process, and in every
/// release that gives objects this form.
pub fn scope_hash(scope: &Scope) -> u32 {
    hash_in_form(scope, FORM)
}

fn hash_in_form(scope: &Scope, form: u32) -> u32 {
    let mut bytes = form.to_be_bytes().to_vec();
    for namespace in &scope.namespaces {
        bytes.extend_from_slice(namespace.as_bytes());
        bytes.push(0);
    }
    bytes.push(1);
    bytes.extend(scope.kinds.iter().map(|kind| kind.letter() as u8));
    fold(xxh3_64(&bytes))
}

/// Names one content of one object: it changes exactly when the object is
/// created anew or its spec is edited.
pub fn content_hash(uid: &str, generation: i64) -> u32 {
    let mut bytes = Vec::with_capacity(uid.len() + 9);
    bytes.extend_from_slice(uid.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(&generation.to_be_bytes());
    fold(xxh3_64(&bytes))
}

fn fold(hash: u64) -> u32 {
    (hash >> 32) as u32 ^ hash as u32
}

fn write_frontier(f: &mut fmt::Formatter<'_>, frontier: &Frontier) -> fmt::Result {
    for (index, revision) in frontier.0.iter().enumerate() {
        if index > 0 {
            f.write_char('_')?;
        }
        write_base36(f, revision.0)?;
    }
    Ok(())
}

fn write_base36(f: &mut fmt::Formatter<'_>, mut number: u64) -> fmt::Result {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // 2^64 has 13 digits in base 36.
    let mut text = [0u8; 13];
    let mut start = text.len();
    loop {
        start -= 1;
        text[start] = DIGITS[(number % 36) as usize];
        number /= 36;
        if number == 0 {
            break;
        }
    }
    text[start..].iter().try_for_each(|digit| f.write_char(char::from(*digit)))
}

fn base36(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 13 {
        return None;
    }
    text.bytes().try_fold(0u64, |number, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'z' => byte - b'a' + 10,
            _ => return None,
        };
        number.checked_mul(36)?.checked_add(u64::from(digit))
    })
}

fn parse_frontier(text: &str) -> Option<Frontier> {
    let mut frontier = Frontier::default();
    let mut parts = text.split('_');
    for slot in &mut frontier.0 {
        *slot = Revision(base36(parts.next()?)?);
    }
    parts.next().is_none().then_some(frontier)
}

fn parse_exclusions(text: &str) -> Result<Exclusions, VersionError> {
    if text == "*" {
        return Ok(Exclusions::Unknown);
    }
    let mut known = BTreeSet::new();
    for part in text.split(',') {
        if known.len() == MAX_EXCLUSIONS {
            return Err(VersionError::Exclusions);
        }
        let kind = Kind::ALL.into_iter().find(|kind| part.starts_with(kind.letter()));
        let hash = part.get(1..).and_then(hex8);
        known.insert(kind.zip(hash).ok_or(VersionError::Exclusions)?);
    }
    Ok(Exclusions::Known(known))
}

/// Exactly 8 lower-case hex digits.
fn hex8(text: &str) -> Option<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Version, VersionError> {
        text.parse()
    }

    #[test]
    fn the_written_form_is_fixed() {
        let low = Frontier([Revision(35), Revision(36), Revision(0), Revision(u64::MAX)]);
        let high = Frontier([Revision(40), Revision(36), Revision(1), Revision(u64::MAX)]);
        let mut version = Version {
            cluster: "0a1b2c3d".into(),
            incarnation: "00000001".into(),
            scope: 0xff,
            low,
            high: low,
            step: 0,
            excluded: Exclusions::none(),
        };
        assert_eq!(version.to_string(), "f1.0a1b2c3d.00000001.000000ff.z_10_0_3w5e11264sgsf");
        version.high = high;
        version.step = 37;
        version.excluded = Exclusions::Known([(Kind::ApiRoute, 1), (Kind::GrpcBackend, 0xabcdef01)].into());
        let text =
            "f1.0a1b2c3d.00000001.000000ff.z_10_0_3w5e11264sgsf-14_10_1_3w5e11264sgsf~11!a00000001,qabcdef01";
        assert_eq!(version.to_string(), text);
        assert_eq!(parse(text), Ok(version));
    }

    #[test]
    fn hashes_never_change() {
        let hashes = (cluster_id("6f1f"), scope_hash(&Scope::default()), content_hash("uid-1", 7));
        assert_eq!(hashes, ("25bd382b".into(), 1_456_157_463, 3_171_248_593));
        assert_ne!(content_hash("uid-1", 7), content_hash("uid-1", 8));
        let namespace = Scope { namespaces: ["a".into()].into(), ..Scope::default() };
        let kind = Scope { kinds: [Kind::ApiRoute].into(), ..Scope::default() };
        assert_ne!(scope_hash(&namespace), scope_hash(&kind));
        assert_ne!(hash_in_form(&namespace, FORM), hash_in_form(&namespace, FORM + 1));
    }

    #[test]
    fn a_foreign_string_is_refused_by_naming_the_part() {
        for (text, error) in [
            ("", VersionError::Format),
            ("12345", VersionError::Format),
            ("f2.0a1b2c3d.00000001.000000ff.1_1_1_1", VersionError::Format),
            ("f1.0a1b2c3d.00000001.000000ff", VersionError::Format),
            ("f1.0A1b2c3d.00000001.000000ff.1_1_1_1", VersionError::Cluster),
            ("f1.0a1b2c3d.1.000000ff.1_1_1_1", VersionError::Incarnation),
            ("f1.0a1b2c3d.00000001.+00000ff.1_1_1_1", VersionError::Scope),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1", VersionError::Low),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1_1", VersionError::Low),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_3w5e11264sgsg", VersionError::Low),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1-", VersionError::High),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_2_1-1_1_1_1", VersionError::Order),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1~", VersionError::Step),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1~1z141z4", VersionError::Step),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1!", VersionError::Exclusions),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1!x00000000", VersionError::Exclusions),
            ("f1.0a1b2c3d.00000001.000000ff.1_1_1_1!é0000000", VersionError::Exclusions),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&"x".repeat(2000)), Err(VersionError::TooLong));
    }

    #[test]
    fn too_many_exclusions_are_written_as_unknown() {
        let excluded = (0..33).map(|n| (Kind::Backend, n)).collect();
        let frontier = Frontier::default();
        let version = Version {
            cluster: "00000000".into(),
            incarnation: "00000000".into(),
            scope: 0,
            low: frontier,
            high: frontier,
            step: 0,
            excluded: Exclusions::Known(excluded),
        };
        assert_eq!(parse(&version.to_string()).map(|v| v.excluded), Ok(Exclusions::Unknown));
    }
}
