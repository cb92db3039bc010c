//! Which history of the cluster this is.
//!
//! Revisions order what happens in one history. When etcd is restored from a
//! backup, another history begins: revisions that were used before are used
//! again, for other contents. Nothing in the objects says so, and the cluster's
//! identity is restored with them. So the history has a name of its own, its
//! *incarnation*: a random number, kept in the Lease `flotilla-incarnation`,
//! that every version carries.
//!
//! All replicas read the same Lease, so they agree. A new name is given by
//! whoever can prove that the history was replaced, and only then:
//! - A write is answered with the newest revision of the store. When that is
//!   below what was seen of a kind, and a quorum list of the kind says the same,
//!   the store forgot. A list alone proves nothing: it may come from a cache.
//! - A compare-and-swap from a state of the Lease that does not follow one that was
//!   seen succeeds only if the Lease went back. That is why it is renewed every
//!   minute, and lists the marks of who did: then also those replicas notice a restore
//!   that come back when the new history has already passed what they had seen, if the
//!   backup is older than the last mark that they saw.
//!
//! The rules are in [`flotilla_core::lineage`].
//!
//! The name is taken from a Lease and not from a ShardMap, because a replica
//! without a map delivers, and because it must outlive both leaders and maps.
//! Where Leases are kept in another etcd than custom resources, their revisions
//! have nothing to do with each other: there a restore may go unnoticed until
//! somebody deletes the Lease, which names the history anew.

use flotilla_core::ids::Revision;
use flotilla_core::lineage::History;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use crate::Error;
use crate::status::FIELD_MANAGER;

/// The Lease's name.
pub const LEASE: &str = "flotilla-incarnation";

/// Names that this one took the place of, newest first.
const REPLACES: &str = "fleet.flotilla.dev/replaces";
/// Who renewed it.
const MARKS: &str = "fleet.flotilla.dev/marks";
/// How often a write that somebody else overtook is tried.
const TRIES: usize = 5;

/// The incarnation as the API server has it. Names are 8 lower-case hex digits.
pub type Incarnation = History<String>;

/// The incarnation's Lease.
#[derive(Clone)]
pub struct Incarnations {
    api: Api<Lease>,
}

impl Incarnations {
    /// The Lease in a namespace, by a client that does not wait behind lists.
    pub fn new(client: Client, namespace: &str) -> Self {
        Incarnations { api: Api::namespaced(client, namespace) }
    }

    /// Reads it; `None` when there is none. The answer may be old.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn read(&self) -> Result<Option<Incarnation>, Error> {
        let what = format!("get lease {LEASE}");
        let found = self.api.get_opt(LEASE).await.map_err(|error| Error::from_kube(&what, error))?;
        found.map(|lease| incarnation(&what, &lease)).transpose()
    }

    /// Renews it and leaves a mark, and so learns what it is and the store's newest
    /// revision. `fresh` is a random number: the mark and, when there is no Lease, the
    /// name of the history.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn confirm(&self, fresh: u32) -> Result<Incarnation, Error> {
        for _ in 0..TRIES {
            let Some(found) = self.read().await? else { break };
            let known = found.revision.to_string();
            let marks = json!({MARKS: found.marks.with(fresh).to_string()});
            let renewal =
                json!({"metadata": {"resourceVersion": known, "annotations": marks}, "spec": now()});
            match self.patch(&renewal).await {
                // Deleted, or renewed by somebody else, since it was read.
                Err(Error::Conflict { .. } | Error::NotFound { .. }) => {}
                renewed => return renewed,
            }
        }
        // Others were always faster, or what was read is old.
        self.renew(fresh).await
    }

    /// The same without a mark where there is a Lease: for who asks more often than a few
    /// times a minute, as marks are kept for a while only.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn renew(&self, fresh: u32) -> Result<Incarnation, Error> {
        let what = format!("create lease {LEASE}");
        for _ in 0..TRIES {
            // Without a precondition, so that an old answer to a read does not matter.
            match self.patch(&json!({"spec": now()})).await {
                Err(Error::NotFound { .. }) => {}
                renewed => return renewed,
            }
            let first = lease(&Incarnation::first(name(fresh), fresh), None);
            match self.api.create(&PostParams::default(), &first).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                created => {
                    return incarnation(&what, &created.map_err(|error| Error::from_kube(&what, error))?);
                }
            }
        }
        Err(Error::Conflict { what })
    }

    async fn patch(&self, renewal: &serde_json::Value) -> Result<Incarnation, Error> {
        let what = format!("renew lease {LEASE}");
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let patched = self.api.patch(LEASE, &params, &Patch::Merge(renewal)).await;
        incarnation(&what, &patched.map_err(|error| Error::from_kube(&what, error))?)
    }

    /// Names the history anew, unless the Lease is not the one any more that
    /// `known` tells of. `fresh` is a random number.
    ///
    /// # Errors
    /// `Conflict` when it is another one.
    pub async fn begin(&self, known: &Incarnation, ours: &str, fresh: u32) -> Result<Incarnation, Error> {
        let what = format!("replace lease {LEASE}");
        let next = known.renamed(&ours.to_owned(), name(fresh), fresh);
        let lease = lease(&next, Some(known.revision));
        let written = self.api.replace(LEASE, &PostParams::default(), &lease).await;
        incarnation(&what, &written.map_err(|error| Error::from_kube(&what, error))?)
    }
}

fn now() -> serde_json::Value {
    json!({"renewTime": MicroTime(Timestamp::now())})
}

fn name(fresh: u32) -> String {
    format!("{fresh:08x}")
}

fn lease(says: &Incarnation, known: Option<Revision>) -> Lease {
    let now = MicroTime(Timestamp::now());
    let annotations = [(REPLACES, says.replaces.join(",")), (MARKS, says.marks.to_string())];
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            resource_version: known.map(|revision| revision.to_string()),
            annotations: Some(annotations.map(|(name, text)| (name.to_owned(), text)).into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(says.id.clone()),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}

fn incarnation(what: &str, lease: &Lease) -> Result<Incarnation, Error> {
    let unreadable = |message: &str| Error::Permanent { what: what.to_owned(), message: message.to_owned() };
    let id = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    let plain =
        id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !plain {
        return Err(unreadable(
            "spec.holderIdentity is not 8 hex digits; delete the Lease to name the history anew",
        ));
    }
    let revision =
        lease.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).map(Revision);
    let annotation = |name: &str| lease.metadata.annotations.as_ref().and_then(|all| all.get(name));
    // A release before there were any left none. Where somebody has spoiled them, this is
    // not what was seen before, and the history is named anew.
    let marks = annotation(MARKS).and_then(|text| text.parse().ok()).unwrap_or_default();
    Ok(Incarnation {
        id,
        revision: revision.ok_or_else(|| unreadable("metadata.resourceVersion is no number"))?,
        replaces: annotation(REPLACES)
            .map(|text| text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default(),
        marks,
    })
}
