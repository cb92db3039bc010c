//! A batch as gateways read it: decoded once, for all that get it.

use std::sync::Arc;

use flotilla_core::delivery::{Batch, Change};

use crate::universe::{Read, Universe};

/// What one message does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Adds or replaces a resource.
    Upsert(Read),
    /// Removes a resource; `None` if it is none that can be there.
    Delete(Option<u32>),
    /// Replaces everything. `count` includes the entries that only count.
    Snapshot {
        /// The resources.
        list: Vec<Read>,
        /// How many entries there are.
        count: usize,
    },
    /// Sets sequence and version.
    Reset,
    /// Sets the version.
    Heartbeat,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it does.
    pub what: What,
    /// The version that the gateway has after it.
    pub version: Arc<str>,
}

/// A batch.
#[derive(Debug)]
pub struct Wire {
    /// The batch's id in the process that sent it.
    pub id: u64,
    /// Its messages, in sending order.
    pub messages: Vec<Message>,
}

impl Wire {
    /// Decodes a batch.
    pub fn decode(universe: &Universe, batch: &Batch) -> Self {
        let messages = batch.updates.iter().map(|update| {
            let what = match &update.change {
                Change::Upsert { resource, .. } => {
                    match universe.read(resource.kind, &resource.key, &resource.spec_json) {
                        Some(read) => What::Upsert(read),
                        None => What::Heartbeat,
                    }
                }
                Change::Delete { kind, key } => What::Delete(universe.find(*kind, key)),
                Change::FullSync(snapshot) => {
                    let read = |resource: &Arc<flotilla_core::object::Resource>| {
                        universe.read(resource.kind, &resource.key, &resource.spec_json)
                    };
                    What::Snapshot {
                        list: snapshot.resources.iter().filter_map(read).collect(),
                        count: snapshot.resources.len() + snapshot.padding.len(),
                    }
                }
                Change::Reset => What::Reset,
                Change::Heartbeat => What::Heartbeat,
            };
            Message { what, version: update.version.clone() }
        });
        Wire { id: batch.id, messages: messages.collect() }
    }
}
