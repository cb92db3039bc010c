//! Which ways are cut. A way is one direction between two ends: what is sent on it
//! meanwhile waits, as TCP sends it again, until the way heals or whoever uses the
//! connection gives it up.

use crate::scenario::End;

#[derive(Debug, Clone, Copy)]
struct Cut {
    from: End,
    to: End,
    until: u64,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Network {
    cuts: Vec<Cut>,
}

impl Network {
    /// Cuts one way until a true time.
    pub fn cut(&mut self, from: End, to: End, until: u64) {
        self.cuts.push(Cut { from, to, until });
    }

    /// Until when a way is cut; 0 when it is not.
    pub fn cut_until(&self, now: u64, from: End, to: End) -> u64 {
        let concerns = |cut: &&Cut| cut.until > now && cut.from == from && cut.to == to;
        self.cuts.iter().filter(concerns).map(|cut| cut.until).max().unwrap_or(0)
    }

    /// Until when a connection is disturbed in either direction; 0 when it is not.
    pub fn disturbed_until(&self, now: u64, one: End, other: End) -> u64 {
        self.cut_until(now, one, other).max(self.cut_until(now, other, one))
    }

    /// Forgets cuts that are over.
    pub fn tidy(&mut self, now: u64) {
        self.cuts.retain(|cut| cut.until > now);
    }

    /// Every way works.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }
}
