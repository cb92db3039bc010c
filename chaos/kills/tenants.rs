//! The tenants: what they have at the start, and what they keep changing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flotilla_core::ids::Kind;
use flotilla_testing::fleet::objects::{Tenants, backend, leading};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::book::Goal;
use crate::edge::{SharedBook, with_book};

/// The route of every namespace by which it is tried whether its owner acts. It
/// is invalid, so its status is written as soon as somebody may, and says
/// nothing of gateways: a valid route's waits for those that have just lost
/// their replica.
pub const PROBED: &str = "route-0";
/// The others.
const ROUTES: u64 = 3;

/// The tenants' hands and namespaces.
#[derive(Clone)]
pub struct Workload {
    /// Their hands.
    pub hands: Tenants,
    /// Their namespaces.
    pub namespaces: Vec<String>,
    /// Where their changes are written down.
    pub book: SharedBook,
}

/// Destinations whose weights add up to nothing sensible: the schema takes
/// them, validation does not.
fn uneven(namespace: &str) -> serde_json::Value {
    let destination = |host: &str| json!({"destination": {"host": host, "port": 8080}, "weight": 30});
    let mut spec = leading(namespace, PROBED, "api");
    spec["route"] = json!([destination("api"), destination("other")]);
    spec
}

impl Workload {
    /// Gives every namespace a Backend and routes.
    pub async fn furnish(&self) {
        self.hands.namespaces(self.namespaces.iter().cloned()).await;
        let each = |name: &str, spec: &dyn Fn(&str) -> serde_json::Value| -> Vec<_> {
            self.namespaces.iter().map(|ns| (ns.clone(), name.to_owned(), spec(ns))).collect()
        };
        self.hands.create_all(Kind::Backend, each("api", &|_| backend(8080))).await;
        let probed = each(PROBED, &|namespace| uneven(namespace));
        self.hands.create_all(Kind::ApiRoute, probed).await;
        for number in 1..ROUTES {
            let name = format!("route-{number}");
            let routes = each(&name, &|namespace| leading(namespace, &name, "api"));
            self.hands.create_all(Kind::ApiRoute, routes).await;
        }
    }

    /// Changes a namespace's probed route; returns its generation. A number is
    /// used once: a change that changes nothing has no generation.
    pub async fn probe(&self, namespace: &str, number: u64) -> i64 {
        let spec = json!({ "timeout": format!("{}ms", 1000 + number) });
        self.hands.change(Kind::ApiRoute, namespace, PROBED, spec).await
    }

    async fn edit(&self, kind: Kind, namespace: &str, name: &str, spec: serde_json::Value) -> i64 {
        let generation = self.hands.change(kind, namespace, name, spec).await;
        self.wrote(kind, namespace, name, generation);
        generation
    }

    fn wrote(&self, kind: Kind, namespace: &str, name: &str, generation: i64) {
        let answered = Instant::now();
        let id = (kind, format!("{namespace}/{name}"));
        with_book(&self.book, |book| book.changed(&id, Goal::Generation(generation), answered));
    }

    /// Makes changes at this rate until cancelled.
    pub async fn work(self, per_second: u32, cancel: CancellationToken) {
        let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut extras: VecDeque<(String, String)> = VecDeque::new();
        for number in 0_u64.. {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.change(number, &mut extras).await;
        }
    }

    /// Mostly edits of routes; now and then one of a Backend, or a route that
    /// comes or goes.
    async fn change(&self, number: u64, extras: &mut VecDeque<(String, String)>) {
        let index = number * 7 % self.namespaces.len() as u64;
        let namespace = &self.namespaces[usize::try_from(index).unwrap_or_default()];
        match number % 10 {
            3 => {
                let port = 9000 + u16::try_from(number % 1000).unwrap_or_default();
                self.edit(Kind::Backend, namespace, "api", backend(port)).await;
            }
            5 => {
                let name = format!("extra-{number}");
                let spec = leading(namespace, &name, "api");
                let generation = self.hands.create(Kind::ApiRoute, namespace, &name, spec).await;
                self.wrote(Kind::ApiRoute, namespace, &name, generation);
                extras.push_back((namespace.clone(), name));
            }
            6 if extras.len() > 3 => {
                let Some((namespace, name)) = extras.pop_front() else { return };
                let id = (Kind::ApiRoute, format!("{namespace}/{name}"));
                with_book(&self.book, |book| book.deleting(&id));
                self.hands.delete(Kind::ApiRoute, &namespace, &name).await;
                let answered = Instant::now();
                with_book(&self.book, |book| book.changed(&id, Goal::Gone, answered));
            }
            _ => {
                let name = format!("route-{}", 1 + number % (ROUTES - 1));
                let spec = json!({ "timeout": format!("{}ms", 1000 + number) });
                self.edit(Kind::ApiRoute, namespace, &name, spec).await;
            }
        }
    }
}
