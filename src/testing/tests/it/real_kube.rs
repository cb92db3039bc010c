//! One instance walks through its life; another one loses its owner.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use flotilla_testing::real_kube::{Error, Options, Part, RealKube};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};

/// Far above what anything here takes on a quiet machine.
const DEADLINE: Duration = Duration::from_secs(60);

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Whether the process exists, be it as a zombie.
fn exists(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

async fn can_list(client: &Client) -> bool {
    let namespaces = Api::<Namespace>::all(client.clone());
    let all = ListParams::default();
    tokio::time::timeout(Duration::from_secs(1), namespaces.list(&all))
        .await
        .is_ok_and(|answer| answer.is_ok())
}

#[tokio::test]
async fn an_instance_serves_survives_outages_and_leaves_nothing() {
    let started = Instant::now();
    let Some(mut kube) = RealKube::start(Options::default()).await.unwrap() else { return };
    eprintln!("ready after {:?}", started.elapsed());
    let client = kube.client().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace("team-a")).await.unwrap();

    // Rights: one user has all, the other none.
    let limited: Api<Namespace> = Api::all(kube.limited_client().await.unwrap());
    assert!(is_forbidden(&limited.get("team-a").await.unwrap_err()));

    // A crash: refused at once, and afterwards back with what was stored.
    let url = kube.url();
    kube.stop_apiserver();
    assert_eq!(kube.pids().len(), 2);
    assert!(!can_list(&client).await);
    kube.start_apiserver().await.unwrap();
    assert_eq!(kube.url(), url);
    namespaces.get("team-a").await.unwrap();

    // Silence: no answer, no error; then it goes on.
    kube.pause_apiserver().unwrap();
    assert!(!can_list(&client).await);
    kube.resume_apiserver().unwrap();
    eventually("answers again", async || can_list(&client).await).await;

    // The controllers work, before and after: deletion needs one of them.
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "team-a");
    eventually("root CA is published", async || {
        config_maps.get_opt("kube-root-ca.crt").await.is_ok_and(|found| found.is_some())
    })
    .await;
    namespaces.delete("team-a", &DeleteParams::default()).await.unwrap();
    eventually("namespace is gone", async || {
        namespaces.get_opt("team-a").await.is_ok_and(|found| found.is_none())
    })
    .await;

    kube.check().unwrap();
    let pids = kube.pids();
    let log = kube.log_path(Part::Apiserver);
    assert_eq!(pids.len(), 3);
    assert!(log.exists());
    drop(kube);
    for (part, pid) in pids {
        assert!(!exists(pid), "{} is left", part.name());
    }
    assert!(!log.parent().unwrap().exists(), "files are left");
}

#[tokio::test]
async fn a_part_that_cannot_start_shows_the_end_of_its_log() {
    let options = Options {
        controller_manager: false,
        apiserver_args: vec!["--no-such-flag".into()],
        ..Options::default()
    };
    let error = match RealKube::start(options).await {
        Ok(None) => return,
        Ok(Some(_)) => panic!("an unknown flag was accepted"),
        Err(error) => error,
    };
    assert!(matches!(error, Error::Exited { part: Part::Apiserver, .. }), "{error}");
    assert!(error.to_string().contains("--no-such-flag"), "{error}");
}

#[test]
fn a_shared_instance_outlives_the_test_that_started_it() {
    let test = || tokio::runtime::Runtime::new().unwrap();
    let first = std::thread::spawn(move || {
        let kube = test().block_on(RealKube::shared()).unwrap();
        kube.map(RealKube::url)
    });
    let Some(url) = first.join().unwrap() else { return };
    test().block_on(async {
        let kube = RealKube::shared().await.unwrap().unwrap();
        assert_eq!(kube.url(), url);
        let client = kube.client().await.unwrap();
        eventually("answers", async || can_list(&client).await).await;
    });
}

/// A started `real-kube`, and the process ids of its parts.
struct Owner {
    process: std::process::Child,
    dir: PathBuf,
    pids: Vec<u32>,
}

/// Runs the `real-kube` binary; `None` when Kubernetes is not built.
fn run_owner() -> Option<Owner> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_real-kube"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line.is_empty() {
        let status = process.wait().unwrap();
        let required = std::env::var("FLOTILLA_REQUIRE_REAL_KUBE").is_ok_and(|value| value == "1");
        assert!(!required && status.code() == Some(3), "real-kube ended with {status}");
        return None;
    }
    let dir = Path::new(line.trim()).parent().unwrap().to_owned();
    let pids = [Part::Etcd, Part::Apiserver, Part::ControllerManager]
        .map(|part| dir.join(part.name()).with_extension("pid"))
        .map(|file| std::fs::read_to_string(file).unwrap().parse().unwrap())
        .to_vec();
    Some(Owner { process, dir, pids })
}

#[tokio::test]
async fn parts_die_with_a_killed_owner() {
    let Some(mut owner) = run_owner() else { return };
    assert!(owner.pids.iter().all(|pid| exists(*pid)));
    owner.process.kill().unwrap();
    owner.process.wait().unwrap();
    eventually("orphans are gone", async || !owner.pids.iter().any(|pid| is_running(*pid))).await;
    // Nobody was left to remove its files; the next instance to start does, be
    // it one of another test, so they may be gone already.
    let _ = std::fs::remove_dir_all(&owner.dir);
}

#[tokio::test]
async fn an_owner_ends_with_its_standard_input() {
    let Some(mut owner) = run_owner() else { return };
    drop(owner.process.stdin.take());
    let status = owner.process.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(!owner.pids.iter().any(|pid| exists(*pid)));
    assert!(!owner.dir.exists());
}

/// Whether the process does anything. An orphan is reaped by the first process
/// of the machine, which may take its time.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
