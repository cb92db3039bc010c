//! Backends, and which of their hosts gets the next request (A-50, A-52).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use flotilla_core::ids::Kind;

use crate::resource::{Content, Resource};
use crate::spec::BackendSpec;

/// Why a backend cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hosts: there is none with an address and a port; add one")]
pub(crate) struct NoHosts;

/// A compiled Backend or GRPCBackend.
#[derive(Debug)]
pub(crate) struct BackendSettings {
    pub(crate) hosts: Vec<HostSettings>,
    algorithm: Algorithm,
    /// Whether its hosts want TLS, which this gateway does not speak to
    /// upstreams.
    pub(crate) tls: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct HostSettings {
    /// `address:port`
    pub(crate) authority: String,
    weight: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    RoundRobin,
    Weighted,
    LeastConn,
    Random,
}

impl BackendSettings {
    pub(crate) fn compile(spec: &BackendSpec) -> Result<Self, NoHosts> {
        let hosts: Vec<HostSettings> = spec
            .hosts
            .iter()
            .flatten()
            .filter_map(|host| {
                let address = host.address.as_deref().filter(|address| !address.is_empty())?;
                let port = u16::try_from(host.port?).ok().filter(|port| *port != 0)?;
                Some(HostSettings {
                    authority: authority(address, port),
                    weight: u32::try_from(host.weight.unwrap_or(1)).unwrap_or(0),
                })
            })
            .collect();
        if hosts.is_empty() {
            return Err(NoHosts);
        }
        let algorithm = spec.load_balancer.as_ref().and_then(|balancer| balancer.algorithm.as_deref());
        Ok(BackendSettings {
            hosts,
            algorithm: match algorithm {
                Some("weighted") => Algorithm::Weighted,
                Some("leastConn") => Algorithm::LeastConn,
                Some("random") => Algorithm::Random,
                _ => Algorithm::RoundRobin,
            },
            tls: spec.tls.as_ref().and_then(|tls| tls.enabled).unwrap_or(false),
        })
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A backend in service: its settings and what balancing has to remember.
#[derive(Debug)]
pub(crate) struct BackendPool {
    pub(crate) settings: Arc<BackendSettings>,
    in_flight: Vec<Arc<AtomicUsize>>,
    turn: AtomicUsize,
}

/// A request that counts as in flight at a host until this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BackendPool {
    pub(crate) fn new(settings: Arc<BackendSettings>) -> Self {
        let in_flight = settings.hosts.iter().map(|_| Arc::new(AtomicUsize::new(0))).collect();
        BackendPool { settings, in_flight, turn: AtomicUsize::new(0) }
    }

    /// The host for the next request.
    pub(crate) fn pick(&self) -> (&HostSettings, InFlight) {
        let hosts = &self.settings.hosts;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % hosts.len();
        let index = match self.settings.algorithm {
            Algorithm::RoundRobin => turn,
            Algorithm::Random => rand::random_range(0..hosts.len()),
            Algorithm::Weighted => {
                let weights: Vec<u32> = hosts.iter().map(|host| host.weight).collect();
                pick_weighted(&weights)
            }
            // Ties go round, or the first host would get all light traffic.
            Algorithm::LeastConn => (0..hosts.len())
                .map(|offset| (turn + offset) % hosts.len())
                .min_by_key(|index| self.in_flight[*index].load(Ordering::Relaxed))
                .unwrap_or(turn),
        };
        let counter = self.in_flight[index].clone();
        counter.fetch_add(1, Ordering::Relaxed);
        (&hosts[index], InFlight(counter))
    }
}

/// A random index, in proportion to the weights; if all are zero, any.
pub(crate) fn pick_weighted(weights: &[u32]) -> usize {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return rand::random_range(0..weights.len());
    }
    let mut rest = rand::random_range(0..total);
    for (index, weight) in weights.iter().enumerate() {
        if rest < u64::from(*weight) {
            return index;
        }
        rest -= u64::from(*weight);
    }
    weights.len() - 1
}

/// Backends in service by `spec_json.name`. Made anew with every change of any
/// backend: then all of them forget what they knew, as on the published
/// gateway; route changes keep it.
#[derive(Debug, Default)]
pub(crate) struct BackendTable {
    http: HashMap<Arc<str>, Arc<BackendPool>>,
    grpc: HashMap<Arc<str>, Arc<BackendPool>>,
}

impl BackendTable {
    pub(crate) fn build<'a>(resources: impl Iterator<Item = &'a Arc<Resource>>) -> Self {
        let mut table = BackendTable::default();
        for resource in resources {
            let Content::Backend(loadable) = &resource.content else { continue };
            let Ok(settings) = &loadable.compiled else { continue };
            let pool = Arc::new(BackendPool::new(settings.clone()));
            let backends = if resource.kind == Kind::GrpcBackend { &mut table.grpc } else { &mut table.http };
            backends.insert(loadable.name.clone(), pool);
        }
        table
    }

    /// The backend that a route's destination names.
    pub(crate) fn find(&self, name: &str, grpc: bool) -> Option<&Arc<BackendPool>> {
        let (first, second) = if grpc { (&self.grpc, &self.http) } else { (&self.http, &self.grpc) };
        first.get(name).or_else(|| second.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(spec: &str) -> BackendPool {
        let spec: BackendSpec = serde_json::from_str(spec).unwrap();
        BackendPool::new(Arc::new(BackendSettings::compile(&spec).unwrap()))
    }

    fn shares(pool: &BackendPool, picks: usize) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for _ in 0..picks {
            let (host, _) = pool.pick();
            *shares.entry(host.authority.clone()).or_insert(0) += 1;
        }
        shares
    }

    const HOSTS: &str = r#"[{"address":"a","port":1,"weight":3},{"address":"b","port":2,"weight":1}]"#;

    #[test]
    fn round_robin_is_the_default_and_exact() {
        let shares = shares(&pool(&format!(r#"{{"hosts":{HOSTS}}}"#)), 10);
        assert_eq!((shares["a:1"], shares["b:2"]), (5, 5));
    }

    #[test]
    fn weights_are_kept_in_proportion() {
        let spec = format!(r#"{{"hosts":{HOSTS},"loadBalancer":{{"algorithm":"weighted"}}}}"#);
        let shares = shares(&pool(&spec), 4000);
        // 3000 expected, standard deviation 27: ten of them make chance failures unheard of.
        assert!((2730..3270).contains(&shares["a:1"]), "{shares:?}");
    }

    #[test]
    fn random_reaches_every_host() {
        let spec = format!(r#"{{"hosts":{HOSTS},"loadBalancer":{{"algorithm":"random"}}}}"#);
        let shares = shares(&pool(&spec), 1000);
        assert!(shares["a:1"] > 300 && shares["b:2"] > 300, "{shares:?}");
    }

    #[test]
    fn least_conn_avoids_the_busy_host() {
        let pool = pool(&format!(r#"{{"hosts":{HOSTS},"loadBalancer":{{"algorithm":"leastConn"}}}}"#));
        let (busy, _held) = pool.pick();
        let busy = busy.authority.clone();
        for _ in 0..5 {
            assert_ne!(pool.pick().0.authority, busy);
        }
    }

    #[test]
    fn a_backend_without_usable_hosts_cannot_be_loaded() {
        let check = |spec: &str| {
            let spec: BackendSpec = serde_json::from_str(spec).unwrap();
            assert_eq!(BackendSettings::compile(&spec).unwrap_err(), NoHosts);
        };
        check("{}");
        check(r#"{"hosts":[]}"#);
        check(r#"{"hosts":[{"address":"","port":80}]}"#);
        check(r#"{"hosts":[{"address":"a","port":0}]}"#);
    }

    #[test]
    fn ipv6_addresses_get_brackets() {
        assert_eq!(authority("::1", 80), "[::1]:80");
        assert_eq!(authority("[::1]", 80), "[::1]:80");
        assert_eq!(authority("svc.ns", 80), "svc.ns:80");
    }
}
