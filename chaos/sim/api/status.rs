//! What a status patch does and says, read as a server-side apply and as a human
//! reads it; without the product's types, which wrote it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use flotilla_core::object::RawObject;
use flotilla_observer::{Claim, Ready};
use serde::Deserialize;
use serde_json::value::RawValue;

/// A server-side apply of a status with preconditions.
#[derive(Debug, Deserialize)]
pub struct Patch<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    status: BTreeMap<&'a str, &'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    resource_version: Option<&'a str>,
    uid: Option<&'a str>,
}

#[derive(Deserialize)]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    type_: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

impl<'a> Patch<'a> {
    /// Reads a patch; `None` when it is none.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Whether its preconditions hold. A patch without any always fits.
    pub fn fits(&self, object: &RawObject) -> bool {
        let uid = self.metadata.uid.is_none_or(|uid| *object.uid == *uid);
        let revision = self.metadata.resource_version;
        uid && revision.is_none_or(|revision| revision.parse() == Ok(object.revision.0))
    }

    /// The status after it; `None` when nothing changes. All fields of a status are
    /// ours, and a server-side apply takes away those of ours that it does not name.
    pub fn apply(&self, status: &Bytes) -> Option<Bytes> {
        let applied = serde_json::to_vec(&self.status).ok()?;
        (*status != applied).then(|| applied.into())
    }

    /// What it says of delivery.
    pub fn claim(&self) -> Option<Claim> {
        claim(&self.status)
    }
}

/// What an object's whole status says of delivery; `None` when it says nothing.
pub fn claim_of(status: &[u8]) -> Option<Claim> {
    claim(&serde_json::from_slice(status).ok()?)
}

fn claim(status: &BTreeMap<&str, &RawValue>) -> Option<Claim> {
    let generation = status.get("observedGeneration")?.get().parse().ok()?;
    let conditions: Vec<Condition<'_>> = serde_json::from_str(status.get("conditions")?.get()).ok()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let mut numbers = ready.message.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let mut number = || numbers.next().unwrap_or(0);
    let ready = match (&*ready.status, &*ready.reason) {
        ("True", _) => Ready::True { gateways: number() },
        ("Unknown", _) => Ready::NoGateways,
        (_, "ValidationFailed") => Ready::Invalid,
        (_, "ApplyFailed") => Ready::Rejected { applied: number(), gateways: number() },
        _ => Ready::Progress { applied: number(), gateways: number() },
    };
    Some(Claim { generation, ready })
}
