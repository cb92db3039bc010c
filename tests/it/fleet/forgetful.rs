//! A gateway that takes everything, and then loses something without a word.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use flotilla_certs::Authority;
use flotilla_core::digest::{HOLDS, Sums};
use flotilla_core::ids::{Kind, ObjectKey};
use flotilla_proto::operator as proto;
use flotilla_proto::operator::configuration_service_client::ConfigurationServiceClient;
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;

use super::mute::{dial, info, open};

/// What has not come after this time comes with the next heartbeat.
const MOMENT: Duration = Duration::from_millis(20);

/// Its routes, and its session.
pub struct Forgetful {
    client: ConfigurationServiceClient<Channel>,
    info: proto::GatewayInfo,
    session: String,
    version: String,
    /// What it holds: names of routes and their specs.
    pub held: Vec<(ObjectKey, Vec<u8>)>,
    updates: Streaming<proto::ConfigurationUpdate>,
}

impl Forgetful {
    /// Registers, takes the first snapshot, and acknowledges it.
    pub async fn connect(port: u16, authority: &Authority, name: &str) -> Forgetful {
        let mut client = dial(port, authority, name, Arc::new(AtomicBool::new(false))).await;
        let info = info(name);
        let (session, updates) = open(&mut client, &info).await;
        let (version, held) = (String::new(), Vec::new());
        let mut gateway = Forgetful { client, info, session, version, held, updates };
        while gateway.held.is_empty() {
            let update = gateway.updates.message().await.unwrap().expect("a stream that goes on");
            gateway.take(update).await;
        }
        gateway
    }

    /// Takes snapshots, and versions without content: nothing else is sent where
    /// nobody changes anything.
    async fn take(&mut self, update: proto::ConfigurationUpdate) {
        assert!(update.resource.is_none(), "{update:?}");
        if let Some(snapshot) = update.snapshot {
            let held = snapshot.api_routes.into_iter();
            let held = held.map(|one| (ObjectKey::new(one.namespace, one.name), one.spec_json.to_vec()));
            self.held = held.collect();
        }
        self.version.clone_from(&update.version);
        let ack = proto::AcknowledgeConfigurationRequest {
            session_id: self.session.clone(),
            gateway: Some(self.info.clone()),
            config_version: update.version,
            success: true,
            ..proto::AcknowledgeConfigurationRequest::default()
        };
        self.client.acknowledge_configuration(ack).await.unwrap();
    }

    /// Takes what has come, and says in a heartbeat what it holds.
    pub async fn heartbeat(&mut self) {
        while let Ok(update) = timeout(MOMENT, self.updates.message()).await {
            self.take(update.unwrap().expect("a stream that goes on")).await;
        }
        let held = self.held.iter().map(|(key, spec)| (Kind::ApiRoute, key, spec.as_slice()));
        let annotations = [(HOLDS.to_owned(), Sums::of(held).to_string())].into();
        let request = proto::HeartbeatRequest {
            session_id: self.session.clone(),
            gateway: Some(proto::GatewayInfo { annotations, ..self.info.clone() }),
            last_applied_version: self.version.clone(),
            ..proto::HeartbeatRequest::default()
        };
        assert!(self.client.heartbeat(request).await.unwrap().into_inner().acknowledged);
    }
}
