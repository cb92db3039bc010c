//! `GetGatewayStatus` of a controller, for tools: which gateways this replica
//! serves, and how far they are. The other calls are for gateways.

use std::sync::Arc;

use flotilla_certs::{Identity, Role};
use flotilla_core::compile::Compiler;
use flotilla_core::delivery::{Delivery, SessionState, SessionView};
use flotilla_core::ids::GatewayId;
use flotilla_proto::push::configuration_service_server::{ConfigurationService, ConfigurationServiceServer};
use flotilla_proto::push::{GetGatewayStatusRequest, GetGatewayStatusResponse, ServedGateway};
use tonic::{Request, Response, Status};

use crate::acceptor::Peer;
use crate::gateway::DeliveryHandle;

/// The service; clones share everything.
pub struct StatusService<C: Compiler> {
    delivery: DeliveryHandle<C>,
    trust_domain: Arc<str>,
}

impl<C: Compiler + 'static> StatusService<C> {
    /// A service that asks this delivery task.
    pub fn new(delivery: DeliveryHandle<C>, trust_domain: Arc<str>) -> Self {
        StatusService { delivery, trust_domain }
    }

    /// As a server takes it.
    pub fn into_server(self) -> ConfigurationServiceServer<Self> {
        ConfigurationServiceServer::new(self)
    }
}

/// What somebody may know: replicas and tools about all gateways, gateways about
/// themselves. There may be thousands who ask, so nobody looks at more than that.
fn known_to<C: Compiler>(identity: &Identity, engine: &Delivery<C>) -> Vec<ServedGateway> {
    match identity.role {
        Role::Controller | Role::Tool => engine.sessions().map(served).collect(),
        Role::Gateway => {
            let own = GatewayId { namespace: identity.namespace.clone(), name: identity.name.clone() };
            engine.session_of(&own).map(served).into_iter().collect()
        }
    }
}

fn served(view: SessionView) -> ServedGateway {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    ServedGateway {
        namespace: view.gateway.namespace.to_string(),
        name: view.gateway.name.to_string(),
        session_id: view.session.to_string(),
        dialled: view.dialled,
        in_flight: count(view.in_flight),
        rejected: count(view.rejections),
        in_step: view.state == SessionState::Idle && view.lag == 0,
    }
}

#[tonic::async_trait]
impl<C: Compiler + 'static> ConfigurationService for StatusService<C> {
    async fn get_gateway_status(
        &self,
        request: Request<GetGatewayStatusRequest>,
    ) -> Result<Response<GetGatewayStatusResponse>, Status> {
        let identity = Peer::of(request.extensions())?.identity.clone();
        let identity = identity.map_err(|error| Status::unauthenticated(error.to_string()))?;
        if identity.trust_domain != self.trust_domain {
            let text = format!("{identity} is not of trust domain {}", self.trust_domain);
            return Err(Status::permission_denied(text));
        }
        let request = request.into_inner();
        if !request.open_session.is_empty() || request.advance.is_some() {
            return Err(Status::invalid_argument("this is a controller; open sessions with gateways"));
        }
        let known = self.delivery.inspect(move |engine| known_to(&identity, engine));
        let served = known.await.map_err(|gone| Status::unavailable(gone.to_string()))?;
        Ok(Response::new(GetGatewayStatusResponse { served, ..GetGatewayStatusResponse::default() }))
    }
}
