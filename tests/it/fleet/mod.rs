//! Fleets of the built binary for the scenarios, with what only tests need
//! around them.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

pub mod forgetful;
pub mod kubectl;
pub mod mute;
mod turn;
pub mod webhooks;

use std::ops::{Deref, DerefMut};
use std::path::Path;

use tokio::sync::SemaphorePermit;

pub use flotilla_testing::fleet::{
    Against, Server, events, expected_digest, gateways, http, objects, process, proxy, ready, replica,
    server, shards, waiting,
};
pub use turn::turn;

/// The built binary.
pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_flotilla"))
}

/// A fleet that has its turn.
pub struct Fleet {
    fleet: flotilla_testing::fleet::Fleet,
    _turn: SemaphorePermit<'static>,
}

impl Fleet {
    /// Starts an API server and installs the definitions, when it is its turn;
    /// `None` when there is no server of that sort on this machine.
    pub async fn start(against: Against) -> Option<Fleet> {
        let turn = turn().await;
        let fleet = flotilla_testing::fleet::Fleet::start(program(), against).await?;
        Some(Fleet { fleet, _turn: turn })
    }
}

impl Deref for Fleet {
    type Target = flotilla_testing::fleet::Fleet;

    fn deref(&self) -> &Self::Target {
        &self.fleet
    }
}

impl DerefMut for Fleet {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.fleet
    }
}
