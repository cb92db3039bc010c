//! A rolling update: every replica is told to end and started again, one after
//! the other, while the tenants go on.

use std::time::{Duration, Instant};

use crate::edge::with_book;
use crate::fleet::{Target, with_acts};
use crate::report::Rolling;
use crate::run::ROLLING;

/// A change that takes longer counts as delayed.
const PROMPT: Duration = Duration::from_secs(1);

/// What one change costs on the wire, per gateway, since these counts.
#[expect(clippy::cast_precision_loss, reason = "bytes of minutes")]
pub fn bytes_per_change(target: &Target, bytes: &[u64], changes: usize) -> f64 {
    let made = with_book(&target.book, |book| book.changes) - changes;
    mean(&since(target, bytes)) / made.max(1) as f64
}

fn since(target: &Target, bytes: &[u64]) -> Vec<u64> {
    target.edge.bytes().iter().zip(bytes).map(|(now, then)| now - then).collect()
}

#[expect(clippy::cast_precision_loss, reason = "bytes of minutes")]
fn mean(all: &[u64]) -> f64 {
    all.iter().sum::<u64>() as f64 / all.len().max(1) as f64
}

/// Updates all replicas.
///
/// # Errors
/// When one does not end or does not come back.
pub async fn update(
    target: &mut Target,
    bytes_per_change: f64,
    farewell: Duration,
) -> anyhow::Result<Rolling> {
    let (start, bytes, full_syncs) = (Instant::now(), target.edge.bytes(), target.edge.full_syncs());
    let changes = with_book(&target.book, |book| book.changes);
    let epochs = with_acts(&target.acts, |acts| acts.epochs().count());
    let owners = target.owners().await?;
    for number in 0..target.fleet.replicas.len() {
        let replica = &mut target.fleet.replicas[number];
        replica.terminate();
        replica.ended(farewell).await;
        replica.start();
        replica.ready().await;
        target.whole(Duration::ZERO).await?;
    }
    let owners_after = target.owners().await?;
    let seconds = start.elapsed().as_secs_f64();
    let changes = with_book(&target.book, |book| book.changes) - changes;
    let got = since(target, &bytes);
    let moves = with_acts(&target.acts, |acts| {
        let maps: Vec<_> = acts.epochs().skip(epochs.saturating_sub(1)).collect();
        let moved =
            |pair: &[&Vec<Option<usize>>]| pair[0].iter().zip(pair[1]).filter(|(a, b)| a != b).count();
        maps.windows(2).map(moved).sum()
    });
    let (delayed_connected, delayed_any) = with_book(&target.book, |book| {
        let of = &book.measured()[ROLLING];
        let late = |all: &[Duration]| all.iter().filter(|took| **took > PROMPT).count();
        (late(&of.connected), late(&of.everywhere))
    });
    #[expect(clippy::cast_precision_loss, reason = "bytes of minutes")]
    let most = got.iter().max().copied().unwrap_or_default() as f64;
    #[expect(clippy::cast_precision_loss, reason = "some thousand changes")]
    let size = bytes_per_change * changes.max(1) as f64;
    Ok(Rolling {
        seconds,
        namespace_moves: moves,
        namespaces_moved_for_good: owners.iter().zip(&owners_after).filter(|(a, b)| a != b).count(),
        changes,
        bytes_per_change,
        bytes_per_gateway_max: most,
        bytes_per_gateway_mean: mean(&got),
        resent_ratio_max: most / size.max(1.0),
        full_syncs: target.edge.full_syncs() - full_syncs,
        delayed_connected,
        delayed_any,
    })
}
