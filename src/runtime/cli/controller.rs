//! Flags of `flotilla controller`. Names, defaults and variables are those of
//! A-140 where they apply.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use flotilla_grpc::push::Target;
use flotilla_k8s::endpoints::ServicePort;

use super::{PublishedArgs, VaultArgs};
use crate::environment::{duration, period, share, truth};

/// Where certificates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CertProvider {
    /// A CA of our own, kept in a Secret and shared by all replicas
    Selfsigned,
    /// The PKI engine of a Vault or OpenBao
    Vault,
    /// Files that somebody else keeps up to date
    Files,
}

/// What becomes of a destination that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WebhookReferences {
    /// It is admitted with a warning
    Warn,
    /// It is refused
    Deny,
}

/// Flags of one replica.
#[derive(Debug, Clone, clap::Args)]
pub struct ControllerArgs {
    /// Kubeconfig file. Default: KUBECONFIG, ~/.kube/config, then the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of this replica: stable over restarts, unique in the fleet. Default: host name
    #[arg(long, value_name = "NAME", alias = "pod-name")]
    pub member_name: Option<String>,
    /// Namespace of this replica: its Leases and the CA's Secret are there
    #[arg(long, value_name = "NAMESPACE", default_value = "avapigw-system")]
    pub cert_namespace: String,

    /// Address of /metrics
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    pub metrics_bind_address: SocketAddr,
    /// Address of /healthz and /readyz
    #[arg(long, value_name = "ADDRESS", default_value = ":8081", value_parser = address)]
    pub health_probe_bind_address: SocketAddr,
    /// Port for gateways
    #[arg(long, value_name = "PORT", default_value_t = 9444)]
    pub grpc_port: u16,
    /// Port for other replicas
    #[arg(long, value_name = "PORT", default_value_t = 9445)]
    pub peer_port: u16,
    /// Port for admission webhooks
    #[arg(long, value_name = "PORT", default_value_t = 9443)]
    pub webhook_port: u16,
    /// Address that the gRPC ports and the one for webhooks listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// HOST:PORT under which other replicas reach this one. Default: POD_IP (or --bind-address) and the peer port
    #[arg(long, value_name = "HOST:PORT")]
    pub peer_advertise_address: Option<String>,
    /// IP of this pod, for the advertised address and the certificate
    #[arg(long, value_name = "IP")]
    pub pod_ip: Option<IpAddr>,

    /// Where certificates come from
    #[arg(long, value_enum, default_value = "selfsigned")]
    pub cert_provider: CertProvider,
    /// Secret with the self-signed CA
    #[arg(long, value_name = "NAME", default_value = "flotilla-ca")]
    pub ca_secret: String,
    /// With --cert-provider selfsigned: how long a CA lasts; the next one is announced at two thirds of it
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = period)]
    pub ca_lifetime: Duration,
    /// With --cert-provider selfsigned: how long the next CA is trusted before it signs, a sixth of
    /// --ca-lifetime at most. Gateways have to get its ca.crt in this time
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = period)]
    pub ca_overlap: Duration,
    /// With --cert-provider selfsigned: how long a replica's own certificate lasts
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = period)]
    pub cert_lifetime: Duration,
    /// Service names that gateways use to reach the replicas: put into the server certificate
    #[arg(long, value_name = "NAME", default_value = "flotilla")]
    pub cert_service_name: String,
    /// More DNS names for the server certificate, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = clap::ArgAction::Set)]
    pub cert_dns_names: Vec<String>,
    /// With --cert-provider files: folder with ca.crt, tls.crt and tls.key. The certificate must have this
    /// replica's identity, spiffe://TRUST_DOMAIN/ns/CERT_NAMESPACE/controller/MEMBER_NAME, and the DNS names by
    /// which it is reached
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// First part of the identities in certificates: spiffe://TRUST_DOMAIN/ns/…
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,

    #[command(flatten)]
    pub vault: VaultArgs,

    /// File that says which gateways may have which namespaces and kinds; read again when it changes.
    /// Default: every gateway gets what it asks for
    #[arg(long, value_name = "FILE")]
    pub gateway_policy: Option<PathBuf>,
    /// Gateways need a client certificate (true, false). With false, which is for a time of migration, those
    /// that show none are believed who they say they are, and get nothing but what a rule of --gateway-policy
    /// gives them
    #[arg(long, value_name = "BOOL", default_value = "true", alias = "grpc-require-client-cert", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub require_client_certificate: bool,

    /// Gateways that listen and are to be dialled, separated by commas: NAMESPACE/NAME=HOST:PORT, the name
    /// being that of their certificate
    #[arg(long, value_name = "GATEWAYS", value_delimiter = ',', action = clap::ArgAction::Set)]
    pub push_gateways: Vec<Target>,
    /// DNS names of gateways that listen, separated by commas: HOST:PORT. Every address that a name has is
    /// dialled; looked up every 10 s
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', value_parser = dns_name, action = clap::ArgAction::Set)]
    pub push_gateway_dns: Vec<String>,
    /// Services whose endpoints are gateways that listen, separated by commas: NAMESPACE/NAME or
    /// NAMESPACE/NAME:PORT with the name or number of the endpoints' port. Endpoints that are not ready count
    #[arg(long, value_name = "SERVICES", value_delimiter = ',', action = clap::ArgAction::Set)]
    pub push_gateway_services: Vec<ServicePort>,
    /// How long a call of a gateway that listens may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = period)]
    pub push_call_timeout: Duration,

    /// How long a replica may be silent before its namespaces go to others
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub member_lease_duration: Duration,
    /// How often a replica renews its Lease
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub member_lease_renew: Duration,
    /// How long the place of a replica that is gone is kept for it: others act in
    /// its namespaces meanwhile and give them back; 0s: not at all
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub member_return_patience: Duration,
    /// How long the leader may be silent before another takes over
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub leader_lease_duration: Duration,
    /// How often the leader renews its Lease
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub leader_lease_renew: Duration,

    /// Share of a gateway's time that applying changes may take, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    pub gateway_duty_cycle: f64,
    /// Batches per second and gateway
    #[arg(long, value_name = "N", default_value = "50")]
    pub gateway_batch_rate: NonZeroU32,
    /// Bytes per second that this replica sends to all gateways together
    #[arg(long, value_name = "N", default_value = "250000000")]
    pub delivery_byte_rate: NonZeroU32,
    /// Full synchronisations in flight
    #[arg(long, value_name = "N", default_value = "16")]
    pub concurrent_full_syncs: NonZeroUsize,
    /// Heartbeat interval told to gateways; three missed end a session
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = period)]
    pub heartbeat_interval: Duration,
    /// How long a gateway may take to acknowledge a batch
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = period)]
    pub ack_timeout: Duration,
    /// Hold routes and backends by a finalizer, so that a deletion is over when gateways have let them go
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub finalizers: bool,
    /// How long an object that is being deleted is held back for connected gateways that do not confirm it
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = period)]
    pub deletion_timeout: Duration,
    /// Status patches in flight
    #[arg(long, value_name = "N", default_value = "8")]
    pub status_concurrency: NonZeroUsize,
    /// Status patches per second
    #[arg(long, value_name = "N", default_value = "100")]
    pub status_rate: NonZeroU32,
    /// Status patches per second, of all replicas together, that only refresh counts after gateways came or
    /// went
    #[arg(long, value_name = "N", default_value = "10")]
    pub status_refresh_rate: NonZeroU32,
    /// Time over which streams are ended when this replica is told to end. With --webhook-configuration it
    /// goes on for 3 s at least, because API servers still ask it
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub drain_spread: Duration,
    /// Serve gateways (true, false)
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_grpc_server: bool,
    /// Serve admission webhooks (true, false)
    #[arg(long, value_name = "BOOL", default_value = "true", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_webhooks: bool,
    /// Routes of all namespaces may be duplicates of each other, not only those of one (true, false)
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_cluster_wide_duplicate_check: bool,
    /// ValidatingWebhookConfiguration into which the leader writes the CA bundle. Default: none
    #[arg(long, value_name = "NAME", alias = "webhook-config-name")]
    pub webhook_configuration: Option<String>,
    /// What webhooks do about a route or Ingress that leads to no Backend or Service that is known
    #[arg(long, value_enum, default_value = "warn")]
    pub webhook_references: WebhookReferences,
    /// Serve Ingresses of our class (true, false)
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_ingress_controller: bool,
    /// The class of Ingresses that are ours
    #[arg(long, value_name = "NAME", default_value = "avapigw")]
    pub ingress_class_name: String,
    /// Ingresses that name no class are ours, too (true, false)
    #[arg(long, value_name = "BOOL", default_value = "false", value_parser = truth, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub ingress_class_is_default: bool,
    /// IP or host name under which gateways are reached: told in the statuses of Ingresses. Default: nothing is told
    #[arg(long, value_name = "ADDRESS", value_parser = load_balancer)]
    pub ingress_lb_address: Option<String>,
    #[command(flatten)]
    pub published: PublishedArgs,
    /// No replica has ever run on this API server: the first map need not wait for one
    #[arg(skip)]
    pub new_cluster: bool,
}

/// Reads `HOST:PORT` or, as Go programs write it, `:PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "use IP:PORT or :PORT".to_owned())
}

/// Reads a DNS name, or an IP, and a port.
fn dns_name(text: &str) -> Result<String, String> {
    let host_and_port = text.rsplit_once(':').filter(|(host, port)| {
        !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    host_and_port.map(|_| text.to_owned()).ok_or_else(|| "use HOST:PORT".to_owned())
}

/// Reads an IP or a DNS name.
fn load_balancer(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inside)
    };
    let right = text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && text.split('.').all(label));
    right.then(|| text.to_owned()).ok_or_else(|| "use an IP address or a DNS name in lower case".to_owned())
}
