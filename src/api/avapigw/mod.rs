//! Custom resources of AVAPIGW gateways (group `avapigw.io`).
//!
//! Each file holds one concept; what several kinds share is defined once. A
//! field that the schema defaults is an `Option` here: nothing means that the
//! API server fills it in. The types are for reading and building objects;
//! delivery works on the bytes that arrived (see [`crate::validation`]).

mod aggregate;
mod api_route;
mod authentication;
mod authorization;
mod backend;
mod backend_authentication;
mod cache;
mod contracts;
mod cors;
mod destination;
mod encoding;
mod fault;
mod go_duration;
mod grpc_backend;
mod grpc_route;
mod grpc_transform;
mod headers;
mod health_check;
mod hosts;
mod kind;
mod limits;
mod matching;
mod redirect;
mod redis;
mod retries;
mod security;
mod status;
mod tls;
mod transform;

pub use aggregate::{Aggregate, AggregateTarget, FailMode, Merge, MergeStrategy, Spool, SpoolRedis};
pub use api_route::{APIRoute, ApiRouteSpec};
pub use authentication::{
    ApiKeyAuthentication, Authentication, CertificateIdentity, ClaimMapping, HashAlgorithm, JwtAlgorithm,
    JwtAuthentication, MtlsAuthentication, OidcAuthentication, OidcProvider, SecretKeyRef,
};
pub use authorization::{
    Abac, AbacPolicy, Authorization, AuthorizationCache, ExternalAuthorization, Opa, PolicyEffect, Rbac,
    RbacPolicy,
};
pub use backend::{Backend, BackendSpec};
pub use backend_authentication::{
    BackendAuthentication, BackendAuthenticationType, BackendBasic, BackendJwt, BackendMtls, BackendOidc,
    TokenSource,
};
pub use cache::{BackendCache, Cache, CacheKey};
pub use contracts::{ConfigMapRef, OpenApiValidation, ProtoValidation};
pub use cors::Cors;
pub use destination::{Destination, Mirror, WeightedDestination};
pub use encoding::{BackendContentEncoding, BackendEncoding, Compression, ContentEncoding, Encoding};
pub use fault::{Fault, FaultAbort, FaultDelay};
pub use go_duration::{DURATION_PATTERN, GoDuration};
pub use grpc_backend::{GRPCBackend, GrpcBackendSpec};
pub use grpc_route::{GRPCRoute, GrpcRouteSpec};
pub use grpc_transform::{FieldMask, GrpcTransform, MetadataTransform};
pub use headers::{HeaderOperations, Headers};
pub use health_check::{GrpcHealthCheck, HealthCheck};
pub use hosts::{CircuitBreaker, ConnectionPool, Host, LoadBalancer, LoadBalancerAlgorithm};
pub use kind::Kind;
pub use limits::{MaxSessions, RateLimit, RequestLimits};
pub use matching::{GrpcMatch, HttpMatch, NamedMatch, QueryParamMatch, StringMatch};
pub use redirect::{DirectResponse, Redirect, RedirectScheme, Rewrite};
pub use redis::{CacheRedis, RateLimitRedis, RedisRetry, RedisSentinel, RedisTls, StoreType};
pub use retries::{GrpcRetries, Retries};
pub use security::{ContentSecurityPolicy, Hsts, Security, SecurityHeaders};
pub use status::{AppliedGateway, BackendStatus, RouteStatus};
pub use tls::{BackendTls, BackendTlsMode, ClientValidation, RouteTls, TlsVersion, VaultCertificate};
pub use transform::{
    ArrayOperation, ArrayOperationType, BackendRequestTransform, BackendResponseTransform, BackendTransform,
    DynamicHeader, FieldGroup, FieldInjection, RequestTransform, ResponseTransform, Transform,
};

/// API group of the gateways' resources.
pub const GROUP: &str = "avapigw.io";
