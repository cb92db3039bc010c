//! What was deleted between a revision in the past and now, from the API
//! server's own history: about five minutes of it. It spares a gateway a full
//! synchronisation when the replica that serves it has just started.

use std::time::Duration;

use flotilla_core::delivery::Tombstone;
use flotilla_core::ids::{Kind, Revision};
use kube::Client;
use tokio::time::timeout;

use super::source::Source;
use super::{HURRY_SECONDS, WatchConfig, chain};
use flotilla_core::wire::Line;

/// Replays the watch of one kind from `since` until `until` and returns the
/// deletions on the way; `None` when the history does not reach back that far
/// or the API server did not tell in time.
pub async fn replay_deletions(
    client: Client,
    kind: Kind,
    since: Revision,
    until: Revision,
) -> Option<Vec<Tombstone>> {
    if since == Revision(0) {
        return None; // the server would take any revision for the beginning
    }
    // A server sends a bookmark about two seconds before it ends a watch, and
    // only a line at or beyond `until` proves that nothing is missing.
    let source = Source::new(client, kind, WatchConfig::default());
    // The second one only if the server was too busy for the first.
    let search = async {
        match collect(&source, since, until, HURRY_SECONDS).await {
            Ok(None) => collect(&source, since, until, HURRY_SECONDS + 2).await,
            found => found,
        }
    };
    match timeout(Duration::from_secs(12), search).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::info!(kind = kind.name(), %since, error = %chain(&error), "history cannot be replayed");
            None
        }
        Err(_) => {
            tracing::info!(kind = kind.name(), %since, "history was not replayed in time");
            None
        }
    }
}

async fn collect(
    source: &Source,
    since: Revision,
    until: Revision,
    seconds: u64,
) -> Result<Option<Vec<Tombstone>>, crate::Error> {
    let mut lines = source.watch(since, Some(seconds)).await?;
    let mut found = Vec::new();
    while let Some(line) = lines.next().await? {
        let at = match line {
            Line::Changed(object) => object.revision,
            Line::Deleted(key, revision) => {
                found.push(Tombstone { kind: source.kind(), key, revision });
                revision
            }
            Line::Bookmark(revision) => revision,
            Line::Error(code, message) => return Err(source.line_error(code, message)),
        };
        if at >= until {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
