//! The project's table of what the definitions accept, deny, fill in and drop,
//! put to an embedded and to a real API server: the same verdicts, the same
//! objects.

#![expect(clippy::panic, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::path::Path;

use futures::stream::{self, StreamExt as _};
use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::fleet::waiting::figure;
use crate::fleet::{Against, Fleet};

// The type tests of the schemas read the same table.
#[path = "../../src/api/tests/it/table.rs"]
mod table;

use table::{Case, Table, Verdict, read};

const NAMESPACE: &str = "default";

fn tables() -> Vec<Table> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/tests/cases"))
}

/// What a server made of a case: the spec it would have stored, or the fields
/// that it complains about.
type Answer = Result<Value, Vec<String>>;

/// Puts every case to a server, as creations that are not carried out.
async fn put_all(client: &Client) -> BTreeMap<String, Answer> {
    let tables = tables();
    let cases = tables.iter().flat_map(|table| table.cases.iter().map(move |case| (&table.kind, case)));
    stream::iter(cases)
        .map(|(kind, case)| async move { (format!("{kind} {}", case.name), put(client, kind, case).await) })
        .buffer_unordered(8)
        .collect()
        .await
}

async fn put(client: &Client, kind: &str, case: &Case) -> Answer {
    let (group, plural) = match kind {
        "ShardMap" => ("fleet.flotilla.dev", "shardmaps".to_owned()),
        other => ("avapigw.io", format!("{}s", other.to_lowercase())),
    };
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1alpha1", kind), &plural);
    let api: Api<DynamicObject> = match kind {
        "ShardMap" => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), NAMESPACE, &resource),
    };
    let object: DynamicObject = serde_json::from_value(json!({
        "apiVersion": format!("{group}/v1alpha1"),
        "kind": kind,
        "metadata": {"name": "case"},
        "spec": case.spec,
    }))
    .unwrap();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    match api.create(&dry_run, &object).await {
        Ok(made) => {
            assert_eq!(made.name_any(), "case");
            Ok(made.data["spec"].clone())
        }
        Err(kube::Error::Api(status)) => {
            assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"), "{}: {status:?}", case.name);
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let fields: std::collections::BTreeSet<String> =
                causes.map(|cause| cause.field.clone()).collect();
            Err(fields.into_iter().collect())
        }
        Err(error) => panic!("{kind} {}: {error}", case.name),
    }
}

/// `spec.a.b[0]` as a JSON pointer into the spec.
fn pointer(path: &str) -> String {
    let inside = path.strip_prefix("spec").unwrap_or_else(|| panic!("{path} is outside of spec"));
    inside.replace(['.', '['], "/").replace(']', "")
}

/// What is wrong about a server's answers.
fn wrong(answers: &BTreeMap<String, Answer>) -> Vec<String> {
    let mut wrong = Vec::new();
    for table in tables() {
        for case in &table.cases {
            let name = format!("{} {}", table.kind, case.name);
            let answer = &answers[&name];
            let right = match (case.verdict, answer) {
                (Verdict::Accept, Ok(_)) => true,
                (Verdict::Deny, Err(fields)) => fields.contains(&case.path),
                (Verdict::Default, Ok(spec)) => spec.pointer(&pointer(&case.path)) == case.expected.as_ref(),
                (Verdict::Prune, Ok(spec)) => spec.pointer(&pointer(&case.path)).is_none(),
                _ => false,
            };
            if !right {
                wrong.push(format!("{name}: {:?} of {} expected, got {answer:?}", case.verdict, case.path));
            }
        }
    }
    wrong
}

async fn answers(against: Against) -> Option<BTreeMap<String, Answer>> {
    let fleet = Fleet::start(against).await?;
    let started = std::time::Instant::now();
    let answers = put_all(&fleet.client()).await;
    assert!(answers.len() > 600, "only {} cases", answers.len());
    figure(&format!(
        "{} cases put to {against:?} API server in {} ms",
        answers.len(),
        started.elapsed().as_millis()
    ));
    Some(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_accept_deny_default_and_prune_as_the_table_says() {
    let Some(embedded) = answers(Against::Embedded).await else { return };
    let wrong = wrong(&embedded);
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_api_server_gives_the_same_answers() {
    let Some(real) = answers(Against::Real).await else { return };
    let problems = wrong(&real);
    assert!(problems.is_empty(), "{} cases:\n{}", problems.len(), problems.join("\n"));
    let Some(embedded) = answers(Against::Inside).await else { return };
    let differ: Vec<_> = real
        .iter()
        .filter(|(name, answer)| embedded[*name] != **answer)
        .map(|(name, answer)| format!("{name}: real {answer:?}, embedded {:?}", embedded[name]))
        .collect();
    assert!(differ.is_empty(), "{} answers differ:\n{}", differ.len(), differ.join("\n"));
}
