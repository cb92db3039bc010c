//! Settings of coordination, checked before anything starts.

use std::time::Duration;

use super::balancing::BalanceConfig;
use crate::backoff::BackoffConfig;
use crate::breakage::Breakages;
use crate::ids::{Instance, MemberName};
use std::sync::Arc;

/// No Lease may last longer, and a longer one that someone else wrote counts
/// as this long: a typing error must not block a hand-over for days.
pub const MAX_LEASE_DURATION: Duration = Duration::from_secs(600);

/// Times of one kind of Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTiming {
    /// How long observers wait, after they saw it change last, before they take
    /// the holder for gone. Whole seconds, because Leases count in seconds.
    pub duration: Duration,
    /// How often the holder renews.
    pub renew: Duration,
    /// How much earlier than observers the holder itself stops: it covers
    /// clocks that run at different rates and writes that are on their way.
    pub margin: Duration,
}

impl Default for LeaseTiming {
    fn default() -> Self {
        LeaseTiming {
            duration: Duration::from_secs(5),
            renew: Duration::from_secs(1),
            margin: Duration::from_millis(750),
        }
    }
}

impl LeaseTiming {
    /// How long a renewal is good for, from the moment it was sent.
    pub fn validity(&self) -> Duration {
        self.duration.saturating_sub(self.margin)
    }

    fn check(&self, lease: &'static str) -> Result<(), ConfigError> {
        let LeaseTiming { duration, renew, margin } = *self;
        if duration.is_zero() || duration.subsec_nanos() != 0 || duration > MAX_LEASE_DURATION {
            return Err(ConfigError::Duration { lease, duration, longest: MAX_LEASE_DURATION });
        }
        if margin < duration / 50 {
            return Err(ConfigError::Margin { lease, margin, least: duration / 50 });
        }
        if renew.is_zero() || renew >= self.validity() {
            return Err(ConfigError::Renew { lease, renew, validity: self.validity(), duration, margin });
        }
        Ok(())
    }
}

/// Settings of a [`Coordinator`](super::Coordinator).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinationConfig {
    /// Times of the members' Leases.
    pub member_lease: LeaseTiming,
    /// Times of the leader's Lease.
    pub leader_lease: LeaseTiming,
    /// How long the leader waits for further joins before it publishes one, so
    /// that replicas which start together cost one epoch.
    pub join_debounce: Duration,
    /// Delays after failed requests. While a Lease is held, no delay is longer
    /// than its renewal interval.
    pub backoff: BackoffConfig,
    /// How long the Lease of a member that is gone is kept for people to see.
    pub lease_retention: Duration,
    /// Promise that no replica has ever run on this API server, so that the
    /// first map need not wait until one of whom nothing is known would have
    /// stopped. True for an embedded API server that has just been started.
    pub assume_new_cluster: bool,
    /// What is wrong on purpose: see [`crate::breakage`].
    pub breakage: Breakages,
    /// Times of balancing.
    pub balance: BalanceConfig,
}

impl Default for CoordinationConfig {
    fn default() -> Self {
        CoordinationConfig {
            member_lease: LeaseTiming::default(),
            leader_lease: LeaseTiming::default(),
            join_debounce: Duration::from_millis(200),
            backoff: BackoffConfig::default(),
            lease_retention: Duration::from_secs(600),
            assume_new_cluster: false,
            breakage: Breakages::default(),
            balance: BalanceConfig::default(),
        }
    }
}

impl CoordinationConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that cannot work, with what would.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.member_lease.check("member")?;
        self.leader_lease.check("leader")?;
        if self.join_debounce >= self.member_lease.duration {
            return Err(ConfigError::JoinDebounce {
                debounce: self.join_debounce,
                duration: self.member_lease.duration,
            });
        }
        if self.backoff.first.is_zero() || self.backoff.longest < self.backoff.first {
            return Err(ConfigError::Backoff { first: self.backoff.first, longest: self.backoff.longest });
        }
        Ok(())
    }

    /// How long an answer of the API server is waited for: half of what is left of a renewal
    /// when the next one is sent. An API server that is so slow at everything keeps nobody
    /// from acting, and after a request that hangs there is as much time again. Half a second
    /// at least, five at most.
    pub fn request_timeout(&self) -> Duration {
        let left = |lease: LeaseTiming| lease.validity().saturating_sub(lease.renew);
        let least = left(self.member_lease).min(left(self.leader_lease));
        (least / 2).clamp(Duration::from_millis(500), Duration::from_secs(5))
    }
}

/// Who this replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its stable name: part of its Lease's name.
    pub member: MemberName,
    /// This process: member name, `/`, and something random.
    pub instance: Instance,
    /// Where peers reach it, `host:port`.
    pub address: Arc<str>,
}

impl Identity {
    /// Checks that the names can stand in a Lease.
    ///
    /// # Errors
    /// The part that cannot, and what would do.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = self.member.as_str();
        let alphanumeric =
            |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = name.as_bytes();
        let allowed = |byte: &u8| alphanumeric(Some(byte)) || matches!(byte, b'-' | b'.');
        let edges = alphanumeric(bytes.first()) && alphanumeric(bytes.last());
        if !edges || !bytes.iter().all(allowed) || bytes.len() > 200 || name.contains("..") {
            return Err(ConfigError::MemberName { name: self.member.clone() });
        }
        let random = self.instance.as_str().strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
        if random.is_none_or(|random| random.is_empty() || random.contains(['.', '/'])) {
            return Err(ConfigError::Instance { name: self.member.clone(), instance: self.instance.clone() });
        }
        Ok(())
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The duration is not a number of seconds that Leases can carry.
    #[error(
        "{lease} lease: duration {duration:?} must be whole seconds, at least 1s and at most {longest:?}"
    )]
    Duration {
        /// Which Lease.
        lease: &'static str,
        /// What was set.
        duration: Duration,
        /// The most that is allowed.
        longest: Duration,
    },
    /// The margin does not cover clocks that differ a little.
    #[error(
        "{lease} lease: margin {margin:?} is too short; set at least {least:?}, a fiftieth of the duration"
    )]
    Margin {
        /// Which Lease.
        lease: &'static str,
        /// What was set.
        margin: Duration,
        /// The least that is allowed.
        least: Duration,
    },
    /// Renewals come too late.
    #[error(
        "{lease} lease: renewal interval {renew:?} must be positive and shorter than {validity:?} \
         (duration {duration:?} less margin {margin:?}); a fifth of the duration leaves room for retries"
    )]
    Renew {
        /// Which Lease.
        lease: &'static str,
        /// What was set.
        renew: Duration,
        /// How long a renewal is good for.
        validity: Duration,
        /// The Lease's duration.
        duration: Duration,
        /// The margin.
        margin: Duration,
    },
    /// Joins would be held back too long.
    #[error("join debounce {debounce:?} must be shorter than the member lease's duration {duration:?}")]
    JoinDebounce {
        /// What was set.
        debounce: Duration,
        /// The member Lease's duration.
        duration: Duration,
    },
    /// The delays of retries make no series.
    #[error("retries: first delay {first:?} must be positive and at most the longest, {longest:?}")]
    Backoff {
        /// The first delay.
        first: Duration,
        /// The longest delay.
        longest: Duration,
    },
    /// The name cannot be part of a Lease's name.
    #[error(
        "member name {name:?} cannot be part of a Lease's name: use 1 to 200 lower-case letters, digits, '-' \
         and '.', with a letter or digit at both ends, for example the pod's name"
    )]
    MemberName {
        /// What was set.
        name: MemberName,
    },
    /// The instance does not follow from the name.
    #[error("instance {instance:?} must be {name:?}, '/', and a random part without '.' and '/'")]
    Instance {
        /// The member's name.
        name: MemberName,
        /// What was set.
        instance: Instance,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut CoordinationConfig), expected: Option<&str>) {
        let mut config = CoordinationConfig::default();
        change(&mut config);
        let error = config.check().err().map(|error| error.to_string());
        match expected {
            None => assert_eq!(error, None),
            Some(part) => assert!(error.as_deref().is_some_and(|text| text.contains(part)), "{error:?}"),
        }
    }

    #[test]
    fn after_a_request_that_hangs_there_is_as_much_time_again() {
        let patience = |duration, renew| {
            let mut config = CoordinationConfig::default();
            let times = LeaseTiming { duration, renew, margin: duration / 50 };
            (config.member_lease, config.leader_lease) = (times, times);
            config.request_timeout()
        };
        let ms = Duration::from_millis;
        assert_eq!(CoordinationConfig::default().request_timeout(), ms(1625));
        assert_eq!(patience(ms(5_000), ms(1_900)), ms(1_500));
        assert_eq!(patience(ms(5_000), ms(4_800)), ms(500), "half a second at least");
        assert_eq!(patience(ms(60_000), ms(2_000)), ms(5_000), "five at most");
    }

    #[test]
    fn settings_that_cannot_work_are_named_with_a_remedy() {
        let ms = Duration::from_millis;
        check(|_| {}, None);
        check(
            |config| config.member_lease.renew = ms(4250),
            Some("member lease: renewal interval 4.25s must"),
        );
        check(|config| config.member_lease.renew = ms(4249), None);
        check(
            |config| config.leader_lease.duration = ms(5500),
            Some("leader lease: duration 5.5s must be whole"),
        );
        check(|config| config.leader_lease.duration = ms(0), Some("at least 1s"));
        check(|config| config.member_lease.duration = ms(601_000), Some("at most 600s"));
        check(|config| config.member_lease.margin = ms(99), Some("set at least 100ms"));
        check(|config| config.member_lease.margin = ms(9_000), Some("shorter than 0ns"));
        check(|config| config.join_debounce = ms(5_000), Some("join debounce 5s must be shorter"));
        check(|config| config.backoff.first = ms(3_000), Some("retries: first delay 3s"));
    }

    #[test]
    fn names_that_cannot_stand_in_a_lease_are_refused() {
        let check = |member: &str, instance: &str| {
            let identity =
                Identity { member: member.into(), instance: instance.into(), address: "host:1".into() };
            identity.check().is_ok()
        };
        assert!(check("flotilla-7f9c.a", "flotilla-7f9c.a/0af3"));
        assert!(check("0", "0/1"));
        for member in ["", "Upper", "-a", "a-", "a..b", "a/b", "a_b", &"x".repeat(201)] {
            assert!(!check(member, &format!("{member}/1")), "{member:?}");
        }
        for instance in ["a", "a/", "b/1", "a/1.2", "a/1/2", "1"] {
            assert!(!check("a", instance), "{instance:?}");
        }
    }
}
