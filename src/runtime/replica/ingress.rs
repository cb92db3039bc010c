//! The task that makes routes and backends of Ingresses, in the namespaces that this
//! replica acts on. All rules are in `flotilla_avapigw`; here is what feeds them and
//! carries out what they say.
//!
//! One Ingress is worked on at a time by one job, which writes one thing after the
//! other, and asks before each whether this replica still acts there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_api::ingress::FINALIZER;
use flotilla_avapigw::{
    Child, Class, Ingress, MayAct, Next, Seen, SeenIngress, Step, Told, Work, World, covers,
};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_k8s::Error;
use flotilla_k8s::coordination::{ActingPermit, OwnershipView};
use flotilla_k8s::event::Telling;
use flotilla_k8s::ingress::{self as api, MARK_LABEL, Observed, Owner, Standing};
use flotilla_k8s::services::KnownService;
use k8s_openapi::api::networking::v1::Ingress as ApiIngress;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::reconciles::{Finalizers, INGRESS as CONTROLLER, Outcome, Reconciles};
use super::writes::{AT_ONCE, Writes};

/// First and longest pause until an Ingress is tried again that could not be written.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Conflicts in a row after which one is not taken for an old view any more.
const CONFLICTS: u32 = 3;

/// How often it is looked whether something is to be tried again.
const TICK: Duration = Duration::from_millis(500);

/// Metrics of this task.
#[derive(Clone)]
pub struct Metrics {
    processed: IntCounterVec,
    faulty: IntCounter,
    failed: IntCounter,
    reconciles: Reconciles,
    finalizers: Finalizers,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(
        registry: &Registry,
        reconciles: Reconciles,
        finalizers: Finalizers,
    ) -> Result<Self, prometheus::Error> {
        reconciles.start(CONTROLLER);
        let metrics = Metrics {
            finalizers,
            reconciles,
            processed: IntCounterVec::new(
                Opts::new(
                    "avapigw_operator_ingress_resources_processed_total",
                    "Ingresses whose routes, backends or status were written, or were to be and could not.",
                ),
                &["result"],
            )?,
            faulty: IntCounter::new(
                "avapigw_operator_ingress_conversion_errors_total",
                "Ingresses of our class that could not be converted; what was made of them before goes on.",
            )?,
            failed: IntCounter::new(
                "flotilla_ingress_write_failures_total",
                "Writes for Ingresses that failed and were tried again.",
            )?,
        };
        registry.register(Box::new(metrics.processed.clone()))?;
        for outcome in [Outcome::Done, Outcome::Failed] {
            metrics.processed.with_label_values(&[outcome.name()]).inc_by(0);
        }
        for metric in [&metrics.faulty, &metrics.failed] {
            registry.register(Box::new(metric.clone()))?;
        }
        Ok(metrics)
    }
}

/// What the task is made of.
pub struct Ingresses {
    /// For writes.
    pub client: kube::Client,
    /// The class of Ingresses that are ours.
    pub class: Class,
    /// Where gateways are reached, as in a status; null when unknown.
    pub addresses: Value,
    /// Whether this replica acts on a namespace right now.
    pub permit: ActingPermit,
    /// Moves when that may have changed.
    pub ownership: watch::Receiver<Arc<OwnershipView>>,
    /// Through which every write goes.
    pub writes: Writes,
    /// What the watches show.
    pub observed: mpsc::Receiver<Observed>,
    /// What people are told.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
}

/// What was written, which is known at once.
enum Written {
    Is(Observed),
    Removed(Kind, ObjectKey),
}

/// What came of a job.
struct Done {
    key: ObjectKey,
    written: Vec<Written>,
    outcome: Result<(), Error>,
    so_far: SoFar,
}

/// What is known of an Ingress from one try to the next.
#[derive(Clone, Copy, Default)]
struct SoFar {
    /// How often it was tried in vain.
    tries: u32,
    /// Whether it was told that it is in vain.
    told: bool,
    /// Whether the first of them was the first look at it: see [`Work::first`].
    first: bool,
    /// Whether something is to be told when it is done.
    turned: bool,
}

/// An Ingress that is to be tried again.
struct Again {
    at: Instant,
    so_far: SoFar,
}

impl Ingresses {
    /// Runs until cancelled; writes in flight are then given up, which their
    /// preconditions make safe.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut world = World::new(self.class.clone(), self.addresses.clone());
        let mut jobs: JoinSet<Done> = JoinSet::new();
        // Those that have a job.
        let mut at_work: BTreeSet<ObjectKey> = BTreeSet::new();
        let mut again: BTreeMap<ObjectKey, Again> = BTreeMap::new();
        // Whether there are more to be looked at, for which nothing has to happen first.
        let mut more = false;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased; // ending first; the rest is all looked at in one round
                () = cancel.cancelled() => break,
                Some(done) = jobs.join_next() => {
                    let done = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                    at_work.remove(&done.key);
                    for written in done.written {
                        match written {
                            Written::Is(observed) => note(&mut world, observed),
                            Written::Removed(kind, key) => world.children(kind, Seen::Gone(key)),
                        }
                    }
                    self.tried(&mut again, &done.key, done.outcome, done.so_far);
                    // What came meanwhile was put off.
                    world.look_again(&done.key);
                }
                Some(observed) = self.observed.recv() => {
                    note(&mut world, observed);
                    while let Ok(observed) = self.observed.try_recv() {
                        note(&mut world, observed);
                    }
                }
                // An error says that coordination has ended: nothing may be acted on.
                Ok(()) = self.ownership.changed() => world.look_at_left(),
                _ = tick.tick() => {
                    let now = Instant::now();
                    // What was not tried again for so long is done, or another's, or gone.
                    again.retain(|_, again| now < again.at + 2 * PAUSE.1);
                    again.iter().filter(|(_, again)| again.at <= now).for_each(|(key, _)| world.look_again(key));
                }
                () = tokio::task::yield_now(), if more => {}
            }
            let permit = self.permit.current();
            more = false;
            while jobs.len() < AT_ONCE as usize {
                let now = Instant::now();
                let may_act = |key: &ObjectKey| {
                    let waits = again.get(key).is_some_and(|again| again.at > now);
                    match permit.may_act(&key.namespace) {
                        false => MayAct::Others,
                        true if waits || at_work.contains(key) => MayAct::Later,
                        true => MayAct::Now,
                    }
                };
                let (key, work) = match world.next(may_act) {
                    Next::Work(key, work) => (key, work),
                    next => {
                        more = next == Next::More;
                        break;
                    }
                };
                at_work.insert(key.clone());
                let so_far = match again.get(&key).map(|again| again.so_far) {
                    Some(so_far) => SoFar { turned: so_far.turned || work.turned, ..so_far },
                    None => SoFar { first: work.first, turned: work.turned, ..SoFar::default() },
                };
                self.start(&mut jobs, key, *work, so_far);
            }
        }
        jobs.shutdown().await;
    }

    fn tried(
        &self,
        again: &mut BTreeMap<ObjectKey, Again>,
        key: &ObjectKey,
        outcome: Result<(), Error>,
        so_far: SoFar,
    ) {
        let error = match outcome {
            Ok(()) => {
                again.remove(key);
                return;
            }
            Err(error) => error,
        };
        let ObjectKey { namespace, name } = key;
        if matches!(error, Error::Conflict { .. }) {
            tracing::info!(controller = CONTROLLER, %namespace, %name, error = %error, "planned from an old view");
        } else {
            self.metrics.failed.inc();
            self.metrics.processed.with_label_values(&[Outcome::Failed.name()]).inc();
            tracing::warn!(controller = CONTROLLER, %namespace, %name, error = %error,
                "what an Ingress becomes was not written, trying again");
        }
        let pause = PAUSE.0.saturating_mul(1 << so_far.tries.min(10)).min(PAUSE.1);
        let so_far = SoFar { tries: so_far.tries + 1, ..so_far };
        again.insert(key.clone(), Again { at: Instant::now() + pause, so_far });
    }

    fn start(&self, jobs: &mut JoinSet<Done>, key: ObjectKey, work: Work, so_far: SoFar) {
        let job = Job {
            client: self.client.clone(),
            permit: self.permit.clone(),
            writes: self.writes.clone(),
            metrics: self.metrics.clone(),
            owner: Owner { key: key.clone(), uid: work.uid.to_string() },
            events: self.events.clone(),
            so_far,
        };
        jobs.spawn(async move {
            let (mut written, started) = (Vec::new(), Instant::now());
            let reconciles = job.metrics.reconciles.clone();
            let (outcome, so_far) = job.carry_out(work, &mut written).await;
            let became = match outcome {
                // A kind that is not installed, or a namespace that is gone.
                Err(Error::NotFound { .. }) => Outcome::Failed,
                _ => Outcome::of(&outcome),
            };
            reconciles.observe(CONTROLLER, started.elapsed(), became);
            Done { key, written, outcome, so_far }
        });
    }
}

/// The work on one Ingress.
struct Job {
    client: kube::Client,
    permit: ActingPermit,
    writes: Writes,
    metrics: Metrics,
    owner: Owner,
    events: Events,
    so_far: SoFar,
}

impl Job {
    async fn carry_out(mut self, work: Work, written: &mut Vec<Written>) -> (Result<(), Error>, SoFar) {
        let outcome = self.work(work, written).await;
        (outcome, self.so_far)
    }

    async fn work(&mut self, work: Work, written: &mut Vec<Written>) -> Result<(), Error> {
        let wrote = !work.steps.is_empty();
        if let Some(told) = &work.told {
            if told.reason == "IngressConversionFailed" {
                self.metrics.faulty.inc();
            }
            self.tell(told);
        }
        if wrote {
            let keeps = work.steps.iter().any(|step| !matches!(step, Step::Remove { .. }));
            let fits = match api::standing(&self.client, &self.owner, &work.revision).await {
                Ok(Standing::AsSeen) => true,
                Ok(Standing::Changed) => false,
                // What was made of it goes with it.
                Ok(Standing::Gone) => !keeps,
                Err(error) => {
                    self.failed(&error, work.failing);
                    return Err(error);
                }
            };
            if !fits {
                let what = format!("carry out what Ingress {} asked for", self.owner.key);
                return Err(Error::Conflict { what });
            }
        }
        let mut failed = None;
        for step in work.steps {
            // One object that is refused keeps no other from being written, but nothing is
            // taken away before all that comes in its place is there.
            if failed.is_some() && matches!(step, Step::Remove { .. }) {
                break;
            }
            match self.write(self.step(step)).await {
                Ok(Some(done)) => written.push(done),
                Ok(None) => return Ok(()),
                Err(error) if failed.is_some() => {
                    tracing::debug!(error = %error, "one more object of an Ingress was not written");
                }
                Err(error) => {
                    self.failed(&error, work.failing);
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(addresses) = &work.addresses {
            let write = api::set_addresses(&self.client, &self.owner, &work.revision, addresses);
            let Some(ingress) = self.write(write).await? else { return Ok(()) };
            written.push(Written::Is(Observed::Ingress(api::Seen::Is(Box::new(ingress)))));
        }
        if let Some(place) = work.release {
            let release = api::release(&self.client, &self.owner, &work.revision, place);
            match self.write(release).await {
                Ok(Some(true)) => self.metrics.finalizers.taken_out_of_ingress(),
                // Another's, or gone since it was seen: that is told.
                Ok(None | Some(false)) => return Ok(()),
                Err(error) => {
                    self.failed(&error, work.failing);
                    return Err(error);
                }
            }
        }
        if wrote {
            self.metrics.processed.with_label_values(&[Outcome::Done.name()]).inc();
            let ObjectKey { namespace, name } = &self.owner.key;
            tracing::info!(controller = CONTROLLER, %namespace, %name, outcome = work.sum, "Ingress reconciled");
        }
        if let Some(reason) = work.done.filter(|_| self.so_far.turned) {
            self.tell(&Told { reason, message: work.sum, warning: false });
        }
        Ok(())
    }

    /// Told once in a row of failures, and not of one that ends by itself: somebody else was
    /// faster, or a webhook does not know a backend yet. What is not shown for so long was
    /// not made of this Ingress.
    fn failed(&mut self, error: &Error, reason: &'static str) {
        let conflict = matches!(error, Error::Conflict { .. });
        let enough = self.so_far.tries >= if conflict { CONFLICTS } else { 1 };
        if enough && !self.so_far.told {
            self.so_far.told = true;
            let words = "there is another object of that name; delete it";
            let message = if conflict { format!("{error}: {words}") } else { error.to_string() };
            self.tell(&Told { reason, message, warning: true });
            self.so_far.turned = true;
        }
    }

    /// Carries out a write if this replica still acts here; `None` when it does not.
    async fn write<T>(&self, write: impl Future<Output = Result<T, Error>>) -> Result<Option<T>, Error> {
        let may_act = || self.permit.may_act(&self.owner.key.namespace);
        self.writes.carry_out(&format!("write for Ingress {}", self.owner.key), may_act, write).await
    }

    async fn step(&self, step: Step) -> Result<Written, Error> {
        let Job { client, owner, .. } = self;
        let (kind, object) = match step {
            Step::Make { kind, key, spec, mark } => {
                let made = api::make(client, owner, kind, &key.name, spec.clone(), &mark).await?;
                (kind, kept(kind, &key, &spec, made)?)
            }
            Step::Change { kind, key, revision, spec, mark } => {
                let changed = api::change(client, kind, &key, &revision, spec.clone(), &mark).await?;
                (kind, kept(kind, &key, &spec, changed)?)
            }
            Step::Remove { kind, key, uid, revision } => {
                api::remove(client, kind, &key, &uid, &revision).await?;
                return Ok(Written::Removed(kind, key));
            }
        };
        Ok(Written::Is(Observed::Made(kind, api::Seen::Is(Box::new(object)))))
    }

    fn tell(&self, told: &Told) {
        let Told { reason, message, warning } = told.clone();
        self.events.tell(Telling {
            about: api::reference(&self.owner),
            action: "Convert",
            reason,
            message,
            warning,
            again: !self.so_far.first,
        });
    }
}

/// What was written, if the API server keeps it as it was written: otherwise it would be
/// written again at once, for ever.
fn kept(kind: Kind, key: &ObjectKey, wanted: &Value, object: DynamicObject) -> Result<DynamicObject, Error> {
    if object.data.get("spec").is_some_and(|spec| covers(spec, wanted)) {
        return Ok(object);
    }
    let message = "the API server keeps another spec than was written; see to it that the \
                   CustomResourceDefinitions are of this release and that no webhook changes it";
    Err(Error::Permanent { what: format!("write {kind} {key}"), message: message.to_owned() })
}

fn note(world: &mut World, observed: Observed) {
    match observed {
        Observed::Ingress(seen) => {
            if let Some(seen) = seen_as(seen, key_of, ingress) {
                world.ingresses(seen);
            }
        }
        Observed::Service(seen) => {
            let key = |service: &KnownService| service.key.clone();
            if let Some(seen) = seen_as(seen, key, |service| Some((service.key, service.ports))) {
                world.services(seen);
            }
        }
        Observed::Made(kind, seen) => {
            if let Some(seen) = seen_as(seen, key_of, |made| child(kind, made)) {
                world.children(kind, seen);
            }
        }
    }
}

/// `None` when nothing was seen: what was keeps being true until everything is listed again.
fn seen_as<K, T>(
    seen: api::Seen<K>,
    key: impl Fn(&K) -> ObjectKey,
    read: impl Fn(K) -> Option<T>,
) -> Option<Seen<T>> {
    Some(match seen {
        api::Seen::All(all) => Seen::All(all.into_iter().filter_map(read).collect()),
        api::Seen::Gone(object) => Seen::Gone(key(&object)),
        api::Seen::Is(object) => {
            let key = key(&object);
            read(*object).map_or(Seen::Gone(key), Seen::Is)
        }
        api::Seen::Lost => return None,
    })
}

fn key_of<K: kube::Resource>(object: &K) -> ObjectKey {
    ObjectKey::new(object.namespace().unwrap_or_default(), object.name_any())
}

fn ingress(object: ApiIngress) -> Option<SeenIngress> {
    let addresses = object.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.clone());
    Some(SeenIngress {
        uid: object.uid()?.into(),
        revision: object.resource_version()?.into(),
        deleting: object.metadata.deletion_timestamp.is_some(),
        addresses: addresses.map(|addresses| json!(addresses)).unwrap_or_default(),
        finalizer: object.finalizers().iter().position(|finalizer| finalizer == FINALIZER),
        ingress: Ingress {
            key: key_of(&object),
            annotations: object.metadata.annotations.unwrap_or_default(),
            spec: object.spec.unwrap_or_default(),
        },
    })
}

/// An object that was made of an Ingress; one that only says so is nothing of ours.
fn child(kind: Kind, object: DynamicObject) -> Option<Child> {
    let owner = object.owner_references().iter().find(|owner| {
        owner.kind == "Ingress"
            && owner.api_version == "networking.k8s.io/v1"
            && owner.controller == Some(true)
    })?;
    Some(Child {
        kind,
        key: key_of(&object),
        uid: object.uid()?.into(),
        revision: object.resource_version()?.into(),
        owner: owner.uid.as_str().into(),
        mark: object.labels().get(MARK_LABEL).map(|mark| mark.as_str().into()),
        deleting: object.metadata.deletion_timestamp.is_some(),
        spec: object.data.get("spec").cloned().unwrap_or_default(),
    })
}

/// An address as it stands in the status of an Ingress.
pub fn address(text: &str) -> Value {
    let field = if text.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "hostname" };
    json!([{field: text}])
}
