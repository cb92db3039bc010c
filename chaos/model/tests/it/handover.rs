//! The hand-over: nothing is found in what is, something in every mistake.

use flotilla_core::coordination::{DrainTicket, Event, LeaseList, LeaseName, MapRecord, RequestError};
use flotilla_core::ids::{Epoch, Revision};
use flotilla_core::shardmap::OperatorSpec;
use flotilla_core::time::Mono;
use flotilla_model::handover::{Action, Id, Mistake, Model, Modelled, Size, modelled};
use flotilla_model::{Exploration, Limits, explore};

const NOTHING: Size = Size { replicas: 2, namespaces: 2, crashes: 0, expiries: 0, shutdowns: 0, edits: 0 };

fn run(size: Size, mistake: Option<Mistake>) -> Exploration {
    explore(Model { size, mistake }, Limits { states: 300_000, ..Limits::default() })
}

fn nothing_is_found(size: Size) {
    let found = run(size, None);
    assert_eq!(found.violation, None);
    assert!(found.complete && found.states > 50, "{found:?}");
}

#[test]
fn two_replicas_hand_over_through_crash_expiry_shutdown_and_edits() {
    for size in [
        Size { crashes: 1, ..NOTHING },
        Size { expiries: 1, ..NOTHING },
        Size { shutdowns: 1, ..NOTHING },
        Size { namespaces: 1, edits: 2, ..NOTHING },
    ] {
        nothing_is_found(size);
    }
}

/// A mistake must be found by so few steps.
fn is_found(mistake: Mistake, size: Size, promise: &str, steps: usize) {
    let found = run(size, Some(mistake));
    let (broken, way) = found.violation.expect("the mistake is found");
    assert!(broken.starts_with(promise), "{mistake:?} broke {broken}");
    assert!(way.len() <= steps, "{mistake:?} took {way:#?}");
}

#[test]
fn every_mistake_is_found() {
    for mistake in Mistake::ALL {
        let (size, promise, steps) = match mistake {
            Mistake::BarrierSkipped => (Size { edits: 1, ..NOTHING }, "I1", 2),
            Mistake::ReleaseIgnored => (Size { edits: 1, ..NOTHING }, "I1", 9),
            Mistake::DrainSkipped => (Size { edits: 1, ..NOTHING }, "I1", 9),
            Mistake::FencingOff => (Size { expiries: 1, ..NOTHING }, "I1", 9),
            Mistake::ClocksCompared => (NOTHING, "I1", 9),
            // Somebody else must publish while two members are at different maps.
            Mistake::LaterEpochCounts => (Size { replicas: 3, namespaces: 1, edits: 2, ..NOTHING }, "I1", 12),
            Mistake::LivingLeftOut => (NOTHING, "I1", 9),
            Mistake::InstanceReused => (Size { expiries: 1, ..NOTHING }, "I1", 9),
            Mistake::ReleaseUnheard => (Size { edits: 1, ..NOTHING }, "progress", 9),
        };
        is_found(mistake, size, promise, steps);
    }
}

#[test]
fn actions_are_named_like_the_events_of_the_core() {
    let record = MapRecord {
        uid: "u".into(),
        revision: Revision(1),
        spec: OperatorSpec::default(),
        published: None,
        in_step: true,
    };
    let leader = LeaseName::Leader;
    let list = LeaseList { sent_at: Mono(0), revision: Revision(1), leases: Vec::new() };
    let events = [
        Event::Tick,
        Event::LeasesListed(Ok(list)),
        Event::LeaseDeleted(leader.clone(), Revision(1)),
        Event::LeaseAnswered(leader, Err(RequestError::Conflict)),
        Event::MapRead { sent_at: Mono(0), answer: Ok(None) },
        Event::MapChanged(record.clone()),
        Event::MapDeleted(Revision(1)),
        Event::MapWritten(Ok(record)),
        Event::PeerSettled { instance: "a/1".into(), epoch: Epoch(1) },
        Event::PeerDeparted { instance: "a/1".into() },
        Event::PeerHello { highest: Epoch(1) },
        Event::Drained(DrainTicket(1)),
        Event::Shutdown,
    ];
    let (at, ended, epoch) = (0, Id { member: 0, process: 1, tenure: 0 }, Epoch(1));
    let of_the_core = [
        Action::Tick { at },
        Action::LeaseAnswered { at },
        Action::LeaseChanged { at, ended },
        Action::LeasesListed { at, ended },
        Action::MapChanged { at, epoch },
        Action::MapWritten { at, joining: 0 },
        Action::PeerSettled { at, peer: 1 },
        Action::PeerDeparted { at, ended },
        Action::Drained { at },
        Action::Shutdown { at },
    ];
    for event in &events {
        let name = format!("{event:?}");
        let name = name.split([' ', '(', '{']).next().unwrap_or_default();
        match modelled(event) {
            Modelled::As(action) => {
                assert_eq!(action, name);
                assert!(of_the_core.iter().any(|known| known.name() == action), "{action}");
            }
            Modelled::Not(reason) => assert!(!reason.is_empty()),
        }
    }
    for action in of_the_core {
        let stands_for = |event: &Event| modelled(event) == Modelled::As(action.name());
        let lease_changed = action.name() == "LeaseChanged";
        assert!(lease_changed || events.iter().any(stands_for), "{action:?} stands for no event");
    }
}
