//! A destination's host can be replaced in the bytes of a spec, and nothing
//! else changes.

use flotilla_api::avapigw::Kind;
use flotilla_api::validation::{inspect, is_catch_all, route_destinations, validate_for_gateway};
use proptest::prelude::*;
use serde_json::{Value, json};

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z][a-z0-9-]{0,20}",
        Just("sp\u{e4}ti/\u{1F6A2}".to_owned()),
        Just("quote\"back\\slash\ttab\n\u{0}".to_owned()),
        any::<String>(),
    ]
}

fn weighted() -> impl Strategy<Value = Value> {
    (prop::option::of(host()), 1..=65_535_u16, any::<bool>()).prop_map(|(host, port, weight)| {
        let mut destination = json!({ "port": port, "labels": { "host": "not this one" } });
        if let Some(host) = host {
            destination["host"] = json!(host);
        }
        let mut entry = json!({ "destination": destination, "host": "nor this" });
        if weight {
            entry["weight"] = json!(100);
        }
        entry
    })
}

fn route() -> impl Strategy<Value = Value> {
    (
        prop::collection::vec(weighted(), 0..5),
        prop::option::of(host()),
        prop::option::of(any::<String>()),
        any::<bool>(),
    )
        .prop_map(|(entries, mirror, body, mirror_first)| {
            let mut route = serde_json::Map::new();
            // Keys of a map are sorted, so the name decides which comes first.
            let unknown = if mirror_first { "zz" } else { "aa" };
            route.insert(unknown.into(), json!({ "route": [{ "destination": { "host": "not this one" } }] }));
            route.insert("route".into(), Value::Array(entries));
            if let Some(mirror) = mirror {
                route.insert("mirror".into(), json!({ "destination": { "host": mirror, "port": 80 } }));
            }
            if let Some(body) = body {
                route.insert("directResponse".into(), json!({ "status": 200, "body": body }));
            }
            Value::Object(route)
        })
}

/// The pointers of all hosts, in the order in which they stand in the bytes.
fn host_pointers(route: &Value) -> Vec<String> {
    let mirror = "/mirror/destination/host".to_owned();
    let routes =
        (0..route["route"].as_array().map_or(0, Vec::len)).map(|at| format!("/route/{at}/destination/host"));
    // "mirror" sorts before "route".
    std::iter::once(mirror).chain(routes).filter(|pointer| route.pointer(pointer).is_some()).collect()
}

fn encoded(route: &Value, pretty: bool) -> Vec<u8> {
    if pretty { serde_json::to_vec_pretty(route) } else { serde_json::to_vec(route) }.expect("JSON")
}

proptest! {
    #[test]
    fn a_splice_changes_one_value_and_nothing_else(
        route in route(), pretty in any::<bool>(), replacement in host(), pick in any::<prop::sample::Index>()
    ) {
        let spec = encoded(&route, pretty);
        let destinations = route_destinations(&spec).expect("a route");
        let pointers = host_pointers(&route);
        prop_assert_eq!(destinations.len(), pointers.len());
        for (destination, pointer) in destinations.iter().zip(&pointers) {
            prop_assert_eq!(Some(destination.host.as_ref()), route.pointer(pointer).and_then(Value::as_str));
            prop_assert_eq!(&spec[destination.range.clone()][..1], b"\"");
        }
        if destinations.is_empty() {
            return Ok(());
        }
        let at = pick.index(destinations.len());
        let mut spliced = spec.clone();
        spliced.splice(destinations[at].range.clone(), serde_json::to_vec(&replacement).expect("JSON"));
        let mut expected = route.clone();
        *expected.pointer_mut(&pointers[at]).expect("there") = json!(replacement);
        prop_assert_eq!(serde_json::from_slice::<Value>(&spliced).expect("still JSON"), expected);
        let untouched = spec.len() - destinations[at].range.len();
        prop_assert_eq!(spliced.len(), untouched + serde_json::to_vec(&replacement).expect("JSON").len());
    }

    #[test]
    fn inspection_agrees_with_the_single_questions(route in route(), pretty in any::<bool>()) {
        let spec = encoded(&route, pretty);
        for kind in [Kind::ApiRoute, Kind::GrpcRoute] {
            match inspect(kind, &spec) {
                Ok(inspection) => {
                    prop_assert_eq!(validate_for_gateway(kind, &spec), Ok(()));
                    prop_assert_eq!(Ok(inspection.destinations), route_destinations(&spec));
                    prop_assert_eq!(inspection.catch_all, is_catch_all(kind, &spec));
                }
                Err(error) => prop_assert_eq!(validate_for_gateway(kind, &spec), Err(error)),
            }
        }
    }

    #[test]
    fn no_bytes_make_validation_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for kind in Kind::ALL {
            let _ = inspect(kind, &bytes);
            let _ = is_catch_all(kind, &bytes);
        }
        let _ = route_destinations(&bytes);
    }

    #[test]
    fn no_damage_to_a_spec_makes_validation_panic(
        route in route(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        let mut spec = encoded(&route, true);
        let at = at.index(spec.len());
        if cut { spec.truncate(at) } else { spec[at] = byte }
        for kind in Kind::ALL {
            if let Err(error) = inspect(kind, &spec) {
                prop_assert!(error.field.starts_with("spec"), "{}", error);
            }
        }
    }

    #[test]
    fn no_pattern_makes_the_check_panic(pattern in "[-a-c(){}\\[\\]\\\\|*+?^$:<>,0-9PpQExidé&]{0,24}") {
        let _ = flotilla_api::validation::check_go_regex(&pattern);
    }
}
