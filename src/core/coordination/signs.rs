//! When each member was last known to have the right to act: for measuring how
//! long nobody acted on a namespace, never for deciding who may.
//!
//! A member that releases says so, and from that moment its right is over. Of
//! one that falls silent the last renewal of its Lease is the last that is known,
//! so a measured gap is at most one renewal longer than the true one.

use std::collections::BTreeMap;

use super::lease::LeaseRecord;
use crate::ids::{Epoch, Instance, MemberName, Revision};
use crate::time::Mono;

/// Of so many members this is kept.
const MAX_MEMBERS: usize = 4096;

#[derive(Debug, Default)]
struct Sign {
    revision: Revision,
    holder: Option<Instance>,
    /// The last renewal by the holder.
    seen: Option<Mono>,
    /// The last renewal by the holder before.
    before: Option<Mono>,
    /// What the holder settled last, and when we heard of it.
    settled: Option<(Epoch, Mono)>,
    /// When the holder was heard to have gone.
    departed: Option<Mono>,
}

/// The last signs of all members, by name.
#[derive(Debug, Default)]
pub(super) struct Signs(BTreeMap<MemberName, Sign>);

impl Signs {
    fn of(&mut self, member: &MemberName) -> Option<&mut Sign> {
        if self.0.len() >= MAX_MEMBERS && !self.0.contains_key(member) {
            return None;
        }
        Some(self.0.entry(member.clone()).or_default())
    }

    /// A member's Lease was seen.
    pub fn lease(&mut self, now: Mono, member: &MemberName, record: &LeaseRecord) {
        let Some(sign) = self.of(member) else { return };
        if record.revision <= sign.revision {
            return;
        }
        sign.revision = record.revision;
        let content = &record.content;
        if content.holder.is_none() {
            sign.departed.get_or_insert(now);
            return;
        }
        if content.holder != sign.holder {
            let before = sign.departed.or(sign.seen);
            *sign = Sign {
                revision: record.revision,
                holder: content.holder.clone(),
                before: before.or(sign.before),
                ..Sign::default()
            };
        }
        sign.seen = Some(now);
        if let Some(epoch) = content.settled {
            sign.settle(now, epoch);
        }
    }

    /// An instance said that it acts by this epoch and nothing else.
    pub fn settled(&mut self, now: Mono, instance: &Instance, epoch: Epoch) {
        if let Some(sign) = self.holder(instance) {
            sign.settle(now, epoch);
        }
    }

    /// An instance said that it acts no more.
    pub fn departed(&mut self, now: Mono, instance: &Instance) {
        if let Some(sign) = self.holder(instance) {
            sign.departed.get_or_insert(now);
        }
    }

    fn holder(&mut self, instance: &Instance) -> Option<&mut Sign> {
        self.0.values_mut().find(|sign| sign.holder.as_ref() == Some(instance))
    }

    /// For every member when it last had the right to act on what `epoch`
    /// takes from it. `own` is asked about the process that held its name
    /// before.
    pub fn last_rights(&self, own: &MemberName, epoch: Epoch) -> BTreeMap<MemberName, Mono> {
        let right = |member: &MemberName, sign: &Sign| {
            if member == own {
                return sign.before;
            }
            let settled = sign.settled.filter(|(settled, _)| *settled >= epoch).map(|(_, at)| at);
            settled.or(sign.departed).or(sign.seen)
        };
        self.0.iter().filter_map(|(member, sign)| Some((member.clone(), right(member, sign)?))).collect()
    }
}

impl Sign {
    fn settle(&mut self, now: Mono, epoch: Epoch) {
        if self.settled.is_none_or(|(known, _)| known < epoch) {
            self.settled = Some((epoch, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::coordination::LeaseContent;

    fn record(revision: u64, holder: Option<&str>, settled: Option<u64>) -> LeaseRecord {
        LeaseRecord {
            uid: Arc::from("u"),
            revision: Revision(revision),
            content: LeaseContent {
                holder: holder.map(Instance::from),
                previous: None,
                duration: Duration::from_secs(5),
                transitions: 0,
                address: Arc::from(""),
                settled: settled.map(Epoch),
                highest: Epoch(0),
            },
        }
    }

    fn at(second: u64) -> Mono {
        Mono(second * 1_000_000_000)
    }

    fn right(signs: &Signs, own: &str, epoch: u64) -> Option<Mono> {
        signs.last_rights(&own.into(), Epoch(epoch)).get(&MemberName::from("a")).copied()
    }

    #[test]
    fn the_silent_have_their_last_renewal_and_the_others_their_word() {
        let mut signs = Signs::default();
        let a = MemberName::from("a");
        signs.lease(at(1), &a, &record(1, Some("a/1"), Some(4)));
        signs.lease(at(2), &a, &record(2, Some("a/1"), Some(4)));
        signs.lease(at(9), &a, &record(2, Some("a/1"), Some(4)));
        assert_eq!(right(&signs, "b", 5), Some(at(2)), "seen again is no renewal");
        signs.settled(at(3), &Instance::from("a/1"), Epoch(5));
        signs.lease(at(4), &a, &record(3, Some("a/1"), Some(5)));
        assert_eq!(right(&signs, "b", 5), Some(at(3)), "it lives on, and acts on less");
        assert_eq!(right(&signs, "b", 6), Some(at(4)));
        signs.departed(at(5), &Instance::from("a/1"));
        signs.lease(at(6), &a, &record(4, None, None));
        assert_eq!(right(&signs, "b", 6), Some(at(5)));
    }

    #[test]
    fn a_process_asks_about_the_one_that_had_its_name_before() {
        let mut signs = Signs::default();
        let a = MemberName::from("a");
        signs.lease(at(1), &a, &record(1, Some("a/1"), None));
        assert_eq!(right(&signs, "a", 1), None, "nobody had it before");
        signs.lease(at(7), &a, &record(2, Some("a/2"), None));
        signs.lease(at(8), &a, &record(3, Some("a/2"), None));
        assert_eq!(right(&signs, "a", 2), Some(at(1)));
        assert_eq!(right(&signs, "b", 2), Some(at(8)));
    }
}
