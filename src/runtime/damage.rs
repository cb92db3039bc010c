//! For tests: what arrives damaged, some of its bytes changed and perhaps its end lost.

use proptest::prelude::*;
use proptest::sample::Index;

/// What happens to bytes.
#[derive(Debug, Clone)]
pub struct Damage {
    changes: Vec<(Index, u8)>,
    cut: Option<Index>,
}

/// Fewer than so many changes; every second time the end is lost.
pub fn damage(changes: usize) -> impl Strategy<Value = Damage> {
    let changes = prop::collection::vec(any::<(Index, u8)>(), 0..changes);
    let cut = prop::option::weighted(0.5, any::<Index>());
    (changes, cut).prop_map(|(changes, cut)| Damage { changes, cut })
}

impl Damage {
    /// Bytes after it, of some that are not none.
    pub fn of(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for (at, byte) in &self.changes {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        if let Some(cut) = self.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes
    }
}
