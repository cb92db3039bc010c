//! A GRPCRoute as the data plane uses it (A-40).

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use regex::Regex;

use super::matcher::{BadRegex, ValueMatcher, compile_regex, compile_values, header_value};
use super::route::{Destination, compile_destinations};
use crate::spec::{GrpcMatch, GrpcRouteSpec, StringMatch};

/// A compiled GRPCRoute.
#[derive(Debug)]
pub(crate) struct GrpcRoute {
    /// `spec_json.name`: unique on a gateway.
    pub(crate) name: Arc<str>,
    /// Any of them suffices.
    pub(crate) matches: Vec<CallMatch>,
    pub(crate) destinations: Vec<Destination>,
    pub(crate) timeout: Option<Duration>,
}

/// One entry of `match`: all of it must hold.
#[derive(Debug, Default)]
pub(crate) struct CallMatch {
    service: TextMatch,
    method: TextMatch,
    authority: TextMatch,
    metadata: Vec<ValueMatcher>,
    /// Higher is tried first.
    pub(crate) priority: u32,
}

#[derive(Debug, Default)]
enum TextMatch {
    #[default]
    Any,
    Exact(String),
    Prefix(String),
    Regex(Regex),
}

impl GrpcRoute {
    pub(crate) fn compile(spec: &GrpcRouteSpec, name: Arc<str>) -> Result<Self, BadRegex> {
        let mut matches =
            spec.matches.iter().flatten().map(CallMatch::compile).collect::<Result<Vec<_>, _>>()?;
        if matches.is_empty() {
            matches.push(CallMatch::default());
        }
        Ok(GrpcRoute {
            name,
            matches,
            destinations: compile_destinations(&spec.route),
            timeout: spec.timeout.and_then(|timeout| timeout.limit()),
        })
    }
}

impl CallMatch {
    fn compile(spec: &GrpcMatch) -> Result<Self, BadRegex> {
        let service = TextMatch::compile(spec.service.as_ref(), "service")?;
        let method = TextMatch::compile(spec.method.as_ref(), "method")?;
        let authority = TextMatch::compile(spec.authority.as_ref(), "authority")?;
        let metadata = compile_values(&spec.metadata, "metadata")?;
        // The weights are the published gateway's (A-92).
        let priority = service.weight(1000, 500, 100)
            + method.weight(500, 250, 50)
            + authority.weight(100, 100, 100)
            + 10 * metadata.len() as u32;
        Ok(CallMatch { service, method, authority, metadata, priority })
    }

    /// Whether a call to `/service/method` matches.
    pub(crate) fn holds(&self, service: &str, method: &str, authority: &str, metadata: &HeaderMap) -> bool {
        self.service.holds(service)
            && self.method.holds(method)
            && self.authority.holds(authority)
            && self.metadata.iter().all(|entry| entry.holds(header_value(metadata, &entry.name)))
    }
}

impl TextMatch {
    fn compile(spec: Option<&StringMatch>, place: &'static str) -> Result<Self, BadRegex> {
        let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let Some(spec) = spec else { return Ok(TextMatch::Any) };
        Ok(match (set(&spec.exact), set(&spec.prefix), set(&spec.regex)) {
            // `*` alone stands for every service or method.
            (Some(exact), _, _) if exact == "*" => TextMatch::Any,
            (Some(exact), _, _) => TextMatch::Exact(exact),
            (None, Some(prefix), _) => TextMatch::Prefix(prefix),
            (None, None, Some(regex)) => TextMatch::Regex(compile_regex(place, &regex)?),
            (None, None, None) => TextMatch::Any,
        })
    }

    fn weight(&self, exact: u32, prefix: u32, regex: u32) -> u32 {
        match self {
            TextMatch::Any => 0,
            TextMatch::Exact(_) => exact,
            TextMatch::Prefix(text) => prefix + u32::try_from(text.len()).unwrap_or(0),
            TextMatch::Regex(_) => regex,
        }
    }

    fn holds(&self, text: &str) -> bool {
        match self {
            TextMatch::Any => true,
            TextMatch::Exact(exact) => text == exact,
            TextMatch::Prefix(prefix) => text.starts_with(prefix.as_str()),
            TextMatch::Regex(regex) => regex.is_match(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_match_by_service_method_authority_and_metadata() {
        let check = |spec: &str, expected: bool| {
            let spec: GrpcMatch = serde_json::from_str(spec).unwrap();
            let mut metadata = HeaderMap::new();
            metadata.insert("x-tenant", "t1".parse().unwrap());
            let holds =
                CallMatch::compile(&spec).unwrap().holds("api.v1.Users", "GetUser", "host", &metadata);
            assert_eq!(holds, expected, "{spec:?}");
        };
        check(r#"{"service":{"exact":"api.v1.Users"},"method":{"exact":"GetUser"}}"#, true);
        check(r#"{"service":{"exact":"api.v1.Users"},"method":{"exact":"ListUsers"}}"#, false);
        check(r#"{"service":{"prefix":"api."}}"#, true);
        check(r#"{"service":{"regex":"^api\\.v[0-9]"}}"#, true);
        check(r#"{"service":{"exact":"*"},"method":{"exact":"*"}}"#, true);
        check(r#"{"authority":{"exact":"other"}}"#, false);
        check(r#"{"metadata":[{"name":"x-tenant","exact":"t1"}]}"#, true);
        check(r#"{"metadata":[{"name":"x-tenant","absent":true}]}"#, false);
    }
}
