//! Whether an Ingress of our class may be written: it is converted, and
//! what it becomes is judged as if its author had written that.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use flotilla_core::claims::{Claim, Stake};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;
use serde_json::Value;

use super::{References, Refusal, Services, Verdict, in_the_way, rules};
use crate::conflicts::{Conflict, Conflicts};
use crate::ingress::{Converted, Fault, Ingress, Produced, convert, origin_of};

/// A port of which nobody here knows the number: nothing is judged by it.
const SOME_PORT: u16 = 1;

/// Judges a write of an Ingress that is ours, in place of what it was `before` if that
/// was ours, too. Besides, what its routes newly claim, each with its kind and key.
pub fn judge_ingress(
    known: &Conflicts,
    services: &Services,
    ingress: &Ingress,
    before: Option<&Ingress>,
    created: &Arc<str>,
    references: References,
) -> (Verdict, Vec<(Kind, ObjectKey, Vec<Claim>)>) {
    let mut verdict = Verdict::default();
    if before.is_some_and(|before| before.is_like(ingress)) {
        return (verdict, Vec::new());
    }
    for (number, _) in ingress
        .spec
        .tls
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, tls)| tls.secret_name.as_deref().unwrap_or_default().is_empty())
    {
        let problem = "is missing; name the Secret with the certificate";
        verdict.refusals.push(Refusal::new(format!("spec.tls[{number}].secretName"), problem));
    }
    let converted = match convert(ingress, &|_, _| Some(SOME_PORT)) {
        Ok(converted) => converted,
        Err(found) => {
            let refusal = |fault: Fault| {
                let field = fault.field.clone();
                let words = fault.to_string();
                // The field is told beside it.
                let problem = words.strip_prefix(&field).unwrap_or(&words).trim_start_matches([':', ' ']);
                Refusal::new(field, problem)
            };
            verdict.refusals.extend(found.faults.into_iter().map(refusal));
            return (verdict.bounded(), Vec::new());
        }
    };
    verdict.warnings.extend(converted.warnings.iter().cloned());
    check_rules(ingress, &converted, created, &mut verdict);
    check_services(services, ingress, before, &converted, references, &mut verdict);
    if ingress.spec.tls.as_ref().is_some_and(|tls| !tls.is_empty()) {
        let words = "spec.tls: the Secrets are not read; gateways serve the certificates that they are configured with";
        verdict.warnings.push(words.to_owned());
    }
    let before = before.and_then(|before| convert(before, &|_, _| Some(SOME_PORT)).ok()).unwrap_or_default();
    check_conflicts(known, &converted, &before, created, &mut verdict);
    let contested = match verdict.refusals.is_empty() {
        true => new_claims(known, &converted, &before, created),
        false => Vec::new(),
    };
    (verdict.bounded(), contested)
}

/// What it becomes, each as an object.
fn objects<'a>(
    converted: &'a Converted,
    created: &'a Arc<str>,
) -> impl Iterator<Item = (&'a Produced, RawObject)> {
    converted.resources.iter().map(move |produced| (produced, produced.object(created)))
}

/// The rules for what a tenant writes hold for what an Ingress becomes. Of many routes
/// each says the same, which is told once.
fn check_rules(ingress: &Ingress, converted: &Converted, created: &Arc<str>, verdict: &mut Verdict) {
    let mut told = BTreeSet::new();
    for produced in &converted.resources {
        let mut own = Verdict::default();
        rules::check(&produced.object(created), &mut own);
        for Refusal { field, problem, .. } in own.refusals {
            let (field, problem) = match origin_of(ingress, produced.kind, &field) {
                Some(annotation) => (annotation, problem),
                None => (produced.field.clone(), format!("{field} of what it becomes: {problem}")),
            };
            if told.insert((field.clone(), problem.clone())) {
                verdict.refusals.push(Refusal::new(field, problem));
            }
        }
        for warning in own.warnings {
            let warning = format!("of what it becomes: {warning}");
            if !verdict.warnings.contains(&warning) {
                verdict.warnings.push(warning);
            }
        }
    }
}

/// Services that its backends name should be there. Nothing is asked of those of
/// redirects: an Ingress must name one there, too.
fn check_services(
    services: &Services,
    ingress: &Ingress,
    before: Option<&Ingress>,
    converted: &Converted,
    references: References,
    verdict: &mut Verdict,
) {
    let redirects = |produced: &&Produced| {
        let spec = serde_json::from_slice::<Value>(&produced.spec).unwrap_or_default();
        produced.kind.is_route() && spec.get("redirect").is_some()
    };
    if converted.resources.iter().any(|produced| redirects(&produced)) {
        return;
    }
    // What it named already is no reason to refuse that something else is changed.
    let already: BTreeSet<_> = before.into_iter().flat_map(named_services).map(|(_, name)| name).collect();
    let namespace = &ingress.key.namespace;
    let mut told = BTreeSet::new();
    for (field, name) in named_services(ingress) {
        let lacks = services.lack(&ObjectKey::new(namespace.clone(), name));
        if lacks && told.insert(name) {
            let problem = format!("there is no Service {name} in {namespace}; create it");
            match references {
                References::Deny if !already.contains(name) => {
                    verdict.refusals.push(Refusal::new(field, problem));
                }
                _ => verdict.warnings.push(format!("{field}: {problem}")),
            }
        }
    }
}

/// The Services that its backends name, each with the field that does.
fn named_services(ingress: &Ingress) -> impl Iterator<Item = (String, &str)> {
    let rules = ingress.spec.rules.iter().flatten().enumerate();
    let paths = rules.flat_map(|(rule, one)| {
        let paths = one.http.iter().flat_map(|http| &http.paths).enumerate();
        paths.map(move |(path, one)| (format!("spec.rules[{rule}].http.paths[{path}].backend"), &one.backend))
    });
    let default = ingress.spec.default_backend.iter();
    let backends = default.map(|backend| ("spec.defaultBackend".to_owned(), backend)).chain(paths);
    backends.filter_map(|(field, backend)| Some((field, backend.service.as_ref()?.name.as_str())))
}

/// As for what tenants write: who was in conflict already and has to give way, may be changed.
fn check_conflicts(
    known: &Conflicts,
    converted: &Converted,
    before: &Converted,
    created: &Arc<str>,
    verdict: &mut Verdict,
) {
    let already: HashSet<_> = objects(before, created)
        .flat_map(|(_, object)| known.of(&object))
        .map(|conflict| (conflict.kind, conflict.other))
        .collect();
    let made_up = format!(".{SOME_PORT}");
    // Where a backend leads whose port has a name is known when it is made.
    let known_place = |(produced, _): &(&Produced, RawObject)| {
        produced.kind.is_route() || !produced.key.name.ends_with(&made_up)
    };
    for (produced, object) in objects(converted, created).filter(known_place) {
        for Conflict { claim, kind, other, precedes, .. } in known.of(&object) {
            let gives_way = !precedes && already.contains(&(kind, other.clone()));
            if !gives_way {
                let field = produced.field.clone();
                verdict.refusals.push(in_the_way(produced.kind, field, &claim, kind, &other, ""));
            }
        }
    }
}

/// What its routes claim that none of them claimed before. About its backends the owner is
/// asked when they are made.
fn new_claims(
    known: &Conflicts,
    converted: &Converted,
    before: &Converted,
    created: &Arc<str>,
) -> Vec<(Kind, ObjectKey, Vec<Claim>)> {
    let routes = |of| objects(of, created).filter(|(produced, _)| produced.kind.is_route());
    let had: BTreeSet<Stake> = routes(before)
        .flat_map(|(_, object)| known.new_claims(&object, None))
        .map(|claim| claim.stake)
        .collect();
    let new = |(produced, object): (&Produced, RawObject)| {
        let claims = known.new_claims(&object, None).into_iter();
        let claims = claims.filter(|claim| !had.contains(&claim.stake));
        // Its author knows nothing of routes.
        let claims: Vec<Claim> =
            claims.map(|claim| Claim { field: produced.field.as_str().into(), ..claim }).collect();
        (!claims.is_empty()).then(|| (produced.kind, produced.key.clone(), claims))
    };
    routes(converted).filter_map(new).collect()
}
