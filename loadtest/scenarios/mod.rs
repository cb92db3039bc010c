//! What can be measured.

pub mod admission;
pub mod all;
mod bench;
pub mod burst;
pub mod churn;
pub mod coldsync;
pub mod failover;
pub mod fleet_sim;
pub mod noisy;
pub mod poisoned;
pub mod propagation;
pub mod reading;
pub mod reconnect;
pub mod scale;
pub mod slow;
pub mod soak;
mod yardstick;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use crate::client::{Crew, Held, Onlooker};
use crate::process::wait;
use crate::report::Outcome;
use crate::workload::Routes;

/// How long a fleet may take to get quiet.
pub const SETTLE: Duration = Duration::from_secs(120);

/// Waits until every gateway holds so many resources.
pub async fn all_hold(crew: &Crew, count: usize) -> anyhow::Result<()> {
    wait("every gateway holds everything", SETTLE, || {
        crew.each(|holdings| holdings.len() == count).into_iter().all(|full| full)
    })
    .await
}

/// Messages and bytes to all gateways so far.
pub fn traffic(crew: &Onlooker) -> (u64, u64) {
    let counters = crew.counters();
    (counters.messages.load(Ordering::Relaxed), counters.bytes.load(Ordering::Relaxed))
}

/// Compares every gateway with the API server, and all gateways with each other.
pub async fn outcome(crew: &Crew, routes: &Routes, missing: usize) -> anyhow::Result<Outcome> {
    let expected: HashMap<u64, (u64, u64)> = routes
        .all()
        .await?
        .into_iter()
        .map(|(key, uid, generation)| (key, (xxh3_64(uid.as_bytes()), generation)))
        .collect();
    // What a spec became on the way is the same for all, whatever it is.
    let mut specs: HashMap<u64, u64> = HashMap::new();
    let mut same = |key: u64, held: &Held| {
        expected.get(&key) == Some(&(held.uid, held.generation))
            && *specs.entry(key).or_insert(held.spec) == held.spec
    };
    let equal = crew.each(|holdings| {
        holdings.len() == expected.len() && holdings.all().iter().all(|(key, held)| same(*key, held))
    });
    Ok(Outcome {
        violations: crew.violations(),
        unequal_gateways: equal.into_iter().filter(|equal| !equal).count(),
        missing,
    })
}
