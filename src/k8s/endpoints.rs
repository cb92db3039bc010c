//! Gateways behind a Service: the addresses of its EndpointSlices.
//!
//! Every endpoint that is not about to go counts, ready or not: a gateway may not be
//! ready before it has been given its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::mirror::{Seen, mirror};

/// A Service whose endpoints are gateways.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name or number of the port at the endpoints; `None`: the only one.
    pub port: Option<String>,
}

/// A text that names no Service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no Service of gateways; write NAMESPACE/NAME or NAMESPACE/NAME:PORT, the port being a name or a number"
)]
pub struct NoService(String);

impl FromStr for ServicePort {
    type Err = NoService;

    fn from_str(text: &str) -> Result<Self, NoService> {
        let (service, port) = match text.trim().split_once(':') {
            Some((service, port)) => (service, Some(port.to_owned())),
            None => (text.trim(), None),
        };
        let sound = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        match service.split_once('/') {
            Some((namespace, name))
                if sound(namespace) && sound(name) && port.as_deref().is_none_or(sound) =>
            {
                Ok(ServicePort { namespace: namespace.to_owned(), name: name.to_owned(), port })
            }
            _ => Err(NoService(text.to_owned())),
        }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        self.port.iter().try_for_each(|port| write!(f, ":{port}"))
    }
}

/// Tells the addresses behind a Service whenever they may have changed, until
/// cancelled.
pub async fn follow(
    client: Client,
    service: ServicePort,
    out: mpsc::Sender<(ServicePort, BTreeSet<SocketAddr>)>,
    cancel: CancellationToken,
) {
    let (seen_in, mut seen) = mpsc::channel(64);
    let api: Api<EndpointSlice> = Api::namespaced(client, &service.namespace);
    let label = format!("kubernetes.io/service-name={}", service.name);
    let watching = mirror(api, "endpointslices", Some(&label), &|slice| slice, &|seen| seen, &seen_in);
    let telling = async {
        let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        while let Some(seen) = seen.recv().await {
            let name = |slice: &EndpointSlice| slice.metadata.name.clone().unwrap_or_default();
            match seen {
                Seen::All(all) => slices = all.into_iter().map(|slice| (name(&slice), slice)).collect(),
                Seen::Is(slice) => drop(slices.insert(name(&slice), *slice)),
                Seen::Gone(slice) => drop(slices.remove(&name(&slice))),
                Seen::Lost => continue,
            }
            let all: BTreeSet<_> =
                slices.values().flat_map(|slice| addresses(slice, service.port.as_deref())).collect();
            if out.send((service.clone(), of_one_family(all))).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased; // cancellation ends it at once
        () = cancel.cancelled() => {}
        // Nobody takes what is seen any more.
        ((), ()) = async { tokio::join!(watching, telling) } => cancel.cancelled().await,
    }
}

/// Of a Service with addresses of both families, those of IPv4: every endpoint has one
/// of each, in slices of their own.
fn of_one_family(all: BTreeSet<SocketAddr>) -> BTreeSet<SocketAddr> {
    let family = all.iter().any(SocketAddr::is_ipv4);
    all.into_iter().filter(|address| address.is_ipv4() == family).collect()
}

/// The addresses of one slice. Without the port that is asked for, and without one
/// that could be meant, there are none.
fn addresses(slice: &EndpointSlice, wanted: Option<&str>) -> BTreeSet<SocketAddr> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let is_wanted = |port: &&k8s_openapi::api::discovery::v1::EndpointPort| match wanted {
        None => ports.len() == 1,
        Some(wanted) => {
            port.name.as_deref() == Some(wanted) || port.port.is_some_and(|port| port.to_string() == wanted)
        }
    };
    let port = ports.iter().find(is_wanted).and_then(|port| u16::try_from(port.port?).ok());
    let Some(port) = port else { return BTreeSet::new() };
    let stays = |terminating: Option<bool>| terminating != Some(true);
    slice
        .endpoints
        .iter()
        .filter(|endpoint| stays(endpoint.conditions.as_ref().and_then(|one| one.terminating)))
        // The addresses of an endpoint are interchangeable, and slices of names have none.
        .filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, port))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_are_named_with_their_namespace() {
        for (text, port) in
            [("edge/gateways", None), ("edge/gateways:push", Some("push")), ("a/b:9446", Some("9446"))]
        {
            let service: ServicePort = text.parse().unwrap();
            assert_eq!((service.to_string().as_str(), service.port.as_deref()), (text, port));
        }
        for wrong in ["", "gateways", "edge/", "/gateways", "edge/gateways:", "edge/a,b", "a/b/c", "Edge/a"] {
            assert!(
                wrong.parse::<ServicePort>().unwrap_err().to_string().contains("NAMESPACE/NAME"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn endpoints_that_stay_count_ready_or_not() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": {"name": "s"},
            "ports": [{"name": "http", "port": 80}, {"name": "push", "port": 9446}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "terminating": true}},
                {"addresses": ["gateway.example.com"]},
            ],
        }))
        .unwrap();
        let check = |port: Option<&str>, expected: &[&str]| {
            let found: Vec<_> = addresses(&slice, port).iter().map(SocketAddr::to_string).collect();
            assert_eq!(found, expected, "{port:?}");
        };
        check(Some("push"), &["10.0.0.1:9446", "10.0.0.2:9446"]);
        check(Some("80"), &["10.0.0.1:80", "10.0.0.2:80"]);
        // Two ports, and none is named: nothing is guessed.
        check(None, &[]);
        check(Some("grpc"), &[]);
    }
}
