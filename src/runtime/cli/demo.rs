//! Flags of `flotilla demo`.

use std::path::PathBuf;

use clap::ValueEnum;

/// What a demo prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A live table on a terminal, plain lines otherwise
    Text,
    /// One JSON object at the end
    Json,
}

/// Flags of the demo.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Use this cluster instead of an embedded API server: CRDs and namespaces demo-… are created in it
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Stop after one replica was killed and everything is equal again, instead of going on until Ctrl-C
    #[arg(long)]
    pub once: bool,
    /// What to print
    #[arg(long, value_enum, default_value = "text")]
    pub output: Output,
    /// Replicas, at least two: one is killed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=9))]
    pub replicas: u32,
    /// Gateways
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub gateways: u32,
    /// Namespaces
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub namespaces: u32,
    /// Changes per second
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rate: u32,
}
