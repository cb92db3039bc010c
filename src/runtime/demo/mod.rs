//! `flotilla demo`: the real thing as processes of this binary, with tenants
//! that keep changing things, and one replica that is killed.
//!
//! What it says about the fleet it knows from outside: from the API server,
//! from the gateways' own pages, from the replicas' metrics.

mod fleet;
mod http;
mod ledger;
mod observer;
mod processes;
mod report;
mod round;
mod table;
mod view;
mod workload;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::cli::{DemoArgs, Output};
use fleet::{Fleet, SYSTEM_NAMESPACE};
use ledger::Ledger;
use round::Round;
use workload::Tenants;

/// The book that observers and tenants write into.
type Book = Arc<Mutex<Ledger>>;

/// Works on the book; a panic elsewhere does not lose it.
fn with_book<R>(book: &Book, work: impl FnOnce(&mut Ledger) -> R) -> R {
    work(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Runs the demo.
///
/// # Errors
/// When it cannot be started, or a process dies that nobody killed.
pub async fn run(args: DemoArgs, cancel: CancellationToken) -> anyhow::Result<ExitCode> {
    let started = std::time::Instant::now();
    let says = Says { quiet: args.output == Output::Json };
    let mut fleet = tokio::select! {
        biased; // as below
        () = cancel.cancelled() => return Ok(ExitCode::SUCCESS),
        fleet = Fleet::prepare(&args) => fleet?,
    };
    let outcome = tokio::select! {
        biased; // Ctrl-C ends the demo at any point
        () = cancel.cancelled() => Ok(ExitCode::SUCCESS),
        outcome = play(&args, &mut fleet, &says, started) => outcome,
    };
    says.line("ending all processes");
    fleet.stop().await;
    outcome
}

async fn play(
    args: &DemoArgs,
    fleet: &mut Fleet,
    says: &Says,
    started: std::time::Instant,
) -> anyhow::Result<ExitCode> {
    let namespaces: Vec<String> = (0..args.namespaces).map(|number| format!("demo-{number:02}")).collect();
    fleet.create_namespaces(&[SYSTEM_NAMESPACE.to_owned()]).await?;
    fleet.create_namespaces(&namespaces).await?;
    says.line(&format!("{} replicas", args.replicas));
    fleet.start_replicas(args.replicas).await?;
    says.line(&format!("{} gateways", args.gateways));
    fleet.start_gateways(args.gateways).await?;
    let book: Book =
        Arc::new(Mutex::new(Ledger::new(fleet.gateways.iter().map(|gateway| gateway.name.clone()))));
    let observers = observe(fleet, &book);
    let tenants = Tenants::new(fleet.clients.objects.clone(), namespaces.clone());
    let mut round = Round { args, fleet, says, tenants, namespaces, book, next_change: 0 };
    round.furnish().await?;
    round.hints();
    let mut report = round.play().await?;
    report.seconds = started.elapsed().as_secs_f64();
    if args.once {
        says.result(args.output, &report)?;
        observers.abort_all();
        return Ok(if report.held() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    says.summary(&report);
    let outcome = table::show(&mut round, observers).await;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// One observer per gateway, and one task that writes what they hear into the
/// book. They end with the set.
fn observe(fleet: &Fleet, book: &Book) -> Observers {
    let (to, mut from) = mpsc::channel(4096);
    let mut tasks = tokio::task::JoinSet::new();
    for gateway in &fleet.gateways {
        tasks.spawn(observer::observe(gateway.addresses.admin, to.clone()));
    }
    let book = book.clone();
    tasks.spawn(async move {
        while let Some(application) = from.recv().await {
            with_book(&book, |book| book.applied(application));
        }
        anyhow::bail!("all observers ended")
    });
    Observers(tasks)
}

/// The observers' tasks.
pub struct Observers(tokio::task::JoinSet<anyhow::Result<()>>);

impl Observers {
    fn abort_all(mut self) {
        self.0.abort_all();
    }

    /// Waits until one fails.
    async fn failed(&mut self) -> anyhow::Error {
        match self.0.join_next().await {
            Some(Ok(Err(error))) => error,
            other => anyhow::anyhow!("an observer ended: {other:?}"),
        }
    }
}

/// What the demo says to people: plain lines. With JSON output they go nowhere,
/// so that standard output is one object.
pub struct Says {
    quiet: bool,
}

impl Says {
    /// One line.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            // Nobody may be reading any more, which is no reason to stop.
            let _ = writeln!(std::io::stdout().lock(), "{text}");
        }
    }

    /// Whether a live table can be drawn.
    pub fn on_terminal(&self) -> bool {
        !self.quiet && std::io::stdout().is_terminal()
    }

    fn result(&self, output: Output, report: &report::Report) -> anyhow::Result<()> {
        match output {
            Output::Json => {
                let text = serde_json::to_string_pretty(report)?;
                writeln!(std::io::stdout().lock(), "{text}").context("standard output")
            }
            Output::Text => {
                self.summary(report);
                Ok(())
            }
        }
    }

    fn summary(&self, report: &report::Report) {
        let (all, before) = (report.propagation_ms, report.propagation_before_kill_ms);
        self.line(&format!(
            "{} changes; from the API server's answer to the last of {} gateways: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms \
             (before the kill p99 {:.0} ms)",
            report.changes, report.gateways, all.p50, all.p99, all.max, before.p99
        ));
        self.line(&format!(
            "killed {}: the next change was everywhere after {:.0} ms; {} of {} namespaces moved; {:.2} status patches per change",
            report.kill.victim,
            report.kill.next_change_ms,
            report.kill.namespaces_moved,
            report.namespaces,
            report.status_patches_per_change
        ));
        if report.held() {
            self.line("every gateway holds exactly what the API server holds, and every status says so");
        }
        for problem in &report.problems {
            self.line(&format!("PROBLEM: {problem}"));
        }
    }
}
