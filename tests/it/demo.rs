//! The demo, as a newcomer runs it: against the embedded API server, and
//! against a real one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::path::Path;

use flotilla_testing::real_kube::{Options, RealKube};
use serde_json::Value;

use crate::program::{outcome, run};

/// Runs the demo once and checks everything that it promises.
fn demo_holds(kubeconfig: Option<&Path>) {
    let mut arguments = vec!["demo", "--once", "--output", "json"];
    let file = kubeconfig.map(|path| path.display().to_string());
    if let Some(file) = &file {
        arguments.extend(["--kubeconfig", file]);
    }
    let (code, stdout, stderr) = outcome(&run(&arguments));
    let result: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("no JSON ({error}): {stdout}\n{stderr}"));
    assert_eq!(code, Some(0), "{result:#}\n{stderr}");
    for (key, expected) in [("replicas", 3), ("gateways", 20), ("namespaces", 50)] {
        assert_eq!(result[key], expected, "{key}: {result:#}");
    }
    for key in ["regressions", "spurious_deletions"] {
        assert_eq!(result[key], 0, "{key}: {result:#}");
    }
    for key in ["applied_everywhere", "digests_equal", "statuses_true"] {
        assert_eq!(result[key], true, "{key}: {result:#}");
    }
    assert!(result["changes"].as_u64() > Some(50), "{result:#}");
    assert!(result["kill"]["namespaces_moved"].as_u64() > Some(0), "{result:#}");
    // Far from one for each of 20 acknowledgements. How close to one it comes depends
    // on how many changes the machine manages beside the kill, and is a benchmark's.
    let patches = result["status_patches_per_change"].as_f64().unwrap();
    assert!((0.5..=5.0).contains(&patches), "status_patches_per_change {patches}: {result:#}");
}

#[test]
fn the_demo_holds_on_the_embedded_api_server() {
    demo_holds(None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_holds_on_a_real_api_server() {
    let Some(kube) = RealKube::start(Options::default()).await.unwrap() else { return };
    let kubeconfig = kube.kubeconfig();
    tokio::task::spawn_blocking(move || demo_holds(Some(&kubeconfig))).await.unwrap();
}
