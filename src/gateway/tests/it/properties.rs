//! Properties of the state over arbitrary updates.

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_core::ids::Kind;
use flotilla_gateway::resource::{Incoming, Resource, digest};
use flotilla_gateway::state::{Change, Outcome};
use proptest::prelude::*;

use crate::updates::{Tester, backend, resource, route};

/// Resources of which some are bad, over few keys so that they meet.
fn any_resource() -> impl Strategy<Value = Incoming> {
    let key = (0..3u8, 0..4u8).prop_map(|(namespace, name)| format!("n{namespace}/r{name}"));
    (key, 1..4i64, 0..8u8).prop_map(|(key, generation, form)| match form {
        0..=2 => route(&key, generation),
        3 | 4 => backend(&key, generation),
        5 => resource(Kind::ApiRoute, &key, generation, r#"{"name":"twin"}"#),
        6 => resource(Kind::ApiRoute, &key, generation, r#"{"match":[{"uri":{"regex":"("}}]}"#),
        _ => resource(Kind::Backend, &key, generation, "{}"),
    })
}

#[derive(Debug, Clone)]
enum Step {
    Upsert(Incoming),
    Delete(Incoming),
    FullSync(Vec<Incoming>),
    Register,
    Wait,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_resource().prop_map(Step::Upsert),
        3 => any_resource().prop_map(Step::Delete),
        2 => prop::collection::vec(any_resource(), 0..6).prop_map(Step::FullSync),
        1 => Just(Step::Register),
        1 => Just(Step::Wait),
    ]
}

fn run(gateway: &mut Tester, step: Step) {
    match step {
        Step::Upsert(resource) => drop(gateway.upsert(resource)),
        Step::Delete(resource) => drop(gateway.delete(resource)),
        Step::FullSync(resources) => drop(gateway.full_sync(resources)),
        Step::Register => gateway.register(),
        Step::Wait => gateway.now += 40,
    }
}

/// What loading has to come to, computed from scratch in the order of keys.
fn loads_completely(held: &BTreeMap<String, Arc<Resource>>) -> bool {
    let mut names = std::collections::BTreeSet::new();
    held.values().all(|resource| {
        resource.fault().is_none()
            && (resource.kind == Kind::Backend || names.insert((resource.kind, resource.name().clone())))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn repeating_an_upsert_changes_nothing(
        steps in prop::collection::vec(any_step(), 0..12),
        last in any_resource(),
    ) {
        let seen = |gateway: &Tester| {
            (digest(gateway.state.held()), gateway.loaded(Kind::ApiRoute), gateway.loaded(Kind::Backend))
        };
        let mut gateway = Tester::new();
        for step in steps {
            run(&mut gateway, step);
        }
        let first = gateway.upsert(last.clone());
        let before = seen(&gateway);
        let again = gateway.apply(Change::Upsert(last));
        prop_assert_eq!(before, seen(&gateway));
        prop_assert_eq!(first, again.outcome);
        prop_assert!(again.differences.is_empty());
    }

    #[test]
    fn the_digest_does_not_depend_on_order(
        resources in prop::collection::vec(any_resource(), 1..10),
        seed in any::<u64>(),
    ) {
        // One per kind and key, or the last one would win.
        let unique: BTreeMap<_, _> = resources.into_iter().map(|r| ((r.kind, r.key()), r)).collect();
        let mut shuffled: Vec<_> = unique.values().cloned().collect();
        let mut state = seed;
        shuffled.sort_by_cached_key(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state
        });
        let (mut one, mut other) = (Tester::new(), Tester::new());
        for resource in unique.into_values() {
            one.upsert(resource);
        }
        for resource in shuffled {
            other.upsert(resource);
        }
        prop_assert_eq!(digest(one.state.held()), digest(other.state.held()));
    }

    #[test]
    fn an_acknowledged_increment_is_in_force_and_a_rejected_one_moves_nothing_on(
        steps in prop::collection::vec(any_step(), 1..20),
    ) {
        let mut gateway = Tester::new();
        for step in steps {
            let before = gateway.position();
            match step {
                Step::Upsert(incoming) => {
                    let kind = incoming.kind.unwrap();
                    let key = incoming.key();
                    let outcome = gateway.upsert(incoming);
                    let held: BTreeMap<String, Arc<Resource>> = gateway
                        .state
                        .held()
                        .filter(|resource| resource.kind == kind)
                        .map(|resource| (resource.key.to_string(), resource.clone()))
                        .collect();
                    prop_assert_eq!(outcome == Outcome::Ack, loads_completely(&held));
                    if outcome == Outcome::Ack {
                        prop_assert!(gateway.loaded(kind).contains(&key.to_string()));
                        prop_assert_eq!(gateway.loaded(kind).len(), held.len());
                    } else {
                        prop_assert_eq!(gateway.position(), before);
                    }
                }
                other => run(&mut gateway, other),
            }
        }
    }

    #[test]
    fn counters_account_for_every_update(steps in prop::collection::vec(any_step(), 0..30)) {
        let mut gateway = Tester::new();
        for step in steps {
            run(&mut gateway, step);
        }
        let stats = gateway.state.stats;
        prop_assert_eq!(stats.updates, stats.acks + stats.nacks + stats.skipped);
        prop_assert!(stats.guard_ignored <= stats.full_syncs);
    }
}
