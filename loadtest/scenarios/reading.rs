//! What it costs to read very many routes and their changes, beside kube's typed
//! watcher with a reflector in the same run, and how long a replica takes to start
//! with them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Serialize;

use crate::cli::{ReadingLog, Size};
use crate::fleet::{Ending, Fleet};
use crate::process::{Usage, load};
use crate::reader::{How, Reader};
use crate::report::{mebibytes, say, write_json};
use crate::workload::Routes;

/// What one way of reading has used.
#[derive(Debug, Serialize)]
struct Read {
    /// CPU seconds until everything was listed.
    list_cpu_seconds: f64,
    /// CPU seconds for the changes.
    watch_cpu_seconds: f64,
    /// The most memory at any time, in bytes.
    peak_rss: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    scenario: &'static str,
    routes: u32,
    changes: u32,
    flotilla: Read,
    kube: Read,
    /// CPU of ours, by that of kube's.
    list_cpu_ratio: f64,
    watch_cpu_ratio: f64,
    /// How long the API server takes to send all routes to somebody who does nothing
    /// with them.
    bare_list_ms: f64,
    /// From the start of a replica's process until it is ready.
    start_ms: f64,
    start_ratio: f64,
    load_average: f64,
}

/// Runs it.
///
/// # Errors
/// When it cannot measure.
pub async fn run(args: &ReadingLog) -> anyhow::Result<bool> {
    let mut fleet = Fleet::open(&args.fleet).await?;
    let kubeconfig = fleet.kubeconfig()?;
    // No replica may read, or write statuses, meanwhile.
    fleet.end(0, Ending::Term).await?;
    let size = Size { gateways: 1, routes: args.routes, namespaces: args.namespaces };
    let routes = Routes::new(fleet.client(), size);
    routes.namespaces().await;
    say(&format!("creating {} routes", args.routes));
    routes.create(0..args.routes, None).await?;

    let mut readers = [How::Flotilla, How::Kube].map(|how| Reader::start(how, &kubeconfig, args.changes));
    let [Ok(ours), Ok(theirs)] = &mut readers else {
        anyhow::bail!("the readers cannot be started");
    };
    let (ours_listed, theirs_listed) = tokio::try_join!(ours.next(), theirs.next())?;
    for (listed, _) in [&ours_listed, &theirs_listed] {
        anyhow::ensure!(*listed == u64::from(args.routes), "a reader has {listed} of {} routes", args.routes);
    }
    say(&format!("changing {} of them", args.changes));
    let (_, (ours_seen, theirs_seen)) = tokio::try_join!(routes.change_all(args.changes), async {
        tokio::try_join!(ours.next(), theirs.next())
    })?;
    drop(readers);
    let read = |listed: Usage, seen: Usage| Read {
        list_cpu_seconds: listed.cpu_seconds,
        watch_cpu_seconds: seen.since(&listed).cpu_seconds,
        peak_rss: seen.peak_rss,
    };
    let (flotilla, kube) = (read(ours_listed.1, ours_seen.1), read(theirs_listed.1, theirs_seen.1));

    let bare_list = bare_list(&fleet.client()).await?;
    let begun = Instant::now();
    fleet.start_again(0).await?;
    let start = begun.elapsed();
    let millis = |time: Duration| time.as_secs_f64() * 1000.0;
    let found = Found {
        scenario: "reading",
        routes: args.routes,
        changes: args.changes,
        list_cpu_ratio: flotilla.list_cpu_seconds / kube.list_cpu_seconds,
        watch_cpu_ratio: flotilla.watch_cpu_seconds / kube.watch_cpu_seconds,
        flotilla,
        kube,
        bare_list_ms: millis(bare_list),
        start_ms: millis(start),
        start_ratio: start.div_duration_f64(bare_list),
        load_average: load(),
    };
    for (name, read) in [("flotilla", &found.flotilla), ("kube", &found.kube)] {
        say(&format!(
            "{name:<10} list {:.2} s of CPU, changes {:.2} s of CPU, {:.0} MiB at most",
            read.list_cpu_seconds,
            read.watch_cpu_seconds,
            mebibytes(read.peak_rss)
        ));
    }
    say(&format!(
        "ratios of CPU: list {:.2}, changes {:.2}; a bare list takes {:.0} ms, a replica's start {:.0} ms; load average {:.1}",
        found.list_cpu_ratio, found.watch_cpu_ratio, found.bare_list_ms, found.start_ms, found.load_average
    ));
    if let Some(file) = &args.fleet.json {
        write_json(&found, file)?;
    }
    Ok(true)
}

/// Has all routes sent, and does nothing with them.
async fn bare_list(client: &Client) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let request = http::Request::get("/apis/avapigw.io/v1alpha1/apiroutes").body(Body::empty())?;
    let mut body = client.send(request).await.context("a bare list")?.into_body();
    while let Some(frame) = body.frame().await {
        frame.context("a bare list")?;
    }
    Ok(begun.elapsed())
}
