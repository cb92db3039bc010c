//! What tenants have: routes of the usual size, by number.

use bytes::Bytes;
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;

/// Namespaces over which routes are spread.
pub const TEAMS: u32 = 100;

/// Routes where there are many.
pub const MANY: u32 = 10_000;

/// The revision below those of all objects.
pub const BEGIN: u64 = 1_000;

/// The name of a namespace.
pub fn team(number: u32) -> String {
    format!("team-{:05}", number % TEAMS)
}

fn name(number: u32) -> String {
    format!("route-{number:06}")
}

/// No two turns give the same.
fn spec(number: u32, turn: u64) -> String {
    let (team, name) = (team(number), name(number));
    format!(
        r#"{{"match":[{{"uri":{{"prefix":"/{team}/{name}"}},"methods":["GET","POST"],"headers":[{{"name":"x-tenant","exact":"{team}"}}]}}],"route":[{{"destination":{{"host":"10.0.0.1","port":8080}},"weight":90}},{{"destination":{{"host":"10.0.0.2","port":8080}},"weight":10}}],"timeout":"30s","retries":{{"attempts":3,"perTryTimeout":"10s","retryOn":"5xx,reset,connect-failure"}},"headers":{{"request":{{"set":{{"x-turn":"{turn}"}}}}}}}}"#
    )
}

/// A route as it is after so many changes.
pub fn route(number: u32, turn: u32, revision: u64) -> RawObject {
    RawObject {
        kind: Kind::ApiRoute,
        key: ObjectKey::new(team(number).as_str(), name(number).as_str()),
        uid: uid(number).as_str().into(),
        revision: Revision(revision),
        generation: 1 + i64::from(turn),
        created: "2026-01-01T00:00:00Z".into(),
        deleting: false,
        held: false,
        spec: Bytes::from(spec(number, turn.into())),
        status: Bytes::new(),
    }
}

/// The first of them, as they were created.
pub fn routes(count: u32) -> Vec<RawObject> {
    (0..count).map(|number| route(number, 0, BEGIN + u64::from(number))).collect()
}

fn uid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// The same as [`route`], as an API server writes it.
pub fn json(number: u32, turn: u32, revision: u64) -> String {
    let (team, name, uid, generation) = (team(number), name(number), uid(number), turn + 1);
    let spec = spec(number, turn.into());
    format!(
        r#"{{"apiVersion":"avapigw.io/v1alpha1","kind":"APIRoute","metadata":{{"creationTimestamp":"2026-01-01T00:00:00Z","generation":{generation},"labels":{{"app.kubernetes.io/managed-by":"tenant"}},"managedFields":[{{"apiVersion":"avapigw.io/v1alpha1","fieldsType":"FieldsV1","fieldsV1":{{"f:spec":{{".":{{}},"f:match":{{}},"f:route":{{}},"f:timeout":{{}}}}}},"manager":"tenant","operation":"Update","time":"2026-01-01T00:00:00Z"}}],"name":"{name}","namespace":"{team}","resourceVersion":"{revision}","uid":"{uid}"}},"spec":{spec},"status":{{"conditions":[{{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"Route successfully applied to 200 gateways","observedGeneration":1,"reason":"Reconciled","status":"True","type":"Ready"}}],"observedGeneration":1}}}}"#
    )
}
