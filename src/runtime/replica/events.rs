//! Tells people what turned, by Events about objects. They are best effort: nothing
//! waits for them, and they wait for nothing. What there are too many of is dropped
//! and counted.

use std::sync::Arc;
use std::time::Duration;

use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::Error;
use flotilla_k8s::coordination::ActingPermit;
use flotilla_k8s::event::{self, Telling};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written.
const QUEUE: usize = 256;

/// Events that a replica may write at once after a while without any.
const BURST: u32 = 100;

/// After this time it may write one more.
const EVERY: Duration = Duration::from_millis(200);

/// Of the burst, what is kept for warnings: they may come among many that say that
/// something is well.
const FOR_WARNINGS: u32 = 25;

/// What became of an event.
const RESULTS: [&str; 4] = ["written", "known", "dropped", "failed"];

/// Takes events; clones are the same.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Telling>,
    counted: IntCounterVec,
}

/// The task's part.
pub struct Writing {
    queue: mpsc::Receiver<Telling>,
    counted: IntCounterVec,
}

impl Events {
    /// The two ends, with their metric registered.
    ///
    /// # Errors
    /// When its name is registered already.
    pub fn new(registry: &Registry) -> Result<(Events, Writing), prometheus::Error> {
        let counted = IntCounterVec::new(
            Opts::new("flotilla_events_total", "Kubernetes Events about objects, by what became of them."),
            &["result"],
        )?;
        registry.register(Box::new(counted.clone()))?;
        for result in RESULTS {
            counted.with_label_values(&[result]).inc_by(0);
        }
        let (sender, receiver) = mpsc::channel(QUEUE);
        Ok((Events { queue: sender, counted: counted.clone() }, Writing { queue: receiver, counted }))
    }

    /// Tells something, if there is room for it.
    pub fn tell(&self, telling: Telling) {
        if self.queue.try_send(telling).is_err() {
            self.counted.with_label_values(&["dropped"]).inc();
        }
    }
}

impl Writing {
    /// Writes events about what this replica acts on, until cancelled.
    pub async fn run(self, client: Client, permit: ActingPermit, cancel: CancellationToken) {
        let post = |telling: Telling| {
            let client = client.clone();
            async move { event::post(&client, &telling).await }
        };
        self.write(&cancel, |namespace| permit.may_act(namespace), post).await;
    }

    /// As [`Writing::run`]. What waits when it is cancelled, and what is told from then on,
    /// is given up.
    async fn write<Posted: Future<Output = Result<bool, Error>>>(
        mut self,
        cancel: &CancellationToken,
        may_act: impl Fn(&str) -> bool,
        post: impl Fn(Telling) -> Posted,
    ) {
        let mut bucket = Bucket::new(Instant::now());
        let dropped = self.counted.with_label_values(&["dropped"]);
        loop {
            let telling = tokio::select! {
                biased; // as said above
                () = cancel.cancelled() => break,
                telling = self.queue.recv() => telling,
            };
            let Some(telling) = telling else { return cancel.cancelled().await };
            let namespace = telling.about.namespace.as_deref().unwrap_or_default();
            // The next owner sees what became of it, and what turned under it.
            if !may_act(namespace) || !bucket.take(Instant::now(), telling.warning) {
                dropped.inc();
                continue;
            }
            let result = tokio::select! {
                biased; // as said above
                () = cancel.cancelled() => {
                    dropped.inc();
                    break;
                }
                posted = post(telling) => match posted {
                    Ok(true) => "written",
                    Ok(false) => "known",
                    Err(error) => {
                        tracing::debug!(error = %error, "an event was not written");
                        "failed"
                    }
                },
            };
            self.counted.with_label_values(&[result]).inc();
        }
        self.queue.close();
        while self.queue.try_recv().is_ok() {
            dropped.inc();
        }
    }
}

/// How many events may be written now.
struct Bucket {
    left: u32,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Bucket { left: BURST, filled: now }
    }

    fn take(&mut self, now: Instant, warning: bool) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_millis() / EVERY.as_millis();
        let more = u32::try_from(passed).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(BURST);
        self.filled = if self.left == BURST { now } else { self.filled + EVERY * more };
        if self.left <= if warning { 0 } else { FOR_WARNINGS } {
            return false;
        }
        self.left -= 1;
        true
    }
}

/// An object of a delivered kind, for an event about it.
pub fn about(kind: Kind, key: &ObjectKey, uid: &Arc<str>) -> ObjectReference {
    event::about("avapigw.io/v1alpha1", kind.name(), key, Some(uid))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn telling() -> Telling {
        Telling {
            about: about(Kind::Backend, &ObjectKey::new("n", "x"), &Arc::from("u")),
            action: "Report",
            reason: "Reconciled",
            message: String::new(),
            warning: false,
            again: true,
        }
    }

    fn taken(bucket: &mut Bucket, now: Instant, warning: bool) -> u32 {
        (0..1000).map(|_| u32::from(bucket.take(now, warning))).sum()
    }

    #[test]
    fn many_at_once_are_bounded_and_warnings_have_a_part_of_their_own() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        assert_eq!(taken(&mut bucket, start, false), BURST - FOR_WARNINGS);
        assert_eq!(taken(&mut bucket, start, true), FOR_WARNINGS);
        // Time that passes counts, in however small parts it is looked at.
        let mut written = 0;
        for passed in 1..=100 {
            written += taken(&mut bucket, start + EVERY * passed / 10, true);
        }
        assert_eq!(written, 10);
        assert_eq!(taken(&mut bucket, start + EVERY * 10 * BURST, true), BURST, "and no more than that");
    }

    #[test]
    fn what_finds_no_room_is_counted_and_nobody_waits() {
        let registry = Registry::new();
        let (events, _writing) = Events::new(&registry).unwrap();
        for _ in 0..QUEUE + 3 {
            events.tell(telling());
        }
        assert_eq!(events.counted.with_label_values(&["dropped"]).get(), 3);
    }

    #[tokio::test]
    async fn what_is_not_written_at_the_end_is_counted() {
        let (events, writing) = Events::new(&Registry::new()).unwrap();
        for _ in 0..4 {
            events.tell(telling());
        }
        let (cancel, posts) = (CancellationToken::new(), AtomicUsize::new(0));
        let post = async |_| {
            if posts.fetch_add(1, Ordering::Relaxed) == 1 {
                cancel.cancel();
                std::future::pending::<()>().await;
            }
            Ok(true)
        };
        writing.write(&cancel, |_| true, post).await;
        events.tell(telling());
        let [written, known, dropped, failed] =
            RESULTS.map(|result| events.counted.with_label_values(&[result]).get());
        assert_eq!((written, known, dropped, failed), (1, 0, 4, 0));
    }
}
