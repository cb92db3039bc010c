//! Gateways that listen: replicas that dial the reference gateway, and calls that
//! no replica would make.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use flotilla_certs::{Alpn, CertificatePem, ClientAuth, Identity, LeafRequest, ServerTls};
use flotilla_core::ids::{GatewayId, Kind, ObjectKey, Revision};
use flotilla_core::object::RawObject;
use flotilla_gateway::{Fleet as Gateways, FleetOptions, GatewayOptions, Listen};
use flotilla_grpc::push::{PushConfig, PushMetrics, PushTask, Target};
use flotilla_proto::operator::ConfigurationResource;
use flotilla_proto::push::configuration_service_client::ConfigurationServiceClient;
use flotilla_proto::push::{
    ApplyApiRouteRequest, DeleteApiRouteRequest, GetGatewayStatusRequest, GetGatewayStatusResponse,
    ResourceUpdate, UpdateResult,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::fleet::{
    Fleet, Options, Replica, TRUST_DOMAIN, channel, dial, route, stream_request, until, within,
};

/// A gateway `edge/NAME` that listens.
pub async fn listening(fleet: &Fleet, name: &str, batches: bool) -> Gateways {
    listening_with(name, batches, server_tls(fleet, &fleet.gateway(name))).await
}

/// What a gateway listens with.
pub fn server_tls(fleet: &Fleet, certificate: &CertificatePem) -> ServerTls {
    ServerTls::new(certificate, fleet.authority.roots(), ClientAuth::Required, Alpn::H2).unwrap()
}

pub async fn listening_with(name: &str, batches: bool, tls: ServerTls) -> Gateways {
    listening_as(name, batches, tls, |_| {}).await
}

/// A gateway that says more of itself.
pub async fn listening_as(
    name: &str,
    batches: bool,
    tls: ServerTls,
    change: impl FnOnce(&mut GatewayOptions),
) -> Gateways {
    let address = "127.0.0.1:0".parse().unwrap();
    let listen = Listen { address, tls, trust_domain: TRUST_DOMAIN.into(), batches };
    let id = GatewayId { namespace: "edge".into(), name: name.into() };
    let mut options = GatewayOptions { listen: Some(listen), ..GatewayOptions::new(id, Vec::new(), None) };
    change(&mut options);
    Gateways::start(vec![options], FleetOptions::default()).await.unwrap()
}

/// What a replica dials, and the task that does.
pub struct Pushing {
    pub targets: watch::Sender<BTreeSet<Target>>,
    may_dial: Arc<AtomicBool>,
    pub metrics: PushMetrics,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Pushing {
    pub fn start(fleet: &Fleet, replica: &Replica) -> Pushing {
        Self::start_with(fleet, replica, |_| {})
    }

    pub fn start_with(fleet: &Fleet, replica: &Replica, change: impl FnOnce(&mut PushConfig)) -> Pushing {
        let (targets, chosen) = watch::channel(BTreeSet::new());
        let metrics = PushMetrics::new(&prometheus::Registry::new()).unwrap();
        let certificate = fleet.controller(TRUST_DOMAIN, "system", replica.member.as_str());
        let mut config = PushConfig {
            heartbeat_interval: Duration::from_millis(100),
            backoff: (Duration::from_millis(10), Duration::from_millis(100)),
            ..PushConfig::new(replica.member.clone(), TRUST_DOMAIN.into(), fleet.dialler(&certificate))
        };
        change(&mut config);
        let (shutdown, told) = (CancellationToken::new(), CancellationToken::new());
        let may_dial = Arc::new(AtomicBool::new(true));
        let may = may_dial.clone();
        let may = Arc::new(move |_: &Target| may.load(Ordering::Relaxed));
        let task = PushTask::new(config, replica.delivery.clone(), chosen, may, metrics.clone(), told);
        Pushing { targets, may_dial, metrics, task: tokio::spawn(task.run(shutdown.clone())), shutdown }
    }

    pub fn dial(&self, name: &str, address: SocketAddr) {
        self.targets.send_replace([format!("edge/{name}={address}").parse().unwrap()].into());
    }

    pub fn failures(&self, reason: &str) -> u64 {
        self.metrics.failures.with_label_values(&[reason]).get()
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        within("the links' end", self.task).await.unwrap();
    }
}

pub fn routes(count: u64) -> Vec<RawObject> {
    (1..=count).map(|number| answering(&format!("r{number}"), number)).collect()
}

/// A route that the reference gateway can load.
pub fn answering(name: &str, revision: u64) -> RawObject {
    let spec = format!(
        r#"{{"match":[{{"uri":{{"prefix":"/{name}"}}}}],"directResponse":{{"status":200,"body":"{revision}"}}}}"#
    );
    route(name, revision, &spec)
}

/// A client of a gateway, or of a replica.
pub async fn client(
    fleet: &Fleet,
    address: SocketAddr,
    certificate: &CertificatePem,
) -> ConfigurationServiceClient<Channel> {
    ConfigurationServiceClient::new(channel(address, &fleet.dialler(certificate)).await.unwrap())
}

pub async fn apply(
    client: &mut ConfigurationServiceClient<Channel>,
    session: &str,
    sequence: i64,
    name: &str,
) -> Result<UpdateResult, Status> {
    let resource = ConfigurationResource {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        spec_json: format!(r#"{{"name":"team/{name}","directResponse":{{"status":200}}}}"#).into(),
        ..ConfigurationResource::default()
    };
    let update = Some(ResourceUpdate {
        session_id: session.to_owned(),
        config_version: format!("v{sequence}"),
        sequence,
        resource: Some(resource),
    });
    Ok(client.apply_api_route(ApplyApiRouteRequest { update }).await?.into_inner().result.unwrap())
}

pub async fn open(
    client: &mut ConfigurationServiceClient<Channel>,
    session: &str,
) -> Result<GetGatewayStatusResponse, Status> {
    let request = GetGatewayStatusRequest { open_session: session.to_owned(), ..Default::default() };
    Ok(client.get_gateway_status(request).await?.into_inner())
}

#[tokio::test]
async fn a_gateway_that_listens_is_kept_up_to_date_and_its_next_replica_goes_on() {
    for batches in [true, false] {
        let fleet = Fleet::new();
        let gateways = listening(&fleet, "gw", batches).await;
        let (gateway, address) = (gateways.gateways()[0].clone(), gateways.listening()[0]);
        let first = Replica::with_routes(&fleet, Options::named("first"), routes(20)).await;
        let pushing = Pushing::start(&fleet, &first);
        pushing.dial("gw", address);
        until("everything is there", || gateway.held_count() == 20).await;

        first.delivery.changed(answering("new", 101)).await.unwrap();
        first.delivery.deleted(Kind::ApiRoute, ObjectKey::new("team", "r1"), Revision(102)).await.unwrap();
        let keys = || gateway.view().held.iter().map(|one| one.key.to_string()).collect::<BTreeSet<_>>();
        until("the changes are there", || {
            let keys = keys();
            keys.contains("team/new") && !keys.contains("team/r1")
        })
        .await;
        let wanted = first.delivery.inspect(|engine| engine.digest(&Default::default())).await.unwrap();
        assert_eq!(*gateway.digest(), *wanted);
        until("it is probed", || first.metrics.gateway_digests.with_label_values(&["equal"]).get() > 0).await;

        // Another replica, which has read more.
        let second = Replica::start(&fleet, Options::named("second")).await;
        let mut now = routes(20);
        now.remove(0);
        now.extend([answering("new", 101), answering("newer", 110)]);
        second.list(now, 120).await;
        let after = Pushing::start(&fleet, &second);
        let before = gateway.view().stats;
        // The one before is cut off: its map still says that the gateway is its own, but it
        // may not act. It finds that its session is over, and does not take it back.
        pushing.may_dial.store(false, Ordering::Relaxed);
        after.dial("gw", address);
        until("what is newer is there", || keys().contains("team/newer")).await;
        until("the first has noticed", || pushing.failures("superseded") > 0).await;
        let probes = after.metrics.calls.with_label_values(&["GetGatewayStatus", "Ok"]);
        let soon = probes.get() + 20;
        until("the second has probed it for longer than the first waits", || probes.get() > soon).await;
        assert_eq!((pushing.failures("superseded"), after.failures("superseded")), (1, 0));
        assert_eq!((pushing.metrics.sessions.get(), after.metrics.sessions.get()), (0, 1));
        assert_eq!(gateway.held_count(), 21);
        let stats = gateway.view().stats;
        assert_eq!((stats.regressions, stats.reappeared), (0, 0));
        assert_eq!(stats.deletions, before.deletions, "something was removed that is still there");
        // Served, and somebody else's from now on.
        after.targets.send_replace(BTreeSet::new());
        until("it is given up", || after.metrics.sessions.get() == 0).await;
        for pushing in [pushing, after] {
            pushing.stop().await;
        }
        for replica in [first, second] {
            replica.stop().await;
        }
        gateways.stop().await;
    }
}

/// One object of each kind that the reference gateway can load.
fn one_of_each(revision: u64, text: &str) -> Vec<RawObject> {
    let specs = [
        (Kind::ApiRoute, format!(r#"{{"directResponse":{{"status":200,"body":"{text}"}}}}"#)),
        (Kind::GrpcRoute, format!(r#"{{"match":[{{"service":{{"exact":"{text}"}}}}]}}"#)),
        (Kind::Backend, format!(r#"{{"hosts":[{{"address":"{text}.example.com","port":80}}]}}"#)),
        (Kind::GrpcBackend, format!(r#"{{"hosts":[{{"address":"{text}.example.com","port":81}}]}}"#)),
    ];
    // One name: only the kind tells them apart.
    (revision..)
        .zip(specs)
        .map(|(revision, (kind, spec))| RawObject { kind, ..route("same", revision, &spec) })
        .collect()
}

/// Digest of what gateways are to hold once the replica has read a revision of a kind.
pub async fn digest_after(replica: &Replica, kind: Kind, revision: u64) -> String {
    within("it has read that far", async {
        loop {
            let read = replica.delivery.inspect(move |engine| {
                let there = engine.frontier().get(kind) >= Revision(revision);
                there.then(|| engine.digest(&Default::default()))
            });
            if let Some(digest) = read.await.unwrap() {
                return digest;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

#[tokio::test]
async fn every_kind_has_its_calls_where_a_gateway_takes_no_batches() {
    let fleet = Fleet::new();
    let gateways = listening(&fleet, "gw", false).await;
    let (gateway, address) = (gateways.gateways()[0].clone(), gateways.listening()[0]);
    let replica = Replica::with_routes(&fleet, Options::named("a"), Vec::new()).await;
    let pushing = Pushing::start(&fleet, &replica);
    pushing.dial("gw", address);
    until("it has been told that there is nothing", || !gateway.version().is_empty()).await;

    let mut digests = BTreeSet::from([gateway.digest().to_string()]);
    let mut next = 101;
    for (round, text) in [Some("one"), Some("two"), None].into_iter().enumerate() {
        for object in one_of_each(next, text.unwrap_or_default()) {
            let (kind, key) = (object.kind, object.key.clone());
            let told = match text {
                Some(_) => replica.delivery.changed(object).await,
                None => replica.delivery.deleted(kind, key, Revision(next)).await,
            };
            told.unwrap();
            let wanted = digest_after(&replica, kind, next).await;
            until(&format!("{kind} is as in round {round}"), || *gateway.digest() == *wanted).await;
            let held = gateway.view().held.iter().any(|one| one.kind == kind);
            assert_eq!(held, text.is_some(), "{kind} in round {round}");
            let different = digests.insert(wanted);
            assert!(different || gateway.held_count() == 0, "{kind} in round {round} changed nothing");
            next += 1;
        }
    }
    assert_eq!(gateway.held_count(), 0);
    // Every call was answered, and each by the call of its kind.
    for kind in ["APIRoute", "GRPCRoute", "Backend", "GRPCBackend"] {
        let calls = |verb: &str| {
            let rpc = format!("{verb}{kind}");
            pushing.metrics.calls.with_label_values(&[rpc.as_str(), "Ok"]).get()
        };
        assert_eq!((calls("Apply"), calls("Delete")), (2, 1), "{kind}");
    }
    assert!(pushing.metrics.calls.with_label_values(&["GetGatewayStatus", "Ok"]).get() > 0);
    assert_eq!(pushing.metrics.calls.with_label_values(&["ApplyBatch", "Ok"]).get(), 0);
    let stats = gateway.view().stats;
    assert_eq!((stats.regressions, stats.reappeared, stats.deletions), (0, 0, 4));
    pushing.stop().await;
    replica.stop().await;
    gateways.stop().await;
}

#[tokio::test]
async fn calls_of_a_session_that_is_over_change_nothing() {
    let fleet = Fleet::new();
    let gateways = listening(&fleet, "gw", true).await;
    let (gateway, address) = (gateways.gateways()[0].clone(), gateways.listening()[0]);
    let mut client_of = client(&fleet, address, &fleet.controller(TRUST_DOMAIN, "system", "a")).await;
    let calls = &mut client_of;

    let unopened = apply(calls, "", 1, "r").await.unwrap_err();
    assert_eq!(unopened.code(), Code::Aborted);
    assert_eq!(open(calls, "one").await.unwrap().last_config_version, "");
    assert!(apply(calls, "one", 1, "r").await.unwrap().success);
    let late = apply(calls, "one", 1, "late").await.unwrap_err();
    assert_eq!(late.code(), Code::OutOfRange, "{late}");
    // What the next one is told is the last word.
    assert_eq!(open(calls, "two").await.unwrap().last_config_version, "v1");
    let stale = apply(calls, "one", 2, "stale").await.unwrap_err();
    assert_eq!(stale.code(), Code::Aborted, "{stale}");
    assert_eq!((gateway.held_count(), &*gateway.version()), (1, "v1"));
    // Its sequences count anew, and what is not there is removed without complaint.
    let update = Some(ResourceUpdate {
        session_id: "two".to_owned(),
        config_version: "v2".to_owned(),
        sequence: 1,
        resource: Some(ConfigurationResource {
            namespace: "team".into(),
            name: "x".into(),
            ..Default::default()
        }),
    });
    let deleted = calls.delete_api_route(DeleteApiRouteRequest { update }).await.unwrap().into_inner();
    assert!(deleted.result.unwrap().success);

    // Somebody else of the same authority may not even ask.
    let mut other = client(&fleet, address, &fleet.gateway("other")).await;
    let refused = open(&mut other, "three").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert_eq!(apply(&mut other, "two", 2, "r2").await.unwrap_err().code(), Code::PermissionDenied);
    let mut foreign = client(&fleet, address, &fleet.controller("other.local", "system", "a")).await;
    assert_eq!(open(&mut foreign, "three").await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(gateway.link().session, "two");
    gateways.stop().await;
}

#[tokio::test]
async fn another_gateway_at_the_address_is_not_served_and_the_right_one_is_found_later() {
    let fleet = Fleet::new();
    let gateways = listening(&fleet, "gw", true).await;
    let (gateway, address) = (gateways.gateways()[0].clone(), gateways.listening()[0]);
    let replica = Replica::with_routes(&fleet, Options::named("a"), routes(3)).await;
    let pushing = Pushing::start(&fleet, &replica);
    pushing.dial("expected", address);
    until("it is refused", || pushing.failures("identity") > 1).await;
    assert_eq!((gateway.held_count(), &*gateway.link().session), (0, ""));
    pushing.dial("gw", address);
    until("the right one is served", || gateway.held_count() == 3).await;

    // It goes, and comes back empty at another address.
    gateways.stop().await;
    until("it is missed", || pushing.failures("connect") > 1).await;
    assert_eq!(pushing.metrics.sessions.get(), 0);
    let views = replica.delivery.inspect(|engine| engine.session_count()).await.unwrap();
    assert_eq!(views, 0, "a gateway that is away has a session");
    let gateways = listening(&fleet, "gw", true).await;
    pushing.dial("gw", gateways.listening()[0]);
    let gateway = gateways.gateways()[0].clone();
    until("it has everything again", || gateway.held_count() == 3).await;
    pushing.stop().await;
    replica.stop().await;
    gateways.stop().await;
}

#[tokio::test]
async fn a_replica_tells_tools_whom_it_serves_and_gateways_about_themselves() {
    let fleet = Fleet::new();
    let (one, two) = (listening(&fleet, "one", true).await, listening(&fleet, "two", true).await);
    let replica = Replica::with_routes(&fleet, Options::named("a"), routes(3)).await;
    let pushing = Pushing::start(&fleet, &replica);
    let target = |name: &str, gateways: &Gateways| -> Target {
        format!("edge/{name}={}", gateways.listening()[0]).parse().unwrap()
    };
    pushing.targets.send_replace([target("one", &one), target("two", &two)].into());
    until("both have everything", || [&one, &two].iter().all(|one| one.gateways()[0].held_count() == 3))
        .await;
    let ask = async |certificate: &CertificatePem| {
        let tls = fleet.client(Some(certificate));
        let mut client = ConfigurationServiceClient::new(channel(replica.address, &tls).await.unwrap());
        let answer =
            client.get_gateway_status(GetGatewayStatusRequest::default()).await.unwrap().into_inner();
        let of_session = open(&mut client, "mine").await.unwrap_err().code();
        assert_eq!(of_session, Code::InvalidArgument);
        let update = client.apply_api_route(ApplyApiRouteRequest::default()).await.unwrap_err();
        assert_eq!(update.code(), Code::Unimplemented);
        answer.served
    };
    let identity = Identity::tool(TRUST_DOMAIN, "system", "dashboard").unwrap();
    let tool = fleet.authority.issue_leaf(&LeafRequest::tool(identity), SystemTime::now()).unwrap();
    within("both are in step", async {
        loop {
            let served = ask(&tool).await;
            let names: Vec<_> = served.iter().map(|one| one.name.as_str()).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2, "{names:?}");
            assert!(served.iter().all(|one| one.dialled && one.rejected == 0), "{served:?}");
            if served.iter().all(|one| one.in_step) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let own = ask(&fleet.gateway("one")).await;
    assert_eq!(own.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["one"]);
    assert!(ask(&fleet.gateway("three")).await.is_empty());
    assert_eq!(ask(&fleet.controller(TRUST_DOMAIN, "system", "b")).await.len(), 2);
    // It may ask replicas, and nothing else.
    let mut calls = client(&fleet, one.listening()[0], &tool).await;
    assert_eq!(open(&mut calls, "mine").await.unwrap_err().code(), Code::PermissionDenied);
    let mut stream = dial(replica.address, &fleet.client(Some(&tool))).await.unwrap();
    let refused = stream.stream_configuration(stream_request("one", "mine", "")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    pushing.stop().await;
    replica.stop().await;
    one.stop().await;
    two.stop().await;
}
