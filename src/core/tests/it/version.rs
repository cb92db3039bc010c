//! Versions survive the way to a gateway and back.

use flotilla_core::ids::{Frontier, Kind, Revision};
use flotilla_core::version::{Exclusions, MAX_EXCLUSIONS, Version};
use proptest::prelude::*;

fn frontier() -> impl Strategy<Value = Frontier> {
    // Small and huge numbers alike.
    let revision = (any::<u64>(), 0u32..64).prop_map(|(bits, shift)| Revision(bits >> shift));
    prop::array::uniform4(revision).prop_map(Frontier)
}

fn exclusions() -> impl Strategy<Value = Exclusions> {
    let content = (prop::sample::select(Kind::ALL.to_vec()), any::<u32>());
    prop_oneof![
        4 => prop::collection::btree_set(content, 0..=MAX_EXCLUSIONS).prop_map(Exclusions::Known),
        1 => Just(Exclusions::Unknown),
    ]
}

proptest! {
    #[test]
    fn a_version_reads_back_as_it_was_written(
        cluster in "[0-9a-f]{8}", incarnation in "[0-9a-f]{8}", scope: u32, low in frontier(), more in frontier(), step: u32, excluded in exclusions(),
    ) {
        let high = low.join(&more);
        let (cluster, incarnation) = (cluster.into(), incarnation.into());
        let version = Version { cluster, incarnation, scope, low, high, step, excluded };
        let text = version.to_string();
        prop_assert!(text.len() <= 520, "{} bytes", text.len());
        prop_assert_eq!(text.parse(), Ok(version));
    }

    #[test]
    fn reading_never_fails_otherwise_than_by_an_error(text in "\\PC{0,80}") {
        let _ = text.parse::<Version>();
    }

    #[test]
    fn reading_a_damaged_version_is_an_error_or_another_version(
        text in "f1\\.[0-9a-f]{7,9}\\.[0-9a-f]{7,9}\\.[0-9a-f]{7,9}\\.[0-9a-z_~!,*.-]{0,60}",
    ) {
        if let Ok(version) = text.parse::<Version>() {
            prop_assert_eq!(version.to_string().parse(), Ok(version));
        }
    }
}
