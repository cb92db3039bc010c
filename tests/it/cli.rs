//! Command lines, good and bad.

use crate::program::{flotilla, outcome, run};

fn refused(arguments: &[&str], words: &[&str]) {
    let (code, _, stderr) = outcome(&run(arguments));
    assert!(matches!(code, Some(1 | 2)), "{arguments:?} ended with {code:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?} does not say {word:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn unknown_and_wrong_flags_are_named() {
    refused(&["controller", "--no-such-flag"], &["--no-such-flag"]);
    refused(&["controller", "--grpc-port", "65536"], &["--grpc-port", "65536"]);
    refused(&["controller", "--member-lease-duration", "5"], &["--member-lease-duration", "5s"]);
    refused(&["no-such-command"], &["no-such-command"]);
    refused(&["demo", "--replicas", "0"], &["--replicas", "0"]);
    refused(&["gateway"], &["--operator-address"]);
    refused(
        &["gateway", "--labels", "tier:public"],
        &["--labels", "\"tier:public\" is no label", "KEY=VALUE"],
    );
    refused(&["gateway", "--labels=tier=a,tier=b"], &["--labels", "\"tier\" is there twice", "once"]);
}

#[test]
fn a_wrong_variable_is_reported_and_ignored() {
    // What comes after it fails for another reason, which shows that the start went on.
    let mut command = flotilla(&["controller", "--kubeconfig", "/no/such/file"]);
    let (code, _, stderr) = outcome(&command.env("GRPC_PORT", "many").output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("GRPC_PORT") && stderr.contains("many") && stderr.contains("/no/such/file"),
        "{stderr}"
    );
}

#[test]
fn flags_of_the_published_operator_without_a_use_are_named() {
    let mut command = flotilla(&["controller", "-leader-elect", "--kubeconfig", "/no/such/file"]);
    let (_, _, stderr) = outcome(&command.env("OTLP_ENDPOINT", "collector:4317").output().unwrap());
    let warned = |words: [&str; 3]| {
        stderr.lines().any(|line| line.contains("no effect") && words.iter().all(|word| line.contains(word)))
    };
    assert!(warned(["warn", "leader-elect", "always elect a leader"]), "{stderr}");
    assert!(warned(["warn", "otlp-endpoint", "no tracing"]), "{stderr}");
    assert!(stderr.contains("/no/such/file") && !stderr.contains("duplicate-cache"), "{stderr}");
}

#[test]
fn leases_that_cannot_work_are_refused() {
    refused(
        &[
            "controller",
            "--kubeconfig",
            "/dev/null",
            "--member-lease-duration",
            "2s",
            "--member-lease-renew",
            "2s",
        ],
        &["member-lease"],
    );
}

#[test]
fn an_unreadable_kubeconfig_is_named() {
    refused(&["controller", "--kubeconfig", "/no/such/file"], &["/no/such/file"]);
    refused(
        &[
            "certs",
            "gateway",
            "--namespace",
            "n",
            "--name",
            "g",
            "--out",
            "/tmp",
            "--kubeconfig",
            "/dev/null",
        ],
        &["/dev/null"],
    );
}

#[test]
fn unreadable_certificates_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(folder.path().join("bad.crt"), "no certificate").unwrap();
    let gateway = |ca: &str, certificate: &str, key: &str, word: &str| {
        let (ca, certificate, key) = (path(ca), path(certificate), path(key));
        refused(
            &[
                "gateway",
                "--operator-address",
                "127.0.0.1:1",
                "--operator-ca-file",
                &ca,
                "--operator-cert-file",
                &certificate,
                "--operator-key-file",
                &key,
            ],
            &[word],
        );
    };
    gateway("missing.crt", "missing.crt", "missing.key", "missing.crt");
    gateway("bad.crt", "bad.crt", "bad.crt", "bad.crt");
}

#[test]
fn crds_are_printed_as_yaml() {
    let (code, stdout, stderr) = outcome(&run(&["crds"]));
    assert_eq!(code, Some(0), "{stderr}");
    for name in
        ["apiroutes.avapigw.io", "grpcroutes.avapigw.io", "backends.avapigw.io", "grpcbackends.avapigw.io"]
    {
        assert!(stdout.contains(&format!("name: {name}")), "{name} is missing");
    }
    assert!(stdout.contains("name: shardmaps.fleet.flotilla.dev"));
}
