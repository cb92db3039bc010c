//! The rules of Events.
//!
//! Events of the older group are hardly looked at, for the sake of old clients. Those that carry an `eventTime`, and
//! all that come through events.k8s.io, have to be complete.

use serde_json::Value;

use super::names::check_qualified;
use crate::schema::Cause;
use crate::store::text;

/// Longest text of each field, in bytes.
const LIMITS: [(&str, usize); 3] = [("reportingInstance", 128), ("action", 128), ("reason", 128)];
/// Longest message, in bytes.
const MESSAGE_LIMIT: usize = 1024;

/// Checks an event in either shape.
pub(super) fn validate(event: &Value, new: bool, causes: &mut Vec<Cause>) {
    let modern = text(event, "/apiVersion").starts_with("events.k8s.io/");
    let (about, controller, message) = if modern {
        ("regarding", "reportingController", "note")
    } else {
        ("involvedObject", "reportingComponent", "message")
    };
    let namespace = text(event, &format!("/{about}/namespace"));
    let own = text(event, "/metadata/namespace");
    let timed = event["eventTime"].is_string();
    let fits = match (namespace, timed) {
        ("", false) => own == "default",
        ("", true) => own == "default" || own == "kube-system",
        (namespace, false) => namespace == own,
        (_, true) => true,
    };
    if !fits {
        let why = "does not match event.namespace";
        causes.push(Cause::invalid("involvedObject.namespace", &namespace.into(), why));
    }
    if timed {
        let found = text(event, &format!("/{controller}"));
        if found.is_empty() {
            causes.push(Cause::required(controller, ""));
        }
        check_qualified(controller, found, causes);
        for (field, limit) in LIMITS {
            let found = text(event, &format!("/{field}"));
            if found.is_empty() {
                causes.push(Cause::required(field, ""));
            }
            too_long(field, found, limit, causes);
        }
        too_long("message", text(event, &format!("/{message}")), MESSAGE_LIMIT, causes);
    }
    if modern && new {
        if !timed {
            causes.push(Cause::required("eventTime", ""));
        }
        let kind = text(event, "/type");
        if kind != "Normal" && kind != "Warning" {
            causes.push(Cause::invalid("type", &"".into(), &format!("has invalid value: {kind}")));
        }
    }
}

fn too_long(field: &str, found: &str, limit: usize, causes: &mut Vec<Cause>) {
    if found.len() > limit {
        causes.push(Cause::invalid(field, &"".into(), &format!("can have at most {limit} characters")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(event: Value, fields: &[&str]) {
        let mut causes = Vec::new();
        validate(&event, true, &mut causes);
        let found: Vec<&str> = causes.iter().map(|cause| cause.field.as_str()).collect();
        assert_eq!(found, fields, "{event}: {causes:?}");
    }

    #[test]
    fn old_events_stay_in_the_namespace_of_what_they_are_about() {
        let event = |own: &str, about: &str| json!({"apiVersion": "v1", "metadata": {"namespace": own}, "involvedObject": {"namespace": about}});
        check(event("n", "n"), &[]);
        check(event("n", "m"), &["involvedObject.namespace"]);
        check(event("n", ""), &["involvedObject.namespace"]);
        check(event("default", ""), &[]);
    }

    #[test]
    fn new_events_are_complete() {
        let time = "2026-01-01T00:00:00.000000Z";
        let event = json!({"apiVersion": "events.k8s.io/v1", "metadata": {"namespace": "n"}, "eventTime": time,
            "regarding": {"namespace": "n"}, "reportingController": "test.example/c", "reportingInstance": "i",
            "action": "a", "reason": "r", "type": "Normal"});
        check(event.clone(), &[]);
        check(
            json!({"apiVersion": "events.k8s.io/v1", "metadata": {"namespace": "n"}, "regarding": {"namespace": "n"}}),
            &["eventTime", "type"],
        );
        let mut bare = event;
        bare["reportingInstance"] = json!("");
        bare["action"] = json!("x".repeat(129));
        check(bare, &["reportingInstance", "action"]);
    }
}
