//! Which gateway to dial, and where.

use std::fmt;
use std::str::FromStr;

use flotilla_core::ids::GatewayId;

/// A gateway that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Who it has to be; `None`: whoever is there, by its certificate.
    pub gateway: Option<GatewayId>,
    /// `host:port`.
    pub address: String,
}

/// A text that names no gateway to dial.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no gateway to dial: {problem}; write NAMESPACE/NAME=HOST:PORT, for example gateways/edge-1=10.0.0.7:9446"
)]
pub struct TargetError {
    text: String,
    problem: &'static str,
}

impl Target {
    /// What the ring places: the gateway's name, or its address if only that is
    /// known. The slashes keep it apart from namespaces, which are on the same ring.
    pub fn ring_key(&self) -> String {
        match &self.gateway {
            Some(gateway) => format!("gateway/{gateway}"),
            None => format!("gateway/at/{}", self.address),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gateway {
            Some(gateway) => write!(f, "{gateway} at {}", self.address),
            None => f.write_str(&self.address),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let wrong = |problem| TargetError { text: text.to_owned(), problem };
        let (gateway, address) = text.trim().split_once('=').ok_or_else(|| wrong("there is no '='"))?;
        let (namespace, name) =
            gateway.split_once('/').ok_or_else(|| wrong("there is no '/' in its name"))?;
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(wrong("namespace or name is none"));
        }
        let authority: http::uri::Authority =
            address.parse().map_err(|_| wrong("the address is no HOST:PORT"))?;
        if authority.host().is_empty()
            || authority.port_u16().unwrap_or_default() == 0
            || address.contains('@')
        {
            return Err(wrong("the address is no HOST:PORT"));
        }
        let gateway = GatewayId { namespace: namespace.into(), name: name.into() };
        Ok(Target { gateway: Some(gateway), address: address.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_gateways_with_an_address() {
        let target: Target = " edge/gw-1=gw-1.edge.svc:9446".parse().unwrap();
        assert_eq!(target.to_string(), "edge/gw-1 at gw-1.edge.svc:9446");
        assert_eq!(target.ring_key(), "gateway/edge/gw-1");
        assert!("edge/gw=[::1]:9446".parse::<Target>().is_ok());
        for wrong in [
            "",
            "edge/gw",
            "gw=a:1",
            "edge/=a:1",
            "/gw=a:1",
            "a/b/c=d:1",
            "edge/gw=a",
            "edge/gw=:1",
            "edge/gw=a:0",
            "edge/gw=u@a:1",
        ] {
            let error = wrong.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("NAMESPACE/NAME=HOST:PORT"), "{wrong}: {error}");
        }
    }
}
