//! What follows from the flags of a replica.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_certs::Identity;
use flotilla_core::coordination::{BalanceConfig, CoordinationConfig, LeaseTiming};
use flotilla_core::ids::MemberName;
use flotilla_grpc::limits::LimitsConfig;

use crate::cli::ControllerArgs;

/// What follows from the flags.
pub(super) struct Settings {
    pub member: MemberName,
    pub coordination: CoordinationConfig,
    pub limits: LimitsConfig,
}

impl Settings {
    /// The one place where flags become settings.
    pub fn new(args: &ControllerArgs) -> anyhow::Result<Self> {
        let member = match &args.member_name {
            Some(name) => name.clone(),
            None => nix::unistd::gethostname()?.to_string_lossy().to_lowercase(),
        };
        let timing = |duration: Duration, renew| LeaseTiming {
            duration,
            renew,
            margin: LeaseTiming::default().margin.max(duration / 20),
        };
        // It stands in certificates and names a Lease: wrong, it would show only
        // once the API server is there.
        Identity::controller(&args.trust_domain, &args.cert_namespace, &member)
            .context("--trust-domain, --cert-namespace, --member-name")?;
        let unusable = || {
            format!("--member-name {member:?} cannot name a Lease; use lower case letters, digits, - and .")
        };
        anyhow::ensure!(is_object_name(&member), unusable());
        let coordination = CoordinationConfig {
            member_lease: timing(args.member_lease_duration, args.member_lease_renew),
            leader_lease: timing(args.leader_lease_duration, args.leader_lease_renew),
            assume_new_cluster: args.new_cluster,
            balance: BalanceConfig {
                return_patience: args.member_return_patience,
                ..BalanceConfig::default()
            },
            ..CoordinationConfig::default()
        };
        coordination.check().context("--member-lease-…, --leader-lease-…")?;
        let kibibytes = args.delivery_byte_rate.get().div_ceil(1024);
        let kibibytes = NonZeroU32::new(kibibytes).unwrap_or(NonZeroU32::MIN);
        let limits = LimitsConfig {
            batches_per_second: args.gateway_batch_rate,
            batch_burst: args.gateway_batch_rate,
            kibibytes_per_second: kibibytes,
            kibibyte_burst: kibibytes,
        };
        Ok(Settings { member: member.into(), coordination, limits })
    }
}

/// Whether Kubernetes accepts this as an object's name: a DNS subdomain
/// (RFC 1123), with room for what Leases put in front of it.
fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !label.is_empty() && label.bytes().all(legal) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 200 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Args, Command};

    fn settings(member: &str) -> anyhow::Result<Settings> {
        let name = format!("--member-name={member}");
        let words = ["flotilla", "controller", &name];
        let Command::Controller(args) = Args::try_parse_from(words)?.command else {
            panic!("another command")
        };
        Settings::new(&args)
    }

    #[test]
    fn a_member_name_that_no_lease_can_have_is_refused_by_name() {
        assert_eq!(settings("flotilla-0.a").unwrap().member.as_str(), "flotilla-0.a");
        for wrong in ["Flotilla-0", "a_b", "a/b", "", "-a", "a.", "a..b", "ä", &"a".repeat(250)] {
            let error = format!("{:#}", settings(wrong).err().expect(wrong));
            assert!(error.contains("--member-name"), "{wrong}: {error}");
        }
    }
}
