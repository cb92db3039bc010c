//! Which package may use which: of ours, and of others.
//!
//! The manifests hold the arrows; this test holds the manifests. Normal and
//! build dependencies count. Development dependencies are free, except in
//! `core`, whose tests must not know more than it does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value;

use super::{each, hold, metadata, resolved, root, text, word};

/// One package of the workspace.
pub(super) struct Package {
    pub(super) name: &'static str,
    /// Its folder, as in ARCHITECTURE.md.
    folder: &'static str,
    /// Which of our packages it may use.
    ours: &'static [&'static str],
}

impl Package {
    /// What starts fleets of its own uses their test support, too, and may judge them by
    /// the same observer as the simulator.
    fn may_use(&self, used: &str) -> bool {
        let supported = HARNESSES.contains(&self.name) && self.ours == ABOVE_RUNTIME;
        self.ours.contains(&used)
            || (supported && used == "flotilla-testing")
            || (self.name == "flotilla-plans" && used == "flotilla-observer")
    }
}

const fn package(name: &'static str, folder: &'static str, ours: &'static [&'static str]) -> Package {
    Package { name, folder, ours }
}

/// The table of ARCHITECTURE.md, "Map of the folders". Only what drives the
/// product from outside may use `testing`: nothing shipped does.
pub(super) const PACKAGES: &[Package] = &[
    package("flotilla", "src/main.rs", &["flotilla-runtime"]),
    package("flotilla-core", "src/core", &[]),
    package("flotilla-api", "src/api", &[]),
    package("flotilla-proto", "src/proto", &[]),
    package("flotilla-k8s", "src/k8s", &["flotilla-core", "flotilla-api"]),
    package("flotilla-certs", "src/certs", &[]),
    package("flotilla-grpc", "src/grpc", &["flotilla-core", "flotilla-proto", "flotilla-certs"]),
    package("flotilla-apiserver", "src/apiserver", &[]),
    package("flotilla-gateway", "src/gateway", &["flotilla-core", "flotilla-proto", "flotilla-certs"]),
    package("flotilla-avapigw", "src/controllers/avapigw", &["flotilla-core", "flotilla-api"]),
    package("flotilla-runtime", "src/runtime", ABOVE_RUNTIME),
    package("flotilla-testing", "src/testing", ABOVE_RUNTIME),
    package("chaos", "chaos", CHAOS),
    package("flotilla-observer", "chaos/observer", &[]),
    package("flotilla-sim", "chaos/sim", &["flotilla-core", "flotilla-avapigw", "flotilla-observer"]),
    package("flotilla-model", "chaos/model", &["flotilla-core"]),
    package("flotilla-turmoil", "chaos/turmoil", ABOVE_RUNTIME),
    package("flotilla-plans", "chaos/plans", ABOVE_RUNTIME),
    package("flotilla-kills", "chaos/kills", ABOVE_RUNTIME),
    package("loadtest", "loadtest", LOADTEST),
    package("flotilla-counts", "loadtest/counts", &["flotilla-core", "flotilla-avapigw", "flotilla-grpc"]),
];

/// The load test starts fleets under its own name, and measures the decisions of
/// the core by themselves; its clients know nothing of the server.
const LOADTEST: &[&str] = &[
    "flotilla-core",
    "flotilla-api",
    "flotilla-avapigw",
    "flotilla-certs",
    "flotilla-k8s",
    "flotilla-runtime",
    "flotilla-testing",
];

/// The chaos command puts its own packages together.
const CHAOS: &[&str] =
    &["flotilla-core", "flotilla-sim", "flotilla-model", "flotilla-plans", "flotilla-kills"];

/// "All above" in the row of `runtime`, and what test support may need.
const ABOVE_RUNTIME: &[&str] = &[
    "flotilla-core",
    "flotilla-api",
    "flotilla-proto",
    "flotilla-k8s",
    "flotilla-certs",
    "flotilla-grpc",
    "flotilla-apiserver",
    "flotilla-gateway",
    "flotilla-avapigw",
];

/// What drives the product from outside. Nothing shipped uses it, so it is free in
/// what it uses of others.
const HARNESSES: &[&str] = &[
    "flotilla-testing",
    "chaos",
    "flotilla-turmoil",
    "flotilla-plans",
    "flotilla-kills",
    "loadtest",
    "flotilla-counts",
];

/// Packages of others that only some of ours may name in their manifests, and
/// which these are, without their prefix. What is not listed is free for all
/// but the pure ones.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("anyhow", &["runtime"]),
    ("axum", &["apiserver", "gateway", "runtime"]),
    ("chrono", &["runtime"]),
    ("clap", &["runtime"]),
    ("governor", &["grpc"]),
    ("hashring", &["core"]),
    ("hyper", &["apiserver", "certs", "gateway", "grpc", "runtime"]),
    ("hyper-util", &["apiserver", "certs", "gateway", "grpc", "k8s", "runtime"]),
    ("jiff", &["apiserver"]),
    ("json-patch", &["apiserver"]),
    ("k8s-openapi", &["api", "k8s", "runtime", "testing"]),
    ("kube", &["k8s", "runtime", "testing"]),
    ("kube-cel", &["apiserver"]),
    ("kube-client", &["k8s"]),
    ("kube-core", &["api"]),
    ("kube-derive", &["api"]),
    ("kube-runtime", &["k8s"]),
    ("mimalloc", &["flotilla"]),
    ("nix", &["runtime", "testing"]),
    ("prometheus", &["grpc", "k8s", "runtime"]),
    ("prost", &["gateway", "grpc", "proto"]),
    ("prost-types", &["gateway", "grpc", "proto"]),
    ("protox", &["proto"]),
    ("rand", &["apiserver", "gateway", "grpc", "k8s", "runtime", "testing"]),
    ("ratatui", &["runtime"]),
    ("rcgen", &["certs", "testing"]),
    ("rustls", &["apiserver", "certs", "gateway", "grpc", "runtime"]),
    ("schemars", &["api"]),
    ("tokio", &["apiserver", "certs", "gateway", "grpc", "k8s", "runtime", "testing"]),
    ("tokio-rustls", &["apiserver", "certs", "gateway", "grpc", "runtime"]),
    ("tonic", &["gateway", "grpc", "proto"]),
    ("tonic-prost", &["grpc", "proto"]),
    ("tonic-prost-build", &["proto"]),
    ("tracing-subscriber", &["runtime"]),
    ("xxhash-rust", &["core"]),
];

/// What pure packages must not reach by any way: whoever has one of these has
/// sockets, tasks, a clock or a client.
const PURE: &[(&str, &[&str])] = &[
    ("flotilla-core", IMPURE),
    ("flotilla-sim", &["axum", "hyper", "kube", "kube-client", "prometheus", "prost", "tokio", "tonic"]),
    // Types come from kube-core and k8s-openapi, which hold no client.
    ("flotilla-api", &["axum", "hyper", "kube", "kube-client", "prometheus", "prost", "tokio", "tonic"]),
    ("flotilla-avapigw", &["axum", "hyper", "kube", "kube-client", "prometheus", "prost", "tokio", "tonic"]),
];

const IMPURE: &[&str] = &[
    "axum",
    "chrono",
    "hyper",
    "k8s-openapi",
    "kube",
    "kube-client",
    "kube-core",
    "kube-runtime",
    "prometheus",
    "prost",
    "rand",
    "time",
    "tokio",
    "tonic",
    "tracing",
];

fn known(name: &str) -> Option<&'static Package> {
    PACKAGES.iter().find(|package| package.name == name)
}

fn short(name: &str) -> &str {
    name.strip_prefix("flotilla-").unwrap_or(name)
}

#[test]
fn the_table_knows_every_package() {
    let metadata = metadata(&["--no-deps"]);
    let members: BTreeSet<&str> = each(&metadata, "packages").iter().map(|one| word(one, "name")).collect();
    let listed: BTreeSet<&str> = PACKAGES.iter().map(|package| package.name).collect();
    assert_eq!(
        members, listed,
        "Cargo.toml (left) and the table in tests/it/layout/arrows.rs (right) differ"
    );
}

#[test]
fn packages_use_only_what_the_table_allows() {
    let metadata = metadata(&["--no-deps"]);
    let mut broken = Vec::new();
    for package in each(&metadata, "packages") {
        let name = word(package, "name");
        let Some(row) = known(name) else { continue };
        let manifest = format!("{}: ", word(package, "manifest_path").replace(root().to_str().unwrap(), "."));
        for dependency in each(package, "dependencies") {
            let used = word(dependency, "name");
            if dependency["kind"] == "dev" {
                if name == "flotilla-core" && IMPURE.contains(&used) {
                    broken
                        .push(format!("{manifest}core's tests must not use {used}: give it values instead"));
                }
                continue;
            }
            if known(used).is_some() {
                if !row.may_use(used) {
                    broken.push(format!(
                        "{manifest}{name} must not use {used}: move what it needs below both, or put a trait \
                         between them; ARCHITECTURE.md has the table"
                    ));
                }
            } else if let Some((_, allowed)) = ONLY_IN.iter().find(|(crate_name, _)| *crate_name == used)
                && !allowed.contains(&short(name))
                && !HARNESSES.contains(&name)
            {
                broken.push(format!(
                    "{manifest}only {} may use {used}: move the code there",
                    allowed.join(", ")
                ));
            }
        }
    }
    hold("Dependencies follow the table of ARCHITECTURE.md", &broken);
}

/// Features that only harnesses may ask for, and which of these.
const BROKEN_ON_PURPOSE: (&str, &[&str]) = ("breakage", &["flotilla-sim"]);

#[test]
fn what_is_wrong_on_purpose_is_in_no_shipped_package() {
    let metadata = metadata(&["--no-deps"]);
    let (feature, allowed) = BROKEN_ON_PURPOSE;
    let mut broken = Vec::new();
    let mut offered = false;
    for package in each(&metadata, "packages") {
        let name = word(package, "name");
        let asks = |list: &Value| {
            list.as_array().unwrap().iter().any(|one| one.as_str().is_some_and(|one| one.contains(feature)))
        };
        for (own, implied) in package["features"].as_object().unwrap() {
            offered |= name == "flotilla-core" && own == feature;
            if asks(implied) {
                broken.push(format!("{name}: its feature {own} asks for {feature}: leave it to {allowed:?}"));
            }
        }
        let asking = each(package, "dependencies").iter().filter(|dependency| asks(&dependency["features"]));
        broken.extend(asking.filter(|_| !allowed.contains(&name)).map(|dependency| {
            format!("{name} asks for {feature} of {}: leave it to {allowed:?}", word(dependency, "name"))
        }));
    }
    assert!(offered, "flotilla-core has no feature {feature}: remove this test with it");
    hold("What breaks promises on purpose is built into the simulator only", &broken);
}

#[test]
fn pure_packages_reach_no_io_by_any_way() {
    let metadata = resolved();
    let graph = Graph::new(&metadata);
    let mut broken = Vec::new();
    for (name, forbidden) in PURE {
        for (reached, way) in graph.reached_from(name) {
            if forbidden.contains(&reached.as_str()) {
                broken.push(format!("{name} reaches {reached} by {}: drop that dependency", way.join(" → ")));
            }
        }
    }
    hold("Decisions are free of IO, tasks and clocks", &broken);
}

#[test]
fn architecture_md_has_the_same_table() {
    let page = text("ARCHITECTURE.md".as_ref());
    let mut broken = Vec::new();
    for package in PACKAGES {
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` | `{}` |", package.folder, package.name)));
        let Some(row) = row else {
            broken.push(format!("ARCHITECTURE.md: no row `{}` | `{}`", package.folder, package.name));
            continue;
        };
        let written = row.trim_end_matches('|').rsplit('|').next().unwrap().trim();
        let wanted = match package.ours {
            [] => "–".to_owned(),
            ours if ours == ABOVE_RUNTIME => match package.name {
                name if HARNESSES.contains(&name) => "what it needs".to_owned(),
                _ => "all above".to_owned(),
            },
            ours => ours.iter().map(|name| short(name)).collect::<Vec<_>>().join(", "),
        };
        if written != wanted {
            broken.push(format!(
                "ARCHITECTURE.md: {} may use {written:?}, the test says {wanted:?}",
                package.name
            ));
        }
    }
    hold("The table for people and the table for the test are the same", &broken);
}

/// Who needs whom at run time, by package id.
struct Graph<'a> {
    names: BTreeMap<&'a str, &'a str>,
    normal: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(metadata: &'a Value) -> Self {
        let names =
            each(metadata, "packages").iter().map(|one| (word(one, "id"), word(one, "name"))).collect();
        let normal = each(&metadata["resolve"], "nodes")
            .iter()
            .map(|node| {
                let wanted = each(node, "deps")
                    .iter()
                    .filter(|dep| each(dep, "dep_kinds").iter().any(|kind| kind["kind"].is_null()))
                    .map(|dep| word(dep, "pkg"));
                (word(node, "id"), wanted.collect())
            })
            .collect();
        Self { names, normal }
    }

    /// Names of all packages that one reaches, each with the shortest way.
    fn reached_from(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        let (start, _) = self.names.iter().find(|(_, found)| **found == name).unwrap();
        let mut seen = BTreeSet::from([*start]);
        let mut queue = VecDeque::from([(*start, vec![name.to_owned()])]);
        let mut reached = BTreeMap::new();
        while let Some((id, way)) = queue.pop_front() {
            for next in &self.normal[id] {
                if seen.insert(next) {
                    let mut longer = way.clone();
                    longer.push(self.names[next].to_owned());
                    reached.entry(self.names[next].to_owned()).or_insert_with(|| longer.clone());
                    queue.push_back((next, longer));
                }
            }
        }
        assert!(reached.len() > 5, "{name} reaches almost nothing: the graph is wrong");
        reached
    }
}
