//! What happened to the resources of the gateways of this process, as it
//! happens: for tests, for the demo's figures, and for `/events`.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use flotilla_core::ids::GatewayId;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::resource::Resource;
use crate::state::Difference;

/// One resource of one gateway is different now.
#[derive(Debug, Clone)]
pub struct Event {
    /// The gateway.
    pub gateway: GatewayId,
    /// What happened to the resource.
    pub change: EventKind,
    /// The resource as it is, or as it was before it was removed.
    pub resource: Arc<Resource>,
    /// The version of the update that did it.
    pub version: Arc<str>,
    /// When it was in force, on this process's monotonic clock.
    pub at: Instant,
    /// The same moment in microseconds since 1970.
    pub unix_micros: u64,
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// It is new on this gateway.
    Added,
    /// It has other content.
    Modified,
    /// It is gone.
    Removed,
}

/// An event as one line of `/events`.
#[derive(Debug, Serialize)]
pub(crate) struct EventLine<'a> {
    /// Milliseconds since 1970, with microseconds as fraction.
    at_ms: f64,
    gateway: String,
    change: EventKind,
    kind: &'static str,
    key: &'a str,
    uid: &'a str,
    generation: i64,
    resource_version: &'a str,
    version: &'a str,
}

impl Event {
    pub(crate) fn line(&self) -> EventLine<'_> {
        EventLine {
            at_ms: self.unix_micros as f64 / 1000.0,
            gateway: self.gateway.to_string(),
            change: self.change,
            kind: self.resource.kind.name(),
            key: &self.resource.key,
            uid: &self.resource.uid,
            generation: self.resource.generation,
            resource_version: &self.resource.resource_version,
            version: &self.version,
        }
    }
}

/// Hands events to observers. Bounded: an observer that falls behind by more
/// than the capacity loses the oldest ones, and is told how many.
#[derive(Debug, Clone)]
pub(crate) struct EventHub(broadcast::Sender<Event>);

impl EventHub {
    pub(crate) fn new(capacity: usize) -> Self {
        EventHub(broadcast::Sender::new(capacity.max(1)))
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }

    /// Publishes what one update did to one gateway.
    pub(crate) fn publish(&self, gateway: &GatewayId, version: &Arc<str>, differences: &[Difference]) {
        // Nobody looks, most of the time.
        if differences.is_empty() || self.0.receiver_count() == 0 {
            return;
        }
        let (at, unix_micros) = (Instant::now(), unix_micros());
        for difference in differences {
            let event = Event {
                gateway: gateway.clone(),
                change: match difference {
                    Difference::Added(_) => EventKind::Added,
                    Difference::Modified(_) => EventKind::Modified,
                    Difference::Removed(_) => EventKind::Removed,
                },
                resource: difference.resource().clone(),
                version: version.clone(),
                at,
                unix_micros,
            };
            // An error says that the last observer has just gone.
            let _ = self.0.send(event);
        }
    }
}

/// Microseconds since 1970 by this machine's clock, for other processes of the
/// same machine to compare with theirs.
pub(crate) fn unix_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
