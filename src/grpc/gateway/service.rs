//! `avapigw.operator.v1alpha1.ConfigurationService`: who may call, and what
//! their calls mean to delivery.
//!
//! Gateways are recognised by their certificates; what they say of themselves
//! must agree with it. Sessions are named after the replica that granted them,
//! but any replica takes any of them: a gateway may end up elsewhere for its
//! acknowledgements, and no call of a gateway whose identity is right fails for
//! its session.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use flotilla_certs::{IdentityError, Role};
use flotilla_core::compile::Compiler;
use flotilla_core::delivery::{Delivery, Scope, Snapshot};
use flotilla_core::digest::HOLDS;
use flotilla_core::ids::{GatewayId, Kind, MemberName, SessionId};
use flotilla_core::object::Resource;
use flotilla_core::policy::Asking;
use flotilla_core::version::{Exclusions, Version, scope_hash};
use flotilla_proto::operator::configuration_service_server::{self, ConfigurationServiceServer};
use flotilla_proto::operator::{
    AcknowledgeConfigurationRequest, AcknowledgeConfigurationResponse, ConfigurationSnapshot,
    ConfigurationUpdate, GatewayInfo, GetConfigurationRequest, HeartbeatRequest, HeartbeatResponse,
    RegisterGatewayRequest, RegisterGatewayResponse, ResourceType, StreamConfigurationRequest,
};
use futures::future::BoxFuture;
use http::Response;
use hyper::body::Incoming;
use prost_types::Timestamp;
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;
use tower::Service;
use tracing::{info, warn};

use super::ack::{self, Acknowledgement};
use super::handle::{Contact, Control};
use super::{DeliveryHandle, body, encode};
use crate::acceptor::Peer;

/// Largest request. Gateways send a few hundred bytes.
pub(super) const REQUEST_LIMIT: usize = 4 * 1024 * 1024;

/// Largest answer: a snapshot for tools may be larger than what gateways take.
const ANSWER_LIMIT: usize = 256 * 1024 * 1024;

/// How long a call may wait for the delivery task. A gateway applies nothing
/// while its acknowledgement is unanswered, so this bounds what we cost it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Namespaces that a gateway may name.
const NAMESPACES: usize = 10_000;

/// Bytes of a gateway's labels that are kept while it is connected.
const LABELS: usize = 16 * 1024;

/// How much of a gateway's words is kept.
const WORDS: usize = 1024;

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct GatewayServiceConfig {
    /// This replica: sessions are named after it.
    pub member: MemberName,
    /// The cluster whose log is delivered, as in the engine's configuration.
    pub cluster: Arc<str>,
    /// Its history, as there.
    pub incarnation: Arc<str>,
    /// The fleet that gateways must belong to.
    pub trust_domain: Arc<str>,
    /// How often gateways are told to heartbeat.
    pub heartbeat_interval: Duration,
    /// Whether gateways without a certificate are believed what they say. Only
    /// of use with an acceptor on which certificates are optional.
    pub anonymous: bool,
}

/// The service; clones share everything.
pub struct GatewayService<C: Compiler> {
    config: Arc<GatewayServiceConfig>,
    delivery: DeliveryHandle<C>,
}

impl<C: Compiler> Clone for GatewayService<C> {
    fn clone(&self) -> Self {
        GatewayService { config: self.config.clone(), delivery: self.delivery.clone() }
    }
}

/// A call came from nobody we know, or from somebody who claims to be another.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("gateway info is required")]
    NoInfo,
    #[error("gateway name and namespace are required, and may have at most 253 characters")]
    NoName,
    #[error("{0}")]
    Other(Status),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoInfo | Refused::NoName => Status::invalid_argument(refused.to_string()),
            Refused::Other(status) => status,
        }
    }
}

impl<C: Compiler + 'static> GatewayService<C> {
    /// A service that feeds this delivery task.
    pub fn new(config: GatewayServiceConfig, delivery: DeliveryHandle<C>) -> Self {
        GatewayService { config: Arc::new(config), delivery }
    }

    /// The service as an [`Acceptor`](crate::acceptor::Acceptor) takes it.
    pub fn into_calls(self) -> GatewayCalls<C> {
        GatewayCalls { routes: Routes::new(self.clone()), service: self }
    }

    /// The gateway that calls, if its certificate confirms what it claims: its namespace and
    /// its name.
    fn authorise(
        &self,
        extensions: &http::Extensions,
        claim: Option<(&str, &str)>,
    ) -> Result<GatewayId, Refused> {
        let peer = Peer::of(extensions).map_err(Refused::Other)?;
        let (namespace, name) = claim.ok_or(Refused::NoInfo)?;
        let sound = |text: &str| !text.is_empty() && text.len() <= 253;
        if !sound(name) || !sound(namespace) {
            return Err(Refused::NoName);
        }
        if let Ok(identity) = &peer.identity
            && identity.role == Role::Gateway
            && identity.trust_domain == self.config.trust_domain
            && (&*identity.namespace, &*identity.name) == (namespace, name)
        {
            return Ok(GatewayId { namespace: identity.namespace.clone(), name: identity.name.clone() });
        }
        self.doubt(peer, GatewayId { namespace: namespace.into(), name: name.into() })
    }

    /// A gateway whose certificate does not simply confirm what it claims.
    fn doubt(&self, peer: &Peer, claimed: GatewayId) -> Result<GatewayId, Refused> {
        if self.config.anonymous && peer.identity == Err(IdentityError::NoCertificate) {
            return Ok(claimed);
        }
        let identity = peer.with_role(Role::Gateway).map_err(Refused::Other)?;
        if identity.trust_domain != self.config.trust_domain {
            return Err(Refused::Other(Status::permission_denied(format!(
                "{identity} is not of trust domain {}",
                self.config.trust_domain
            ))));
        }
        if identity.namespace != claimed.namespace || identity.name != claimed.name {
            warn!(address = %peer.address, %identity, claimed = ?claimed.to_string(), "a gateway claims another's name");
            return Err(Refused::Other(Status::permission_denied(format!(
                "you say you are gateway {claimed}, but your certificate is for gateway {}/{}; \
                 start the gateway with the name and namespace of its certificate",
                identity.namespace, identity.name
            ))));
        }
        Ok(claimed)
    }

    /// What the policy is asked about a gateway.
    fn asking(
        &self,
        extensions: &http::Extensions,
        gateway: GatewayId,
        info: Option<&GatewayInfo>,
        scope: Scope,
    ) -> Result<Asking, Status> {
        let labels = labels(&gateway, info)?;
        let anonymous = Peer::of(extensions)?.identity == Err(IdentityError::NoCertificate);
        Ok(Asking { gateway, labels, anonymous, scope })
    }

    fn new_session(&self) -> SessionId {
        SessionId::from(format!("{}/{}", self.config.member, uuid::Uuid::new_v4()))
    }

    /// Opens a stream: everything but the request's bytes.
    async fn open(
        &self,
        extensions: &http::Extensions,
        request: StreamConfigurationRequest,
    ) -> Result<body::StreamBody, Status> {
        let gateway = self.authorise(extensions, claim(request.gateway.as_ref()))?;
        let scope = scope(&request.namespaces, &request.resource_types)?;
        let asking = self.asking(extensions, gateway, request.gateway.as_ref(), scope)?;
        // A session that another replica granted, or one before our restart,
        // is as good as ours: acknowledgements will name it.
        let session = match request.session_id.as_str() {
            "" => self.new_session(),
            id if is_session(id) => SessionId::from(id),
            _ => return Err(Status::invalid_argument("the session id is none that a controller granted")),
        };
        let connection = Peer::of(extensions)?.connection.clone();
        let (handle, body) = body::stream(connection, self.delivery.gone.clone());
        info!(gateway = %asking.gateway, %session, version = request.last_config_version, "a gateway opens its stream");
        let version = request.last_config_version;
        let connected = Control::Connected { session, asking, version, contact: Contact::Came, handle };
        self.within_patience(self.delivery.told(connected)).await?;
        Ok(body)
    }

    async fn within_patience<T>(
        &self,
        told: impl Future<Output = Result<T, super::DeliveryGone>>,
    ) -> Result<T, Status> {
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(gone)) => Err(Status::unavailable(gone.to_string())),
            Err(_) => Err(Status::unavailable("this replica is overloaded; connect again")),
        }
    }

    /// Takes an acknowledgement; the answer says whether delivery has it before it, not what
    /// it makes of it: the gateway does nothing else meanwhile.
    async fn acknowledged(&self, request: http::Request<Incoming>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let mut read = Acknowledgement::read(body).await?;
        let claim = read.gateway.take();
        let claim = claim.as_ref().map(|claim| (claim.namespace.as_str(), claim.name.as_str()));
        let gateway = self.authorise(&parts.extensions, claim)?;
        let event = Control::Acknowledged { ack: read.from(gateway), forward: true };
        Ok(ack::answer(self.delivery.told_within(PATIENCE, event).await))
    }

    /// The call that tonic does not serve for us, see [`body`].
    async fn stream(&self, request: http::Request<Body>) -> Result<Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        let mut codec = ProstCodec::<ConfigurationUpdate, StreamConfigurationRequest>::default();
        let mut messages = Streaming::new_request(codec.decoder(), body, None, Some(REQUEST_LIMIT));
        let request =
            messages.message().await?.ok_or_else(|| Status::invalid_argument("the request is missing"))?;
        // Read to its end, so that the client's half of the stream is closed in
        // order and not by a reset when the answer is done.
        if messages.message().await?.is_some() {
            return Err(Status::invalid_argument("there is more than one request"));
        }
        Ok(ack::with_body(self.open(&parts.extensions, request).await?))
    }
}

/// The labels that a gateway says it has.
pub(crate) fn labels(
    gateway: &GatewayId,
    info: Option<&GatewayInfo>,
) -> Result<BTreeMap<String, String>, Status> {
    let labels = info.map(|info| &info.labels).into_iter().flatten();
    let labels: BTreeMap<_, _> = labels.map(|(name, value)| (name.clone(), value.clone())).collect();
    let size: usize = labels.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > LABELS {
        return Err(Status::invalid_argument(format!(
            "the labels of gateway {gateway} have {size} bytes; send at most {LABELS}"
        )));
    }
    Ok(labels)
}

/// All calls of gateways: acknowledgements by a way of their own, the rest by their routes.
pub struct GatewayCalls<C: Compiler> {
    service: GatewayService<C>,
    routes: Routes,
}

impl<C: Compiler> GatewayCalls<C> {
    /// Serves another service on the same port.
    pub fn and<S>(self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        GatewayCalls { routes: self.routes.add_service(service), ..self }
    }
}

impl<C: Compiler> Clone for GatewayCalls<C> {
    fn clone(&self) -> Self {
        GatewayCalls { service: self.service.clone(), routes: self.routes.clone() }
    }
}

impl<C: Compiler + 'static> Service<http::Request<Incoming>> for GatewayCalls<C> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Incoming>) -> Self::Future {
        if request.uri().path() != ack::PATH {
            return Box::pin(self.routes.call(request));
        }
        let service = self.service.clone();
        Box::pin(async move { Ok(service.acknowledged(request).await.unwrap_or_else(Status::into_http)) })
    }
}

/// What a gateway asked for.
pub(crate) fn scope(namespaces: &[String], resource_types: &[i32]) -> Result<Scope, Status> {
    let kinds: BTreeSet<_> = resource_types
        .iter()
        .filter_map(|number| ResourceType::try_from(*number).ok().and_then(encode::kind_of))
        .collect();
    // An empty set would mean everything.
    if kinds.is_empty() && !resource_types.is_empty() {
        return Err(Status::invalid_argument("none of the resource types asked for is delivered here"));
    }
    if namespaces.len() > NAMESPACES {
        return Err(Status::invalid_argument(format!(
            "{} namespaces are asked for; name at most {NAMESPACES}, or how names begin with a '*' behind",
            namespaces.len()
        )));
    }
    Ok(Scope::new(namespaces.iter().map(|name| name.as_str().into()), kinds))
}

/// What a gateway says it is: namespace and name.
fn claim(info: Option<&GatewayInfo>) -> Option<(&str, &str)> {
    info.map(|info| (info.namespace.as_str(), info.name.as_str()))
}

/// Where a scope's gateways are to be now.
fn version<C: Compiler>(
    (cluster, incarnation): (Arc<str>, Arc<str>),
    scope: &Scope,
    engine: &Delivery<C>,
) -> Version {
    let frontier = engine.frontier();
    Version {
        cluster,
        incarnation,
        scope: scope_hash(scope),
        low: frontier,
        high: frontier,
        step: 0,
        excluded: Exclusions::none(),
    }
}

/// What a scope's gateways are to hold now.
fn content<C: Compiler>(scope: &Scope, engine: &Delivery<C>) -> Snapshot {
    let mut resources: Vec<Arc<Resource>> = Kind::ALL
        .into_iter()
        .flat_map(|kind| engine.objects(kind))
        .filter(|object| scope.includes(object.kind, &object.key) && !object.deleting)
        .filter_map(|object| engine.content_of(object.kind, &object.key)?.outcome.as_ref().ok().cloned())
        .collect();
    resources.sort_by(|a, b| (a.kind, a.rank, &a.key).cmp(&(b.kind, b.rank, &b.key)));
    Snapshot { resources, padding: Vec::new() }
}

/// Whether a text can be a session's id; what cannot must not reach a log.
fn is_session(id: &str) -> bool {
    id.len() <= 512 && id.chars().all(|character| character.is_ascii_graphic())
}

/// A session that a gateway names in passing; an impossible one is like none.
pub(super) fn named_session(id: &str) -> SessionId {
    SessionId::from(if is_session(id) { id } else { "" })
}

fn now() -> Option<Timestamp> {
    Some(Timestamp::from(SystemTime::now()))
}

/// Cuts a gateway's words, at a character's border.
pub(crate) fn shorten(mut words: String) -> String {
    if words.len() > WORDS {
        let mut at = WORDS;
        while !words.is_char_boundary(at) {
            at -= 1;
        }
        words.truncate(at);
        words.push('…');
    }
    words
}

#[tonic::async_trait]
impl<C: Compiler + 'static> configuration_service_server::ConfigurationService for GatewayService<C> {
    /// Never used: `GatewayService::stream` serves this call.
    type StreamConfigurationStream = futures::stream::Empty<Result<ConfigurationUpdate, Status>>;

    async fn register_gateway(
        &self,
        request: Request<RegisterGatewayRequest>,
    ) -> Result<tonic::Response<RegisterGatewayResponse>, Status> {
        let gateway = match self.authorise(request.extensions(), claim(request.get_ref().gateway.as_ref())) {
            Ok(gateway) => gateway,
            // The published operator answers these in the message.
            Err(refused @ (Refused::NoInfo | Refused::NoName)) => {
                return Ok(tonic::Response::new(RegisterGatewayResponse {
                    success: false,
                    error_message: refused.to_string(),
                    ..RegisterGatewayResponse::default()
                }));
            }
            Err(Refused::Other(status)) => return Err(status),
        };
        let session = self.new_session();
        let info = request.into_inner().gateway.unwrap_or_default();
        info!(%gateway, %session, version = info.version, pod = info.pod_name, "a gateway registers");
        self.within_patience(self.delivery.told(Control::Registered(session.clone(), gateway))).await?;
        Ok(tonic::Response::new(RegisterGatewayResponse {
            success: true,
            session_id: session.to_string(),
            heartbeat_interval: self.config.heartbeat_interval.try_into().ok(),
            ..RegisterGatewayResponse::default()
        }))
    }

    async fn stream_configuration(
        &self,
        _request: Request<StreamConfigurationRequest>,
    ) -> Result<tonic::Response<Self::StreamConfigurationStream>, Status> {
        Err(Status::internal("this call is served elsewhere"))
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<tonic::Response<ConfigurationSnapshot>, Status> {
        let gateway = self.authorise(request.extensions(), claim(request.get_ref().gateway.as_ref()))?;
        let asked = scope(&request.get_ref().namespaces, &request.get_ref().resource_types)?;
        let info = request.get_ref().gateway.as_ref();
        let scope = self.delivery.grant(&self.asking(request.extensions(), gateway, info, asked)?);
        let at = Timestamp::from(SystemTime::now());
        let log = (self.config.cluster.clone(), self.config.incarnation.clone());
        let answer = self.delivery.inspect(move |engine| {
            engine.store().ready().then(|| (version(log, &scope, engine), content(&scope, engine)))
        });
        match self.within_patience(answer).await? {
            Some((version, content)) => {
                Ok(tonic::Response::new(encode::snapshot(&content, &version.to_string(), at)))
            }
            None => Err(Status::unavailable("this replica has not read everything yet; ask again")),
        }
    }

    async fn heartbeat(
        &self,
        request: Request<HeartbeatRequest>,
    ) -> Result<tonic::Response<HeartbeatResponse>, Status> {
        let gateway = self.authorise(request.extensions(), claim(request.get_ref().gateway.as_ref()))?;
        let request = request.into_inner();
        // Published gateways offer none, and nothing is expected of them.
        let offered = request.gateway.as_ref().and_then(|info| info.annotations.get(HOLDS));
        let event = Control::Heartbeat {
            session: named_session(&request.session_id),
            gateway,
            version: request.last_applied_version,
            sums: offered.and_then(|text| text.parse().ok()).map(Box::new),
            forward: true,
        };
        // A heartbeat that finds no room is one of many; three missed count.
        let _ = self.within_patience(self.delivery.told(event)).await;
        Ok(tonic::Response::new(HeartbeatResponse {
            acknowledged: true,
            server_time: now(),
            should_reconnect: false,
            message: String::new(),
        }))
    }

    /// Never used: `GatewayService::acknowledged` serves this call.
    async fn acknowledge_configuration(
        &self,
        _request: Request<AcknowledgeConfigurationRequest>,
    ) -> Result<tonic::Response<AcknowledgeConfigurationResponse>, Status> {
        Err(Status::internal("this call is served elsewhere"))
    }
}

impl<C: Compiler> NamedService for GatewayService<C> {
    const NAME: &'static str = configuration_service_server::SERVICE_NAME;
}

impl<C: Compiler + 'static> Service<http::Request<Body>> for GatewayService<C> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        if request.uri().path().ends_with("/StreamConfiguration") {
            return Box::pin(async move {
                Ok(service.stream(request).await.unwrap_or_else(|status| {
                    info!(%status, "a stream is refused");
                    status.into_http()
                }))
            });
        }
        let mut server = ConfigurationServiceServer::new(service)
            .max_decoding_message_size(REQUEST_LIMIT)
            .max_encoding_message_size(ANSWER_LIMIT);
        Box::pin(async move { server.call(request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_nothing_that_we_deliver_is_not_asking_for_everything() {
        assert_eq!(scope(&[], &[]).unwrap(), Scope::default());
        assert!(scope(&[], &[ResourceType::GraphqlRoute.into()]).is_err());
        assert!(scope(&[], &[42]).is_err());
        let some = scope(&["a".to_owned()], &[ResourceType::Backend.into(), 42]).unwrap();
        assert_eq!(some.kinds, [Kind::Backend].into());
        assert_eq!(some.namespaces, ["a".into()].into());
    }

    #[test]
    fn long_words_are_cut_between_characters() {
        assert_eq!(shorten("short".to_owned()), "short");
        let long = shorten("ä".repeat(1000));
        assert!(long.len() <= WORDS + '…'.len_utf8() && long.ends_with("ä…"));
    }
}
