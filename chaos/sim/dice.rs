//! Random choices that are the same on every machine: ChaCha with 8 rounds, whose
//! output is fixed by its specification, and integer arithmetic only.
//!
//! Every actor of a world has dice of its own, so that leaving out one fault
//! disturbs the choices of the others as little as can be.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};

/// Whose choices a set of dice makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The scenario itself: sizes, weather, the plan.
    Scenario,
    /// The API server.
    Api,
    /// Whom the API server asks about admissions.
    Reviews,
    /// One replica and its connections.
    Replica(usize),
    /// One gateway and its connections.
    Gateway(usize),
    /// What arrives twice.
    Twice,
}

/// A source of random choices.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Dice whose whole sequence follows from the seed and their owner.
    pub fn new(seed: u64, stream: Stream) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(b"flotilla");
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(match stream {
            Stream::Scenario => 0,
            Stream::Api => 1,
            Stream::Reviews => 2,
            Stream::Twice => 3,
            Stream::Replica(slot) => 1 << 20 | slot as u64,
            Stream::Gateway(index) => 1 << 40 | index as u64,
        });
        Dice(rng)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 when there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product: as even as needed, and no division.
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True once in so many times; never when `count` is 0.
    pub fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.below(count) == 0
    }

    /// True in so many of a million cases.
    pub fn ppm(&mut self, share: u32) -> bool {
        share > 0 && self.below(1_000_000) < u64::from(share)
    }

    /// An index below a length.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}
