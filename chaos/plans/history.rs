//! What the API server held over a run, by watches of the harness itself that no fault
//! touches. A replica that is killed may have sent what it is never told of, and what it
//! never sees has happened all the same: here is what did.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use flotilla_api::fleet::ShardMap;
use flotilla_avapigw::{AvapigwCompiler, compile_all};
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::shardmap::PublishedMap;
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::tape::Change;

/// Seconds after which an API server ends a watch, which then goes on.
const WATCH: u32 = 240;
/// Pause after a watch that broke.
const PAUSE: Duration = Duration::from_millis(200);

/// A state of an object that tenants or replicas wrote: statuses change none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The scenario's phase in which it was heard of.
    pub phase: u32,
    /// Its kind.
    pub kind: Kind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// How it came to that.
    pub change: Change,
    /// `metadata.uid`
    pub uid: String,
    /// `metadata.generation`
    pub generation: i64,
    /// `metadata.resourceVersion`
    pub revision: u64,
    /// Whether gateways are to have it, unless an older one claims the same.
    pub valid: bool,
    /// What it claims for itself alone: a number for its matches.
    pub claim: Option<u32>,
    /// `metadata.creationTimestamp`, in seconds.
    pub created: u64,
}

/// Everything heard.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// What was written, by kind in the order of revisions.
    pub written: Vec<Written>,
    /// The maps, one after the other.
    pub maps: Vec<PublishedMap>,
    /// The scenario's phase.
    phase: u32,
    /// What is there: uid, generation, and whether it is being deleted.
    now: BTreeMap<(Kind, ObjectKey), (String, i64, bool)>,
    /// Why something may be missing.
    broken: Option<String>,
}

/// Listens until it is dropped.
pub struct History {
    heard: Arc<Mutex<Heard>>,
    tasks: Vec<AbortHandle>,
}

impl Drop for History {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl History {
    /// Listens from now on, when nothing is there yet.
    ///
    /// # Errors
    /// When the API server does not say where it is.
    pub async fn listen(client: &Client) -> anyhow::Result<History> {
        let mut history = History { heard: Arc::default(), tasks: Vec::new() };
        for kind in Kind::ALL {
            let gvk = GroupVersionKind::gvk("avapigw.io", "v1alpha1", kind.name());
            let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
            let api = Api::<DynamicObject>::all_with(client.clone(), &resource);
            let tell = move |heard: &mut Heard, change, object| heard.object(kind, change, object);
            history.follow(api, kind.plural(), tell).await?;
        }
        let tell = |heard: &mut Heard, _, map| heard.map(&map);
        history.follow(Api::<ShardMap>::all(client.clone()), "shardmaps", tell).await?;
        Ok(history)
    }

    async fn follow<K>(
        &mut self,
        api: Api<K>,
        what: &'static str,
        tell: impl Fn(&mut Heard, Change, K) + Send + Sync + 'static,
    ) -> anyhow::Result<()>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let list = api.list(&ListParams::default()).await.with_context(|| format!("list {what}"))?;
        let mut revision = list.metadata.resource_version.unwrap_or_default();
        let into = self.heard.clone();
        let task = tokio::spawn(async move {
            while let Ok(()) = watch(&api, &mut revision, &into, &tell).await {}
            lock(&into).broken = Some(format!("the harness's watch of {what} cannot go on at {revision}"));
        });
        self.tasks.push(task.abort_handle());
        Ok(())
    }

    /// The scenario's phase from now on.
    pub fn phase(&self, number: u32) {
        lock(&self.heard).in_phase(number);
    }

    /// An error when something of how the API server stands has not been heard of yet.
    pub fn has_heard_of(&self, objects: &[RawObject]) -> Result<(), String> {
        let heard = lock(&self.heard);
        if let Some(broken) = &heard.broken {
            return Err(broken.clone());
        }
        let known = |object: &RawObject| {
            let now = heard.now.get(&(object.kind, object.key.clone()));
            now.is_some_and(|(uid, generation, _)| **uid == *object.uid && *generation == object.generation)
        };
        match objects.iter().find(|object| !known(object)) {
            Some(object) => Err(format!("{} {} is not heard of yet", object.kind, object.key)),
            None if heard.now.len() > objects.len() => Err("deletions are not heard of yet".to_owned()),
            None => Ok(()),
        }
    }

    /// Everything so far.
    pub fn heard(&self) -> Heard {
        lock(&self.heard).clone()
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One watch to its end; an error when it cannot be gone on with.
async fn watch<K>(
    api: &Api<K>,
    revision: &mut String,
    into: &Mutex<Heard>,
    tell: &(impl Fn(&mut Heard, Change, K) + Sync),
) -> Result<(), ()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = match api.watch(&WatchParams::default().timeout(WATCH), revision).await {
        Ok(events) => events,
        // What lies between is not known there any more.
        Err(kube::Error::Api(status)) if status.code == 410 => return Err(()),
        Err(_) => {
            sleep(PAUSE).await;
            return Ok(());
        }
    };
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        let (change, object) = match event {
            Ok(WatchEvent::Added(object)) => (Change::Added, object),
            Ok(WatchEvent::Modified(object)) => (Change::Modified, object),
            Ok(WatchEvent::Deleted(object)) => (Change::Deleted, object),
            Ok(WatchEvent::Bookmark(mark)) => {
                *revision = mark.metadata.resource_version;
                continue;
            }
            Ok(WatchEvent::Error(_)) => return Err(()),
            Err(_) => {
                sleep(PAUSE).await;
                return Ok(());
            }
        };
        if let Some(newest) = &object.meta().resource_version {
            revision.clone_from(newest);
        }
        tell(&mut lock(into), change, object);
    }
    Ok(())
}

impl Heard {
    fn object(&mut self, kind: Kind, change: Change, object: DynamicObject) {
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        let created = created.and_then(|time| u64::try_from(time).ok()).unwrap_or_default();
        let claim = claim_of(kind, &object);
        let Some(raw) = raw(kind, object) else { return };
        let id = (kind, raw.key.clone());
        let is = (raw.uid.to_string(), raw.generation, raw.deleting);
        let told_before = match change {
            Change::Deleted => self.now.remove(&id).is_none(),
            _ => self.now.insert(id, is.clone()).as_ref() == Some(&is),
        };
        if told_before {
            return;
        }
        let valid = change != Change::Deleted && is_valid(&raw);
        self.written.push(Written {
            phase: self.phase,
            kind,
            key: raw.key,
            change,
            uid: is.0,
            generation: raw.generation,
            revision: raw.revision.0,
            valid,
            claim,
            created,
        });
    }

    fn map(&mut self, map: &ShardMap) {
        let published = flotilla_k8s::coordination::published(map);
        self.maps.extend(published.filter(|published| self.maps.last() != Some(published)));
    }

    /// The scenario's phase from now on.
    pub fn in_phase(&mut self, number: u32) {
        self.phase = number;
    }

    /// How often each object was created and deleted, by whomever.
    pub fn lives(&self) -> BTreeMap<String, (usize, usize)> {
        let mut lives: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for Written { kind, key, change, .. } in &self.written {
            let (created, deleted) = lives.entry(format!("{kind} {key}")).or_default();
            *created += usize::from(*change == Change::Added);
            *deleted += usize::from(*change == Change::Deleted);
        }
        lives
    }
}

/// Whether gateways are to have an object where there is no other.
fn is_valid(object: &RawObject) -> bool {
    let compiled = compile_all(&AvapigwCompiler::default(), std::slice::from_ref(object));
    compiled.iter().any(|(_, spec)| spec.is_some())
}

/// What a route claims in its namespace. Routes of the scenario whose matches overlap have the
/// same, to the letter.
fn claim_of(kind: Kind, object: &DynamicObject) -> Option<u32> {
    let matches = object.data["spec"].get("match").filter(|_| kind.is_route())?;
    let namespace = object.metadata.namespace.as_deref()?;
    Some(number_of(&format!("{kind} {namespace} {matches}")))
}

/// A number for a text: another one for another, as far as that matters here.
pub fn number_of(text: &str) -> u32 {
    text.bytes().fold(0, |sum, byte| sum.wrapping_mul(0x0100_0193) ^ u32::from(byte))
}

fn raw(kind: Kind, object: DynamicObject) -> Option<RawObject> {
    let DynamicObject { metadata, data, .. } = object;
    Some(RawObject {
        kind,
        key: ObjectKey::new(metadata.namespace?, metadata.name?),
        uid: metadata.uid?.into(),
        revision: Revision(metadata.resource_version?.parse().ok()?),
        generation: metadata.generation.unwrap_or_default(),
        created: Arc::default(),
        deleting: metadata.deletion_timestamp.is_some(),
        held: false,
        spec: data["spec"].to_string().into(),
        status: bytes::Bytes::new(),
    })
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Tells of a route.
    pub fn tell(
        heard: &mut Heard,
        change: Change,
        revision: u64,
        (uid, generation): (&str, i64),
        spec: Value,
    ) {
        let metadata = json!({
            "namespace": "a", "name": "x", "uid": uid, "generation": generation,
            "resourceVersion": revision.to_string(),
        });
        heard.object(
            Kind::ApiRoute,
            change,
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
        );
    }

    /// The spec of a route that can be delivered.
    pub fn good() -> Value {
        flotilla_testing::fleet::objects::answering("a", "x", "1")
    }

    #[test]
    fn lives_are_counted_and_statuses_are_none() {
        let mut heard = Heard::default();
        tell(&mut heard, Change::Added, 1, ("u", 1), good());
        tell(&mut heard, Change::Modified, 2, ("u", 1), good());
        tell(&mut heard, Change::Modified, 3, ("u", 2), json!({"route": []}));
        tell(&mut heard, Change::Deleted, 4, ("u", 2), good());
        tell(&mut heard, Change::Added, 5, ("v", 1), good());
        let told: Vec<_> = heard.written.iter().map(|one| (one.revision, one.valid)).collect();
        assert_eq!(told, [(1, true), (3, false), (4, false), (5, true)]);
        assert_eq!(heard.lives(), BTreeMap::from([("APIRoute a/x".to_owned(), (2, 1))]));
    }
}
