//! What a gateway tells a controller about itself, whoever dialled whom.

use std::time::{Duration, SystemTime};

use flotilla_proto::operator as proto;

use crate::gateway::Gateway;

impl Gateway {
    /// Everything that a registration says.
    pub(crate) fn info(&self) -> proto::GatewayInfo {
        let options = self.options();
        proto::GatewayInfo {
            version: options.version.clone(),
            pod_name: options.pod_name.clone(),
            node_name: options.node_name.clone(),
            labels: options.labels.clone().into_iter().collect(),
            ..self.short_info()
        }
    }

    /// What every call says.
    pub(crate) fn short_info(&self) -> proto::GatewayInfo {
        let id = self.id();
        proto::GatewayInfo {
            name: id.name.to_string(),
            namespace: id.namespace.to_string(),
            ..proto::GatewayInfo::default()
        }
    }

    /// How it is.
    pub(crate) fn health(&self) -> proto::GatewayStatus {
        let last_change = self.stats().last_change_unix_ms;
        proto::GatewayStatus {
            health: proto::HealthState::Healthy.into(),
            uptime: self.uptime().try_into().ok(),
            last_config_applied: (last_change > 0)
                .then(|| (SystemTime::UNIX_EPOCH + Duration::from_millis(last_change)).into()),
            ..proto::GatewayStatus::default()
        }
    }
}
