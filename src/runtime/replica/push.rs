//! Which gateways that listen this replica dials.
//!
//! Each is dialled by the owner of its name in the shard map, as long as that one may
//! act. A session that is there stays until the map gives the gateway to another, or
//! the gateway's next owner opens one: being cut off from the API server is no reason
//! to leave a gateway. But nobody dials without the right to act, or a replica that is
//! cut off, and therefore behind, would take the gateway from its new owner again and
//! again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::ids::MemberName;
use flotilla_grpc::push::Target;
use flotilla_k8s::coordination::{ActingPermit, OwnershipView};
use flotilla_k8s::endpoints::ServicePort;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether this replica may act by now: the map and what may
/// be acted on by it are told, that a permit runs out is not.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often names are looked up.
const LOOK_UP_EVERY: Duration = Duration::from_secs(10);

/// How long looking up one name may take.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Chooses what this replica dials of what was found.
pub struct Choosing {
    /// This replica.
    pub member: MemberName,
    /// Who owns what.
    pub ownership: watch::Receiver<Arc<OwnershipView>>,
    /// Whether we may act.
    pub permit: ActingPermit,
    /// All gateways that listen.
    pub found: watch::Receiver<BTreeSet<Target>>,
    /// Those that this replica dials.
    pub chosen: watch::Sender<BTreeSet<Target>>,
}

impl Choosing {
    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.choose();
            // Coordination and the search may be gone earlier; what they said last goes on.
            tokio::select! {
                () = cancel.cancelled() => return,
                Ok(()) = self.ownership.changed() => {}
                Ok(()) = self.found.changed() => {}
                _ = looks.tick() => {}
            }
        }
    }

    fn choose(&mut self) {
        let view = self.ownership.borrow_and_update().clone();
        let permit = self.permit.current();
        let owns = |key: &str| view.owner(key) == Some(&self.member);
        let found = self.found.borrow_and_update();
        self.chosen.send_if_modified(|chosen| {
            let next = choose(&found, chosen, owns, |key| permit.may_act(key));
            let differs = next != *chosen;
            *chosen = next;
            differs
        });
    }
}

/// Of what was found, what is to be dialled.
fn choose(
    found: &BTreeSet<Target>,
    dialled: &BTreeSet<Target>,
    owns: impl Fn(&str) -> bool,
    may_act: impl Fn(&str) -> bool,
) -> BTreeSet<Target> {
    let ours = |target: &&Target| {
        let key = target.ring_key();
        owns(&key) && (dialled.contains(*target) || may_act(&key))
    };
    found.iter().filter(ours).cloned().collect()
}

/// Finds gateways by DNS names and Services, besides those that are named one by one.
pub struct Search {
    /// Gateways that are always there.
    pub fixed: BTreeSet<Target>,
    /// `host:port`, all of whose addresses are gateways.
    pub names: Vec<String>,
    /// The addresses behind a Service, whenever they have changed.
    pub behind: mpsc::Receiver<(ServicePort, BTreeSet<SocketAddr>)>,
    /// What was found.
    pub found: watch::Sender<BTreeSet<Target>>,
}

/// Where an address was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Name(String),
    Service(ServicePort),
}

impl Search {
    /// Looks until cancelled. A name that cannot be looked up, and a Service whose
    /// endpoints cannot be read, keep the addresses that they had.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut known: BTreeMap<Source, BTreeSet<SocketAddr>> = BTreeMap::new();
        let mut ticks = interval(LOOK_UP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Which comes first does not matter: the other comes next.
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => look_up(&self.names, &mut known).await,
                Some((service, addresses)) = self.behind.recv() => {
                    known.insert(Source::Service(service), addresses);
                }
            }
            let at = |address: &SocketAddr| Target { gateway: None, address: address.to_string() };
            let all: BTreeSet<_> =
                self.fixed.iter().cloned().chain(known.values().flatten().map(at)).collect();
            self.found.send_if_modified(|found| {
                let differs = *found != all;
                if differs {
                    tracing::info!(gateways = all.len(), "gateways that listen");
                    *found = all;
                }
                differs
            });
        }
    }
}

async fn look_up(names: &[String], known: &mut BTreeMap<Source, BTreeSet<SocketAddr>>) {
    for name in names {
        match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(name)).await {
            Ok(Ok(addresses)) => drop(known.insert(Source::Name(name.clone()), addresses.collect())),
            Ok(Err(error)) => tracing::warn!(name, %error, "a name of gateways cannot be looked up"),
            Err(_) => tracing::warn!(name, "looking up a name of gateways takes too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(texts: &[&str]) -> BTreeSet<Target> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_gateway_is_dialled_by_its_owner_who_may_act_and_kept_without() {
        let found = targets(&["edge/a=a:1", "edge/b=b:1", "edge/c=c:1"]);
        let owns = |key: &str| key != "gateway/edge/c";
        let chosen = choose(&found, &BTreeSet::new(), owns, |key| key == "gateway/edge/a");
        assert_eq!(chosen, targets(&["edge/a=a:1"]));
        // The permit has run out: what is dialled stays, nothing comes.
        assert_eq!(choose(&found, &chosen, owns, |_| false), chosen);
        // Another owner: it goes, whatever may be done.
        assert!(choose(&found, &chosen, |_| false, |_| true).is_empty());
        // It is not there any more.
        assert!(choose(&targets(&["edge/b=b:1"]), &chosen, owns, |_| false).is_empty());
    }

    #[tokio::test]
    async fn every_address_of_a_name_and_behind_a_service_is_a_gateway() {
        let (found_in, mut found) = watch::channel(BTreeSet::new());
        let cancel = CancellationToken::new();
        let (behind_in, behind) = mpsc::channel(1);
        let search = Search {
            fixed: targets(&["edge/a=a:1"]),
            names: vec!["127.0.0.1:9446".to_owned(), "does-not-exist.invalid:9446".to_owned()],
            behind,
            found: found_in,
        };
        let task = tokio::spawn(search.run(cancel.clone()));
        let at = |address: &str| Target { gateway: None, address: address.to_owned() };
        found.wait_for(|found| found.contains(&at("127.0.0.1:9446")) && found.len() == 2).await.unwrap();
        let service: ServicePort = "edge/gateways".parse().unwrap();
        let pod: SocketAddr = "10.0.0.1:9446".parse().unwrap();
        behind_in.send((service.clone(), [pod].into())).await.unwrap();
        found.wait_for(|found| found.contains(&at("10.0.0.1:9446")) && found.len() == 3).await.unwrap();
        behind_in.send((service, BTreeSet::new())).await.unwrap();
        found.wait_for(|found| found.len() == 2).await.unwrap();
        cancel.cancel();
        task.await.unwrap();
    }
}
