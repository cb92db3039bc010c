//! Replicas that talk to each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_core::delivery::{AppliedRow, AppliedTable, DeliveryConfig, Scope};
use flotilla_core::ids::{Epoch, Frontier, Kind, MemberName, ObjectKey, Revision};
use flotilla_grpc::peers::{PeerAddress, PeerEvent};
use flotilla_proto::peer::peer_message::Message;
use flotilla_proto::peer::peer_service_client::PeerServiceClient;
use flotilla_proto::peer::{Hello, HistoryRequest, PeerMessage};
use tonic::Code;
use tonic::transport::Channel;

use crate::fleet::{
    Fleet, Gateway, HISTORY, Options, Replica, TRUST_DOMAIN, ack_request, channel, dial, route, until, within,
};

fn table(gateways: u32) -> Arc<AppliedTable> {
    let row = AppliedRow {
        scope: Scope::default(),
        low: Frontier::default(),
        excluded: Vec::new(),
        unknown: false,
        gateways,
        names: Vec::new(),
    };
    Arc::new(AppliedTable { rows: vec![row], rejections: Vec::new() })
}

fn introduce(replicas: &[&Replica]) {
    let all: Vec<PeerAddress> = replicas.iter().map(|replica| replica.peer_address()).collect();
    for replica in replicas {
        replica.addresses.send_replace(all.clone());
    }
}

/// The next event that the filter picks.
async fn event<T>(what: &str, replica: &mut Replica, pick: impl Fn(PeerEvent) -> Option<T>) -> T {
    within(what, async {
        loop {
            let event = replica.events.recv().await.unwrap();
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    })
    .await
}

fn hello_of(wanted: &'static str) -> impl Fn(PeerEvent) -> Option<(String, Epoch)> {
    move |event| match event {
        PeerEvent::Hello { member, instance, highest_epoch, .. } if member.as_str() == wanted => {
            Some((instance.to_string(), highest_epoch))
        }
        _ => None,
    }
}

fn settled_of(wanted: &'static str) -> impl Fn(PeerEvent) -> Option<Epoch> {
    move |event| match event {
        PeerEvent::Settled { member, epoch, .. } if member.as_str() == wanted => Some(epoch),
        _ => None,
    }
}

fn gateways_of(wanted: &'static str) -> impl Fn(PeerEvent) -> Option<u32> {
    move |event| match event {
        PeerEvent::Applied { member, table, .. } if member.as_str() == wanted => {
            Some(table.rows.iter().map(|row| row.gateways).sum())
        }
        _ => None,
    }
}

#[tokio::test]
async fn three_members_hear_each_other() {
    let fleet = Fleet::new();
    let mut a = Replica::start(&fleet, Options::named("a")).await;
    let mut b = Replica::start(&fleet, Options::named("b")).await;
    let mut c = Replica::start(&fleet, Options::named("c")).await;
    a.peers.announce_settled("a/1".into(), Epoch(3));
    introduce(&[&a, &b, &c]);
    for listener in [&mut b, &mut c] {
        assert_eq!(event("a's hello", listener, hello_of("a")).await, ("a/1".to_owned(), Epoch(3)));
        assert_eq!(event("a's epoch", listener, settled_of("a")).await, Epoch(3));
    }
    event("b's hello", &mut a, hello_of("b")).await;
    event("c's hello", &mut a, hello_of("c")).await;
    b.peers.announce_settled("b/1".into(), Epoch(4));
    for listener in [&mut a, &mut c] {
        assert_eq!(event("b's epoch", listener, settled_of("b")).await, Epoch(4));
    }
    until("everybody reaches everybody", || {
        [&a, &b, &c].iter().all(|replica| replica.peers.connected().len() == 2)
    })
    .await;
    for replica in [a, b, c] {
        replica.stop().await;
    }
}

#[tokio::test]
async fn of_many_tables_the_newest_arrives_and_not_all_of_them() {
    let fleet = Fleet::new();
    let a = Replica::start(&fleet, Options { tell_peers: false, ..Options::named("a") }).await;
    let mut b = Replica::start(&fleet, Options::named("b")).await;
    introduce(&[&a, &b]);
    event("a's hello", &mut b, hello_of("a")).await;
    for gateways in 1..=500 {
        a.peers.set_applied(table(gateways));
        if gateways % 100 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut tables = 0;
    while event("a's table", &mut b, gateways_of("a")).await != 500 {
        tables += 1;
    }
    assert!(tables < 20, "{tables} tables in a moment");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_member_that_restarts_is_told_everything_again() {
    let fleet = Fleet::new();
    let mut a = Replica::start(&fleet, Options { tell_peers: false, ..Options::named("a") }).await;
    let b = Replica::start(&fleet, Options::named("b")).await;
    introduce(&[&a, &b]);
    a.peers.announce_settled("a/1".into(), Epoch(7));
    a.peers.set_applied(table(9));
    assert_eq!(event("b's hello", &mut a, hello_of("b")).await.0, "b/1");

    let address: SocketAddr = b.address;
    b.stop().await;
    let lost = event("b's loss", &mut a, |event| match event {
        PeerEvent::Lost { member, instance } => Some((member.to_string(), instance.to_string())),
        _ => None,
    })
    .await;
    assert_eq!(lost, ("b".to_owned(), "b/1".to_owned()));

    let again = Options { instance: "2", listen: Some(address), ..Options::named("b") };
    let mut b = Replica::start(&fleet, again).await;
    introduce(&[&a, &b]);
    assert_eq!(event("b's second hello", &mut a, hello_of("b")).await.0, "b/2");
    assert_eq!(event("a's epoch", &mut b, settled_of("a")).await, Epoch(7));
    while event("a's table", &mut b, gateways_of("a")).await != 9 {}
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_member_that_leaves_says_so_before_it_is_lost() {
    let fleet = Fleet::new();
    let a = Replica::start(&fleet, Options::named("a")).await;
    let mut b = Replica::start(&fleet, Options::named("b")).await;
    introduce(&[&a, &b]);
    event("a's hello", &mut b, hello_of("a")).await;
    a.peers.announce_departed("a/1".into());
    a.stop().await;
    let order = event("a's departure", &mut b, |event| match event {
        PeerEvent::Departed { member, .. } if member.as_str() == "a" => Some("departed"),
        PeerEvent::Lost { member, .. } if member.as_str() == "a" => Some("lost"),
        _ => None,
    })
    .await;
    assert_eq!(order, "departed");
    b.stop().await;
}

#[tokio::test]
async fn an_acknowledgement_on_another_replica_reaches_the_session() {
    let fleet = Fleet::new();
    let a = Replica::with_routes(&fleet, Options::named("a"), vec![route("r", 10, "{}")]).await;
    let mut b = Replica::with_routes(&fleet, Options::named("b"), vec![route("r", 10, "{}")]).await;
    introduce(&[&a, &b]);
    until("they are connected", || a.peers.connected().len() == 1 && b.peers.connected().len() == 1).await;

    let mut gateway = Gateway::connect(&fleet, &b, "gw", "").await;
    let update = gateway.next().await.unwrap();
    // The gateway's other connection ended up at `a`.
    let mut elsewhere = dial(a.address, &fleet.client(Some(&fleet.gateway("gw")))).await.unwrap();
    let answer =
        elsewhere.acknowledge_configuration(ack_request("gw", &gateway.session, &update.version)).await;
    assert!(answer.unwrap().into_inner().received);
    let ack = event("the forwarded acknowledgement", &mut b, |event| match event {
        PeerEvent::ForwardedAck(ack) => Some(ack),
        _ => None,
    })
    .await;
    assert_eq!(ack.session.as_str(), gateway.session);
    b.delivery.forwarded_ack(ack).await.unwrap();
    // Only the first of the two messages went that way.
    assert!(gateway.apply_next().await.snapshot.is_some());
    let view = b.outputs.view.clone();
    until("it counts as applied", || {
        let table = view.borrow().table.clone();
        matches!(&table.rows[..], [row] if row.low.get(Kind::ApiRoute) == Revision(100) && !row.unknown)
    })
    .await;
    assert_eq!(a.metrics.forwarded.with_label_values(&["ack", "sent"]).get(), 1);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn deletions_are_remembered_by_those_who_saw_them() {
    let fleet = Fleet::new();
    let a = Replica::with_routes(&fleet, Options::named("a"), vec![route("r", 10, "{}")]).await;
    let b = Replica::start(&fleet, Options::named("b")).await;
    a.delivery.deleted(Kind::ApiRoute, ObjectKey::new("team", "r"), Revision(150)).await.unwrap();
    let c = Replica::start(&fleet, Options { silent: true, ..Options::named("c") }).await;
    let asked = async |since, until| b.peers.history(Kind::ApiRoute, Revision(since), Revision(until)).await;
    assert_eq!(asked(120, 150).await, None);
    introduce(&[&a, &b, &c]);
    until("they are connected", || b.peers.connected().len() == 2).await;
    // One who does not answer keeps nobody waiting.
    let begun = Instant::now();
    let history = asked(120, 150).await.unwrap();
    assert!(begun.elapsed() < HISTORY, "{:?}", begun.elapsed());
    assert_eq!(history.until, Revision(150));
    assert_eq!(history.tombstones.len(), 1);
    assert_eq!(history.tombstones[0].key, ObjectKey::new("team", "r"));
    // Further back than `a`'s list.
    assert_eq!(asked(50, 150).await, None);
    assert_eq!(asked(120, 151).await, None, "nobody has read so far");
    a.stop().await;
    b.stop().await;
    c.stop().await;
}

async fn peer_client(
    fleet: &Fleet,
    replica: &Replica,
    certificate: &flotilla_certs::CertificatePem,
) -> PeerServiceClient<Channel> {
    let tls = fleet.peer_client(certificate);
    PeerServiceClient::new(channel(replica.address, &tls).await.unwrap())
}

#[tokio::test]
async fn only_members_of_the_fleet_are_listened_to() {
    let fleet = Fleet::new();
    let replica = Replica::start(&fleet, Options::named("a")).await;
    let hello = |member: &str| {
        let hello = Hello { member: member.to_owned(), instance: format!("{member}/1"), ..Hello::default() };
        tokio_stream::once(PeerMessage { message: Some(Message::Hello(hello)) })
    };
    for certificate in [
        fleet.gateway("b"),
        fleet.controller("other.local", "system", "b"),
        fleet.controller(TRUST_DOMAIN, "elsewhere", "b"),
    ] {
        let mut client = peer_client(&fleet, &replica, &certificate).await;
        assert_eq!(client.exchange(hello("b")).await.unwrap_err().code(), Code::PermissionDenied);
        let status = client.history(HistoryRequest { kind: 1, since: 0 }).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    // The right fleet, but the name of another member.
    let mut client = peer_client(&fleet, &replica, &fleet.controller(TRUST_DOMAIN, "system", "b")).await;
    let status = client.exchange(hello("c")).await.unwrap_err();
    assert!(status.message().contains("member c") && status.message().contains("controller/b"), "{status}");
    replica.stop().await;
}

/// Until a replica has noticed that etcd was restored, its tables and deletions are of
/// revisions that mean something else to the others.
#[tokio::test]
async fn who_reads_another_history_is_not_listened_to() {
    let fleet = Fleet::new();
    let reading = |name, incarnation: &str| {
        let options = Options::named(name);
        let delivery = DeliveryConfig { incarnation: incarnation.into(), ..options.delivery };
        Options { delivery, ..options }
    };
    let mut a = Replica::start(&fleet, reading("a", "00000002")).await;
    let mut client = peer_client(&fleet, &a, &fleet.controller(TRUST_DOMAIN, "system", "raw")).await;
    let hello = |incarnation: &str| {
        let hello = Hello {
            member: "raw".to_owned(),
            instance: "raw/1".to_owned(),
            incarnation: incarnation.to_owned(),
            ..Hello::default()
        };
        tokio_stream::once(PeerMessage { message: Some(Message::Hello(hello)) })
    };
    let status = client.exchange(hello("00000001")).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let words = "you read the history 00000001, this member reads 00000002";
    assert!(status.message().starts_with(words), "{status}");
    for known in ["00000002", ""] {
        client.exchange(hello(known)).await.unwrap();
        event("it is listened to", &mut a, hello_of("raw")).await;
    }

    let b = Replica::start(&fleet, reading("b", "00000001")).await;
    let mut c = Replica::start(&fleet, reading("c", "00000002")).await;
    introduce(&[&a, &b, &c]);
    event("a's hello", &mut c, hello_of("a")).await;
    until("a and c reach each other", || {
        [(&a, "c"), (&c, "a")]
            .iter()
            .all(|(replica, other)| replica.peers.connected() == [MemberName::from(*other)])
    })
    .await;
    assert_eq!(b.peers.connected(), []);
    for replica in [a, b, c] {
        replica.stop().await;
    }
}

#[tokio::test]
async fn an_address_that_leads_to_another_member_is_not_spoken_to() {
    let fleet = Fleet::new();
    let a = Replica::start(&fleet, Options::named("a")).await;
    let mut b = Replica::start(&fleet, Options::named("b")).await;
    let wrong = PeerAddress { member: MemberName::from("c"), ..b.peer_address() };
    a.addresses.send_replace(vec![wrong, b.peer_address()]);
    event("a's hello, said to the right one", &mut b, hello_of("a")).await;
    until("only b is reached", || a.peers.connected() == [MemberName::from("b")]).await;
    a.stop().await;
    b.stop().await;
}
