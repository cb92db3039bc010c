//! The CA bundle by which API servers believe our webhooks.
//!
//! The leader writes it into every webhook of one configuration, which the chart
//! makes without a bundle, and writes it again when it is another one: because the
//! certificate authority has changed, or somebody has changed the configuration. A
//! watch tells; it is made anew every few minutes, so nothing is overlooked for long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Api, ListParams, Patch, PatchParams, WatchParams};
use kube::{Client, ResourceExt as _};
use prometheus::{IntCounterVec, Opts, Registry};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::coordination::OwnershipView;

/// Shortest and longest pause after an error.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Seconds after which an API server ends the watch.
const WATCH: u32 = 290;

/// How long one request may take; a watch may be quiet for its time and this.
const REQUEST: Duration = Duration::from_secs(10);

/// Keeps the bundle of one configuration true.
pub struct CaBundle {
    /// For the configuration.
    pub client: Client,
    /// Its name.
    pub name: String,
    /// The certificates that are to be trusted, as PEM.
    pub trusted: watch::Receiver<Arc<str>>,
    /// Who leads.
    pub ownership: watch::Receiver<Arc<OwnershipView>>,
    /// What was written.
    pub writes: IntCounterVec,
}

impl CaBundle {
    /// Registers the metric of what was written.
    ///
    /// # Errors
    /// When the name is registered already.
    pub fn metric(registry: &Registry) -> Result<IntCounterVec, prometheus::Error> {
        let writes = IntCounterVec::new(
            Opts::new(
                "flotilla_ca_bundle_writes_total",
                "Writes of the CA bundle into the webhook configuration, by what became of them.",
            ),
            &["result"],
        )?;
        registry.register(Box::new(writes.clone()))?;
        for result in ["written", "failed"] {
            writes.with_label_values(&[result]).inc_by(0);
        }
        Ok(writes)
    }

    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut pause = PAUSE.0;
        loop {
            let (mut ownership, mut trusted) = (self.ownership.clone(), self.trusted.clone());
            trusted.mark_unchanged();
            let leads = self.ownership.borrow_and_update().leading();
            let failed = tokio::select! {
                biased; // ending first; then whatever makes the work below useless
                () = cancel.cancelled() => return,
                changed = moved(&mut ownership, leads) => match changed {
                    Ok(()) => None,
                    // Coordination has ended, and with it this replica's time as leader.
                    Err(_) => return cancel.cancelled().await,
                },
                Ok(()) = trusted.changed() => None,
                failed = self.keep(), if leads => match failed {
                    Ok(never) => match never {},
                    Err(error) => Some(error),
                },
            };
            let Some(error) = failed else {
                pause = PAUSE.0;
                continue;
            };
            self.writes.with_label_values(&["failed"]).inc();
            tracing::warn!(configuration = self.name, error = %error, "the CA bundle is not kept, trying again");
            let jitter = rand::rng().random_range(0.5..1.0);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Writes the bundle whenever it differs.
    async fn keep(&self) -> Result<Infallible, Error> {
        loop {
            let what = format!("write the CA bundle of {}", self.name);
            let set = tokio::time::timeout(REQUEST, self.set());
            let revision = set.await.map_err(|_| Error::timeout(what, REQUEST))??;
            self.changed(&revision).await?;
            // Somebody may take it out as often as it is written.
            tokio::time::sleep(PAUSE.0).await;
        }
    }

    fn api(&self) -> Api<ValidatingWebhookConfiguration> {
        Api::all(self.client.clone())
    }

    /// Selects the one: rights are given by name.
    fn selector(&self) -> String {
        format!("metadata.name={}", self.name)
    }

    /// Makes the bundle true; returns from where to watch. A configuration that is
    /// not there yet may come.
    async fn set(&self) -> Result<String, Error> {
        let what = format!("read the webhook configuration {}", self.name);
        let parameters = ListParams::default().fields(&self.selector());
        let list = self.api().list(&parameters).await.map_err(|error| Error::from_kube(what, error))?;
        let trusted = ByteString(self.trusted.borrow().as_bytes().to_vec());
        for configuration in &list.items {
            let Some(patch) = patch(configuration, &trusted) else { continue };
            let what = format!("write the CA bundle of {}", self.name);
            let wrong = |error: serde_json::Error| Error::Permanent {
                what: what.clone(),
                message: error.to_string(),
            };
            let patch = Patch::Json::<()>(serde_json::from_value(patch).map_err(wrong)?);
            let written = self.api().patch(&self.name, &PatchParams::default(), &patch).await;
            written.map_err(|error| Error::from_kube(what, error))?;
            self.writes.with_label_values(&["written"]).inc();
            tracing::info!(configuration = self.name, "the CA bundle is written");
        }
        Ok(list.metadata.resource_version.unwrap_or_default())
    }

    /// Waits until the configuration has changed, or may have.
    async fn changed(&self, revision: &str) -> Result<(), Error> {
        let what = || format!("watch the webhook configuration {}", self.name);
        let parameters = WatchParams::default().fields(&self.selector()).timeout(WATCH);
        let watch = async {
            let events = self.api().watch(&parameters, revision).await?;
            std::pin::pin!(events).next().await.transpose()
        };
        let quiet = Duration::from_secs(WATCH.into()) + REQUEST;
        // What the event says is read anew, and an expired revision begins anew, too.
        match tokio::time::timeout(quiet, watch).await {
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(error)) => Err(Error::from_kube(what(), error)),
        }
    }
}

/// Waits until this replica begins or ceases to lead.
async fn moved(
    ownership: &mut watch::Receiver<Arc<OwnershipView>>,
    leads: bool,
) -> Result<(), watch::error::RecvError> {
    while ownership.borrow_and_update().leading() == leads {
        ownership.changed().await?;
    }
    Ok(())
}

/// What makes every webhook of a configuration have this bundle and changes nothing
/// else, if the configuration is still the same; `None` when all have it.
fn patch(configuration: &ValidatingWebhookConfiguration, trusted: &ByteString) -> Option<Value> {
    let webhooks = configuration.webhooks.iter().flatten().enumerate();
    let other = webhooks.filter(|(_, webhook)| webhook.client_config.ca_bundle.as_ref() != Some(trusted));
    let mut operations: Vec<Value> = other
        .map(|(place, _)| {
            let path = format!("/webhooks/{place}/clientConfig/caBundle");
            json!({"op": "add", "path": path, "value": trusted})
        })
        .collect();
    if operations.is_empty() {
        return None;
    }
    let revision = configuration.resource_version();
    operations.push(json!({"op": "replace", "path": "/metadata/resourceVersion", "value": revision}));
    Some(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bundles_that_differ_are_written_and_only_if_nothing_else_was() {
        let bundle = |text: &str| ByteString(text.as_bytes().to_vec());
        let webhook = |name: &str, ca: Option<&str>| {
            let mut webhook = json!({
                "name": name, "clientConfig": {"url": "https://x"}, "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            });
            if let Some(ca) = ca {
                webhook["clientConfig"]["caBundle"] = json!(bundle(ca));
            }
            webhook
        };
        let of = |webhooks: Value| {
            let configuration =
                json!({"metadata": {"name": "w", "resourceVersion": "7"}, "webhooks": webhooks});
            patch(&serde_json::from_value(configuration).unwrap(), &bundle("new"))
        };
        let patch = of(json!([webhook("a", Some("new")), webhook("b", None), webhook("c", Some("old"))]));
        assert_eq!(
            patch.unwrap(),
            json!([
                {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle("new")},
                {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": bundle("new")},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
            ])
        );
        assert_eq!(of(json!([webhook("a", Some("new"))])), None);
        assert_eq!(of(json!([])), None);
    }
}
