//! Which part of the configuration a gateway may have, whatever it asks for.
//!
//! Rules are looked at in their order, and the first that names the gateway decides:
//! one rule can be read by itself, and a scope stays a set of namespaces by a set of
//! kinds. What no rule names gets nothing, unless the policy says otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::delivery::Scope;
use crate::delivery::scope::covers;
use crate::ids::{GatewayId, Kind};

/// A policy as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// The rules, the first that names a gateway decides.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What gateways get that no rule names; nothing, if it does not say. Without rules
    /// it has to.
    #[serde(default)]
    pub otherwise: Option<Otherwise>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whom it names.
    pub gateways: Gateways,
    /// Namespaces whose objects they may have: names, or beginnings of names with a
    /// `*` behind; none: nothing.
    pub namespaces: Vec<String>,
    /// Kinds of objects; none: all.
    #[serde(default)]
    pub kinds: Vec<String>,
}

/// Gateways: those for which all that is said holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateways {
    /// Their namespace is one of these, or begins like one with a `*` behind.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// The same for their name.
    #[serde(default)]
    pub names: Vec<String>,
    /// They say that they have these labels. One that says otherwise is not named by
    /// the rule, and may be by a later one.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What gateways get that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// Nothing.
    Nothing,
    /// What they ask for.
    Everything,
}

/// Why a policy is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It says nothing, as a file does that is being written.
    #[error("it has no rules; to give gateways nothing, write `otherwise: nothing`")]
    Empty,
    /// A rule names gateways by nothing that their certificates confirm.
    #[error(
        "rules[{rule}].gateways: name namespaces or names; labels alone are what a gateway says of itself"
    )]
    Unconfirmed {
        /// Place of the rule.
        rule: usize,
    },
    /// Something is no name of a namespace or gateway, nor how names begin.
    #[error(
        "rules[{rule}].{field}: {text:?} is no name; use lower-case letters, digits, '-' and '.', and a '*' at the end for all that begin so"
    )]
    Name {
        /// Place of the rule.
        rule: usize,
        /// The list that it stands in.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// Something is no kind that is delivered.
    #[error(
        "rules[{rule}].kinds: {text:?} is not delivered; use APIRoute, GRPCRoute, Backend or GRPCBackend"
    )]
    Kind {
        /// Place of the rule.
        rule: usize,
        /// What stands there.
        text: String,
    },
}

/// A gateway that asks for its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// Who it is.
    pub gateway: GatewayId,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
    /// Whether no certificate confirms who it is.
    pub anonymous: bool,
    /// What it asks for.
    pub scope: Scope,
}

/// A policy that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<(Gateways, Scope)>,
    otherwise: Otherwise,
}

impl Default for Policy {
    /// Whoever a certificate confirms gets what it asks for.
    fn default() -> Self {
        Policy { rules: Vec::new(), otherwise: Otherwise::Everything }
    }
}

impl TryFrom<Document> for Policy {
    type Error = PolicyError;

    fn try_from(document: Document) -> Result<Self, PolicyError> {
        let Document { rules, otherwise } = document;
        if rules.is_empty() && otherwise.is_none() {
            return Err(PolicyError::Empty);
        }
        let otherwise = otherwise.unwrap_or(Otherwise::Nothing);
        let rules = rules.into_iter().enumerate().map(|(place, rule)| checked(place, rule));
        Ok(Policy { rules: rules.collect::<Result<_, _>>()?, otherwise })
    }
}

fn checked(rule: usize, written: Rule) -> Result<(Gateways, Scope), PolicyError> {
    let Rule { gateways, namespaces, kinds } = written;
    if gateways.namespaces.is_empty() && gateways.names.is_empty() {
        return Err(PolicyError::Unconfirmed { rule });
    }
    let named = [
        ("gateways.namespaces", &gateways.namespaces),
        ("gateways.names", &gateways.names),
        ("namespaces", &namespaces),
    ];
    for (field, names) in named {
        if let Some(text) = names.iter().find(|name| !is_name(name)) {
            return Err(PolicyError::Name { rule, field, text: text.clone() });
        }
    }
    let kind = |text: &String| {
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| PolicyError::Kind { rule, text: text.clone() })
    };
    let kinds = kinds.iter().map(kind).collect::<Result<_, _>>()?;
    let scope = match namespaces.as_slice() {
        [] => Scope::nothing(),
        names => Scope::new(names.iter().map(|name| Arc::from(name.as_str())), kinds),
    };
    Ok((gateways, scope))
}

fn is_name(text: &str) -> bool {
    let beginning = text.strip_suffix('*').unwrap_or(text);
    let sound = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '.')
    };
    !text.is_empty() && text.len() <= 253 && beginning.chars().all(sound)
}

fn is_one_of(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|known| covers(known, name))
}

impl Gateways {
    fn include(&self, asking: &Asking) -> bool {
        is_one_of(&self.namespaces, &asking.gateway.namespace)
            && is_one_of(&self.names, &asking.gateway.name)
            && self.labels.iter().all(|(name, value)| asking.labels.get(name) == Some(value))
    }
}

impl Policy {
    /// What a gateway gets of what it asks for. One that no certificate confirms gets
    /// nothing but by a rule.
    pub fn grant(&self, asking: &Asking) -> Scope {
        match self.rules.iter().find(|(gateways, _)| gateways.include(asking)) {
            Some((_, scope)) => asking.scope.within(scope),
            None if self.otherwise == Otherwise::Everything && !asking.anonymous => asking.scope.clone(),
            None => Scope::nothing(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(namespaces: &[&str], names: &[&str], granted: &[&str]) -> Rule {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let gateways =
            Gateways { namespaces: owned(namespaces), names: owned(names), labels: BTreeMap::new() };
        Rule { gateways, namespaces: owned(granted), kinds: Vec::new() }
    }

    fn policy(rules: Vec<Rule>, otherwise: Otherwise) -> Result<Policy, PolicyError> {
        Document { rules, otherwise: Some(otherwise) }.try_into()
    }

    fn asking(namespace: &str, name: &str) -> Asking {
        let gateway = GatewayId { namespace: namespace.into(), name: name.into() };
        Asking { gateway, labels: BTreeMap::new(), anonymous: false, scope: Scope::default() }
    }

    fn namespaces(scope: &Scope) -> Vec<&str> {
        scope.namespaces.iter().map(|name| &**name).collect()
    }

    #[test]
    fn the_first_rule_that_names_a_gateway_decides() {
        let rules = vec![rule(&["edge"], &["public-*"], &["shop"]), rule(&["edge"], &[], &["*"])];
        let policy = policy(rules, Otherwise::Nothing).unwrap();
        assert_eq!(namespaces(&policy.grant(&asking("edge", "public-0"))), ["shop"]);
        assert_eq!(policy.grant(&asking("edge", "inner-0")), Scope::default());
        assert_eq!(policy.grant(&asking("other", "public-0")), Scope::nothing());
    }

    #[test]
    fn a_gateway_gets_no_more_than_it_asks_for() {
        let policy = policy(vec![rule(&["edge"], &[], &["team-*"])], Otherwise::Nothing).unwrap();
        let scope = Scope::new(["team-a".into(), "shop".into()], [Kind::Backend].into());
        let granted = policy.grant(&Asking { scope, ..asking("edge", "g") });
        assert_eq!((namespaces(&granted), granted.kinds.clone()), (vec!["team-a"], [Kind::Backend].into()));
    }

    #[test]
    fn labels_only_narrow_and_who_has_no_certificate_needs_a_rule() {
        let mut labelled = rule(&["edge"], &[], &["shop"]);
        labelled.gateways.labels = [("tier".to_owned(), "public".to_owned())].into();
        let policy = policy(vec![labelled], Otherwise::Everything).unwrap();
        let anonymous = Asking { anonymous: true, ..asking("edge", "g") };
        assert_eq!(policy.grant(&anonymous), Scope::nothing());
        assert_eq!(policy.grant(&asking("edge", "g")), Scope::default());
        let labels = [("tier".to_owned(), "public".to_owned())].into();
        assert_eq!(namespaces(&policy.grant(&Asking { labels, ..anonymous })), ["shop"]);
        assert_eq!(Policy::default().grant(&asking("edge", "g")), Scope::default());
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused_by_its_place_and_field() {
        let nothing = Otherwise::Nothing;
        for (broken, words) in [
            (rule(&[], &[], &["shop"]), "rules[1].gateways: name namespaces or names"),
            (rule(&["Edge"], &[], &["shop"]), "rules[1].gateways.namespaces: \"Edge\" is no name"),
            (rule(&["edge"], &["a*b"], &["shop"]), "rules[1].gateways.names: \"a*b\" is no name"),
            (rule(&["edge"], &[], &[""]), "rules[1].namespaces: \"\" is no name"),
            (
                Rule { kinds: vec!["Route".to_owned()], ..rule(&["edge"], &[], &["shop"]) },
                "rules[1].kinds: \"Route\" is not delivered",
            ),
        ] {
            let error = policy(vec![rule(&["edge"], &[], &[]), broken], nothing).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }
}
