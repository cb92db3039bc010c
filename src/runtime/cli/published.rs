//! Flags of the published operator for which there is no use here. They
//! are taken, so that its command line and its variables go on working, and
//! each that is given is answered by a warning that says what happens instead.

use std::path::PathBuf;
use std::time::Duration;

use crate::environment::{duration, truth};

/// What is taken and has no effect. `None`: not given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Flags of the published operator that are taken and have no effect")]
pub struct PublishedArgs {
    /// Replicas always elect a leader
    #[arg(long, value_name = "BOOL", value_parser = truth, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: Option<bool>,
    /// The leader's Lease is always called flotilla-leader
    #[arg(long, value_name = "NAME")]
    pub leader_election_id: Option<String>,
    /// There is no tracing
    #[arg(long, value_name = "BOOL", value_parser = truth, num_args = 0..=1, default_missing_value = "true")]
    pub enable_tracing: Option<bool>,
    /// There is no tracing
    #[arg(long, value_name = "HOST:PORT")]
    pub otlp_endpoint: Option<String>,
    /// There is no tracing
    #[arg(long, value_name = "SHARE")]
    pub tracing_sampling_rate: Option<f64>,
    /// Duplicates are looked for among all objects as they are, without a cache
    #[arg(long, value_name = "BOOL", value_parser = truth, num_args = 0..=1, default_missing_value = "true")]
    pub duplicate_cache_enabled: Option<bool>,
    /// Duplicates are looked for among all objects as they are, without a cache
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub duplicate_cache_ttl: Option<Duration>,
    /// Webhooks use the replica's own certificate
    #[arg(long, value_name = "DIR")]
    pub webhook_cert_dir: Option<PathBuf>,
}

impl PublishedArgs {
    /// Those that were given, each with what happens instead.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        const ELECTION: &str = "replicas always elect a leader, by a Lease called flotilla-leader; \
            --leader-lease-duration and --leader-lease-renew say how fast";
        const TRACING: &str = "there is no tracing; metrics and logs say what happens";
        const DUPLICATES: &str =
            "duplicates are looked for among all objects as they are, without a cache, when one is written";
        const CERTIFICATE: &str =
            "webhooks use the replica's own certificate; --cert-provider says where that comes from";
        [
            ("leader-elect", self.leader_elect.is_some(), ELECTION),
            ("leader-election-id", self.leader_election_id.is_some(), ELECTION),
            ("enable-tracing", self.enable_tracing.is_some(), TRACING),
            ("otlp-endpoint", self.otlp_endpoint.is_some(), TRACING),
            ("tracing-sampling-rate", self.tracing_sampling_rate.is_some(), TRACING),
            ("duplicate-cache-enabled", self.duplicate_cache_enabled.is_some(), DUPLICATES),
            ("duplicate-cache-ttl", self.duplicate_cache_ttl.is_some(), DUPLICATES),
            ("webhook-cert-dir", self.webhook_cert_dir.is_some(), CERTIFICATE),
        ]
        .into_iter()
        .filter(|(_, given, _)| *given)
        .map(|(flag, _, instead)| (flag, instead))
    }
}
