//! Runs a real Kubernetes API server until it is no longer wanted.
//!
//! For tests in other processes, and for trying things by hand:
//!
//! ```sh
//! cargo run -p flotilla-testing --bin real-kube     # prints the kubeconfig's path
//! kubectl --kubeconfig PATH get namespaces
//! ```
//!
//! Ends on SIGINT or SIGTERM, when its standard input is a pipe that closes (its
//! parent has gone), or when one of its parts dies. Exit status 3 says that the
//! binaries are not built.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use flotilla_testing::real_kube::{Error, Options, RealKube};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// How soon a dead part is noticed.
const LOOK: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("real-kube: {error}");
            let mut source = std::error::Error::source(&*error);
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<ExitCode, Box<dyn std::error::Error>> {
    // Before anything is started, so that a signal never leaves it behind.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stdin = stdin_closed();
    // The order does not matter: each of them ends it.
    let mut unwanted = pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = stdin => {}
        }
    });

    // Either arm may win: dropping a start that is under way stops what it
    // started, and nothing is lost.
    let mut kube = tokio::select! {
        () = &mut unwanted => return Ok(ExitCode::SUCCESS),
        started = RealKube::start(Options::default()) => match started? {
            Some(kube) => kube,
            None => return Ok(ExitCode::from(3)),
        },
    };
    writeln!(io::stdout(), "{}", kube.kubeconfig().display())?;
    eprintln!("{} is ready; ends on SIGINT or SIGTERM", kube.url());
    eprintln!("without rights: {}", kube.limited_kubeconfig().display());

    // Either arm may win here too: when a part dies as the end is asked for,
    // both answers are true.
    tokio::select! {
        () = unwanted => Ok(ExitCode::SUCCESS),
        error = first_death(&mut kube) => Err(error.into()),
    }
}

/// Waits for one of the parts to end by itself.
async fn first_death(kube: &mut RealKube) -> Error {
    loop {
        if let Err(error) = kube.check() {
            return error;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for the end of standard input, if that is a pipe. `/dev/null`, which a
/// shell gives to background jobs, is at its end from the start and means nothing.
async fn stdin_closed() {
    let kind = std::fs::metadata("/dev/stdin").map(|meta| meta.file_type());
    if !kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket()) {
        return std::future::pending().await;
    }
    let (closed, wait) = oneshot::channel();
    // A thread of its own, because the runtime would wait for a blocked one
    // before the process can end.
    std::thread::spawn(move || {
        let mut ignored = [0; 256];
        while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
        let _ = closed.send(());
    });
    let _ = wait.await;
}
