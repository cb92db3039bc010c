//! The entries of `match` as validation reads them, beside the typed resources and
//! what gateways take: by texts in which keys come twice and values are null or of
//! another type.

use flotilla_api::avapigw::{self, Kind};
use flotilla_api::validation::{
    GrpcMatch, HttpMatch, Inspection, Matches, NamedMatch, QueryParamMatch, StringMatch, Text, grpc_matches,
    http_matches, inspect, is_catch_all, route_destinations,
};
use proptest::prelude::*;
use serde::Deserialize;

/// A spec with the typed entries.
#[derive(Deserialize)]
#[serde(bound = "M: serde::de::DeserializeOwned")]
struct Typed<M> {
    #[serde(default = "Option::default", rename = "match")]
    matches: Option<Vec<M>>,
}

fn typed<M: serde::de::DeserializeOwned>(spec: &str) -> Option<Vec<M>> {
    serde_json::from_str::<Typed<M>>(spec).ok().map(|route| route.matches.unwrap_or_default())
}

fn text(text: Text<'_>) -> String {
    text.0.into_owned()
}

fn list(list: Vec<Text<'_>>) -> Vec<String> {
    list.into_iter().map(text).collect()
}

fn string(condition: StringMatch<'_>) -> avapigw::StringMatch {
    let StringMatch { exact, prefix, regex } = condition;
    avapigw::StringMatch { exact: exact.map(text), prefix: prefix.map(text), regex: regex.map(text) }
}

fn named(condition: NamedMatch<'_>) -> avapigw::NamedMatch {
    let NamedMatch { name, exact, prefix, regex, present, absent } = condition;
    avapigw::NamedMatch {
        name: text(name),
        exact: exact.map(text),
        prefix: prefix.map(text),
        regex: regex.map(text),
        present,
        absent,
    }
}

fn parameter(condition: QueryParamMatch<'_>) -> avapigw::QueryParamMatch {
    let QueryParamMatch { name, exact, regex, present } = condition;
    avapigw::QueryParamMatch { name: text(name), exact: exact.map(text), regex: regex.map(text), present }
}

fn http(entry: HttpMatch<'_>) -> avapigw::HttpMatch {
    let HttpMatch { uri, methods, headers, query_params } = entry;
    avapigw::HttpMatch {
        uri: uri.map(string),
        methods: list(methods),
        headers: headers.into_iter().map(named).collect(),
        query_params: query_params.into_iter().map(parameter).collect(),
    }
}

fn grpc(entry: GrpcMatch<'_>) -> avapigw::GrpcMatch {
    let GrpcMatch { service, method, authority, metadata, without_headers } = entry;
    avapigw::GrpcMatch {
        service: service.map(string),
        method: method.map(string),
        authority: authority.map(string),
        metadata: metadata.into_iter().map(named).collect(),
        without_headers: list(without_headers),
    }
}

/// Mostly what belongs there, at times anything.
fn value(usual: impl Strategy<Value = String> + 'static) -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec!["null", "[]", "{}", "\"\"", "true", "1", "[null]", "\"\\u0041\\n\""]);
    prop_oneof![12 => usual, 1 => odd.prop_map(str::to_owned)]
}

fn word() -> impl Strategy<Value = String> {
    value(
        prop::sample::select(vec!["\"/a\"", "\"(\"", "\"X-A\"", "\"\\u00e4\"", "\"/{id}\""])
            .prop_map(str::to_owned),
    )
}

fn flag() -> impl Strategy<Value = String> {
    value(prop::sample::select(vec!["true", "false"]).prop_map(str::to_owned))
}

fn object(keys: Vec<(&'static str, BoxedStrategy<String>)>) -> BoxedStrategy<String> {
    let one = keys
        .into_iter()
        .map(|(key, value)| value.prop_map(move |value| format!("\"{key}\":{value}")).boxed());
    let one = prop::strategy::Union::new(one.collect::<Vec<_>>());
    let usual = prop::collection::vec(one, 0..4).prop_map(|all| format!("{{{}}}", all.join(",")));
    // A list in its place is refused, though not by the typed resource.
    value(usual).prop_map(|text| if text.starts_with('[') { "null".to_owned() } else { text }).boxed()
}

fn many(one: BoxedStrategy<String>) -> BoxedStrategy<String> {
    value(prop::collection::vec(one, 0..3).prop_map(|all| format!("[{}]", all.join(",")))).boxed()
}

fn condition() -> BoxedStrategy<String> {
    object(vec![
        ("exact", word().boxed()),
        ("prefix", word().boxed()),
        ("regex", word().boxed()),
        ("x", word().boxed()),
    ])
}

/// A condition that has a name most often, or hardly any would pass.
fn with_name() -> BoxedStrategy<String> {
    let strings = ["exact", "prefix", "regex", "name"].map(|key| (key, word().boxed()));
    let flags = ["present", "absent"].map(|key| (key, flag().boxed()));
    let more = object(strings.into_iter().chain(flags).collect());
    (prop::bool::weighted(0.8), more)
        .prop_map(|(has_name, more)| match more.strip_prefix('{') {
            Some("}") if has_name => r#"{"name":"a"}"#.to_owned(),
            Some(rest) if has_name => format!(r#"{{"name":"a",{rest}"#),
            _ => more,
        })
        .boxed()
}

fn spec(http: bool) -> BoxedStrategy<String> {
    let words = || many(word().boxed());
    let entry = if http {
        object(vec![
            ("uri", condition()),
            ("methods", words()),
            ("headers", many(with_name())),
            ("queryParams", many(with_name())),
        ])
    } else {
        object(vec![
            ("service", condition()),
            ("method", condition()),
            ("authority", condition()),
            ("metadata", many(with_name())),
            ("withoutHeaders", words()),
        ])
    };
    let route = r#""route":[{"destination":{"host":"api","port":80}}]"#;
    (many(entry), 0..8u8)
        .prop_map(move |(entries, shape)| match shape {
            0 => format!("{{{route}}}"),
            1 => format!(r#"{{"match":{entries},{route},"match":[]}}"#),
            2 => format!(r#"{{"match":{entries},"timeout":5,{route}}}"#),
            _ => format!(r#"{{"match":{entries},{route}}}"#),
        })
        .boxed()
}

fn check(kind: Kind, spec: &str, matches: Option<Matches<'_>>) -> Result<(), TestCaseError> {
    let Ok(Inspection { destinations, catch_all, matches: inspected }) = inspect(kind, spec.as_bytes())
    else {
        return Ok(());
    };
    prop_assert_eq!(inspected, matches);
    prop_assert_eq!(catch_all, is_catch_all(kind, spec.as_bytes()));
    prop_assert_eq!(Ok(destinations), route_destinations(spec.as_bytes()));
    Ok(())
}

proptest! {
    #[test]
    fn http_matches_are_those_of_the_typed_resource(spec in spec(true)) {
        let matches = http_matches(spec.as_bytes());
        let owned = matches.clone().map(|entries| entries.into_iter().map(http).collect::<Vec<_>>());
        prop_assert_eq!(owned, typed::<avapigw::HttpMatch>(&spec));
        check(Kind::ApiRoute, &spec, matches.map(Matches::Http))?;
    }

    #[test]
    fn grpc_matches_are_those_of_the_typed_resource(spec in spec(false)) {
        let matches = grpc_matches(spec.as_bytes());
        let owned = matches.clone().map(|entries| entries.into_iter().map(grpc).collect::<Vec<_>>());
        prop_assert_eq!(owned, typed::<avapigw::GrpcMatch>(&spec));
        check(Kind::GrpcRoute, &spec, matches.map(Matches::Grpc))?;
    }
}

/// Serde would take a list for the fields of an object, in order.
#[test]
fn a_list_is_no_object() {
    for entry in ["[]", "[null]", r#"[null,["GET"],[],[]]"#, r#"{"uri":["/a"]}"#, r#"{"headers":[["a"]]}"#] {
        let spec = format!(r#"{{"match":[{entry}],"route":[{{"destination":{{"host":"api","port":80}}}}]}}"#);
        assert_eq!(http_matches(spec.as_bytes()), None, "{spec}");
        let taken = inspect(Kind::ApiRoute, spec.as_bytes());
        assert!(taken.is_err() || entry.starts_with("[null,["), "{spec}");
    }
}

/// Gateways take these: that their matches cannot be told must not keep them away.
#[test]
fn what_gateways_take_passes_although_its_matches_cannot_be_told() {
    let entries = [
        r#"{"uri":{"exact":"/a"},"methods":null}"#,
        r#"{"headers":null}"#,
        r#"{"headers":[{"name":"a","exact":"1","exact":"2"}]}"#,
        r#"{"headers":[{"name":"a","present":"yes"}]}"#,
    ];
    for entry in entries {
        let spec = format!(r#"{{"match":[{entry}],"route":[{{"destination":{{"host":"api","port":80}}}}]}}"#);
        let inspection = inspect(Kind::ApiRoute, spec.as_bytes()).unwrap();
        assert_eq!((inspection.matches, inspection.destinations.len()), (None, 1), "{spec}");
        assert_eq!(inspection.catch_all, entry == r#"{"headers":null}"#, "{spec}");
    }
}
