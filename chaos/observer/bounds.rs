//! What the promises are held to, where they name a bound.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The bounds, all times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// I7: a change of a quiet tenant has reached a healthy gateway after so long.
    pub reach: u64,
    /// I7: a tenant is quiet when it has changed nothing for so long before.
    pub rest: u64,
    /// I7: a gateway is healthy when it, its instance and everything between them
    /// has worked for so long.
    pub healthy: u64,
    /// I3: a status that says "everywhere" must be true of every gateway that has
    /// been connected and healthy for so long: what is newer, its writer may not
    /// know.
    pub hearsay: u64,
    /// I6: so many times the ideal number of namespaces, or of their weight, may move
    /// when seats are new; a seat that is given up moves all that it had besides.
    pub movement: f64,
    /// I6: who carries so many times the mean is relieved, and nobody who carries less.
    pub tolerated: f64,
    /// I6: down to so many times the mean.
    pub aim: f64,
    /// I6: for that so many times what lies above may move.
    pub excess: f64,
    /// I6: and not again for so long, by the clock of whoever plans.
    pub damping: u64,
    /// I9: items kept for delivery, per object and per session.
    pub queued_per_object: f64,
    /// See [`Bounds::queued_per_object`].
    pub queued_per_session: f64,
    /// I9: bytes of batches, per object and per session.
    pub bytes_per_object: f64,
    /// See [`Bounds::bytes_per_object`].
    pub bytes_per_session: f64,
    /// I9: items that may be kept however little there is.
    pub items_base: f64,
    /// I9: bytes that may be kept however little there is.
    pub bytes_base: f64,
    /// I9: deletions that are remembered, over all kinds.
    pub tombstones: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            reach: 20 * SECOND,
            rest: 5 * SECOND,
            healthy: 60 * SECOND,
            hearsay: 30 * SECOND,
            movement: 1.5,
            tolerated: 1.15,
            aim: 1.1,
            excess: 2.0,
            damping: 120 * SECOND,
            queued_per_object: 4.0,
            queued_per_session: 16.0,
            bytes_per_object: 4096.0,
            bytes_per_session: 4096.0,
            items_base: 64.0,
            bytes_base: 65_536.0,
            tombstones: 400_000,
        }
    }
}
