//! Flags of `flotilla standalone` and `flotilla apiserver`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Flags of the embedded API server.
#[derive(Debug, Clone, clap::Args)]
pub struct ApiServerArgs {
    /// Address of the API server; port 0 chooses a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// File that the kubeconfig of an administrator is written to
    #[arg(long, value_name = "FILE")]
    pub kubeconfig_out: Option<PathBuf>,
}

/// Flags of a control plane in one process.
#[derive(Debug, Clone, clap::Args)]
pub struct StandaloneArgs {
    #[command(flatten)]
    pub apiserver: ApiServerArgs,
    /// Replicas to run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    pub replicas: u32,
    /// Reference gateways to run
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub gateways: u32,
    /// Port for gateways of the first replica; others count up. 0 chooses free ones
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub grpc_port: u16,
}
