//! How long nobody acted on a namespace that this replica has gained: the gap of
//! acting.

use std::sync::Arc;
use std::time::Duration;

use flotilla_core::ids::MemberName;
use flotilla_k8s::coordination::OwnershipView;

/// Remembers who owned what before.
pub(super) struct Gaps {
    member: MemberName,
    /// The last map by which this replica acted, or, if it was given up since or never
    /// acted, the last one that says who acts in its place. Before that the first one that it
    /// saw: a former process of its name may be in there.
    before: Option<Arc<OwnershipView>>,
}

/// Two maps, and what went from others to this process between them.
pub(super) struct Gained {
    member: MemberName,
    before: Arc<OwnershipView>,
    now: Arc<OwnershipView>,
}

impl Gaps {
    pub fn new(member: MemberName) -> Self {
        Gaps { member, before: None }
    }

    /// A new view; `Some` when this replica has just begun to act by its map.
    pub fn gained(&mut self, view: &Arc<OwnershipView>) -> Option<Gained> {
        view.map()?;
        if !view.taken_over() {
            if view.instance(&self.member).is_none() {
                self.before = Some(view.clone());
            }
            self.before.get_or_insert_with(|| view.clone());
            return None;
        }
        let before = self.before.replace(view.clone())?;
        Some(Gained { member: self.member.clone(), before, now: view.clone() })
    }
}

impl Gained {
    /// How long nobody acted on this namespace, as far as known; `None` when it
    /// is not gained.
    pub fn gap(&self, namespace: &str) -> Option<Duration> {
        if self.now.owner(namespace) != Some(&self.member) {
            return None;
        }
        let owner = self.before.owner(namespace)?;
        // The same name may stand for another process.
        if owner == &self.member && self.before.instance(owner) == self.now.instance(owner) {
            return None;
        }
        self.now.idle(owner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use flotilla_core::ids::Epoch;
    use flotilla_core::shardmap::{MapMember, Ownership, PublishedMap, Share};

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A map of these processes, and how many milliseconds ago who last had the right to act.
    fn view(epoch: u64, instances: &[&str], taken_over: bool, idle: &[(&str, u32)]) -> Arc<OwnershipView> {
        let member = |instance: &&str| MapMember {
            name: instance.split('/').next().unwrap().into(),
            instance: (*instance).into(),
            address: "host:1".into(),
            drained: false,
            share: Share::default(),
        };
        let map = PublishedMap {
            epoch: Epoch(epoch),
            leader: "b".into(),
            members: instances.iter().map(member).collect(),
            pins: BTreeMap::new(),
            virtual_nodes: 64,
            away: BTreeSet::new(),
            exceptions: BTreeMap::new(),
        };
        let idle = idle.iter().map(|(member, ms)| ((*member).into(), MILLISECOND * *ms)).collect();
        let ownership = Some(Arc::new(Ownership::new(map)));
        Arc::new(OwnershipView::new(ownership, false, epoch, taken_over, idle))
    }

    /// What a namespace that is `a`'s whenever it is listed has cost.
    fn gap(gaps: &mut Gaps, view: &Arc<OwnershipView>) -> Option<Duration> {
        let listed = self::view(0, &["a/1", "b/1"], true, &[]);
        let names = (0..100).map(|number| format!("team-{number}"));
        let own = names.clone().find(|name| listed.owner(name) == Some(&"a".into())).unwrap();
        gaps.gained(view)?.gap(&own)
    }

    #[test]
    fn whoever_acted_in_place_of_one_that_stood_still_is_the_last_owner() {
        let mut gaps = Gaps::new("a".into());
        assert_eq!(gap(&mut gaps, &view(1, &["a/1", "b/1"], true, &[])), None);
        // It stands still, and hears then that it was given up.
        assert_eq!(gap(&mut gaps, &view(1, &["a/1", "b/1"], false, &[])), None);
        assert_eq!(gap(&mut gaps, &view(2, &["b/1"], false, &[("b", 0)])), None);
        let idle = [("a", 30_000), ("b", 7)];
        assert_eq!(gap(&mut gaps, &view(3, &["a/1-2", "b/1"], false, &idle)), None);
        assert_eq!(gap(&mut gaps, &view(3, &["a/1-2", "b/1"], true, &idle)), Some(MILLISECOND * 7));
    }

    #[test]
    fn after_a_restart_the_former_process_is_the_last_owner_unless_it_was_given_up() {
        let idle = [("a", 5_000), ("b", 9)];
        let again = view(3, &["a/2", "b/1"], true, &idle);
        let mut gaps = Gaps::new("a".into());
        assert_eq!(gap(&mut gaps, &view(1, &["a/1", "b/1"], false, &[])), None);
        assert_eq!(gap(&mut gaps, &again), Some(MILLISECOND * 5_000));
        let mut gaps = Gaps::new("a".into());
        assert_eq!(gap(&mut gaps, &view(1, &["a/1", "b/1"], false, &[])), None);
        assert_eq!(gap(&mut gaps, &view(2, &["b/1"], false, &[])), None);
        assert_eq!(gap(&mut gaps, &again), Some(MILLISECOND * 9));
    }
}
