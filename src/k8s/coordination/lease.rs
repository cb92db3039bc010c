//! Leases on the wire: `coordination.k8s.io/v1` objects ↔ the core's records.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use flotilla_core::coordination::{
    LeaseContent, LeaseList, LeaseName, LeaseRecord, LeaseWrite, Precondition,
};
use flotilla_core::ids::{Epoch, Instance, Revision};
use flotilla_core::time::Mono;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use kube::{Api, Client};

use crate::Error;

/// Label of everything that we create, and what watches select by.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "flotilla");

const PREVIOUS: &str = "fleet.flotilla.dev/previous";
const ADDRESS: &str = "fleet.flotilla.dev/address";
const SETTLED: &str = "fleet.flotilla.dev/settled-epoch";
const HIGHEST: &str = "fleet.flotilla.dev/highest-epoch";

/// The Leases of one namespace.
#[derive(Clone)]
pub struct Leases {
    api: Api<Lease>,
    /// Microseconds of the last `renewTime` written. The next one is later even
    /// if the wall clock stands still or goes back: the API server does not
    /// store a write that changes nothing, and nobody would see the renewal.
    renewed: Arc<AtomicI64>,
}

impl Leases {
    /// Leases in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Leases { api: Api::namespaced(client, namespace), renewed: Arc::default() }
    }

    /// The API, for watching.
    pub fn api(&self) -> &Api<Lease> {
        &self.api
    }

    /// The label selector of our Leases.
    pub fn selector() -> String {
        format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)
    }

    /// Reads one Lease consistently.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn read(&self, name: &LeaseName) -> Result<Option<LeaseRecord>, Error> {
        let what = format!("get lease {}", name.object_name());
        let found = self.api.get_opt(&name.object_name()).await.map_err(|e| Error::from_kube(&what, e))?;
        found.map(|lease| record(&lease).ok_or_else(|| unreadable(&what))).transpose()
    }

    /// Reads all Leases consistently. `sent_at` is the time before sending.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn list(&self, sent_at: Mono) -> Result<LeaseList, Error> {
        let what = "list leases";
        let params = ListParams::default().labels(&Self::selector());
        let list = self.api.list(&params).await.map_err(|e| Error::from_kube(what, e))?;
        let revision = list.metadata.resource_version.as_deref().and_then(revision_of);
        Ok(LeaseList {
            sent_at,
            revision: revision.ok_or_else(|| unreadable(what))?,
            leases: list.items.iter().filter_map(named).collect(),
        })
    }

    /// Writes one Lease and returns what is there then.
    ///
    /// # Errors
    /// `Conflict` when the precondition does not hold.
    pub async fn write(&self, name: &LeaseName, write: &LeaseWrite) -> Result<LeaseRecord, Error> {
        let what = format!("write lease {}", name.object_name());
        let lease = object(name, write, self.renew_time());
        let params = PostParams::default();
        let outcome = match write.precondition {
            Precondition::Absent => self.api.create(&params, &lease).await,
            Precondition::Unchanged { .. } => self.api.replace(&name.object_name(), &params, &lease).await,
        };
        let written = outcome.map_err(|e| Error::from_kube(&what, e))?;
        record(&written).ok_or_else(|| unreadable(&what))
    }

    /// Now by the wall clock, but always later than before.
    fn renew_time(&self) -> Timestamp {
        let now = Timestamp::now().as_microsecond();
        let advance = |last: i64| Some(now.max(last.saturating_add(1)));
        let before = self.renewed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance);
        let next = before.ok().and_then(advance).unwrap_or(now);
        Timestamp::from_microsecond(next).unwrap_or_default()
    }

    /// Deletes a Lease if it is still this one.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn delete(&self, name: &LeaseName, uid: &str, revision: Revision) -> Result<(), Error> {
        let what = format!("delete lease {}", name.object_name());
        let preconditions =
            Preconditions { uid: Some(uid.to_owned()), resource_version: Some(revision.to_string()) };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.api.delete(&name.object_name(), &params).await.map(drop).map_err(|e| Error::from_kube(&what, e))
    }
}

fn unreadable(what: &str) -> Error {
    Error::Permanent { what: what.to_owned(), message: "the answer has no usable metadata".to_owned() }
}

/// A resourceVersion as the ordered number that it is.
pub fn revision_of(text: &str) -> Option<Revision> {
    text.parse().ok().map(Revision)
}

/// One of our Leases with its name; `None` for those of others.
pub fn named(lease: &Lease) -> Option<(LeaseName, LeaseRecord)> {
    let name = LeaseName::parse(lease.metadata.name.as_deref()?)?;
    Some((name, record(lease)?))
}

/// What a Lease says.
pub fn record(lease: &Lease) -> Option<LeaseRecord> {
    let metadata = &lease.metadata;
    let spec = lease.spec.clone().unwrap_or_default();
    let annotation =
        |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let instance = |text: &str| (!text.is_empty()).then(|| Instance::from(text));
    let epoch = |key: &str| annotation(key).and_then(|text| text.parse().ok()).map(Epoch);
    Some(LeaseRecord {
        uid: Arc::from(metadata.uid.as_deref()?),
        revision: revision_of(metadata.resource_version.as_deref()?)?,
        content: LeaseContent {
            holder: spec.holder_identity.as_deref().and_then(instance),
            previous: annotation(PREVIOUS).and_then(instance),
            duration: Duration::from_secs(
                spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0),
            ),
            transitions: spec.lease_transitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            address: Arc::from(annotation(ADDRESS).unwrap_or_default()),
            settled: epoch(SETTLED),
            highest: epoch(HIGHEST).unwrap_or_default(),
        },
    })
}

fn object(name: &LeaseName, write: &LeaseWrite, renew_time: Timestamp) -> Lease {
    let content = &write.content;
    let mut annotations = std::collections::BTreeMap::new();
    let mut annotate = |key: &str, value: String| {
        if !value.is_empty() {
            annotations.insert(key.to_owned(), value);
        }
    };
    annotate(PREVIOUS, content.previous.as_ref().map(ToString::to_string).unwrap_or_default());
    annotate(ADDRESS, content.address.to_string());
    annotate(SETTLED, content.settled.map(|epoch| epoch.to_string()).unwrap_or_default());
    annotate(HIGHEST, content.highest.to_string());
    let (uid, resource_version) = match &write.precondition {
        Precondition::Absent => (None, None),
        Precondition::Unchanged { uid, revision } => (Some(uid.to_string()), Some(revision.to_string())),
    };
    // For people, and so that every renewal differs from the one before; never
    // compared with a clock.
    let now = MicroTime(renew_time);
    Lease {
        metadata: ObjectMeta {
            name: Some(name.object_name()),
            uid,
            resource_version,
            labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(content.holder.as_ref().map(ToString::to_string).unwrap_or_default()),
            lease_duration_seconds: Some(i32::try_from(content.duration.as_secs()).unwrap_or(i32::MAX)),
            lease_transitions: Some(i32::try_from(content.transitions).unwrap_or(i32::MAX)),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for (holder, settled) in [(Some("a/1"), Some(Epoch(7))), (None, None)] {
            let content = LeaseContent {
                holder: holder.map(Instance::from),
                previous: Some("a/0".into()),
                duration: Duration::from_secs(5),
                transitions: 3,
                address: "10.0.0.1:9445".into(),
                settled,
                highest: Epoch(9),
            };
            let precondition = Precondition::Unchanged { uid: "u".into(), revision: Revision(12) };
            let name = LeaseName::Member("a".into());
            let lease =
                object(&name, &LeaseWrite { precondition, content: content.clone() }, Timestamp::now());
            let (found, record) = named(&lease).unwrap();
            assert_eq!((found, record.revision, &*record.uid), (name, Revision(12), "u"));
            assert_eq!(record.content, content);
        }
    }
}
