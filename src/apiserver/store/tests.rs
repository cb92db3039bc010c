//! Facts about the store, checked with values.

use super::*;

const THINGS: &str = "things.example.org";

fn now() -> Now {
    Now { wall: jiff::Timestamp::UNIX_EPOCH, mono: Instant::now() }
}

fn store() -> Store {
    let mut store = Store::new(100);
    store.open(&NAMESPACES.into(), Layout { namespaced: false, generation: false });
    store.open(&DEFINITIONS.into(), Layout { namespaced: false, generation: true });
    store.open(&THINGS.into(), Layout { namespaced: true, generation: true });
    let spec = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n", "uid": "uid-n"},
        "spec": {"finalizers": ["kubernetes"]}});
    store.create(&NAMESPACES.into(), spec, now(), false).unwrap();
    store
}

fn thing(name: &str, owners: &[&str], finalizers: &[&str]) -> Value {
    let owners: Vec<Value> =
        owners.iter().map(|uid| json!({"uid": uid, "blockOwnerDeletion": true})).collect();
    json!({"metadata": {"namespace": "n", "name": name, "uid": format!("uid-{name}"),
        "ownerReferences": owners, "finalizers": finalizers}})
}

fn create(store: &mut Store, value: Value) -> Arc<Object> {
    store.create(&THINGS.into(), value, now(), false).unwrap()
}

fn delete(store: &mut Store, name: &str, propagation: Propagation) -> Written {
    let deletion = Deletion { propagation: Some(propagation), ..Deletion::default() };
    store.delete(&THINGS.into(), &Key::new("n", name), &deletion, now(), false).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    let page = store.list(THINGS, &Scope::default(), &PageStart::default(), |_| true).unwrap();
    page.objects.iter().map(|object| object.key.name.clone()).collect()
}

fn collect(store: &mut Store) {
    let mut rounds = 0;
    while store.collect(now(), 4) {
        rounds += 1;
        assert!(rounds < 1000, "collection does not come to rest");
    }
}

#[test]
fn revisions_strictly_increase_and_are_never_zero() {
    let mut store = store();
    let first = create(&mut store, thing("a", &[], &[]));
    let second = create(&mut store, thing("b", &[], &[]));
    assert!(0 < first.meta.revision && first.meta.revision < second.meta.revision);
    assert_eq!(store.revision(), second.meta.revision);
}

#[test]
fn stale_version_is_rejected() {
    let mut store = store();
    let object = create(&mut store, thing("a", &[], &[]));
    let mut value = object.value();
    value["spec"] = json!(1);
    store.update(&THINGS.into(), object.meta.revision, value.clone(), now(), false).unwrap();
    value["spec"] = json!(2);
    let again = store.update(&THINGS.into(), object.meta.revision, value, now(), false);
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
}

#[test]
fn writing_the_same_changes_nothing() {
    let mut store = store();
    let object = create(&mut store, thing("a", &[], &[]));
    let before = store.revision();
    store.update(&THINGS.into(), object.meta.revision, object.value(), now(), false).unwrap();
    assert_eq!(store.revision(), before);
}

#[test]
fn dry_runs_change_nothing() {
    let mut store = store();
    let object = create(&mut store, thing("a", &[], &[]));
    let before = store.revision();
    store.create(&THINGS.into(), thing("b", &[], &[]), now(), true).unwrap();
    store.delete(&THINGS.into(), &object.key, &Deletion::default(), now(), true).unwrap();
    assert_eq!((store.revision(), names(&store)), (before, vec!["a".to_owned()]));
}

#[test]
fn nothing_is_created_in_a_missing_or_terminating_namespace() {
    let mut store = store();
    let mut stray = thing("a", &[], &[]);
    stray["metadata"]["namespace"] = json!("elsewhere");
    let missing = store.create(&THINGS.into(), stray, now(), false);
    assert_eq!(missing.err(), Some(StoreError::NamespaceMissing("elsewhere".into())));
    store.delete(&NAMESPACES.into(), &Key::new("", "n"), &Deletion::default(), now(), false).unwrap();
    let closing = store.create(&THINGS.into(), thing("a", &[], &[]), now(), false);
    assert_eq!(closing.err(), Some(StoreError::NamespaceTerminating("n".into())));
}

#[test]
fn a_finalizer_holds_an_object_until_it_is_taken_away() {
    let mut store = store();
    let object = create(&mut store, thing("a", &[], &["example.org/hold"]));
    assert!(matches!(delete(&mut store, "a", Propagation::Background), Written::Kept(_)));
    let held = store.get(THINGS, &object.key).unwrap();
    assert!(held.meta.deleting);
    assert_eq!(held.value().pointer("/metadata/generation"), Some(&json!(1)));
    let mut value = held.value();
    value["metadata"]["finalizers"] = json!([]);
    let written = store.update(&THINGS.into(), held.meta.revision, value, now(), false).unwrap();
    assert!(matches!(written, Written::Removed(_)));
    assert!(names(&store).is_empty());
}

#[test]
fn preconditions_protect_against_deleting_another_object() {
    let mut store = store();
    let object = create(&mut store, thing("a", &[], &[]));
    for deletion in [
        Deletion { uid: Some("other".into()), ..Deletion::default() },
        Deletion { revision: Some("1".into()), ..Deletion::default() },
    ] {
        let result = store.delete(&THINGS.into(), &object.key, &deletion, now(), false);
        assert!(matches!(result, Err(StoreError::Precondition(_))), "{result:?}");
    }
}

#[test]
fn dependents_follow_their_last_owner() {
    let mut store = store();
    create(&mut store, thing("a", &[], &[]));
    create(&mut store, thing("b", &[], &[]));
    create(&mut store, thing("child-of-a", &["uid-a"], &[]));
    create(&mut store, thing("child-of-both", &["uid-a", "uid-b"], &[]));
    create(&mut store, thing("grandchild", &["uid-child-of-a"], &[]));
    delete(&mut store, "a", Propagation::Background);
    collect(&mut store);
    assert_eq!(names(&store), ["b", "child-of-both"]);
    let both = store.get(THINGS, &Key::new("n", "child-of-both")).unwrap();
    assert_eq!(both.meta.owners.len(), 1);
}

#[test]
fn an_object_whose_owner_never_was_is_collected() {
    let mut store = store();
    create(&mut store, thing("stray", &["uid-nobody"], &[]));
    collect(&mut store);
    assert!(names(&store).is_empty());
}

#[test]
fn orphaning_keeps_the_dependents() {
    let mut store = store();
    create(&mut store, thing("a", &[], &[]));
    create(&mut store, thing("child", &["uid-a"], &[]));
    delete(&mut store, "a", Propagation::Orphan);
    collect(&mut store);
    assert_eq!(names(&store), ["child"]);
    assert!(store.get(THINGS, &Key::new("n", "child")).unwrap().meta.owners.is_empty());
}

#[test]
fn foreground_deletion_waits_for_the_dependents() {
    let mut store = store();
    create(&mut store, thing("a", &[], &[]));
    create(&mut store, thing("child", &["uid-a"], &["example.org/hold"]));
    create(&mut store, thing("free", &["uid-a"], &[]));
    assert!(matches!(delete(&mut store, "a", Propagation::Foreground), Written::Kept(_)));
    collect(&mut store);
    assert_eq!(names(&store), ["a", "child"]);
    let child = store.get(THINGS, &Key::new("n", "child")).unwrap();
    let mut value = child.value();
    value["metadata"]["finalizers"] = json!([]);
    store.update(&THINGS.into(), child.meta.revision, value, now(), false).unwrap();
    collect(&mut store);
    assert!(names(&store).is_empty());
}

#[test]
fn a_namespace_goes_after_its_contents() {
    let mut store = store();
    for number in 0..200 {
        create(&mut store, thing(&format!("t-{number}"), &[], &[]));
    }
    create(&mut store, thing("held", &[], &["example.org/hold"]));
    store.delete(&NAMESPACES.into(), &Key::new("", "n"), &Deletion::default(), now(), false).unwrap();
    collect(&mut store);
    assert_eq!(names(&store), ["held"]);
    let namespace = store.get(NAMESPACES, &Key::new("", "n")).unwrap();
    assert_eq!(text(&namespace.value(), "/status/phase"), "Terminating");
    let held = store.get(THINGS, &Key::new("n", "held")).unwrap();
    let mut value = held.value();
    value["metadata"]["finalizers"] = json!([]);
    store.update(&THINGS.into(), held.meta.revision, value, now(), false).unwrap();
    collect(&mut store);
    assert!(store.get(NAMESPACES, &Key::new("", "n")).is_none());
}

#[test]
fn pages_are_read_at_one_revision() {
    let mut store = store();
    for name in ["a", "b", "c", "d"] {
        create(&mut store, thing(name, &[], &[]));
    }
    let start = PageStart { limit: Some(2), ..PageStart::default() };
    let first = store.list(THINGS, &Scope::default(), &start, |_| true).unwrap();
    assert_eq!((first.objects.len(), first.more, first.remaining), (2, true, Some(2)));
    // Between the pages one object goes, one comes, and one is changed.
    delete(&mut store, "c", Propagation::Background);
    create(&mut store, thing("bb", &[], &[]));
    let changed = store.get(THINGS, &Key::new("n", "d")).unwrap();
    let mut value = changed.value();
    value["spec"] = json!(1);
    store.update(&THINGS.into(), changed.meta.revision, value, now(), false).unwrap();
    let start = PageStart {
        revision: Some(first.revision),
        after: first.objects.last().map(|object| object.key.clone()),
        limit: None,
    };
    let second = store.list(THINGS, &Scope::default(), &start, |_| true).unwrap();
    let seen: Vec<(&str, u64)> =
        second.objects.iter().map(|object| (object.key.name.as_str(), object.meta.revision)).collect();
    assert_eq!(seen, [("c", first.revision - 1), ("d", first.revision)]);
    assert!(!second.more);
    store.compact();
    let late = store.list(THINGS, &Scope::default(), &start, |_| true);
    assert!(matches!(late, Err(ListError::Gone(_))), "{late:?}");
}

#[test]
fn a_definition_goes_after_its_objects() {
    let mut store = store();
    let definition = json!({"metadata": {"name": THINGS, "uid": "uid-d"}});
    store.create(&DEFINITIONS.into(), definition, now(), false).unwrap();
    create(&mut store, thing("a", &[], &[]));
    assert_eq!(store.take_changed_definitions().len(), 1);
    store.delete(&DEFINITIONS.into(), &Key::new("", THINGS), &Deletion::default(), now(), false).unwrap();
    collect(&mut store);
    assert!(names(&store).is_empty());
    assert!(store.get(DEFINITIONS, &Key::new("", THINGS)).is_none());
}

#[test]
fn events_carry_what_was_before() {
    let mut store = store();
    let from = store.revision();
    create(&mut store, thing("a", &[], &[]));
    delete(&mut store, "a", Propagation::Background);
    let (events, position) = store.events(THINGS, from, 10).unwrap().unwrap();
    let seen: Vec<(Change, bool)> =
        events.iter().map(|event| (event.change, event.previous.is_some())).collect();
    assert_eq!(seen, [(Change::Added, false), (Change::Deleted, true)]);
    assert_eq!(position, store.revision());
    assert_eq!(events[1].object.meta.revision, store.revision());
}
