//! What a status says. Pure: the reporter decides when to ask and when to
//! write.
//!
//! `Ready=True` is said only when every connected gateway that is to have the
//! object has acknowledged exactly this content.
//!
//! What is written is what server-side apply takes: all fields that are ours
//! and no others, so that conditions and fields of others stay as they are. It
//! carries its preconditions, uid and resourceVersion, and the epoch in which we
//! act. The two belong together: the write takes effect only on what was read,
//! and what was read shows whether somebody has written in a later epoch.
//!
//! What only the published operator ever wrote would stand there for ever: an
//! apply takes nothing out that belongs to somebody else. The first patch of
//! such a status is one that is merged instead, and sets these fields to null.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use flotilla_api::conditions::{Condition, ConditionStatus, ConditionType, Reason, Statement, set_condition};
use flotilla_core::applied::Reach;
use flotilla_core::compile::{Fault, Invalid};
use flotilla_core::ids::Epoch;
use flotilla_core::object::RawObject;
use flotilla_core::report::{Finality, PlannedStatus, Standing, StatusPlanner, Turn, Validity};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Rejections that one message quotes; more are counted.
const QUOTED: usize = 3;
/// Length of a gateway's words in a message.
const WORDS: usize = 300;
/// Gateways listed in `status.appliedGateways`; with more, the list is left out.
const LISTED: usize = 32;

/// The status planner of this family.
#[derive(Debug, Clone, Copy, Default)]
pub struct AvapigwStatus;

/// What is read of the status that is there.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Known {
    conditions: Vec<Condition>,
    observed_generation: Option<i64>,
    applied_gateways: Vec<AppliedGateway>,
    total_hosts: Option<i64>,
    epoch: Option<i64>,
    healthy_hosts: Option<IgnoredAny>,
    last_health_check: Option<IgnoredAny>,
}

/// What a status speaks of: the rest is skipped.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    observed_generation: Option<i64>,
}

impl Known {
    /// Whether it has what nobody here writes.
    fn has_others_health(&self) -> bool {
        self.healthy_hosts.is_some() || self.last_health_check.is_some()
    }

    /// Whether it says of the present generation that gateways have it, or that
    /// one of them rejects it.
    fn is_last_word(&self, object: &RawObject) -> bool {
        let ready = self.conditions.iter().find(|one| one.type_ == ConditionType::Ready.as_str());
        let last = |one: &Condition| {
            one.status == ConditionStatus::True.as_str() || one.reason == Reason::ApplyFailed.as_str()
        };
        self.observed_generation == Some(object.generation) && ready.is_some_and(last)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppliedGateway {
    name: String,
    namespace: String,
    last_applied: String,
}

impl StatusPlanner for AvapigwStatus {
    fn plan(
        &self,
        wall: &str,
        epoch: Epoch,
        object: &RawObject,
        validity: Validity<'_>,
        reach: &Reach,
    ) -> PlannedStatus {
        // A status that cannot be read is replaced: it is ours to write.
        let known: Known = serde_json::from_slice(&object.status).unwrap_or_default();
        let epoch = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        if known.epoch.is_some_and(|written| written > epoch) {
            return PlannedStatus { patch: None, finality: Finality::Fenced, stands: false, turn: None };
        }
        let stands = validity == Validity::Valid && known.is_last_word(object);
        let (ready, finality) = ready(object, validity, reach);
        let mut conditions = known.conditions.clone();
        let mut changed = set_condition(&mut conditions, &ready, wall);
        changed |= set_condition(&mut conditions, &valid(object, validity), wall);
        changed |= known.observed_generation != Some(object.generation);
        let (mut gateways, mut hosts, mut taken_out) = (None, None, None);
        if object.kind.is_route() {
            let applied = match validity {
                Validity::Valid => applied_gateways(&known, object, reach, wall),
                // What is not delivered is nowhere applied.
                Validity::Invalid(_) => Vec::new(),
            };
            changed |= applied != known.applied_gateways;
            gateways = Some(applied);
        } else {
            changed |= set_condition(&mut conditions, &healthy(object), wall);
            hosts = Some(total_hosts(object));
            changed |= known.total_hosts != hosts;
            taken_out = known.has_others_health().then(TakenOut::default);
            changed |= taken_out.is_some();
        }
        if !changed {
            return PlannedStatus { patch: None, finality, stands, turn: None };
        }
        let turn = Some(Turn {
            from: standing(&known.conditions),
            to: standing(&conditions),
            message: ready.message.into_owned(),
        });
        // What is merged replaces the list, so that others' have to be in it.
        if taken_out.is_none() {
            conditions.retain(|one| ConditionType::ALL.iter().any(|ours| ours.as_str() == one.type_));
        }
        let status = Status {
            applied_gateways: gateways,
            conditions,
            epoch,
            observed_generation: object.generation,
            total_hosts: hosts,
            taken_out,
        };
        PlannedStatus { patch: patch(object, status), finality, stands, turn }
    }
}

/// Whether a status says that another object keeps this one from being delivered;
/// `None` when it does not speak of this generation.
pub(crate) fn withheld(status: &[u8], generation: i64) -> Option<bool> {
    let said = serde_json::from_slice::<Said>(status).ok()?;
    if said.observed_generation != Some(generation) {
        return None;
    }
    // Hardly any says so, and looking for a word is cheaper than reading it all.
    let named = std::str::from_utf8(status).is_ok_and(|text| text.contains(Reason::Conflict.as_str()));
    Some(
        named
            && serde_json::from_slice::<Known>(status).is_ok_and(|known| {
                let valid = known.conditions.iter().find(|one| one.type_ == ConditionType::Valid.as_str());
                valid.is_some_and(|one| one.reason == Reason::Conflict.as_str())
            }),
    )
}

/// How an object stands by its conditions.
fn standing(conditions: &[Condition]) -> Standing {
    let Some(ready) = conditions.iter().find(|one| one.type_ == ConditionType::Ready.as_str()) else {
        return Standing::Unsaid;
    };
    if ready.status == ConditionStatus::True.as_str() {
        return Standing::Well;
    }
    if ready.status != ConditionStatus::False.as_str() {
        return Standing::Alone;
    }
    match Reason::ALL.iter().find(|reason| reason.as_str() == ready.reason) {
        Some(Reason::Applying) => Standing::Underway,
        // Of a spec that was mended in one place and is still wrong in another.
        Some(Reason::ValidationFailed) => {
            let mut words = DefaultHasher::new();
            ready.message.hash(&mut words);
            Standing::Bad(Reason::ValidationFailed.as_str(), words.finish())
        }
        // Words of others are as good as none.
        reason => Standing::Bad(reason.map_or("", |reason| reason.as_str()), 0),
    }
}

/// Why something that is invalid is so, for programs.
fn reason(invalid: &Invalid) -> Reason {
    match invalid.fault {
        Fault::Spec => Reason::ValidationFailed,
        Fault::Conflict => Reason::Conflict,
    }
}

/// All fields of a status that are ours.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_gateways: Option<Vec<AppliedGateway>>,
    conditions: Vec<Condition>,
    epoch: i64,
    observed_generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_hosts: Option<i64>,
    #[serde(flatten)]
    taken_out: Option<TakenOut>,
}

/// Nulls: the writer of patches knows by them that this one is to be merged.
#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct TakenOut {
    healthy_hosts: (),
    last_health_check: (),
}

/// What server-side apply takes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Apply<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    status: Status,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    resource_version: String,
    uid: &'a str,
}

/// The precondition makes a late write fail: whoever plans from an old view
/// gets a conflict.
fn patch(object: &RawObject, status: Status) -> Option<Vec<u8>> {
    let metadata = Metadata {
        name: &object.key.name,
        namespace: &object.key.namespace,
        resource_version: object.revision.to_string(),
        uid: &object.uid,
    };
    let apply = Apply { api_version: "avapigw.io/v1alpha1", kind: object.kind.name(), metadata, status };
    // Words and numbers can always be written down.
    serde_json::to_vec(&apply).ok()
}

fn statement(
    object: &RawObject,
    type_: ConditionType,
    status: ConditionStatus,
    reason: Reason,
    message: String,
) -> Statement {
    Statement { type_, status, reason, message: message.into(), observed_generation: object.generation }
}

fn ready(object: &RawObject, validity: Validity<'_>, reach: &Reach) -> (Statement, Finality) {
    let say = |status, reason, message| statement(object, ConditionType::Ready, status, reason, message);
    let noun = if object.kind.is_route() { "Route" } else { "Backend" };
    if let Validity::Invalid(invalid) = validity {
        let message = format!("{noun} is not delivered: {invalid}");
        return (say(ConditionStatus::False, reason(invalid), message), Finality::Final);
    }
    if reach.gateways == 0 && reach.connected > 0 {
        let message = "No connected gateway asks for this namespace and kind".to_owned();
        return (say(ConditionStatus::Unknown, Reason::NotServed, message), Finality::Final);
    }
    if reach.gateways == 0 {
        let message = "No gateway is connected".to_owned();
        return (say(ConditionStatus::Unknown, Reason::NoGateways, message), Finality::Final);
    }
    let progress = format!("Applied {}/{} gateways", reach.applied, reach.gateways);
    if !reach.rejections.is_empty() {
        let finality = if reach.is_under_way() { Finality::Progress } else { Finality::Final };
        let message = format!("{progress}; rejected by {}", quote(reach));
        return (say(ConditionStatus::False, Reason::ApplyFailed, message), finality);
    }
    if reach.applied < reach.gateways {
        return (say(ConditionStatus::False, Reason::Applying, progress), Finality::Progress);
    }
    let plural = if reach.gateways == 1 { "" } else { "s" };
    let message = format!("{noun} successfully applied to {} gateway{plural}", reach.gateways);
    (say(ConditionStatus::True, Reason::Reconciled, message), Finality::Final)
}

fn quote(reach: &Reach) -> String {
    let one = |(gateway, words): &(_, String)| {
        let words: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect();
        format!("{gateway}: {words}")
    };
    let mut text = reach.rejections.iter().take(QUOTED).map(one).collect::<Vec<_>>().join("; ");
    if reach.rejections.len() > QUOTED {
        text.push_str(&format!("; and {} more", reach.rejections.len() - QUOTED));
    }
    text
}

fn valid(object: &RawObject, validity: Validity<'_>) -> Statement {
    let say = |status, reason, message| statement(object, ConditionType::Valid, status, reason, message);
    match validity {
        Validity::Valid => {
            say(ConditionStatus::True, Reason::ValidationPassed, "The spec is valid".to_owned())
        }
        Validity::Invalid(invalid) => say(ConditionStatus::False, reason(invalid), invalid.to_string()),
    }
}

/// Gateways say how they are, not how each backend's hosts are, so nothing
/// is claimed.
fn healthy(object: &RawObject) -> Statement {
    let message = "Gateways do not report the health of single backends".to_owned();
    statement(object, ConditionType::Healthy, ConditionStatus::Unknown, Reason::Applied, message)
}

/// Who has it, with the time at which that was first said of this generation.
fn applied_gateways(known: &Known, object: &RawObject, reach: &Reach, wall: &str) -> Vec<AppliedGateway> {
    if reach.names.len() > LISTED {
        return Vec::new();
    }
    let same_generation = known.observed_generation == Some(object.generation);
    let before = |namespace: &str, name: &str| {
        let found = known.applied_gateways.iter().find(|one| one.namespace == namespace && one.name == name);
        found.filter(|_| same_generation).map(|one| one.last_applied.clone())
    };
    let one = |gateway: &flotilla_core::ids::GatewayId| AppliedGateway {
        name: gateway.name.to_string(),
        namespace: gateway.namespace.to_string(),
        last_applied: before(&gateway.namespace, &gateway.name).unwrap_or_else(|| wall.to_owned()),
    };
    reach.names.iter().map(one).collect()
}

fn total_hosts(object: &RawObject) -> i64 {
    #[derive(Deserialize)]
    struct Hosts {
        #[serde(default)]
        hosts: Vec<IgnoredAny>,
    }
    let hosts = serde_json::from_slice::<Hosts>(&object.spec).map_or(0, |spec| spec.hosts.len());
    i64::try_from(hosts).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
