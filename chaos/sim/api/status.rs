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
    status: Fields<'a>,
}

/// A status by its fields.
type Fields<'a> = BTreeMap<&'a str, &'a RawValue>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    resource_version: Option<&'a str>,
    uid: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(borrow, rename = "type")]
    type_: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(borrow)]
    last_transition_time: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
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

    /// What is wrong with its times, given the status that it replaces: a condition
    /// is dated anew only when its status is another one, and nothing is written
    /// because the clock says something else.
    pub fn misdated(&self, before: &[u8]) -> Option<String> {
        let before: Fields<'_> = serde_json::from_slice(before).ok()?;
        let (old, new) = (conditions(&before)?, conditions(&self.status)?);
        let mut same = old.len() == new.len() && same_but_times(&before, &self.status);
        for condition in &new {
            let Some(known) = old.iter().find(|known| known.type_ == condition.type_) else {
                same = false;
                continue;
            };
            if known.status == condition.status
                && known.last_transition_time != condition.last_transition_time
            {
                return Some(format!(
                    "{} is {} since {} and is dated {}",
                    condition.type_,
                    condition.status,
                    known.last_transition_time,
                    condition.last_transition_time
                ));
            }
            same &= known.status == condition.status
                && known.reason == condition.reason
                && known.message == condition.message;
        }
        same.then(|| "it is written again and says nothing new".to_owned())
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

fn conditions<'a>(status: &Fields<'a>) -> Option<Vec<Condition<'a>>> {
    serde_json::from_str(status.get("conditions")?.get()).ok()
}

/// Whether two statuses agree in everything but conditions, times and the epoch.
fn same_but_times(one: &Fields<'_>, other: &Fields<'_>) -> bool {
    let equal = |field: &str| one.get(field).map(|raw| raw.get()) == other.get(field).map(|raw| raw.get());
    let names = |status: &Fields<'_>| -> Vec<String> {
        let listed =
            status.get("appliedGateways").map(|raw| serde_json::from_str::<Vec<Listed<'_>>>(raw.get()));
        listed.and_then(Result::ok).into_iter().flatten().map(|one| one.name.into_owned()).collect()
    };
    equal("observedGeneration") && equal("totalHosts") && names(one) == names(other)
}

fn claim(status: &Fields<'_>) -> Option<Claim> {
    let generation = status.get("observedGeneration")?.get().parse().ok()?;
    let conditions = conditions(status)?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let mut numbers = ready.message.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let mut number = || numbers.next().unwrap_or(0);
    let ready = match (&*ready.status, &*ready.reason) {
        ("True", _) => Ready::True { gateways: number() },
        ("Unknown", _) => Ready::NoGateways,
        (_, "ValidationFailed") => Ready::Invalid,
        (_, "Conflict") => Ready::Conflict,
        (_, "ApplyFailed") => Ready::Rejected { applied: number(), gateways: number() },
        _ => Ready::Progress { applied: number(), gateways: number() },
    };
    Some(Claim { generation, ready })
}
