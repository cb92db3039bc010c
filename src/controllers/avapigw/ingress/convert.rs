//! The conversion itself: from rules and paths to specs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flotilla_api::ingress::{HTTPIngressPath, IngressBackend, IngressServiceBackend};
use flotilla_api::validation::inspect;
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_core::ring::Position;
use serde_json::{Map, Value, json};

use super::annotations::{self, Annotations, Given, Part, origin};
use super::{Converted, Fault, Faults, Ingress, Produced, Unresolved, hosts};
use crate::compile::{api_kind, backend_kind};

/// The longest name of an object in Kubernetes.
const LONGEST_NAME: usize = 253;

/// Ports that something can listen on.
const PORTS: std::ops::RangeInclusive<i32> = 1..=65_535;

/// Converts an Ingress, whatever its class. `ports` looks up a port of a Service in the
/// namespace of the Ingress by its name.
///
/// # Errors
/// Everything that is wrong with it. It then becomes nothing: half of an Ingress might
/// lead requests to where its author did not want them.
pub fn convert(ingress: &Ingress, ports: &dyn Fn(&str, &str) -> Option<u16>) -> Result<Converted, Faults> {
    let mut faults = Vec::new();
    let given = annotations::given(&ingress.annotations);
    let annotations = annotations::read(&given, &mut faults);
    let mut conversion = Conversion {
        ingress,
        ports,
        given: &given,
        annotations: &annotations,
        faults,
        made: BTreeMap::new(),
        matched: BTreeMap::new(),
        unresolved: BTreeSet::new(),
        secured: false,
        shadowed: None,
    };
    conversion.everything();
    let Conversion { faults, made, unresolved, secured, shadowed, .. } = conversion;
    if !faults.is_empty() {
        return Err(Faults { ingress: ingress.key.clone(), faults: faults.into_iter().collect() });
    }
    let mut warnings = annotations.warnings;
    warnings.extend(shadowed);
    if !secured {
        let idle = ["tls-min-version", "tls-max-version"].into_iter().filter(|name| given.contains_key(name));
        warnings.extend(idle.map(|name| {
            format!("{} has no effect: spec.tls names no host of a rule", annotations::field(name))
        }));
    }
    Ok(Converted {
        resources: made.into_values().collect(),
        warnings,
        unresolved: unresolved.into_iter().collect(),
    })
}

/// The Ingress that becomes, or became once, an object of this kind and name.
pub fn ingress_of(kind: Kind, key: &ObjectKey) -> Option<ObjectKey> {
    let stem = match kind.is_route() {
        true => {
            let (stem, rest) = key.name.rsplit_once('-')?;
            let hashed = rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
            (hashed || rest == DEFAULT).then_some(stem)?
        }
        false => {
            let (rest, port) = key.name.rsplit_once('.')?;
            let (stem, service) = rest.rsplit_once('.')?;
            let number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            (number && !service.is_empty()).then_some(stem)?
        }
    };
    let name = stem.strip_prefix(&prefix(&key.namespace, kind))?;
    Some(ObjectKey::new(key.namespace.clone(), name))
}

const DEFAULT: &str = "default";

/// What the names of one kind begin with; the Ingress's own follows. Then comes for a route
/// `-` and what it matches, hashed: a path that is put in front of others renames none of
/// them. For a backend `.SERVICE.PORT`. What follows has neither `-` nor, but for the one,
/// `.`, so no two Ingresses share a name.
fn prefix(namespace: &str, kind: Kind) -> String {
    let grpc = if matches!(kind, Kind::GrpcRoute | Kind::GrpcBackend) { "grpc-" } else { "" };
    format!("ingress-{grpc}{namespace}-")
}

/// The same in every process and release.
pub(super) fn hash(text: &str) -> u64 {
    Position::of(text).0
}

struct Conversion<'a> {
    ingress: &'a Ingress,
    ports: &'a dyn Fn(&str, &str) -> Option<u16>,
    given: &'a Given<'a>,
    annotations: &'a Annotations,
    faults: Vec<Fault>,
    /// By kind and name.
    made: BTreeMap<(Kind, String), Produced>,
    /// Matches of routes as text, and where they come from.
    matched: BTreeMap<String, String>,
    unresolved: BTreeSet<Unresolved>,
    /// Whether any route has TLS.
    secured: bool,
    /// Said of a default backend that a path leaves nothing to.
    shadowed: Option<String>,
}

impl Conversion<'_> {
    fn everything(&mut self) {
        let spec = &self.ingress.spec;
        for (number, tls) in spec.tls.iter().flatten().enumerate() {
            for (place, host) in tls.hosts.iter().flatten().enumerate() {
                self.check_host(host, format!("spec.tls[{number}].hosts[{place}]"));
            }
        }
        for (number, rule) in spec.rules.iter().flatten().enumerate() {
            let host = rule.host.as_deref().unwrap_or_default();
            if !host.is_empty() {
                self.check_host(host, format!("spec.rules[{number}].host"));
            }
            let paths = rule.http.iter().flat_map(|http| &http.paths);
            for (place, path) in paths.enumerate() {
                let field = format!("spec.rules[{number}].http.paths[{place}]");
                if let Some(condition) = self.condition(host, path, &field) {
                    let name = format!("{:016x}", hash(&condition.to_string()));
                    self.route(&name, &field, condition, self.sni(host), &path.backend);
                }
            }
        }
        if let Some(backend) = &spec.default_backend {
            let all = if self.annotations.grpc { json!({}) } else { json!({"uri": {"prefix": "/"}}) };
            if let Some(first) = self.matched.get(&all.to_string()) {
                self.shadowed =
                    Some(format!("spec.defaultBackend is never reached: {first} takes all requests"));
                return;
            }
            self.route(DEFAULT, "spec.defaultBackend", all, None, backend);
        }
    }

    fn check_host(&mut self, host: &str, field: String) {
        if let Some(problem) = hosts::problem(host) {
            let told: String = host.chars().take(super::QUOTED).collect();
            let remedy = "give a name like api.example.com or *.example.com";
            self.faults.push(Fault { value: Some(told), ..Fault::new(field, problem, remedy) });
        }
    }

    fn kind(&self) -> Kind {
        if self.annotations.grpc { Kind::GrpcRoute } else { Kind::ApiRoute }
    }

    /// The host by which TLS finds a route's certificate, where its requests come by TLS.
    fn sni<'h>(&self, host: &'h str) -> Option<&'h str> {
        let covers = |hosts: &Vec<String>| hosts.iter().any(|pattern| hosts::covers(pattern, host));
        let tls = self.ingress.spec.tls.iter().flatten();
        // An entry without hosts is for all of them.
        let mut has = tls.map(|tls| tls.hosts.as_ref().is_none_or(|hosts| hosts.is_empty() || covers(hosts)));
        (!host.is_empty() && has.any(|has| has)).then_some(host)
    }

    /// What a path's requests have in common, as the entry of a match.
    fn condition(&mut self, host: &str, path: &HTTPIngressPath, field: &str) -> Option<Value> {
        let text = path.path.as_deref().unwrap_or_default();
        let exact = match path.path_type.as_str() {
            "Exact" => true,
            "Prefix" | "ImplementationSpecific" => false,
            _ => {
                let field = format!("{field}.pathType");
                let remedy = "give Exact, Prefix or ImplementationSpecific";
                self.faults.push(Fault::new(field, "is unknown", remedy));
                return None;
            }
        };
        let may_lack = path.path_type == "ImplementationSpecific" && text.is_empty();
        if !text.starts_with('/') && !may_lack {
            self.faults.push(Fault::new(
                format!("{field}.path"),
                "does not begin with /",
                "give a path, for example /",
            ));
            return None;
        }
        let text = if may_lack { "/" } else { text };
        if self.annotations.grpc {
            return self.grpc_condition(host, text, exact, field);
        }
        let mut entry = json!({"uri": {if exact { "exact" } else { "prefix" }: text}});
        if !host.is_empty() {
            let mut header = hosts::condition(host);
            header["name"] = json!("Host");
            entry["headers"] = json!([header]);
        }
        Some(entry)
    }

    /// A path of gRPC is `/service/method`.
    fn grpc_condition(&mut self, host: &str, path: &str, exact: bool, field: &str) -> Option<Value> {
        let mut entry = Map::new();
        if !host.is_empty() {
            entry.insert("authority".to_owned(), hosts::condition(host));
        }
        let (service, method) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        if method.contains('/') {
            let remedy = "give /SERVICE or /SERVICE/METHOD";
            self.faults.push(Fault::new(format!("{field}.path"), "is no path of gRPC", remedy));
            return None;
        }
        let Annotations { service: named_service, method: named_method, .. } = self.annotations;
        let kind = |exact: bool| if exact { "exact" } else { "prefix" };
        let mut put = |key: &str, how: &str, value: &str| {
            if !value.is_empty() {
                entry.insert(key.to_owned(), json!({how: value}));
            }
        };
        match named_service {
            Some((how, value)) => put("service", how, value),
            // Whatever follows a slash, the service before it is a whole one.
            None => put("service", kind(exact || !method.is_empty() || path.ends_with('/')), service),
        }
        match named_method {
            Some((how, value)) => put("method", how, value),
            None if named_service.is_none() => put("method", kind(exact), method),
            None => {}
        }
        Some(Value::Object(entry))
    }

    fn route(
        &mut self,
        name: &str,
        field: &str,
        condition: Value,
        sni: Option<&str>,
        backend: &IngressBackend,
    ) {
        let Some((destination, port)) = self.backend(backend, field) else { return };
        if let Some(first) = self.matched.insert(condition.to_string(), field.to_owned()) {
            let problem = format!("matches the same requests as {first}");
            self.faults.push(Fault::new(field, problem, "keep one of the two"));
        }
        let mut spec = self.annotations.route.clone();
        let catches_all = condition.as_object().is_some_and(Map::is_empty);
        spec.insert("match".to_owned(), if catches_all { json!([]) } else { json!([condition]) });
        spec.insert(
            "route".to_owned(),
            json!([{"destination": {"host": destination.to_string(), "port": port}, "weight": 100}]),
        );
        if let Some(host) = sni {
            let mut tls = self.annotations.tls.clone();
            tls.insert("sniHosts".to_owned(), json!([host]));
            spec.insert("tls".to_owned(), Value::Object(tls));
            self.secured = true;
        }
        let kind = self.kind();
        let of = &self.ingress.key;
        let name = format!("{}{}-{name}", prefix(&of.namespace, kind), of.name);
        self.make(kind, name, Value::Object(spec), field);
    }

    /// Makes the backend for a Service and port; returns its key and port. `None` when
    /// there is none, which has been said.
    fn backend(&mut self, backend: &IngressBackend, field: &str) -> Option<(ObjectKey, u16)> {
        // The default backend's field is it.
        let field = if field.ends_with(']') { format!("{field}.backend") } else { field.to_owned() };
        let service = match (&backend.service, &backend.resource) {
            (Some(service), None) if !service.name.is_empty() => service,
            _ => {
                let problem = "names no Service";
                let remedy = "give service.name and service.port; other resources are not served";
                self.faults.push(Fault::new(field, problem, remedy));
                return None;
            }
        };
        let port = self.port(service, &field)?;
        let kind = backend_kind(self.kind());
        let ObjectKey { namespace, .. } = &self.ingress.key;
        let of = &self.ingress.key;
        let name = format!("{}{}.{}.{port}", prefix(&of.namespace, kind), of.name, service.name);
        let key = ObjectKey::new(namespace.clone(), name.as_str());
        if !self.made.contains_key(&(kind, name.clone())) {
            let mut spec = self.annotations.backend.clone();
            // Every resolver in a cluster completes this, whatever the cluster's domain.
            let address = format!("{}.{namespace}.svc", service.name);
            spec.insert("hosts".to_owned(), json!([{"address": address, "port": port, "weight": 1}]));
            self.make(kind, name, Value::Object(spec), &field);
        }
        Some((key, port))
    }

    fn port(&mut self, service: &IngressServiceBackend, field: &str) -> Option<u16> {
        let field = format!("{field}.service.port");
        let port = service.port.clone().unwrap_or_default();
        match (port.number, port.name.filter(|name| !name.is_empty())) {
            (Some(number), None) if PORTS.contains(&number) => u16::try_from(number).ok(),
            (Some(number), None) => {
                let remedy = "give a number from 1 to 65535, or the name of a port";
                self.faults.push(Fault::new(field, format!("is {number}"), remedy));
                None
            }
            (None, Some(name)) => {
                let found = (self.ports)(&service.name, &name);
                if found.is_none() {
                    self.unresolved.insert(Unresolved { field, service: service.name.clone(), port: name });
                }
                found
            }
            (number, _) => {
                let problem = if number.is_some() { "has both a number and a name" } else { "is missing" };
                self.faults.push(Fault::new(field, problem, "give the number of a port, or its name"));
                None
            }
        }
    }

    /// Checks a spec as that of an object of its kind, and keeps it.
    fn make(&mut self, kind: Kind, name: String, spec: Value, field: &str) {
        if name.len() > LONGEST_NAME {
            let problem = format!("leads to a name of {} characters, {name:.60}…", name.len());
            let remedy = format!("shorten it by {}", name.len() - LONGEST_NAME);
            self.faults.push(Fault::new("metadata.name", problem, remedy));
            return;
        }
        let bytes = Bytes::from(spec.to_string());
        if let Err(error) = inspect(api_kind(kind), &bytes) {
            let part = if kind.is_route() { Part::Route } else { Part::Backend };
            self.faults.push(match origin(self.given, self.annotations.grpc, part, &error.field) {
                Some(name) => {
                    let value = self.given.get(name).copied().unwrap_or_default();
                    Fault::of_annotation(name, value, error.problem, error.remedy)
                }
                None => {
                    let problem = format!("{} of what it becomes: {}", error.field, error.problem);
                    Fault::new(field, problem, error.remedy)
                }
            });
            return;
        }
        let key = ObjectKey::new(self.ingress.key.namespace.clone(), name.as_str());
        self.made.insert((kind, name), Produced { kind, key, spec: bytes, field: field.to_owned() });
    }
}
