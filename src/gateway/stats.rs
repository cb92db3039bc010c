//! What a gateway counts about itself. Everything starts at zero with the
//! process and only grows, unless said otherwise.

use serde::Serialize;

/// Counters of one gateway, as `/stats` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Updates received, skipped ones included.
    pub updates: u64,
    /// Updates acknowledged with success.
    pub acks: u64,
    /// Updates acknowledged with an error.
    pub nacks: u64,
    /// Updates skipped without acknowledgement because of their sequence.
    pub skipped: u64,
    /// Full synchronisations with a snapshot, ignored ones included.
    pub full_syncs: u64,
    /// Full synchronisations that a guard ignored.
    pub guard_ignored: u64,
    /// Resources that came with a lower generation than the same object had
    /// before on this gateway, generations that could not be loaded left out:
    /// must stay zero.
    pub regressions: u64,
    /// Resources of objects that had been removed, and came back unchanged.
    pub reappeared: u64,
    /// Resources removed by DELETED.
    pub deletions: u64,
    /// Resources removed by a full synchronisation that did not contain them.
    pub removed_by_full_sync: u64,
    /// Registrations that succeeded.
    pub registrations: u64,
    /// Streams lost that are followed by a new registration.
    pub reconnects: u64,
    /// Encoded size of all updates received, in bytes.
    pub bytes_received: u64,
    /// Acknowledgements that could not be delivered.
    pub ack_failures: u64,
    /// Heartbeats answered.
    pub heartbeats: u64,
    /// Heartbeats that failed.
    pub heartbeat_failures: u64,
    /// Time spent applying, in microseconds.
    pub apply_micros: u64,
    /// When the configuration last changed: milliseconds since 1970, zero if
    /// never.
    pub last_change_unix_ms: u64,
}
