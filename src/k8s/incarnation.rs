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
//! - A compare-and-swap from a revision of the Lease that is older than one that
//!   was seen succeeds only if the Lease went back. That is why it is written
//!   every minute: then also those replicas notice a restore that come back when
//!   the new history has already passed what they had seen.
//!
//! The name is taken from a Lease and not from a ShardMap, because a replica
//! without a map delivers, and because it must outlive both leaders and maps.
//! Where Leases are kept in another etcd than custom resources, their revisions
//! have nothing to do with each other: there a restore may go unnoticed until
//! somebody deletes the Lease, which names the history anew.

use std::collections::BTreeMap;

use flotilla_core::ids::Revision;
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
/// So many of them are kept.
const REMEMBERED: usize = 16;
/// How often a write that somebody else overtook is tried.
const TRIES: usize = 5;

/// The incarnation as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// Its name: 8 lower-case hex digits.
    pub id: String,
    /// The Lease's revision.
    pub revision: Revision,
    /// The names before it, newest first.
    pub replaces: Vec<String>,
}

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

    /// Writes the time into it, and so learns what it is and the store's newest
    /// revision. When there is none, `fresh` names the history.
    ///
    /// # Errors
    /// Whatever the API server answers.
    pub async fn confirm(&self, fresh: &str) -> Result<Incarnation, Error> {
        let what = format!("renew lease {LEASE}");
        for _ in 0..TRIES {
            // Without a precondition, so that an old answer to a read does not matter.
            let renewal = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}});
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            match self.api.patch(LEASE, &params, &Patch::Merge(&renewal)).await {
                Ok(lease) => return incarnation(&what, &lease),
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(Error::from_kube(&what, error)),
            }
            match self.api.create(&PostParams::default(), &lease(fresh, &[], None)).await {
                Ok(lease) => return incarnation(&what, &lease),
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => return Err(Error::from_kube(&what, error)),
            }
        }
        Err(Error::Conflict { what })
    }

    /// Names the history anew, unless the Lease is not the one any more that
    /// `known` tells of.
    ///
    /// # Errors
    /// `Conflict` when it is another one.
    pub async fn begin(&self, known: &Incarnation, ours: &str, fresh: &str) -> Result<Incarnation, Error> {
        let what = format!("replace lease {LEASE}");
        let mut replaces: Vec<String> = Vec::new();
        for id in [ours, known.id.as_str()].into_iter().chain(known.replaces.iter().map(String::as_str)) {
            if replaces.len() < REMEMBERED && !replaces.iter().any(|other| other == id) {
                replaces.push(id.to_owned());
            }
        }
        let lease = lease(fresh, &replaces, Some(known.revision));
        let written = self.api.replace(LEASE, &PostParams::default(), &lease).await;
        incarnation(&what, &written.map_err(|error| Error::from_kube(&what, error))?)
    }
}

fn lease(id: &str, replaces: &[String], known: Option<Revision>) -> Lease {
    let now = MicroTime(Timestamp::now());
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            resource_version: known.map(|revision| revision.to_string()),
            annotations: Some(BTreeMap::from([(REPLACES.to_owned(), replaces.join(","))])),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(id.to_owned()),
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
    let replaces = lease.metadata.annotations.as_ref().and_then(|all| all.get(REPLACES));
    Ok(Incarnation {
        id,
        revision: revision.ok_or_else(|| unreadable("metadata.resourceVersion is no number"))?,
        replaces: replaces
            .map(|text| text.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect())
            .unwrap_or_default(),
    })
}
