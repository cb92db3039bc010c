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
    let folder = tempfile::tempdir().unwrap();
    let report = ["--report", folder.path().to_str().unwrap()];
    let result = result(&[&size[..], &run[..], &report[..]].concat());
    let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("limit: every stage"), "{page}");
    assert_eq!((&result["controller"]["changes"], &result["limit"]["changes"]), (&40.into(), &40.into()));
    for ratio in ["p50_ratio", "p99_ratio", "cpu_ratio"] {
        assert!(result[ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}: {result}");
    }
    // Each change is at least one message less than a hundred bytes over its resource.
    assert!(result["controller"]["messages_per_gateway"].as_f64().unwrap() > 0.0);
    assert!(result["controller"]["ready_ms"]["p50"].as_f64().is_some(), "{result}");
}

#[test]
fn one_that_gateways_reject_keeps_no_other_from_them() {
    let result = result(&["poisoned", "--gateways", "5", "--routes", "60", "--namespaces", "6"]);
    assert_eq!(result["controller"]["changes"], 58);
    let message = result["message"].as_str().unwrap();
    assert!(message.contains("Applied 0/5") && message.contains("unrecognized escape"), "{message}");
    assert!(result["ready_after_ms"].as_f64().is_some_and(|after| after > 0.0), "{result}");
}

#[test]
fn gateways_that_never_read_hold_up_nobody() {
    let size = ["slow", "--gateways", "3", "--routes", "100", "--namespaces", "5"];
    let result = result(&[&size[..], &["--rate", "20", "--seconds", "2", "--slow", "2"]].concat());
    assert_eq!((&result["alone"]["changes"], &result["beside"]["changes"]), (&40.into(), &40.into()));
}

#[test]
fn only_quiet_tenants_are_measured_beside_a_loud_one() {
    let size = ["noisy", "--gateways", "3", "--routes", "100", "--namespaces", "5"];
    let result = result(&[&size[..], &["--rate", "10", "--seconds", "2", "--loud-rate", "50"]].concat());
    assert_eq!((&result["alone"]["changes"], &result["beside"]["changes"]), (&20.into(), &20.into()));
}

#[test]
fn a_kill_loses_nothing_and_what_gateways_missed_is_measured() {
    let size = ["failover", "--gateways", "6", "--routes", "60", "--namespaces", "6"];
    let fleet = ["--start", "replicas=2,api=embedded", "--rate", "10", "--seconds", "9"];
    let result = result(&[&size[..], &fleet[..], &["--every", "4", "--down", "1"]].concat());
    assert_eq!((&result["ended"], &result["controller"]["changes"]), (&2.into(), &90.into()));
    for found in ["away_ms", "caught_up_ms", "stayed_ms"] {
        assert!(result["controller"][found]["max"].as_f64().is_some(), "{found}: {result}");
    }
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let size = ["rolling", "--gateways", "4", "--routes", "60", "--namespaces", "6"];
    let fleet = ["--start", "replicas=2,api=embedded", "--rate", "10", "--seconds", "6"];
    let result = result(&[&size[..], &fleet[..]].concat());
    assert_eq!((&result["ended"], &result["controller"]["changes"]), (&2.into(), &60.into()));
}

#[test]
fn gateways_of_a_replica_that_died_come_back_and_get_little() {
    let size = ["reconnect", "--gateways", "6", "--routes", "100", "--namespaces", "5"];
    let fleet = ["--start", "replicas=2,api=embedded", "--rate", "5", "--seconds", "6"];
    let found = result(&[&size[..], &fleet[..]].concat());
    assert_eq!((&found["lost"], &found["full_syncs"]), (&3.into(), &0.into()), "{found}");
    let all = ["--elsewhere", "1", "--forget"];
    let found = result(&[&size[..], &fleet[..], &all[..]].concat());
    assert_eq!((&found["lost"], &found["full_syncs"]), (&5.into(), &5.into()), "{found}");
    assert_eq!(found["controller"]["changes"], 30, "{found}");
}

#[test]
fn guests_come_and_go() {
    let size = ["churn", "--gateways", "3", "--routes", "60", "--namespaces", "3"];
    let run = ["--rate", "10", "--seconds", "4", "--joins", "2", "--stay", "1"];
    let result = result(&[&size[..], &run[..]].concat());
    assert_eq!((&result["came"], &result["controller"]["changes"]), (&8.into(), &40.into()));
}

#[test]
fn a_soak_disturbs_the_fleet_and_looks_at_memory_and_descriptors() {
    let size = ["soak", "--gateways", "3", "--routes", "60", "--namespaces", "3"];
    let run = ["--start", "replicas=2,api=embedded", "--rate", "5", "--seconds", "13", "--every", "4"];
    let result = result(&[&size[..], &run[..], &["--guests", "2"]].concat());
    let samples = result["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 3);
    let done = &result["done"];
    let each = [&done["kills"], &done["guests"], &done["rolling_restarts"]];
    assert_eq!(each, [&Value::from(1), &2.into(), &1.into()], "{done}");
    let first_is_one = |sample: &Value| {
        let (first, all) = (sample["first_rss"].as_u64(), sample["rss"].as_u64());
        first > Some(0) && first < all
    };
    assert!(samples.iter().all(first_is_one), "{result}");
}

#[test]
fn a_burst_reaches_everybody() {
    let result = result(&["burst", "--gateways", "3", "--routes", "60", "--namespaces", "3"]);
    assert_eq!(result["controller"]["changes"], 60);
}

#[test]
fn gateways_that_come_at_once_are_all_in_sync() {
    let size = ["coldsync", "--gateways", "5", "--routes", "60", "--namespaces", "3"];
    let result = result(&[&size[..], &["--vs-limit"]].concat());
    assert!(result["time_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{result}");
    // The same routes in the same messages: what differs is said in a few bytes.
    let bytes = |of: &Value| of["bytes_per_gateway"].as_f64().unwrap();
    let (controller, limit) = (bytes(&result), bytes(&result["limit"]));
    assert!((0.8..1.25).contains(&(controller / limit)), "{controller} {limit}");
}

#[test]
fn the_cost_of_a_large_fleet_is_told_for_each_thing_that_grows() {
    let size =
        ["fleet-sim", "--gateways", "40", "--namespaces", "20", "--objects", "100", "--replicas", "20"];
    let output = loadtest(&[&size[..], &["--changes", "3", "--json", "-"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    let larger: Vec<_> = result["rows"].as_array().unwrap().iter().map(|row| &row["larger"]).collect();
    assert_eq!(larger, ["nothing", "gateways", "namespaces", "objects", "replicas", "everything"]);
}

#[test]
fn wrong_flags_are_named() {
    for (arguments, words) in [
        (&["propagation", "--start", "replicas=0,api=embedded"][..], "replicas=0"),
        (&["propagation", "--start", "api=docker"], "api=docker"),
        (&["propagation", "--operator", "127.0.0.1:1"], "--kubeconfig"),
        (&["coldsync", "--gateways", "0"], "--gateways"),
        (&["failover", "--every", "0"], "0.001 to 86400"),
        (&["failover", "--every", "1", "--down", "2"], "--down"),
        (&["noisy", "--namespaces", "1"], "--namespaces 1"),
    ] {
        let output = loadtest(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn reading_is_compared_with_a_typed_watcher() {
    let size = ["reading", "--routes", "200", "--namespaces", "5", "--changes", "100", "--json", "-"];
    let output = loadtest(&size);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(result["start_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{result}");
    let used = |who: &str| result[who]["peak_rss"].as_u64().is_some_and(|bytes| bytes > 0);
    assert!(used("flotilla") && used("kube"), "{result}");
}
