//! Looking at the source of certificates again and again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flotilla_core::ids::ObjectKey;
use flotilla_k8s::event::{self, Telling};
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use rand::Rng as _;
use tokio_util::sync::CancellationToken;

use super::{Looked, Material, ReplicaTls, Source};
use crate::cli::CertProvider;
use crate::registry::looked_at;

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long one look may take.
const LOOK: Duration = Duration::from_secs(60);

/// What is told of certificates.
#[derive(Clone)]
pub struct Metrics {
    ends: GaugeVec,
    trusted: IntGauge,
    looks: IntCounterVec,
    failing: IntGauge,
    operator: Operator,
}

/// The same under the published operator's names.
#[derive(Clone)]
struct Operator {
    issued: Option<IntCounter>,
    rotations: IntCounter,
    errors: IntCounter,
    /// When the certificate in use ends.
    ends: Arc<Mutex<SystemTime>>,
}

impl Operator {
    fn new(
        registry: &Registry,
        provider: CertProvider,
        member: &str,
        held: &Material,
    ) -> Result<Self, prometheus::Error> {
        let (provider, operation) = match provider {
            CertProvider::Selfsigned => ("selfsigned", "renew"),
            CertProvider::Vault => ("vault", "renew"),
            CertProvider::Files => ("file", "load"),
        };
        let by = |name: &str, help: &str, labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let opts = Opts::new(name, help).const_labels(labels.collect());
            let counter = IntCounter::with_opts(opts)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let ends = Arc::new(Mutex::new(held.validity.not_after));
        let issues = provider != "file";
        let provided = ("provider", provider);
        if issues {
            // Those of files say what somebody else wished.
            let name = "avapigw_operator_cert_expiry_seconds";
            let opts = Opts::new(name, "Seconds until this replica's certificate ends.");
            let (opts, ends) = (opts.const_label("common_name", member), ends.clone());
            looked_at(registry, opts, move || {
                let ends = *ends.lock().unwrap_or_else(PoisonError::into_inner);
                ends.duration_since(SystemTime::now()).unwrap_or_default().as_secs_f64()
            })?;
        }
        Ok(Operator {
            issued: issues
                .then(|| {
                    let help = "Certificates that were issued to this replica.";
                    by("avapigw_operator_cert_issued_total", help, &[provided])
                })
                .transpose()?,
            rotations: by(
                "avapigw_operator_cert_rotations_total",
                "Certificates of this replica that took the place of another.",
                &[provided],
            )?,
            errors: by(
                "avapigw_operator_cert_errors_total",
                "Looks at the source of certificates that failed.",
                &[provided, ("operation", operation)],
            )?,
            ends,
        })
    }

    fn uses(&self, material: &Material) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = material.validity.not_after;
        if let Some(issued) = &self.issued {
            issued.inc();
        }
    }
}

impl Metrics {
    /// Registers the metrics of a member's certificates, of which it holds this one.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(
        registry: &Registry,
        provider: CertProvider,
        member: &str,
        held: &Material,
    ) -> Result<Self, prometheus::Error> {
        let metrics = Metrics {
            operator: Operator::new(registry, provider, member, held)?,
            ends: GaugeVec::new(
                Opts::new(
                    "flotilla_certificate_expiry_timestamp_seconds",
                    "When the certificate ends, in seconds since 1970: this replica's own, and the last of the \
                     authorities that it trusts.",
                ),
                &["certificate"],
            )?,
            trusted: IntGauge::new(
                "flotilla_trusted_authorities",
                "Authorities that are trusted: two while one is replaced by another.",
            )?,
            looks: IntCounterVec::new(
                Opts::new(
                    "flotilla_certificate_updates_total",
                    "Looks at the source of certificates that gave something new, or failed.",
                ),
                &["result"],
            )?,
            failing: IntGauge::new(
                "flotilla_certificate_source_failing",
                "1 while the source of certificates cannot be used and what was there before goes on.",
            )?,
        };
        for result in ["used", "failed"] {
            metrics.looks.with_label_values(&[result]);
        }
        registry.register(Box::new(metrics.ends.clone()))?;
        registry.register(Box::new(metrics.trusted.clone()))?;
        registry.register(Box::new(metrics.looks.clone()))?;
        registry.register(Box::new(metrics.failing.clone()))?;
        Ok(metrics)
    }

    fn show(&self, material: &Material) {
        let since = |moment: SystemTime| moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.ends.with_label_values(&["own"]).set(since(material.validity.not_after));
        if let Some(last) = material.roots.last_end() {
            self.ends.with_label_values(&["authority"]).set(since(last));
        }
        self.trusted.set(i64::try_from(material.roots.count()).unwrap_or(i64::MAX));
    }
}

/// Keeps a replica's certificates.
pub struct Keeping {
    /// Where they come from.
    pub source: Source,
    /// What they are used by.
    pub tls: ReplicaTls,
    /// What is in use.
    pub held: Material,
    /// What is told of it.
    pub metrics: Metrics,
}

impl Keeping {
    /// Looks and renews until cancelled. Connections that are open stay open; a
    /// failure keeps what is in use and is tried again.
    pub async fn run(mut self, cancel: CancellationToken) {
        self.metrics.show(&self.held);
        self.metrics.operator.uses(&self.held);
        let mut pause = None;
        loop {
            let wait = pause.unwrap_or_else(|| self.source.interval());
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::select! {
                biased; // ending needs no certificate
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(wait.mul_f64(jitter)) => {}
            }
            let looking = async {
                let look = self.source.look(Some(&self.held), SystemTime::now());
                match tokio::time::timeout(LOOK, look).await {
                    Ok(looked) => looked,
                    Err(_) => Err(anyhow::anyhow!("no answer within {} s", LOOK.as_secs())),
                }
            };
            let looked = tokio::select! {
                biased; // as above
                () = cancel.cancelled() => return,
                looked = looking => looked,
            };
            let trouble = looked.and_then(|looked| self.take(looked)).unwrap_or_else(Some);
            let telling = async {
                match &trouble {
                    None => self.recovered(pause.is_some()).await,
                    Some(trouble) => self.failed(trouble, pause.is_none()).await,
                }
            };
            tokio::select! {
                biased; // as above: an API server that is away must not hold up the end
                () = cancel.cancelled() => return,
                () = telling => {}
            }
            pause = trouble.map(|_| pause.map_or(PAUSE.0, |pause| (pause * 2).min(PAUSE.1)));
        }
    }

    /// Uses what was found.
    fn take(&mut self, looked: Looked) -> anyhow::Result<Option<anyhow::Error>> {
        if let Some(material) = looked.material {
            self.tls.swap(&material)?;
            self.metrics.looks.with_label_values(&["used"]).inc();
            self.metrics.show(&material);
            if material.leaf.certificate != self.held.leaf.certificate {
                self.metrics.operator.uses(&material);
                self.metrics.operator.rotations.inc();
            }
            tracing::info!(trusted = material.roots.count(), "another certificate or authority is in use");
            self.held = material;
        }
        Ok(looked.trouble)
    }

    async fn failed(&self, trouble: &anyhow::Error, first: bool) {
        self.metrics.looks.with_label_values(&["failed"]).inc();
        self.metrics.operator.errors.inc();
        self.metrics.failing.set(1);
        let left = self.held.validity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        let error = format!("{trouble:#}");
        if self.held.is_due(SystemTime::now()) {
            tracing::error!(
                error,
                left_seconds = left.as_secs(),
                "certificate cannot be renewed, the old one stays"
            );
        } else {
            tracing::warn!(
                error,
                left_seconds = left.as_secs(),
                "certificates cannot be looked after, the old ones stay"
            );
        }
        if first {
            let minutes = left.as_secs() / 60;
            let message = format!("{error}. The certificate in use stays; it ends in {minutes} minutes.");
            self.tell("CertificateSourceFailing", &message, true).await;
        }
    }

    async fn recovered(&self, failed: bool) {
        self.metrics.failing.set(0);
        if failed {
            tracing::info!("certificates are looked after again");
            self.tell("CertificateSourceRecovered", "Certificates are looked after again.", false).await;
        }
    }

    /// Tells people, by an event about this replica's pod.
    async fn tell(&self, reason: &'static str, message: &str, warning: bool) {
        let key = ObjectKey::new(self.source.namespace.as_str(), self.source.member.as_str());
        let pod = event::about("v1", "Pod", &key, None);
        let message = message.to_owned();
        let telling = Telling { about: pod, action: "Renew", reason, message, warning, again: true };
        if let Err(error) = event::post(&self.source.client, &telling).await {
            tracing::debug!(error = %error, "an event could not be written");
        }
    }
}
