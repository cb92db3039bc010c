//! Every task of a process is spawned here, by name. A task that ends before
//! it was told to, or panics, ends the process: a replica that lost a part
//! must not go on looking alive.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Owns the tasks of one part of a process.
pub struct Supervisor {
    tasks: JoinSet<(&'static str, Result<(), anyhow::Error>)>,
    cancel: CancellationToken,
}

impl Supervisor {
    /// A supervisor whose tasks end when `cancel` does.
    pub fn new(cancel: CancellationToken) -> Self {
        Supervisor { tasks: JoinSet::new(), cancel }
    }

    /// Spawns a task that may fail.
    pub fn spawn_fallible<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), anyhow::Error>> + Send + 'static,
    {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Spawns a task that runs until it is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks.spawn(async move {
            task.await;
            (name, Ok(()))
        });
    }

    /// Waits until cancelled or until a task ends, then cancels the others and
    /// joins them, for at most `grace`.
    ///
    /// # Errors
    /// The first task that ended without being told to, by name.
    pub async fn run(mut self, grace: Duration) -> Result<(), anyhow::Error> {
        let mut outcome = Ok(());
        tokio::select! {
            biased; // being told to end is not a failure
            () = self.cancel.cancelled() => {}
            Some(ended) = self.tasks.join_next() => {
                if !self.cancel.is_cancelled() {
                    outcome = Err(unexpected(ended));
                }
            }
        }
        self.cancel.cancel();
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok((name, Err(error))) = ended {
                    tracing::warn!(task = name, error = format!("{error:#}"), "task failed while ending");
                }
            }
        };
        if timeout(grace, all).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "tasks did not end in time and are aborted");
            self.tasks.shutdown().await;
        }
        outcome
    }
}

fn unexpected(
    ended: Result<(&'static str, Result<(), anyhow::Error>), tokio::task::JoinError>,
) -> anyhow::Error {
    match ended {
        Ok((name, Ok(()))) => anyhow::anyhow!("task {name} ended by itself"),
        Ok((name, Err(error))) => error.context(format!("task {name} failed")),
        Err(error) => anyhow::anyhow!("a task panicked: {error}"),
    }
}

/// Works beside servers that must not end before the work does: if one fails,
/// the work is told to end, in order, and the failure is what remains.
///
/// # Errors
/// What the work ended with, or the server that ended before it.
pub async fn beside(
    servers: Supervisor,
    grace: Duration,
    web: CancellationToken,
    cancel: CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut servers = tokio::spawn(servers.run(grace));
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased; // once the work is done nobody asks how the servers are
        outcome = &mut work => {
            web.cancel();
            servers.await??;
            outcome
        }
        ended = &mut servers => {
            cancel.cancel();
            let outcome = work.await;
            ended??;
            outcome
        }
    }
}

/// Cancels `cancel` at the first SIGINT or SIGTERM, and, if asked to, at the
/// end of standard input. A second signal ends the process at once.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals(cancel: CancellationToken, exit_with_stdin: bool) -> Result<(), anyhow::Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    if exit_with_stdin {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            // Nothing is ever written: reading ends when the parent does.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await;
            tracing::info!("standard input has ended, draining");
            cancel.cancel();
        });
    }
    tokio::spawn(async move {
        for round in 0..2 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if round == 0 {
                tracing::info!("told to end, draining");
                cancel.cancel();
            } else {
                tracing::warn!("told to end again, ending at once");
                std::process::exit(130);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_others_and_is_named() {
        let cancel = CancellationToken::new();
        let mut supervisor = Supervisor::new(cancel.clone());
        let token = cancel.clone();
        supervisor.spawn("patient", async move { token.cancelled().await });
        supervisor.spawn("hasty", async {});
        let error = supervisor.run(Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().contains("hasty"), "{error}");
        assert!(cancel.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_and_being_told_to_end_is_not() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("clumsy", async { assert!(std::hint::black_box(false), "oops") });
        assert!(supervisor.run(Duration::from_secs(5)).await.unwrap_err().to_string().contains("panicked"));

        let cancel = CancellationToken::new();
        let mut supervisor = Supervisor::new(cancel.clone());
        let token = cancel.clone();
        supervisor.spawn("patient", async move { token.cancelled().await });
        cancel.cancel();
        assert!(supervisor.run(Duration::from_secs(5)).await.is_ok());
    }

    #[tokio::test]
    async fn work_ends_in_order_when_a_server_beside_it_fails() {
        let (web, cancel) = (CancellationToken::new(), CancellationToken::new());
        let mut servers = Supervisor::new(web.clone());
        servers.spawn_fallible("metrics", async { anyhow::bail!("the listener is gone") });
        let (told, ended) = (cancel.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let mark = ended.clone();
        let work = async move {
            told.cancelled().await;
            mark.store(true, std::sync::atomic::Ordering::Relaxed);
            Ok(())
        };
        let error = beside(servers, Duration::from_secs(5), web, cancel, work).await.unwrap_err();
        assert!(format!("{error:#}").contains("metrics failed: the listener is gone"), "{error:#}");
        assert!(ended.load(std::sync::atomic::Ordering::Relaxed), "the work was told to end and did");
    }

    #[tokio::test]
    async fn servers_end_after_the_work_beside_them() {
        let (web, cancel) = (CancellationToken::new(), CancellationToken::new());
        let mut servers = Supervisor::new(web.clone());
        let token = web.clone();
        servers.spawn("metrics", async move { token.cancelled().await });
        let work = async { anyhow::bail!("the work's own end") };
        let error = beside(servers, Duration::from_secs(5), web.clone(), cancel, work).await.unwrap_err();
        assert_eq!(error.to_string(), "the work's own end");
        assert!(web.is_cancelled());
    }
}
