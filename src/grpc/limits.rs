//! How fast configuration may leave this replica: token buckets by governor,
//! on the core's time, so that a simulation can drive them.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flotilla_core::delivery::Limits;
use flotilla_core::ids::GatewayId;
use flotilla_core::time::Mono;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Bytes are counted in units of this size: governor counts in 32 bits.
const UNIT: u64 = 1024;

/// How often buckets of gateways that are gone are thrown away.
const SWEEP_EVERY: u32 = 4096;

/// Rates of delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Batches per second to one gateway.
    pub batches_per_second: NonZeroU32,
    /// How many batches a gateway that was quiet may get at once.
    pub batch_burst: NonZeroU32,
    /// Kibibytes per second to all gateways of this replica together.
    pub kibibytes_per_second: NonZeroU32,
    /// How many kibibytes may go at once after a quiet time.
    pub kibibyte_burst: NonZeroU32,
}

impl Default for LimitsConfig {
    /// 20 batches per second and gateway, 64 MiB per second and replica.
    fn default() -> Self {
        const fn of(value: u32) -> NonZeroU32 {
            match NonZeroU32::new(value) {
                Some(value) => value,
                None => NonZeroU32::MIN,
            }
        }
        LimitsConfig {
            batches_per_second: of(20),
            batch_burst: of(20),
            kibibytes_per_second: of(64 * 1024),
            kibibyte_burst: of(64 * 1024),
        }
    }
}

/// governor's clock, set to the engine's time before every question.
#[derive(Debug, Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl Clock for SetClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

type Middleware = NoOpMiddleware<Nanos>;

/// [`Limits`] by governor.
pub struct GovernorLimits {
    clock: SetClock,
    batches: RateLimiter<GatewayId, HashMapStateStore<GatewayId>, SetClock, Middleware>,
    bytes: RateLimiter<NotKeyed, InMemoryState, SetClock, Middleware>,
    byte_burst: NonZeroU32,
    /// Gateways that have paid for a batch which the byte limit then held
    /// back; they are not to pay again for it.
    paid: BTreeSet<GatewayId>,
    questions: u32,
}

impl GovernorLimits {
    /// Full buckets.
    pub fn new(config: LimitsConfig) -> Self {
        let clock = SetClock::default();
        let batches = Quota::per_second(config.batches_per_second).allow_burst(config.batch_burst);
        let bytes = Quota::per_second(config.kibibytes_per_second).allow_burst(config.kibibyte_burst);
        GovernorLimits {
            batches: RateLimiter::hashmap_with_clock(batches, clock.clone()),
            bytes: RateLimiter::direct_with_clock(bytes, clock.clone()),
            byte_burst: config.kibibyte_burst,
            clock,
            paid: BTreeSet::new(),
            questions: 0,
        }
    }
}

impl Limits for GovernorLimits {
    fn admit(&mut self, now: Mono, gateway: &GatewayId, bytes: u64) -> Result<(), Mono> {
        self.clock.0.store(now.0, Ordering::Relaxed);
        self.questions = self.questions.wrapping_add(1);
        if self.questions.is_multiple_of(SWEEP_EVERY) {
            self.batches.retain_recent();
            self.paid.clear();
        }
        let later = |at: Nanos| Mono(u64::from(at).max(now.0 + 1));
        if !self.paid.contains(gateway) {
            self.batches.check_key(gateway).map_err(|not| later(not.earliest_possible()))?;
        }
        // A batch larger than the bucket takes all of it: it must go some time.
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let units = NonZeroU32::new(units).unwrap_or(NonZeroU32::MIN).min(self.byte_burst);
        match self.bytes.check_n(units) {
            // The second case cannot be: no more than the burst is asked for.
            Ok(Ok(())) | Err(_) => {
                self.paid.remove(gateway);
                Ok(())
            }
            Ok(Err(not)) => {
                self.paid.insert(gateway.clone());
                Err(later(not.earliest_possible()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(batches: u32, kibibytes: u32) -> GovernorLimits {
        let of = |value| NonZeroU32::new(value).unwrap();
        GovernorLimits::new(LimitsConfig {
            batches_per_second: of(batches),
            batch_burst: of(1),
            kibibytes_per_second: of(kibibytes),
            kibibyte_burst: of(kibibytes),
        })
    }

    fn gateway(name: &str) -> GatewayId {
        GatewayId { namespace: "edge".into(), name: name.into() }
    }

    fn at(millis: u64) -> Mono {
        Mono::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn a_gateway_gets_its_rate_and_is_told_when_to_ask_again() {
        let mut limits = limits(10, 1000);
        assert_eq!(limits.admit(at(50), &gateway("a"), 1), Ok(()));
        assert_eq!(limits.admit(at(50), &gateway("a"), 1), Err(at(150)));
        assert_eq!(limits.admit(at(150), &gateway("a"), 1), Ok(()));
    }

    #[test]
    fn one_gateway_does_not_use_up_anothers_rate() {
        let mut limits = limits(1, 1000);
        assert_eq!(limits.admit(at(0), &gateway("a"), 1), Ok(()));
        assert_eq!(limits.admit(at(0), &gateway("b"), 1), Ok(()));
        assert!(limits.admit(at(0), &gateway("a"), 1).is_err());
    }

    #[test]
    fn bytes_are_shared_and_a_batch_held_back_by_them_pays_once_for_its_gateway() {
        let mut limits = limits(1, 100);
        assert_eq!(limits.admit(at(0), &gateway("a"), 100 * 1024), Ok(()));
        let again = limits.admit(at(0), &gateway("b"), 50 * 1024).unwrap_err();
        assert_eq!(again, at(500));
        assert_eq!(limits.admit(at(500), &gateway("b"), 50 * 1024), Ok(()));
    }

    #[test]
    fn a_batch_larger_than_the_bucket_goes_when_the_bucket_is_full() {
        let mut limits = limits(10, 100);
        assert_eq!(limits.admit(at(0), &gateway("a"), 400 * 1024 * 1024), Ok(()));
        let again = limits.admit(at(200), &gateway("a"), 400 * 1024 * 1024).unwrap_err();
        assert_eq!(again, at(1000));
        assert_eq!(limits.admit(again, &gateway("a"), 400 * 1024 * 1024), Ok(()));
    }
}
