//! Flags of the small commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::environment::period;

/// Flags of `flotilla crds`.
#[derive(Debug, Clone, clap::Args)]
pub struct CrdsArgs {
    /// Write one file per definition into this folder instead of printing them
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Flags of `flotilla certs`.
#[derive(Debug, Clone, clap::Args)]
pub struct CertsArgs {
    #[command(subcommand)]
    pub command: CertsCommand,
}

/// What to issue.
#[derive(Debug, Clone, Subcommand)]
pub enum CertsCommand {
    /// Issue a certificate for a gateway, signed by the fleet's CA
    Gateway(LeafCertArgs),
    /// Issue a certificate for a tool that asks replicas which gateways they serve (GetGatewayStatus). It may do
    /// nothing else: neither gateways nor replicas take it for one of theirs
    Tool(LeafCertArgs),
    /// Announce the fleet's next CA now instead of at two thirds of the present one's life. Replicas trust it
    /// at once and let it sign after --ca-overlap; no connection ends
    Rotate(RotateArgs),
}

/// Where the fleet's own CA is.
#[derive(Debug, Clone, clap::Args)]
pub struct CaArgs {
    /// Kubeconfig file. Default: KUBECONFIG, ~/.kube/config, then the pod's service account
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the CA's Secret
    #[arg(long, value_name = "NAMESPACE", default_value = "avapigw-system")]
    pub cert_namespace: String,
    /// Secret with the self-signed CA
    #[arg(long, value_name = "NAME", default_value = "flotilla-ca")]
    pub ca_secret: String,
}

/// Flags of `flotilla certs gateway` and `flotilla certs tool`.
#[derive(Debug, Clone, clap::Args)]
pub struct LeafCertArgs {
    /// Namespace of the gateway or tool
    #[arg(long, value_name = "NAMESPACE")]
    pub namespace: String,
    /// Name of the gateway or tool
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Folder for ca.crt, tls.crt and tls.key
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Where the CA is
    #[command(flatten)]
    pub ca: CaArgs,
    /// First part of the identity in the certificate
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,
}

/// Flags of `flotilla certs rotate`.
#[derive(Debug, Clone, clap::Args)]
pub struct RotateArgs {
    /// Where the CA is
    #[command(flatten)]
    pub ca: CaArgs,
    /// How long the next CA lasts
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = period)]
    pub ca_lifetime: Duration,
}
