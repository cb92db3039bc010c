//! Object → what gateways get. Pure: a function of the object and of which
//! Backends of its namespace exist.
//!
//! Two things are added to the bytes of a spec. The key `name`, which must be
//! unique per kind on a gateway that serves many tenants, becomes
//! `namespace/name`. And a destination host that is the name of a Backend in
//! the route's own namespace becomes that Backend's unique name, so that two
//! tenants may both have a Backend `api`. Everything else stays the bytes that
//! arrived.

use bytes::{BufMut, Bytes, BytesMut};
use flotilla_api::avapigw::Kind as ApiKind;
use flotilla_api::validation::{DestinationHost, inspect};
use flotilla_core::claims::Claim;
use flotilla_core::compile::{Compilation, Compiled, Compiler, Fault, Invalid};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::object::RawObject;

use crate::conflicts::{Scope, claims, claims_of};
use crate::status::withheld;

/// Rank of a route that catches everything: after all others.
const LAST: u8 = 1;

/// The compiler of this family.
#[derive(Debug, Clone, Copy, Default)]
pub struct AvapigwCompiler {
    /// Whose claims meet.
    pub scope: Scope,
}

impl Compiler for AvapigwCompiler {
    fn compile(&self, object: &RawObject, exists: &dyn Fn(Kind, &ObjectKey) -> bool) -> Compilation {
        let inspected = match inspect(api_kind(object.kind), &object.spec) {
            Ok(inspected) => inspected,
            Err(error) => {
                let invalid = Invalid {
                    fault: Fault::Spec,
                    field: error.field,
                    problem: error.problem,
                    remedy: error.remedy,
                };
                return Compilation { outcome: Err(invalid), references: Vec::new(), claims: Vec::new() };
            }
        };
        let mut references = Vec::new();
        let mut replacements = Vec::new();
        for destination in &inspected.destinations {
            let Some(key) = backend_key(object, destination) else { continue };
            let kind = backend_kind(object.kind);
            if exists(kind, &key) {
                replacements.push((destination.range.clone(), key.to_string()));
            }
            if !references.contains(&(kind, key.clone())) {
                references.push((kind, key));
            }
        }
        let outcome = splice(object, &replacements)
            .map(|spec_json| Compiled { spec_json, rank: if inspected.catch_all { LAST } else { 0 } });
        // Backends are not taken from each other: routes lead to them, and one endpoint
        // under two kinds works.
        let claims = inspected.matches.map(|matches| claims_of(object, &matches, self.scope));
        Compilation { outcome, references, claims: claims.unwrap_or_default() }
    }

    fn claims(&self, object: &RawObject) -> Vec<Claim> {
        if object.kind.is_route() { claims(object, self.scope) } else { Vec::new() }
    }

    fn was_withheld(&self, object: &RawObject) -> Option<bool> {
        withheld(&object.status, object.generation)
    }
}

pub(crate) fn api_kind(kind: Kind) -> ApiKind {
    match kind {
        Kind::ApiRoute => ApiKind::ApiRoute,
        Kind::GrpcRoute => ApiKind::GrpcRoute,
        Kind::Backend => ApiKind::Backend,
        Kind::GrpcBackend => ApiKind::GrpcBackend,
    }
}

/// The kind of Backend that routes of this kind lead to.
pub(crate) fn backend_kind(route: Kind) -> Kind {
    if route == Kind::GrpcRoute { Kind::GrpcBackend } else { Kind::Backend }
}

/// The Backend that a host may mean. A host with a dot, a colon or a slash is
/// no Kubernetes name and means itself; asking for it would only make the
/// route depend on something that cannot exist. A dot is legal in the name of
/// a custom resource, and so is still asked for.
fn backend_key(object: &RawObject, destination: &DestinationHost<'_>) -> Option<ObjectKey> {
    let host = destination.host.as_ref();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (!host.is_empty() && host.len() <= 253 && host.chars().all(legal))
        .then(|| ObjectKey::new(object.key.namespace.clone(), host))
}

/// Puts the name in front and the replacements in place.
fn splice(object: &RawObject, replacements: &[(std::ops::Range<usize>, String)]) -> Result<Bytes, Invalid> {
    let spec = &object.spec;
    let not_an_object = || Invalid {
        fault: Fault::Spec,
        field: "spec".to_owned(),
        problem: "is no JSON object".to_owned(),
        remedy: "give the spec as a map of fields".to_owned(),
    };
    let open = spec.iter().position(|byte| *byte == b'{').ok_or_else(not_an_object)?;
    let empty = spec[open + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let extra: usize = replacements.iter().map(|(_, host)| host.len() + 2).sum();
    let mut out = BytesMut::with_capacity(spec.len() + extra + object.key.namespace.len() * 2 + 80);
    // Kubernetes names need no escaping in JSON, and anything else would not
    // have been accepted by the API server; quoted all the same.
    out.put_slice(b"{\"name\":");
    put_string(&mut out, &[&object.key.namespace, "/", &object.key.name]);
    if !empty {
        out.put_u8(b',');
    }
    let mut at = open + 1;
    for (range, host) in replacements {
        out.put_slice(spec.get(at..range.start).ok_or_else(not_an_object)?);
        put_string(&mut out, &[host]);
        at = range.end;
    }
    out.put_slice(spec.get(at..).ok_or_else(not_an_object)?);
    Ok(out.freeze())
}

/// Puts a JSON string that has these parts.
fn put_string(out: &mut BytesMut, parts: &[&str]) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if parts.iter().all(|part| part.bytes().all(is_plain)) {
        out.put_u8(b'"');
        parts.iter().for_each(|part| out.put_slice(part.as_bytes()));
        out.put_u8(b'"');
    } else {
        let quoted = serde_json::Value::from(parts.concat()).to_string();
        out.put_slice(quoted.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flotilla_core::compile::FORM;
    use flotilla_core::ids::Revision;
    use serde_json::{Value, json};

    use super::*;

    fn object(kind: Kind, spec: &str) -> RawObject {
        RawObject {
            kind,
            key: ObjectKey::new("team-a", "r"),
            uid: Arc::from("u"),
            revision: Revision(1),
            generation: 1,
            created: Arc::from(""),
            deleting: false,
            held: false,
            spec: Bytes::copy_from_slice(spec.as_bytes()),
            status: Bytes::new(),
        }
    }

    fn compile(kind: Kind, spec: &str, existing: &[&str]) -> Compilation {
        let exists = |_: Kind, key: &ObjectKey| existing.contains(&key.to_string().as_str());
        AvapigwCompiler::default().compile(&object(kind, spec), &exists)
    }

    fn text(compilation: &Compilation) -> &str {
        std::str::from_utf8(&compilation.outcome.as_ref().unwrap().spec_json).unwrap()
    }

    #[test]
    fn another_form_has_another_number() {
        let of = |kind, spec| {
            let compiled = compile(kind, spec, &["team-a/api"]).outcome;
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            compiled.map(|compiled| (text(&compiled.spec_json), compiled.rank)).map_err(|error| error.field)
        };
        let form = [
            of(Kind::ApiRoute, "{}"),
            of(Kind::ApiRoute, r#"{"match":[{"uri":{"regex":"("}}],"directResponse":{"status":200}}"#),
            of(Kind::GrpcRoute, r#"{"route":[{"destination":{"host":"a.b","port":80}}]}"#),
            of(Kind::GrpcBackend, "{}"),
            of(Kind::ApiRoute, r#"{"route":[{"destination":{"host":"api","port":80}}],"timeout":"5s"}"#),
            of(Kind::ApiRoute, r#"{"match":[{"uri":{"exact":"/a"}}],"directResponse":{"status":200}}"#),
            of(
                Kind::GrpcRoute,
                r#"{"match":[{"service":{"exact":"a.B"}}],"route":[{"destination":{"host":"x","port":1}}]}"#,
            ),
            of(Kind::Backend, r#"{"hosts":[{"address":"x","port":1}]}"#),
            of(Kind::GrpcBackend, r#"{"hosts":[{"address":"y","port":2}]}"#),
        ];
        let expected = [
            Err("spec.route"),
            Err("spec.match[0].uri.regex"),
            Ok((r#""route":[{"destination":{"host":"a.b","port":80}}]"#, 1)),
            Err("spec.hosts"),
            Ok((r#""route":[{"destination":{"host":"team-a/api","port":80}}],"timeout":"5s""#, 1)),
            Ok((r#""match":[{"uri":{"exact":"/a"}}],"directResponse":{"status":200}"#, 0)),
            Ok((
                r#""match":[{"service":{"exact":"a.B"}}],"route":[{"destination":{"host":"x","port":1}}]"#,
                0,
            )),
            Ok((r#""hosts":[{"address":"x","port":1}]"#, 0)),
            Ok((r#""hosts":[{"address":"y","port":2}]"#, 0)),
        ];
        let named = |rest| format!(r#"{{"name":"team-a/r",{rest}}}"#);
        let expected = expected.map(|one| one.map(|(rest, rank)| (named(rest), rank)).map_err(str::to_owned));
        assert_eq!(
            (FORM, form),
            (1, expected),
            "raise FORM with what is expected here: gateways keep what they hold otherwise"
        );
    }

    #[test]
    fn the_bytes_that_arrived_leave_with_the_name_in_front() {
        let spec = r#"{ "hosts" : [{"address":"x","port":1}] , "later":{"a":1.0}}"#;
        let compiled = compile(Kind::Backend, spec, &[]);
        assert_eq!(text(&compiled), format!(r#"{{"name":"team-a/r",{}"#, &spec[1..]));
        assert!(compiled.references.is_empty());
    }

    #[test]
    fn a_destination_finds_the_backend_of_its_own_namespace_first() {
        let spec = r#"{"route":[{"destination":{"host":"api","port":80}},{"destination":{"port":80,"host":"example.com"}}],
            "mirror":{"destination":{"host":"api","port":80}}}"#;
        let without = compile(Kind::ApiRoute, spec, &["team-b/api"]);
        assert_eq!(
            text(&without),
            format!(r#"{{"name":"team-a/r",{}"#, &spec[1..]),
            "another tenant's does not count"
        );
        let with = compile(Kind::ApiRoute, spec, &["team-a/api"]);
        let mut expected: Value = serde_json::from_str(spec).unwrap();
        expected["name"] = json!("team-a/r");
        expected["route"][0]["destination"]["host"] = json!("team-a/api");
        expected["mirror"]["destination"]["host"] = json!("team-a/api");
        assert_eq!(serde_json::from_str::<Value>(text(&with)).unwrap(), expected);
        for compiled in [without, with] {
            let asked: Vec<String> =
                compiled.references.iter().map(|(kind, key)| format!("{kind} {key}")).collect();
            assert_eq!(asked, ["Backend team-a/api", "Backend team-a/example.com"]);
        }
    }

    #[test]
    fn grpc_routes_lead_to_grpc_backends() {
        let spec = r#"{"route":[{"destination":{"host":"api","port":80}}]}"#;
        let compiled = compile(Kind::GrpcRoute, spec, &[]);
        assert_eq!(compiled.references, [(Kind::GrpcBackend, ObjectKey::new("team-a", "api"))]);
    }

    #[test]
    fn a_host_that_is_no_name_is_not_asked_for() {
        for host in ["other/api", "A", "10.0.0.1:80", "[::1]"] {
            let spec = json!({"route": [{"destination": {"host": host, "port": 80}}]}).to_string();
            assert!(compile(Kind::ApiRoute, &spec, &[]).references.is_empty(), "{host}");
        }
    }

    #[test]
    fn what_a_gateway_would_choke_on_compiles_to_a_reason() {
        let spec = r#"{"match":[{"uri":{"regex":"("}}],"route":[{"destination":{"host":"x","port":1}}]}"#;
        let invalid = compile(Kind::ApiRoute, spec, &[]).outcome.unwrap_err();
        assert_eq!(invalid.field, "spec.match[0].uri.regex");
        assert!(!invalid.problem.is_empty() && !invalid.remedy.is_empty());
        let spec = r#"{"authorization":{"enabled":true,"abac":{"enabled":true,"policies":[{"name":"a",
            "expression":"user.admin"}]}},"route":[{"destination":{"host":"x","port":1}}]}"#;
        let invalid = compile(Kind::ApiRoute, spec, &[]).outcome.unwrap_err();
        assert_eq!(invalid.field, "spec.authorization.abac.policies[0].expression");
    }

    #[test]
    fn routes_claim_their_matches_and_backends_nothing() {
        let route = r#"{"match":[{"uri":{"prefix":"/a"}},{"uri":{"exact":"/b"},"methods":["GET"]}],
            "route":[{"destination":{"host":"x","port":1}}]}"#;
        let claims = compile(Kind::ApiRoute, route, &[]).claims;
        let said: Vec<_> = claims.iter().map(|one| (&*one.field, &*one.words)).collect();
        assert_eq!(said, [("spec.match[0]", "uri prefix /a"), ("spec.match[1]", "uri exact /b")]);
        let backend = r#"{"hosts":[{"address":"x","port":1}]}"#;
        assert!(compile(Kind::Backend, backend, &[]).claims.is_empty());
        let invalid = r#"{"match":[{"uri":{"regex":"("}}],"route":[{"destination":{"host":"x","port":1}}]}"#;
        assert!(compile(Kind::ApiRoute, invalid, &[]).claims.is_empty());
    }

    /// The index of claims reads `match` alone, the compiler with the rest.
    #[test]
    fn what_is_delivered_claims_what_the_index_says() {
        let entries = [
            "",
            r#""match":null,"#,
            r#""match":[],"#,
            r#""match":[{"uri":{"prefix":"/a\u0062"},"headers":[{"name":"X","exact":""}],"queryParams":[{"name":"Q"}]},{"methods":["get"]}],"#,
            r#""match":[{"uri":{"prefix":"/a"}},{"methods":["NONE"]}],"#,
            r#""match":[{"uri":{"prefix":"/a"}},{"methods":null}],"#,
            r#""match":[{"headers":[{"name":"a","exact":"1","exact":"2"}]}],"#,
        ];
        let counts = entries.map(|entries| {
            let spec = format!(r#"{{{entries}"route":[{{"destination":{{"host":"x","port":1}}}}]}}"#);
            let compiled = compile(Kind::ApiRoute, &spec, &[]);
            assert!(compiled.outcome.is_ok(), "{spec}");
            let by_itself = AvapigwCompiler::default().claims(&object(Kind::ApiRoute, &spec));
            assert_eq!(compiled.claims, by_itself, "{spec}");
            compiled.claims.len()
        });
        assert_eq!(counts, [1, 1, 1, 2, 1, 0, 0]);
    }

    #[test]
    fn names_are_quoted() {
        let mut out = BytesMut::new();
        put_string(&mut out, &["a", "/", "b\u{e4}"]);
        put_string(&mut out, &["a\"", "\u{1}\\"]);
        assert_eq!(out.as_ref(), "\"a/b\u{e4}\"\"a\\\"\\u0001\\\\\"".as_bytes());
    }

    #[test]
    fn a_route_that_catches_everything_comes_last() {
        let route = |prefix: &str| {
            json!({"match": [{"uri": {"prefix": prefix}}], "route": [{"destination": {"host": "x", "port": 1}}]})
                .to_string()
        };
        let rank = |spec: &str| compile(Kind::ApiRoute, spec, &[]).outcome.unwrap().rank;
        assert!(rank(&route("/")) > rank(&route("/a")));
    }
}
