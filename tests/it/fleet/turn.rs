//! Whose turn it is: heavy scenarios run two at a time, so that a machine with
//! many cores does not start fifty processes at once and measure only itself.

use tokio::sync::{Semaphore, SemaphorePermit};

static TURNS: Semaphore = Semaphore::const_new(2);

/// Waits for a turn, and keeps it until dropped.
pub async fn turn() -> SemaphorePermit<'static> {
    TURNS.acquire().await.expect("the semaphore is never closed")
}
