//! Which replica has more gateways than its share, and how many to let go.
//!
//! A gateway is served by the replica it happens to reach. After a restart or
//! a kill that is very uneven. A replica with clearly more than the mean ends a
//! few streams; their gateways connect again, and the load balancer in front
//! decides where. Both a share and a number must be exceeded, so that small
//! fleets and small differences are left alone.

use std::collections::BTreeMap;

use crate::ids::MemberName;

/// Above this share of the mean a replica lets gateways go.
const TOLERATED: f64 = 1.25;
/// Fewer than this above the mean are not worth a reconnect.
const WORTHWHILE: u32 = 2;

/// How many gateways `own` should let go: down to the mean, rounded up. Zero
/// when it has its share or less, or stands alone. Members of the map that
/// serve nobody count with zero.
pub fn excess(own: &MemberName, gateways: &BTreeMap<MemberName, u32>, members: &[MemberName]) -> u32 {
    let of = |member: &MemberName| gateways.get(member).copied().unwrap_or(0);
    let count = u32::try_from(members.len()).unwrap_or(u32::MAX);
    if count < 2 || !members.contains(own) {
        return 0;
    }
    let total: u32 = members.iter().map(of).sum();
    let fair = total.div_ceil(count);
    let mine = of(own);
    let tolerated = f64::from(total) / f64::from(count) * TOLERATED;
    let surplus = mine.saturating_sub(fair);
    if f64::from(mine) > tolerated && surplus >= WORTHWHILE { surplus } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(gateways: &[u32], expected: &[u32]) {
        let members: Vec<MemberName> = (0..gateways.len()).map(|n| format!("m{n}").into()).collect();
        let counts = members.iter().cloned().zip(gateways.iter().copied()).collect();
        let found: Vec<u32> = members.iter().map(|member| excess(member, &counts, &members)).collect();
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
        assert_eq!(excess(&"a".into(), &counts, &["b".into(), "c".into()]), 0);
    }
}
