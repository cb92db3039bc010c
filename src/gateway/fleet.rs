//! Many gateways in one process.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin;
use crate::client::Client;
use crate::error::GatewayError;
use crate::events::{Event, EventHub};
use crate::gateway::Gateway;
use crate::listen::listen;
use crate::options::{FleetOptions, GatewayOptions, HttpListeners};
use crate::resource::ResourcePool;
use crate::serve::{bind, serve};

/// Pause between the starts of two gateways of a process: a thousand TLS
/// handshakes at once would make each other miss the registration's deadline.
const START_INTERVAL: Duration = Duration::from_millis(2);

/// Gateways that run, and the listeners they share.
#[derive(Debug)]
pub struct Fleet {
    gateways: Arc<[Arc<Gateway>]>,
    admin: Option<SocketAddr>,
    http: Vec<SocketAddr>,
    listening: Vec<SocketAddr>,
    events: EventHub,
    tasks: JoinSet<String>,
    cancel: CancellationToken,
}

impl Fleet {
    /// Binds the listeners and starts the gateways.
    ///
    /// # Errors
    /// When an option makes no sense or a listener cannot be bound.
    pub async fn start(gateways: Vec<GatewayOptions>, options: FleetOptions) -> Result<Fleet, GatewayError> {
        check(&gateways)?;
        let http = bind_http(options.http, gateways.len()).await?;
        let admin = match options.admin {
            Some(address) => Some(bind(address, "the admin pages").await?),
            None => None,
        };

        let mut listeners = Vec::with_capacity(gateways.len());
        for gateway in &gateways {
            listeners.push(match &gateway.listen {
                Some(listen) => Some(bind(listen.address, "controllers").await?),
                None => None,
            });
        }
        let bound = listeners.iter().flatten();
        let listening = bound.filter_map(|listener| listener.local_addr().ok()).collect();

        let (pool, events) = (Arc::new(ResourcePool::default()), EventHub::new(options.event_capacity));
        let gateways: Arc<[Arc<Gateway>]> = gateways
            .into_iter()
            .enumerate()
            .map(|(index, options)| {
                let serves_http = index < http.len();
                Arc::new(Gateway::new(options, pool.clone(), events.clone(), serves_http))
            })
            .collect();
        let mut fleet = Fleet {
            gateways,
            admin: admin.as_ref().and_then(|listener| listener.local_addr().ok()),
            http: http.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            listening,
            events,
            tasks: JoinSet::new(),
            cancel: CancellationToken::new(),
        };
        fleet.spawn_listeners(admin, http);
        fleet.spawn_links(listeners);
        let (count, admin, http) = (fleet.gateways.len(), fleet.admin, fleet.http.first());
        info!(gateways = count, ?admin, ?http, "gateways started");
        Ok(fleet)
    }

    /// The gateways, in the order in which they were asked for.
    pub fn gateways(&self) -> &[Arc<Gateway>] {
        &self.gateways
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where the first gateways serve HTTP, in their order.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        &self.http
    }

    /// Where those gateways that listen for controllers do so, in their order.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Everything that changes on any gateway from now on. A receiver that
    /// falls behind loses the oldest events and is told how many.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Runs until `cancel`, then stops.
    ///
    /// # Errors
    /// [`GatewayError::Task`] when a task ended by itself.
    pub async fn run_until(mut self, cancel: CancellationToken) -> Result<(), GatewayError> {
        let ended = tokio::select! {
            () = cancel.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        self.stop().await;
        match ended {
            None => Ok(()),
            Some(Ok(task)) => Err(GatewayError::Task { task }),
            Some(Err(error)) => Err(GatewayError::Task { task: error.to_string() }),
        }
    }

    /// Stops all gateways and listeners; requests in flight may finish.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    fn spawn_listeners(&mut self, admin: Option<TcpListener>, http: Vec<TcpListener>) {
        if let Some(listener) = admin {
            let router = admin::router(self.gateways.clone(), self.events.clone(), self.cancel.child_token());
            let service = move |_| TowerToHyperService::new(router.clone());
            let served = serve(listener, service, self.cancel.child_token());
            self.tasks.spawn(async move {
                served.await;
                "admin listener".to_owned()
            });
        }
        for (gateway, listener) in self.gateways.iter().zip(http) {
            let (id, gateway) = (gateway.id().clone(), gateway.clone());
            let service = move |peer| {
                let gateway = gateway.clone();
                service_fn(move |request| {
                    let gateway = gateway.clone();
                    async move {
                        match gateway.plane() {
                            Some(plane) => Ok(plane.serve(request, peer).await),
                            // Only gateways with a data plane have a listener.
                            None => Err(std::io::Error::other("this gateway serves no HTTP")),
                        }
                    }
                })
            };
            let served = serve(listener, service, self.cancel.child_token());
            self.tasks.spawn(async move {
                served.await;
                format!("HTTP listener of {id}")
            });
        }
    }

    /// What connects each gateway with its controller.
    fn spawn_links(&mut self, listeners: Vec<Option<TcpListener>>) {
        for (index, (gateway, listener)) in self.gateways.iter().zip(listeners).enumerate() {
            if let (Some(listener), Some(options)) = (listener, gateway.options().listen.clone()) {
                let id = gateway.id().clone();
                let served = listen(gateway.clone(), options, listener, self.cancel.child_token());
                self.tasks.spawn(async move {
                    served.await;
                    format!("listener of {id}")
                });
                continue;
            }
            let (id, client, cancel) =
                (gateway.id().clone(), Client::new(gateway.clone()), self.cancel.child_token());
            let wait = START_INTERVAL * u32::try_from(index).unwrap_or(u32::MAX);
            self.tasks.spawn(async move {
                // A cancelled token ends the client as soon as it starts.
                tokio::select! {
                    () = cancel.cancelled() => {}
                    () = tokio::time::sleep(wait) => {}
                }
                client.run(cancel).await;
                format!("client of {id}")
            });
        }
    }
}

/// Runs one gateway until `cancel`.
///
/// # Errors
/// As [`Fleet::start`] and [`Fleet::run_until`].
pub async fn run(
    gateway: GatewayOptions,
    options: FleetOptions,
    cancel: CancellationToken,
) -> Result<(), GatewayError> {
    run_many(vec![gateway], options, cancel).await
}

/// Runs many gateways until `cancel`.
///
/// # Errors
/// As [`Fleet::start`] and [`Fleet::run_until`].
pub async fn run_many(
    gateways: Vec<GatewayOptions>,
    options: FleetOptions,
    cancel: CancellationToken,
) -> Result<(), GatewayError> {
    Fleet::start(gateways, options).await?.run_until(cancel).await
}

fn check(gateways: &[GatewayOptions]) -> Result<(), GatewayError> {
    if gateways.is_empty() {
        return Err(GatewayError::NoGateway);
    }
    let mut seen = HashSet::new();
    for gateway in gateways {
        gateway.check()?;
        if !seen.insert(&gateway.id) {
            return Err(GatewayError::Duplicate { gateway: gateway.id.clone() });
        }
    }
    Ok(())
}

async fn bind_http(listeners: HttpListeners, gateways: usize) -> Result<Vec<TcpListener>, GatewayError> {
    let (first, count) = match listeners {
        HttpListeners::None => return Ok(Vec::new()),
        HttpListeners::First(address) => (address, 1),
        HttpListeners::All(address) => (address, gateways),
    };
    if first.port() != 0 && usize::from(u16::MAX - first.port()) + 1 < count {
        return Err(GatewayError::Ports { first: first.port(), count });
    }
    let mut bound = Vec::with_capacity(count);
    for index in 0..count {
        let port = if first.port() == 0 { 0 } else { first.port() + index as u16 };
        bound.push(bind(SocketAddr::new(first.ip(), port), "HTTP").await?);
    }
    Ok(bound)
}
