//! The task that writes statuses: it feeds the reporter and carries out its
//! patches, within rate and concurrency. All rules are in
//! `flotilla_core::report`.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use flotilla_api::conditions::Reason;
use flotilla_avapigw::AvapigwStatus;
use flotilla_core::applied::AppliedView;
use flotilla_core::balance::{self, Balancer, Step};
use flotilla_core::delivery::AppliedTable;
use flotilla_core::ids::{Kind, MemberName, ObjectKey};
use flotilla_core::report::{News, PatchOutcome, ReportConfig, Reporter, Round, StatusPatch};
use flotilla_core::time::Mono;
use flotilla_grpc::gateway::DeliveryView;
use flotilla_k8s::coordination::{ActingPermit, Drain, OwnershipView};
use flotilla_k8s::event::Telling;
use flotilla_k8s::{Error, status};
use kube::Client;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Delivery;
use super::events::{Events, about};
use super::leaving::Leaving;
use super::reconciles::{Outcome, Reconciles, controller};
use super::writes::Writes;

/// Rounds are at least this far apart: what happens in between is looked at
/// together.
const PACE: Duration = Duration::from_millis(20);

/// How long patches in flight may take to finish when a namespace is lost.
const FINISH: Duration = Duration::from_secs(1);

/// A round looks at objects where the delivery task has them: for at most one
/// part in so many of that task's time.
const SHARE: u32 = 10;

/// The longest pause, also where that makes the part a larger one: who stood still during a
/// round (a paused machine, SIGSTOP) is not to write nothing for many times as long.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Something that other parts tell the reporter.
#[derive(Debug)]
pub enum Input {
    /// A member's complete table; our own too.
    Applied(MemberName, AppliedTable),
    /// A member speaks over a new connection.
    Doubted(MemberName),
    /// The connection to a member is lost.
    Lost(MemberName),
}

/// Metrics of the reporter.
#[derive(Clone)]
pub struct Metrics {
    patches: IntCounterVec,
    pending: IntGauge,
    fenced: IntCounter,
    rounds: IntCounter,
    reconciles: Reconciles,
    updates: Updates,
}

/// Patches by kind, under the published operator's names.
#[derive(Clone)]
struct Updates {
    total: IntCounterVec,
    errors: IntCounterVec,
    seconds: HistogramVec,
}

impl Updates {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let updates = Updates {
            total: IntCounterVec::new(
                Opts::new("avapigw_operator_status_update_total", "Status patches, by kind and result."),
                &["kind", "result"],
            )?,
            errors: IntCounterVec::new(
                Opts::new("avapigw_operator_status_update_errors_total", "Status patches that failed."),
                &["kind"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new(
                    "avapigw_operator_status_update_duration_seconds",
                    "How long status patches took, by kind.",
                ),
                &["kind"],
            )?,
        };
        registry.register(Box::new(updates.total.clone()))?;
        registry.register(Box::new(updates.errors.clone()))?;
        registry.register(Box::new(updates.seconds.clone()))?;
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                updates.total.with_label_values(&[kind.name(), outcome.name()]).inc_by(0);
            }
            updates.errors.with_label_values(&[kind.name()]).inc_by(0);
        }
        Ok(updates)
    }

    fn observe(&self, kind: Kind, took: Duration, outcome: Outcome) {
        self.total.with_label_values(&[kind.name(), outcome.name()]).inc();
        self.seconds.with_label_values(&[kind.name()]).observe(took.as_secs_f64());
        if outcome == Outcome::Failed {
            self.errors.with_label_values(&[kind.name()]).inc();
        }
    }
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &Registry, reconciles: Reconciles) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            reconciles,
            updates: Updates::new(registry)?,
            patches: IntCounterVec::new(
                Opts::new("flotilla_status_patches_total", "Status patches, by what became of them."),
                &["result"],
            )?,
            pending: IntGauge::new("flotilla_status_pending", "Objects whose status is not final yet.")?,
            fenced: IntCounter::new(
                "flotilla_status_fenced_total",
                "Statuses left alone because they were written in a later epoch.",
            )?,
            rounds: IntCounter::new("flotilla_status_rounds_total", "Rounds of the status reporter.")?,
        };
        registry.register(Box::new(metrics.patches.clone()))?;
        registry.register(Box::new(metrics.pending.clone()))?;
        registry.register(Box::new(metrics.fenced.clone()))?;
        registry.register(Box::new(metrics.rounds.clone()))?;
        for kind in Kind::ALL {
            metrics.reconciles.start(&controller(kind));
        }
        for result in ["written", "conflict", "failed"] {
            metrics.patches.with_label_values(&[result]).inc_by(0);
        }
        Ok(metrics)
    }
}

/// What the task is made of.
pub struct Reporting {
    /// For patches.
    pub client: Client,
    /// Where objects are.
    pub delivery: Delivery,
    /// Who owns what.
    pub ownership: watch::Receiver<std::sync::Arc<OwnershipView>>,
    /// This replica.
    pub member: MemberName,
    /// Whether this replica acts on a namespace right now.
    pub permit: ActingPermit,
    /// Requests to finish writes for namespaces that we act on no more.
    pub drains: mpsc::Receiver<Drain>,
    /// Other writes for namespaces.
    pub writes: Writes,
    /// Tables of all replicas.
    pub inputs: mpsc::Receiver<Input>,
    /// Moves when objects or the own table changed.
    pub view: watch::Receiver<DeliveryView>,
    /// Timing.
    pub config: ReportConfig,
    /// Patches per second.
    pub rate: NonZeroU32,
    /// The origin of the monotonic clock.
    pub origin: Instant,
    /// What people are told.
    pub events: Events,
    /// Whoever lets objects go when gateways have.
    pub leaving: Leaving,
    /// Metrics.
    pub metrics: Metrics,
}

type Answer = (Kind, ObjectKey, PatchOutcome);

/// How long to wait after a round that took so long.
fn pause_after(took: Duration) -> Duration {
    took.saturating_mul(SHARE - 1).clamp(PACE, LONGEST_PAUSE)
}

impl Reporting {
    /// Runs until cancelled; patches in flight are then given up, which their
    /// preconditions make safe.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut reporter = Reporter::new(self.config.clone(), AvapigwStatus);
        let mut applied = AppliedView::default();
        let mut patches: JoinSet<Answer> = JoinSet::new();
        let mut not_before = tokio::time::Instant::now();
        let mut balance = interval(balance::EVERY);
        balance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut balancer = Balancer::default();
        let mut next_patch = not_before;
        'rounds: loop {
            let wake = reporter
                .next_deadline()
                .map(|at| tokio::time::Instant::from_std(self.origin + Duration::from_nanos(at.0)));
            tokio::select! {
                biased; // ending first; the rest is all looked at in one round
                () = cancel.cancelled() => break,
                Some(drain) = self.drains.recv() => self.finish(&mut reporter, &mut patches, drain).await,
                Some(answer) = patches.join_next() => self.answered(&mut reporter, answer),
                Some(input) = self.inputs.recv() => self.take(&mut applied, input),
                changed = self.view.changed() => if changed.is_err() { break },
                // An error says that coordination has ended: then nothing is
                // written any more, and the last streams are still served.
                Ok(()) = self.ownership.changed() => {}
                _ = balance.tick() => self.balance(&applied, &mut balancer).await,
                () = wait_until(wake) => {}
            }
            // Whatever else is there belongs to the same round; but whoever is to take over
            // does not wait for it.
            loop {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => break 'rounds,
                    Some(drain) = self.drains.recv() => self.finish(&mut reporter, &mut patches, drain).await,
                    () = sleep_until(not_before) => break,
                }
            }
            while let Some(answer) = patches.try_join_next() {
                self.answered(&mut reporter, answer);
            }
            while let Ok(input) = self.inputs.try_recv() {
                self.take(&mut applied, input);
            }
            self.view.mark_unchanged();
            let Some(round) = self.round(reporter, applied).await else { break };
            let (due, took);
            (reporter, applied, due, took) = round;
            self.leaving.look(self.now(), &applied);
            for (kind, key) in reporter.take_fenced() {
                self.metrics.fenced.inc();
                tracing::warn!(controller = controller(kind), namespace = %key.namespace, name = %key.name,
                    "status was written in a later epoch than ours, leaving it alone");
            }
            not_before = tokio::time::Instant::now() + pause_after(took);
            for patch in due {
                // Within the rate, whatever the concurrency.
                let at = next_patch.max(tokio::time::Instant::now());
                next_patch = at + Duration::from_secs(1) / self.rate.get();
                self.start(&mut patches, patch, at);
            }
        }
        patches.shutdown().await;
        // Until this task is gone nobody takes over what a replica that fails acted on.
        self.writes.finish(tokio::time::Instant::now() + FINISH).await;
    }

    /// Waits for the patches in flight, briefly; what then still hangs is given
    /// up, and its precondition keeps it from doing harm. The next owner waits
    /// for us meanwhile.
    async fn finish(
        &self,
        reporter: &mut Reporter<AvapigwStatus>,
        patches: &mut JoinSet<Answer>,
        drain: Drain,
    ) {
        let until = tokio::time::Instant::now() + FINISH;
        loop {
            match tokio::time::timeout_at(until, patches.join_next()).await {
                Ok(Some(answer)) => self.answered(reporter, answer),
                Ok(None) => break,
                Err(_) => {
                    patches.shutdown().await;
                    reporter.abandoned(self.now());
                    break;
                }
            }
        }
        self.writes.finish(until).await;
        drop(drain);
    }

    /// Lets gateways go when this replica has clearly more than its share, and
    /// has had it for a while.
    async fn balance(&self, applied: &AppliedView, balancer: &mut Balancer) {
        let gateways = applied.is_complete(self.now()).then(|| applied.gateways_by_member());
        let members = self.ownership.borrow().members();
        // An error says that there are no streams any more.
        let _ = match balancer.look(self.now(), &self.member, gateways.as_ref(), &members) {
            Step::Wait => Ok(()),
            Step::LetGo { count, spread } => {
                tracing::info!(
                    count,
                    ?spread,
                    "more gateways than this replica's share, ending some streams"
                );
                self.delivery.shed(count as usize, spread).await
            }
            Step::Spare { but } => self.delivery.spare(but as usize).await,
        };
    }

    fn take(&self, applied: &mut AppliedView, input: Input) {
        match input {
            Input::Applied(member, table) => applied.set(&member, table),
            Input::Doubted(member) => applied.doubted(self.now(), &member),
            Input::Lost(member) => applied.lost(self.now(), &member),
        }
    }

    fn now(&self) -> Mono {
        Mono::from_origin(self.origin.elapsed())
    }

    /// One round, run where the objects are. `None` when the delivery task is gone.
    async fn round(
        &mut self,
        mut reporter: Reporter<AvapigwStatus>,
        mut applied: AppliedView,
    ) -> Option<(Reporter<AvapigwStatus>, AppliedView, Vec<StatusPatch>, Duration)> {
        let view = self.ownership.borrow_and_update().clone();
        let permit = self.permit.clone();
        let now = self.now();
        let wall = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
        applied.members(now, &view.members());
        applied.listed_as(now, view.instance(&self.member));
        self.metrics.rounds.inc();
        let outcome = self
            .delivery
            .inspect(move |delivery| {
                // The view may be of an earlier map than the permit: who acts, and in
                // which epoch, is one question.
                let permit = permit.current();
                let may_act = |namespace: &str| permit.may_act(namespace);
                let (acting, epoch) = (view.acting(), permit.epoch());
                let round = Round { now, wall: &wall, acting, epoch, applied: &applied, may_act: &may_act };
                let started = Instant::now();
                let due = reporter.poll(delivery, &round);
                (reporter, applied, due, started.elapsed())
            })
            .await
            .ok()?;
        self.metrics.pending.set(i64::try_from(outcome.0.pending()).unwrap_or(i64::MAX));
        Some(outcome)
    }

    fn start(&self, patches: &mut JoinSet<Answer>, patch: StatusPatch, at: tokio::time::Instant) {
        let client = self.client.clone();
        let permit = self.permit.clone();
        let metrics = self.metrics.clone();
        let events = self.events.clone();
        patches.spawn(async move {
            sleep_until(at).await;
            let StatusPatch { kind, key, generation, epoch, body, news } = patch;
            // Ownership may have moved since the plan was made.
            if !permit.may_act(&key.namespace) {
                return (kind, key, PatchOutcome::Conflict);
            }
            let controller = controller(kind);
            let started = Instant::now();
            let answer = status::patch(&client, kind, &key, body).await;
            let (took, became) = (started.elapsed(), Outcome::of(&answer));
            metrics.reconciles.observe(&controller, took, became);
            metrics.updates.observe(kind, took, became);
            let outcome = match answer {
                Ok(written) => {
                    // With its epoch and its place in the log: who acted where, and in which order, can
                    // be told from all replicas' logs without comparing their clocks.
                    let revision = written.map_or(0, |revision| revision.0);
                    tracing::info!(controller, namespace = %key.namespace, name = %key.name, generation,
                        epoch = epoch.0, revision, "status written");
                    if let Some(news) = news {
                        events.tell(telling(kind, &key, news));
                    }
                    PatchOutcome::Written
                }
                Err(Error::Conflict { .. } | Error::NotFound { .. }) => PatchOutcome::Conflict,
                Err(error) => {
                    tracing::warn!(controller, namespace = %key.namespace, name = %key.name, generation,
                        error = %error, "status was not written, trying again");
                    let after = match &error {
                        Error::Transient { retry_after: Some(asked), .. } => *asked,
                        Error::Transient { .. } => Duration::from_secs(1),
                        _ => Duration::from_secs(5),
                    };
                    PatchOutcome::Failed(after)
                }
            };
            (kind, key, outcome)
        });
    }

    fn answered(
        &self,
        reporter: &mut Reporter<AvapigwStatus>,
        answer: Result<Answer, tokio::task::JoinError>,
    ) {
        let (kind, key, outcome) = match answer {
            Ok(answer) => answer,
            // One that was given up is accounted for where that was done.
            Err(error) if error.is_cancelled() => return,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let result = match outcome {
            PatchOutcome::Written => "written",
            PatchOutcome::Conflict => "conflict",
            PatchOutcome::Failed(_) => "failed",
        };
        self.metrics.patches.with_label_values(&[result]).inc();
        reporter.written(self.now(), kind, &key, outcome);
    }
}

/// That it is applied by all gateways is what makes an object well, so this is told once,
/// and not as `ConfigApplied` besides.
fn telling(kind: Kind, key: &ObjectKey, news: News) -> Telling {
    let reason = if news.well { Reason::Reconciled } else { Reason::ReconcileFailed };
    Telling {
        about: about(kind, key, &news.uid),
        action: "Report",
        reason: reason.as_str(),
        message: news.message,
        warning: !news.well,
        again: news.again,
    }
}

async fn wait_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stood_still_during_a_round_does_not_wait_for_many_times_as_long() {
        assert_eq!(pause_after(Duration::ZERO), PACE);
        assert_eq!(pause_after(Duration::from_millis(50)), Duration::from_millis(450));
        assert_eq!(pause_after(Duration::from_secs(30)), LONGEST_PAUSE);
        assert_eq!(pause_after(Duration::MAX), LONGEST_PAUSE);
    }
}
