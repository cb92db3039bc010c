//! The store: lists, watch events, content revisions and what is kept.

use std::time::Duration;

use flotilla_core::delivery::{DeliveryConfig, Notice, Scope};
use flotilla_core::ids::{Kind, Revision};
use flotilla_core::store::Listed;

use super::bench::{Bench, config, key, words_to};

fn plain() -> DeliveryConfig {
    DeliveryConfig { duty_cycle: 1.0, ..config() }
}

#[test]
fn digests_of_namespaces_are_the_same_however_a_replica_came_to_hold_them() {
    let mut bench = Bench::new(plain());
    for n in 0..40 {
        let namespace = ["a", "b", "c"][n % 3];
        bench.route(
            &format!("{namespace}/{}", n % 7),
            &format!("to=b v{n}{}", if n % 5 == 0 { " invalid" } else { "" }),
        );
        match n % 4 {
            0 => bench.backend(&format!("{namespace}/b"), &format!("v{n}")),
            3 if bench.log.live.contains_key(&(Kind::Backend, key(&format!("{namespace}/b")))) => {
                bench.delete(Kind::Backend, &format!("{namespace}/b"));
            }
            _ => {}
        }
    }
    bench.backend("a/b", "last");
    bench.route("a/last", "v1");
    let fresh = Bench::over(plain(), std::mem::take(&mut bench.log));
    assert_eq!(fresh.delivery.digest(&Scope::default()), bench.delivery.digest(&Scope::default()));
    assert_eq!(fresh.delivery.store().digests(), bench.delivery.store().digests());
    assert_eq!(bench.delivery.store().digests().len(), 3);
    bench.log = fresh.log;
    let before = bench.delivery.store().digests().clone();
    bench.route("b/one-more", "v1");
    let after = bench.delivery.store().digests();
    let moved: Vec<_> =
        after.iter().filter(|(name, digest)| before[*name] != **digest).map(|(n, _)| &**n).collect();
    assert_eq!(moved, ["b"]);
}

#[test]
fn only_events_move_what_digests_are_compared_by() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    let before = bench.delivery.store().events();
    bench.log.revision += 10;
    bench.bookmark();
    assert_eq!(bench.delivery.store().events(), before);
    bench.list_all();
    assert_eq!(bench.delivery.store().events(), before, "the list showed nothing else");
    let object = bench.log.status(Kind::ApiRoute, &key("a/r"), "{}");
    bench.delivery.changed(object);
    assert_ne!(bench.delivery.store().events(), before);
}

#[test]
fn a_list_older_than_what_was_seen_is_ignored() {
    let mut bench = Bench::new(plain());
    let old = Revision(bench.log.revision);
    bench.route("a/r", "v1");
    bench.connected("g");
    let verdict = bench.delivery.listed(Kind::ApiRoute, old, Vec::new());
    assert_eq!(verdict, Listed::Stale { seen: Revision(bench.log.revision) });
    assert!(bench.settle().is_empty(), "no deletion came of it");
    assert!(matches!(bench.notices.last(), Some(Notice::StaleList { kind: Kind::ApiRoute, .. })));
    bench.assert_equal("g");
}

#[test]
fn what_a_list_lacks_is_deleted_at_its_revision() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    bench.log.delete(Kind::ApiRoute, &key("a/r"));
    bench.log.revision += 5;
    bench.list_all();
    assert_eq!(words_to("g", &bench.settle()), ["-a/r"]);
    let at = Revision(bench.log.revision);
    let tombstones =
        bench.delivery.store().tombstones(Kind::ApiRoute, Revision(at.0 - 1)).unwrap_or_default();
    assert!(tombstones.is_empty(), "a list leaves a gap before it");
    assert_eq!(bench.delivery.store().tombstone_count(Kind::ApiRoute).0, 1);
}

#[test]
fn what_a_list_shows_is_news_although_its_event_never_came() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    // The API server owes these two events; a later one moves everybody on.
    bench.log.put(Kind::ApiRoute, &key("a/r"), "v2");
    bench.log.put(Kind::ApiRoute, &key("a/s"), "v1");
    bench.route("b/r", "v1");
    bench.settle();
    assert!(bench.holds("g", Kind::ApiRoute, "a/s").is_none(), "nobody can know of it yet");
    bench.log.revision += 1;
    bench.list_all();
    bench.settle();
    bench.assert_equal("g");
}

#[test]
fn old_events_are_ignored() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    let old = bench.log.live[&(Kind::ApiRoute, key("a/r"))].clone();
    bench.route("a/r", "v2");
    bench.delivery.changed(old.clone());
    let now = bench.delivery.object(Kind::ApiRoute, &key("a/r")).unwrap().clone();
    assert_eq!(now.generation, 2);
    bench.delivery.deleted(Kind::ApiRoute, &key("a/r"), old.revision);
    assert!(bench.delivery.object(Kind::ApiRoute, &key("a/r")).is_some());
    bench.delete(Kind::ApiRoute, "a/r");
    bench.delivery.changed(now);
    assert!(bench.delivery.object(Kind::ApiRoute, &key("a/r")).is_none(), "older than its deletion");
}

#[test]
fn the_content_revision_moves_with_the_content_only() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    let content = |bench: &Bench| bench.delivery.content_of(Kind::ApiRoute, &key("a/r")).unwrap().revision;
    let first = content(&bench);
    let frontier = bench.delivery.frontier();
    let object = bench.log.status(Kind::ApiRoute, &key("a/r"), "{\"n\":1}");
    bench.delivery.changed(object.clone());
    assert_eq!(content(&bench), first);
    assert_eq!(bench.delivery.object(Kind::ApiRoute, &key("a/r")), Some(&object), "the status is the newest");
    assert!(bench.delivery.store().changed_since(&frontier).is_empty());
    bench.route("a/r", "v2");
    assert_eq!(content(&bench), Revision(bench.log.revision));
    assert_eq!(bench.delivery.store().changed_since(&frontier), [(Kind::ApiRoute, key("a/r"))]);
}

#[test]
fn invalid_objects_are_news_for_their_status() {
    let mut bench = Bench::new(plain());
    let frontier = bench.delivery.frontier();
    bench.route("a/r", "invalid");
    assert_eq!(bench.delivery.store().changed_since(&frontier), [(Kind::ApiRoute, key("a/r"))]);
    let view = bench.delivery.content_of(Kind::ApiRoute, &key("a/r")).unwrap();
    assert_eq!(view.outcome.as_ref().unwrap_err().to_string(), "spec: it is invalid; fix it");
    let frontier = bench.delivery.frontier();
    bench.route("a/r", "invalid again");
    assert_eq!(bench.delivery.store().changed_since(&frontier).len(), 1);
}

#[test]
fn an_object_created_again_replaces_the_one_before() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.connected("g");
    let frontier = bench.delivery.frontier();
    bench.delete(Kind::ApiRoute, "a/r");
    bench.route("a/r", "v1");
    assert_eq!(words_to("g", &bench.settle()), ["~a/r"]);
    assert_eq!(bench.delivery.footprint().tombstones, 0);
    // History that tells of the deletion changes nothing.
    let until = Revision(bench.log.revision);
    let since = frontier.get(Kind::ApiRoute);
    let found = bench.log.deletions(Kind::ApiRoute, since, until);
    assert_eq!(found.len(), 1);
    bench.delivery.history(Kind::ApiRoute, since, until, found);
    assert!(bench.settle().is_empty());
    bench.assert_equal("g");
}

#[test]
fn peers_get_tombstones_only_when_all_are_known() {
    let mut bench = Bench::new(plain());
    let floor = Revision(bench.log.revision);
    bench.route("a/r", "v1");
    bench.delete(Kind::ApiRoute, "a/r");
    let store = bench.delivery.store();
    assert_eq!(store.tombstones(Kind::ApiRoute, floor).map(|t| t.len()), Some(1));
    assert_eq!(store.tombstones(Kind::ApiRoute, Revision(bench.log.revision)).map(|t| t.len()), Some(0));
    assert_eq!(store.tombstones(Kind::ApiRoute, Revision(floor.0 - 1)), None);
    let unlisted = Bench::unlisted(plain(), super::log::Log::default());
    assert_eq!(unlisted.delivery.store().tombstones(Kind::ApiRoute, Revision(0)), None);
}

#[test]
fn previous_contents_are_kept_only_while_a_gateway_may_hold_them() {
    let mut bench = Bench::new(plain());
    for n in 0..10 {
        bench.route(&format!("a/{n}"), "v1");
    }
    bench.connect("fast");
    bench.connect("slow");
    bench.settle();
    for version in 2..20 {
        for n in 0..10 {
            bench.route(&format!("a/{n}"), &format!("v{version}"));
        }
        for (name, batch, first) in bench.poll() {
            if name == "fast" {
                bench.answer(&name, &batch, first);
            }
        }
    }
    assert_eq!(bench.delivery.footprint().previous, 10, "one per object, however many changes");
    bench.delivery.disconnected(bench.now, &bench.session["slow"].clone());
    bench.pass(Duration::from_secs(2));
    bench.settle();
    bench.route("a/0", "v20");
    bench.settle_for(Duration::from_secs(2));
    bench.route("a/0", "v21");
    bench.settle();
    assert!(bench.delivery.footprint().previous <= 1);
}

#[test]
fn a_status_that_somebody_wrote_is_told_apart_from_a_content() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.route("a/s", "v1");
    let before = bench.delivery.frontier();
    let object = bench.log.status(Kind::ApiRoute, &key("a/r"), "written");
    bench.delivery.changed(object);
    let stated = |bench: &Bench| bench.delivery.store().restated_since(&before);
    assert_eq!(stated(&bench), [(Kind::ApiRoute, key("a/r"))]);
    assert!(bench.delivery.store().changed_since(&before).is_empty());
    // A list shows it as well, as news of the list.
    bench.log.status(Kind::ApiRoute, &key("a/s"), "written");
    bench.list_all();
    assert_eq!(stated(&bench), [(Kind::ApiRoute, key("a/r")), (Kind::ApiRoute, key("a/s"))]);
    assert!(bench.delivery.store().restated_since(&bench.delivery.frontier()).is_empty());
    bench.delete(Kind::ApiRoute, "a/r");
    assert_eq!(stated(&bench), [(Kind::ApiRoute, key("a/s"))]);
}

#[test]
fn a_status_whose_event_was_lost_is_news_as_of_the_list_that_shows_it() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1");
    bench.route("a/s", "v1");
    bench.log.status(Kind::ApiRoute, &key("a/r"), "written");
    bench.route("a/s", "v2");
    // Whoever looks at what is new has looked up to here.
    let before = bench.delivery.frontier();
    let stated = |bench: &Bench| bench.delivery.store().restated_since(&before);
    bench.log.revision += 1;
    bench.list_all();
    assert_eq!(stated(&bench), [(Kind::ApiRoute, key("a/r"))]);
    let object = bench.log.status(Kind::ApiRoute, &key("a/r"), "written again");
    bench.delivery.changed(object);
    assert_eq!(stated(&bench), [(Kind::ApiRoute, key("a/r"))], "once, by its last change");
    assert!(bench.delivery.store().restated_since(&bench.delivery.frontier()).is_empty());
    bench.route("a/r", "v2");
    assert!(stated(&bench).is_empty(), "its content is news now");
}

#[test]
fn what_an_object_needs_moves_with_the_existence_of_what_it_names() {
    let mut bench = Bench::new(plain());
    bench.route("a/r", "v1 to=b");
    let needs = |bench: &Bench| bench.delivery.content_of(Kind::ApiRoute, &key("a/r")).unwrap().needs;
    let before = needs(&bench);
    assert_eq!(before.get(Kind::ApiRoute), Revision(bench.log.revision));
    bench.backend("a/b", "v1");
    let appeared = Revision(bench.log.revision);
    assert_eq!(needs(&bench).get(Kind::Backend), appeared, "the route was compiled anew");
    bench.backend("a/b", "v2");
    assert_eq!(needs(&bench).get(Kind::Backend), appeared, "an edit of the Backend is none of the route's");
    bench.delete(Kind::Backend, "a/b");
    assert_eq!(needs(&bench).get(Kind::Backend), Revision(bench.log.revision));
    assert_eq!(needs(&bench).get(Kind::ApiRoute), before.get(Kind::ApiRoute));
}
