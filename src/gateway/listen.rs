//! The gateway's side of push mode: it listens, and a controller calls it.
//!
//! What a call changes goes through the same [`crate::state::State`] as an update
//! of a stream, guards and weaknesses included: opening a session counts as a
//! registration. A session is the fence between controllers: see
//! `proto/flotilla/gateway/v1`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flotilla_certs::{Identity, Role, peer_identity};
use flotilla_core::digest::summand;
use flotilla_core::ids::Kind;
use flotilla_proto::operator::{ConfigurationUpdate, ResourceType};
use flotilla_proto::push::configuration_service_server::{ConfigurationService, ConfigurationServiceServer};
use flotilla_proto::push::{self as proto, ResourceUpdate, UpdateResult};
use hyper_util::service::TowerToHyperService;
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::gateway::Gateway;
use crate::options::Listen;
use crate::resource::{Incoming, Resource};
use crate::serve::serve_opened;
use crate::state::{Change, Outcome, Update};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Bytes of the updates of one call that are offered to be taken.
const BATCH: usize = 4 * 1024 * 1024;

/// Largest request: a batch and what stands around its updates.
const REQUEST: usize = 2 * BATCH;

type Service = TowerToHyperService<ConfigurationServiceServer<Caller>>;

/// Serves controllers until cancelled.
pub(crate) async fn listen(
    gateway: Arc<Gateway>,
    listen: Listen,
    listener: TcpListener,
    cancel: CancellationToken,
) {
    let open = move |stream, peer| open(gateway.clone(), listen.clone(), stream, peer);
    serve_opened(listener, open, cancel).await;
}

/// A connection over TLS and the service for who is at its other end.
async fn open(
    gateway: Arc<Gateway>,
    listen: Listen,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Service)> {
    let handshake = TlsAcceptor::from(listen.tls.config()).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            warn!(gateway = %gateway.id(), %peer, %error, "no TLS with who connects");
            return None;
        }
        Err(_) => return None,
    };
    let identity = peer_identity(stream.get_ref().1.peer_certificates().unwrap_or_default());
    let refusal = match identity {
        Ok(Identity { role: Role::Controller, trust_domain, .. }) if trust_domain == listen.trust_domain => {
            None
        }
        Ok(identity) => {
            Some(format!("you are {identity}; only controllers of {} may call", listen.trust_domain))
        }
        Err(error) => Some(error.to_string()),
    };
    let caller = Caller { gateway, batches: listen.batches, refusal: refusal.map(Arc::from) };
    let service = ConfigurationServiceServer::new(caller).max_decoding_message_size(REQUEST);
    Some((stream, TowerToHyperService::new(service)))
}

/// The service as one connection has it.
struct Caller {
    gateway: Arc<Gateway>,
    batches: bool,
    /// Why who calls is none of ours.
    refusal: Option<Arc<str>>,
}

impl Caller {
    fn authorise(&self) -> Result<(), Status> {
        self.refusal.as_ref().map_or(Ok(()), |refusal| Err(Status::permission_denied(refusal.to_string())))
    }

    async fn upsert(
        &self,
        kind: Kind,
        update: Option<ResourceUpdate>,
    ) -> Result<Option<UpdateResult>, Status> {
        self.change(kind, update, Change::Upsert).await
    }

    async fn delete(
        &self,
        kind: Kind,
        update: Option<ResourceUpdate>,
    ) -> Result<Option<UpdateResult>, Status> {
        self.change(kind, update, Change::Delete).await
    }

    async fn change(
        &self,
        kind: Kind,
        update: Option<ResourceUpdate>,
        change: fn(Incoming) -> Change,
    ) -> Result<Option<UpdateResult>, Status> {
        let update = update.ok_or_else(|| Status::invalid_argument("update is missing"))?;
        let bytes = update.encoded_len() as u64;
        let ResourceUpdate { session_id, config_version, sequence, resource } = update;
        let resource = resource.ok_or_else(|| Status::invalid_argument("update.resource is missing"))?;
        // The call decides the kind, whatever the resource's own type says.
        let change = change(Incoming { kind: Some(kind), ..resource.into() });
        let update = Update { version: config_version, sequence, change };
        Ok(Some(self.take(&session_id, update, bytes).await?))
    }

    /// Applies one update of a session.
    async fn take(&self, session: &str, update: Update, bytes: u64) -> Result<UpdateResult, Status> {
        self.authorise()?;
        let started = Instant::now();
        let sequence = update.sequence;
        let taken = self.gateway.apply_of(session, update, bytes).ok_or_else(|| {
            Status::aborted("another session has been opened; open one with GetGatewayStatus")
        })?;
        if !taken.cost.is_zero() {
            tokio::time::sleep(taken.cost).await;
        }
        let error_message = match taken.outcome {
            Outcome::Ack => String::new(),
            Outcome::Nack(words) => words,
            Outcome::Skipped => {
                let text = format!("sequence {sequence} is not above the last one of this session");
                return Err(Status::out_of_range(text));
            }
        };
        Ok(UpdateResult {
            success: error_message.is_empty(),
            error_message,
            apply_duration: started.elapsed().try_into().ok(),
            config_version: self.gateway.version().to_string(),
        })
    }
}

/// A resource as it is listed.
fn held(resource: &Resource, in_force: bool) -> proto::HeldResource {
    let kind = match resource.kind {
        Kind::ApiRoute => ResourceType::ApiRoute,
        Kind::GrpcRoute => ResourceType::GrpcRoute,
        Kind::Backend => ResourceType::Backend,
        Kind::GrpcBackend => ResourceType::GrpcBackend,
    };
    proto::HeldResource {
        r#type: kind.into(),
        namespace: resource.object.namespace.to_string(),
        name: resource.object.name.to_string(),
        uid: resource.uid.clone(),
        generation: resource.generation,
        resource_version: resource.resource_version.clone(),
        content: if in_force { summand(resource.kind, &resource.object, &resource.spec_json) } else { 0 },
    }
}

#[tonic::async_trait]
impl ConfigurationService for Caller {
    async fn apply_api_route(
        &self,
        request: Request<proto::ApplyApiRouteRequest>,
    ) -> Result<Response<proto::ApplyApiRouteResponse>, Status> {
        let result = self.upsert(Kind::ApiRoute, request.into_inner().update).await?;
        Ok(Response::new(proto::ApplyApiRouteResponse { result }))
    }

    async fn apply_grpc_route(
        &self,
        request: Request<proto::ApplyGrpcRouteRequest>,
    ) -> Result<Response<proto::ApplyGrpcRouteResponse>, Status> {
        let result = self.upsert(Kind::GrpcRoute, request.into_inner().update).await?;
        Ok(Response::new(proto::ApplyGrpcRouteResponse { result }))
    }

    async fn apply_backend(
        &self,
        request: Request<proto::ApplyBackendRequest>,
    ) -> Result<Response<proto::ApplyBackendResponse>, Status> {
        let result = self.upsert(Kind::Backend, request.into_inner().update).await?;
        Ok(Response::new(proto::ApplyBackendResponse { result }))
    }

    async fn apply_grpc_backend(
        &self,
        request: Request<proto::ApplyGrpcBackendRequest>,
    ) -> Result<Response<proto::ApplyGrpcBackendResponse>, Status> {
        let result = self.upsert(Kind::GrpcBackend, request.into_inner().update).await?;
        Ok(Response::new(proto::ApplyGrpcBackendResponse { result }))
    }

    async fn delete_api_route(
        &self,
        request: Request<proto::DeleteApiRouteRequest>,
    ) -> Result<Response<proto::DeleteApiRouteResponse>, Status> {
        let result = self.delete(Kind::ApiRoute, request.into_inner().update).await?;
        Ok(Response::new(proto::DeleteApiRouteResponse { result }))
    }

    async fn delete_grpc_route(
        &self,
        request: Request<proto::DeleteGrpcRouteRequest>,
    ) -> Result<Response<proto::DeleteGrpcRouteResponse>, Status> {
        let result = self.delete(Kind::GrpcRoute, request.into_inner().update).await?;
        Ok(Response::new(proto::DeleteGrpcRouteResponse { result }))
    }

    async fn delete_backend(
        &self,
        request: Request<proto::DeleteBackendRequest>,
    ) -> Result<Response<proto::DeleteBackendResponse>, Status> {
        let result = self.delete(Kind::Backend, request.into_inner().update).await?;
        Ok(Response::new(proto::DeleteBackendResponse { result }))
    }

    async fn delete_grpc_backend(
        &self,
        request: Request<proto::DeleteGrpcBackendRequest>,
    ) -> Result<Response<proto::DeleteGrpcBackendResponse>, Status> {
        let result = self.delete(Kind::GrpcBackend, request.into_inner().update).await?;
        Ok(Response::new(proto::DeleteGrpcBackendResponse { result }))
    }

    async fn get_gateway_status(
        &self,
        request: Request<proto::GetGatewayStatusRequest>,
    ) -> Result<Response<proto::GetGatewayStatusResponse>, Status> {
        self.authorise()?;
        let request = request.into_inner();
        if !request.open_session.is_empty() {
            info!(gateway = %self.gateway.id(), session = request.open_session, "a controller opens a session");
            self.gateway.opened(&request.open_session);
        }
        if let Some(advance) = request.advance {
            let bytes = advance.encoded_len() as u64;
            let proto::VersionUpdate { session_id, config_version, sequence } = advance;
            let update = Update { version: config_version, sequence, change: Change::Nothing };
            self.take(&session_id, update, bytes).await?;
        }
        let view = self.gateway.view();
        let (version, sums) = self.gateway.holds();
        let options = self.gateway.options();
        let listed = if request.list_resources { self.gateway.held() } else { Vec::new() };
        Ok(Response::new(proto::GetGatewayStatusResponse {
            gateway: Some(self.gateway.info()),
            last_config_version: version.to_string(),
            session_id: view.link.session,
            namespaces: options.namespaces.clone(),
            resource_types: Vec::new(),
            offer: Some(proto::Offer { batches: self.batches, max_batch_bytes: BATCH as i64 }),
            status: Some(self.gateway.health()),
            total_resources: i32::try_from(view.held.len()).unwrap_or(i32::MAX),
            holds: sums.to_string(),
            resources: listed.iter().map(|(resource, in_force)| held(resource, *in_force)).collect(),
            served: Vec::new(),
        }))
    }

    async fn apply_batch(
        &self,
        request: Request<proto::ApplyBatchRequest>,
    ) -> Result<Response<proto::ApplyBatchResponse>, Status> {
        if !self.batches {
            return Err(Status::unimplemented("this gateway takes one update a call"));
        }
        let proto::ApplyBatchRequest { session_id, updates } = request.into_inner();
        let mut results = Vec::with_capacity(updates.len());
        for update in updates {
            let bytes = update.encoded_len() as u64;
            results.push(self.take(&session_id, from_batch(update), bytes).await?);
        }
        Ok(Response::new(proto::ApplyBatchResponse { results }))
    }
}

/// An update as on a stream, but that a session's sequences never go back.
fn from_batch(message: ConfigurationUpdate) -> Update {
    let update = Update::from(message);
    match update.change {
        Change::FullSync(None) => Update { change: Change::Nothing, ..update },
        _ => update,
    }
}
