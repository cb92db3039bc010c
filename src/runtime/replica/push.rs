//! Which gateways that listen this replica dials.
//!
//! Each is dialled by the owner of its name in the shard map, as long as that one may
//! act: links ask for that before every attempt. A session that is there stays until the
//! map gives the gateway to another, or the gateway's next owner opens one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flotilla_core::ids::MemberName;
use flotilla_grpc::push::Target;
use flotilla_k8s::coordination::OwnershipView;
use flotilla_k8s::endpoints::ServicePort;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

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
    /// All gateways that listen.
    pub found: watch::Receiver<BTreeSet<Target>>,
    /// Those that this replica dials.
    pub chosen: watch::Sender<BTreeSet<Target>>,
}

impl Choosing {
    /// Runs until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        loop {
            self.choose();
            // The search may be gone earlier; what it said last goes on.
            tokio::select! {
                () = cancel.cancelled() => return,
                Ok(()) = self.ownership.changed() => {}
                Ok(()) = self.found.changed() => {}
                else => return cancel.cancelled().await,
            }
        }
    }

    fn choose(&mut self) {
        let view = self.ownership.borrow_and_update().clone();
        let owned = |target: &&Target| view.owner(&target.ring_key()) == Some(&self.member);
        let next: BTreeSet<_> = self.found.borrow_and_update().iter().filter(owned).cloned().collect();
        self.chosen.send_if_modified(|chosen| {
            let differs = next != *chosen;
            *chosen = next;
            differs
        });
    }
}

/// Gateways that are named one by one.
///
/// # Errors
/// When two of them have one name or one address: replicas would take such a gateway
/// from each other.
pub fn distinct(named: &[Target]) -> anyhow::Result<BTreeSet<Target>> {
    let all: BTreeSet<_> = named.iter().cloned().collect();
    let (mut gateways, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for target in &all {
        let twice = match &target.gateway {
            Some(gateway) if !gateways.insert(gateway) => gateway.to_string(),
            _ if !addresses.insert(&target.address) => target.address.clone(),
            _ => continue,
        };
        anyhow::bail!("--push-gateways has {twice} twice; name each gateway once, with its own address");
    }
    Ok(all)
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
            // Which comes first does not matter: the other comes next.
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => tokio::select! {
                    () = cancel.cancelled() => return,
                    found = futures::future::join_all(self.names.iter().map(|name| look_up(name))) => {
                        known.extend(found.into_iter().flatten());
                    }
                },
                Some((service, addresses)) = self.behind.recv() => {
                    known.insert(Source::Service(service), addresses);
                }
            }
        }
    }
}

/// The addresses of a name, of one family: the same gateway may have one of each.
async fn look_up(name: &str) -> Option<(Source, BTreeSet<SocketAddr>)> {
    match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(name)).await {
        Ok(Ok(addresses)) => {
            let all: BTreeSet<_> = addresses.collect();
            let family = all.iter().any(SocketAddr::is_ipv4);
            let one = all.into_iter().filter(|address| address.is_ipv4() == family).collect();
            return Some((Source::Name(name.to_owned()), one));
        }
        Ok(Err(error)) => tracing::warn!(name, %error, "a name of gateways cannot be looked up"),
        Err(_) => tracing::warn!(name, "looking up a name of gateways takes too long"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(texts: &[&str]) -> BTreeSet<Target> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_gateway_and_an_address_are_named_once() {
        let named = |texts: &[&str]| {
            distinct(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Target>>())
        };
        assert_eq!(named(&["edge/a=a:1", "edge/b=b:1", "edge/a=a:1"]).unwrap().len(), 2);
        for twice in [["edge/a=a:1", "edge/a=b:1"], ["edge/a=a:1", "edge/b=a:1"]] {
            let error = named(&twice).unwrap_err().to_string();
            assert!(error.contains("--push-gateways") && error.contains("twice"), "{error}");
        }
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
