//! What all of these scenarios have in common: a fleet in which somebody changes
//! something ten times a second, and which must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use flotilla_certs::{Alpn, Authority, ClientTls, Identity, LeafRequest, ServerCheck, TrustRoots};
use flotilla_core::ids::Kind;
use flotilla_testing::fleet::gateways::{GATEWAYS, TRUST_DOMAIN};
use flotilla_testing::fleet::objects::Tenants;
use kube::api::{Patch, PatchParams};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::fleet::Fleet;
use crate::fleet::objects::answering;
use crate::fleet::waiting::{SOON, figure, within};

/// Namespace of the routes that change.
const SHOP: &str = "shop";
/// How many routes there are.
const ROUTES: usize = 20;
/// A change every so often.
const PERIOD: Duration = Duration::from_millis(100);

/// Changes that go on until they are stopped.
pub struct Changes {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u32>,
}

impl Changes {
    /// Changes one route after the other.
    pub fn start(fleet: &Fleet) -> Changes {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, tenants) = (stop.clone(), Tenants { client: fleet.client() });
        let task = tokio::spawn(async move {
            let mut made = 0_u32;
            let mut ticks = tokio::time::interval(PERIOD);
            while !told.load(Ordering::Relaxed) {
                ticks.tick().await;
                let name = route(made as usize % ROUTES);
                let spec = answering(SHOP, &name, &format!("change {made}"));
                let patch = Patch::Merge(json!({ "spec": spec }));
                let api = tenants.api(Kind::ApiRoute, SHOP);
                api.patch(&name, &PatchParams::default(), &patch).await.expect("a change is written");
                made += 1;
            }
            made
        });
        Changes { stop, task }
    }

    /// How many were made.
    async fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("every change was written")
    }
}

fn route(number: usize) -> String {
    format!("route-{number:02}")
}

/// Creates what is changed, and gateways: so many per replica, each group with one, so
/// that no replica has more than its share and ends streams for that.
pub async fn settle(fleet: &mut Fleet, authority: &Authority, per_replica: usize) {
    fleet.tenants.namespaces([SHOP.to_owned()]).await;
    let route = |number| (SHOP.to_owned(), route(number), answering(SHOP, &route(number), "first"));
    fleet.tenants.create_all(Kind::ApiRoute, (0..ROUTES).map(route)).await;
    for (number, operator) in fleet.operators().into_iter().enumerate() {
        let name = format!("edge-{number}");
        fleet.add_gateways_of(authority, &name, per_replica, &[operator]).await;
    }
    fleet.settled_within(2 * SOON).await;
}

/// Ends the changes, and looks whether anybody noticed anything.
pub async fn nobody_noticed(fleet: &mut Fleet, changes: Changes, what: &str) {
    let made = changes.stop().await;
    fleet.settled_within(2 * SOON).await;
    let shown = fleet.show().await.unwrap();
    let lost: u64 = shown.iter().map(|gateway| gateway.stats.reconnects).sum();
    let rejected: u64 = shown.iter().map(|gateway| gateway.stats.nacks).sum();
    figure(&format!(
        "{what}: {made} changes, {} gateways: all hold them; streams dropped {lost}, rejected {rejected}",
        shown.len()
    ));
    assert_eq!((lost, rejected), (0, 0));
    fleet.nothing_went_back().await;
}

/// A gateway's TLS that was given its certificate by one and believes others.
pub fn gateway_tls(issuer: &Authority, believes: &TrustRoots) -> ClientTls {
    let identity = Identity::gateway(TRUST_DOMAIN, GATEWAYS, "stranger").unwrap();
    let leaf = issuer.issue_leaf(&LeafRequest::gateway(identity), SystemTime::now()).unwrap();
    ClientTls::new(Some(&leaf), believes, ServerCheck::Name, Alpn::H2).unwrap()
}

/// An error when a port does not serve a gateway with this TLS. A server speaks first
/// in HTTP/2, and only to those whom it believes.
pub async fn is_served(port: u16, tls: &ClientTls) -> Result<(), String> {
    let text = |error: std::io::Error| format!("port {port}: {error}");
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(text)?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(tls.config()).connect(name, stream).await.map_err(text)?;
    let first = tokio::time::timeout(SOON, stream.read_u8()).await;
    first.map_err(|_| format!("port {port}: no word"))?.map(drop).map_err(text)
}

/// Waits until every replica serves a gateway with this TLS.
pub async fn all_serve(fleet: &Fleet, what: &str, tls: &ClientTls) {
    within(SOON, what, async || {
        for replica in &fleet.replicas {
            is_served(replica.grpc, tls).await?;
        }
        Ok(())
    })
    .await;
}

/// Waits until a metric of every replica has a value.
pub async fn all_say(fleet: &Fleet, metric: &str, label: &str, wanted: f64) {
    within(SOON, &format!("{metric} is {wanted}"), async || {
        for replica in &fleet.replicas {
            let found = replica.metric(metric, label).await?;
            if (found - wanted).abs() > 0.1 {
                return Err(format!("{}: {found}", replica.name));
            }
        }
        Ok(())
    })
    .await;
}
