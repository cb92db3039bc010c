//! One replica that has read routes, and its gateways, which apply in no time.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_avapigw::AvapigwCompiler;
use flotilla_core::delivery::{
    Ack, AckVerdict, Action, Change, Connect, Delivery, DeliveryConfig, Scope, Unlimited,
};
use flotilla_core::ids::{GatewayId, Kind, Revision, SessionId};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;
use flotilla_grpc::gateway::{EncodedBatches, Frames};

use super::routes::{BEGIN, route, routes};

/// Gateways where there are many.
pub const GATEWAYS: u32 = 1_000;

/// See the module's description.
pub struct Replica {
    pub engine: Delivery<AvapigwCompiler>,
    pub now: Mono,
    encoded: EncodedBatches,
    revision: u64,
    turn: u32,
}

/// What went out to gateways, with the answers that it gets.
#[derive(Default)]
pub struct Sent {
    pub acks: Vec<Ack>,
    /// Bytes written.
    pub bytes: usize,
}

impl Replica {
    /// A replica that has listed nothing.
    pub fn empty() -> Replica {
        // Gateways that are applied at once: what counts is not their pace.
        let config = DeliveryConfig { duty_cycle: 1.0, ..DeliveryConfig::avapigw("0000c1a5") };
        Replica {
            engine: Delivery::new(config, AvapigwCompiler::default()),
            now: Mono::from_origin(Duration::from_secs(1_000)),
            encoded: EncodedBatches::default(),
            revision: BEGIN,
            turn: 0,
        }
    }

    /// A replica that has listed so many routes.
    pub fn listed(count: u32) -> Replica {
        let mut replica = Replica::empty();
        replica.list(routes(count));
        replica
    }

    /// Lists these routes, and nothing of other kinds.
    pub fn list(&mut self, mut objects: Vec<RawObject>) {
        self.revision += objects.len() as u64;
        for kind in Kind::ALL {
            let of_kind = if kind == Kind::ApiRoute { std::mem::take(&mut objects) } else { Vec::new() };
            self.engine.listed(kind, Revision(self.revision), of_kind);
        }
    }

    /// Has so many gateways connect: the first is synchronised, the others come with what
    /// it got.
    pub fn gateways(&mut self, count: u32) -> anyhow::Result<()> {
        let mut version = String::new();
        for number in 0..count {
            self.connect(number, &version);
            if number == 0 {
                version = self.settle()?.context("the first gateway was not synchronised")?;
            }
        }
        self.settle()?;
        Ok(())
    }

    /// A gateway comes.
    pub fn connect(&mut self, number: u32, version: &str) {
        let session = SessionId::from(number.to_string());
        let gateway = gateway(&session);
        self.engine.registered(self.now, session.clone(), gateway.clone());
        let (scope, last_version, registered) = (Scope::default(), version.to_owned(), Some(self.now));
        self.engine.connected(self.now, Connect { session, gateway, scope, last_version, registered });
    }

    /// The next change of a route.
    pub fn next_change(&mut self, number: u32) -> RawObject {
        self.now = self.now + Duration::from_millis(20);
        self.turn += 1;
        route(number, self.turn, self.next_revision())
    }

    /// The revision of the next write.
    pub fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    /// Makes messages of what is due, as bytes of each gateway's stream.
    pub fn due(&mut self) -> Vec<(Action, usize)> {
        // Any time: it stands in the messages.
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let actions = self.engine.poll(self.now, &mut Unlimited);
        let written = |action: Action| {
            let Action::Send { batch, first_sequence, .. } = &action else { return (action, 0) };
            let (encoded, _) = self.encoded.get(batch, at);
            let bytes = Frames::new(encoded, *first_sequence).map(|frame| frame.len()).sum();
            (action, bytes)
        };
        actions.into_iter().map(written).collect()
    }

    /// The answers to what went out.
    pub fn answers(&self, due: &[(Action, usize)]) -> Sent {
        let mut sent = Sent::default();
        for (action, bytes) in due {
            let Action::Send { session, batch, .. } = action else { continue };
            sent.bytes += bytes;
            // An empty message is not waited for.
            let counted = batch.updates.iter().filter(|update| !matches!(update.change, Change::Heartbeat));
            sent.acks.extend(counted.map(|update| Ack {
                session: session.clone(),
                gateway: gateway(session),
                version: update.version.to_string(),
                result: Ok(()),
                apply_duration: Duration::ZERO,
            }));
        }
        sent
    }

    /// Takes answers; whether all of them were waited for.
    pub fn acknowledge(&mut self, acks: Vec<Ack>) -> bool {
        acks.into_iter().all(|ack| self.engine.acknowledged(self.now, ack) == AckVerdict::Taken)
    }

    /// Sends and acknowledges until nothing is due; the last version that went out.
    pub fn settle(&mut self) -> anyhow::Result<Option<String>> {
        let mut version = None;
        loop {
            let due = self.due();
            if due.is_empty() {
                return Ok(version);
            }
            let Sent { acks, .. } = self.answers(&due);
            version = acks.last().map(|ack| ack.version.clone()).or(version);
            anyhow::ensure!(self.acknowledge(acks), "an acknowledgement was not taken");
        }
    }
}

fn gateway(session: &SessionId) -> GatewayId {
    GatewayId { namespace: "edge".into(), name: session.0.clone() }
}
