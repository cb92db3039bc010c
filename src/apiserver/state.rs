//! What all requests share: the store, the registry that follows its definitions, and the handles around them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::auth::Access;
use crate::faults::Faults;
use crate::registry::{Fresh, INITIAL_NAMESPACES, Registry, accept_definition, namespace, prepare_create};
use crate::store::{DEFINITIONS, Key, Now, Store};
use crate::verb::RequestCounter;

/// How many steps of clean-up work are done while the store is held.
const STEPS: usize = 16;

/// The state of one server.
#[derive(Debug)]
pub(crate) struct State {
    /// Held for short, synchronous sections only. Locked before `registry`, never after it.
    store: Mutex<Store>,
    registry: RwLock<Arc<Registry>>,
    pub faults: Faults,
    pub access: Access,
    pub requests: RequestCounter,
    pub bookmark_interval: Duration,
    /// Cancelled when the server ends: watches and held requests end, too.
    pub stop: CancellationToken,
    /// Wakes the clean-up.
    pending: Notify,
    /// The last OpenAPI documents, and the registry they were made from.
    documents: Mutex<(Arc<Registry>, BTreeMap<String, Bytes>)>,
}

impl State {
    /// A server's state at its start, with the namespaces every cluster has.
    pub fn new(access: Access, history: usize, bookmark_interval: Duration) -> Self {
        let registry = Arc::new(Registry::builtin());
        let mut store = Store::new(history);
        for resource in registry.resources() {
            store.open(&resource.id, resource.layout());
        }
        let now = now();
        if let Some((namespaces, version)) = registry.find("", "v1", "namespaces") {
            for name in INITIAL_NAMESPACES {
                // Neither can fail: the names are valid and new.
                if let Ok(value) = prepare_create(&namespaces, version, "", namespace(name), &fresh(now)) {
                    let _ = store.create(&namespaces.id, value, now, false);
                }
            }
        }
        Self {
            store: Mutex::new(store),
            documents: Mutex::new((registry.clone(), BTreeMap::new())),
            registry: RwLock::new(registry),
            faults: Faults::default(),
            access,
            requests: RequestCounter::default(),
            bookmark_interval,
            stop: CancellationToken::new(),
            pending: Notify::new(),
        }
    }

    /// What is served at this moment.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads from the store.
    pub fn read<T>(&self, read: impl FnOnce(&Store) -> T) -> T {
        read(&self.lock())
    }

    /// Writes to the store, and lets everything that follows from the write follow.
    pub fn write<T>(&self, write: impl FnOnce(&mut Store, Now) -> T) -> T {
        let mut store = self.lock();
        let now = now();
        let result = write(&mut store, now);
        self.follow_definitions(&mut store, now);
        if store.has_pending() {
            self.pending.notify_one();
        }
        result
    }

    /// A document about `registry`, made once for as long as nothing changes. Making one takes milliseconds, and
    /// kubectl asks for several at every start.
    pub fn document(&self, registry: &Arc<Registry>, name: &str, make: impl FnOnce() -> Vec<u8>) -> Bytes {
        {
            let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
            if !Arc::ptr_eq(&documents.0, registry) {
                *documents = (registry.clone(), BTreeMap::new());
            }
            if let Some(found) = documents.1.get(name) {
                return found.clone();
            }
        }
        let made = Bytes::from(make());
        let mut documents = self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&documents.0, registry) {
            documents.1.insert(name.to_owned(), made.clone());
        }
        made
    }

    /// Cleans up after deletions until the server ends.
    pub async fn collect(&self) {
        loop {
            tokio::select! {
                biased; // ending goes before work
                () = self.stop.cancelled() => return,
                () = self.pending.notified() => {}
            }
            while !self.stop.is_cancelled() && self.write(|store, now| store.collect(now, STEPS)) {
                // Requests get their turn between the portions.
                tokio::task::yield_now().await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves what definitions say now, and tells each of them by its status.
    fn follow_definitions(&self, store: &mut Store, now: Now) {
        let mut changed = store.take_changed_definitions();
        while let Some(name) = changed.pop_first() {
            let before = self.registry();
            let Some(object) = store.get(DEFINITIONS, &Key::new("", &*name)) else {
                *self.registry.write().unwrap_or_else(PoisonError::into_inner) =
                    Arc::new(before.without(&name));
                store.close(&name);
                // Its names are free now: definitions that wait for them are looked at again.
                changed.extend(self.waiting_definitions(store));
                continue;
            };
            let value = object.value();
            let others = before.without(&name);
            let Some(definition) = accept_definition(&others, &value, &now.timestamp()) else { continue };
            let after = match definition.resource {
                Some(resource) => {
                    store.open(&resource.id, resource.layout());
                    others.with(resource)
                }
                None => others,
            };
            *self.registry.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(after);
            if value.get("status") != Some(&definition.status) {
                let mut value = value;
                if let Value::Object(object) = &mut value {
                    object.insert("status".into(), definition.status);
                }
                // A conflict cannot be: the store has been held since the object was read.
                let _ = store.update(&DEFINITIONS.into(), object.meta.revision, value, now, false);
                // That write changed nothing but the status that was just computed.
                changed.extend(store.take_changed_definitions().into_iter().filter(|other| *other != name));
            }
        }
    }

    fn waiting_definitions(&self, store: &Store) -> Vec<String> {
        let registry = self.registry();
        let all = store.list(DEFINITIONS, &Default::default(), &Default::default(), |_| true);
        let names = all.into_iter().flat_map(|page| page.objects).map(|object| object.key.name.clone());
        names.filter(|name| registry.custom(name).is_none()).collect()
    }
}

/// This moment.
pub(crate) fn now() -> Now {
    Now { wall: jiff::Timestamp::now(), mono: Instant::now() }
}

/// Values for a new object.
pub(crate) fn fresh(now: Now) -> Fresh {
    let uid = uuid::Uuid::new_v4().to_string();
    Fresh { uid, timestamp: now.timestamp(), random: std::array::from_fn(|_| rand::random_range(0..1 << 16)) }
}
