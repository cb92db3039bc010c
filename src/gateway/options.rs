//! What a gateway, and a process of gateways, is told to do.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use flotilla_certs::{ClientTls, Dial, ServerTls};
use flotilla_core::ids::GatewayId;

use crate::error::GatewayError;

/// One gateway.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    /// Who it says it is; its certificate must say the same.
    pub id: GatewayId,
    /// Its version, as it tells the controller.
    pub version: String,
    /// The pod it runs in, if any.
    pub pod_name: String,
    /// The node it runs on, if known.
    pub node_name: String,
    /// Labels that it tells the controller.
    pub labels: BTreeMap<String, String>,
    /// Where replicas of the controller can be reached. Each new connection
    /// goes to a drawn one, not the last: what a Service's load balancing does
    /// for a gateway that knows one address.
    pub operators: Vec<OperatorAddress>,
    /// Where it waits for a controller to push updates to it, instead of dialling
    /// one.
    pub listen: Option<Listen>,
    /// Its certificate and the authority it believes; `None` speaks plaintext.
    /// A renewed certificate is used by the next connection.
    pub tls: Option<ClientTls>,
    /// What connections run over.
    pub dial: Dial,
    /// The namespaces it asks for; empty: all.
    pub namespaces: Vec<String>,
    /// Whether applying costs what it costs the published gateway.
    pub apply_cost: ApplyCost,
    /// Multiplies the waits before reconnecting (1 s, 2 s, 4 s, …). For tests
    /// only: a real gateway has 1.0.
    pub backoff_scale: f64,
}

impl GatewayOptions {
    /// A gateway with the defaults of the published one.
    pub fn new(id: GatewayId, operators: Vec<OperatorAddress>, tls: Option<ClientTls>) -> Self {
        GatewayOptions {
            id,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pod_name: String::new(),
            node_name: String::new(),
            labels: BTreeMap::new(),
            operators,
            listen: None,
            tls,
            dial: Dial::tcp(),
            namespaces: Vec::new(),
            apply_cost: ApplyCost::None,
            backoff_scale: 1.0,
        }
    }

    pub(crate) fn check(&self) -> Result<(), GatewayError> {
        let invalid = |field: &'static str, problem: &str| GatewayError::Option {
            gateway: self.id.clone(),
            field,
            problem: problem.to_owned(),
        };
        if self.id.name.is_empty() || self.id.namespace.is_empty() {
            return Err(invalid("gateway-name", "name and namespace must not be empty; set both"));
        }
        if self.operators.is_empty() && self.listen.is_none() {
            return Err(invalid("operator-address", "there is none; give at least one HOST:PORT, or listen"));
        }
        if !(self.backoff_scale.is_finite() && self.backoff_scale > 0.0) {
            return Err(invalid("backoff-scale", "it must be a number above 0"));
        }
        Ok(())
    }
}

/// How a gateway listens for controllers.
#[derive(Debug, Clone)]
pub struct Listen {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Its certificate, and the authority whose controllers it believes.
    pub tls: ServerTls,
    /// The fleet of which controllers must be.
    pub trust_domain: Arc<str>,
    /// Whether it takes many updates in one call.
    pub batches: bool,
}

/// Host and port of a controller. The server's certificate is verified by the
/// host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorAddress {
    /// Name or IP address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for OperatorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An IPv6 address needs brackets before a port.
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl From<SocketAddr> for OperatorAddress {
    fn from(address: SocketAddr) -> Self {
        OperatorAddress { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for OperatorAddress {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        let malformed = || GatewayError::Address { text: text.to_owned() };
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(malformed)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(malformed)?,
            None if host.contains(':') => return Err(malformed()),
            None => host,
        };
        let port: u16 = port.parse().map_err(|_| malformed())?;
        if host.is_empty() || port == 0 {
            return Err(malformed());
        }
        Ok(OperatorAddress { host: host.to_owned(), port })
    }
}

/// Whether applying an update takes time, and how much.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ApplyCost {
    /// Only as long as it takes this gateway.
    #[default]
    None,
    /// As long as it takes the published gateway with as many routes: the
    /// gateway waits that long before it acknowledges.
    Real,
}

impl FromStr for ApplyCost {
    type Err = GatewayError;

    fn from_str(text: &str) -> Result<Self, GatewayError> {
        match text {
            "none" => Ok(ApplyCost::None),
            "real" => Ok(ApplyCost::Real),
            _ => Err(GatewayError::ApplyCost { text: text.to_owned() }),
        }
    }
}

/// Which gateways of a process serve HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpListeners {
    /// None of them.
    #[default]
    None,
    /// The first one, at this address.
    First(SocketAddr),
    /// All of them: the first one at this address, the others at the ports
    /// that follow (or each at a free port, if the port is 0).
    All(SocketAddr),
}

/// The process that the gateways run in.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Where `/config`, `/digest`, `/stats`, … are served, for all gateways.
    pub admin: Option<SocketAddr>,
    /// Which gateways serve HTTP, and where.
    pub http: HttpListeners,
    /// How many events are kept for observers that are slow to read; older
    /// ones are dropped, and counted.
    pub event_capacity: usize,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions { admin: None, http: HttpListeners::None, event_capacity: 16_384 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operator_addresses_are_host_and_port() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let parsed = text.parse::<OperatorAddress>().ok();
            assert_eq!(parsed.as_ref().map(|a| (a.host.as_str(), a.port)), expected, "{text}");
        };
        check("operator.avapigw:9444", Some(("operator.avapigw", 9444)));
        check("127.0.0.1:9444", Some(("127.0.0.1", 9444)));
        check("[::1]:9444", Some(("::1", 9444)));
        check("::1:9444", None);
        check("operator", None);
        check(":9444", None);
        check("operator:0", None);
        check("operator:99999", None);
    }

    #[test]
    fn impossible_options_are_refused_with_their_name() {
        let id = GatewayId { namespace: "ns".into(), name: "gw".into() };
        let operators = vec!["a:1".parse().unwrap()];
        let good = GatewayOptions::new(id.clone(), operators.clone(), None);
        assert!(good.check().is_ok());
        let error = GatewayOptions { operators: vec![], ..good.clone() }.check().unwrap_err().to_string();
        assert!(error.contains("ns/gw") && error.contains("operator-address"), "{error}");
        assert!(GatewayOptions { backoff_scale: f64::NAN, ..good.clone() }.check().is_err());
        assert!(GatewayOptions { backoff_scale: 0.0, ..good.clone() }.check().is_err());
        let nameless = GatewayId { namespace: "ns".into(), name: "".into() };
        assert!(GatewayOptions { id: nameless, ..good }.check().is_err());
    }
}
