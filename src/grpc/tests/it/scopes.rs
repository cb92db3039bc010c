//! What a gateway asks for and what the policy leaves of it, as it goes over the wire:
//! nothing else is sent, neither at first nor later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use flotilla_core::delivery::{DeliveryConfig, Scope};
use flotilla_core::ids::{Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_core::policy::{Document, Gateways as Named, Otherwise, Policy, Rule};
use flotilla_proto::operator::{
    ConfigurationResource, ConfigurationUpdate, GatewayInfo, RegisterGatewayRequest, ResourceType,
    StreamConfigurationRequest, UpdateType,
};

use crate::fleet::{Fleet, Gateway, Options, Replica, dial, info, route, stream_request, until, within};
use crate::push::{Pushing, listening_as, server_tls};

const NAMESPACES: [&str; 3] = ["inner", "shop", "team"];

/// An object of this kind in this namespace that the reference gateway can load.
fn object(kind: Kind, namespace: &str, revision: u64, text: &str) -> RawObject {
    let spec = match kind {
        Kind::ApiRoute => format!(
            r#"{{"match":[{{"uri":{{"exact":"/{namespace}"}}}}],"directResponse":{{"status":200,"body":"{text}"}}}}"#
        ),
        Kind::GrpcRoute => format!(r#"{{"match":[{{"service":{{"exact":"{namespace}.{text}"}}}}]}}"#),
        Kind::Backend | Kind::GrpcBackend => {
            format!(r#"{{"hosts":[{{"address":"{text}.example.com","port":80}}]}}"#)
        }
    };
    RawObject { kind, key: ObjectKey::new(namespace, "one"), ..route("one", revision, &spec) }
}

/// One of each kind in each namespace.
fn objects(first: u64, text: &str) -> Vec<RawObject> {
    let all = Kind::ALL.into_iter().flat_map(|kind| NAMESPACES.map(|namespace| (kind, namespace)));
    (first..).zip(all).map(|(revision, (kind, namespace))| object(kind, namespace, revision, text)).collect()
}

/// A replica that has read them.
async fn replica(fleet: &Fleet) -> Replica {
    let options = Options::named("f-0");
    let delivery = DeliveryConfig { shrink_guard: Duration::ZERO, ..options.delivery.clone() };
    let replica = Replica::start(fleet, Options { delivery, ..options }).await;
    for kind in Kind::ALL {
        let theirs = objects(10, "first").into_iter().filter(|object| object.kind == kind).collect();
        replica.delivery.listed(kind, theirs, Revision(100)).await.unwrap();
    }
    replica
}

/// What is there, in words.
type Held = BTreeSet<(Kind, String)>;

fn held(all: &[(Kind, &str)]) -> Held {
    all.iter().map(|(kind, namespace)| (*kind, (*namespace).to_owned())).collect()
}

/// All of some kinds in some namespaces.
fn each(kinds: &[Kind], namespaces: &[&str]) -> Held {
    let all: Vec<_> =
        kinds.iter().flat_map(|kind| namespaces.iter().map(|namespace| (*kind, *namespace))).collect();
    held(&all)
}

fn said(resource: &ConfigurationResource) -> (Kind, String) {
    let kind = match resource.r#type() {
        ResourceType::ApiRoute => Kind::ApiRoute,
        ResourceType::GrpcRoute => Kind::GrpcRoute,
        ResourceType::Backend => Kind::Backend,
        ResourceType::GrpcBackend => Kind::GrpcBackend,
        other => panic!("{other:?} was sent"),
    };
    (kind, resource.namespace.clone())
}

/// A stream of gateway `gw` that asks for this and says that it has these labels.
async fn open(
    fleet: &Fleet,
    replica: &Replica,
    namespaces: &[&str],
    kinds: &[ResourceType],
    labels: &[(&str, &str)],
) -> Gateway {
    let mut client = dial(replica.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let about = info("gw").map(|info| GatewayInfo { labels, ..info });
    let register = RegisterGatewayRequest { gateway: about.clone(), capabilities: None };
    let session = client.register_gateway(register).await.unwrap().into_inner().session_id;
    let request = StreamConfigurationRequest {
        gateway: about,
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        resource_types: kinds.iter().map(|kind| i32::from(*kind)).collect(),
        ..stream_request("gw", &session, "")
    };
    let updates = client.stream_configuration(request).await.unwrap().into_inner();
    Gateway { name: "gw".to_owned(), client, session, updates }
}

/// What a stream has brought, by kind, namespace and name.
struct Brought<'a> {
    expected: &'a Held,
    there: BTreeMap<(Kind, String, String), Bytes>,
}

impl Brought<'_> {
    /// Takes one update; nothing in it may be of what is not expected.
    fn take(&mut self, update: ConfigurationUpdate) {
        let deleted = update.r#type() == UpdateType::Deleted;
        if let Some(snapshot) = update.snapshot {
            self.there.clear();
            let all = [snapshot.api_routes, snapshot.grpc_routes, snapshot.backends, snapshot.grpc_backends]
                .concat();
            assert_eq!(usize::try_from(snapshot.total_resources).unwrap(), all.len());
            all.into_iter().for_each(|resource| self.note(resource, false));
        }
        update.resource.into_iter().for_each(|resource| self.note(resource, deleted));
    }

    fn note(&mut self, resource: ConfigurationResource, deleted: bool) {
        let (kind, namespace) = said(&resource);
        assert!(self.expected.contains(&(kind, namespace.clone())), "it may not have {resource:?}");
        let key = (kind, namespace, resource.name);
        if deleted {
            self.there.remove(&key);
        } else {
            self.there.insert(key, resource.spec_json);
        }
    }

    /// Whose text is this one.
    fn with(&self, text: &str) -> Held {
        let has = |spec: &Bytes| std::str::from_utf8(spec).unwrap().contains(text);
        let those = self.there.iter().filter(|(_, spec)| has(spec));
        those.map(|((kind, namespace, _), _)| (*kind, namespace.clone())).collect()
    }
}

/// Everything is changed, and in the end deleted; a stream brings this of it and nothing else.
async fn brings(replica: &Replica, mut gateway: Gateway, expected: &Held) {
    let mut brought = Brought { expected, there: BTreeMap::new() };
    while brought.with("first") != *expected {
        brought.take(gateway.apply_next().await);
    }
    let mut revision = 101;
    for (deleting, text) in [(false, "second"), (true, "third")] {
        for object in objects(revision, text) {
            revision = object.revision.0 + 1;
            let told = if deleting {
                replica.delivery.deleted(object.kind, object.key, object.revision).await
            } else {
                replica.delivery.changed(object).await
            };
            told.unwrap();
        }
        let of_it = if deleting { Held::new() } else { expected.clone() };
        while brought.with("second") != of_it {
            brought.take(gateway.apply_next().await);
        }
        // What else there was to send has come before this.
        let (kind, namespace) = expected.first().unwrap();
        let mut last = object(*kind, namespace, revision, "last");
        last.key = ObjectKey::new(namespace.as_str(), format!("last-{deleting}"));
        let last_key = (*kind, namespace.clone(), last.key.name.to_string());
        revision += 1;
        replica.delivery.changed(last).await.unwrap();
        while !brought.there.contains_key(&last_key) {
            brought.take(gateway.apply_next().await);
        }
    }
}

#[tokio::test]
async fn a_stream_brings_what_it_asks_for_and_nothing_else() {
    let every = Kind::ALL;
    for (namespaces, kinds, expected) in [
        (&["shop"][..], &[][..], each(&every, &["shop"])),
        (&["te*", "inner"], &[], each(&every, &["inner", "team"])),
        (&[], &[ResourceType::GrpcBackend], each(&[Kind::GrpcBackend], &NAMESPACES)),
        (
            &["inner", "shop", "nowhere"],
            &[ResourceType::Backend, ResourceType::ApiRoute],
            each(&[Kind::ApiRoute, Kind::Backend], &["inner", "shop"]),
        ),
    ] {
        let fleet = Fleet::new();
        let replica = replica(&fleet).await;
        let gateway = open(&fleet, &replica, namespaces, kinds, &[]).await;
        brings(&replica, gateway, &expected).await;
        replica.stop().await;
    }
}

fn rule(labels: &[(&str, &str)], namespaces: &[&str], kinds: &[Kind]) -> Rule {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Rule {
        gateways: Named { names: vec!["gw*".to_owned()], labels, ..Named::default() },
        namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
        kinds: kinds.iter().map(|kind| kind.name().to_owned()).collect(),
    }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Document { rules, otherwise: Some(Otherwise::Everything) }.try_into().unwrap()
}

#[tokio::test]
async fn a_stream_brings_what_it_asks_for_as_far_as_the_policy_gives_it() {
    let fleet = Fleet::new();
    let replica = replica(&fleet).await;
    let kinds = [Kind::Backend, Kind::ApiRoute];
    let narrow = policy(vec![rule(&[], &["team", "shop"], &kinds)]);
    replica.delivery.set_policy(narrow).await.unwrap();
    let asked = [ResourceType::GrpcRoute, ResourceType::Backend];
    let gateway = open(&fleet, &replica, &["inner", "team"], &asked, &[]).await;
    brings(&replica, gateway, &held(&[(Kind::Backend, "team")])).await;
    replica.stop().await;
}

/// Who says that it is public gets something else.
fn by_label() -> Policy {
    policy(vec![
        rule(&[("tier", "public")], &["shop", "team"], &[Kind::ApiRoute, Kind::Backend]),
        rule(&[], &["inner"], &[Kind::GrpcRoute]),
    ])
}

#[tokio::test]
async fn rules_go_by_the_labels_that_a_stream_says_its_gateway_has() {
    let public = each(&[Kind::ApiRoute, Kind::Backend], &["shop", "team"]);
    let rest = held(&[(Kind::GrpcRoute, "inner")]);
    for (labels, expected) in [
        (&[("tier", "public"), ("zone", "a")][..], &public),
        (&[("tier", "internal")], &rest),
        (&[("tiers", "public")], &rest),
        (&[], &rest),
    ] {
        let fleet = Fleet::new();
        let replica = replica(&fleet).await;
        replica.delivery.set_policy(by_label()).await.unwrap();
        let gateway = open(&fleet, &replica, &[], &[], labels).await;
        brings(&replica, gateway, expected).await;
        replica.stop().await;
    }
}

#[tokio::test]
async fn a_gateway_that_is_dialled_is_given_what_a_policy_of_now_leaves_of_what_it_asks_for() {
    let fleet = Fleet::new();
    let replica = replica(&fleet).await;
    replica.delivery.set_policy(by_label()).await.unwrap();
    let tls = server_tls(&fleet, &fleet.gateway("gw"));
    // Without batches it is told of each that is to go: nothing guards it for 30 s.
    let gateways = listening_as("gw", false, tls, |options| {
        options.labels = [("tier".to_owned(), "public".to_owned())].into();
        options.namespaces = vec!["shop".to_owned(), "inner".to_owned()];
    })
    .await;
    let gateway = gateways.gateways()[0].clone();
    let has = |expected: Held| {
        let gateway = gateway.clone();
        move || {
            let there = gateway.view().held;
            there.iter().map(|one| (one.kind, one.object.namespace.to_string())).collect::<Held>() == expected
        }
    };
    let pushing = Pushing::start(&fleet, &replica);
    pushing.dial("gw", gateways.listening()[0]);
    let public = each(&[Kind::ApiRoute, Kind::Backend], &["shop"]);
    until("it has what its label gives it", has(public)).await;
    assert_eq!(pushing.failures("delivery"), 0);

    // The rule of its label gives other kinds, and in the end another namespace, too.
    let kinds = [Kind::GrpcRoute, Kind::ApiRoute];
    for (namespaces, kinds, expected) in [
        (&["shop", "team"][..], &kinds[..], each(&kinds, &["shop"])),
        (&["*"], &[], each(&Kind::ALL, &["inner", "shop"])),
    ] {
        let ended = pushing.failures("delivery");
        let rules = vec![rule(&[("tier", "public")], namespaces, kinds), rule(&[], &[], &[])];
        replica.delivery.set_policy(policy(rules)).await.unwrap();
        until("it has what the policy of now gives it", has(expected)).await;
        assert_eq!(pushing.failures("delivery"), ended + 1, "its session was not ended for it");
    }
    // The same goes for what changes from now on.
    let (of_another, its) =
        (object(Kind::ApiRoute, "team", 101, "x"), object(Kind::ApiRoute, "shop", 102, "x"));
    for object in [of_another, its] {
        replica.delivery.changed(object).await.unwrap();
    }
    let asked = Scope::new(["shop", "inner"].map(Into::into), BTreeSet::new());
    let wanted = within("it has read that far", async {
        loop {
            let asked = asked.clone();
            let read = replica.delivery.inspect(move |engine| {
                (engine.frontier().get(Kind::ApiRoute) == Revision(102)).then(|| engine.digest(&asked))
            });
            if let Some(digest) = read.await.unwrap() {
                return digest;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    until("the change is there", || *gateway.digest() == *wanted).await;
    pushing.stop().await;
    replica.stop().await;
    gateways.stop().await;
}
