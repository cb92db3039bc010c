//! One replica and its gateways on a bench: every step is the test's.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_core::delivery::{
    Ack, AckVerdict, Action, Batch, Change, Connect, Delivery, DeliveryConfig, EndReason, Limits, Notice,
    Scope, Unlimited,
};
use flotilla_core::ids::{GatewayId, Kind, ObjectKey, Revision, SessionId};
use flotilla_core::time::Mono;

use super::gateway::{Answer, Gateway};
use super::log::{Log, TestCompiler};

pub const CLUSTER: &str = "0000c1a5";

/// Nobody is loud: tests change a lot in no time.
pub fn config() -> DeliveryConfig {
    DeliveryConfig { loud_changes: 0, ..DeliveryConfig::avapigw(CLUSTER) }
}

pub fn key(text: &str) -> ObjectKey {
    let (namespace, name) = text.split_once('/').unwrap();
    ObjectKey::new(namespace, name)
}

pub fn gateway_id(name: &str) -> GatewayId {
    GatewayId { namespace: "edge".into(), name: name.into() }
}

pub struct Bench {
    pub now: Mono,
    pub log: Log,
    pub delivery: Delivery<TestCompiler>,
    pub gateways: BTreeMap<String, Gateway>,
    sessions: u64,
    /// The session each gateway has now.
    pub session: BTreeMap<String, SessionId>,
    pub notices: Vec<Notice>,
    pub ended: Vec<(SessionId, EndReason)>,
    pub asked: Vec<(Kind, Revision)>,
    /// How long gateways say that one update takes.
    pub apply: Duration,
}

impl Bench {
    pub fn new(config: DeliveryConfig) -> Self {
        let log = Log { revision: 100, ..Log::default() };
        Bench::over(config, log)
    }

    /// A replica that has just listed what a log holds.
    pub fn over(config: DeliveryConfig, log: Log) -> Self {
        let mut bench = Bench::unlisted(config, log);
        bench.list_all();
        bench
    }

    pub fn unlisted(config: DeliveryConfig, log: Log) -> Self {
        Bench {
            now: Mono::from_origin(Duration::from_secs(1_000)),
            log,
            delivery: Delivery::new(config, TestCompiler),
            gateways: BTreeMap::new(),
            sessions: 0,
            session: BTreeMap::new(),
            notices: Vec::new(),
            ended: Vec::new(),
            asked: Vec::new(),
            apply: Duration::from_millis(1),
        }
    }

    /// The same log and gateways under a replica that has just started.
    pub fn restart_replica(&mut self, config: DeliveryConfig) {
        self.delivery = Delivery::new(config, TestCompiler);
        self.list_all();
    }

    pub fn list_all(&mut self) {
        for kind in Kind::ALL {
            let at = Revision(self.log.revision);
            self.delivery.listed(kind, at, self.log.list(kind, at));
        }
    }

    pub fn put(&mut self, kind: Kind, name: &str, spec: &str) {
        let object = self.log.put(kind, &key(name), spec);
        self.delivery.changed(object);
        self.bookmark();
    }

    pub fn route(&mut self, name: &str, spec: &str) {
        self.put(Kind::ApiRoute, name, spec);
    }

    pub fn backend(&mut self, name: &str, spec: &str) {
        self.put(Kind::Backend, name, spec);
    }

    /// So much that a snapshot is never the cheaper way.
    pub fn ballast(&mut self) {
        for n in 0..10 {
            self.route(&format!("ballast/{n}"), &"x".repeat(390_000));
        }
    }

    pub fn delete(&mut self, kind: Kind, name: &str) {
        let revision = self.log.delete(kind, &key(name));
        self.delivery.deleted(kind, &key(name), revision);
        self.bookmark();
    }

    /// All kinds have seen everything.
    pub fn bookmark(&mut self) {
        for kind in Kind::ALL {
            self.delivery.bookmark(kind, Revision(self.log.revision));
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    pub fn gateway(&mut self, name: &str) -> &mut Gateway {
        self.gateways.entry(name.into()).or_default()
    }

    /// The gateway registers and opens its stream.
    pub fn connect(&mut self, name: &str) {
        self.connect_scoped(name, Scope::default());
    }

    pub fn connect_scoped(&mut self, name: &str, scope: Scope) {
        let now = self.now;
        self.sessions += 1;
        let session: SessionId = format!("here/{}", self.sessions).into();
        let gateway = self.gateway(name);
        gateway.registers(now);
        let last_version = gateway.version.clone();
        self.session.insert(name.into(), session.clone());
        self.delivery.registered(now, session.clone(), gateway_id(name));
        let gateway = gateway_id(name);
        self.delivery
            .connected(now, Connect { session, gateway, scope, last_version, registered: Some(now) });
    }

    /// Polls once and returns the batches by gateway, in order.
    pub fn poll(&mut self) -> Vec<(String, std::sync::Arc<Batch>, i64)> {
        self.poll_limited(&mut Unlimited)
    }

    pub fn poll_limited(&mut self, limits: &mut dyn Limits) -> Vec<(String, std::sync::Arc<Batch>, i64)> {
        let mut sent = Vec::new();
        for action in self.delivery.poll(self.now, limits) {
            match action {
                Action::Send { session, batch, first_sequence } => {
                    let (name, _) = self.session.iter().find(|(_, known)| **known == session).unwrap();
                    sent.push((name.clone(), batch, first_sequence));
                }
                Action::End { session, reason } => self.ended.push((session, reason)),
                Action::NeedHistory { kind, since } => self.asked.push((kind, since)),
                Action::Notice(notice) => self.notices.push(notice),
            }
        }
        sent
    }

    /// Lets a gateway take a batch and returns its answers.
    pub fn take(&mut self, name: &str, batch: &Batch, first_sequence: i64) -> Vec<Answer> {
        let now = self.now;
        let gateway = self.gateway(name);
        let numbered = batch.updates.iter().zip(first_sequence..);
        numbered.map(|(update, sequence)| gateway.takes(now, update, sequence)).collect()
    }

    pub fn ack(&mut self, name: &str, version: &str, result: Result<(), &str>) -> AckVerdict {
        let ack = Ack {
            session: self.session[name].clone(),
            gateway: gateway_id(name),
            version: version.into(),
            result: result.map_err(str::to_owned),
            apply_duration: self.apply,
        };
        self.delivery.acknowledged(self.now, ack)
    }

    /// Takes a batch and acknowledges all of it.
    pub fn answer(&mut self, name: &str, batch: &Batch, first_sequence: i64) {
        let answers = self.take(name, batch, first_sequence);
        for (update, answer) in batch.updates.iter().zip(answers) {
            let result = match answer {
                Answer::Skipped => continue,
                Answer::Acked | Answer::IgnoredByGuard => Ok(()),
                Answer::Nacked(words) => Err(words),
            };
            let result = result.as_ref().copied().map_err(String::as_str);
            assert_eq!(self.ack(name, &update.version, result), AckVerdict::Taken);
        }
    }

    /// Goes on until nothing is to be sent at this moment; returns what was.
    pub fn settle(&mut self) -> Vec<(String, std::sync::Arc<Batch>)> {
        let mut all = Vec::new();
        loop {
            let sent = self.poll();
            if sent.is_empty() && self.delivery.next_deadline().is_none_or(|at| at > self.now) {
                return all;
            }
            for (name, batch, first_sequence) in sent {
                self.answer(&name, &batch, first_sequence);
                all.push((name, batch));
            }
            assert!(all.len() < 10_000, "no end of sending");
        }
    }

    /// Settles now and whenever something is due within a time.
    pub fn settle_for(&mut self, time: Duration) -> Vec<(String, std::sync::Arc<Batch>)> {
        let until = self.now + time;
        let mut all = self.settle();
        while let Some(at) = self.delivery.next_deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            all.extend(self.settle());
        }
        self.now = until;
        all
    }

    /// Connects a gateway and brings it up to date.
    pub fn connected(&mut self, name: &str) {
        self.connect(name);
        self.settle();
        self.assert_equal(name);
    }

    pub fn assert_equal(&self, name: &str) {
        let gateway = &self.gateways[name];
        let held: BTreeMap<_, _> =
            gateway.table.iter().map(|(key, resource)| (key.clone(), resource.spec_json.clone())).collect();
        let mut expected = self.log.expected(&Scope::default());
        // What fits into no message is not delivered.
        expected.retain(|(kind, key), _| self.delivery.content_of(*kind, key).unwrap().outcome.is_ok());
        assert_eq!(held, expected, "{name} differs");
        assert_eq!(gateway.digest(), self.delivery.digest(&Scope::default()), "{name} differs");
        assert_eq!(gateway.violations, Vec::<String>::new());
    }

    pub fn holds(&self, gateway: &str, kind: Kind, name: &str) -> Option<String> {
        let resource = self.gateways[gateway].table.get(&(kind, key(name)))?;
        Some(String::from_utf8(resource.spec_json.to_vec()).unwrap())
    }
}

/// A batch in a few words, one per update.
pub fn words(batch: &Batch) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Upsert { resource, added: true } => format!("+{}", resource.key),
        Change::Upsert { resource, added: false } => format!("~{}", resource.key),
        Change::Delete { key, .. } => format!("-{key}"),
        Change::FullSync(snapshot) => {
            let keys: Vec<_> = snapshot.resources.iter().map(|r| r.key.to_string()).collect();
            format!("full({}|{})", keys.join(" "), snapshot.padding.len())
        }
        Change::Reset => "reset".into(),
        Change::Heartbeat => "heartbeat".into(),
    };
    batch.updates.iter().map(|update| word(&update.change)).collect()
}

/// The words of all batches to one gateway.
pub fn words_to(name: &str, sent: &[(String, std::sync::Arc<Batch>)]) -> Vec<String> {
    sent.iter().filter(|(to, _)| to == name).flat_map(|(_, batch)| words(batch)).collect()
}
