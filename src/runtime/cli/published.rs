//! Flags of the published operator for which there is no use here. They
//! are taken, so that its command line and its variables go on working, and
//! each that is given is answered by a warning that says what happens instead.

/// What is taken and has no effect. `None`: not given. Texts, whatever they say:
/// a value that changes nothing must not keep a replica from starting, and Go
/// reads more forms of numbers, durations and truths than are read here.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Flags of the published operator that are taken and have no effect")]
pub struct PublishedArgs {
    /// Replicas always elect a leader
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: Option<String>,
    /// The leader's Lease is always called flotilla-leader
    #[arg(long, value_name = "NAME")]
    pub leader_election_id: Option<String>,
    /// There is no tracing
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub enable_tracing: Option<String>,
    /// There is no tracing
    #[arg(long, value_name = "HOST:PORT")]
    pub otlp_endpoint: Option<String>,
    /// There is no tracing
    #[arg(long, value_name = "SHARE")]
    pub tracing_sampling_rate: Option<String>,
    /// Duplicates are looked for among all objects as they are, without a cache
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub duplicate_cache_enabled: Option<String>,
    /// Duplicates are looked for among all objects as they are, without a cache
    #[arg(long, value_name = "DURATION")]
    pub duplicate_cache_ttl: Option<String>,
    /// Webhooks use the replica's own certificate
    #[arg(long, value_name = "DIR")]
    pub webhook_cert_dir: Option<String>,
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
