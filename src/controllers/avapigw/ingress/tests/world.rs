//! What there is to do about Ingresses, against an API server of a few lines that does what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla_core::ids::{Kind, ObjectKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Child, Class, Ingress, MayAct, Next, Seen, SeenIngress, Step, Work, World};
use super::{ingress, path, rule, service};

/// The world, and the objects that there are.
struct Fixture {
    world: World,
    there: BTreeMap<(Kind, ObjectKey), Child>,
    revision: u64,
}

impl Fixture {
    /// With nothing there, which is known.
    fn new(addresses: Value) -> Fixture {
        let mut world = World::new(Class { name: "avapigw".into(), is_default: false }, addresses);
        world.ingresses(Seen::All(Vec::new()));
        world.services(Seen::All(Vec::new()));
        Kind::ALL.into_iter().for_each(|kind| world.children(kind, Seen::All(Vec::new())));
        Fixture { world, there: BTreeMap::new(), revision: 1 }
    }

    fn next_revision(&mut self) -> Arc<str> {
        self.revision += 1;
        self.revision.to_string().into()
    }

    fn show(&mut self, ingress: Ingress) {
        let revision = self.next_revision();
        let seen = SeenIngress {
            ingress,
            uid: "u".into(),
            revision,
            deleting: false,
            addresses: Value::Null,
            finalizer: None,
        };
        self.world.ingresses(Seen::Is(seen));
    }

    fn next(&mut self) -> Option<Work> {
        work_of(self.world.next(|_| MayAct::Now))
    }

    /// Does what there is to do; in words.
    fn work(&mut self) -> Vec<String> {
        let Some(work) = self.next() else { return Vec::new() };
        let done = work.steps.iter().map(|step| self.carry_out(step)).collect();
        assert_eq!(self.next(), None, "what was done is enough");
        done
    }

    fn carry_out(&mut self, step: &Step) -> String {
        let revision = self.next_revision();
        match step.clone() {
            Step::Make { kind, key, mut spec, mark } => {
                // A default of the schema.
                spec["defaulted"] = json!(true);
                let words = format!("make {kind}");
                let child = Child {
                    kind,
                    key,
                    uid: revision.clone(),
                    revision,
                    owner: "u".into(),
                    mark: Some(mark.into()),
                    spec,
                    deleting: false,
                };
                assert!(self.tell(child).is_none(), "it was not there");
                words
            }
            Step::Change { kind, key, revision: known, spec, mark } => {
                let before = self.there[&(kind, key)].clone();
                assert_eq!(before.revision, known);
                self.tell(Child { revision, spec, mark: Some(mark.into()), ..before });
                format!("change {kind}")
            }
            Step::Remove { kind, key, uid, revision } => {
                let before = self.there.remove(&(kind, key.clone())).unwrap();
                assert_eq!((before.uid, before.revision), (uid, revision));
                self.world.children(kind, Seen::Gone(key));
                format!("remove {kind}")
            }
        }
    }

    fn tell(&mut self, child: Child) -> Option<Child> {
        self.world.children(child.kind, Seen::Is(child.clone()));
        self.there.insert((child.kind, child.key.clone()), child)
    }
}

fn work_of(next: Next) -> Option<Work> {
    match next {
        Next::Work(_, work) => Some(*work),
        Next::Nothing => None,
        Next::More => panic!("there are few"),
    }
}

fn spec(paths: &[Value]) -> Value {
    json!({"ingressClassName": "avapigw", "rules": [rule("a.example", paths)]})
}

fn to(text: &str, name: &str) -> Value {
    let backend = service(name, &json!({"number": 80}));
    json!({"path": text, "pathType": "Prefix", "backend": backend})
}

#[test]
fn what_says_in_another_namespace_that_it_is_of_an_ingress_is_left_alone() {
    let mut fixture = Fixture::new(Value::Null);
    fixture.show(ingress(&[], &spec(&[to("/a", "web")])));
    let done = fixture.work();
    let mut stray = fixture.there.values().next().unwrap().clone();
    stray.key = ObjectKey::new("another", "stray");
    fixture.tell(stray);
    assert_eq!((done.is_empty(), fixture.work()), (false, Vec::new()));
}

#[test]
fn nothing_is_done_before_everything_is_listed_and_where_others_act() {
    let mut world = World::new(Class { name: "avapigw".into(), is_default: false }, Value::Null);
    let seen = SeenIngress {
        ingress: ingress(&[], &spec(&[to("/a", "web")])),
        uid: "u".into(),
        revision: "1".into(),
        deleting: false,
        addresses: Value::Null,
        finalizer: None,
    };
    world.ingresses(Seen::All(vec![seen.clone()]));
    world.services(Seen::All(Vec::new()));
    for kind in Kind::ALL {
        assert_eq!(world.next(|_| MayAct::Now), Next::Nothing);
        world.children(kind, Seen::All(Vec::new()));
    }
    assert_eq!(world.next(|_| MayAct::Others), Next::Nothing);
    assert_eq!(
        world.next(|_| MayAct::Now),
        Next::Nothing,
        "it is looked at again when that may have changed"
    );
    world.look_at_left();
    assert!(work_of(world.next(|_| MayAct::Now)).is_some());
    // What is gone takes with it what was made of it.
    world.look_again(&seen.ingress.key);
    world.ingresses(Seen::Gone(seen.ingress.key.clone()));
    assert_eq!(world.next(|_| MayAct::Now), Next::Nothing);
    // Of very many some are looked at at a time.
    let named = |number: usize| {
        let mut seen = seen.clone();
        seen.ingress.key = ObjectKey::new("shop", number.to_string());
        seen.ingress.spec.ingress_class_name = None;
        SeenIngress { uid: number.to_string().into(), ..seen }
    };
    world.ingresses(Seen::All((0..100).map(named).collect()));
    assert_eq!(world.next(|_| MayAct::Now), Next::More);
    assert_eq!(world.next(|_| MayAct::Now), Next::Nothing);
}

#[test]
fn routes_and_backends_come_change_and_go_with_what_the_ingress_says() {
    let mut fixture = Fixture::new(Value::Null);
    let both = [to("/a", "web"), to("/b", "rest")];
    fixture.show(ingress(&[], &spec(&both)));
    assert_eq!(fixture.work(), ["make Backend", "make Backend", "make APIRoute", "make APIRoute"]);
    // Defaults of the schema and the books of the published operator are no changes.
    fixture.show(ingress(&[("avapigw.io/observed-generation", "1")], &spec(&both)));
    assert!(fixture.work().is_empty());
    // Only an annotation: generations do not count those.
    fixture.show(ingress(&[("avapigw.io/timeout", "30s")], &spec(&both)));
    assert_eq!(fixture.work(), ["change APIRoute", "change APIRoute"]);
    fixture.show(ingress(
        &[("avapigw.io/load-balancer", "random"), ("avapigw.io/timeout", "30s")],
        &spec(&both),
    ));
    assert_eq!(fixture.work(), ["change Backend", "change Backend"]);
    // One in front, and another way round: the others stay what they are.
    fixture.show(ingress(&[], &spec(&both)));
    fixture.work();
    let more = [to("/c", "web"), to("/b", "rest"), to("/a", "web")];
    fixture.show(ingress(&[], &spec(&more)));
    assert_eq!(fixture.work(), ["make APIRoute"]);
    fixture.show(ingress(&[], &spec(&more[2..])));
    assert_eq!(fixture.work(), ["remove APIRoute", "remove APIRoute", "remove Backend"]);
    fixture.show(ingress(&[("avapigw.io/protocol", "grpc")], &spec(&more[2..])));
    assert_eq!(fixture.work(), ["make GRPCBackend", "make GRPCRoute", "remove APIRoute", "remove Backend"]);
    let mut others = spec(&both);
    others["ingressClassName"] = json!("nginx");
    fixture.show(ingress(&[], &others));
    assert_eq!(fixture.work(), ["remove GRPCRoute", "remove GRPCBackend"]);
    assert!(fixture.there.is_empty());
}

#[test]
fn what_somebody_did_to_it_is_put_right_and_what_is_not_ours_is_left_alone() {
    let mut fixture = Fixture::new(Value::Null);
    fixture.show(ingress(&[("avapigw.io/timeout", "30s")], &spec(&[to("/a", "web")])));
    fixture.work();
    let route = fixture.there.keys().find(|(kind, _)| kind.is_route()).unwrap().clone();
    let mut edited = fixture.there[&route].clone();
    edited.spec["timeout"] = json!("1h");
    edited.revision = fixture.next_revision();
    fixture.tell(edited);
    assert_eq!(fixture.work(), ["change APIRoute"]);
    fixture.there.remove(&route);
    fixture.world.children(route.0, Seen::Gone(route.1.clone()));
    assert_eq!(fixture.work(), ["make APIRoute"]);
    // Of an Ingress of the same name from before.
    let other = Child { owner: "before".into(), ..fixture.there[&route].clone() };
    fixture.world.children(Kind::ApiRoute, Seen::Is(Child { key: ObjectKey::new("shop", "x"), ..other }));
    assert!(fixture.work().is_empty());
    // What a watch shows late is old news.
    let late = Child { revision: "1".into(), spec: json!({}), ..fixture.there[&route].clone() };
    fixture.world.children(Kind::ApiRoute, Seen::Is(late));
    assert!(fixture.work().is_empty());
    // One that is going is waited for.
    let going = Child { deleting: true, revision: fixture.next_revision(), ..fixture.there[&route].clone() };
    fixture.tell(going);
    assert!(fixture.work().is_empty());
    fixture.there.remove(&route);
    fixture.world.children(route.0, Seen::Gone(route.1));
    assert_eq!(fixture.work(), ["make APIRoute"]);
    // A list without it says the same as its deletion.
    fixture.world.children(Kind::ApiRoute, Seen::All(Vec::new()));
    fixture.there.retain(|(kind, _), _| *kind != Kind::ApiRoute);
    assert_eq!(fixture.work(), ["make APIRoute"]);
}

#[test]
fn faults_take_nothing_away_and_are_told_once() {
    let mut fixture = Fixture::new(json!([{"ip": "10.0.0.1"}]));
    fixture.show(ingress(&[], &spec(&[to("/a", "web")])));
    let work = fixture.next().unwrap();
    assert_eq!(work.addresses, Some(json!([{"ip": "10.0.0.1"}])));
    assert_eq!(turned(&work), Some("IngressReconciled"));
    assert_eq!(work.sum, "it became 1 routes and 1 backends");
    fixture.show(ingress(&[("avapigw.io/timeout", "soon")], &spec(&[])));
    let told = fixture.next().unwrap();
    assert!(told.steps.is_empty() && told.addresses.is_none());
    let said = told.told.unwrap();
    assert!(
        said.warning
            && said.reason == "IngressConversionFailed"
            && said.message.contains("avapigw.io/timeout")
    );
    fixture.show(ingress(&[("avapigw.io/timeout", "soon")], &spec(&[])));
    assert_eq!(fixture.next(), None, "once");
    fixture.show(ingress(&[("avapigw.io/timeout", "late")], &spec(&[])));
    assert!(fixture.next().unwrap().told.unwrap().message.contains("late"));
}

/// What is told when this is done.
fn turned(work: &Work) -> Option<&'static str> {
    work.done.filter(|_| work.turned)
}

/// Does what there is to do; what was told of it.
fn tells(fixture: &mut Fixture) -> Vec<&'static str> {
    let Some(work) = fixture.next() else { return Vec::new() };
    work.steps.iter().for_each(|step| drop(fixture.carry_out(step)));
    let told = work.told.iter().map(|told| told.reason).chain(turned(&work)).collect();
    assert_eq!(fixture.next(), None, "what was done is enough");
    told
}

#[test]
fn only_what_turns_is_told() {
    let mut fixture = Fixture::new(Value::Null);
    let paths = [to("/a", "web"), to("/b", "rest")];
    let wrong = [("avapigw.io/timeout", "soon")];
    fixture.show(ingress(&[], &spec(&paths)));
    assert_eq!(tells(&mut fixture), ["IngressReconciled"]);
    for paths in [&paths[..1], &paths[..], &paths[1..]] {
        fixture.show(ingress(&[], &spec(paths)));
        assert_eq!(tells(&mut fixture), [""; 0], "it is served as before");
    }
    for paths in [&paths[1..], &paths[..]] {
        fixture.show(ingress(&wrong, &spec(paths)));
        assert_eq!(tells(&mut fixture), ["IngressConversionFailed"]);
        fixture.show(ingress(&wrong, &spec(paths)));
        assert_eq!(tells(&mut fixture), [""; 0], "it is as wrong as before");
        // The first time there is nothing else to do.
        fixture.show(ingress(&[], &spec(paths)));
        assert_eq!(tells(&mut fixture), ["IngressReconciled"]);
    }
    let mut others = spec(&paths);
    others["ingressClassName"] = json!("nginx");
    for told in [&["IngressClassMismatch"][..], &[]] {
        fixture.show(ingress(&[], &others));
        assert_eq!(tells(&mut fixture), told);
    }
    fixture.show(ingress(&wrong, &others));
    assert_eq!(tells(&mut fixture), [""; 0], "it is nothing of ours");
    fixture.show(ingress(&[], &spec(&paths)));
    assert_eq!(tells(&mut fixture), ["IngressReconciled"]);
}

#[test]
fn who_begins_to_act_knows_that_it_may_have_been_told() {
    let mut fixture = Fixture::new(Value::Null);
    let wrong = ingress(&[("avapigw.io/timeout", "soon")], &spec(&[]));
    fixture.show(wrong.clone());
    let work = fixture.next().unwrap();
    assert!(work.first && work.told.is_some());
    fixture.show(ingress(&[], &spec(&[])));
    assert!(!fixture.next().unwrap().first);
    // Another acts meanwhile.
    fixture.show(wrong);
    assert_eq!(fixture.world.next(|_| MayAct::Others), Next::Nothing);
    fixture.world.look_at_left();
    let work = fixture.next().unwrap();
    assert!(work.first && work.told.is_some());
    // What is served and was told by nobody here is no news.
    let mut fixture = Fixture::new(Value::Null);
    fixture.show(ingress(&[], &spec(&[to("/a", "web")])));
    fixture.work();
    let children: Vec<Child> = fixture.there.values().cloned().collect();
    let mut next = Fixture::new(Value::Null);
    children.into_iter().for_each(|child| drop(next.tell(child)));
    next.show(ingress(&[], &spec(&[to("/a", "web")])));
    assert_eq!(next.next(), None);
}

#[test]
fn what_was_told_is_known_although_it_is_worked_on() {
    let mut fixture = Fixture::new(Value::Null);
    let named =
        json!({"path": "/n", "pathType": "Prefix", "backend": service("web", &json!({"name": "http"}))});
    fixture.show(ingress(&[], &spec(&[named, path("/a", "Prefix")])));
    let work = fixture.next().unwrap();
    assert!(work.told.is_some());
    // What the job writes shows up before it is done.
    work.steps.iter().for_each(|step| drop(fixture.carry_out(step)));
    assert_eq!(fixture.world.next(|_| MayAct::Later), Next::Nothing);
    fixture.world.look_at_left();
    assert_eq!(fixture.next(), None, "nothing is told again");
    // So does the Service, at last.
    let web = ObjectKey::new("shop", "web");
    fixture.world.services(Seen::Is((web, BTreeMap::from([("http".to_owned(), 8081)]))));
    assert_eq!(fixture.world.next(|_| MayAct::Later), Next::Nothing);
    fixture.world.look_at_left();
    assert_eq!(tells(&mut fixture), ["IngressReconciled"]);
}

#[test]
fn a_port_by_name_follows_its_service() {
    let mut fixture = Fixture::new(Value::Null);
    let named =
        json!({"path": "/n", "pathType": "Prefix", "backend": service("web", &json!({"name": "http"}))});
    fixture.show(ingress(&[], &spec(&[named, path("/a", "Prefix")])));
    let work = fixture.next().unwrap();
    assert!(work.told.unwrap().message.contains("Service web has no port http"));
    work.steps.iter().for_each(|step| drop(fixture.carry_out(step)));
    assert_eq!((fixture.there.len(), fixture.next()), (2, None));
    let key = ObjectKey::new("shop", "web");
    let ports = |number| BTreeMap::from([("http".to_owned(), number)]);
    fixture.world.services(Seen::Is((key.clone(), ports(8081))));
    assert_eq!(fixture.work(), ["make Backend", "make APIRoute"]);
    fixture.world.services(Seen::Is((key.clone(), ports(8081))));
    assert!(fixture.work().is_empty());
    fixture.world.services(Seen::Is((key.clone(), ports(9090))));
    assert_eq!(fixture.work(), ["make Backend", "change APIRoute", "remove Backend"]);
    let of = |child: &Child| child.spec["hosts"][0]["port"].as_i64();
    let ports: BTreeSet<i64> = fixture.there.values().filter_map(of).collect();
    assert_eq!(ports, BTreeSet::from([8080, 9090]));
    // A Service that is away, perhaps for a moment, takes nothing away.
    fixture.world.services(Seen::Gone(key));
    assert!(fixture.next().unwrap().steps.is_empty());
}

/// An Ingress with the finalizer of the published operator.
fn held(fixture: &mut Fixture, deleting: bool, class: &str) {
    let mut spec = spec(&[to("/a", "web")]);
    spec["ingressClassName"] = json!(class);
    let (ingress, revision) = (ingress(&[], &spec), fixture.next_revision());
    let addresses = Value::Null;
    let seen = SeenIngress { ingress, uid: "u".into(), revision, deleting, addresses, finalizer: Some(1) };
    fixture.world.ingresses(Seen::Is(seen));
}

#[test]
fn an_ingress_that_the_published_operator_holds_may_go_when_nothing_is_left_of_it() {
    let mut fixture = Fixture::new(Value::Null);
    held(&mut fixture, false, "avapigw");
    assert_eq!(fixture.work(), ["make Backend", "make APIRoute"]);
    held(&mut fixture, true, "avapigw");
    let work = fixture.next().unwrap();
    assert_eq!(work.release, None, "there is something of it yet");
    work.steps.iter().for_each(|step| drop(fixture.carry_out(step)));
    assert_eq!(turned(&work), None, "it is not gone");
    let work = fixture.next().unwrap();
    assert_eq!((turned(&work), work.failing), (Some("IngressDeleted"), "IngressCleanupFailed"));
    assert_eq!((work.steps, work.release), (Vec::new(), Some(1)));
}

#[test]
fn an_ingress_that_is_held_may_go_also_when_its_class_is_another_by_then() {
    let mut fixture = Fixture::new(Value::Null);
    held(&mut fixture, false, "avapigw");
    assert_eq!(fixture.work(), ["make Backend", "make APIRoute"]);
    held(&mut fixture, false, "another");
    let work = fixture.next().unwrap();
    assert_eq!((work.steps.len(), work.release, turned(&work)), (2, None, Some("IngressClassMismatch")));
    // Deleted before that is carried out: it stays until nothing is left.
    held(&mut fixture, true, "another");
    let work = fixture.next().unwrap();
    assert_eq!((work.steps.len(), work.release, turned(&work)), (2, None, None));
    work.steps.iter().for_each(|step| drop(fixture.carry_out(step)));
    let work = fixture.next().unwrap();
    assert_eq!((turned(&work), work.failing), (Some("IngressDeleted"), "IngressCleanupFailed"));
    assert_eq!((work.steps, work.release), (Vec::new(), Some(1)));
    // So it is for who has not seen what it was before.
    let mut fixture = Fixture::new(Value::Null);
    held(&mut fixture, false, "another");
    assert_eq!(fixture.next(), None, "one that is not deleted is left as it is");
    held(&mut fixture, true, "another");
    assert_eq!(fixture.next().unwrap().release, Some(1));
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Happens {
    /// The Ingress says that it has these of the paths, with this time-out.
    Says(Vec<usize>, u8),
    /// The Service's port that has a name.
    Port(Option<u16>),
    /// Somebody removes or edits one of the objects.
    Removed(prop::sample::Index),
    Edited(prop::sample::Index),
    /// A watch of this kind begins anew.
    Listed(usize),
    /// What there is to do is done, but for what comes after this many writes.
    Worked(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        (prop::sample::subsequence(vec![0, 1, 2, 3], 0..=4), 0..3_u8)
            .prop_map(|(paths, time)| Happens::Says(paths, time)),
        prop::option::of(1..4_u16).prop_map(Happens::Port),
        any::<prop::sample::Index>().prop_map(Happens::Removed),
        any::<prop::sample::Index>().prop_map(Happens::Edited),
        (0..4_usize).prop_map(Happens::Listed),
        (0..4_usize).prop_map(Happens::Worked),
    ]
}

proptest! {
    /// Whatever happens, and wherever the work breaks off: in the end there is what the Ingress says, and nothing is
    /// removed that it says at that moment.
    #[test]
    fn in_the_end_there_is_what_the_ingress_says(history in prop::collection::vec(happens(), 0..24)) {
        let mut fixture = Fixture::new(Value::Null);
        let named = json!({"path": "/n", "pathType": "Prefix", "backend": service("web", &json!({"name": "http"}))});
        let pool = [to("/a", "web"), to("/b", "web"), to("/c", "rest"), named];
        let service_key = ObjectKey::new("shop", "web");
        let (mut says, mut port) = (None, None);
        for happened in history.into_iter().chain([Happens::Worked(99), Happens::Worked(99)]) {
            let place = |there: &BTreeMap<(Kind, ObjectKey), Child>, index: prop::sample::Index| {
                (!there.is_empty()).then(|| there.values().nth(index.index(there.len())).unwrap().clone())
            };
            match happened {
                Happens::Says(paths, time) => {
                    let paths: Vec<Value> = paths.into_iter().map(|path| pool[path].clone()).collect();
                    let timeout = format!("{}s", time + 1);
                    let now = ingress(&[("avapigw.io/timeout", &timeout)], &spec(&paths));
                    says = Some(now.clone());
                    fixture.show(now);
                }
                Happens::Port(number) => {
                    port = number;
                    let ports = number.map(|number| ("http".to_owned(), number)).into_iter().collect();
                    fixture.world.services(Seen::Is((service_key.clone(), ports)));
                }
                Happens::Removed(index) => if let Some(child) = place(&fixture.there, index) {
                    fixture.there.remove(&(child.kind, child.key.clone()));
                    fixture.world.children(child.kind, Seen::Gone(child.key));
                },
                Happens::Edited(index) => if let Some(mut child) = place(&fixture.there, index) {
                    child.spec["timeout"] = json!("1h");
                    child.spec["hosts"] = json!([]);
                    child.revision = fixture.next_revision();
                    fixture.tell(child);
                },
                Happens::Listed(kind) => {
                    let kind = Kind::ALL[kind];
                    let all = fixture.there.values().filter(|child| child.kind == kind).cloned().collect();
                    fixture.world.children(kind, Seen::All(all));
                }
                Happens::Worked(steps) => {
                    let work = fixture.next();
                    let wanted = says.as_ref().map(|says| super::super::convert(says, &|_, _| port).unwrap());
                    for step in work.iter().flat_map(|work| &work.steps).take(steps) {
                        if let Step::Remove { kind, key, .. } = step {
                            let wanted = &wanted.as_ref().unwrap().resources;
                            prop_assert!(!wanted.iter().any(|one| (one.kind, &one.key) == (*kind, key)), "{}", key);
                        }
                        fixture.carry_out(step);
                    }
                    fixture.world.look_again(&ObjectKey::new("shop", "api"));
                }
            }
        }
        prop_assert_eq!(fixture.next().map(|work| work.steps).unwrap_or_default(), []);
        let wanted = says.map(|says| super::super::convert(&says, &|_, _| port).unwrap()).unwrap_or_default();
        let names = |all: Vec<(Kind, ObjectKey)>| all.into_iter().collect::<BTreeSet<_>>();
        let there = names(fixture.there.keys().cloned().collect());
        let wants = names(wanted.resources.iter().map(|one| (one.kind, one.key.clone())).collect());
        if wanted.unresolved.is_empty() {
            prop_assert_eq!(&there, &wants);
        }
        prop_assert!(there.is_superset(&wants));
        for one in &wanted.resources {
            let spec: Value = serde_json::from_slice(&one.spec).unwrap();
            let child = &fixture.there[&(one.kind, one.key.clone())];
            for (name, value) in spec.as_object().unwrap() {
                prop_assert_eq!(&child.spec[name], value);
            }
        }
    }
}
