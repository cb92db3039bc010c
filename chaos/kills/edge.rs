//! The gateways: all in this process, so that what they apply is timed by the
//! clock that times the changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use flotilla_certs::{Alpn, Authority, ClientTls, Identity, LeafRequest, ServerCheck};
use flotilla_core::ids::GatewayId;
use flotilla_gateway::{EventKind, Fleet, FleetOptions, Gateway, GatewayOptions, OperatorAddress, Phase};
use flotilla_testing::fleet::gateways::{GATEWAYS, TRUST_DOMAIN};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::book::{Book, ObjectId};

/// How often it is looked at how gateways stand.
const LOOK: Duration = Duration::from_millis(10);

/// The book, as all parts of a run share it.
pub type SharedBook = Arc<Mutex<Book>>;

/// Works on the book.
pub fn with_book<R>(book: &SharedBook, work: impl FnOnce(&mut Book) -> R) -> R {
    work(&mut book.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Running gateways and the task that writes down what they apply.
pub struct Edge {
    fleet: Fleet,
    gateways: Vec<Arc<Gateway>>,
    observer: JoinHandle<anyhow::Error>,
}

impl Edge {
    /// Starts `count` gateways that connect to `operators` in turn.
    ///
    /// # Errors
    /// When certificates or options cannot be used.
    pub async fn start(
        authority: &Authority,
        operators: &[String],
        count: usize,
        book: SharedBook,
    ) -> anyhow::Result<Edge> {
        let operators: Vec<OperatorAddress> =
            operators.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
        let options = (0..count).map(|number| {
            let name = format!("gateway-{number:03}");
            let identity = Identity::gateway(TRUST_DOMAIN, GATEWAYS, &name)?;
            let leaf = authority.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now())?;
            let tls = ClientTls::new(Some(&leaf), authority.roots(), ServerCheck::Name, Alpn::H2)?;
            let id = GatewayId { namespace: GATEWAYS.into(), name: name.into() };
            anyhow::Ok(GatewayOptions::new(id, operators.clone(), Some(tls)))
        });
        let options = options.collect::<anyhow::Result<Vec<_>>>()?;
        let fleet_options = FleetOptions { event_capacity: 1 << 18, ..FleetOptions::default() };
        let fleet = Fleet::start(options, fleet_options).await.context("gateways")?;
        let gateways = fleet.gateways().to_vec();
        let observer = tokio::spawn(observe(fleet.events(), gateways.clone(), book));
        Ok(Edge { fleet, gateways, observer })
    }

    /// The gateways.
    pub fn gateways(&self) -> &[Arc<Gateway>] {
        &self.gateways
    }

    /// How many have a stream.
    pub fn streaming(&self) -> usize {
        self.gateways.iter().filter(|gateway| gateway.link().phase == Phase::Streaming).count()
    }

    /// How many are served by this replica.
    pub fn served_by(&self, replica: &str) -> usize {
        let serves = |gateway: &&Arc<Gateway>| {
            let link = gateway.link();
            link.phase == Phase::Streaming && link.session.starts_with(replica)
        };
        self.gateways.iter().filter(serves).count()
    }

    /// Bytes of all updates so far, per gateway.
    pub fn bytes(&self) -> Vec<u64> {
        self.gateways.iter().map(|gateway| gateway.stats().bytes_received).collect()
    }

    /// Full synchronisations of all gateways so far.
    pub fn full_syncs(&self) -> u64 {
        self.gateways.iter().map(|gateway| gateway.stats().full_syncs).sum()
    }

    /// An error when not everything is seen any more.
    ///
    /// # Errors
    /// Why the observer ended.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.observer.is_finished(),
            "what gateways apply is not heard any more: events were lost"
        );
        Ok(())
    }

    /// Ends them.
    pub async fn stop(self) {
        self.observer.abort();
        self.fleet.stop().await;
    }
}

/// Writes down what gateways apply and how they stand; ends when something was
/// missed.
async fn observe(
    mut events: tokio::sync::broadcast::Receiver<flotilla_gateway::Event>,
    gateways: Vec<Arc<Gateway>>,
    book: SharedBook,
) -> anyhow::Error {
    let numbers: BTreeMap<GatewayId, usize> =
        gateways.iter().enumerate().map(|(number, gateway)| (gateway.id().clone(), number)).collect();
    let stands = |book: &mut Book, number: usize| {
        let link = gateways[number].link();
        if let (Some(attempted), Some(streaming)) = (link.attempted_at, link.streaming_since) {
            let (attempted, streaming) = (attempted.into_std(), streaming.into_std());
            let replica = link.session.split('/').next().unwrap_or_default();
            book.stream(number, replica, attempted.min(streaming), streaming);
        }
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    let Some(&number) = numbers.get(&event.gateway) else { continue };
                    let id: ObjectId = (event.resource.kind, event.resource.key.to_string());
                    let generation = (event.change != EventKind::Removed).then_some(event.resource.generation);
                    with_book(&book, |book| {
                        stands(book, number);
                        book.applied(number, &id, generation, event.at);
                    });
                }
                Err(RecvError::Lagged(lost)) => return anyhow::anyhow!("{lost} events were lost"),
                Err(RecvError::Closed) => return anyhow::anyhow!("the gateways ended"),
            },
            _ = looks.tick() => with_book(&book, |book| {
                (0..gateways.len()).for_each(|number| stands(book, number));
            }),
        }
    }
}
