//! Whose turn it is: heavy scenarios run three at a time. They wait more than they
//! work; more of them, on a machine with many cores, would measure only each other.

use tokio::sync::{Semaphore, SemaphorePermit};

static TURNS: Semaphore = Semaphore::const_new(3);

/// Waits for a turn, and keeps it until dropped.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("the semaphore is never closed")
}
