//! Which replica has more gateways than its share, and how many to let go.
//!
//! A gateway is served by the replica it happens to reach. After a restart or
//! a kill that is very uneven. A replica with clearly more than the mean ends a
//! few streams; their gateways connect again, and the load balancer in front
//! decides where. Both a share and a number must be exceeded, so that small
//! fleets and small differences are left alone.
//!
//! [`Balancer`] is *watching* until a surplus has shown several times in a row,
//! then *letting go*: it has chosen how many go and over which time. While that
//! runs it chooses no others, and spares those that are one too many by now.
//! What is left of the surplus when it is over came back to where it was, so
//! the next time it waits twice as long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::MemberName;
use crate::time::Mono;

/// How often shares of gateways are to be compared.
pub const EVERY: Duration = Duration::from_secs(10);

/// How many looks in a row must show a surplus.
const AFTER: u32 = 3;

/// A surplus that comes back, because what is in front of the replicas sends
/// gateways to where they were, is tried again ever more rarely: after this
/// many looks at most.
const LONGEST: u32 = 360;

/// The pause between two streams that are ended for balance, and the longest
/// time that all of them may take.
const SPACE: Duration = Duration::from_secs(2);
const ALTOGETHER: Duration = Duration::from_secs(300);

/// Above this share of the mean a replica lets gateways go.
const TOLERATED: f64 = 1.25;
/// Fewer than this above the mean are not worth a reconnect.
const WORTHWHILE: u32 = 2;

/// How far `own` is above the mean, rounded up, and whether that is clearly
/// more than its share. Zero when it has its share or less, or stands alone.
/// Members of the map that serve nobody count with zero.
fn surplus(own: &MemberName, gateways: &BTreeMap<MemberName, u32>, members: &[MemberName]) -> (u32, bool) {
    let of = |member: &MemberName| gateways.get(member).copied().unwrap_or(0);
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    if count < 2 || !members.contains(own) {
        return (0, false);
    }
    let total: u32 = members.iter().map(of).sum();
    let mine = of(own);
    let tolerated = f64::from(total) / f64::from(count) * TOLERATED;
    let surplus = mine.saturating_sub(total.div_ceil(count));
    (surplus, f64::from(mine) > tolerated && surplus >= WORTHWHILE)
}

/// What is to be done about a surplus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: those that were chosen go on leaving.
    Wait,
    /// So many streams are to be ended, spread over a time.
    LetGo {
        /// How many.
        count: u32,
        /// Over which time.
        spread: Duration,
    },
    /// Of those that were chosen, and have not left yet, at most so many leave.
    Spare {
        /// How many.
        but: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many looks in a row have shown a surplus.
    Watching { seen: u32 },
    /// Those that were chosen are leaving.
    LettingGo { until: Mono },
}

/// Decides when gateways are let go. See the module.
#[derive(Debug, Clone)]
pub struct Balancer {
    state: State,
    /// How many looks in a row must show a surplus.
    patience: u32,
}

impl Default for Balancer {
    fn default() -> Self {
        Balancer { state: State::Watching { seen: 0 }, patience: AFTER }
    }
}

impl Balancer {
    /// Looks at the shares; to be called every [`EVERY`]. `gateways` is `None`
    /// while some member's are not known: it only seems to have none.
    pub fn look(
        &mut self,
        now: Mono,
        own: &MemberName,
        gateways: Option<&BTreeMap<MemberName, u32>>,
        members: &[MemberName],
    ) -> Step {
        let Some(gateways) = gateways else {
            self.state = State::Watching { seen: 0 };
            return Step::Spare { but: 0 };
        };
        let (surplus, clear) = surplus(own, gateways, members);
        match self.state {
            State::LettingGo { until } if surplus > 0 && now < until => Step::Spare { but: surplus },
            State::LettingGo { .. } => {
                // Down to the mean, or it was of no use.
                self.patience = if clear { (self.patience * 2).min(LONGEST) } else { AFTER };
                self.state = State::Watching { seen: 0 };
                Step::Spare { but: 0 }
            }
            State::Watching { .. } if !clear => {
                *self = Balancer::default();
                Step::Wait
            }
            State::Watching { seen } if seen + 1 < self.patience => {
                self.state = State::Watching { seen: seen + 1 };
                Step::Wait
            }
            State::Watching { .. } => {
                let spread = (SPACE * surplus).min(ALTOGETHER);
                // The last one leaves at the end of the time, and is seen to be
                // gone a look later.
                self.state = State::LettingGo { until: now + spread + EVERY };
                Step::LetGo { count: surplus, spread }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: usize) -> Vec<MemberName> {
        (0..count).map(|n| format!("m{n}").into()).collect()
    }

    fn counts(gateways: &[u32]) -> BTreeMap<MemberName, u32> {
        members(gateways.len()).into_iter().zip(gateways.iter().copied()).collect()
    }

    fn check(gateways: &[u32], expected: &[u32]) {
        let (members, counts) = (members(gateways.len()), counts(gateways));
        let excess = |member| Some(surplus(member, &counts, &members)).filter(|(_, clear)| *clear);
        let found: Vec<u32> = members.iter().map(|member| excess(member).map_or(0, |(n, _)| n)).collect();
        assert_eq!(found, expected, "{gateways:?}");
    }

    #[test]
    fn only_clear_surpluses_are_let_go() {
        check(&[10, 10, 0], &[3, 3, 0]);
        check(&[7, 7, 6], &[0, 0, 0]);
        check(&[8, 6, 6], &[0, 0, 0]);
        check(&[2, 0, 0], &[0, 0, 0]);
        check(&[100, 80, 60], &[0, 0, 0]);
        check(&[101, 79, 60], &[21, 0, 0]);
        check(&[500], &[0]);
        check(&[0, 0], &[0, 0]);
    }

    #[test]
    fn whoever_is_in_no_map_lets_nobody_go() {
        let counts = BTreeMap::from([("a".into(), 10)]);
        assert_eq!(surplus(&"a".into(), &counts, &["b".into(), "c".into()]), (0, false));
    }

    /// The first member's balancer, and the looks that were taken.
    struct Looks {
        balancer: Balancer,
        now: Mono,
    }

    impl Looks {
        fn new() -> Self {
            Looks { balancer: Balancer::default(), now: Mono::from_origin(EVERY) }
        }

        fn at(&mut self, gateways: &[u32]) -> Step {
            self.now = self.now + EVERY;
            let (members, counts) = (members(gateways.len()), counts(gateways));
            self.balancer.look(self.now, &members[0], Some(&counts), &members)
        }

        /// Looks until something is to be done; how many it took, and what.
        fn until_something(&mut self, gateways: &[u32]) -> (u32, Step) {
            for number in 1..1_000 {
                let step = self.at(gateways);
                if !matches!(step, Step::Wait) {
                    return (number, step);
                }
            }
            panic!("nothing is ever done");
        }
    }

    #[test]
    fn a_surplus_must_last_and_is_let_go_once() {
        let mut looks = Looks::new();
        assert_eq!([looks.at(&[90, 0, 0]), looks.at(&[90, 0, 0])], [Step::Wait; 2]);
        assert_eq!(looks.at(&[30, 30, 30]), Step::Wait);
        let (taken, step) = looks.until_something(&[90, 0, 0]);
        assert_eq!((taken, step), (3, Step::LetGo { count: 60, spread: SPACE * 60 }));
        // They leave one after the other: no others are chosen meanwhile.
        for left in [85, 80, 75, 60, 50, 40, 35] {
            assert_eq!(looks.at(&[left, 90 - left, 0]), Step::Spare { but: left - 30 });
        }
        assert_eq!(looks.at(&[30, 30, 30]), Step::Spare { but: 0 });
        assert_eq!(looks.at(&[30, 30, 30]), Step::Wait);
    }

    #[test]
    fn those_that_are_not_too_many_any_more_are_spared() {
        let mut looks = Looks::new();
        assert_eq!(looks.until_something(&[900, 0, 0]).1, Step::LetGo { count: 600, spread: ALTOGETHER });
        // A member leaves: the share is larger.
        assert_eq!(looks.at(&[890, 10]), Step::Spare { but: 440 });
        assert_eq!(looks.at(&[880]), Step::Spare { but: 0 });
        // Whoever does not know all shares lets nobody go.
        assert_eq!(looks.until_something(&[900, 0, 0]).0, 3);
        assert_eq!(looks.balancer.look(looks.now, &"m0".into(), None, &members(3)), Step::Spare { but: 0 });
        assert_eq!(looks.until_something(&[900, 0, 0]).0, 3);
    }

    #[test]
    fn a_surplus_that_comes_back_is_tried_ever_more_rarely() {
        let mut looks = Looks::new();
        let mut waited = Vec::new();
        for _ in 0..9 {
            let (taken, step) = looks.until_something(&[30, 0, 0]);
            assert_eq!(step, Step::LetGo { count: 20, spread: SPACE * 20 });
            waited.push(taken);
            while looks.at(&[30, 0, 0]) == (Step::Spare { but: 20 }) {}
        }
        assert_eq!(waited, [3, 6, 12, 24, 48, 96, 192, 360, 360]);
        looks.at(&[10, 10, 10]);
        assert_eq!(looks.until_something(&[30, 0, 0]).0, 3);
    }
}
