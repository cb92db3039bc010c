//! The scenarios in small, as users run them: what they print, and that they
//! find nothing wrong.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

use serde_json::Value;

fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).env_remove("KUBECONFIG").output().unwrap()
}

/// Runs a scenario that must hold, and reads its result.
fn result(arguments: &[&str]) -> Value {
    let output = loadtest(&[arguments, &["--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let outcome = &result["outcome"];
    assert_eq!((&outcome["unequal_gateways"], &outcome["missing"]), (&0.into(), &0.into()), "{said}");
    result
}

#[test]
fn propagation_is_compared_with_a_bare_server() {
    let size = ["propagation", "--gateways", "4", "--routes", "100", "--namespaces", "5"];
    let run = ["--rate", "20", "--seconds", "2", "--vs-limit", "--start", "replicas=2,api=embedded"];
    let result = result(&[&size[..], &run[..]].concat());
    assert_eq!((&result["controller"]["changes"], &result["limit"]["changes"]), (&40.into(), &40.into()));
    for ratio in ["p50_ratio", "p99_ratio", "cpu_ratio"] {
        assert!(result[ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}: {result}");
    }
    // Each change is at least one message less than a hundred bytes over its resource.
    assert!(result["controller"]["messages_per_gateway"].as_f64().unwrap() > 0.0);
    assert!(result["controller"]["ready_ms"]["p50"].as_f64().is_some(), "{result}");
}

#[test]
fn gateways_that_never_read_hold_up_nobody() {
    let size = ["propagation", "--gateways", "3", "--routes", "100", "--namespaces", "5"];
    let result = result(&[&size[..], &["--rate", "20", "--seconds", "2", "--slow", "2"]].concat());
    assert_eq!(result["controller"]["changes"], 40);
}

#[test]
fn a_burst_reaches_everybody() {
    let result = result(&["burst", "--gateways", "3", "--routes", "60", "--namespaces", "3"]);
    assert_eq!(result["controller"]["changes"], 60);
}

#[test]
fn gateways_that_come_at_once_are_all_in_sync() {
    let result = result(&["coldsync", "--gateways", "5", "--routes", "60", "--namespaces", "3"]);
    assert!(result["bytes_per_gateway"].as_f64().unwrap() > 0.0);
}

#[test]
fn wrong_flags_are_named() {
    for (arguments, words) in [
        (&["propagation", "--start", "replicas=0,api=embedded"][..], "replicas=0"),
        (&["propagation", "--start", "api=docker"], "api=docker"),
        (&["propagation", "--operator", "127.0.0.1:1"], "--kubeconfig"),
        (&["coldsync", "--gateways", "0"], "--gateways"),
    ] {
        let output = loadtest(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
