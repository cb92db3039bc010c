//! The product's own decisions for a very large fleet, in one process and without
//! sockets: what a change costs, what a gateway and an object take, and how that
//! grows.
//!
//! Every replica runs the whole delivery engine with the real compiler over all
//! objects, as in a fleet; what is left out is encoding, encryption and IO. A row
//! makes the same changes to a fleet in which one thing is ten times as large as
//! in the first row; the last row has everything ten times as large.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use flotilla_avapigw::AvapigwCompiler;
use flotilla_core::applied::AppliedView;
use flotilla_core::delivery::{
    Ack, AckVerdict, Action, Change, Connect, Delivery, DeliveryConfig, Scope, Unlimited, Update,
};
use flotilla_core::ids::{Frontier, GatewayId, Kind, MemberName, ObjectKey, Revision, SessionId};
use flotilla_core::object::RawObject;
use flotilla_core::time::Mono;
use serde::Serialize;

use crate::cli::FleetSim;
use crate::process::{Usage, load};
use crate::report::{mebibytes, say, write_json};
use crate::workload::spec;

/// What one row has.
#[derive(Debug, Clone, Copy, Serialize)]
struct Size {
    gateways: u32,
    namespaces: u32,
    objects: u32,
    replicas: u32,
}

#[derive(Debug, Serialize)]
struct Row {
    /// What is larger than in the first row.
    larger: &'static str,
    #[serde(flatten)]
    size: Size,
    changes: u32,
    /// CPU time of all replicas for one change, in microseconds.
    cpu_micros_per_change: f64,
    /// The same for one change on one gateway, in nanoseconds.
    cpu_nanos_per_delivery: f64,
    /// To ask, with every replica's table, where one change has arrived.
    status_micros_per_change: f64,
    /// Memory, in bytes, of one gateway's session and of one object in one replica.
    bytes_per_session: f64,
    bytes_per_object: f64,
}

#[derive(Debug, Serialize)]
struct Found {
    scenario: &'static str,
    load_average: f64,
    rows: Vec<Row>,
}

/// Runs it.
///
/// # Errors
/// When what was sent is not what must be sent: one update for each gateway and
/// change.
pub fn run(args: &FleetSim) -> anyhow::Result<bool> {
    let whole = Size {
        gateways: args.gateways,
        namespaces: args.namespaces,
        objects: args.objects,
        replicas: args.replicas,
    };
    let tenth = |count: u32| (count / 10).max(1);
    let small = Size {
        gateways: tenth(whole.gateways),
        namespaces: tenth(whole.namespaces),
        objects: tenth(whole.objects),
        replicas: tenth(whole.replicas),
    };
    let rows = [
        ("nothing", small),
        ("gateways", Size { gateways: whole.gateways, ..small }),
        ("namespaces", Size { namespaces: whole.namespaces, ..small }),
        ("objects", Size { objects: whole.objects, ..small }),
        ("replicas", Size { replicas: whole.replicas, ..small }),
        ("everything", whole),
    ];
    say(
        "larger       gateways namespaces objects replicas   µs/change ns/delivery  µs/status  B/session  B/object",
    );
    let mut found = Found { scenario: "fleet-sim", load_average: load(), rows: Vec::new() };
    for (larger, size) in rows {
        let row = measure(larger, size, args.changes)?;
        say(&format!(
            "{larger:<12} {:>8} {:>10} {:>7} {:>8} {:>11.1} {:>11.0} {:>10.2} {:>10.0} {:>9.0}",
            size.gateways,
            size.namespaces,
            size.objects,
            size.replicas,
            row.cpu_micros_per_change,
            row.cpu_nanos_per_delivery,
            row.status_micros_per_change,
            row.bytes_per_session,
            row.bytes_per_object
        ));
        found.rows.push(row);
    }
    say(&format!("load average {:.1}, {:.1} MiB at most", found.load_average, mebibytes(own()?.peak_rss)));
    if let Some(file) = &args.json {
        write_json(&found, file)?;
    }
    Ok(true)
}

fn own() -> anyhow::Result<Usage> {
    Usage::of(std::process::id())
}

/// One replica and its gateways.
struct Replica {
    engine: Delivery<AvapigwCompiler>,
    member: MemberName,
}

struct World {
    now: Mono,
    revision: u64,
    objects: Vec<RawObject>,
    replicas: Vec<Replica>,
    applied: AppliedView,
    gateways: u32,
    /// Updates that were sent and acknowledged.
    delivered: u64,
}

fn measure(larger: &'static str, size: Size, changes: u32) -> anyhow::Result<Row> {
    let mut world = World::furnished(size);
    let empty = own()?.rss;
    world.replicas(size.replicas);
    let listed = own()?.rss;
    world.gateways()?;
    let connected = own()?.rss;
    world.delivered = 0;
    let before = own()?.cpu_seconds;
    for number in 0..changes {
        world.change(number as usize * 31 % size.objects as usize)?;
    }
    let sent = own()?.cpu_seconds - before;
    let expected = u64::from(changes) * u64::from(size.gateways);
    anyhow::ensure!(world.delivered == expected, "{} updates were sent for {expected}", world.delivered);
    let before = own()?.cpu_seconds;
    for number in 0..changes {
        world.look_at_status(number as usize * 31 % size.objects as usize)?;
    }
    let looked = own()?.cpu_seconds - before;
    let grown = |now: u64, before: u64| now.saturating_sub(before) as f64;
    let per_change = |seconds: f64| seconds * 1e6 / f64::from(changes);
    Ok(Row {
        larger,
        size,
        changes,
        cpu_micros_per_change: per_change(sent),
        cpu_nanos_per_delivery: sent * 1e9 / expected as f64,
        status_micros_per_change: per_change(looked),
        bytes_per_session: grown(connected, listed) / f64::from(size.gateways),
        bytes_per_object: grown(listed, empty) / f64::from(size.objects) / f64::from(size.replicas),
    })
}

impl World {
    fn furnished(size: Size) -> World {
        let object = |number: u32| {
            let (namespace, name) =
                (format!("team-{:05}", number % size.namespaces), format!("route-{number:06}"));
            RawObject {
                kind: Kind::ApiRoute,
                spec: Bytes::from(spec(&namespace, &name, 0).to_string()),
                key: ObjectKey::new(namespace.as_str(), name.as_str()),
                uid: format!("00000000-0000-4000-8000-{number:012}").into(),
                revision: Revision(1_000 + u64::from(number)),
                generation: 1,
                created: "2026-01-01T00:00:00Z".into(),
                deleting: false,
                held: false,
                status: Bytes::new(),
            }
        };
        World {
            now: Mono::from_origin(Duration::from_secs(1_000)),
            revision: 1_000 + u64::from(size.objects),
            objects: (0..size.objects).map(object).collect(),
            replicas: Vec::new(),
            applied: AppliedView::default(),
            gateways: size.gateways,
            delivered: 0,
        }
    }

    fn replicas(&mut self, count: u32) {
        // A fleet that is applied at once: what is measured is not its pace.
        let config = DeliveryConfig { duty_cycle: 1.0, ..DeliveryConfig::avapigw("0000c1a5") };
        for number in 0..count {
            let mut engine = Delivery::new(config.clone(), AvapigwCompiler::default());
            for kind in Kind::ALL {
                let objects = if kind == Kind::ApiRoute { self.objects.clone() } else { Vec::new() };
                engine.listed(kind, Revision(self.revision), objects);
            }
            let member = MemberName::from(format!("flotilla-{number}").as_str());
            self.replicas.push(Replica { engine, member });
        }
        let members: Vec<_> = self.replicas.iter().map(|replica| replica.member.clone()).collect();
        self.applied.members(self.now, &members);
    }

    /// The first gateway of each replica is synchronised, the others come with the
    /// same state: as after the restart of a replica.
    fn gateways(&mut self) -> anyhow::Result<()> {
        let shares = self.replicas.len() as u32;
        for place in 0..self.replicas.len() {
            let mut version = String::new();
            for number in (place as u32..self.gateways).step_by(shares as usize) {
                self.connect(place, number, &version);
                if version.is_empty() {
                    version = self.send(place)?.context("the first gateway was not synchronised")?;
                }
            }
            self.send(place)?;
        }
        Ok(())
    }

    fn connect(&mut self, place: usize, number: u32, version: &str) {
        let now = self.now;
        let gateway = GatewayId { namespace: "edge".into(), name: format!("gateway-{number:06}").into() };
        let session = SessionId::from(format!("{place}/{number}").as_str());
        let engine = &mut self.replicas[place].engine;
        engine.registered(now, session.clone(), gateway.clone());
        let (scope, last_version) = (Scope::default(), version.to_owned());
        engine.connected(now, Connect { session, gateway, scope, last_version, registered: Some(now) });
    }

    /// Sends and acknowledges what is due; returns the last version.
    fn send(&mut self, place: usize) -> anyhow::Result<Option<String>> {
        let mut version = None;
        loop {
            let due = self.replicas[place].engine.poll(self.now, &mut Unlimited);
            if due.is_empty() {
                return Ok(version);
            }
            for action in due {
                let Action::Send { session, batch, .. } = action else { continue };
                let gateway = session.to_string();
                let number: u32 = gateway.rsplit('/').next().unwrap_or_default().parse()?;
                let gateway =
                    GatewayId { namespace: "edge".into(), name: format!("gateway-{number:06}").into() };
                // An empty message is not waited for.
                let counted = |update: &&Update| !matches!(update.change, Change::Heartbeat);
                for update in batch.updates.iter().filter(counted) {
                    let ack = Ack {
                        session: session.clone(),
                        gateway: gateway.clone(),
                        version: update.version.to_string(),
                        result: Ok(()),
                        apply_duration: Duration::ZERO,
                    };
                    let verdict = self.replicas[place].engine.acknowledged(self.now, ack);
                    anyhow::ensure!(
                        verdict == AckVerdict::Taken,
                        "an acknowledgement was not taken: {verdict:?}"
                    );
                    self.delivered += 1;
                }
                version = batch.updates.last().map(|update| update.version.to_string());
            }
        }
    }

    /// A tenant changes a route; every replica reads that and brings it to its
    /// gateways.
    fn change(&mut self, index: usize) -> anyhow::Result<()> {
        self.now = self.now + Duration::from_millis(20);
        self.revision += 1;
        let object = &mut self.objects[index];
        object.generation += 1;
        object.revision = Revision(self.revision);
        let (namespace, name) = (object.key.namespace.clone(), object.key.name.clone());
        object.spec = Bytes::from(spec(&namespace, &name, self.revision).to_string());
        let object = object.clone();
        for place in 0..self.replicas.len() {
            self.replicas[place].engine.changed(object.clone());
            self.send(place)?;
        }
        Ok(())
    }

    /// What the owner of a namespace asks when it writes a status.
    fn look_at_status(&mut self, index: usize) -> anyhow::Result<()> {
        for replica in &self.replicas {
            self.applied.set(&replica.member, replica.engine.applied_table());
        }
        let object = &self.objects[index];
        let mut needs = Frontier::default();
        needs.advance(object.kind, object.revision);
        let reach = self.applied.reach(object.kind, &object.key, &needs, 0);
        anyhow::ensure!(reach.applied == self.gateways, "a status does not have every gateway: {reach:?}");
        Ok(())
    }
}
