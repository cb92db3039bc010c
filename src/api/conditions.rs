//! Conditions: what is said about an object in its status, in closed words.
//!
//! Others may keep conditions on the same object. They are never touched, and
//! nothing of theirs needs to be understood, which is why a condition that was
//! read keeps its strings as they are.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One condition as it stands in `status.conditions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about; unique within the list.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word for programs.
    pub reason: String,
    /// Why, in a sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When `status` last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
    /// The generation of the object that this was said about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// What a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionType {
    /// The object is applied everywhere it should be.
    Ready,
    /// The object can be sent to gateways at all.
    Valid,
    /// The hosts of a backend answer.
    Healthy,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows.
    Unknown,
}

/// Why a condition has its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Every gateway has applied the object (Ready).
    Reconciled,
    /// The object could not be processed (Ready).
    ReconcileFailed,
    /// Nothing is wrong with the spec (Valid).
    ValidationPassed,
    /// The spec cannot be sent to gateways (Valid, Ready).
    ValidationFailed,
    /// The hosts answer (Healthy).
    HealthCheckOK,
    /// Some host does not answer (Healthy).
    HealthCheckFailed,
    /// Gateways have applied the object.
    Applied,
    /// A gateway rejected the object (Ready).
    ApplyFailed,
    /// Some gateways have not applied the object yet (Ready).
    Applying,
    /// No gateway is connected (Ready).
    NoGateways,
    /// The object is gone from all gateways.
    Deleted,
    /// The object could not be removed from every gateway.
    DeleteFailed,
    /// No gateway asks for this namespace or kind (Ready).
    NotServed,
    /// Another object claims the same and comes first (Valid, Ready).
    Conflict,
}

macro_rules! named {
    ($type:ident: $($variant:ident),+ $(,)?) => {
        impl $type {
            /// The word as it stands in a condition.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }

            /// Every value, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named!(ConditionType: Ready, Valid, Healthy);
named!(ConditionStatus: True, False, Unknown);
named!(
    Reason: Reconciled, ReconcileFailed, ValidationPassed, ValidationFailed, HealthCheckOK, HealthCheckFailed,
    Applied, ApplyFailed, Applying, NoGateways, Deleted, DeleteFailed, NotServed, Conflict,
);

/// What is to be said in one condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it is about.
    pub type_: ConditionType,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub message: Cow<'static, str>,
    /// The generation of the object that this is said about.
    pub observed_generation: i64,
}

/// Sets a condition and says whether the list changed.
///
/// `now` (RFC 3339) becomes the transition time only when the status differs
/// from what is there. A condition of the same type keeps its place; all
/// others, also those of types that we do not know, stay as they are.
pub fn set_condition(conditions: &mut Vec<Condition>, statement: &Statement, now: &str) -> bool {
    let found = conditions.iter_mut().find(|condition| condition.type_ == statement.type_.as_str());
    let unchanged_since = found
        .as_ref()
        .filter(|condition| {
            condition.status == statement.status.as_str() && !condition.last_transition_time.is_empty()
        })
        .map(|condition| condition.last_transition_time.clone());
    let wanted = Condition {
        type_: statement.type_.as_str().to_owned(),
        status: statement.status.as_str().to_owned(),
        reason: statement.reason.as_str().to_owned(),
        message: statement.message.clone().into_owned(),
        last_transition_time: unchanged_since.unwrap_or_else(|| now.to_owned()),
        observed_generation: Some(statement.observed_generation),
    };
    match found {
        Some(condition) if *condition == wanted => false,
        Some(condition) => {
            *condition = wanted;
            true
        }
        None => {
            conditions.push(wanted);
            true
        }
    }
}

/// The condition of one type, if it is there.
pub fn condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-01-02T00:00:00Z";

    fn ready(status: ConditionStatus, reason: Reason, generation: i64) -> Statement {
        Statement {
            type_: ConditionType::Ready,
            status,
            reason,
            message: "as told".into(),
            observed_generation: generation,
        }
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut list = Vec::new();
        assert!(set_condition(&mut list, &ready(ConditionStatus::False, Reason::Applying, 1), EARLIER));
        assert!(set_condition(&mut list, &ready(ConditionStatus::False, Reason::ApplyFailed, 2), NOW));
        assert_eq!(list[0].last_transition_time, EARLIER);
        assert_eq!((list[0].reason.as_str(), list[0].observed_generation), ("ApplyFailed", Some(2)));
        assert!(set_condition(&mut list, &ready(ConditionStatus::True, Reason::Reconciled, 2), NOW));
        assert_eq!(list[0].last_transition_time, NOW);
        assert_eq!(list.len(), 1);
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let mut list = Vec::new();
        let statement = ready(ConditionStatus::True, Reason::Reconciled, 3);
        set_condition(&mut list, &statement, EARLIER);
        let before = list.clone();
        assert!(!set_condition(&mut list, &statement, NOW));
        assert_eq!(list, before);
    }

    #[test]
    fn foreign_conditions_stay_as_they_are() {
        let foreign = Condition {
            type_: "Audited".into(),
            status: "Maybe".into(),
            reason: "x".into(),
            last_transition_time: "yesterday".into(),
            ..Condition::default()
        };
        let mut list = vec![foreign.clone()];
        set_condition(&mut list, &ready(ConditionStatus::Unknown, Reason::NoGateways, 1), NOW);
        assert_eq!(list[0], foreign);
        assert_eq!(condition(&list, ConditionType::Ready).map(|c| c.status.as_str()), Some("Unknown"));
        assert_eq!(condition(&list, ConditionType::Healthy), None);
    }

    #[test]
    fn words_are_those_of_the_requirements() {
        let words: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(
            words.join(" "),
            "Reconciled ReconcileFailed ValidationPassed ValidationFailed HealthCheckOK HealthCheckFailed Applied \
             ApplyFailed Applying NoGateways Deleted DeleteFailed NotServed Conflict"
        );
        assert_eq!(ConditionType::ALL.len() + ConditionStatus::ALL.len(), 6);
    }
}
