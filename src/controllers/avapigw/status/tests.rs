//! Statuses as users read them.

use std::sync::Arc;

use bytes::Bytes;
use flotilla_core::compile::{Fault, Invalid};
use flotilla_core::ids::{GatewayId, Kind, ObjectKey, Revision};
use flotilla_core::report::turned;

use serde_json::{Value, json};

use super::*;

const WALL: &str = "2026-11-21T10:00:00Z";
const EPOCH: Epoch = Epoch(7);

fn object(kind: Kind, status: &Value) -> RawObject {
    RawObject {
        kind,
        key: ObjectKey::new("n", "x"),
        uid: Arc::from("u-1"),
        revision: Revision(42),
        generation: 3,
        created: Arc::from(""),
        deleting: false,
        held: false,
        spec: Bytes::from_static(b"{\"hosts\":[{},{}]}"),
        status: Bytes::from(if status.is_null() { String::new() } else { status.to_string() }),
    }
}

fn reach(applied: u32, gateways: u32) -> Reach {
    Reach { applied, gateways, ..Reach::default() }
}

fn gateway(name: &str) -> GatewayId {
    GatewayId { namespace: Arc::from("gw"), name: Arc::from(name) }
}

fn plan(kind: Kind, status: &Value, reach: &Reach) -> (Option<Value>, Finality) {
    let planned = AvapigwStatus.plan(WALL, EPOCH, &object(kind, status), Validity::Valid, reach);
    (planned.patch.map(|patch| serde_json::from_slice(&patch).unwrap()), planned.finality)
}

fn condition<'a>(patch: &'a Value, type_: &str) -> &'a Value {
    let all = patch["status"]["conditions"].as_array().unwrap();
    all.iter().find(|one| one["type"] == type_).unwrap()
}

fn ready_of(reach: &Reach) -> (String, String, String, Finality) {
    let (patch, finality) = plan(Kind::ApiRoute, &Value::Null, reach);
    let patch = patch.unwrap();
    let ready = condition(&patch, "Ready");
    let text = |key: &str| ready[key].as_str().unwrap().to_owned();
    (text("status"), text("reason"), text("message"), finality)
}

#[test]
fn ready_says_what_is() {
    let rejected = Reach { rejections: vec![(gateway("a"), "bad\nregex".to_owned())], ..reach(19, 20) };
    let waiting = Reach { rejections: vec![(gateway("a"), "bad".to_owned())], ..reach(3, 20) };
    for (reach, status, reason, message, finality) in [
        (reach(20, 20), "True", "Reconciled", "Route successfully applied to 20 gateways", Finality::Final),
        (reach(1, 1), "True", "Reconciled", "Route successfully applied to 1 gateway", Finality::Final),
        (reach(17, 20), "False", "Applying", "Applied 17/20 gateways", Finality::Progress),
        (reach(0, 0), "Unknown", "NoGateways", "No gateway is connected", Finality::Final),
        (
            rejected,
            "False",
            "ApplyFailed",
            "Applied 19/20 gateways; rejected by gw/a: bad regex",
            Finality::Final,
        ),
        (waiting, "False", "ApplyFailed", "Applied 3/20 gateways; rejected by gw/a: bad", Finality::Progress),
    ] {
        let expected = (status.to_owned(), reason.to_owned(), message.to_owned(), finality);
        assert_eq!(ready_of(&reach), expected);
    }
}

#[test]
fn what_is_not_delivered_is_applied_nowhere() {
    let invalid = Invalid {
        fault: Fault::Spec,
        field: "f".to_owned(),
        problem: "p".to_owned(),
        remedy: "r".to_owned(),
    };
    let passed_by = Reach { names: vec![gateway("a")], ..reach(1, 1) };
    let object = object(
        Kind::ApiRoute,
        &json!({"appliedGateways": [{"name": "a", "namespace": "gw", "lastApplied": WALL}]}),
    );
    let patch =
        AvapigwStatus.plan(WALL, EPOCH, &object, Validity::Invalid(&invalid), &passed_by).patch.unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    assert_eq!(patch["status"]["appliedGateways"], json!([]));
}

#[test]
fn gateways_that_ask_for_something_else_are_not_no_gateways() {
    let (status, reason, ..) = ready_of(&Reach { connected: 3, ..reach(0, 0) });
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "NotServed"));
}

#[test]
fn a_status_that_is_right_is_not_written_again() {
    for kind in Kind::ALL {
        let with_names = Reach { names: vec![gateway("a"), gateway("b")], ..reach(2, 2) };
        let (patch, _) = plan(kind, &Value::Null, &with_names);
        let mut status = patch.unwrap()["status"].take();
        assert_eq!(plan(kind, &status, &with_names).0, None, "{kind}");
        assert!(plan(kind, &status, &reach(3, 3)).0.is_some());
        status["observedGeneration"] = json!(2);
        assert!(plan(kind, &status, &with_names).0.is_some());
    }
}

#[test]
fn what_was_said_last_of_this_generation_stands() {
    let rejected = Reach { rejections: vec![(gateway("a"), "bad".to_owned())], ..reach(1, 2) };
    for (said, stands) in [(reach(2, 2), true), (rejected, true), (reach(1, 2), false), (reach(0, 0), false)]
    {
        let mut status = plan(Kind::ApiRoute, &Value::Null, &said).0.unwrap()["status"].take();
        let planned = |status: &Value, validity| {
            AvapigwStatus.plan(WALL, EPOCH, &object(Kind::ApiRoute, status), validity, &reach(0, 0))
        };
        assert_eq!(planned(&status, Validity::Valid).stands, stands, "{said:?}");
        let invalid = Invalid {
            fault: Fault::Spec,
            field: "f".to_owned(),
            problem: "p".to_owned(),
            remedy: "r".to_owned(),
        };
        assert!(!planned(&status, Validity::Invalid(&invalid)).stands, "no gateway makes it invalid");
        status["observedGeneration"] = json!(2);
        assert!(!planned(&status, Validity::Valid).stands, "it is about another content");
    }
}

#[test]
fn a_status_of_a_later_epoch_is_left_alone() {
    let reach = reach(2, 2);
    for (written, fenced) in [(6, false), (7, false), (8, true)] {
        let (patch, finality) = plan(Kind::Backend, &json!({"epoch": written}), &reach);
        assert_eq!((patch.is_none(), finality == Finality::Fenced), (fenced, fenced), "{written}");
        assert!(patch.is_none_or(|patch| patch["status"]["epoch"] == 7));
    }
    // A new epoch alone is no reason to write.
    let mut status = plan(Kind::Backend, &Value::Null, &reach).0.unwrap()["status"].take();
    status["epoch"] = json!(6);
    assert_eq!(plan(Kind::Backend, &status, &reach), (None, Finality::Final));
}

#[test]
fn a_patch_carries_its_precondition_and_leaves_others_conditions_alone() {
    let foreign = json!({"type": "Audited", "status": "True", "reason": "Ok", "message": "m", "lastTransitionTime": "t"});
    let (patch, _) = plan(Kind::Backend, &json!({"conditions": [foreign]}), &reach(2, 2));
    let patch = patch.unwrap();
    assert_eq!(
        patch["metadata"],
        json!({"name": "x", "namespace": "n", "resourceVersion": "42", "uid": "u-1"})
    );
    assert_eq!(patch["apiVersion"], "avapigw.io/v1alpha1");
    assert_eq!(patch["kind"], "Backend");
    // What is not applied is not touched.
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().all(|condition| condition["type"] != "Audited"), "{conditions:?}");
    assert_eq!(patch["status"]["totalHosts"], 2);
    assert_eq!(patch["status"]["observedGeneration"], 3);
    assert_eq!(condition(&patch, "Healthy")["status"], "Unknown");
}

#[test]
fn an_invalid_object_says_field_problem_and_remedy() {
    let invalid = Invalid {
        fault: Fault::Spec,
        field: "spec.match[0].uri.regex".to_owned(),
        problem: "does not compile".to_owned(),
        remedy: "close the group".to_owned(),
    };
    let planned = AvapigwStatus.plan(
        WALL,
        EPOCH,
        &object(Kind::ApiRoute, &Value::Null),
        Validity::Invalid(&invalid),
        &reach(0, 9),
    );
    let patch: Value = serde_json::from_slice(&planned.patch.unwrap()).unwrap();
    for type_ in ["Ready", "Valid"] {
        let found = condition(&patch, type_);
        assert_eq!((&found["status"], &found["reason"]), (&json!("False"), &json!("ValidationFailed")));
        let message = found["message"].as_str().unwrap();
        assert!(message.contains("spec.match[0].uri.regex: does not compile; close the group"), "{message}");
    }
}

#[test]
fn who_lost_to_another_says_so_and_is_known_by_it() {
    let invalid = Invalid {
        fault: Fault::Conflict,
        field: "spec.match[0]".to_owned(),
        problem: "uri prefix /a is taken by APIRoute n/first, which comes first".to_owned(),
        remedy: "claim something else".to_owned(),
    };
    let said = |validity| {
        let object = object(Kind::ApiRoute, &Value::Null);
        let planned = AvapigwStatus.plan(WALL, EPOCH, &object, validity, &reach(1, 1));
        serde_json::from_slice::<Value>(&planned.patch.unwrap()).unwrap()
    };
    let lost = said(Validity::Invalid(&invalid));
    for type_ in ["Ready", "Valid"] {
        let found = condition(&lost, type_);
        assert_eq!((&found["status"], &found["reason"]), (&json!("False"), &json!("Conflict")));
        assert!(found["message"].as_str().unwrap().contains("APIRoute n/first"));
    }
    let generation = object(Kind::ApiRoute, &Value::Null).generation;
    let of = |status: &Value| withheld(status["status"].to_string().as_bytes(), generation);
    assert_eq!(of(&lost), Some(true));
    assert_eq!(withheld(lost["status"].to_string().as_bytes(), generation + 1), None, "of another one");
    let wrong = Invalid { fault: Fault::Spec, problem: "Conflict".to_owned(), ..invalid.clone() };
    for other in [said(Validity::Invalid(&wrong)), said(Validity::Valid)] {
        assert_eq!(of(&other), Some(false), "{other}");
    }
    assert_eq!((withheld(b"Conflict", generation), withheld(b"", generation)), (None, None));
}

/// As the published operator leaves a backend behind, with a condition of
/// somebody else.
fn published_backend() -> Value {
    let condition = |type_: &str, reason: &str| {
        json!({"type": type_, "status": "True", "reason": reason,
        "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 3})
    };
    json!({
        "conditions": [condition("Ready", "Reconciled"), condition("Healthy", "HealthCheckOK"),
            condition("Audited", "ByHand")],
        "observedGeneration": 3,
        "totalHosts": 2,
        "healthyHosts": 2,
        "lastHealthCheck": "2026-01-01T00:00:00Z",
    })
}

/// RFC 7386, for the objects of these tests.
fn merged(mut status: Value, patch: &Value) -> Value {
    for (field, value) in patch.as_object().unwrap() {
        match value {
            Value::Null => status.as_object_mut().unwrap().remove(field),
            value => status.as_object_mut().unwrap().insert(field.clone(), value.clone()),
        };
    }
    status
}

#[test]
fn health_that_others_told_is_taken_out_once_and_their_conditions_stay() {
    for (healthy, checked) in [(true, true), (true, false), (false, true)] {
        let mut before = published_backend();
        let fields = before.as_object_mut().unwrap();
        [("healthyHosts", healthy), ("lastHealthCheck", checked)]
            .iter()
            .filter(|(_, there)| !there)
            .for_each(|(field, _)| drop(fields.remove(*field)));
        let patch = plan(Kind::Backend, &before, &reach(2, 2)).0.unwrap();
        let after = merged(before.clone(), &patch["status"]);
        assert_eq!((after.get("healthyHosts"), after.get("lastHealthCheck")), (None, None), "{after}");
        assert_eq!(condition(&json!({"status": after}), "Audited"), &before["conditions"][2]);
        assert_eq!(condition(&patch, "Ready")["lastTransitionTime"], "2026-01-01T00:00:00Z");
        assert_eq!(condition(&patch, "Healthy")["status"], "Unknown", "nobody checked");
        assert_eq!(plan(Kind::Backend, &after, &reach(2, 2)).0, None, "once and not again");
        // From then on it is applied, and others' conditions are theirs.
        let later = plan(Kind::Backend, &after, &reach(3, 3)).0.unwrap();
        assert!(later["status"].get("healthyHosts").is_none(), "{later}");
        assert_eq!(later["status"]["conditions"].as_array().unwrap().len(), 3);
    }
}

#[test]
fn a_published_backend_stands_until_gateways_say_otherwise() {
    let planned = AvapigwStatus.plan(
        WALL,
        EPOCH,
        &object(Kind::Backend, &published_backend()),
        Validity::Valid,
        &reach(0, 0),
    );
    assert!(planned.stands);
}

#[test]
fn a_gateways_time_moves_only_with_the_generation() {
    let with_names = Reach { names: vec![gateway("a")], ..reach(1, 1) };
    let before = json!({"observedGeneration": 3, "appliedGateways":
        [{"name": "a", "namespace": "gw", "lastApplied": "2026-01-01T00:00:00Z"}]});
    let (patch, _) = plan(Kind::ApiRoute, &before, &with_names);
    let unchanged = &patch.unwrap()["status"]["appliedGateways"];
    assert_eq!(unchanged, &before["appliedGateways"], "what is applied no more would be removed");
    let two = Reach { names: vec![gateway("a"), gateway("b")], ..reach(2, 2) };
    let (patch, _) = plan(Kind::ApiRoute, &before, &two);
    let times: Vec<Value> = patch.unwrap()["status"]["appliedGateways"].as_array().unwrap().clone();
    assert_eq!(
        (&times[0]["lastApplied"], &times[1]["lastApplied"]),
        (&json!("2026-01-01T00:00:00Z"), &json!(WALL))
    );
}

#[test]
fn another_fault_of_a_spec_is_another_turn_and_another_count_is_none() {
    let told = |before: (Validity<'_>, Reach), now: (Validity<'_>, Reach)| {
        let plan = |status: &Value, (validity, reach): &(Validity<'_>, Reach)| {
            AvapigwStatus.plan(WALL, EPOCH, &object(Kind::ApiRoute, status), *validity, reach)
        };
        let patch: Value = serde_json::from_slice(&plan(&Value::Null, &before).patch.unwrap()).unwrap();
        plan(&patch["status"], &now).turn.and_then(|turn| turned(turn.from, turn.to))
    };
    let [a, b] = ["a", "b"].map(|field| Invalid {
        fault: Fault::Spec,
        field: field.to_owned(),
        problem: "p".to_owned(),
        remedy: "r".to_owned(),
    });
    let wrong = |invalid| (Validity::Invalid(invalid), reach(0, 2));
    assert_eq!(told(wrong(&a), wrong(&b)), Some(false));
    assert_eq!(told(wrong(&a), (Validity::Invalid(&a), reach(0, 3))), None);
    let rejected = |of| {
        let rejections = vec![(gateway("a"), "bad".to_owned())];
        (Validity::Valid, Reach { rejections, ..reach(of - 1, of) })
    };
    assert_eq!(told(rejected(2), rejected(3)), None);
}

#[test]
fn a_patch_says_how_the_object_stood_and_how_it_stands() {
    let rejected = Reach { rejections: vec![(gateway("a"), "bad".to_owned())], ..reach(1, 2) };
    let wrong = Invalid {
        fault: Fault::Spec,
        field: "f".to_owned(),
        problem: "p".to_owned(),
        remedy: "r".to_owned(),
    };
    let mut status = Value::Null;
    let mut stood = Standing::Unsaid;
    for (validity, reach, stands) in [
        (Validity::Valid, reach(1, 2), Standing::Underway),
        (Validity::Valid, rejected, Standing::Bad("ApplyFailed", 0)),
        (Validity::Invalid(&wrong), reach(0, 2), Standing::Bad("ValidationFailed", 0)),
        (Validity::Valid, reach(0, 0), Standing::Alone),
        (Validity::Valid, reach(2, 2), Standing::Well),
    ] {
        let planned = AvapigwStatus.plan(WALL, EPOCH, &object(Kind::ApiRoute, &status), validity, &reach);
        let turn = planned.turn.unwrap();
        assert_eq!(turn.from, stood);
        let reason = |standing| match standing {
            Standing::Bad(reason, _) => Standing::Bad(reason, 0),
            standing => standing,
        };
        assert_eq!(reason(turn.to), stands);
        stood = turn.to;
        let patch: Value = serde_json::from_slice(&planned.patch.unwrap()).unwrap();
        assert_eq!(turn.message, condition(&patch, "Ready")["message"].as_str().unwrap());
        status = patch["status"].clone();
    }
    // As others write it.
    let theirs = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "Odd", "message": "m",
        "lastTransitionTime": "t"}]});
    let planned =
        AvapigwStatus.plan(WALL, EPOCH, &object(Kind::ApiRoute, &theirs), Validity::Valid, &reach(2, 2));
    assert_eq!(planned.turn.map(|turn| turn.from), Some(Standing::Bad("", 0)));
    assert_eq!(
        AvapigwStatus.plan(WALL, EPOCH, &object(Kind::ApiRoute, &status), Validity::Valid, &reach(2, 2)).turn,
        None,
        "nothing is written"
    );
}
